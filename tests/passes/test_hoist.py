"""HoistBound: what goes into the preparation, what stays, and that both together mean what the graph meant."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import program
from random_graphs import graphs

from tinytorch.ir import Builder, Graph, TensorType, f16, f32, ops, verify
from tinytorch.passes import ExpandComposites, MergeCommon, RemoveDead, Simplify
from tinytorch.passes.hoist_bound import HoistBound
from tinytorch.passes.known import bound_sources

X, W = f32[5, 4], f32[4, 4]


def names(graph: Graph | None) -> list[str]:
    return [] if graph is None else [node.op.name for node in graph.nodes]


def weight(type_: TensorType, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *type_.shape]).standard_normal(type_.shape).astype(type_.dtype.np)


def together(graph: Graph, preparation: Graph | None, main: Graph, arrays: list[np.ndarray]) -> None:
    """Fail unless the preparation and then the main graph give what the graph gives."""
    verify(main)
    if preparation is None:
        assert main is graph
        return
    verify(preparation)
    assert not preparation.free and not preparation.donated and main.free == graph.free
    made = preparation()
    made = made if isinstance(made, tuple) else (made,)
    bound = {main.names[v]: array for v, array in zip(preparation.outputs, made, strict=True)}
    expected, found = graph(*arrays), main(*arrays, **bound)
    for a, b in zip(expected, found, strict=True) if isinstance(found, tuple) else [(expected, found)]:
        np.testing.assert_array_equal(a, b)


# The function of x, w and b, bound to w and b; the ops of the preparation, and those that stay.
CASES: dict[str, tuple[Callable[..., Any], list[str], list[str]]] = {
    "product": (lambda x, w, b: x @ (w * w), ["mul"], ["matmul"]),
    "several": (lambda x, w, b: x @ ops.exp(w * w) + (b * b), ["mul", "exp", "mul"], ["matmul", "add"]),
    "a view": (lambda x, w, b: ops.matmul(x, ops.transpose(w)), [], ["transpose", "matmul"]),
    "a view of what is made": (lambda x, w, b: x + ops.reshape(b * b, (1, 4)), ["mul"], ["reshape", "add"]),
    "a reshape that copies": (lambda x, w, b: ops.reshape(ops.transpose(w), (2, 8)) * ops.sum(x),
                              ["transpose", "reshape"], ["sum", "mul"]),
    "a copy for a kernel": (lambda x, w, b: ops.take(ops.transpose(w), ops.cast(ops.sum(x, 1), "i64"), 0),
                            ["transpose", "detach"], ["sum", "cast", "take"]),
    "no copy of x": (lambda x, w, b: (ops.take(ops.transpose(x), ops.cast(ops.sum(x, 0), "i64"), 0), x @ (w * w)),
                     ["mul"], ["transpose", "sum", "cast", "take", "matmul"]),
    "literals": (lambda x, w, b: x + ops.sin(ops.cast(ops.iota((5, 4), 0), "f32")), [], ["iota", "cast", "sin", "add"]),
    "literals on the way": (lambda x, w, b: x @ (w * ops.cast(ops.iota((4, 4), 0), "f32")), ["iota", "cast", "mul"],
                            ["matmul"]),
    "a number": (lambda x, w, b: x * ops.sum(w), [], ["sum", "mul"]),
    "a number on the way": (lambda x, w, b: x @ (w * ops.sum(w)), ["sum", "mul"], ["matmul"]),
    "a result": (lambda x, w, b: (x * 2.0, w * w), ["mul"], ["constant", "mul"]),
    "nothing else": (lambda x, w, b: w * w + ops.sum(x) * 0.0, ["mul"], ["sum", "constant", "mul", "add"]),
    "used on both sides": (lambda x, w, b: (x @ (w * w), x @ ops.exp(w * w)), ["mul", "exp"], ["matmul", "matmul"]),
    "two results": (lambda x, w, b: x @ (w * w) @ (w + w),
                    ["mul", "add"], ["matmul", "matmul"]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_prepared_and_what_stays(name: str) -> None:
    function, prepared, left = CASES[name]
    graph = program(function, X, W, f32[4], bound={1: weight(W), 2: weight(f32[4])})
    preparation, main = HoistBound().split(graph)
    assert (names(preparation), names(main)) == (prepared, left)
    together(graph, preparation, main, [np.full((5, 4), 0.5, np.float32)])


def test_results_take_no_more_memory_than_they_come_from() -> None:
    half, row = f16[64, 64], f32[64]
    graph = program(lambda x, w, b: x @ ops.cast(w * w, "f32") + ops.exp(ops.broadcast_to(b * b, (64, 64))),
                    f32[64, 64], half, row, bound={1: weight(half), 2: weight(row)})
    preparation, main = HoistBound(spare=0).split(graph)
    assert names(preparation) == ["mul", "mul"] and "cast" in names(main) and "exp" in names(main)
    kept = {spare: sum(v.type.nbytes for v in HoistBound(spare).split(graph)[0].outputs)  # type: ignore[union-attr]
            for spare in (0, 8192, 16384 - 256 + 8192)}
    sources = 64 * 64 * 2 + 64 * 4
    assert all(nbytes <= sources + spare for spare, nbytes in kept.items()) and len(set(kept.values())) == 3


def test_all_results_of_an_input_take_no_more_than_twice_its_memory() -> None:
    big = f32[64, 64]
    graph = program(lambda x, w, *bs: tuple(x * ops.sin(w * b) for b in bs), big, big, *[f32[64]] * 6,
                    bound={1: weight(big), **{n: weight(f32[64], n) for n in range(2, 8)}})
    for spare, count in (0, 2), (1 << 14, 3), (1 << 20, 6):
        preparation, main = HoistBound(spare).split(graph)
        assert preparation is not None
        assert names(preparation).count("sin") == count and names(main).count("sin") == 6 - count
        together(graph, preparation, main, [weight(big, 9)])


def test_only_steady_inputs_and_none_that_is_overwritten() -> None:
    build = Builder("step")
    x, w, v = build.input("x", W), build.input("w", W, weight(W)), build.input("v", W, weight(W, 1))
    with build:
        y, new = x @ (w * w) @ (v * v), w + x
    graph = build.finish([y, new], {1: w.payload})
    preparation, main = HoistBound().split(graph)
    assert preparation is not None and [p.hint for p in preparation.inputs] == ["v"]
    assert main.inputs[main.donated[1]] is w.payload
    assert [v.hint for v in preparation.outputs] == ["v_prepared"]
    assert HoistBound().split(graph, steady=()) == (None, graph)
    assert HoistBound()(graph) is graph
    assert w.payload not in bound_sources(graph, graph.bound) and v.payload in bound_sources(graph, graph.bound)


@settings(max_examples=60)
@given(graphs(donate=True), st.integers(0, 255))
def test_random_graphs_cut_anywhere_mean_the_same(graph: Graph, which: int) -> None:
    graph = RemoveDead()(MergeCommon()(Simplify()(ExpandComposites()(graph))))
    rng = np.random.default_rng(0)
    values = {v: graph.bound[v] if v in graph.bound else weight(v.type) if v.dtype.is_float
              else rng.integers(0, 2, v.shape).astype(v.dtype.np) for v in graph.inputs}
    graph = graph.with_(bound={v: array for n, (v, array) in enumerate(values.items()) if which >> n & 1})
    together(graph, *HoistBound().split(graph), [values[v] for v in graph.free])
