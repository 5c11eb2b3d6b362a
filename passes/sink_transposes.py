"""Move transposes down a graph, through all that does not care in which order axes lie, until they meet their inverse.

    SinkTransposes()(graph)

Convolutions and pooling compute channels last, attention with heads inside, and each is written with a transpose before
and one after. f(xᵀ) = f(x)ᵀ for pointwise f, reductions, padding and slices, so that between two convolutions the
transposes vanish, and with them every copy: values lie as kernels want them, and are turned at the borders of a network
alone. So it is for gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Graph, Node, Operand, Value, bind, ops
from tinytorch.ir.types import Shape

from .rewrite import By, Edit, Table, rewrite
from .simplify_shapes import POINTWISE, REDUCTIONS, VIEW_RULES


@dataclass(frozen=True)
class SinkTransposes:
    """Transposes as late as can be."""

    def __call__(self, graph: Graph, /) -> Graph:
        return rewrite(graph, _TABLE)


def _axes(value: Value, edit: Edit) -> Shape | None:
    """The order of axes in which `value` is a transpose; None if it is none."""
    node = edit.producer.get(value)
    return node.attrs["axes"] if node is not None and node.op is ops.transpose else None


def _below(value: Value, edit: Edit) -> Operand:
    return Operand(edit.producer[value].inputs[0])


def _inverse(axes: Shape) -> Shape:
    return tuple(axes.index(a) for a in range(len(axes)))


def _pointwise(node: Node, edit: Edit) -> Any:
    shape = node.output.shape
    whole = [v for v in node.inputs if v.shape == shape]
    found = {axes for v in whole if (axes := _axes(v, edit)) is not None}
    if len(found) != 1:
        return None
    axes = found.pop()
    if any(_axes(v, edit) is None and v.dtype.kind != "b" for v in whole):
        return None  # it would be turned in its place; a mask is turned at a quarter of the cost
    operands = [_below(v, edit) if v in whole and _axes(v, edit) == axes else _turned(v, axes) for v in node.inputs]
    return ops.transpose(bind(node.op, *operands, **node.attrs), axes)


def _turned(value: Value, axes: Shape) -> Any:
    """An operand as it broadcasts against what lies as before the transpose by `axes`."""
    if value.type.size == 1:
        return ops.reshape(Operand(value), ())
    shape = (*(1,) * (len(axes) - len(value.shape)), *value.shape)
    return ops.transpose(ops.reshape(Operand(value), shape), _inverse(axes))


def _reduction(node: Node, edit: Edit) -> Any:
    axes = _axes(node.inputs[0], edit)
    if axes is None:
        return None
    folded = [axes[a] for a in node.attrs["axis"]]
    y = node.op(_below(node.inputs[0], edit), tuple(sorted(folded)))
    left = [a for a in axes if a not in folded]  # in the order in which they are wanted
    y = ops.transpose(y, [sorted(left).index(a) for a in left]) if left else y
    return ops.reshape(y, node.output.shape)


def _pad(node: Node, edit: Edit) -> Any:
    axes = _axes(node.inputs[0], edit)
    if axes is None:
        return None
    sides = [_in_order(node.attrs[name], axes) for name in ("low", "high", "interior")]
    return ops.transpose(ops.pad(_below(node.inputs[0], edit), *sides, node.attrs["value"]), axes)


def _slice(node: Node, edit: Edit) -> Any:
    axes = _axes(node.inputs[0], edit)
    if axes is None:
        return None
    parts = [_in_order(node.attrs[name], axes) for name in ("start", "size", "step")]
    return ops.transpose(ops.slice(_below(node.inputs[0], edit), *parts), axes)


def _concat(node: Node, edit: Edit) -> Any:
    found = {_axes(v, edit) for v in node.inputs}
    axes = found.pop()
    if found or axes is None:
        return None
    parts = [_below(v, edit) for v in node.inputs]
    return ops.transpose(ops.concat(*parts, axis=axes[node.attrs["axis"]]), axes)


def _in_order(numbers: Sequence[int], axes: Shape) -> Shape:
    """One number an axis of a transpose, as one an axis of what is transposed."""
    return tuple(numbers[axes.index(a)] for a in range(len(axes)))


_TABLE = Table((
    *VIEW_RULES,
    By("f(xᵀ, yᵀ) = f(x, y)ᵀ", POINTWISE, _pointwise),
    By("Σ xᵀ = (Σ x)ᵀ, over the same axes", REDUCTIONS, _reduction),
    By("pad xᵀ = (pad x)ᵀ", (ops.pad,), _pad),
    By("slice of xᵀ = (slice of x)ᵀ", (ops.slice,), _slice),
    By("concat of xᵀ, yᵀ = (concat of x, y)ᵀ", (ops.concat,), _concat),
))
