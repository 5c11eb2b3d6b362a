"""Which values own memory, and which are only another way of looking at some: what the planner and the runtime share.

    layouts(graph)[value]       the value's root, its first element there, and its strides

A view (`reshape`, `transpose`, `broadcast_to`, `slice`, `windows`) that strides can express owns nothing: it shares the
root of its operand. All else is a root, packed in C order. A reshape of elements that do not lie in order cannot be
strides: it copies, and is a root.

    >>> from tinytorch.ir import Builder, f32, ops
    >>> from tinytorch.ir.layout import layouts
    >>> build = Builder()
    >>> with build: y = ops.transpose(build.input("x", f32[2, 3]))
    >>> layouts(build.finish([y]))[y.payload].strides
    (1, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .graph import Graph, Node, Value
from .op import Kind
from .types import Shape, row_major_strides


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the elements of a value lie: at `root`, from element `offset` on,
    `strides` elements apart along each axis."""

    root: Value
    offset: int
    strides: tuple[int, ...]

    def is_packed(self, shape: Shape) -> bool:
        """Whether the elements of a value of this shape follow one another in C order without gaps."""
        return is_packed(shape, self.strides)


def layouts(graph: Graph) -> dict[Value, Layout]:
    """The layout of every value of `graph`, its inputs taken to be packed."""
    found: dict[Value, Layout] = {value: packed(value) for value in graph.inputs}
    for node in graph.nodes:
        if node.op.kind is Kind.VIEW:
            base = found[node.inputs[0]]
            view = view_strides(node, base.strides)
            if view is not None:
                found[node.output] = Layout(base.root, base.offset + view[0], view[1])
                continue
        for value in node.outputs:
            found[value] = packed(value)
    return found


def packed(value: Value) -> Layout:
    """The layout of a value that owns its memory."""
    return Layout(value, 0, row_major_strides(value.shape))


def is_packed(shape: Shape, strides: tuple[int, ...]) -> bool:
    """Whether these strides are those of C order; an axis of extent 1 may have any, a tensor without elements too."""
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent == 0:
            return True
        if extent != 1:
            if stride != expected:
                return 0 in shape
            expected *= extent
    return True


def is_strided_view(node: Node, strides: tuple[int, ...]) -> bool:
    """Whether `node`, given an operand with these strides, can be made without moving an element."""
    return view_strides(node, strides) is not None


def view_strides(node: Node, strides: tuple[int, ...]) -> tuple[int, tuple[int, ...]] | None:
    """(first element, strides) of `node`'s result in terms of its operand's; None if it must copy."""
    rule = _RULES.get(node.op.name)
    return rule(node.inputs[0].shape, strides, **node.attrs) if rule is not None else None


View = tuple[int, tuple[int, ...]] | None


def _transpose(shape: Shape, strides: Shape, *, axes: Shape) -> View:
    return 0, tuple(strides[a] for a in axes)


def _broadcast_to(old: Shape, strides: Shape, *, shape: Shape) -> View:
    new = len(shape) - len(old)
    kept = (0 if n == 1 and m != 1 else s for n, m, s in zip(old, shape[new:], strides, strict=True))
    return 0, (*(0,) * new, *kept)


def _slice(shape: Shape, strides: Shape, *, start: Shape, size: Shape, step: Shape) -> View:
    first = 0 if 0 in size else sum(a * s for a, s in zip(start, strides, strict=True))
    return first, tuple(s * b for s, b in zip(strides, step, strict=True))


def _windows(shape: Shape, strides: Shape, *, axes: Shape, size: Shape, step: Shape, dilation: Shape) -> View:
    places = list(strides)
    for axis, stride in zip(axes, step, strict=True):
        places[axis] *= stride
    return 0, (*places, *(strides[a] * gap for a, gap in zip(axes, dilation, strict=True)))


def _reshape(old: Shape, strides: Shape, *, shape: Shape) -> View:
    if is_packed(old, strides):
        return 0, row_major_strides(shape)
    groups = runs(old, strides)
    result = [0] * len(shape)
    at = len(shape)
    for extent, stride in reversed(groups):  # each run of old axes is one axis, which new axes must fill exactly
        filled = 1
        while filled < extent:
            at -= 1
            if shape[at] == 0 or extent % (filled * shape[at]):
                return None
            result[at] = stride * filled
            filled *= shape[at]
    return 0, tuple(result)  # what is left has extent 1


def runs(shape: Shape, strides: Shape) -> list[tuple[int, int]]:
    """(extent, stride) of the axes, those that lie one inside the other joined, those of extent 1 left out."""
    runs: list[tuple[int, int]] = []
    for extent, stride in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if runs and runs[-1][1] == stride * extent:
            runs[-1] = (runs[-1][0] * extent, stride)
        else:
            runs.append((extent, stride))
    return runs


_RULES: Mapping[str, Callable[..., Any]] = {
    "transpose": _transpose, "broadcast_to": _broadcast_to, "slice": _slice, "windows": _windows, "reshape": _reshape}
