"""Fixtures for the examples: a script as a module, and a reduced run of it."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """`example("xor_1969/minsky_xor_problem.py")`: the script, imported as its own folder sees it."""

    def load(script: str) -> ModuleType:
        path = EXAMPLES / script
        monkeypatch.syspath_prepend(str(path.parent))
        return importlib.import_module(path.stem)

    return load


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`quick(module)`: the row that a run with `--quick` reports, with its exit status under "exit"."""

    def run(module: ModuleType, *args: str) -> dict[str, Any]:
        status = module.main(["--quick", "--output", str(tmp_path), *args])
        (written,) = tmp_path.glob("*.json")
        row: dict[str, Any] = json.loads(written.read_text())
        return {**row, "exit": status}

    return run
