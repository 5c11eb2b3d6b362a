"""Emit what walks one axis: gathering and scattering by position, running sums, the place of the greatest.

Each is a short kernel over (outer, axis, inner), operands packed. Where the axis is not the last one, a work item is a
block of columns: it reads rows side by side, and no two threads write the same element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinytorch.ir import Node, TensorType, ops

from .build import KernelSource
from .expression import IMPORTS, caster, compute_type
from .launch import SCRATCH, STATUS, Launch, Ref, ScratchStride, Word, chunks_for
from .nest import COLUMN_BLOCKS, column_block

Strides = Sequence[tuple[int, ...]]

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

COLUMNS = """\
        blocks = (inner + block - 1) // block
        first = item % blocks * block
        width = min(block, inner - first)
        row = item // blocks
"""

# Each item adds to columns of its own, in the order of the positions: no two threads meet, and sums are the same.
SCATTER = COLUMNS + """\
        for n in range(count):
""" + CHECK.replace("{at}", "n").replace("        ", "            ") + """\
            target = (row * extent + p) * inner + first
            source = (row * count + n) * inner + first
            for i in range(width):
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

CUMSUM_ROWS = """\
        total = {C}(0)
        for n in range(item * extent, item * extent + extent):
            total = {C}(total + load_{T}(x, n, 0))
            store_{T}(out, n, total, 3)
"""

CUMSUM_COLUMNS = COLUMNS + """\
        for j in range(width):
            store_{S}(scratch, j, {C}(0), 4)
        for n in range(row * extent, row * extent + extent):
            at = n * inner + first
            for j in range(width):
                total = {C}(load_{S}(scratch, j, 4) + load_{T}(x, at + j, 0))
                store_{S}(scratch, j, total, 4)
                store_{T}(out, at + j, total, 3)
"""

# Which block of the row holds the best, then where in it; nan is better than all else, the first of equals wins.
BEST_ROWS = """\
        start = item * extent
        best = {load}(x, start, 0){close}
        block = start
        for n in range(start, start + extent, 4096):
            top = {load}(x, n, 0){close}
            for i in range(n, min(n + 4096, start + extent)):
                top = {extreme}(top, {load}(x, i, 0){close})
            if (top {sign} best) | ((top != top) & (best == best)):
                best = top
                block = n
        where = start + extent
        for i in range(block, min(block + 4096, start + extent)):
            v = {load}(x, i, 0){close}
            where = minimum(where, select((v == best) | ((v != v) & (best != best)), i, start + extent))
        store_i64(out, item, where - start, 3)
"""

BEST_COLUMNS = COLUMNS + """\
        at = row * extent * inner + first
        for j in range(width):
            store_{S}(scratch, j, {load}(x, at + j, 0){close}, 4)
            store_i64(scratch, 512 + j, 0, 5)
        for n in range(1, extent):
            at += inner
            for j in range(width):
                v, best = {load}(x, at + j, 0){close}, load_{S}(scratch, j, 4)
                better = (v {sign} best) | ((v != v) & (best == best))
                store_{S}(scratch, j, select(better, v, best), 4)
                store_i64(scratch, 512 + j, select(better, n, load_i64(scratch, 512 + j, 5)), 5)
        for j in range(width):
            store_i64(out, row * inner + first + j, load_i64(scratch, 512 + j, 5), 3)
"""

SCRATCH_BYTES = 2 * 8 * COLUMN_BLOCKS[0]


