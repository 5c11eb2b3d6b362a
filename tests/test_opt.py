"""`tito opt`: steps are read as they are written, figures are those of the graphs, a page and a picture come out, and
what makes no sense is refused with status 2 before anything is written."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_cli import tito

import tinytorch as tt
from tinytorch.cli import opt_specs, opt_sweep
from tinytorch.ir import Builder, Graph, f32, ops
from tinytorch.ir.difference import compare
from tinytorch.look.pareto import Point, front, pareto, ranges
from tinytorch.passes import FoldBatchNorm, Fuse, changes, size_of

MINE = '''
from dataclasses import dataclass
import numpy as np
import tinytorch as tt
from tinytorch import nn
from tinytorch.ir import ops
from tinytorch.passes import Rule, Table, rewrite

tt.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
EXAMPLES = (tt.ones(16, 8),)

def drop_relu(graph):
    return rewrite(graph, Table([Rule("relu x = x", lambda x: ops.relu(x), lambda x: x)]))

@dataclass(frozen=True)
class Scale:
    factor: float = 2.0

    def __call__(self, graph):
        return rewrite(graph, Table([Rule("relu", lambda x: ops.relu(x), lambda x: ops.abs(x) * self.factor)]))
'''
FAST = ("--seconds", "0.01")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Iterator[Path]:
    """A folder with a user's model, passes of the user's, and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(MINE)
    x = rng.standard_normal((100, 8)).astype("f4")
    np.savez(tmp_path / "data.npz", inputs=x, targets=rng.integers(0, 3, 100))
    np.savez(tmp_path / "unlike.npz", inputs=x, targets=np.zeros(99, int))
    np.savez(tmp_path / "other.npz", pictures=x)
    np.savez(tmp_path / "wide.npz", inputs=np.ones((20, 9), "f4"))
    yield tmp_path
    sys.modules.pop("mine", None)


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [
    ("fold", [("fold", (), {})]),
    ("fold, bf16", [("fold", (), {}), ("bf16", (), {})]),
    ("quantize:int4,group=64,fold", [("quantize:int4,group=64", ("int4",), {"group": 64}), ("fold", (), {})]),
    ("prune:channels=0.5,multiple=8", [("prune:channels=0.5,multiple=8", (), {"channels": 0.5, "multiple": 8})]),
    ("prune:2:4,", [("prune:2:4", ("2:4",), {})]),
    ("quantize:static,observer=mse,symmetric=True",
     [("quantize:static,observer=mse,symmetric=True", ("static",), {"observer": "mse", "symmetric": True})]),
    ("Stabilize,stabilize", [("Stabilize", (), {}), ("stabilize", (), {})]),
])
def test_steps_and_their_settings(text: str, expected: list[object]) -> None:
    assert [(step.text, step.words, step.settings) for step in opt_specs.parse(text)] == expected


def test_every_setting_of_a_sweep_can_be_read() -> None:
    assert all(opt_specs.parse(text) for texts in opt_sweep.SETTINGS.values() for text in texts)


# -- what makes no sense -----------------------------------------------------------------------------------------------

MODEL = "mine.py:model"


@pytest.mark.parametrize(("words", "message"), [
    (("lenett", "-p", "fold"), "did you mean lenet"),
    (("nothing.ttg", "-p", "fold"), "there is no file nothing.ttg"),
    (("mine.py:modell", "-p", "fold"), "has no 'modell'"),
    ((MODEL, "-p", "quantise"), "did you mean quantize"),
    ((MODEL, "-p", "mine.py:Drop"), "has no 'Drop'"),
    ((MODEL, "-p", ","), "there is no pass"),
    ((MODEL, "-p", "fold:depth=3"), "it takes no settings"),
    ((MODEL, "-p", "mine.py:Scale,depth=3"), "factor"),
    ((MODEL, "-p", "quantize:static,bits=3"), "there is no setting 'bits'"),
    ((MODEL, "-p", "prune"), "one structure with its share"),
    ((MODEL, "-p", "tune"), "no data to train on"),
    ((MODEL,), "--passes STEPS or --sweep"),
    ((MODEL, "-p", "fold", "--sweep"), "one of them"),
    ((MODEL, "--sweep"), "needs right answers"),
    ((MODEL, "-p", "quantize"), "--data FILE.npz with inputs"),
    ((MODEL, "-p", "fold", "--data", "wide.npz"), "a call takes (16, 8)"),
    ((MODEL, "-p", "fold", "--data", "no.npz"), "there is no file no.npz"),
    ((MODEL, "-p", "fold", "--data", "mine.py"), "no .npz file"),
    ((MODEL, "-p", "fold", "--data", "unlike.npz"), "expected inputs"),
    ((MODEL, "-p", "fold", "--data", "other.npz"), "pictures (100, 8)"),
    ((MODEL, "-p", "fold", "--html", "no/page.html"), "there is no folder no"),
    ((MODEL, "-p", "fold", "--picture", "a.png"), "it goes with --sweep"),
    ((MODEL, "-p", "fold", "--save", "a.bin"), "ends in .ttg"),
    (("lenet", "-p", "fold", "--batch", "5000"), "fewer than a batch of 5000"),
])
def test_nonsense_is_refused_and_nothing_is_written(mine: Path, words: tuple[str, ...], message: str) -> None:
    before = sorted(mine.iterdir())
    said = " ".join(tito("opt", *words, *FAST, code=2).replace("│", " ").split())
    assert message in said and [p for p in sorted(mine.iterdir()) if p.name != "__pycache__"] == before


def test_without_cifar_the_cnn_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    assert "test_batch.bin" in tito("opt", "cnn", "-p", "fold", code=2)


