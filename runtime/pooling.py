"""Emit pooling, channels last: the greatest or the sum of each window, and their gradients.

    emit_pool(node, strides, threads)       pool_max, pool_sum: a work item is a row of the result
    emit_pool_grad(node, strides, threads)  pool_max_grad, pool_sum_grad: a work item is an image, so that what windows
                                            that overlap give to one element is added in their order

The innermost loops run over the channels, which are packed. A small window that is wholly inside the image has its
elements one by one in the text, so that what they fold, or still have to give, stays in registers: one loop a window.
Others take one element at a time, only those inside, so nothing is padded; what such a window has still to give to the
first of its greatest elements lies in a row of scratch memory, and is 0 once it is given. The text depends on the
extents of small windows alone. The rows of a gradient are cleared right before the first window that reaches them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product
from textwrap import indent

import numpy as np

from tinytorch.ir import Node, ops
from tinytorch.ir.types import Shape

from .build import KernelSource
from .expression import IMPORTS
from .launch import SCRATCH, ArgumentTable, Launch, Ref, ScratchStride, chunks_for

Strides = Sequence[tuple[int, ...]]
MOST_TAPS = 16  # elements of a window that the text holds one by one

# The elements p0 … p1 of a window that begins at `top` are inside; likewise q0 … q1 from `left` on.
ROWS = """\
p0, p1 = 0, kh
if top < 0 or top + (kh - 1) * gap_h >= height:
    p0 = max((gap_h - 1 - top) // gap_h, 0)
    p1 = min((height - top + gap_h - 1) // gap_h, kh)
"""
COLUMNS = (ROWS.replace("p0", "q0").replace("p1", "q1").replace("kh", "kw").replace("_h", "_w").replace("top", "left")
           .replace("height", "width"))

POOL = """\
for item in range(lo, hi):
    image, top = item // rows, item % rows * step_h - low_h
    {ROWS}
    for j in range(columns):
        left, target = j * step_w - low_w, (item * columns + j) * channels
        {COLUMNS}
        {WHOLE}
        if p0 >= p1 or q0 >= q1:
            for c in range(channels):
                store_{T}(out, target + c, {T}({nothing}), 2)
        for p in range(p0, p1):
            for q in range(q0, q1):
                source = image * x_n + (top + p * gap_h) * x_h + (left + q * gap_w) * x_w
                if p == p0 and q == q0:
                    for c in range(channels):
                        store_{T}(out, target + c, load_{T}(x, source + c, 0), 2)
                else:
                    for c in range(channels):
                        v = load_{T}(x, source + c, 0)
                        store_{T}(out, target + c, {fold}, 2)
"""
WHOLE = """\
if p1 - p0 == kh and q1 - q0 == kw:
    source = image * x_n + top * x_h + left * x_w
    {places}
    for c in range(channels):
        {folds}
        store_{T}(out, target + c, total, 2)
    continue
"""
FOLDS = {ops.pool_max: ("-inf", "maximum({}, {})"), ops.pool_sum: ("0", "{} + {}")}

GRAD = """\
for image in range(lo, hi):
    cleared = 0
    for i in range(rows):
        top = i * step_h - low_h
        {ROWS}
        reached = top + (p1 - 1) * gap_h + 1
        if reached > cleared:
            zero_fill(out + (image * height + cleared) * width * channels * {bytes},
                      (reached - cleared) * width * channels * {bytes})
            cleared = reached
        for j in range(columns):
            left, given = j * step_w - low_w, image * g_n + i * g_h + j * g_w
            {COLUMNS}
            {WHOLE}
            {begin}
            for p in range(p0, p1):
                for q in range(q0, q1):
                    h, w = top + p * gap_h, left + q * gap_w
                    target = ((image * height + h) * width + w) * channels
                    {give}
    if cleared < height:
        zero_fill(out + (image * height + cleared) * width * channels * {bytes},
                  (height - cleared) * width * channels * {bytes})
"""
WHOLE_GRAD = """\
if p1 - p0 == kh and q1 - q0 == kw:
    {places}
    renew_scopes(8, {count})
    for c in range(channels):
        {gives}
    continue
"""
REPEAT = """\
for c in range(channels):
    store_{T}(out, target + c, load_{T}(out, target + c, 2) + load_{T}(g, given + c, 0), 2)
"""
HIT = "(v == top_v) | ((v != v) & (top_v != top_v))"
KEEP = """\
for c in range(channels):
    store_{T}(rest, c, load_{T}(g, given + c, 0), 4)
best = image * y_n + i * y_h + j * y_w
"""
GIVE = """\
source = image * x_n + h * x_h + w * x_w
for c in range(channels):
    v, top_v, r = load_{T}(x, source + c, 1), load_{T}(y, best + c, 3), load_{T}(rest, c, 4)
    hit = {HIT}
    store_{T}(out, target + c, load_{T}(out, target + c, 2) + select(hit, r, {T}(0)), 2)
    store_{T}(rest, c, select(hit, {T}(0), r), 4)
"""


def emit_pool(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """The greatest or the sum of each window; the channels of the operand are packed."""
    nothing, fold = FOLDS[node.op]
    x, out = node.inputs[0].type, node.output.type
    if node.op is ops.pool_max and not x.dtype.is_float:
        nothing = str(np.iinfo(x.dtype.np).min)
    table = _arguments(node, strides, "x", x.shape, out.shape)
    one = fold.format("load_{T}(out, target + c, 2)", "v")
    source = _source(node, table, POOL, WHOLE=_whole(node.attrs["size"], fold), fold=one, nothing=nothing)
    extent, work = math.prod(out.shape[:2]), out.size * math.prod(node.attrs["size"])
    return [Launch(source, tuple(table.words), extent, chunks_for(work, extent, threads))]


def _whole(size: Shape, fold: str) -> str:
    """What a window does that is wholly inside, if it is small: its elements one by one in the text."""
    if math.prod(size) > MOST_TAPS:
        return ""
    places: list[str] = []
    folds: list[str] = []
    for p, q in product(*map(range, size)):
        name = f"x{p}_{q}"
        places.append(f"{name} = source + {p} * gap_h * x_h + {q} * gap_w * x_w\n")
        v = f"load_{{T}}(x, {name} + c, 0)"
        folds.append(f"total = {fold.format('total', v) if folds else v}\n")
    return put(WHOLE, places="".join(places), folds="".join(folds))


def _whole_grad(size: Shape, picks: bool) -> str:
    """Likewise; each element has a scope of its own, which says that they are different ones."""
    count = math.prod(size)
    if count > MOST_TAPS:
        return ""
    places = ["target = ((image * height + top) * width + left) * channels\n"]
    gives = ["r = load_{T}(g, given + c, 0)\n"]
    if picks:
        places.append("source, best = image * x_n + top * x_h + left * x_w, image * y_n + i * y_h + j * y_w\n")
        gives.append("top_v = load_{T}(y, best + c, 3)\n")
    for number, (p, q) in enumerate(product(*map(range, size))):
        places.append(f"t{number} = target + ({p} * gap_h * width + {q} * gap_w) * channels\n")
        part = "r"
        if picks:
            places.append(f"x{number} = source + {p} * gap_h * x_h + {q} * gap_w * x_w\n")
            gives.append(f"v = load_{{T}}(x, x{number} + c, 1)\nhit = {HIT}\n")
            part = "select(hit, r, {T}(0))"
        old = f"load_{{T}}(out, t{number} + c, {8 + number})"
        gives.append(f"store_{{T}}(out, t{number} + c, {old} + {part}, {8 + number})\n")
        if picks:
            gives.append("r = select(hit, {T}(0), r)\n")
    return put(WHOLE_GRAD, places="".join(places), gives="".join(gives), count=str(count))


def emit_pool_grad(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """The gradient of either; the channels of the operands are packed."""
    g, out = node.inputs[0].type, node.output.type
    table = _arguments(node, strides, "gxy", out.shape, g.shape)
    begin, give, scratch = "", REPEAT, 0
    if node.op is ops.pool_max_grad:
        begin, give, scratch = KEEP, GIVE, -(-g.shape[3] * g.dtype.itemsize // 64) * 64
        table.integer("rest_bytes", ScratchStride(scratch))
        table.add("rest", SCRATCH, "pointer(args, {}) + slot * rest_bytes")
    whole = _whole_grad(node.attrs["size"], bool(scratch))
    source = _source(node, table, GRAD, WHOLE=whole, begin=begin, give=give, HIT=HIT)
    extent, work = out.shape[0], 4 * g.size * math.prod(node.attrs["size"])
    return [Launch(source, tuple(table.words), extent, chunks_for(work, extent, threads), scratch)]


def _arguments(node: Node, strides: Strides, names: str, image: Shape, pooled: Shape) -> ArgumentTable:
    """Operands by their names, then how windows lie in an image of this shape."""
    table = ArgumentTable()
    for number, (name, steps) in enumerate(zip(names, strides, strict=False)):
        table.pointer(name, Ref("input", number))
        for axis, step in zip("nhw", steps, strict=False):
            table.integer(f"{name}_{axis}", step)
    table.pointer("out", Ref("output", 0))
    numbers = zip(("kh", "kw", "step_h", "step_w", "low_h", "low_w", "gap_h", "gap_w"),
                  (n for key in ("size", "stride", "low", "dilation") for n in node.attrs[key]), strict=True)
    extents = zip(("height", "width", "channels", "rows", "columns"), (*image[1:], *pooled[1:3]), strict=True)
    for label, number in (*numbers, *extents):
        table.integer(label, number)
    return table


def _source(node: Node, table: ArgumentTable, text: str, **parts: str) -> KernelSource:
    name, dtype = node.op.name, node.output.dtype
    text = put(text, ROWS=ROWS, COLUMNS=COLUMNS, **parts)
    text = text.replace("{T}", dtype.name).replace("{bytes}", str(dtype.itemsize))
    lines = [f'"""{name}: {node.op.doc}."""', "", IMPORTS, "", f"def {name}(args, lo, hi, slot):",
             *(f"    {line}" for line in table.lines), indent(text, "    ")]
    return KernelSource(name, "\n".join(lines))


def put(text: str, **parts: str) -> str:
    """`text` with its parts where they are named: lines as deep as the name stands, if it stands alone."""
    for name, part in parts.items():
        alone = re.compile(rf"^( *)\{{{name}\}}\n", re.MULTILINE)
        for depth in alone.findall(text):
            text = alone.sub(indent(part, depth).replace("\\", r"\\"), text, count=1)
        text = text.replace(f"{{{name}}}", part)
    return text


POOLS = {ops.pool_max: emit_pool, ops.pool_sum: emit_pool, ops.pool_max_grad: emit_pool_grad,
         ops.pool_sum_grad: emit_pool_grad}
