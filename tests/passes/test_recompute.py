"""Recompute: what is computed again where it is read, and what stays. SplitSums: when a fold is cut in two."""

from typing import Any

import numpy as np
import pytest
from programs import program

import tinytorch as tt
from tinytorch.ir import Graph, TensorType, f16, f32, i64, ops, verify
from tinytorch.passes import ExpandComposites, Fuse, MergeCommon, Simplify, check_same_meaning
from tinytorch.passes.recompute import Recompute
from tinytorch.passes.split_sums import SplitSums

X = f32[64, 32]


def before_and_after(function: Any, *types: TensorType) -> tuple[Graph, Graph]:
    """The fused graph of a function, and what Recompute makes of it: the same, bit for bit."""
    before = Fuse()(MergeCommon()(Simplify()(ExpandComposites()(program(function, *types)))))
    after = verify(Recompute()(before))
    check_same_meaning(before, after, np.random.default_rng(1))
    return before, after


def results(graph: Graph) -> int:
    """How many results its kernels write."""
    return sum(len(n.outputs) for n in graph.nodes if n.op.kind.launches)


def twice(make: Any) -> Any:
    """A function whose parts a kernel writes, and another one, after a running sum, reads."""
    def function(x: Any, *more: Any) -> Any:
        parts, result = make(x, *more)
        return result, parts * ops.cumsum(result, 0)
    return function


@pytest.mark.parametrize(("make", "written"), [
    (lambda x: (x * x + 1.0, ops.tanh(x * x + 1.0)), 1),             # cheap: made again of x
    (lambda x: (ops.exp(x), ops.exp(x) * x), 0),                     # dear: stays
    (lambda x: (1.0 / x, 1.0 / x + x), 0),                           # so is a division
    (lambda x: (ops.exp(x) + x, (ops.exp(x) + x) * 2.0), 0),         # made of what the second kernel does not read
    (lambda x: (x - ops.sum(x, 1, True), ops.exp(x - ops.sum(x, 1, True))), 0),  # folds are not made again
])  # fmt: skip
def test_what_is_computed_again(make: Any, written: int) -> None:
    function = twice(lambda x: (lambda parts, result: (parts + x * 0.5, result))(*make(x)))
    before, after = before_and_after(function, X)
    assert results(before) - results(after) == written


def test_storage_types_are_rounded_as_before() -> None:
    function = twice(lambda x: (x * 3.1 + 1.0, ops.tanh(x * 3.1 + 1.0) * x))
    before_and_after(lambda x: tuple(r * x for r in function(x)), f16[64, 32])


def test_a_random_mask_is_drawn_again() -> None:
    def function(x: Any, key: Any) -> Any:
        keep = ops.random_uniform(key, (64, 32)) >= 0.1
        y = ops.where(keep, x, 0.0)
        return ops.where(keep, ops.cumsum(y, 0), 0.0) * x

    before, after = before_and_after(function, X, i64[()])
    assert results(before) - results(after) == 1
    assert not any(v.dtype.kind == "b" for n in after.nodes for v in n.outputs)


def test_positions_are_checked_once() -> None:
    """in_range reports; doing it again elsewhere would be no harm, but no gain."""
    function = lambda i, x: (lambda j: (ops.take(x, j, 0), ops.cumsum(j, 0) + j))(ops.in_range(i, 4) + 0)
    _, after = before_and_after(lambda i, x: function(ops.minimum(ops.maximum(i, 0), 3), x), i64[(64,)], f32[4, 3])
    bodies = [n for node in after.nodes for n in (node.body.nodes if node.body is not None else (node,))]
    assert sum(n.op is ops.in_range for n in bodies) == 1


def test_a_network_writes_what_its_gradient_needs_and_no_more() -> None:
    """gelu's forward kernel writes its result and its operand: not the seven other parts of the formula."""
    random = np.random.default_rng(0)
    w, v = (tt.nn.Parameter(random.standard_normal(shape).astype(np.float32)) for shape in ((32, 16), (32, 8)))

    def step(x: Any) -> Any:
        loss = ((tt.nn.functional.gelu(x @ w.T, "tanh") @ v) ** 2).sum()
        loss.backward()
        return w.grad

    x = tt.tensor(np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32))
    fast = tt.compile(step)
    found = fast(x).numpy()
    forward = next(n for n in fast.latest.program.graph.nodes if n.body is not None)
    assert len(forward.outputs) == 2
    w.grad = None
    np.testing.assert_allclose(found, step(x).numpy(), 1e-4, 1e-3)


# -- SplitSums ---------------------------------------------------------------------------------------------------------


def folds(graph: Graph) -> list[tuple[int, ...]]:
    """The axes of the folds, in order."""
    return [n.attrs["axis"] for n in graph.nodes if n.op.kind.value == "reduce"]


@pytest.mark.parametrize(("shape", "axis", "keepdims", "expected"), [
    ((512, 256), (0, 1), False, [(1,), (0, 1)]), ((1, 512, 256), (0, 1, 2), True, [(2,), (0, 1, 2)]),
    ((16, 64, 64), (0, 1, 2), False, [(1, 2), (0, 1, 2)]),
    ((16, 16), (0, 1), False, [(0, 1)]), ((1 << 17,), (0,), False, [(0,)]), ((512, 256), (0,), False, [(0,)]),
    ((2, 1 << 17), (0, 1), False, [(0, 1)]),
])  # fmt: skip
def test_big_folds_are_cut_in_two(shape: Any, axis: Any, keepdims: bool, expected: list[tuple[int, ...]]) -> None:
    graph = program(lambda x: ops.sum(x * 2.0, axis, keepdims), TensorType(f32, shape))
    after = verify(SplitSums()(graph))
    assert folds(after) == expected
    check_same_meaning(graph, after, np.random.default_rng(1))


def test_a_sum_is_the_same_with_any_number_of_threads() -> None:
    x = tt.tensor(np.random.default_rng(0).standard_normal((600, 300)).astype(np.float32))
    found = {float(tt.compile(lambda x: (x * x).sum(), threads=n)(x).item()) for n in (1, 2, 4)}
    assert len(found) == 1
    assert abs(found.pop() - float((x.numpy().astype(np.float64) ** 2).sum())) < 0.05
