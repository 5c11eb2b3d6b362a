"""Run the notebooks of examples/notebooks, and store what they print and draw in them.

    python scripts/run_notebooks.py                  all of them
    python scripts/run_notebooks.py pruning          some of them
    python scripts/run_notebooks.py --check          run, but leave the files as they are

Needs what `pip install -e .[test]` brings. Exit status 1 if a cell fails.
"""

import argparse
import sys
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "notebooks"


def run(path: Path, check: bool = False) -> None:
    """Execute a notebook in an empty kernel; write its outputs back unless `check`.

    Raises:
        CellExecutionError: a cell failed; the file is as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(FOLDER))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        for output in cell.get("outputs", ()):
            output.get("metadata", {}).pop("needs_background", None)
    if not check:
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="some of them, by name")
    parser.add_argument("--check", action="store_true", help="leave the files as they are")
    args = parser.parse_args()
    failed = 0
    for path in sorted(FOLDER.glob("*.ipynb")):
        if args.names and path.stem not in args.names:
            continue
        try:
            run(path, args.check)
            print(f"{path.stem}: well")
        except nbclient.exceptions.CellExecutionError as error:
            failed = 1
            print(f"{path.stem}: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
