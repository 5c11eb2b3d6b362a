"""The scripts of examples/prune_cnn reach their gates, and miss them when a part is taken out. Minutes: `-m slow`."""

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tinytorch import data
from tinytorch.prune import KeepZeros

FOLDER = Path(__file__).parents[2] / "examples" / "prune_cnn"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gates(module: ModuleType, output: Path, *arguments: str) -> tuple[int, dict[str, bool]]:
    """The exit status of a quick run, and which gates it reached."""
    code = module.main(["--quick", "--output", str(output), *arguments])
    row = json.loads(next(output.rglob("*.json")).read_text())
    return code, {gate["name"]: gate["reached"] for gate in row["gates"]}


@pytest.mark.slow
def test_weights(tmp_path: Path) -> None:
    code, reached = gates(script("prune_weights"), tmp_path)
    assert code == 0 and all(reached.values())


@pytest.mark.slow
def test_weights_with_masks_that_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeepZeros, "update", lambda self, group: self.inner.update(group))
    code, reached = gates(script("prune_weights"), tmp_path, "--epochs", "1")
    assert code == 1 and not reached["zeros"]


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch, full_data: Path) -> ModuleType:
    """The script on a tenth of the photographs."""
    module = script("prune_channels")
    sets = [data.TensorDataset(images[:count], labels[:count].astype(np.int64)) for (images, labels), count in
            zip(map(data.cifar10, ("train", "test")), (5000, 1000), strict=True)]
    monkeypatch.setattr(module, "load", lambda: sets)
    monkeypatch.setattr(module, "QUICK_POINTS", 15.0)
    monkeypatch.setattr(module, "FASTER", 1.2)  # neighbours of this test
    return module


@pytest.mark.slow
def test_channels(channels: ModuleType, tmp_path: Path) -> None:
    code, reached = gates(channels, tmp_path, "--epochs", "2")
    assert code == 0 and all(reached.values())


def untrained(cut: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The smaller network without the weights that it was left with."""
    def again(model: Any) -> Any:
        small = cut(model)
        random = np.random.default_rng(0)
        for p in small.parameters():
            p.payload[...] = random.standard_normal(p.shape) * 0.02
        return small
    return again


@pytest.mark.slow
def test_channels_whose_weights_are_lost(channels: ModuleType, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "cut", untrained(channels.cut))
    code, reached = gates(channels, tmp_path, "--epochs", "2")
    assert code == 1 and not reached["points of accuracy lost"]


@pytest.mark.slow
def test_channels_that_stay(channels: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "cut", copy.deepcopy)
    monkeypatch.setattr(channels, "train", lambda *given, **options: None)
    code, reached = gates(channels, tmp_path)
    assert code == 1 and not reached["times fewer FLOPs"] and not reached["times faster, batch 64"]
