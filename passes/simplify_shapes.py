"""The equations of `Simplify` that depend on shapes: views of views, repeated operands, reductions of what is repeated.

    graph = rewrite(graph, Table(VIEW_RULES))

Each rule is a function of a node and of the graph being written, and gives what replaces the node, or None. Explicit
repetition (`broadcast_to`) before an elementwise op goes, since such ops repeat by themselves: what is left is one loop
that fusion can take whole.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch.ir import Kind, Node, Op, Operand, Value, bind, ops, registry
from tinytorch.ir.types import Shape, broadcast_shapes, reduced_shape

from .rewrite import By, Edit, as_number

# -- views -------------------------------------------------------------------------------------------------------------


def _below(node: Node, edit: Edit, op: Op) -> Node | None:
    """The node that makes the first operand, if it is of this op."""
    below = edit.producer.get(node.inputs[0])
    return below if below is not None and below.op is op else None


def _reshape(node: Node, edit: Edit) -> Any:
    x = node.inputs[0]
    if x.shape == node.output.shape:
        return Operand(x)
    below = _below(node, edit, ops.reshape)
    if below is not None:
        return ops.reshape(Operand(below.inputs[0]), node.output.shape)
    below = _below(node, edit, ops.broadcast_to)
    source = None if below is None else _reshape_before_repeating(below.inputs[0], x.shape, node.output.shape)
    return None if source is None else ops.broadcast_to(source, node.output.shape)


def _reshape_before_repeating(source: Value, old: Shape, new: Shape) -> Any:
    """What to repeat to shape `new` instead of reshaping `source`, repeated to `old`, to `new`;
    None if there is nothing."""
    if source.type.size == 1:
        return ops.reshape(Operand(source), ())
    extents = [n for n in old if n != 1]
    if 0 in old or extents != [n for n in new if n != 1]:
        return None
    aligned = (1,) * (len(old) - len(source.shape)) + source.shape
    kept = iter([n for n, wide in zip(aligned, old, strict=True) if wide != 1])
    return ops.reshape(Operand(source), tuple(1 if n == 1 else next(kept) for n in new))


def _transpose(node: Node, edit: Edit) -> Any:
    x, axes = node.inputs[0], node.attrs["axes"]
    moved = [a for a in axes if x.shape[a] != 1]
    if moved == sorted(moved):
        return ops.reshape(Operand(x), node.output.shape)
    below = _below(node, edit, ops.transpose)
    if below is None:
        return None
    return ops.transpose(Operand(below.inputs[0]), tuple(below.attrs["axes"][a] for a in axes))


def _broadcast(node: Node, edit: Edit) -> Any:
    x, shape = node.inputs[0], node.output.shape
    if x.type.size == node.output.type.size:
        return ops.reshape(Operand(x), shape)
    source = _unbroadcast(x, edit)
    return ops.broadcast_to(Operand(source), shape) if source is not x else None


def _slice(node: Node, edit: Edit) -> Any:
    x, start, size, step = node.inputs[0], node.attrs["start"], node.attrs["size"], node.attrs["step"]
    if size == x.shape and all(s == 1 or n == 1 for s, n in zip(step, size, strict=True)) and x.type.size:
        return Operand(x)
    below = _below(node, edit, ops.slice)
    if below is None or 0 in size:
        return None
    first, stride = below.attrs["start"], below.attrs["step"]
    starts = tuple(f + a * s for f, a, s in zip(first, start, stride, strict=True))
    return ops.slice(Operand(below.inputs[0]), starts, size, tuple(a * b for a, b in zip(step, stride, strict=True)))


def _pad(node: Node, edit: Edit) -> Any:
    return Operand(node.inputs[0]) if node.inputs[0].shape == node.output.shape else None


def _concat(node: Node, edit: Edit) -> Any:
    parts = [v for v in node.inputs if v.type.size] or list(node.inputs[:1])
    if len(parts) == 1:
        return Operand(parts[0]) if parts[0].shape == node.output.shape else None
    return ops.concat(*map(Operand, parts), axis=node.attrs["axis"]) if len(parts) < len(node.inputs) else None


def _concat_of_concat(node: Node, edit: Edit) -> Any:
    axis = node.attrs["axis"]
    parts: list[Value] = []
    for value in node.inputs:
        below = edit.producer.get(value)
        joins = below is not None and below.op is ops.concat and below.attrs["axis"] == axis
        parts += below.inputs if below is not None and joins and not edit.is_shared(value) else [value]
    return ops.concat(*map(Operand, parts), axis=axis) if len(parts) > len(node.inputs) else None


def _concat_before_joining_axes(node: Node, edit: Edit) -> Any:
    """Parts whose last axis is two of their operands' (heads and features): those are put side by side as they lie."""
    axis = node.attrs["axis"]
    below = [edit.producer.get(v) for v in node.inputs]
    sources = [n.inputs[0] for n in below if n is not None and n.op is ops.reshape]
    if len(sources) < len(below) or len({v.shape[axis + 1:] for v in sources}) > 1:
        return None
    if any(s.shape[:axis] != v.shape[:axis] or len(s.shape) != axis + 2 or axis != len(v.shape) - 1
           for s, v in zip(sources, node.inputs, strict=True)):
        return None
    return ops.reshape(ops.concat(*map(Operand, sources), axis=axis), node.output.shape)