def _axis_kernel(name: str, body: str, node: Node, operands: dict[str, int], integers: dict[str, int], extent: int,
                chunks: int) -> Launch:
    """A kernel of packed operands: `body` for each item, its operands and `integers` by name."""
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
    if "scratch" in body:
        lines.append(f"    scratch = pointer(args, {len(words)}) + slot * integer(args, {len(words) + 1})")
        words += [SCRATCH, ScratchStride(SCRATCH_BYTES)]
    dtype = node.inputs[0].dtype
    cast = caster(dtype) if dtype.kind in "iu" else compute_type(dtype)
    wide = "i8" if dtype.name == "bool" else compute_type(dtype)  # what numbers of this type are compared as
    load = (f"i8(load_{dtype}", ")") if dtype.name == "bool" else (f"load_{dtype}", "")
    body = body.replace("{load}", load[0]).replace("{close}", load[1]).replace("{S}", wide)
    text = body.replace("{T}", dtype.name).replace("{C}", compute_type(dtype)).replace("{cast}", cast)
    head = [f'"""{node.op.name}: {node.op.doc}."""', "", IMPORTS, "", f"def {name}(args, lo, hi, slot):"]
    source = "\n".join([*head, *lines, "    for item in range(lo, hi):", text])
    return Launch(KernelSource(name, source), tuple(words), extent, chunks, SCRATCH_BYTES if "scratch" in body else 0)


def _split(type_: TensorType, axis: int) -> tuple[int, int, int]:
    """(outer, extent, inner) of a packed tensor around `axis`."""
    return math.prod(type_.shape[:axis]), type_.shape[axis], math.prod(type_.shape[axis + 1:])


def emit_take(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Copy rows by position."""
    outer, extent, inner = _split(node.inputs[0].type, node.attrs["axis"])
    count = node.inputs[1].type.size
    items = outer * count if inner else 0
    return [_axis_kernel("take", TAKE, node, {"x": 0, "index": 1}, {"extent": extent, "inner": inner, "count": count},
                        items, chunks_for(items * (inner + 4), items, threads))]


def emit_scatter_add(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Add rows by position to a copy of x, in their order."""
    outer, extent, inner = _split(node.inputs[0].type, node.attrs["axis"])
    count, block = node.inputs[1].type.size, column_block(outer, inner)
    items = outer * -(-inner // block)
    return [_axis_kernel("scatter_add", SCATTER, node, {"index": 1, "more": 2},
                        {"extent": extent, "inner": inner, "count": count, "block": block}, items,
                        chunks_for(outer * count * inner, items, threads))]


def emit_take_along(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Pick elements by position."""
    axis = node.attrs["axis"]
    outer, extent, inner = _split(node.inputs[0].type, axis)
    count = node.inputs[1].shape[axis]
    return [_axis_kernel("take_along", TAKE_ALONG, node, {"x": 0, "index": 1},
                        {"extent": extent, "inner": inner, "count": count}, outer * count,
                        chunks_for(4 * outer * count * inner, outer * count, threads))]


def emit_put_along(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Add elements by position to a copy of x."""
    axis = node.attrs["axis"]
    outer, extent, inner = _split(node.inputs[0].type, axis)
    count = node.inputs[1].shape[axis]
    return [_axis_kernel("put_along", PUT_ALONG, node, {"index": 1, "more": 2},
                        {"extent": extent, "inner": inner, "count": count}, outer,
                        chunks_for(4 * outer * count * inner, outer, threads))]


def emit_cumsum(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """Running sums."""
    return [_by_axis("cumsum", CUMSUM_ROWS, CUMSUM_COLUMNS, node, threads)]


def emit_position(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """argmax and argmin."""
    sign, extreme = (">", "maximum") if node.op is ops.argmax else ("<", "minimum")
    rows, columns = (text.replace("{sign}", sign).replace("{extreme}", extreme) for text in (BEST_ROWS, BEST_COLUMNS))
    return [_by_axis(node.op.name, rows, columns, node, threads)]


def _by_axis(name: str, rows: str, columns: str, node: Node, threads: int) -> Launch:
    """A kernel that walks one axis: a row to a work item if it is the last one, else a block of columns."""
    outer, extent, inner = _split(node.inputs[0].type, node.attrs["axis"])
    text, items, words = rows, outer, {"extent": extent}
    if inner != 1:
        block = column_block(outer, inner)
        text, items, words = columns, outer * -(-inner // block), {"extent": extent, "inner": inner, "block": block}
    chunks = chunks_for(2 * outer * extent * inner, items, threads)
    return _axis_kernel(name, text, node, {"x": 0}, words, items, chunks)
