"""RemoveDead, MergeCommon, ExpandComposites, FoldConstants and AssignLayout: before and after."""

from typing import Any

import numpy as np
import pytest
from programs import becomes, program, shape_of

from tinytorch.ir import Builder, Kind, Op, f32, f64, i64, ops, registry
from tinytorch.passes import AssignLayout, ExpandComposites, FoldConstants, MergeCommon, RemoveDead, check_same_meaning

X, Y = f32[4, 3], f32[3, 5]


def names(graph: Any) -> list[str]:
    return [node.op.name for node in graph.nodes]


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


# -- RemoveDead --------------------------------------------------------------------------------------------------------


def test_dead_nodes_and_bound_inputs_go_free_inputs_stay() -> None:
    w = np.ones((4, 3), np.float32)
    graph = program(lambda x, unused, w, v: (ops.exp(w), ops.sin(x) * v)[1], X, X, X, X, bound={2: w, 3: w})
    after = RemoveDead()(graph)
    assert names(after) == ["sin", "mul"] and len(after.inputs) == 3 and list(after.bound) == [after.inputs[2]]
    assert RemoveDead()(after) is after


def test_an_input_that_is_overwritten_stays_and_numbers_follow() -> None:
    build = Builder()
    ones = np.ones((4, 3), np.float32)
    x, dead, w = build.input("x", X), build.input("dead", X, ones), build.input("w", X, ones.copy())
    with build:
        y = x * 2.0
    graph = RemoveDead()(build.finish([y], {0: w.payload}))
    assert dead.payload not in graph.inputs and graph.inputs[graph.donated[0]] is w.payload


# -- MergeCommon -------------------------------------------------------------------------------------------------------


def test_equal_nodes_become_one() -> None:
    graph = MergeCommon()(program(lambda x, y: (x + y) * (y + x) - ops.sin(x + y), X, X))
    assert names(graph) == ["add", "mul", "sin", "sub"]
    assert names(MergeCommon()(program(lambda x, y: (x - y) * (y - x), X, X))) == ["sub", "sub", "mul"]
    assert MergeCommon()(graph) is graph


@pytest.mark.parametrize("a, b, merged",
                         [(0.0, -0.0, False), (np.nan, np.nan, True), (1.0, 1.0, True), (1.0, 2.0, False)])
def test_numbers_merge_by_bits(a: float, b: float, merged: bool) -> None:
    graph = MergeCommon()(program(lambda x: x / ops.constant(a, "f32") + x / ops.constant(b, "f32"), X))
    assert names(graph).count("constant") == (1 if merged else 2)


def test_random_numbers_of_one_key_merge_and_of_two_do_not() -> None:
    graph = program(lambda k: ops.random_uniform(k, (3,)) + ops.random_uniform(k, (3,))
                    + ops.random_uniform(k + 1, (3,)), i64[()])
    assert names(MergeCommon()(graph)).count("random_uniform") == 2


def test_one_array_bound_twice_is_one_input_unless_it_is_overwritten() -> None:
    w = np.ones((4, 3), np.float32)
    build = Builder()
    a, b, c = build.input("a", X, w), build.input("b", X, w), build.input("c", X, w.copy())
    with build:
        y, z = ops.sin(a) + ops.sin(b), ops.sin(c)
    graph = build.finish([y, z])
    assert names(MergeCommon()(graph)) == ["sin", "add", "sin"] and len(RemoveDead()(MergeCommon()(graph)).inputs) == 2
    assert names(MergeCommon()(graph.with_(donated={0: 1}))) == ["sin", "sin", "add", "sin"]


# -- ExpandComposites --------------------------------------------------------------------------------------------------


