"""Layouts agree with what NumPy does: the same elements by strides, and a copy only where NumPy copies."""

import numpy as np
import pytest
from hypothesis import given, settings
from random_graphs import VIEWS, graphs

from tinytorch.ir import Builder, Graph, Kind, Value, f32, ops
from tinytorch.ir.layout import is_packed, is_strided_view, layouts
from tinytorch.ir.types import row_major_strides


@settings(max_examples=200)
@given(graph=graphs(max_nodes=12, steps=(*VIEWS, "windows"), dtypes=(f32,)))
def test_layouts_are_numpys(graph: Graph) -> None:
    where = layouts(graph)
    arrays: dict[Value, np.ndarray] = {v: np.random.default_rng(0).standard_normal(v.shape).astype(np.float32)
                                       for v in graph.inputs}
    for node in graph.nodes:
        operands = [arrays[v] for v in node.inputs]
        result = np.asarray(node.op.eval(*operands, **node.attrs))
        if node.op.kind is not Kind.VIEW:
            assert where[node.output].root is node.output
        elif result.size:
            assert is_strided_view(node, where[node.inputs[0]].strides) == np.shares_memory(result, operands[0])
        own = where[node.output].root is node.output
        arrays[node.output] = np.array(result, order="C") if own else result
        if result.size:
            layout = where[node.output]
            flat = arrays[layout.root].reshape(-1)[layout.offset:]
            seen = np.lib.stride_tricks.as_strided(flat, result.shape, [s * 4 for s in layout.strides])
            np.testing.assert_array_equal(seen, result)
            assert layout.is_packed(result.shape) == arrays[node.output].flags.c_contiguous


@pytest.mark.parametrize("shape, strides, packed", [
    ((), (), True), ((3,), (1,), True), ((3,), (2,), False), ((1,), (7,), True), ((2, 3), (3, 1), True),
    ((2, 3), (1, 2), False),
    ((2, 1, 3), (3, 99, 1), True), ((0, 3), (5, 5), True), ((3, 0), (5, 5), True), ((2, 3), (0, 1), False),
])
def test_packed(shape: tuple[int, ...], strides: tuple[int, ...], packed: bool) -> None:
    assert is_packed(shape, strides) is packed
    assert is_packed(shape, row_major_strides(shape))


def test_views_share_the_root_and_copies_are_roots() -> None:
    build = Builder()
    x = build.input("x", f32[4, 6])
    with build:
        turned = ops.transpose(x)
        part = ops.slice(turned, (5, 1), (3, 2), (-2, 1))
        flat = ops.reshape(turned, (24,))
        rows = ops.reshape(flat, (2, 12))
    where = layouts(build.finish([part, rows]))
    found = where[part.payload]
    assert found.root is x.payload and found.offset == 5 + 6 and found.strides == (-2, 6)
    assert where[flat.payload].root is flat.payload and where[rows.payload].root is flat.payload
