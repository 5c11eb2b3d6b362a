"""Tracing: what becomes an input, what is seen as it is, what is refused; and the containers that arguments come in."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.frontends import flatten, map_tree, paths, unflatten
from tinytorch.ir import ops
from tinytorch.ir.errors import ShapeError, TracingError

Point = namedtuple("Point", "x y")


@dataclass
class Batch:
    images: Any
    labels: Any


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# Containers


@pytest.mark.parametrize("thing", [
    1, None, (), [], {}, (1, 2), [1, [2, (3,)]], {"b": 1, "a": (2, None)}, Point(1, [2]), Batch(1, {"k": 2}),
    {1: "x", "1": "y"}])
def test_a_container_comes_back_as_it_was(thing: Any) -> None:
    leaves, tree = flatten(thing)
    assert unflatten(tree, leaves) == thing
    assert tree.leaves == len(leaves)
    assert hash(tree) == hash(flatten(thing)[1])


def test_leaves_come_in_the_order_of_sorted_keys() -> None:
    assert flatten({"b": 1, "a": [2, 3]})[0] == [2, 3, 1]
    assert paths(flatten({"b": 1, "a": [2, 3]})[1], "arg") == ["arg_a_0", "arg_a_1", "arg_b"]
    assert map_tree(lambda n: n * 10, {"b": 1, "a": (2, None)}) == {"b": 10, "a": (20, None)}


def test_a_wrong_number_of_leaves_is_an_error() -> None:
    with pytest.raises(ShapeError, match="2 leaves, 3 were given"):
        unflatten(flatten((1, 2))[1], [1, 2, 3])


def test_the_structure_of_different_containers_differs() -> None:
    things = [(1, 2), [1, 2], (1, (2,)), {"a": 1, "b": 2}, Point(1, 2), Batch(1, 2), (1, None, 2)]
    assert len({flatten(thing)[1] for thing in things}) == len(things)


# What becomes an input


def test_tensors_arrays_and_floats_in_nested_containers_become_inputs() -> None:
    batch = {"x": [ones(2)], "y": Batch(ones(2), None)}
    graph = tt.trace(lambda batch, scale: batch["x"][0] * scale + batch["y"].images, batch, 2.0)
    assert [str(v.type) for v in graph.inputs] == ["f32[2]", "f32[2]", "f32[()]"]
    assert [graph.names[v] for v in graph.inputs] == ["batch_x_0", "batch_y_images", "scale"]
    np.testing.assert_array_equal(graph(ones(2), 3 * ones(2), np.float32(2)), [5, 5])


def test_keyword_arguments_are_named_inputs() -> None:
    def scaled(x: Any, *, by: Any) -> Any:
        return x * by

    graph = tt.trace(scaled, ones(2), by=tt.tensor([2.0, 3.0]))
    assert [graph.names[v] for v in graph.inputs] == ["x", "by"]


def test_other_python_values_are_seen_as_they_are() -> None:
    def power(x: Any, times: int, mode: str = "mul") -> Any:
        for _ in range(times):  # unrolls
            x = x * 2 if mode == "mul" else x + 2
        return x

    assert [n.op.name for n in tt.trace(power, ones(2), 3).nodes if n.op.name != "constant"] == ["mul"] * 3
    assert [n.op.name for n in tt.trace(power, ones(2), 2, mode="add").nodes if n.op.name != "constant"] == ["add"] * 2


def test_static_arguments_are_not_inputs() -> None:
    scale = lambda x, table, rate: x * float(table[0]) * rate
    graph = tt.trace(scale, ones(2), np.array([3.0]), 0.5, static=("table", 2))
    assert [graph.names[v] for v in graph.inputs] == ["x"]
    np.testing.assert_array_equal(graph(ones(2)), [1.5, 1.5])


def test_a_captured_tensor_is_a_bound_input_and_keeps_its_memory() -> None:
    weight = tt.Parameter(tt.ones(2))
    graph = tt.trace(lambda x: x * weight, ones(2))
    (bound,) = graph.bound.values()
    assert bound is weight.numpy()
    assert [graph.names[v] for v in graph.inputs] == ["x", "weight"]
    with tt.no_grad():
        weight.copy_(5.0)
    np.testing.assert_array_equal(graph(ones(2)), [5, 5])


def test_a_tensor_that_is_overwritten_is_donated() -> None:
    count = tt.tensor(0.0)

    def tick(x: Any) -> Any:
        count.copy_(count + 1)
        return x * count

    graph = tt.trace(tick, ones(2))
    assert count.item() == 0, "tracing itself must change nothing"
    assert graph.donated == {1: 1}
    result, after = graph(ones(2))
    assert result.tolist() == [1, 1] and after == 1


def test_small_arrays_are_written_into_the_program_and_big_ones_bound() -> None:
    graph = tt.trace(lambda x: x + np.arange(3, dtype=np.float32), ones(3))
    assert "constant(value=(0.0, 1.0, 2.0)" in str(graph)
    graph = tt.trace(lambda x: x + np.arange(100, dtype=np.float32), ones(100))
    assert len(graph.bound) == 1


# The user's lines


def test_nodes_remember_the_users_line() -> None:
    def f(x: Any) -> Any:
        return ops.exp(x)  # this line

    (node,) = tt.trace(f, ones(2)).nodes
    assert node.source is not None and node.source.text.endswith("# this line") and node.source.function == "f"


@pytest.mark.parametrize("branch", [
    lambda x: x if x.sum() > 0 else -x, lambda x: x if bool(x[0]) else -x,
    lambda x: x if (x > 0).all() and x.sum() > 1 else -x])
def test_a_branch_on_a_traced_value_shows_the_line_and_the_remedy(branch: Any) -> None:
    with pytest.raises(TracingError, match=r"cannot branch on a traced value") as caught:
        tt.trace(branch, ones(2))
    assert "test_frontends.py" in str(caught.value) and "tt.where" in str(caught.value)


@pytest.mark.parametrize("read", [
    lambda x: x.item(), lambda x: float(x.sum()), lambda x: x.numpy().max(), lambda x: np.asarray(x)])
def test_reading_numbers_while_tracing_is_refused(read: Any) -> None:
    with pytest.raises(TracingError, match="not known while the function is traced"):
        tt.trace(read, ones(1))


def test_a_traced_value_may_not_be_used_after_the_trace() -> None:
    kept = []
    tt.trace(lambda x: kept.append(x * 2) or x, ones(2))
    with pytest.raises(TracingError, match="left the function it was traced in"):
        kept[0] + 1


def test_a_boolean_mask_is_refused_while_tracing() -> None:
    with pytest.raises(TracingError, match="where"):
        tt.trace(lambda x: x[x > 0], ones(3))


def test_an_error_in_the_function_leaves_the_interpreter_as_it_was() -> None:
    with pytest.raises(ZeroDivisionError):
        tt.trace(lambda x: 1 // 0, ones(2))
    assert (tt.tensor([1.0]) + 1).numpy().tolist() == [2]


# Text that is pasted back


@pytest.mark.parametrize("function, args", [
    (lambda x, y: (ops.softmax(x @ y), x.sum()), (ones(2, 3), ones(3, 4))),
    (lambda x: x.reshape(6)[::-2] * np.float32(np.inf), (ones(2, 3),)),
    (lambda x: ops.layer_norm(x, ones(3), ones(3)) > 0, (ones(2, 3),))])
def test_pasted_text_traces_to_the_same_graph(function: Any, args: Any) -> None:
    graph = tt.trace(function, *args)
    namespace: dict[str, Any] = {}
    exec(str(graph), namespace)  # as a user would: it is the text that we printed
    bound = {graph.names[v]: a for v, a in graph.bound.items()}
    again = tt.trace(namespace[graph.name], *args, **bound)
    assert again.same_as(graph), f"{graph}\n\n{again}"
