"""Emit convolutions in which each channel is its own group (`convolve` with groups = channels = outputs).

    emit_depthwise(node, strides, aliases, threads)           with the pointwise ops after it as its epilogue
    emit_depthwise_products(node, strides, threads)           the gradient by the weight (`window_products`)

A register tile of channels times channels has nothing to do here: vectors hold channels, which are packed. The taps of
the kernel stand one by one in the text, for several pixels of a row at once: a weight is loaded once for all of them,
and so is an element of x that lies in more than one of their windows. Sums stay in registers up to the epilogue.
Addresses are found once for these pixels, before the loop over the channels; those outside the image are those of a
row of zeros in scratch memory. What is left over, pixels or channels, is done one pixel at a time.

Where x is spread (the gradient of a strided convolution), output `spread · m + f` meets only some of the taps, the same
for all m: each such phase f is a convolution of its own, with a smaller kernel, dense on x. So along each axis

    output spread · m + f = Σ_n w[taps[n]] x[m · step + at + n · hop]

The text depends on taps, steps and hops, and on no extents of images. The gradient by the weight takes a row of the
kernel at a time, and several pixels of the image in one go.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product as pairs
from textwrap import indent

from tinytorch.ir import Graph, Node, Value, ops
from tinytorch.ir.types import Shape

from .build import KernelSource, vector_bits
from .contract import EpilogueWriter, kernel_name
from .expression import CONSTANT_SCOPE, IMPORTS
from .launch import SCRATCH, ArgumentTable, Launch, Ref, ScratchStride, chunks_for
from .pooling import put

MOST_TAPS = 49  # elements of a kernel that the text holds one by one
MOST_PHASES = 4  # of outputs, likewise
AT_ONCE = 4  # pixels of a row that are taken in one go
VECTORISED = 16  # multiplications and additions that take as long as a simple operation of `chunks_for`

FORWARD = """\
zero_fill(zeros, channels * {bytes})
whole = channels // {LANES} * {LANES}
for item in range(lo, hi):
    image, row = item // rows, item % rows
    {PHASES}
