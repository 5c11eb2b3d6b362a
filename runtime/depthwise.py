"""Emit convolutions in which each channel is its own group (`convolve` with groups = channels = outputs).

    emit_depthwise(node, strides, aliases, threads)           with the pointwise ops after it as its epilogue
    emit_depthwise_products(node, strides, threads)           the gradient by the weight (`window_products`)

A register tile of channels times channels has nothing to do here: the innermost loops run over the channels, which are
packed, as in pooling. The elements of a window stand one by one in the text and are summed in registers; those outside
the image are read from a row of zeros in scratch memory. The gradient by the weight takes a row of the kernel at a
time, and several pixels of the image in one go. The text depends on the kernel's extents, and on no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product as pairs
from textwrap import indent

from tinytorch.ir import Graph, Node, Value, ops
from tinytorch.ir.types import Shape

from .build import KernelSource
from .contract import EpilogueWriter, kernel_name
from .expression import IMPORTS
from .launch import SCRATCH, ArgumentTable, Launch, Ref, ScratchStride, chunks_for
from .pooling import COLUMNS, ROWS, put

MOST_TAPS = 49  # elements of a kernel that the text holds one by one
AT_ONCE = 4     # pixels of a row that the gradient by the weight takes in one go

FORWARD = """\
zero_fill(zeros, channels * {bytes})
for item in range(lo, hi):
    image, top = item // rows, item % rows * step_h - low_h
    {ROWS}
    for column in range(columns):
        left, i = column * step_w - low_w, item * columns + column
        {COLUMNS}
        {ROW}
        source = x + (image * x_n + top * x_h + left * x_w) * {bytes}
        {PLACES}
        if p1 - p0 < kh or q1 - q0 < kw:
            {BORDERS}
        for j in range(channels):
            {TAPS}
            {EPILOGUE}
"""

PRODUCTS = """\
for item in range(lo, hi):
    part, p = item // kh, item % kh
    out = y + item * kw * channels * {bytes}
    zero_fill(out, kw * channels * {bytes})
    for line in range(part * images * rows, (part + 1) * images * rows):
        image, h = line // rows, line % rows * step_h + p * gap_h - low_h
        column = columns if h < 0 or h >= height else 0
        while column < columns:
            left, given = column * step_w - low_w, (line * columns + column) * channels
            source = image * x_n + h * x_h + left * x_w
            right = left + ({at_once} - 1) * step_w + (kw - 1) * gap_w
            if left >= 0 and right < width and column + {at_once} <= columns:
                {PLACES}
                for c in range(channels):
                    {TAPS}
                column += {at_once}
                continue
            for q in range(kw):
                if left + q * gap_w >= 0 and left + q * gap_w < width:
                    for c in range(channels):
                        more = load_{T}(x, source + q * gap_w * x_w + c, 0) * load_{T}(g, given + c, 1)
                        store_{T}(out, q * channels + c, load_{T}(out, q * channels + c, 2) + more, 2)
            column += 1