def _sum_of_pads(node: Node, edit: Edit) -> Any:
    """Terms that are 0 but for a part of one axis, these parts side by side: the gradient of a split."""
    pads = _padded_terms(node, edit)
    if pads is None:
        return None
    axes = {a for n in pads for a in range(len(node.output.shape)) if n.attrs["low"][a] or n.attrs["high"][a]}
    if len(axes) != 1:
        return None
    [axis] = axes
    pads.sort(key=lambda n: n.attrs["low"][axis])
    at = first = pads[0].attrs["low"][axis]
    for pad in pads:
        if pad.attrs["low"][axis] != at:
            return None
        at += pad.inputs[0].shape[axis]
    whole = ops.concat(*(Operand(n.inputs[0]) for n in pads), axis=axis)
    low, high = ([n if a == axis else 0 for a in range(whole.ndim)] for n in (first, node.output.shape[axis] - at))
    return ops.pad(whole, low, high)


def _padded_terms(node: Node, edit: Edit) -> list[Node] | None:
    """The terms of a sum of sums, if all of them are something padded with zeros that nobody else reads."""
    found: list[Node] = []
    stack = list(node.inputs)
    while stack:
        value = stack.pop()
        below = edit.producer.get(value)
        if below is None or edit.is_shared(value):
            return None
        if below.op is ops.add:
            stack += below.inputs
        elif below.op is ops.pad and below.attrs["value"] == 0 and not any(below.attrs["interior"]):
            found.append(below)
        else:
            return None
    return found


# -- positions that count ----------------------------------------------------------------------------------------------


def _counts(value: Value, edit: Edit) -> bool:
    """Whether a value is 0, 1, 2, …"""
    node = edit.producer.get(value)
    return node is not None and node.op is ops.iota and len(value.shape) == 1


def _count_in_range(node: Node, edit: Edit) -> Any:
    below = _below(node, edit, ops.iota)
    inside = below is not None and node.inputs[0].shape[below.attrs["axis"]] <= node.attrs["extent"]
    return Operand(node.inputs[0]) if inside else None


def _take_counted(node: Node, edit: Edit) -> Any:
    x, positions = node.inputs
    axis, count = node.attrs["axis"], positions.type.size
    if not _counts(positions, edit) or count > x.shape[axis]:
        return None
    return ops.slice(Operand(x), (0,) * len(x.shape), node.output.shape, (1,) * len(x.shape))