"""

# The outputs of one phase along both axes in a row. Row p of x that they meet begins at r{p}, with s{p} bytes from one
# pixel to the next: none if it is outside the image, and the row is zeros.
PHASE = """\
if row % {spread_h} == {f_h}:
    top, count = row // {spread_h} * {step_h} + at_h{f_h}, (columns - {f_w} + {spread_w} - 1) // {spread_w}
    first, last = -(at_w{f_w} // {step_w}), (width - 1 - {reach} - at_w{f_w}) // {step_w}  # whose windows are inside
    {ROWS}
    m = 0
    while m < count:
        left, i = m * {step_w} + at_w{f_w}, item * columns + m * {spread_w} + {f_w}
        taken, start = min({at_once}, count - m), 0
        if taken == {at_once}:
            {PLACES}
            if m < first or m + {at_once} - 1 > last:
                {BORDER}
            pixel = i
            for block in range(0, whole, {LANES}):
                for j in range(block, block + {LANES}):
                    {MANY}
            start, i = whole, pixel
        m += taken
        if start < channels:
            for n in range(taken):
                {PLACE}
                {EDGE}
                for j in range(start, channels):
                    {ONE}
                left, i = left + {step_w}, i + {spread_w}
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



@dataclass(frozen=True)
class Phase:
    """Every `spread`-th output along an axis, from number `first` on: output spread · m + first is the sum over n of
    tap `taps[n]` times element m · step + at + n · hop of x."""

    first: int
    spread: int
    taps: tuple[int, ...]
    step: int
    hop: int
    at: int

    @property
    def reach(self) -> int:
        """From the first element of a window to the last."""
        return max(len(self.taps) - 1, 0) * self.hop


def phases(size: int, stride: int, low: int, gap: int, spread: int) -> list[Phase]:
    """The phases along an axis of a convolution of this kernel: output o meets, at tap k, element
    (o · stride + k · gap - low) / spread of x, if that is whole. Only one of stride and spread is more than 1."""
    found = []
    for first in range(spread):
        begin = first * stride - low
        taps = tuple(k for k in range(size) if (begin + k * gap) % spread == 0)
        at = (begin + taps[0] * gap) // spread if taps else 0
        found.append(Phase(first, spread, taps, stride, gap // math.gcd(gap, spread), at))
    return found


def is_depthwise(node: Node) -> bool:
    """Whether `node`, a `convolve` or `window_products`, is for these kernels."""
    x, y = (v.shape for v in node.inputs)
    taps = y[:2] if node.op is ops.convolve else node.attrs["size"]
    return node.attrs["groups"] == x[3] == y[3] and x[3] > 1 and math.prod(taps) <= MOST_TAPS and (
        math.prod(node.attrs["spread"]) <= MOST_PHASES)


def emit_depthwise(node: Node, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int], threads: int) -> Launch:
    """One launch for such a `convolve` node, or for a fused one whose body begins with one."""
    body = node.body or Graph("convolve", node.inputs, (node,), node.outputs)
    product = body.nodes[0]
    x, weight = product.inputs
    slots = [body.inputs.index(v) for v in product.inputs] if node.body else [0, 1]
    out, attrs = product.output.type, product.attrs
    table = ArgumentTable()
    _operand(table, "x", slots[0], strides[slots[0]])
    table.pointer("w", Ref("input", slots[1]))
    down, across = (phases(*numbers) for numbers in zip(weight.shape[:2], *(
        attrs[key] for key in ("stride", "low", "dilation", "spread")), strict=True))
    for axis, found in zip("hw", (down, across), strict=True):
        for phase in found:
            table.integer(f"at_{axis}{phase.first}", phase.at)
    for name, number in zip(("height", "width", "channels", "rows", "columns"), (*x.shape[1:], *out.shape[1:3]),
                            strict=True):
        table.integer(name, number)
    scratch = -(-out.shape[3] * out.dtype.itemsize // 64) * 64
    table.integer("row_bytes", ScratchStride(scratch))
    table.add("zeros", SCRATCH, "pointer(args, {}) + slot * row_bytes")
    epilogue = EpilogueWriter(2, 1, table).write(body, product, strides, aliases)
    written = [aliases.get(n, len(body.inputs) + n) for n in range(len(body.outputs))]
    apart = _Apart(written, len(body.inputs) + len(body.outputs))
    text = "".join(_phase(h, w, weight.shape[1], slots, [*epilogue.row, *epilogue.body], apart)
                   for h, w in pairs(down, across))
    text = put(FORWARD, PHASES=text, LANES=str(vector_bits() // (8 * out.dtype.itemsize)))
    extent, work = math.prod(out.shape[:2]), product.op.flops(out, x.type, weight.type, **attrs) // VECTORISED
    source = _source(kernel_name(body), "a convolution of each channel on its own", table, text, out.dtype.name)
    return Launch(source, tuple(table.words), extent, chunks_for(work, extent, threads), scratch)


@dataclass(frozen=True)
class _Apart:
    """Scopes that tell the elements of pixels done at once from each other, where a kernel writes."""

    written: Sequence[int]
    free: int  # the first scope that no operand has

    @property
    def pixels(self) -> int:
        """How many pixels there are scopes for."""
        return AT_ONCE if self.free + (AT_ONCE - 1) * len(self.written) <= CONSTANT_SCOPE else 1

    def lines(self, lines: Sequence[str], pixel: int) -> list[str]:
        """The same loads and stores, of another pixel."""
        def renumber(found: re.Match[str]) -> str:
            scope = int(found[2])
            if pixel and scope in self.written:
                scope = self.free + (pixel - 1) * len(self.written) + self.written.index(scope)
            return f"{found[1]}{scope})"
        return [re.sub(r"^((?:v_\w+ = load|store)_.*, )(\d+)\)$", renumber, line) for line in lines]


def _phase(h: Phase, w: Phase, kw: int, slots: Sequence[int], epilogue: Sequence[str], apart: _Apart) -> str:
    """The text for the outputs of these phases along both axes."""
    starts = [f"line = top + {p * h.hop}\n"
              "inside = (line >= 0) & (line < height)\n"
              f"r{p} = select(inside, x + (image * x_n + line * x_h) * {{bytes}}, zeros)\n"
              f"s{p} = select(inside, x_w * {{bytes}}, 0)" for p in range(len(h.taps))]
    many, one = _columns(w, apart.pixels), _columns(w, 1)
    return put(PHASE, ROWS=_lines(starts), PLACES=_lines(_places(h, many)),
               BORDER=_lines(_outside(h, many) or ["pass"]),
               PLACE=_lines(_places(h, one)), EDGE=_lines(_outside(h, one)),
               MANY=_lines(_sums(h, w, kw, apart.pixels, slots, epilogue, apart)),
               ONE=_lines(_sums(h, w, kw, 1, slots, epilogue, apart)), at_once=str(apart.pixels), reach=str(w.reach),
               f_h=str(h.first), f_w=str(w.first), step_h=str(h.step), step_w=str(w.step), spread_h=str(h.spread),
               spread_w=str(w.spread))


def _columns(w: Phase, pixels: int) -> list[int]:
    """The columns of x, from `left` on, in the windows of some pixels."""
    return sorted({n * w.step + q * w.hop for n in range(pixels) for q in range(len(w.taps))})


def _places(h: Phase, columns: Sequence[int]) -> list[str]:
    """The addresses of those columns in each row of the taps: steps from one to the next, no products."""
    lines = []
    for p in range(len(h.taps)):
        before = f"r{p} + left * s{p}"
        for last, k in zip([0, *columns], columns, strict=False):
            lines.append(f"x{p}_{k} = {before}" + (f" + {k - last} * s{p}" if k > last else ""))
            before = f"x{p}_{k}"
    return lines


def _outside(h: Phase, columns: Sequence[int]) -> list[str]:
    """Zeros in place of those that are outside the image."""
    lines = []
    for k in columns if h.taps else ():
        lines.append(f"inside = (left + {k} >= 0) & (left + {k} < width)")
        lines += [f"x{p}_{k} = select(inside, x{p}_{k}, zeros)" for p in range(len(h.taps))]
    return lines


def _sums(h: Phase, w: Phase, kw: int, pixels: int, slots: Sequence[int], epilogue: Sequence[str],
          apart: _Apart) -> list[str]:
    """One channel of some pixels: loads, sums, epilogues."""
    lines = [f"acc{n} = {{T}}(0)" for n in range(pixels)]
    for p, tap_h in enumerate(h.taps):
        lines += [f"v{k} = load_{{T}}(x{p}_{k}, j, {slots[0]})" for k in _columns(w, pixels)]
        for q, tap_w in enumerate(w.taps):
            lines.append(f"u = load_{{T}}(w, {tap_h * kw + tap_w} * channels + j, {slots[1]})")
            lines += [f"acc{n} = fma(v{n * w.step + q * w.hop}, u, acc{n})" for n in range(pixels)]
    for n in range(pixels):
        place = [f"i = pixel + {n * w.spread}"] if pixels > 1 else []
        lines += [*place, f"acc = acc{n}", *apart.lines(epilogue, n)]
    return lines


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
