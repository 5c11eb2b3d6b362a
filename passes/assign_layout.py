"""Let matrix products read their operands the way they lie: transposes become flags, stacks become tall matrices.

    AssignLayout()(graph)

A product packs its operands anyway, so reading one the other way round is free, while a transpose that must be stored
is a pass over memory. A stack of matrices times one matrix is one product of all rows, and the gradient of that matrix
is one product instead of a sum of many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Graph, Kind, Node, Operand, Value, ops
from tinytorch.ir.types import Shape

from .rewrite import By, Edit, Table, rewrite
from .simplify_shapes import VIEW_RULES


@dataclass(frozen=True)
class AssignLayout:
    """Transposes absorbed into matrix products where they are read, or where they are made."""

    def __call__(self, graph: Graph, /) -> Graph:
        return rewrite(graph, _TABLE)


def _swaps_last(node: Node) -> bool:
    """Whether a transpose exchanges the last two axes and leaves the others where they are."""
    axes = node.attrs["axes"]
    n = len(axes)
    return n >= 2 and tuple(axes) == (*range(n - 2), n - 1, n - 2)


def _turned(value: Value, edit: Edit) -> Any:
    """x, if `value` is the transpose of x over the last two axes, perhaps with the axes before them reshaped;
    None if not."""
    node = edit.producer.get(value)
    if node is None:
        return None
    if node.op is ops.transpose and _swaps_last(node):
        return Operand(node.inputs[0])
    if node.op is not ops.reshape or len(value.shape) < 2 or node.inputs[0].shape[-2:] != value.shape[-2:]:
        return None
    below = edit.producer.get(node.inputs[0])
    if below is None or below.op is not ops.transpose or not _swaps_last(below) or 0 in value.shape:
        return None
    return ops.reshape(Operand(below.inputs[0]), (*value.shape[:-2], value.shape[-1], value.shape[-2]))


def _read_turned(node: Node, edit: Edit) -> Any:
    x, y = node.inputs
    turned_x, turned_y = _turned(x, edit), _turned(y, edit)
    if turned_x is None and turned_y is None:
        return None
    return ops.matmul(
        Operand(x) if turned_x is None else turned_x, Operand(y) if turned_y is None else turned_y,
        node.attrs["transpose_x"] != (turned_x is not None), node.attrs["transpose_y"] != (turned_y is not None))


def _write_turned(node: Node, edit: Edit) -> Any:
    product = edit.producer.get(node.inputs[0])
    if product is None or product.op is not ops.matmul or not _swaps_last(node) or edit.is_shared(node.inputs[0]):
        return None
    x, y = map(Operand, product.inputs)
    return ops.matmul(y, x, not product.attrs["transpose_y"], not product.attrs["transpose_x"])


def _rows_of_stack(node: Node, edit: Edit) -> Any:
    x, y = node.inputs
    if (len(x.shape) < 3 or math.prod(y.shape[:-2]) != 1 or len(y.shape) > len(x.shape)
            or node.attrs["transpose_x"] or math.prod(x.shape[:-2]) == 1):
        return None
    below = edit.producer.get(x)
    if below is not None and below.op.kind is Kind.VIEW and below.op is not ops.reshape:
        return None  # its rows do not lie in order: flattening them would copy
    matrix = ops.reshape(Operand(y), y.shape[-2:])
    return ops.reshape(ops.matmul(_flat(x), matrix, False, node.attrs["transpose_y"]), node.output.shape)


def _sum_of_stack(node: Node, edit: Edit) -> Any:
    product = edit.producer.get(node.inputs[0])
    batch = tuple(range(len(node.inputs[0].shape) - 2))
    if (product is None or product.op is not ops.matmul or edit.is_shared(node.inputs[0])
            or not batch or node.attrs["axis"] != batch):
        return None
    x, y = product.inputs
    if x.shape[:-2] != y.shape[:-2] or not product.attrs["transpose_x"] or product.attrs["transpose_y"]:
        return None
    return ops.reshape(ops.matmul(_flat(x), _flat(y), True, False), node.output.shape)


def _flat(value: Value) -> Any:
    """A stack of matrices as one tall matrix."""
    shape: Shape = value.shape
    return ops.reshape(Operand(value), (math.prod(shape[:-1]), shape[-1]))


_TABLE = Table((
    *VIEW_RULES,
    By("xᵀ y with a flag", (ops.matmul,), _read_turned),
    By("(x y)ᵀ = yᵀ xᵀ", (ops.transpose,), _write_turned),
    By("(…, m, k) · (k, n) = (… m, k) · (k, n)", (ops.matmul,), _rows_of_stack),
    By("Σ xᵢᵀ yᵢ = xᵀ y, rows stacked", (ops.sum,), _sum_of_stack),
))
