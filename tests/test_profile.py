"""`tt.profile` against measurements, and `fast.explain()`: right sums, nothing disturbed."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ops import count, opened

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.explain import explain
from tinytorch.ir import ops
from tinytorch.ir.errors import TracingError
from tinytorch.nn import functional as F
from tinytorch.profile import Report
from tinytorch.random import default_generator


class Small(nn.Module):
    """6 → 5 → 3, with dropout between."""

    def __init__(self) -> None:
        self.first = nn.Linear(6, 5)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return F.softmax(self.last(self.drop(F.relu(self.first(x)))), -1)


def training_step(model: nn.Module) -> Callable[[Any, Any], Any]:
    optimizer = optim.Adam(model.parameters())

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def mlp(*sizes: int) -> nn.Sequential:
    layers = [layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def batch(size: int = 4, features: int = 6, classes: int = 3) -> tuple[tt.Tensor, tt.Tensor]:
    return tt.rand(size, features), tt.tensor(np.arange(size) % classes)


CASES: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "forward": lambda: (mlp(784, 128, 64, 10), (tt.rand(64, 784),)),
    "training": lambda: (training_step(mlp(784, 128, 64, 10)), batch(64, 784, 10)),
    "softmax": lambda: (lambda x: F.softmax(x * 2, -1).sum(0) + 1, (tt.rand(33, 7),)),
    "dropout": lambda: (training_step(Small()), batch()),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


# -- estimates against measurements ------------------------------------------------------------------------------------


@every_case
def test_predicted_peak_is_the_highest_byte_written(case: Callable[[], tuple[Any, tuple[Any, ...]]]) -> None:
    function, examples = case()
    memory = tt.profile(function, *examples).memory
    fast = tt.compile(function)
    fast(*examples)
    arrays = program_arrays(fast, examples)
    assert -(-fast.program.touched_bytes(arrays) // 64) * 64 == memory.arena, "values begin at multiples of 64"
    assert sum(a.nbytes for a in arrays) + sum(c.nbytes for c in fast.program.constants) == (
        memory.parameters + memory.state + memory.inputs
    )
    results = fast.program(arrays)
    fresh = [results[i] for i in fast.program.fresh]
    assert sum(a.nbytes for a in fresh) == memory.outputs
    frame = fast.program._frames[-1]
    assert frame.arena.nbytes == memory.arena and frame.scratch.nbytes == memory.scratch
    assert memory.peak == sum(size for _, _, size in memory.named) + memory.arena + memory.scratch


def program_arrays(fast: Any, examples: tuple[Any, ...]) -> list[np.ndarray]:
    """Copies of all that the program of this call reads."""
    owners = [owner.payload if isinstance(owner, tt.Tensor) else owner for owner in fast.latest.owners]
    return [np.array(t.numpy() if isinstance(t, tt.Tensor) else t) for t in (*examples, *owners)]


def test_predicted_flops_are_those_of_a_counting_run() -> None:
    model = mlp(6, 5, 4, 3)
    for function, examples in ((model, batch()[:1]), (lambda x, y: F.cross_entropy(model(x), y), batch())):
        report = tt.profile(function, *examples)
        graph = report.graph
        arrays = [*(x.numpy() for x in examples), *(graph.bound[v] for v in graph.inputs if v in graph.bound)]
        assert count(opened(graph), arrays) == (report.flops, report.transcendentals)
    products = sum(2 * 4 * n * m + 4 * m for n, m in ((6, 5), (5, 4), (4, 3)))  # with their biases
    assert tt.profile(model, tt.rand(4, 6)).flops == products + 4 * (5 + 4)


# -- the report --------------------------------------------------------------------------------------------------------


def test_profile_adds_up() -> None:
    report = tt.profile(Small(), tt.rand(4, 6))
    assert report.parameters == 6 * 5 + 5 + 5 * 3 + 3
    assert report.memory.parameters == 4 * report.parameters
    assert [(m.path, m.kind, m.parameters, m.flops) for m in report.modules] == [
        ("first", "Linear", 35, 2 * 4 * 6 * 5 + 4 * 5),
        ("last", "Linear", 18, 2 * 4 * 5 * 3 + 4 * 3),
    ]
    assert sum(row.flops for row in report.nodes) == report.flops == report.written.flops
    assert {"linear", "relu", "softmax"} <= {row.op for row in report.nodes}, "composites are counted whole"
    assert all("test_profile.py" in row.source for row in report.nodes if row.op in ("linear", "softmax"))
    assert report.compiled.kernels == len(report.kernels) < report.written.kernels
    assert report.bytes == report.compiled.bytes < report.written.bytes
    assert report.written.intensity == report.flops / report.written.bytes


def test_profile_runs_nothing_and_changes_nothing() -> None:
    model = Small()
    step, before = training_step(model), [p.numpy().copy() for p in model.parameters()]
    state = default_generator.state.numpy().copy()
    tt.profile(step, *batch_of_zeros())
    assert all((p.numpy() == b).all() and p.grad is None for p, b in zip(model.parameters(), before))
    assert default_generator.state.numpy() == state


def batch_of_zeros() -> tuple[tt.Tensor, tt.Tensor]:
    return tt.zeros(4, 6), tt.zeros(4, dtype="i64")


def test_profile_of_what_is_compiled_and_of_a_function() -> None:
    fast = tt.compile(lambda x: (x * 2).exp(), pipeline="none")
    report = tt.profile(fast, tt.ones(3))
    assert report.compiled.kernels == 2 and fast.latest is None, "with its own passes, and left as it was"
    assert report.parameters == 0 and not report.modules and report.transcendentals == 3


def test_profile_report_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tt.profile(Small(), tt.rand(4, 6))
    data = json.loads(report.to_json(tmp_path / "p.json"))
    assert data == json.loads((tmp_path / "p.json").read_text())
    assert data["memory"]["peak"] == report.memory.peak and len(data["nodes"]) == len(report.nodes)
    assert "first_weight" in report.to_html(tmp_path / "deep" / "p.html")
    assert (tmp_path / "deep" / "p.html").exists()
    report.print()
    said = capsys.readouterr().out
    assert "softmax" in said and "peak" in said and "53 parameters" in said
    assert "53 parameters" in repr(report)


def test_profile_of_many_nodes_prints_the_costliest(capsys: pytest.CaptureFixture[str]) -> None:
    report: Report = tt.profile(training_step(Small()), *batch())
    report.print()
    assert "costliest of" in capsys.readouterr().out


# -- explain -----------------------------------------------------------------------------------------------------------


def test_explain_has_a_row_for_each_launch() -> None:
    fast = tt.compile(training_step(Small()))
    fast(*batch())
    why = fast.explain(repeats=3)
    assert [row.kernel for row in why.rows] == [step.kernel.name for step in fast.program.steps]
    assert all(row.seconds >= 0 and row.path.exists() and f"def {row.kernel}(" in row.source for row in why.rows)
    assert any({"matmul", "maximum"} <= set(row.ops) for row in why.rows)
    assert any("test_profile.py" in line for row in why.rows for line in row.lines)
    cost = tt.profile(fast, *batch()).compiled
    assert (why.cost.flops, why.cost.transcendentals, why.cost.bytes) == (cost.flops, cost.transcendentals, cost.bytes)
    assert 0 < why.seconds and 0 < why.call


def test_explain_disturbs_nothing() -> None:
    model = Small()
    optimizer = optim.Adam(model.parameters())

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    fast = tt.compile(step)
    x, y = batch()
    fast(x, y)
    tensors = [*model.parameters(), default_generator.state, *(t for _, t in optimizer.named_state())]
    before = [t.numpy().copy() for t in tensors]
    fast.explain(repeats=2)
    assert all((t.numpy() == b).all() for t, b in zip(tensors, before))
    loss = fast(x, y).item()
    for t, b in zip(tensors, before):
        t.numpy()[...] = b
    assert fast(x, y).item() == loss, "the same step from the same state: also the random numbers"


def test_explain_shares_a_node_among_its_launches() -> None:
    fast = tt.compile(lambda x: ops.pad(x, (500,), (0,)), pipeline="none")
    fast(tt.ones(1000))
    rows = [row for row in explain(fast, 2).rows if row.ops == ("pad",)]
    assert len(rows) == 2 and abs(sum(row.cost.bytes for row in rows) - 4 * (1000 + 1500)) <= 2, "rounded"


def test_explain_roofline() -> None:
    fast = tt.compile(lambda x, y: x @ y)
    fast(tt.rand(256, 256), tt.rand(256, 256))
    why = fast.explain(5)
    [row] = why.rows
    assert why.machine is not None and row.limit is not None and row.roofline == row.limit / row.seconds
    assert row.limit >= 2 * 256**3 / (max(why.machine.gflops, why.machine.gflops_one) * 1e9) * 0.999
    assert row.gflops == pytest.approx(2 * 256**3 / row.seconds / 1e9)
    assert 0.01 < row.roofline < 2, "a kernel cannot be much faster than the machine"


def test_explanation_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fast = tt.compile(Small())
    fast(tt.rand(4, 6))
    why = fast.explain(1)
    assert "matmul" in str(why) and "roofline" in str(why) and "\x1b" not in str(why)
    for width in (60, 80, 120, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        why.print()
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width and ("holds" in "".join(lines)) == (width >= 138)
    page = why.to_html(tmp_path / "why.html")
    assert "def matmul" in page and (tmp_path / "why.html").read_text() == page
    assert len(why.kernel_rows()) == len(why.rows)


def test_explain_before_a_call_or_without_repeats() -> None:
    fast = tt.compile(lambda x: x + 1)
    with pytest.raises(TracingError, match="call it once"):
        fast.explain()
    fast(tt.ones(2))
    with pytest.raises(ValueError, match="at least 1"):
        fast.explain(repeats=0)
