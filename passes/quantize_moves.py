"""Keep bytes as bytes: move `quantize` up and `dequantize` down a graph, and let scales become one.

    MoveGrids()(graph)

    Q(max x) = max Q(x)          rounding keeps order, so pools and all that only moves elements work on bytes
    f(D(q)) = D(f(q))            the same, downwards; what is padded with 0 is padded with the zero point
    Q(D(q)) = q                  on the same grid: nothing is left
    Q(relu(x)) = Q(x)            where the zero point is 0, cutting does it
    Q(x · t) = Q'(x · (t / s))   with grid 1: the scale of the grid joins constants that are multiplied anyway

The first four are exact. The last rounds a constant where it rounded a product, so that a number halfway between two
grid points may come to lie on the other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Graph, Node, Operand, Value, bind, ops

from .known import bound_sources
from .rewrite import By, Edit, Table, rewrite

MOVES = (ops.reshape, ops.transpose, ops.slice, ops.broadcast_to)  # each element of the result is one of x
GREATEST = (ops.max_pool2d, ops.pool_max)


@dataclass(frozen=True)
class MoveGrids:
    """Bytes in memory wherever a value is quantised; `scales`: also join scales with constants."""

    scales: bool = True

    def __call__(self, graph: Graph, /) -> Graph:
        graph = rewrite(graph, _TABLE)
        return rewrite(graph, Table(tuple(_scale_rules(graph)))) if self.scales else graph


def _grid(node: Node, edit: Edit) -> tuple[float, float] | None:
    """Scale and zero point of a `quantize` or `dequantize`, if they are single known numbers."""
    scale, zero = (edit.scalars.get(v) for v in node.inputs[1:])
    return None if scale is None or zero is None or node.inputs[1].shape != () else (scale, zero)


# -- upwards -----------------------------------------------------------------------------------------------------------


def _quantize(node: Node, edit: Edit) -> Any:
    grid, below = _grid(node, edit), edit.producer.get(node.inputs[0])
    if grid is None or below is None:
        return None
    if below.op is ops.dequantize and _grid(below, edit) == grid and below.inputs[0].dtype is node.output.dtype:
        return Operand(below.inputs[0])
    if below.op in MOVES or below.op in GREATEST:
        return bind(below.op, _same_grid(node, below.inputs[0]), **below.attrs)
    if below.op is ops.concat:
        return ops.concat(*(_same_grid(node, part) for part in below.inputs), axis=below.attrs["axis"])
    if below.op is ops.pad and below.attrs["value"] == 0:
        return bind(ops.pad, _same_grid(node, below.inputs[0]), **{**below.attrs, "value": float(grid[1])})
    if below.op is ops.relu and grid[1] == 0 and node.output.dtype.name == "u8":
        return _same_grid(node, below.inputs[0])
    return None


def _same_grid(node: Node, x: Value) -> Any:
    return bind(ops.quantize, Operand(x), *map(Operand, node.inputs[1:]), **node.attrs)


# -- downwards ---------------------------------------------------------------------------------------------------------


def _dequantized(node: Node, edit: Edit) -> Any:
    """An op that only moves or chooses elements, of what has just been dequantised."""
    below = [edit.producer.get(v) for v in node.inputs]
    first = below[0]
    if first is None or any(n is None or n.op is not ops.dequantize for n in below):
        return None
    grids = {_grid(n, edit) for n in below if n is not None}
    grid = grids.pop()
    if grids or grid is None or len({n.inputs[0].dtype for n in below if n is not None}) > 1:
        return None
    attrs = node.attrs
    if node.op is ops.pad:
        if attrs["value"] != 0:
            return None
        attrs = {**attrs, "value": float(grid[1])}
    moved = bind(node.op, *(Operand(n.inputs[0]) for n in below if n is not None), **attrs)
    return ops.dequantize(moved, *map(Operand, first.inputs[1:]))


_TABLE = Table((
    By("Q(f(x)) = f(Q(x)), Q(D(q)) = q", (ops.quantize,), _quantize),
    By("f(D(q)) = D(f(q))", (*MOVES, *GREATEST, ops.concat, ops.pad), _dequantized),
))

# -- scales ------------------------------------------------------------------------------------------------------------


def _scale_rules(graph: Graph) -> Iterator[By]:
    known = frozenset(bound_sources(graph, graph.bound))

    def join(node: Node, edit: Edit) -> Any:
        grid = _grid(node, edit)
        if grid is None or grid[0] == 1 or not _is_scalable(node.inputs[0], edit, known):
            return None
        x = _scaled(node.inputs[0], 1 / grid[0], edit, known)
        return ops.quantize(x, 1.0, grid[1], node.attrs["dtype"])

    yield By("Q(x · t) = Q'(x · (t / s))", (ops.quantize,), join)


def _is_scalable(value: Value, edit: Edit, known: frozenset[Value]) -> bool:
    """Whether a value times a positive number costs no more than the value."""
    node = edit.producer.get(value)
    if node is None or edit.is_shared(value):
        return False
    if node.op is ops.dequantize:
        return _grid(node, edit) is not None
    if node.op is ops.mul:
        return _constant(node, known) is not None
    if node.op is ops.add:
        return all(_is_scalable(v, edit, known) or v in known for v in node.inputs)
    return (node.op in (ops.relu, *MOVES)) and _is_scalable(node.inputs[0], edit, known)


def _constant(node: Node, known: frozenset[Value]) -> int | None:
    """Which operand of a product is known."""
    return next((place for place in (1, 0) if node.inputs[place] in known), None)


def _scaled(value: Value, factor: float, edit: Edit, known: frozenset[Value]) -> Any:
    if value in known:
        return Operand(value) * factor
    node = edit.producer[value]
    if node.op is ops.dequantize:
        scale, zero = _grid(node, edit)  # type: ignore[misc]
        return ops.dequantize(Operand(node.inputs[0]), scale * factor, zero)
    if node.op is ops.mul:
        place = _constant(node, known)
        assert place is not None
        return Operand(node.inputs[1 - place]) * (Operand(node.inputs[place]) * factor)
    operands = [_scaled(v, factor, edit, known) for v in node.inputs]
    return bind(node.op, *operands, **node.attrs)
