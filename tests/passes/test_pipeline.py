"""Pipelines: stages, tables, verification, differential execution, and finding the pass that is to blame."""

from typing import Any

import numpy as np
import pytest
from programs import program
from realistic_graphs import mlp_step

from tinytorch.ir import Graph, Kind, TensorType, Value, bf16, f16, f32, f64, i64, ops
from tinytorch.ir.errors import PassError, VerifyError
from tinytorch.passes import (
    ExpandComposites,
    MergeCommon,
    Pipeline,
    RemoveDead,
    Simplify,
    check_same_meaning,
    find_culprit,
    launches,
    plan_memory,
)

X = f32[4, 3]


def some_graph() -> Graph:
    return program(lambda x: ops.softmax(x * 1.0), X)


def add_one(graph: Graph) -> Graph:
    """A pass that is wrong: 1 is added to the first output."""
    return program(lambda *inputs: _inline(graph, inputs) + 1.0, *(v.type for v in graph.inputs))


def _inline(graph: Graph, inputs: Any) -> Any:
    values = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        values[node.output] = node.op(*(values[v] for v in node.inputs), **node.attrs)
    return values[graph.outputs[0]]


def forget_a_node(graph: Graph) -> Graph:
    return graph.with_(nodes=graph.nodes[1:])


def wrong_type(graph: Graph) -> Graph:
    wrong = Value(TensorType(f64, (1,)), "wrong")
    node = graph.nodes[-1]
    return graph.with_(nodes=(*graph.nodes[:-1], type(node)(node.op, node.inputs, node.attrs, (wrong,))),
                       outputs=(wrong,))


def test_a_pipeline_is_a_pass_and_opens_those_inside() -> None:
    pipeline = Pipeline(ExpandComposites(), Pipeline(Simplify(), RemoveDead()))
    assert pipeline.passes == (ExpandComposites(), Simplify(), RemoveDead())
    assert repr(pipeline) == "Pipeline(ExpandComposites(only=None, keep=()), Simplify(detach=True), RemoveDead())"
    graph, history = pipeline.run(some_graph())
    assert [stage.name for stage in history] == ["given", "ExpandComposites", "Simplify", "RemoveDead"]
    assert history[-1].graph is graph and pipeline(some_graph()).same_as(graph)
    assert history.seconds == sum(stage.seconds for stage in history) > 0 and "Simplify (" in repr(history)


def test_the_table_counts() -> None:
    _, history = Pipeline(ExpandComposites(), Simplify(), MergeCommon(), RemoveDead()).run(mlp_step())
    rows = history.table(peak=True)
    last = history[-1].graph
    assert [row.name for row in rows] == [stage.name for stage in history]
    assert rows[-1].nodes == len(last.nodes) and rows[-1].peak == plan_memory(last).size
    assert history.table()[0].peak is None
    computing = sum(n.op.kind not in (Kind.VIEW, Kind.SOURCE) for n in last.nodes)
    assert rows[-1].kernels == launches(last) == computing < rows[1].kernels
    assert rows[-1].flops <= rows[1].flops and rows[-1].bytes < rows[1].bytes
    products = 2 * 64 * (784 * 128 * 2 + 128 * 64 * 3 + 64 * 10 * 3)  # three a layer, two for the first
    assert rows[0].flops > products


@pytest.mark.parametrize("broken", [forget_a_node, wrong_type, lambda graph: 1 / 0, lambda graph: None],
                         ids=["forgets", "type", "raises", "nothing"])
def test_an_error_names_the_pass_and_shows_the_graph(broken: Any) -> None:
    with pytest.raises(PassError, match=rf"{broken.__name__}[\s\S]*def program\(x0: f32\[4, 3\]\)") as caught:
        Pipeline(Simplify(), broken).run(some_graph())
    assert caught.value.__cause__ is not None


def test_what_was_given_is_not_blamed_on_a_pass() -> None:
    with pytest.raises(VerifyError):
        Pipeline(Simplify()).run(forget_a_node(some_graph()))