def test_what_a_pass_refuses_is_told_and_nothing_is_written(mine: Path) -> None:
    with pytest.raises(Exception, match="prune"):  # tito itself turns it into a panel and status 1
        tito("opt", MODEL, "-p", "prune:channels=0.5", "--save", "a.ttg", "--html", "a.html", *FAST)
    assert not list(mine.glob("a.*"))


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_page_and_graph_of_a_users_model(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinytorch.ir.page.to_svg", lambda graph: "<svg></svg>")  # seconds; test_look.py has it
    files = ("--html", "a.html", "--save", "a.ttg", "--json", "-", "--data", "data.npz", "--batch", "16")
    found = json.loads(tito("opt", MODEL, "-p", "quantize", *files, *FAST).partition("\npage")[0])
    before, after = found["variants"]["before"], found["variants"]["after"]
    assert found["batch"] == 16 and found["stages"][0]["name"] == "FoldBatchNorm"
    assert found["stages"][0]["changes"]["batch_norm"] == -1
    assert before["parameter_bytes"] == 4 * (8 * 32 + 32 + 4 * 32 + 32 * 3 + 3)
    assert after["parameter_bytes"] < 0.6 * before["parameter_bytes"] and 0 < after["difference"] < 0.1
    assert before["speedup"]["median"] == 1 and 0 <= after["accuracy"] <= 1 and after["seconds"]["median"] > 0
    graph, text = Graph.load(mine / "a.ttg"), (mine / "a.html").read_text()
    assert "quad_matmul" in {node.op.name for node in graph.nodes}
    assert size_of(graph).parameters == after["parameter_bytes"]
    assert "quad_matmul" in text and "Before and after" in text and "<script src" not in text and "new here" in text
    again = json.loads(tito("opt", "a.ttg", "-p", "simplify", "--json", "-", "--data", "data.npz", *FAST))
    assert again["variants"]["before"]["accuracy"] == after["accuracy"]


def test_a_users_own_passes_count_like_ours(mine: Path) -> None:
    found = json.loads(tito("opt", MODEL, "-p", "mine.py:drop_relu", "--json", "-", *FAST))
    assert found["stages"][-1]["changes"] == {"relu": -1} and found["variants"]["after"]["difference"] > 0.01
    found = json.loads(tito("opt", MODEL, "-p", "fold,mine.py:Scale,factor=3.0", "--json", "-", *FAST))
    assert found["stages"][-1]["changes"] == {"abs": 1, "constant": 1, "mul": 1, "relu": -1}
    assert "accuracy" not in found["variants"]["after"]


def test_the_table_says_what_changed(mine: Path) -> None:
    said = tito("opt", MODEL, "-p", "bf16", "--data", "data.npz", *FAST)
    assert "parameters" in said and "less" in said and "accuracy on 100 inputs" in said


def test_a_sweep_draws_what_nothing_beats(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opt_sweep, "SETTINGS", {"f32": ("fold",), "half": ("bf16",), "pruned": ("prune:channels=0.5",)})
    said = tito("opt", MODEL, "--sweep", "--data", "data.npz", "--picture", "a.svg", "--html", "a.html", "--json",
                "a.json", *FAST)
    assert "left out: prune:channels=0.5" in said.replace("\n", " ")
    assert set(json.loads((mine / "a.json").read_text())["variants"]) == {"as it is", "fold", "bf16"}
    assert "<svg" in (mine / "a.svg").read_text() and "unbeaten" in (mine / "a.html").read_text()


# -- what it stands on -------------------------------------------------------------------------------------------------


def test_the_front_is_what_nothing_beats(rng: np.random.Generator, tmp_path: Path) -> None:
    points = [Point(str(n), float(s), float(q), 100) for n, (s, q) in enumerate(rng.integers(1, 9, (40, 2)))]
    for less in (False, True):
        sign = -1 if less else 1
        unbeaten = {(p.seconds, p.quality) for p in points
                    if not any(o.seconds <= p.seconds and sign * o.quality >= sign * p.quality
                               and (o.seconds, o.quality) != (p.seconds, p.quality) for o in points)}
        assert {(p.seconds, p.quality) for p in front(points, less)} == unbeaten
    assert pareto(points, tmp_path / "p.png", less_is_better=True).stat().st_size > 1000
    assert ranges([1, 2, 3, 5]) == "1–3, 5" and ranges([4]) == "4"


def test_what_became_of_each_node() -> None:
    model = tt.nn.Sequential(tt.nn.Linear(4, 6), tt.nn.BatchNorm1d(6), tt.nn.ReLU()).eval()
    before = tt.trace(model, tt.zeros(2, 4))
    after = FoldBatchNorm()(before)
    found = compare(before, after)
    assert {before.nodes[n].op.name for n in found.gone} >= {"batch_norm"} and not found.changed
    assert after.nodes[-1].op.name == "relu" and len(after.nodes) - 1 not in found.new
    again = tt.trace(model, tt.zeros(3, 4))  # no value in common, another batch
    found = compare(before, again)
    assert not found.new and not found.gone and set(found.changed.values()) == {"f32[2, 6]"}
    assert compare(before, before) == compare(again, again)


def test_parameters_count_once_and_only_if_they_are_read() -> None:
    weight, build = np.ones((8, 4), "f4"), Builder("g")
    x, a, b = build.input("x", f32[2, 4]), build.input("a", f32[8, 4], weight), build.input("b", f32[8, 4], weight)
    build.input("unread", f32[8, 4], np.ones((8, 4), "f4"))
    with build:
        y = ops.relu(ops.linear(x, a) + ops.linear(x, b))
    graph = build.finish([y])
    assert size_of(graph).parameters == weight.nbytes and size_of(graph, peak=True).peak is not None
    assert changes(graph, Fuse()(tt.passes.ExpandComposites()(graph)))["linear"] == -2
