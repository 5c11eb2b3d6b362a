"""`tito bench` as a product: choosing, failing, going on, a page that needs no network, and functions of one's own."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tinytorch.bench import compare, page, peers, workloads
from tinytorch.bench.compare import TargetFailed
from tinytorch.bench.journal import Journal
from tinytorch.bench.rows import Row, Settings, Target, Workload
from tinytorch.bench.same import DifferentResults
from tinytorch.bench.timing import Timing
from tinytorch.bench.work import Launch, Work
from tinytorch.cli import bench as command
from tinytorch.cli.app import app
from tinytorch.runtime import pool

MINE = """
import tinytorch as tt

EXAMPLES = (tt.ones(4, 8),)

def double(x):
    return x * 2

def double_torch(x):
    assert type(x).__module__ == "torch"
    return x + x

def double_jax():
    import jax.numpy as jnp
    return (lambda x: 2 * x), jnp.ones((4, 8))

def wrong(x):
    return x * 2

def wrong_torch(x):
    return x * 3

def broken(x):
    raise ZeroDivisionError("on purpose")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a file of a user's, short measurements, a kernel cache for journals only, and threads put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(Settings, "seconds", 0.01)
    monkeypatch.setitem(compare.bench.__kwdefaults__, "repeats", 3)
    monkeypatch.setattr(command, "build", type("Build", (), {"kernel_dir": staticmethod(lambda: tmp_path)}))
    monkeypatch.setenv("TINYTORCH_THREADS", os.environ.get("TINYTORCH_THREADS", ""))
    monkeypatch.setattr(pool, "_threads", None)
    (tmp_path / "timed.py").write_text(MINE)
    yield tmp_path
    sys.modules.pop("timed", None)


