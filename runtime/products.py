"""Emit `window_products`: sums over pixels of channels of x times those of g, the gradient of a convolution's weight.

A work item takes a part of the batch, a group, and a block of its channels of x. It walks the images; for each place in
the kernel the pixels that have x and g both are rows of runs, over which a register tile of channels times channels
sums up (`table_tile`). The tiles of all places lie in scratch until the images are through.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tinytorch.ir import Node

from .build import KernelSource, vector_bits
from .launch import SCRATCH, Launch, Ref, ScratchStride, Word
from .matmul import TILE_ROWS
from .matmul_text import SIZES

BLOCK_BYTES = 256 << 10  # of sums that a work item keeps: half of a second-level cache
ITEMS = 8                # wanted at least, for threads to share

WORDS = ("scratch_bytes", "images", "height", "width", "out_height", "out_width", "kernel_h", "kernel_w", "channels",
         "outs", "groups", "x_n", "x_h", "x_w", "x_c", "stride_h", "stride_w", "low_h", "low_w", "gap_h", "gap_w",
         "blocks", "block", "panel_at", "table_at")

TEXT = '''\
"""y[part, p, q, c, o] = sum over pixels of x[n, h · stride + p · gap - low, …, c] * g[n, h, …, o], in ELEMENT."""

from tinytorch.runtime.lowlevel import *
from tinytorch.runtime.microkernel import table_tile

ROWS, COLS, SIZE = {rows}, {cols}, {size}
CHAIN = 128  # pixels whose products are summed up in one go: the error grows with it
load, store = load_{element}, store_{element}
multiply_runs = table_tile(ROWS, {vectors}, {lanes}, "{element}")


def {name}(args, lo, hi, slot):
    x, g, y = pointer(args, 0), pointer(args, 1), pointer(args, 2)
    {words}
    tiles = pointer(args, 3) + slot * scratch_bytes
    panel, table = tiles + panel_at, tiles + table_at
    offsets = table + out_height * ROWS * 8
    strips, tile_bytes = (outs + COLS - 1) // COLS, ROWS * COLS * SIZE
    tall = (block + ROWS - 1) // ROWS
    x_step, g_line = stride_w * x_w, out_width * groups * outs

    for item in range(lo, hi):
        part = item // (groups * blocks)
        group, begin = item // blocks % groups, item % blocks * block
        end = min(channels, begin + block)
        zero_fill(tiles, kernel_h * kernel_w * tall * strips * tile_bytes)
        for image in range(part * images, (part + 1) * images):
            g_image = g + (image * out_height * g_line + group * outs) * SIZE
            g_step, g_row = groups * outs, g_line
            if outs < COLS:
                for pixel in range(out_height * out_width):
                    for o in range(outs):
                        store(panel, pixel * COLS + o, load(g_image, pixel * g_step + o, 1), 63)
                g_image, g_step, g_row = panel, COLS, out_width * COLS
            for p in range(kernel_h):
                up = p * gap_h - low_h
                first_h = max(0, (stride_h - 1 - up) // stride_h)
                runs = min(out_height, (height - 1 - up) // stride_h + 1) - first_h
                for q in range(kernel_w):
                    left = q * gap_w - low_w
                    first_w = max(0, (stride_w - 1 - left) // stride_w)
                    count = min(out_width, (width - 1 - left) // stride_w + 1) - first_w
                    if runs <= 0 or count <= 0:
                        continue
                    corner = x + (image * x_n + (first_h * stride_h + up) * x_h + (first_w * stride_w + left) * x_w
                                  + group * channels * x_c) * SIZE
                    for c in range(begin, end, ROWS):
                        for run in range(runs):
                            store_i64(offsets, run, run * g_row * SIZE, 58)
                            for r in range(ROWS):
                                place = corner + (run * stride_h * x_h + min(c + r, end - 1) * x_c) * SIZE
                                store_i64(table, run * ROWS + r, place, 59)
                        tile = tiles + ((p * kernel_w + q) * tall + (c - begin) // ROWS) * strips * tile_bytes
                        step = max(1, CHAIN // count)
                        for o in range(0, outs, COLS):
                            here = g_image + (first_h * g_row + first_w * g_step + max(min(o, outs - COLS), 0)) * SIZE
                            for run in range(0, runs, step):
                                multiply_runs(table + run * ROWS * 8, offsets + run * 8, min(step, runs - run), x_step,
                                              here, g_step, count, tile + o // COLS * tile_bytes, 1)
        for place in range(kernel_h * kernel_w):
            for c in range(begin, end):
                row = ((part * kernel_h * kernel_w + place) * channels + c) * groups * outs + group * outs
                for o in range(0, outs, COLS):
                    start = max(min(o, outs - COLS), 0)
                    tile = tiles + ((place * tall + (c - begin) // ROWS) * strips + o // COLS) * tile_bytes
                    for j in range(min(COLS, outs - start)):
                        store(y, row + start + j, load(tile, (c - begin) % ROWS * COLS + j, 61), 2)
'''


def emit_window_products(node: Node, strides: Sequence[tuple[int, ...]], threads: int) -> list[Launch]:
    """One launch; x may have any strides, g is packed."""
    x, g, attrs = node.inputs[0].type, node.inputs[1].type, node.attrs
    element, bits = x.dtype.name, vector_bits()
    size, lanes = SIZES[element], bits // 8 // SIZES[element]
    groups, parts = attrs["groups"], attrs["parts"]
    channels, outs, places = x.shape[3] // groups, g.shape[3] // groups, prod(attrs["size"])
    rows, vectors = TILE_ROWS[bits][0], 1 if outs <= lanes else 2
    cols = vectors * lanes
    strips = -(-outs // cols)
    most = max(1, BLOCK_BYTES // (places * strips * cols * size * rows)) * rows  # channels whose sums fit
    wanted = -(-channels // max(1, -(-ITEMS // (parts * groups))))  # channels that leave enough items
    block = min(most, -(-wanted // rows) * rows)
    blocks = -(-channels // block)
    panel_at = places * (block // rows) * strips * rows * cols * size
    table_at = panel_at + (-(-prod(g.shape[1:3]) * cols * size // 64) * 64 if outs < cols else 0)
    scratch = -(-(table_at + g.shape[1] * (rows + 1) * 8) // 64) * 64
    numbers = (ScratchStride(scratch), x.shape[0] // parts, *x.shape[1:3], *g.shape[1:3], *attrs["size"], channels,
               outs, groups, *strides[0], *attrs["stride"], *attrs["low"], *attrs["dilation"], blocks, block, panel_at,
               table_at)
    words: tuple[Word, ...] = (Ref("input", 0), Ref("input", 1), Ref("output", 0), SCRATCH, *numbers)
    unpack = "\n    ".join(f"{name} = integer(args, {4 + at})" for at, name in enumerate(WORDS))
    text = TEXT.replace("ELEMENT", element).format(name="window_products", rows=rows, cols=cols, size=size,
                                                   element=element, vectors=vectors, lanes=lanes, words=unpack)
    extent = parts * groups * blocks
    small = threads == 1 or 2 * g.size * places * channels < 1 << 20
    return [Launch(KernelSource("window_products", text), words, extent, 1 if small else min(extent, 4 * threads),
                   scratch)]
