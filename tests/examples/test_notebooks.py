"""The notebooks of examples/ hold what they print and draw, in order and without errors; slow: they still run."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_there_is_one_for_each_theme() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"generation", "pruning", "quantisation"}


@each
def test_it_was_run_from_top_to_bottom(path: Path) -> None:
    found = cells(path)
    assert [cell["execution_count"] for cell in found] == list(range(1, len(found) + 1)), "run scripts/run_notebooks.py"
    outputs = [output for cell in found for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not [part for part in ("/home/", "/root/", "/work/", "/tmp/") if part in path.read_text()]


@each
def test_its_pictures_are_whole(path: Path) -> None:
    pictures = [output["data"]["image/png"] for cell in cells(path) for output in cell["outputs"]
                if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2 and all(base64.b64decode(text)[-8:-4] == b"IEND" for text in pictures)


@pytest.mark.slow
@each
def test_it_still_runs(path: Path) -> None:
    run = subprocess.run([sys.executable, ROOT / "scripts" / "run_notebooks.py", "--check", path.stem],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
