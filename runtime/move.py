"""Emit what moves elements: copies, padding, concatenation, sums of windows, and all that `along_axis.py` has.

A copy into a part of a result is a loop nest with strides; parts that are rows are put together by one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from tinytorch.ir import DType, Graph, Node, TensorType, Value, ops
from tinytorch.ir.interp import make_node
from tinytorch.ir.types import row_major_strides

from . import along_axis
from .build import KernelSource
from .expression import IMPORTS
from .launch import Launch, Ref, Word, chunks_for
from .loops import emit_loops

Strides = Sequence[tuple[int, ...]]


def emit_copy(type_: TensorType, strides: tuple[int, ...], threads: int, source: Ref, target: Ref,
              out_strides: tuple[int, ...] | None = None) -> Launch:
    """Copy a strided operand to a result, packed by default."""
    value = Value(type_)
    node = make_node(ops.detach, (value,), {})
    launch = emit_loops(Graph("copy", (value,), (node,), node.outputs), [strides], {}, threads, out_strides)
    return _rewire(launch, [source], [target])


def _rewire(launch: Launch, inputs: Sequence[Ref], outputs: Sequence[Ref]) -> Launch:
    """The launch with other operands and results."""
    places: dict[str, Sequence[Ref]] = {"input": inputs, "output": outputs}
    words = tuple(places[w.place][w.number] if isinstance(w, Ref) else w for w in launch.words)
    return Launch(launch.source, words, launch.extent, launch.chunks, launch.scratch_bytes)


def _fill(type_: TensorType, value: float, threads: int) -> Launch:
    literal = make_node(ops.constant, (), {"value": value, "dtype": type_.dtype, "shape": ()})
    spread = make_node(ops.broadcast_to, literal.outputs, {"shape": type_.shape})
    return emit_loops(Graph("fill", (), (literal, spread), spread.outputs), [], {}, threads)


def emit_pad(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Fill, then copy into the middle."""
    x, out = node.inputs[0].type, node.output.type
    place = row_major_strides(out.shape)
    start = sum(a * s for a, s in zip(node.attrs["low"], place, strict=True))
    steps = tuple(s * (gap + 1) for s, gap in zip(place, node.attrs["interior"], strict=True))
    value = node.attrs["value"]
    if not out.dtype.is_float:
        value = int(value) if math.isfinite(value) else 0
    fill = _fill(out, value, threads)
    if x.size == 0:
        return [fill]
    return [fill, emit_copy(x, strides[0], threads, Ref("input", 0), Ref("output", 0, start), steps)]


