"""Emit what moves elements: copies, padding, concatenation, gathering and scattering by position, running sums.

Copies into a part of a result are loop nests with strides; the others are short kernels over (outer, axis, inner),
operands packed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from tinytorch.ir import Graph, Node, TensorType, Value, ops
from tinytorch.ir.interp import make_node
from tinytorch.ir.layout import runs
from tinytorch.ir.types import row_major_strides

from .build import KernelSource
from .expression import IMPORTS, caster, compute_type
from .launch import STATUS, Launch, Ref, Word, chunks_for
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
    """Copy each part to where it begins."""
    place = row_major_strides(node.output.shape)
    axis, at, launches = node.attrs["axis"], 0, []
    for number, value in enumerate(node.inputs):
        if value.type.size:
            source, target = Ref("input", number), Ref("output", 0, at * place[axis])
            launches.append(emit_copy(value.type, strides[number], threads, source, target, place))
        at += value.shape[axis]
    return launches


def emit_fold(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Zeros, then one addition for each place in a window: no two elements of it meet in the same result.

    Windows over the last two axes are added up plane by plane, while a plane is in the cache.
    """
    windows, out = node.inputs[0].type, node.output.type
    if node.attrs["axes"] == (out.ndim - 2, out.ndim - 1) and windows.size:
        outer = runs(out.shape[:-2], strides[0][:-4])
        if len(outer) <= 1:
            return [_fold_planes(node, outer[0][1] if outer else 0, strides[0][-4:], threads)]
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


FOLD = """\
        plane = item * height * width
        for i in range(height * width):
            store_{T}(out, plane + i, {C}(0), 3)
        for p in range(kh):
            for q in range(kw):
                for i in range(rows):
                    target = plane + (p * gap_h + i * step_h) * width + q * gap_w
                    source = item * x_s + i * x_i + p * x_p + q * x_q
                    for j in range(columns):
                        k = target + {J}
                        store_{T}(out, k, {cast}(load_{T}(out, k, 3) + load_{T}(x, source + {X}, 0)), 3)
"""


def _fold_planes(node: Node, outer: int, inner: Sequence[int], threads: int) -> Launch:
    windows, out, attrs = node.inputs[0].type, node.output.type, node.attrs
    planes = math.prod(out.shape[:-2])
    integers = {"height": out.shape[-2], "width": out.shape[-1], "kh": windows.shape[-2], "kw": windows.shape[-1],
                "rows": windows.shape[-4], "columns": windows.shape[-3], "gap_h": attrs["dilation"][0],
                "gap_w": attrs["dilation"][1], "step_h": attrs["step"][0], "step_w": attrs["step"][1],
                "x_s": outer, "x_i": inner[0], "x_j": inner[1], "x_p": inner[2], "x_q": inner[3]}
    body = FOLD.replace("{J}", "j" if integers["step_w"] == 1 else "j * step_w")
    body = body.replace("{X}", "j" if integers["x_j"] == 1 else "j * x_j")
    return _kernel("fold", body, node, {"x": 0}, integers, planes, chunks_for(windows.size, planes, threads))


# -- by position -------------------------------------------------------------------------------------------------------

CHECK = """\
        p = load_i64(index, {at}, 1)
        p = select(p < 0, p + extent, p)
        if p < 0 or p >= extent:
            store_i64(status, 0, 1, 50)
            p = 0
"""

TAKE = CHECK.replace("{at}", "item % count") + """\
        source = (item // count * extent + p) * inner
        for i in range(inner):
            store_{T}(out, item * inner + i, load_{T}(x, source + i, 0), 3)
"""

SCATTER = """\
        for n in range(count):
""" + CHECK.replace("{at}", "n").replace("        ", "            ") + """\
            target = (item * extent + p) * inner
            source = (item * count + n) * inner
            for i in range(inner):
                store_{T}(out, target + i, {cast}(load_{T}(out, target + i, 3) + load_{T}(more, source + i, 2)), 3)
"""

TAKE_ALONG = """\
        for i in range(inner):
""" + CHECK.replace("{at}", "item * inner + i").replace("        ", "            ") + """\
            store_{T}(out, item * inner + i, load_{T}(x, (item // count * extent + p) * inner + i, 0), 3)
"""

PUT_ALONG = """\
        for n in range(count):
            for i in range(inner):
""" + CHECK.replace("{at}", "(item * count + n) * inner + i").replace("        ", "                ") + """\
                target = (item * extent + p) * inner + i
                store_{T}(out, target, {cast}(load_{T}(out, target, 3) + \
load_{T}(more, (item * count + n) * inner + i, 2)), 3)
"""

CUMSUM = """\
        for i in range(inner):
            total = {C}(0)
            for n in range(extent):
                at = (item * extent + n) * inner + i
                total = {C}(total + load_{T}(x, at, 0))
                store_{T}(out, at, total, 3)
"""