def test_levels_of_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTORCH_VERIFY", "0")
    Pipeline(forget_a_node).run(some_graph())
    monkeypatch.setenv("TINYTORCH_VERIFY", "1")
    Pipeline(add_one).run(some_graph())
    monkeypatch.setenv("TINYTORCH_VERIFY", "2")
    text = r"add_one broke the graph: output 0 \(add_1: f32\[4, 3\]\) differs by 1[\s\S]*before add_one"
    with pytest.raises(PassError, match=text):
        Pipeline(Simplify(), add_one).run(some_graph())
    Pipeline(ExpandComposites(), Simplify(), MergeCommon(), RemoveDead()).run(mlp_step())
    Pipeline(lambda graph: graph.with_(outputs=graph.outputs * 2)).run(some_graph())  # another signature: not compared


def test_timings_are_told_on_demand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Pipeline(Simplify()).run(some_graph())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TINYTORCH_DEBUG", "3")
    Pipeline(Simplify()).run(some_graph())
    text = capsys.readouterr().err
    assert "Simplify" in text and "ms" in text and "def program" in text


@pytest.mark.parametrize("dtype", [f64, f32, f16, bf16], ids=str)
def test_same_meaning_allows_roundings_and_no_more(dtype: Any) -> None:
    def scaled(c: float) -> Graph:
        return program(lambda x: ops.sum(x) * ops.constant(c, dtype), TensorType(dtype, (16,)))

    check_same_meaning(scaled(1.0),
                       program(lambda x: ops.sum(ops.sum(ops.reshape(x, (4, 4)), 0)), TensorType(dtype, (16,))))
    with pytest.raises(PassError, match="output 0"):
        check_same_meaning(scaled(1.0), scaled(1.25))
    check_same_meaning(scaled(1.0), scaled(1.25), tolerance=0.3)


def test_same_meaning_sees_nan_infinity_and_integers() -> None:
    for other in (lambda x: ops.sqrt(-ops.abs(x)), lambda x: x / 0.0, lambda x: x + 0.001):
        with pytest.raises(PassError):
            check_same_meaning(program(lambda x: x, X), program(other, X))
        check_same_meaning(program(other, X), program(other, X))
    with pytest.raises(PassError):
        check_same_meaning(program(lambda x: x, i64[(3,)]), program(lambda x: x + 1, i64[(3,)]))
    with pytest.raises(PassError, match="signatures differ"):
        check_same_meaning(program(lambda x: x, X), program(lambda x: x, i64[(3,)]))


def test_positions_and_bound_inputs_are_drawn_so_that_they_fit() -> None:
    graph = program(lambda x, i: ops.take(x, i), f32[1, 3], i64[(2,)])  # 0 is the only position
    check_same_meaning(graph, graph)
    with pytest.raises(PassError, match="output 0"):
        check_same_meaning(graph, program(lambda x, i: ops.take(x, i) * 2.0, f32[1, 3], i64[(2,)]))
    table = np.eye(3, dtype=np.float32)
    types = f32[3, 3], i64[(2,)]
    before = program(lambda w, i: ops.take(w, i), *types, bound={0: table})
    after = program(lambda w, i: ops.take(w, i) * 2.0, *types, bound={0: table})
    check_same_meaning(before, before)
    with pytest.raises(PassError):
        check_same_meaning(before, after)


def test_the_culprit_is_found() -> None:
    pipeline = Pipeline(ExpandComposites(), Simplify(), add_one, MergeCommon(), RemoveDead())
    stage = find_culprit(pipeline, some_graph())
    assert stage is not None and stage.name == "add_one"
    x = np.ones((4, 3), np.float32)
    stage = find_culprit(pipeline, some_graph(), [x])
    assert stage is not None and stage.name == "add_one"
    assert find_culprit(pipeline, some_graph(), [x], tolerance=2.0) is None
    assert find_culprit(Pipeline(Simplify()), some_graph()) is None
    stage = find_culprit(pipeline, some_graph(),
                         is_wrong=lambda graph: all(n.op is not ops.softmax for n in graph.nodes))
    assert stage is not None and stage.name == "ExpandComposites"
    with pytest.raises(PassError, match="before any pass"):
        find_culprit(pipeline, some_graph(), is_wrong=lambda graph: True)