def emit_concat(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Copy each part to where it begins: one kernel where all parts are rows that lie in one piece."""
    place, axis, at = row_major_strides(node.output.shape), node.attrs["axis"], 0
    parts, launches = [], []
    for number, value in enumerate(node.inputs):
        if value.type.size:
            source, target = Ref("input", number), Ref("output", 0, at * place[axis])
            single = [(1, 1, 1)] if value.shape[-1] == 1 else []  # rows of one element
            parts.append((source, target, [*_joint_runs(value.shape, strides[number], place), *single]))
            launches.append(emit_copy(value.type, strides[number], threads, source, target, place))
        at += value.shape[axis]
    if len(parts) > 1 and all(len(rows) <= 4 and rows[-1][1:] == (1, 1) for _, _, rows in parts):
        return [_copy_parts(node.output.dtype, parts, threads)]
    return launches


PARTS = """\
        rest = item
        record = 0
        while rest >= integer(args, record + 2):
            rest -= integer(args, record + 2)
            record += RECORD
        x, out = pointer(args, record), pointer(args, record + 1)
        n_1, n_2, length = integer(args, record + 3), integer(args, record + 4), integer(args, record + 5)
        pieces, groups = (length + PIECE - 1) // PIECE, integer(args, record + 6)
        start = rest % pieces * PIECE
        stop = min(length, start + PIECE)
        group = rest // pieces % groups
        outer = rest // pieces // groups
        source = outer // n_1 * integer(args, record + 7) + outer % n_1 * integer(args, record + 8)
        target = outer // n_1 * integer(args, record + 10) + outer % n_1 * integer(args, record + 11)
        for k in range(n_2 * group // groups, n_2 * (group + 1) // groups):
            read, write = source + k * integer(args, record + 9), target + k * integer(args, record + 12)
            for i in range(start, stop):
                store_{T}(out, write + i, load_{T}(x, read + i, 0), 1)
"""
PIECE = 4096  # elements that a work item copies, or as many rows as have so many


def _copy_parts(dtype: DType, parts: Sequence[tuple[Ref, Ref, list[tuple[int, ...]]]], threads: int) -> Launch:
    """One kernel for parts that are rows: a record of words for each says where they lie."""
    words: list[Word] = []
    items = total = 0
    for source, target, rows in parts:
        (n_0, s_0, t_0), (n_1, s_1, t_1), (n_2, s_2, t_2), (length, _, _) = [(1, 0, 0)] * (4 - len(rows)) + rows
        groups = max(1, min(n_2, n_2 * length // PIECE))
        count = n_0 * n_1 * groups * -(-length // PIECE)
        words += [source, target, count, n_1, n_2, length, groups, s_0, s_1, s_2, t_0, t_1, t_2]
        items, total = items + count, total + n_0 * n_1 * n_2 * length
    head = ['"""Rows of several operands, copied to their places in one result."""', "", IMPORTS,
            f"RECORD, PIECE = {len(words) // len(parts)}, {PIECE}", "", "",
            "def copy_parts(args, lo, hi, slot):", "    for item in range(lo, hi):"]
    text = "\n".join([*head, PARTS.replace("{T}", dtype.name)])
    return Launch(KernelSource("copy_parts", text), tuple(words), items, chunks_for(total, items, threads))


def _joint_runs(shape: Sequence[int], *strides: Sequence[int]) -> list[tuple[int, ...]]:
    """(extent, stride, stride, …) of the axes, those joined that lie one inside the other by all these strides."""
    found: list[tuple[int, ...]] = []
    for extent, *steps in zip(shape, *strides, strict=True):
        if extent == 1:
            continue
        if found and all(before == step * extent for before, step in zip(found[-1][1:], steps, strict=True)):
            found[-1] = (found[-1][0] * extent, *steps)
        else:
            found.append((extent, *steps))
    return found or [(1, *(1 for _ in strides))]


def emit_fold(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Zeros, then one addition for each place in a window: no two elements of it meet in the same result."""
    windows, out = node.inputs[0].type, node.output.type
    place = row_major_strides(out.shape)
    axes, rank = node.attrs["axes"], out.ndim
    part = TensorType(out.dtype, windows.shape[:rank])
    steps = tuple(s * node.attrs["step"][axes.index(a)] if a in axes else s for a, s in enumerate(place))
    before, more = Value(part), Value(part)
    add = make_node(ops.add, (before, more), {})
    body = Graph("fold", (before, more), (add,), add.outputs)
    launches = [_fill(out, 0.0, threads)]
    for spot in product(*map(range, node.attrs["size"])):
        offset = sum(p * d * place[a] for p, d, a in zip(spot, node.attrs["dilation"], axes, strict=True))
        source = sum(p * s for p, s in zip(spot, strides[0][rank:], strict=True))
        crew = 1 if _overlaps(part.shape, steps) else threads
        launch = emit_loops(body, [steps, strides[0][:rank]], {0: 0}, crew, steps)
        target = Ref("output", 0, offset)
        launches.append(_rewire(launch, [target, Ref("input", 0, source)], [target]))
    return launches


def _overlaps(shape: Sequence[int], steps: Sequence[int]) -> bool:
    """Whether two points of a strided block might be one element (windows of one array are not; do not rely on it)."""
    reach = 0
    for extent, step in sorted(zip(shape, steps, strict=True), key=lambda pair: pair[1]):
        if extent > 1 and step <= reach:
            return True
        reach += (extent - 1) * step
    return False


Emitter = Callable[[Node, Strides, int], list[Launch]]


def _onto_copy(add: Emitter) -> Emitter:
    """Copy the first operand, then do what `add` does to the copy."""
    def emit(node: Node, strides: Strides, threads: int) -> list[Launch]:
        base = emit_copy(node.inputs[0].type, strides[0], threads, Ref("input", 0), Ref("output", 0))
        return [base, *add(node, strides, threads)]
    return emit


MOVES: dict[Any, Emitter] = {
    ops.pad: emit_pad, ops.concat: emit_concat, ops.fold: emit_fold, ops.take: along_axis.emit_take,
    ops.scatter_add: _onto_copy(along_axis.emit_scatter_add), ops.take_along: along_axis.emit_take_along,
    ops.put_along: _onto_copy(along_axis.emit_put_along), ops.cumsum: along_axis.emit_cumsum,
    ops.argmax: along_axis.emit_position, ops.argmin: along_axis.emit_position,
}