BEST = """\
        for i in range(inner):
            best = load_{T}(x, item * extent * inner + i, 0)
            where = 0
            for n in range(1, extent):
                v = load_{T}(x, (item * extent + n) * inner + i, 0)
                better = (v {sign} best) | ((v != v) & (best == best))
                best = select(better, v, best)
                where = select(better, n, where)
            store_i64(out, item * inner + i, where, 3)
"""

POINTERS = {"x": 0, "index": 1, "more": 2}


def _kernel(name: str, body: str, node: Node, operands: dict[str, int], integers: dict[str, int], extent: int,
            chunks: int) -> Launch:
    words: list[Word] = []
    lines = []
    for label, number in operands.items():
        lines.append(f"    {label} = pointer(args, {len(words)})")
        words.append(Ref("input", number))
    lines.append(f"    out = pointer(args, {len(words)})")
    words.append(Ref("output", 0))
    if "status" in body:
        lines.append(f"    status = pointer(args, {len(words)})")
        words.append(STATUS)
    for label, value in integers.items():
        lines.append(f"    {label} = integer(args, {len(words)})")
        words.append(value)
    dtype = node.inputs[0].dtype
    cast = caster(dtype) if dtype.kind in "iu" else compute_type(dtype)
    text = body.replace("{T}", dtype.name).replace("{C}", compute_type(dtype)).replace("{cast}", cast)
    head = [f'"""{node.op.name}: {node.op.doc}."""', "", IMPORTS, "", f"def {name}(args, lo, hi, slot):"]
    source = "\n".join([*head, *lines, "    for item in range(lo, hi):", text])
    return Launch(KernelSource(name, source), tuple(words), extent, chunks)


def _split(type_: TensorType, axis: int) -> tuple[int, int, int]:
    """(outer, extent, inner) of a packed tensor around `axis`."""
    return math.prod(type_.shape[:axis]), type_.shape[axis], math.prod(type_.shape[axis + 1:])


def emit_take(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Copy rows by position."""
    outer, extent, inner = _split(node.inputs[0].type, node.attrs["axis"])
    count = node.inputs[1].type.size
    items = outer * count if inner else 0
    return [_kernel("take", TAKE, node, {"x": 0, "index": 1}, {"extent": extent, "inner": inner, "count": count}, items,
                    chunks_for(items * (inner + 4), items, threads))]


def emit_scatter_add(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Copy x, then add rows by position, in their order."""
    outer, extent, inner = _split(node.inputs[0].type, node.attrs["axis"])
    count = node.inputs[1].type.size
    base = emit_copy(node.inputs[0].type, strides[0], threads, Ref("input", 0), Ref("output", 0))
    return [base, _kernel("scatter_add", SCATTER, node, {"index": 1, "more": 2},
                          {"extent": extent, "inner": inner, "count": count}, outer,
                          chunks_for(outer * count * inner, outer, threads))]


def emit_take_along(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Pick elements by position."""
    axis = node.attrs["axis"]
    outer, extent, inner = _split(node.inputs[0].type, axis)
    count = node.inputs[1].shape[axis]
    return [_kernel("take_along", TAKE_ALONG, node, {"x": 0, "index": 1},
                    {"extent": extent, "inner": inner, "count": count},
                    outer * count, chunks_for(4 * outer * count * inner, outer * count, threads))]


def emit_put_along(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Copy x, then add elements by position."""
    axis = node.attrs["axis"]
    outer, extent, inner = _split(node.inputs[0].type, axis)
    count = node.inputs[1].shape[axis]
    base = emit_copy(node.inputs[0].type, strides[0], threads, Ref("input", 0), Ref("output", 0))
    return [base, _kernel("put_along", PUT_ALONG, node, {"index": 1, "more": 2},
                          {"extent": extent, "inner": inner, "count": count},
                          outer, chunks_for(4 * outer * count * inner, outer, threads))]


def emit_cumsum(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Running sums."""
    outer, extent, inner = _split(node.inputs[0].type, node.attrs["axis"])
    return [_kernel("cumsum", CUMSUM, node, {"x": 0}, {"extent": extent, "inner": inner}, outer,
                    chunks_for(outer * extent * inner, outer, threads))]


def emit_position(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """argmax and argmin."""
    outer, extent, inner = _split(node.inputs[0].type, node.attrs["axis"])
    body = BEST.replace("{sign}", ">" if node.op is ops.argmax else "<")
    return [_kernel(node.op.name, body, node, {"x": 0}, {"extent": extent, "inner": inner}, outer,
                    chunks_for(2 * outer * extent * inner, outer, threads))]


MOVES: dict[Any, Callable[[Node, Strides, int], list[Launch]]] = {
    ops.pad: emit_pad, ops.concat: emit_concat, ops.fold: emit_fold, ops.take: emit_take,
    ops.scatter_add: emit_scatter_add, ops.take_along: emit_take_along, ops.put_along: emit_put_along,
    ops.cumsum: emit_cumsum, ops.argmax: emit_position, ops.argmin: emit_position,
}
STRIDED = {ops.pad, ops.concat, ops.fold}  # those that take operands as they lie
