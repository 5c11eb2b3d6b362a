"""`tito`: help, targets, exit status, panels in place of tracebacks, JSON, and a demo that fails when it should."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import tinytorch as tt
from tinytorch import cli
from tinytorch.bench import compare, peers, rows
from tinytorch.cli import demo, demo_program, race
from tinytorch.cli.app import app
from tinytorch.cli.race import Runner

MODEL = """
import tinytorch as tt
from tinytorch import nn

model = nn.Linear(3, 2)
EXAMPLES = (tt.zeros(5, 3),)

def double(x):
    return x * 2

double.EXAMPLES = tt.ones(4)

def both():
    return model, tt.zeros(7, 3)

def bad():
    return 3

number = 5
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of a user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(MODEL)
    yield tmp_path / "mine.py"
    sys.modules.pop("mine", None)


def tito(*words: object, code: int = 0) -> str:
    """What a command says; its exit status must be `code`."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "140"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


# -- the front ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), *((name,) for name in ("demo", "show", "profile", "opt", "bench", "doctor",
                                                             "cache")),
                                   ("cache", "info"), ("cache", "clear")])  # fmt: skip
def test_help_everywhere(words: tuple[str, ...]) -> None:
    assert "Usage" in tito(*words, "--help") == tito(*words, "-h")


def test_version_and_usage() -> None:
    assert tito("--version").strip() == f"tinytorch {tt.__version__}"
    tito("nonsense", code=2)
    tito("show", code=2)
    tito("demo", "--epochs", "0", code=2)


def run_main(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from tinytorch.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True,
                          env={**os.environ, **environment})


def test_an_error_is_one_panel(tmp_path: Path) -> None:
    broken = tmp_path / "g.ttg"
    broken.write_bytes(b"no graph")
    run = run_main("show", str(broken), TINYTORCH_DEBUG="")
    assert run.returncode == 1 and "FormatError" in run.stderr and "Traceback" not in run.stderr and run.stdout == ""
    run = run_main("show", str(broken), TINYTORCH_DEBUG="1")
    assert run.returncode == 1 and "Traceback" in run.stderr


def test_main_leaves_other_errors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinytorch.cli.app.app", lambda prog_name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()


# -- targets, show, profile --------------------------------------------------------------------------------------------


def test_show_writes_a_picture_and_a_page(model: Path, tmp_path: Path) -> None:
    said = tito("show", "mine.py:model", "--out", tmp_path / "out")
    assert "linear_1 = linear" in said and "mine.py" not in said.split("stages:")[1].split("picture")[0]
    for name in ("Linear.svg", "Linear.html"):
        assert (tmp_path / "out" / name).stat().st_size > 1000 and str(tmp_path / "out" / name) in said


def test_show_only_the_tree_or_the_text(model: Path) -> None:
    assert "└── return" in tito("show", "mine.py:both", "--tree")
    text = tito("show", "mine.py:both", "--text")
    assert tt.Graph.from_text(text).inputs[0].shape == (7, 3)
    assert "fused" in tito("show", "mine.py:model", "--tree", "--stage", "last")
    assert "matmul" in tito("show", "mine.py:model", "--text", "--stage", "expandcomposites")
    assert "there is no stage" in tito("show", "mine.py:model", "--stage", "Nothing", code=2)


def test_show_as_json(model: Path) -> None:
    data = json.loads(tito("show", "mine.py:double", "--json"))
    assert data["stage"] == "given" and [node["op"] for node in data["nodes"]][-1] == "mul"


def test_show_a_file(model: Path, tmp_path: Path) -> None:
    tt.trace(lambda x: x + 1, tt.ones(2)).with_(name="mine").save(tmp_path / "g.ttg")
    assert "add" in tito("show", tmp_path / "g.ttg", "--tree")


def test_a_module_is_a_target_too(model: Path) -> None:
    assert "mul" in tito("show", "mine:double", "--tree")


@pytest.mark.parametrize(("target", "told"), [
    ("mine.py", "file.py:name"), ("other.py:f", "no file"), ("no.such.module:f", "no module"),
    ("mine.py:nothing", "double"), ("mine.py:number", "not callable"), ("mine.py:bad", "expected (callable"),
])  # fmt: skip
def test_bad_targets_are_usage_errors(model: Path, target: str, told: str) -> None:
    said = re.sub(r"\s+", " ", tito("show", target, code=2).replace("│", ""))
    assert told in said


def test_examples_are_asked_for(model: Path) -> None:
    model.write_text(MODEL.replace("EXAMPLES = (tt.zeros(5, 3),)", ""))
    assert "EXAMPLES" in tito("show", "mine.py:model", code=2)


def test_profile(model: Path, tmp_path: Path) -> None:
    assert "8 parameters" in tito("profile", "mine.py:model")
    assert json.loads(tito("profile", "mine.py:model", "--json"))["parameters"] == 8
    assert "roofline" in tito("profile", "mine.py:model", "--run", "--out", tmp_path / "p.html")
    assert (tmp_path / "p.html").exists()
    tito("profile", "g.ttg", code=2)


# -- bench, doctor, cache ----------------------------------------------------------------------------------------------


def test_bench(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gemm-peak" in tito("bench", "--list")
    assert "there are train-mlp" in tito("bench", "nonsense", code=2)
    tito("bench", "call", "--vs", "tensorflow", code=2)
    monkeypatch.setattr(rows.Settings, "seconds", 0.01)
    said = tito("bench", "call", "--quick", "--vs", "none", "--json", tmp_path / "b.json")
    assert "of 2 targets reached" in said
    assert len(json.loads((tmp_path / "b.json").read_text())["rows"]) == 2
    assert "--write" in tito("bench", "call", "--quick", "--vs", "none", "--write", code=2), "not in a repository"
    (tmp_path / "docs").mkdir()
    tito("bench", "call", "--quick", "--vs", "none", "--write")
    assert "## call" in (tmp_path / "docs" / "benchmarks.md").read_text()


def test_bench_of_your_own(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compare.bench.__kwdefaults__, "repeats", 3)
    assert "times as fast" in tito("bench", "mine.py:double")
    assert json.loads(tito("bench", "mine.py:double", "--json", "-"))["eager"]["rounds"] == 3


def test_doctor() -> None:
    found = json.loads(tito("doctor", "--json"))
    assert found["problems"] == [] and found["machine"]["gflops"] > 0 and found["digits"]["train"] >= 5000
    said = tito("doctor")
    for word in ("numpy", "threads", "GFLOP/s", "GB/s", found["cache"]["folder"], "all that is needed is here"):
        assert word in said


def test_doctor_finds_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "version", lambda name: None if name == "wasmtime" else "1.0")
    assert "wasmtime is missing: pip install wasmtime" in tito("doctor", code=1)


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTORCH_CACHE", str(tmp_path))
    assert json.loads(tito("cache", "info", "--json"))["kernels"] == 0
    tt.compile(lambda x: ((x * 1.25 + 0.375).sin() * x).cos() - x)(tt.ones(3))  # new to this process
    assert "0 kernels" not in tito("cache", "info")
    assert "freed" in tito("cache", "clear")
    assert json.loads(tito("cache", "info", "--json"))["bytes"] == 0


# -- the demo ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One BLAS thread, as two wait for each other on a busy machine; and nothing of the demo's stays imported."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield
    sys.modules.pop("model", None)


def test_demo(tmp_path: Path, calm: None) -> None:
    said = tito("demo", "--out", tmp_path)
    for words in ("5,000 digits to learn from", "linear_1 = linear", "Fuse", "compiled", "times as fast", "roofline"):
        assert words in said
    assert float(re.findall(r"([\d.]+) %\s*\n", said.split("The outcome")[1])[0]) >= 90
    for name in ("report.html", "loss.png", "race.png", "model.svg", "step.svg", "model.py"):
        assert (tmp_path / name).stat().st_size > 500 and (name == "model.py" or str(tmp_path / name) in said)
    page = (tmp_path / "report.html").read_text()
    for words in ("The outcome", "times as fast", "Fuse", "def matmul", "model.py:21"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org/", ""), "nothing is loaded from anywhere"
    assert "linear" in tito("show", tmp_path / "model.py:example", "--tree")


def test_demo_fails_with_a_zeroed_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm: None) -> None:
    zeroed = demo_program.PROGRAM.replace("loss.backward()", "(loss * 0).backward()")
    monkeypatch.setattr(demo_program, "PROGRAM", zeroed)
    said = tito("demo", "--out", tmp_path, "--epochs", 1, code=1)
    assert "eager: " in said and "compiled: " in said and "expected at least 90 %" in said


def test_demo_fails_if_the_two_learn_different_things(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm: None) -> None:
    compile_ = race.compile

    def weaker(step: object, **options: object) -> object:
        """Compiles another learning rate."""
        [cell] = [c for c in step.__closure__ if hasattr(c.cell_contents, "lr")]  # type: ignore[attr-defined]
        cell.cell_contents.lr = 1.3e-3
        return compile_(step, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(race, "compile", lambda thing, **options: (
        weaker if hasattr(thing, "__closure__") else compile_)(thing, **options))
    assert "the losses differ by" in tito("demo", "--out", tmp_path, "--epochs", 1, code=1)


def test_demo_needs_the_full_set_only_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYTORCH_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", lambda *args, **kwargs: tmp_path)
    with pytest.raises(FileNotFoundError, match="TINYTORCH_DATA"):
        tito("demo", "--full", "--out", tmp_path)


def runner(losses: list[float]) -> Runner:
    return Runner("eager", tt.nn.Linear(1, 1), lambda x, y: x, iter(()), losses, list(np.arange(1.0, len(losses) + 1)))


@pytest.mark.parametrize(("other", "right", "problems"), [
    ([2.0, 1.0], 0.95, 0), ([2.0, 1.5], 0.95, 1), ([2.0, float("nan")], 0.95, 1), ([2.0, 1.0], 0.5, 1),
    ([2.0, 1.5], float("nan"), 2),
])  # fmt: skip
def test_what_a_demo_must_reach(other: list[float], right: float, problems: int) -> None:
    graph = tt.trace(lambda x: x, tt.ones(1))
    outcome = demo.Outcome(1, 1, graph, runner([2.0, 1.0]), runner(other), (0.95, right), 0)
    assert len(outcome.problems()) == problems


def test_both_sides_see_the_same_and_get_equal_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "TURN", 0.0)
    images = np.arange(200 * 28 * 28, dtype=np.uint8).reshape(200, 28, 28)
    digits = images, np.arange(200, dtype=np.uint8) % 10
    seen: dict[str, list[float]] = {"a": [], "b": []}
    order: list[str] = []

    def step(name: str) -> object:
        def note(x: tt.Tensor, y: tt.Tensor) -> tt.Tensor:
            seen[name].append(float(x.numpy().sum()) + float(y.numpy().sum()))
            return tt.tensor(1.0)

        return note

    runners = [Runner(name, tt.nn.Linear(1, 1), step(name), race.batches(digits, 2, seed=3)) for name in seen]  # type: ignore[arg-type]
    race.race(runners, lambda r: order.append(r.name))
    assert seen["a"] == seen["b"] and len(seen["a"]) == 2 * 3 == len(runners[0].losses)
    assert order[:6] == ["a", "b"] * 3
    assert runners[0].total == pytest.approx(runners[0].first + runners[0].rest)