def _scatter_counted(node: Node, edit: Edit) -> Any:
    x, positions, more = node.inputs
    axis, count = node.attrs["axis"], positions.type.size
    if not _counts(positions, edit) or count > x.shape[axis]:
        return None
    high = [x.shape[axis] - count if a == axis else 0 for a in range(len(x.shape))]
    return ops.add(Operand(x), ops.pad(Operand(more), [0] * len(high), high))


# -- regrouped rows ----------------------------------------------------------------------------------------------------


def _rows_below(value: Value, edit: Edit) -> Value | None:
    """x (rows, …), if `value` is x with its rows regrouped as several axes, (batch, time, …)."""
    node = edit.producer.get(value)
    if node is None or node.op is not ops.reshape or value.type.size == 1:
        return None
    source = node.inputs[0]
    more = len(value.shape) - len(source.shape)
    regroups = more > 0 and source.shape and source.shape[1:] == value.shape[more + 1:]
    return source if regroups and sum(n > 1 for n in value.shape[:more + 1]) > 1 else None


def _regroup_late(node: Node, edit: Edit) -> Any:
    """Elementwise ops of regrouped rows work on the rows: a product made them, and takes such ops into its kernel."""
    shape = node.output.shape
    source = next((s for v in node.inputs if v.shape == shape and (s := _rows_below(v, edit)) is not None), None)
    if source is None:
        return None
    lead = shape[:len(shape) - len(source.shape) + 1]
    operands = []
    for value in node.inputs:
        if value.type.size == 1:
            operands.append(ops.reshape(Operand(value), ()))
        elif len(value.shape) < len(source.shape):
            operands.append(Operand(value))
        elif value.shape[:len(lead)] == lead and len(value.shape) == len(shape) and _is_packed(value, edit):
            operands.append(ops.reshape(Operand(value), (source.shape[0], *value.shape[len(lead):])))
        else:
            return None
    return ops.reshape(bind(node.op, *operands, **node.attrs), shape)


def _is_packed(value: Value, edit: Edit) -> bool:
    """Whether a value is one that regrouping does not copy."""
    node = edit.producer.get(value)
    if node is not None and node.op is ops.reshape:
        return _is_packed(node.inputs[0], edit)
    return node is None or node.op.kind not in (Kind.VIEW, Kind.SOURCE, Kind.RANDOM)


def _reduce_regrouped(node: Node, edit: Edit) -> Any:
    source = _rows_below(node.inputs[0], edit)
    if source is None:
        return None
    more = len(node.inputs[0].shape) - len(source.shape)
    lead, axes = set(range(more + 1)), set(node.attrs["axis"])
    if lead & axes and not lead <= axes:
        return None
    inner = tuple(sorted({max(a - more, 0) for a in axes}))
    return ops.reshape(node.op(Operand(source), inner), node.output.shape)


# -- repeated operands -------------------------------------------------------------------------------------------------


def _unbroadcast(value: Value, edit: Edit) -> Value:
    """What `value` repeats: the operand of a broadcast_to, or of a reshape that adds axes of extent 1 in front."""
    while (node := edit.producer.get(value)) is not None and (
            node.op is ops.broadcast_to
            or (node.op is ops.reshape and adds_leading_ones(node.inputs[0].shape, value.shape))):
        value = node.inputs[0]
    return value


def adds_leading_ones(old: Shape, new: Shape) -> bool:
    """Whether `new` is `old` with axes of extent 1 put in front."""
    more = len(new) - len(old)
    return more >= 0 and new[more:] == old and all(n == 1 for n in new[:more])


def _repeat_late(node: Node, edit: Edit) -> Any:
    sources = tuple(_unbroadcast(v, edit) for v in node.inputs)
    if sources == node.inputs:
        return None
    shape = broadcast_shapes(*(v.shape for v in sources))
    if shape != node.output.shape and all(a.type.size == b.type.size
                                          for a, b in zip(sources, node.inputs, strict=True)):
        return None  # nothing is repeated, axes of extent 1 are put in front: that would only move
    return bind(node.op, *map(Operand, sources), **node.attrs)  # repeated to the shape of the node, if it is less