def test_everything_is_opened_with_the_line_of_the_user() -> None:
    build = Builder()
    x, w = build.input("x", f32[2, 3, 8, 8]), build.input("w", f32[4, 3, 3, 3])
    with build:
        y = ops.conv2d(x, w, padding=1)
        y = ops.gelu(ops.max_pool2d(y, 2))
    graph = build.finish([y])
    after = ExpandComposites()(graph)
    assert all(node.op.expand is None or node.op.native(*(v.type for v in node.inputs), **node.attrs)
               for node in after.nodes)
    assert not {"conv2d", "max_pool2d", "gelu"} & set(names(after))
    lines = {node.source.line for node in graph.nodes if node.source}
    assert {node.source.line for node in after.nodes if node.source} == lines and len(lines) == 2
    assert all(node.source is not None for node in after.nodes)
    check_same_meaning(graph, after)


def test_only_and_keep() -> None:
    graph = program(lambda x: ops.layer_norm(ops.softmax(x)), X)
    assert names(ExpandComposites(keep=("layer_norm",))(graph))[-1] == "layer_norm"
    assert names(ExpandComposites(only=("layer_norm",))(graph))[0] == "softmax"
    assert "mean" in names(ExpandComposites(keep=("mean",))(graph))
    assert ExpandComposites(only=("attention",))(graph) is graph


def test_what_expands_to_nothing_or_to_a_number() -> None:
    becomes(ExpandComposites(), program(lambda x: ops.exp(ops.clip(x)), X), program(lambda x: ops.exp(x), X))


def test_every_composite_is_opened() -> None:
    common = [op for op in registry.values() if op.native is Op.native]  # of others, the types decide
    opened = {op for op in common if ExpandComposites().opens(op, (), {})}
    assert {op for op in common if op.kind is Kind.COMPOSITE} <= opened


# -- FoldConstants -----------------------------------------------------------------------------------------------------


def test_small_results_become_literals() -> None:
    becomes(FoldConstants(), program(lambda x: x * (ops.sqrt(ops.constant(4.0, "f32")) + 1.0), X),
            program(lambda x: x * 3.0, X))
    graph = FoldConstants()(program(lambda x: x + ops.sum(ops.cast(ops.iota((4, 3), 1), f32)), X))
    assert names(graph) == ["constant", "add"] and graph.nodes[0].attrs["value"] == 12.0


def test_nothing_grows_from_a_number() -> None:
    graph = program(lambda x: x + ops.sin(ops.broadcast_to(2.0, (100, 100))), f32[100, 100])
    assert names(FoldConstants()(graph)) == names(graph)


def test_bound_arrays_are_computed_ahead_if_they_are_read_only() -> None:
    w = np.arange(60, dtype=np.float32).reshape(20, 3)
    graph = program(lambda x, w: x + ops.transpose(ops.sin(w) * 2.0), f32[3, 20], f32[20, 3],
                    bound={1: frozen(w.copy())})
    after = FoldConstants()(graph)
    assert names(after) == ["transpose", "add"], "a view is not stored"
    (array,) = after.bound.values()
    np.testing.assert_allclose(array, np.sin(w) * 2)
    assert not array.flags.writeable
    check_same_meaning(graph, after)
    trainable = program(lambda x, w: x + ops.sin(w), f32[20, 3], f32[20, 3], bound={1: w})
    assert FoldConstants()(trainable) is trainable
    big = program(lambda x, w: x + ops.sin(w), f32[20, 3], f32[20, 3], bound={1: frozen(w.copy())})
    assert FoldConstants(limit=100)(big) is big
    overwritten = big.with_(donated={0: 1})
    assert FoldConstants()(overwritten) is overwritten


def test_what_fails_is_left_to_fail() -> None:
    graph = program(lambda x: x + ops.take(ops.constant((1.0, 2.0), "f32", (2,)), ops.constant(5, "i64")), X)
    assert FoldConstants()(graph) is graph


def test_outputs_can_be_constants() -> None:
    graph = program(lambda x: (x, ops.exp(ops.constant(0.0, "f32"))), X)
    becomes(FoldConstants(), graph, program(lambda x: (x, ops.constant(1.0, "f32")), X))


# -- AssignLayout ------------------------------------------------------------------------------------------------------