def tito(*words: object, code: int = 0) -> str:
    """What `tito bench` says; its exit status must be `code`."""
    result = CliRunner().invoke(app, ["bench", *map(str, words)], env={"COLUMNS": "140"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def say(monkeypatch: pytest.MonkeyPatch, **runs: Any) -> None:
    """Workloads of these names, each a function without parameters that gives its figure."""
    made = {name: Workload(name, f"about {name}", lambda settings, name=name, run=run: iter(
        [Row(name, f"case of {name}", run(), Target(1.0))]), "Group") for name, run in runs.items()}
    for module in (workloads, command):
        monkeypatch.setattr(module, "WORKLOADS", made)
    monkeypatch.setattr(command, "GROUPS", dict.fromkeys(made, "Group"))


def test_bad_words_are_told_before_anything_is_measured(here: Path) -> None:
    for words in (("nonsense",), ("call", "--vs", "tensorflow"), ("call", "--threads", "0"), ("nowhere.py:f",),
                  ("timed.py:nothing",), ("call", "timed.py:double"), ("call", "--json", "no/such/folder.json"),
                  ("call", "--html", "no/such/folder.html"), ("call", "--write")):
        tito(*words, code=2)


def test_absent_peers_are_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "missing", lambda peer: ["onnx"] if peer == "onnxruntime" else [])
    assert "onnxruntime is left out: it needs onnx" in tito("call", "--vs", "onnxruntime")
    assert command._peers(None, quick=False) == {"torch", "torch-compile", "jax", "llama.cpp"}
    assert command._peers(None, quick=True) == {"torch", "jax", "llama.cpp"}
    assert command._peers("torch-compile", quick=True) == {"torch-compile"} and command._peers("none", False) == set()


def test_threads_are_set_for_all(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, one=lambda: float(pool.get_num_threads()), two=lambda: float(os.environ["TINYTORCH_THREADS"]))
    tito("--threads", "3", "--json", "b.json")
    data = json.loads((here / "b.json").read_text())
    assert [row["figure"] for row in data["rows"]] == [3.0, 3.0] and data["environment"]["threads"] == 3


def test_one_failure_does_not_lose_the_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, good=lambda: 2.0, bad=lambda: 1 // 0, last=lambda: 0.5)
    said = tito("--json", "b.json", code=1)
    assert "ZeroDivisionError" in said and "1 of 2 targets reached" in said
    rows = json.loads((here / "b.json").read_text())["rows"]
    assert [(row["workload"], row["figure"]) for row in rows] == [("good", 2.0), ("bad", None), ("last", 0.5)]
    assert list(here.glob("bench-*.json")), "what is finished is kept"
    say(monkeypatch, good=lambda: 9.0, bad=lambda: 3.0, last=lambda: 9.0)
    tito("--json", "b.json", "--resume")
    rows = json.loads((here / "b.json").read_text())["rows"]
    assert [row["figure"] for row in rows] == [2.0, 3.0, 0.5], "only what had failed is measured again"
    assert not list(here.glob("bench-*.json")), "nothing is left to resume"


def test_an_interrupted_run_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> float:
        raise KeyboardInterrupt

    say(monkeypatch, first=lambda: 2.0, second=interrupt)
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code != 0 and "tito bench --resume" in result.output
    say(monkeypatch, first=lambda: 7.0, second=lambda: 3.0)
    assert "2 of 2 targets reached" in tito("--resume", "--json", "b.json")
    assert [row["figure"] for row in json.loads((here / "b.json").read_text())["rows"]] == [2.0, 3.0]


def test_the_journal_knows_what_its_rows_depend_on(tmp_path: Path) -> None:
    settings, row = Settings(1, frozenset()), Row("call", "case", 1.0, Target(2.0), Timing((1.0, 2.0)))
    Journal(tmp_path, ["call"], settings, resume=False).finish("call", [row])
    assert Journal(tmp_path, ["call"], settings, resume=True).rows == {"call": [row]}
    assert Journal(tmp_path, ["call"], settings, resume=False).rows == {}
    for names, other in ((["call", "rows"], settings), (["call"], Settings(2, frozenset())),
                         (["call"], Settings(1, frozenset({"jax"}))), (["call"], Settings(1, frozenset(), True))):
        assert Journal(tmp_path, names, other, resume=True).rows == {}
    path = Journal(tmp_path, ["call"], settings, resume=True).path
    for broken in ("", "{", "[1]", '{"call": [{}]}', '{"call": 3}'):
        path.write_text(broken)
        assert Journal(tmp_path, ["call"], settings, resume=True).rows == {}


# -- the page ----------------------------------------------------------------------------------------------------------


def measured() -> list[Row]:
    work = Work(3, 2, 4_000_000, 500_000, 64, 0, 8, "images", 1e-5, (Launch("matmul", 1000, 500, 2e-6),
                                                                      Launch("copy", 0, 500, 1e-6)))
    ours = Timing((1e-4, 1.1e-4, 0.9e-4))
    theirs = {"torch": Timing((2e-4, 2.2e-4, 2e-4)), "jax": "not installed"}
    return [Row("train-mlp", "mlp training step, batch 64, 2 threads", 2.0, Target(1.5), ours, theirs,
                interval=(1.9, 2.3), first={"ours": 0.1, "torch": 0.2}, work=work),
            Row("conv", "a <case>, 2 threads", 0.7, Target(0.8, "%"), ours, theirs, "%", work=work),
            Row("call", "bare", None)]


def test_the_page_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    groups = {name: workload.group for name, workload in workloads.WORKLOADS.items()}
    path = page.write_page(tmp_path / "b.html", measured(), Settings(2), groups)
    text = path.read_text()
    assert text.count("data:image/svg+xml;base64,") == 3, "networks, operators, roofline"
    assert "a &lt;case&gt;" in text and "2.00× (1.90 – 2.30)" in text and "80,000 images/s" in text
    outside = re.findall(r'(?:src|href)="(?!data:)[^"]*"', text)
    assert not outside and "@import" not in text and sorted(os.listdir(tmp_path)) == ["b.html"]


def test_what_the_pictures_show() -> None:
    rows, groups = measured(), {"train-mlp": "Training steps", "conv": "Operators", "call": "Start-up and memory"}
    found = page.ratios(rows, Settings(2))
    assert list(found) == ["mlp training step, batch 64", "a <case>"]
    assert found["a <case>"]["torch"].figure == pytest.approx(2.0) and set(found["a <case>"]) == {"torch"}
    series, labels = page.points(rows, groups, Settings(2))
    place = (8.0, pytest.approx(40.0))
    assert series == {"launches": [(2.0, 0.5), (2.0, 0.5)], "Training steps": [place], "Operators": [place]}
    assert list(labels.values()) == ["mlp training step, batch 64"]
    assert list(page.ratios(rows, Settings(1))) == ["mlp training step, batch 64, 2 threads", "a <case>, 2 threads"]


# -- a function of one's own -------------------------------------------------------------------------------------------


def test_a_function_alone(here: Path) -> None:
    said = tito("timed.py:double", "--vs", "none", "--json", "own.json", "--html", "own.html")
    assert "times as fast" in said and "torch" not in said
    data = json.loads((here / "own.json").read_text())
    [row] = data["rows"]
    assert row["case"] == "compiled, against eager" and row["work"]["launches"] == 1
    assert "timed.py:double" in (here / "own.html").read_text()


@pytest.mark.peers("torch", "jax")
def test_a_function_with_others_beside_it(here: Path) -> None:
    data = json.loads(tito("timed.py:double", "--vs", "torch,jax", "--json", "-"))
    assert [row["case"] for row in data["rows"]] == [f"compiled, against {name}" for name in ("eager", "jax", "torch")]


@pytest.mark.peers
def test_functions_that_differ_or_fail(here: Path) -> None:
    with pytest.raises(DifferentResults, match="torch and ours differ by up to 1"):
        tito("timed.py:wrong", "--vs", "torch")
    with pytest.raises(TargetFailed, match=r"timed.py:broken raised ZeroDivisionError: on purpose\nin .*timed.py:24"):
        tito("timed.py:broken")
