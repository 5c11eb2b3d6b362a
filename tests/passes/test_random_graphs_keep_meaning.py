"""Every pass preserves the meaning of random graphs; what it gives is sound, and survives text and file."""

import numpy as np
import pytest
from hypothesis import given, settings
from random_graphs import VIEWS, graphs

from tinytorch.ir import Graph, verify
from tinytorch.ir.serialize import from_json, to_json
from tinytorch.passes import (
    AssignLayout,
    ExpandComposites,
    FoldConstants,
    MergeCommon,
    Pass,
    Pipeline,
    RemoveDead,
    Simplify,
    check_same_meaning,
)

PASSES: list[Pass] = [
    Simplify(), FoldConstants(), MergeCommon(), RemoveDead(), ExpandComposites(), AssignLayout(),
    Pipeline(ExpandComposites(), Simplify(), FoldConstants(), MergeCommon(), AssignLayout(), Simplify(), RemoveDead()),
]
each_pass = pytest.mark.parametrize("step", PASSES, ids=lambda p: type(p).__name__)


@each_pass
@settings(max_examples=60)
@given(graph=graphs())
def test_meaning_is_preserved(step: Pass, graph: Graph) -> None:
    after = verify(step(verify(graph)))
    check_same_meaning(graph, after, np.random.default_rng(1))
    places = [{o: each.inputs[i].type for o, i in each.donated.items()} for each in (graph, after)]
    assert places[0] == places[1]


@pytest.mark.parametrize("step", [Simplify(), AssignLayout()], ids=lambda p: type(p).__name__)
@settings(max_examples=80)
@given(graph=graphs(max_nodes=20, steps=(*VIEWS, "reduce", "matmul")))
def test_meaning_of_views_is_preserved(step: Pass, graph: Graph) -> None:
    after = verify(step(graph))
    check_same_meaning(graph, after, np.random.default_rng(1))


@each_pass
@settings(max_examples=25)
@given(graph=graphs())
def test_a_second_time_changes_nothing(step: Pass, graph: Graph) -> None:
    once = step(graph)
    assert step(once).same_as(once) or len(step(once).nodes) <= len(once.nodes)


@settings(max_examples=60)
@given(graph=graphs())
def test_text_and_json_round_trip(graph: Graph) -> None:
    for each in (graph, PASSES[-1](graph)):
        names = {each.names[v]: array for v, array in each.bound.items()}
        assert Graph.from_text(str(each), names).same_as(each)
        read = from_json(to_json(each))
        bound = {read.inputs[each.inputs.index(v)]: array for v, array in each.bound.items()}
        assert read.with_(bound=bound).same_as(each)