B = f32[2, 4, 3]


@pytest.mark.parametrize("before, after, types", [
    (lambda x, y: ops.matmul(ops.transpose(x), y), lambda x, y: ops.matmul(x, y, True, False), (f32[3, 4], Y)),
    (lambda x, y: ops.matmul(x, ops.transpose(y)), lambda x, y: ops.matmul(x, y, False, True), (X, f32[5, 3])),
    (lambda x, y: ops.matmul(ops.transpose(x), ops.transpose(y), True, True), lambda x, y: ops.matmul(x, y), (X, Y)),
    (lambda x, y: ops.transpose(ops.matmul(x, y)), lambda x, y: ops.matmul(y, x, True, True), (X, Y)),
    (lambda x, y: ops.transpose(ops.matmul(ops.transpose(x), y)), lambda x, y: ops.matmul(y, x, True, False),
     (f32[3, 4], Y)),
    (lambda x, y: ops.matmul(ops.transpose(x, (0, 2, 1)), y), lambda x, y: ops.matmul(x, y, True),
     (f32[2, 3, 4], f32[2, 3, 5])),
    (lambda x, y: ops.matmul(ops.reshape(ops.transpose(x, (0, 1, 3, 2)), (6, 4, 5)), y),
     lambda x, y: ops.matmul(ops.reshape(x, (6, 5, 4)), y, True),
     (f32[2, 3, 5, 4], f32[6, 5, 2])),
    (lambda x, y: ops.matmul(x, y), lambda x, y: ops.reshape(ops.matmul(ops.reshape(x, (8, 3)), y), (2, 4, 5)), (B, Y)),
    (lambda x, g: ops.sum(ops.matmul(x, g, True, False), 0),
     lambda x, g: ops.matmul(ops.reshape(x, (8, 3)), ops.reshape(g, (8, 5)), True),
     (B, f32[2, 4, 5])),
    # not these
    (lambda x: ops.matmul(ops.transpose(x, (1, 2, 0)), x), lambda x: ops.matmul(ops.transpose(x, (1, 2, 0)), x),
     (f32[3, 3, 3],)),
    (lambda x, y: ops.matmul(ops.reshape(ops.transpose(x), (2, 6)), y),
     lambda x, y: ops.matmul(ops.reshape(ops.transpose(x), (2, 6)), y),
     (X, f32[6, 5])),
    (lambda x, y: (p := ops.matmul(x, y), ops.transpose(p)), lambda x, y: (p := ops.matmul(x, y), ops.transpose(p)),
     (X, Y)),
    (lambda x, y: ops.sum(ops.matmul(x, y), 0), lambda x, y: ops.sum(ops.matmul(x, y), 0),
     (f32[2, 3, 3], f32[2, 3, 3])),
    (lambda x, y: ops.sum(ops.matmul(x, y, True, True), 0), lambda x, y: ops.sum(ops.matmul(x, y, True, True), 0),
     (f32[2, 3, 3], f32[2, 3, 3])),
    (lambda x, g: ops.sum(ops.matmul(x, g, True, False), 1), lambda x, g: ops.sum(ops.matmul(x, g, True, False), 1),
     (B, f32[2, 4, 5])),
])
def test_layouts(before: Any, after: Any, types: Any) -> None:
    becomes(AssignLayout(), program(before, *types), program(after, *types))


def test_rows_of_a_transposed_stack_are_not_copied() -> None:
    graph = program(lambda x, y: ops.matmul(ops.transpose(x, (1, 0, 2)), y), B, Y)
    assert shape_of(AssignLayout()(graph)) == shape_of(graph)
    assert AssignLayout()(graph) is graph


def test_dtypes_are_kept() -> None:
    for dtype in (f64, i64):
        becomes(AssignLayout(), program(lambda x: ops.matmul(ops.transpose(x), x), dtype[4, 3]),
                program(lambda x: ops.matmul(x, x, True), dtype[4, 3]))

