"""Another order of nodes computes the same with less memory, or is left alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from random_graphs import graphs
from realistic_graphs import mlp_step
from test_plan_memory import OPEN, simulate

from tinytorch.ir import Builder, Graph, f32, ops, verify
from tinytorch.passes import plan_memory
from tinytorch.passes.compare import check_same_meaning
from tinytorch.passes.order_nodes import OrderNodes
from tinytorch.passes.plan_memory import Lives, alive_at

ALWAYS = OrderNodes(least=0)


def peak(graph: Graph) -> int:
    """The most bytes that live in the arena at one time, if none but donated inputs are overwritten."""
    lives = Lives(graph)
    return max(alive_at(lives, lives.residents(lives.donations())), default=0)


def updates(layers: int, late: bool, read_again: int = 0) -> Graph:
    """Gradients one after the other, each for an update of its own: at the end, or (as it should be) at once. The first
    `read_again` weights are read once more after the last gradient."""
    build = Builder()
    weights = [build.input(f"w{k}", f32[32, 32], np.ones((32, 32), "f4")) for k in range(layers)]
    x = build.input("x", f32[32, 32])
    with build:
        made: list[Any] = []
        for w in weights:
            x = ops.matmul(x, w)
            made.append(ops.matmul(x, x) if late else w - ops.matmul(x, x))
        again = [ops.sum(ops.matmul(x, w)) for w in weights[:read_again]]
        new = [w - g for w, g in zip(weights, made, strict=True)] if late else made
        results = [ops.sum(x), *again]
    return build.finish([*results, *new], {k + len(results): w.payload for k, w in enumerate(weights)})


def test_updates_run_as_soon_as_they_can() -> None:
    late, at_once = updates(6, late=True), updates(6, late=False)
    assert peak(at_once) < peak(late) / 2
    assert peak(ALWAYS(late)) <= peak(at_once)
    assert plan_memory(ALWAYS(late)).size < plan_memory(late).size / 2


def test_what_overwrites_an_input_waits_for_those_that_read_it() -> None:
    graph = updates(8, late=True, read_again=3)
    after = ALWAYS(graph)
    plan = plan_memory(after)
    assert after is not graph
    assert all(plan.reuses[after.outputs[output]] is after.inputs[place] for output, place in after.donated.items())
    simulate(after, plan)


@settings(max_examples=100)
@given(graph=graphs(max_nodes=16))
def test_the_order_changes_neither_nodes_nor_meaning_and_needs_no_more(graph: Graph) -> None:
    for each in (graph, OPEN(graph)):
        after = verify(ALWAYS(each))
        assert set(after.nodes) == set(each.nodes) and peak(after) <= peak(each)
        check_same_meaning(each, after, np.random.default_rng(0))


def test_it_is_the_same_each_time_and_then_stays() -> None:
    graph = updates(6, late=True)
    once = ALWAYS(graph)
    assert once.nodes == ALWAYS(graph).nodes and ALWAYS(once) is once


@pytest.mark.parametrize("graph", [updates(6, late=False), OPEN(mlp_step(batch=2))], ids=["best already", "small"])
def test_graphs_that_gain_nothing_are_left_alone(graph: Graph) -> None:
    assert OrderNodes()(graph) is graph