# -- reductions --------------------------------------------------------------------------------------------------------

POINTWISE = tuple(op for op in registry.values() if op.kind is Kind.POINTWISE)
REDUCTIONS = (ops.sum, ops.prod, ops.max, ops.min)


def _reduce_nothing(node: Node, edit: Edit) -> Any:
    x = node.inputs[0]
    return ops.reshape(Operand(x), node.output.shape) if all(x.shape[a] == 1 for a in node.attrs["axis"]) else None


def _reduce_twice(node: Node, edit: Edit) -> Any:
    below = _below(node, edit, node.op)
    if below is None or edit.is_shared(node.inputs[0]):
        return None
    inner, x = below.attrs["axis"], below.inputs[0]
    left = range(len(x.shape)) if below.attrs["keepdims"] else [a for a in range(len(x.shape)) if a not in inner]
    axes = tuple(sorted({*inner, *(left[a] for a in node.attrs["axis"])}))
    return ops.reshape(node.op(Operand(x), axes), node.output.shape)


def _reduce_repeated(node: Node, edit: Edit) -> Any:
    x, axes = node.inputs[0], node.attrs["axis"]
    source = _unbroadcast(x, edit)
    if source is x or 0 in x.shape:
        return None
    more = len(x.shape) - len(source.shape)
    times = math.prod(x.shape[a] for a in axes if a < more or source.shape[a - more] == 1)
    count = np.asarray(times, x.dtype.np)
    if times == 1 or as_number(count) != times:
        return None
    inner = tuple(a - more for a in axes if a >= more)
    y = ops.reshape(node.op(Operand(source), inner), reduced_shape(source.shape, inner, True))
    y = ops.broadcast_to(y, reduced_shape(x.shape, axes, True))
    y = ops.reshape(y, node.output.shape)
    return ops.mul(y, Operand(count)) if node.op is ops.sum else y


# -- the tables --------------------------------------------------------------------------------------------------------

VIEW_RULES: tuple[By, ...] = (
    By("reshape of a reshape, to the same shape, or of what is repeated", (ops.reshape,), _reshape),
    By("transpose of a transpose, or of axes that stay in order", (ops.transpose,), _transpose),
    By("broadcast_to of a broadcast_to, or that repeats nothing", (ops.broadcast_to,), _broadcast),
    By("slice of a slice, or of everything", (ops.slice,), _slice),
)

SHAPE_RULES: tuple[By, ...] = (
    By("pad by nothing", (ops.pad,), _pad),
    By("concat of one, and of empty parts", (ops.concat,), _concat),
    By("concat of concats", (ops.concat,), _concat_of_concat),
    By("concat of reshapes that join the last two axes = reshape of a concat", (ops.concat,),
       _concat_before_joining_axes),
    By("Σ of pads that lie side by side = pad of a concat", (ops.add,), _sum_of_pads),
    By("in_range(0, 1, 2, …)", (ops.in_range,), _count_in_range),
    By("take(x, (0, 1, 2, …)) = a slice of x", (ops.take,), _take_counted),
    By("scatter_add(x, (0, 1, 2, …), y) = x + pad y", (ops.scatter_add,), _scatter_counted),
    By("f(repeat x, y) = f(x, y), or = repeat f(x, y) if y too is repeated", POINTWISE, _repeat_late),
    By("f(regroup x, y) = regroup f(x, y)", POINTWISE, _regroup_late),
    By("Σ regroup x = regroup Σ x", REDUCTIONS, _reduce_regrouped),

    By("Σ over axes of extent 1", REDUCTIONS, _reduce_nothing),
    By("Σ Σ x = Σ x", REDUCTIONS, _reduce_twice),
    By("Σ of n equal x = n x", (ops.sum, ops.max, ops.min), _reduce_repeated),
)
