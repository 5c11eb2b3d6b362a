"""Within its memory budget a program computes the same, bit for bit; a budget that cannot be met is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from random_graphs import graphs
from realistic_graphs import mlp_step
from test_plan_memory import simulate

import tinytorch as tt
from tinytorch import nn, optim, passes
from tinytorch.ir import Builder, Graph, f32, ops, verify
from tinytorch.ir.errors import BudgetError, PassError
from tinytorch.nn import functional as F
from tinytorch.passes import Pipeline, Rematerialize, check_same_meaning, plan_memory
from tinytorch.passes.eviction import Facts, Walk, peak


def deep(layers: int = 12, outputs: int = 1) -> Graph:
    """Values that are all read again from the last to the first, as backward passes do; products and cheap ops."""
    build = Builder("deep")
    w = build.input("w", f32[16, 16], np.eye(16, dtype="f4"))
    x = build.input("x", f32[16, 16])
    with build:
        kept = [x]
        for _ in range(layers):
            kept.append(ops.tanh(ops.matmul(kept[-1], w)))
        g = kept.pop()
        while kept:
            g = g * kept.pop() + 1.0
    return build.finish([g] * outputs)


def time_of(graph: Graph) -> float:
    """What the pass thinks that a graph takes."""
    return sum(Facts(graph).time.values())


@pytest.mark.parametrize("part", [0.9, 0.75, 0.5, 0.4])
def test_the_plan_keeps_to_the_budget_and_meaning_stays(part: float) -> None:
    graph = deep()
    whole = plan_memory(graph).size
    after = verify(Rematerialize(part)(graph))
    assert plan_memory(after).size <= part * whole
    check_same_meaning(graph, after, tolerance=0.0)
    simulate(after, plan_memory(after))
    in_bytes = Rematerialize(int(part * whole))(graph)
    assert str(in_bytes) == str(after), "the same budget gives the same program"


def test_what_fits_is_left_alone_and_less_memory_costs_more_time() -> None:
    graph = deep()
    assert Rematerialize(1.0)(graph) is graph and Rematerialize(plan_memory(graph).size)(graph) is graph
    times = [time_of(Rematerialize(part)(graph)) for part in (1.0, 0.75, 0.5)]
    assert times[0] < times[1] < times[2] < 1.6 * times[0]


def test_a_budget_that_cannot_be_met_names_one_that_can() -> None:
    graph = deep()
    with pytest.raises(BudgetError, match="smallest budget that can be met is") as found:
        Rematerialize(100)(graph)
    smallest = found.value.smallest
    assert plan_memory(Rematerialize(smallest)(graph)).size == smallest
    with pytest.raises(BudgetError, match=str(smallest)):
        Rematerialize(smallest - 1)(graph)
    three = 3 * 16 * 16 * 4  # two operands and a result
    assert smallest <= three, "with enough time three matrices do"


@pytest.mark.parametrize("budget", [0, -1, 0.0, True, "half", float("nan"), None])
def test_a_budget_is_a_number_of_bytes_or_a_part(budget: Any) -> None:
    with pytest.raises(PassError, match="expected a number of bytes > 0, or a part"):
        Rematerialize(budget)(deep(2))


@settings(max_examples=30)
@given(graph=graphs(max_nodes=18))
def test_random_graphs_keep_their_meaning(graph: Graph) -> None:
    graph = passes.ExpandComposites()(graph)
    whole = plan_memory(graph).size
    assume(whole)
    try:
        after = verify(Rematerialize(0.6)(graph))
    except BudgetError as error:
        smallest = error.smallest
        after = verify(Rematerialize(smallest)(graph))
        assert plan_memory(after).size <= smallest
    else:
        assert plan_memory(after).size <= 0.6 * whole
    check_same_meaning(graph, after, tolerance=0.0)
    simulate(after, plan_memory(after))


@settings(max_examples=60)
@given(graph=graphs(max_nodes=18, donate=False))
def test_the_peak_of_a_walk_is_that_of_the_graph_it_stands_for(graph: Graph) -> None:
    facts = Facts(passes.ExpandComposites()(graph))
    moves = Walk(facts, 1 << 60).moves
    assert [move.number for move in moves] == facts.runs and all(move.again is None for move in moves)
    plan = plan_memory(facts.graph)
    assert plan.size >= peak(facts, moves), "no plan needs less than what lives at once"


def test_a_parameter_that_was_overwritten_is_not_read_again() -> None:
    build = Builder("update")
    w, x = build.input("w", f32[32, 32], np.eye(32, dtype="f4")), build.input("x", f32[32, 32])
    with build:
        kept = [x]
        for k in range(2, 8):  # those of w would be cheaper to make again, but then w is gone
            kept += [ops.tanh(w * float(k)), ops.tanh(ops.matmul(x * float(k), x))]
        new = w - ops.matmul(kept[1], x)
        total = new + x
        while kept:
            total = ops.matmul(total, kept.pop())
    graph = build.finish([total, new], {1: w.payload})
    after = Rematerialize(0.65)(graph)
    plan = plan_memory(after)
    [weight] = after.bound
    assert plan.reuses[after.outputs[1]] is weight, "the update is still made in place"
    assert plan.size <= 0.65 * plan_memory(graph).size
    simulate(after, plan)
    with pytest.raises(BudgetError):
        Rematerialize(0.5)(graph)


def test_kernels_run_again_are_the_same_and_write_only_what_is_read() -> None:
    graph = Pipeline(*passes.STANDARD)(mlp_step(256, (64, *(256,) * 8, 10)))
    after = Rematerialize(0.7)(graph)
    bodies = {id(node.body) for node in graph.nodes if node.body is not None}
    again = [node for node in after.nodes if node.body is not None and id(node.body) in bodies]
    assert len(after.nodes) > len(graph.nodes) and len(again) >= len(graph.nodes) // 2
    written = [v for node in after.nodes if node.op.kind.launches for v in node.outputs]
    read = {v for node in after.nodes for v in node.inputs} | set(after.outputs)
    whole = [v for v in written if v not in read and v.type.size > 1024]
    assert not whole, f"nobody reads {whole}"


def training_step(memory: Any) -> tuple[Any, Any]:
    """A compiled step of a small network with dropout, and its parameters."""
    tt.manual_seed(0)
    blocks = [layer for _ in range(10) for layer in (nn.Linear(32, 32), nn.GELU(), nn.Dropout(0.2))]
    model = nn.Sequential(nn.Linear(16, 32), *blocks, nn.Linear(32, 4))
    opt = optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any, labels: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        opt.step()
        return loss.detach()

    return tt.compile(step, memory=memory), model


def test_a_compiled_step_within_half_the_memory_trains_to_the_same_bits() -> None:
    x, labels = tt.randn(256, 16), tt.randint(0, 4, (256,))
    (free, model), (tight, small) = training_step(None), training_step(0.4)
    losses = []
    for step in (free, tight):
        tt.manual_seed(1)  # of the dropout
        losses.append([step(x, labels).item() for _ in range(3)])
    assert losses[0] == losses[1]
    assert tight.program.arena_bytes <= 0.4 * free.program.arena_bytes
    assert len(tight.program.steps) > len(free.program.steps)
    for a, b in zip(model.parameters(), small.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert tight.history[-1].name == "Rematerialize"


def test_what_is_prepared_of_parameters_has_no_budget() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 8)).eval()
    x = tt.ones(2, 64)
    fast = tt.compile(model, memory=1024)
    np.testing.assert_allclose(fast(x).numpy(), model(x).numpy(), rtol=1e-5, atol=1e-6)
    assert fast.preparation is not None and fast.program.arena_bytes <= 1024 < fast.preparation.nbytes
    with pytest.raises(PassError, match="smallest budget that can be met"):
        tt.compile(model, memory=64)(x)


def test_the_curve_of_time_against_memory(tmp_path: Any) -> None:
    def f(x: Any) -> Any:
        kept = [x]
        for _ in range(8):
            kept.append((kept[-1] @ x).tanh())
        total = kept.pop()
        while kept:
            total = total @ kept.pop()
        return total

    curve = tt.memory_curve(f, tt.ones(32, 32), budgets=(1.0, 0.6, 1), seconds=0.01)
    sizes = [point.nbytes for point in curve.points]
    assert len(sizes) == 3 and sizes[0] > sizes[1] >= sizes[2] and sizes[1] <= 0.6 * sizes[0]
    assert curve.points[2].budget == sizes[2], "a byte is too little: the curve ends where it can"
    assert curve.at(float("inf")) == sizes[2] and all(point.seconds > 0 for point in curve.points)
    assert curve.draw(tmp_path / "memory.svg").read_text().startswith("<?xml")
    with pytest.raises(PassError, match="expected a number of bytes"):
        tt.memory_curve(f, tt.ones(32, 32), budgets=(-1,))
