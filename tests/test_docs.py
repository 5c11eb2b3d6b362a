"""The documents tell the truth: their Python is run, block after block, and so are the examples in docstrings.

In README.md, CONTRIBUTING.md and docs/, a block marked ```python is run, the blocks of a file in order, in one
namespace, in an empty folder, with only the digits that ship. ```pycon is a session whose output is compared.
"```python no-run" is skipped; it is for what cannot run here, such as a download.
"""

import doctest
import importlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(python|pycon)[ \t]*([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what stands after it, its text and the line before it."""

    language: str
    note: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """All Python blocks of a Markdown file."""
    text = path.read_text()
    return [
        Block(match[1], match[2].strip(), match[3], text.count("\n", 0, match.start()) + 1)
        for match in FENCE.finditer(text)
    ]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and no data set but the digits that ship."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYTORCH_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", lambda *args, **kwargs: tmp_path / "no-data")
    return tmp_path


@pytest.mark.parametrize("path", [path for path in DOCS if blocks(path)], ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_run(path: Path, bare: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(path):
        assert block.note in ("", "no-run"), f"{path}:{block.line}: what is ```{block.language} {block.note}?"
        if block.note == "no-run":
            continue
        if block.language == "pycon":
            check_session(block.text, namespace, path, block.line)
        else:  # under the name and at the line of the document, so that tracebacks and traced source lines point there
            exec(compile("\n" * block.line + block.text, str(path), "exec"), namespace)


def check_session(text: str, namespace: dict[str, Any], path: Path, line: int) -> None:
    """Run `>>>` lines and compare what they print. The namespace is shared with the other blocks of the file."""
    test = doctest.DocTestParser().get_doctest(text, namespace, path.name, str(path), line)
    test.globs = namespace
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    runner.run(test, out=report.append, clear_globs=False)
    assert not runner.failures, "".join(report)


def modules_with_examples() -> list[str]:
    """Every module of the package in whose text stands a `>>>`."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = []
    for package in setuptools["packages"]:
        folder = ROOT / setuptools["package-dir"].get(package, package.replace(".", "/"))
        for path in sorted(folder.glob("*.py")):
            if ">>> " in path.read_text():
                found.append(package if path.stem == "__init__" else f"{package}.{path.stem}")
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples_run(name: str, bare: Path) -> None:
    module = importlib.import_module(name)
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries, f"{name}: `>>>` stands there, but no example is found"