"""


def is_depthwise(node: Node) -> bool:
    """Whether `node`, a `convolve` or `window_products`, is for these kernels."""
    x, y = (v.shape for v in node.inputs)
    taps = y[:2] if node.op is ops.convolve else node.attrs["size"]
    return (node.attrs["groups"] == x[3] == y[3] and x[3] > 1 and math.prod(taps) <= MOST_TAPS
            and node.attrs["spread"] == (1, 1))


def emit_depthwise(node: Node, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int], threads: int) -> Launch:
    """One launch for such a `convolve` node, or for a fused one whose body begins with one."""
    body = node.body or Graph("convolve", node.inputs, (node,), node.outputs)
    product = body.nodes[0]
    x, weight = product.inputs
    slots = [body.inputs.index(v) for v in product.inputs] if node.body else [0, 1]
    out, (kh, kw) = product.output.type, weight.shape[:2]
    table = ArgumentTable()
    _operand(table, "x", slots[0], strides[slots[0]])
    table.pointer("w", Ref("input", slots[1]))
    _numbers(table, product, (kh, kw), x, out.shape)
    scratch = -(-out.shape[3] * out.dtype.itemsize // 64) * 64
    table.integer("row_bytes", ScratchStride(scratch))
    table.add("zeros", SCRATCH, "pointer(args, {}) + slot * row_bytes")
    epilogue = EpilogueWriter(2, 1, table).write(body, product, strides, aliases)
    taps = [*pairs(range(kh), range(kw))]
    places = [f"x{p}_{q} = source + ({p} * gap_h * x_h + {q} * gap_w * x_w) * {{bytes}}" for p, q in taps]
    borders = [f"x{p}_{q} = select((p0 <= {p}) & ({p} < p1) & (q0 <= {q}) & ({q} < q1), x{p}_{q}, zeros)"
               for p, q in taps]
    loads = [f"load_{{T}}(x{p}_{q}, j, {{X}}), load_{{T}}(w, {n} * channels + j, {{W}})"
             for n, (p, q) in enumerate(taps)]
    sums = [f"acc = fma({pair}, {'acc' if n else '{T}(0)'})" for n, pair in enumerate(loads)]
    parts = {"PLACES": places, "BORDERS": borders, "TAPS": sums, "ROW": epilogue.row, "EPILOGUE": epilogue.body}
    text = put(FORWARD, ROWS=ROWS, COLUMNS=COLUMNS, **{name: _lines(part) for name, part in parts.items()},
               X=str(slots[0]), W=str(slots[1]))
    extent, work = math.prod(out.shape[:2]), 2 * out.size * kh * kw
    source = _source(kernel_name(body), "a convolution of each channel on its own", table, text, out.dtype.name)
    return Launch(source, tuple(table.words), extent, chunks_for(work, extent, threads), scratch)


def emit_depthwise_products(node: Node, strides: Sequence[tuple[int, ...]], threads: int) -> list[Launch]:
    """The sums over pixels of such a `window_products` node, for each part of the batch."""
    x, g = node.inputs
    kh, kw = node.attrs["size"]
    table = ArgumentTable()
    _operand(table, "x", 0, strides[0])
    table.pointer("g", Ref("input", 1))
    table.pointer("y", Ref("output", 0))
    _numbers(table, node, (kh, kw), x, g.shape)
    table.integer("images", x.shape[0] // node.attrs["parts"])
    places = [f"x{n}_{q} = source + ({n} * step_w + {q} * gap_w) * x_w" for n in range(AT_ONCE) for q in range(kw)]
    taps = [f"g{n} = load_{{T}}(g, given + {n} * channels + c, 1)" for n in range(AT_ONCE)]
    for q in range(kw):
        at = f"out, {q} * channels + c"
        taps.append(f"acc = load_{{T}}({at}, {3 + q})")
        taps += [f"acc = fma(load_{{T}}(x, x{n}_{q} + c, 0), g{n}, acc)" for n in range(AT_ONCE)]
        taps.append(f"store_{{T}}({at}, acc, {3 + q})")
    text = put(PRODUCTS, PLACES=_lines(places), TAPS=_lines(taps), at_once=str(AT_ONCE))
    extent, work = node.attrs["parts"] * kh, 2 * g.type.size * kh * kw
    source = _source("window_products", "the gradient of a convolution of each channel by its weight", table, text,
                     x.dtype.name)
    return [Launch(source, tuple(table.words), extent, chunks_for(work, extent, threads))]


def _operand(table: ArgumentTable, name: str, number: int, strides: Sequence[int]) -> None:
    table.pointer(name, Ref("input", number))
    for axis, step in zip("nhw", strides, strict=False):
        table.integer(f"{name}_{axis}", step)


def _numbers(table: ArgumentTable, node: Node, size: Shape, x: Value, out: Shape) -> None:
    """How windows lie in the images x."""
    names = ("kh", "kw", "step_h", "step_w", "low_h", "low_w", "gap_h", "gap_w", "height", "width", "channels", "rows",
             "columns")
    numbers = (*size, *node.attrs["stride"], *node.attrs["low"], *node.attrs["dilation"], *x.shape[1:], *out[1:3])
    for name, number in zip(names, numbers, strict=True):
        table.integer(name, number)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _source(name: str, doc: str, table: ArgumentTable, text: str, element: str) -> KernelSource:
    text = text.replace("{T}", element).replace("{bytes}", {"f32": "4", "f64": "8"}[element])
    lines = [f'"""{name}: {doc}."""', "", IMPORTS + "from tinytorch.runtime.vecmath import fma", "",
             f"def {name}(args, lo, hi, slot):", *(f"    {line}" for line in table.lines), indent(text, "    ")]
    return KernelSource(name, "\n".join(lines))
