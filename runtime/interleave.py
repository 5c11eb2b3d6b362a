"""Emit `pack_pairs`: two rows of an f32 matrix side by side as bf16, for the kernels of `pair_matmul`.

    [launch] = emit_pack_pairs(node, strides, threads)      # extent: blocks of pairs of rows

Where the matrix lies row by row, two rows are walked together, which is vector code. Where it lies column by column,
a pair is two neighbours, and columns are walked, each for a block of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinytorch.ir import Node, ops

from .build import KernelSource
from .launch import ArgumentTable, Launch, Ref, chunks_for
from .template import fill

BLOCK = 16  # pairs of rows that one work item lays out

TEXT = '''\
"""out[k // 2, n, k % 2] = bf16(x[k, n]): pairs of rows side by side."""

from tinytorch.runtime.lowlevel import *

BLOCK = <block>


def pack_pairs(args, lo, hi, slot):
    <words>
    for item in range(lo, hi):
        first, last = item * BLOCK, min((item + 1) * BLOCK, pairs)
        <loops>
'''

BY_ROWS = '''\
for k in range(first, last):
    even, odd, line = x + 2 * k * row * 4, x + (2 * k + 1) * row * 4, out + k * columns * 4
    for n in range(columns):
        store_bf16(line, 2 * n, load_f32(even, n, 0), 1)
        store_bf16(line, 2 * n + 1, load_f32(odd, n, 0), 1)
'''

BY_COLUMNS = '''\
for n in range(columns):
    column = x + n * col * 4
    for k in range(first, last):
        store_bf16(out, 2 * (k * columns + n), load_f32(column, 2 * k, 0), 1)
        store_bf16(out, 2 * (k * columns + n) + 1, load_f32(column, 2 * k + 1, 0), 1)
'''


def emit_pack_pairs(node: Node, strides: Sequence[tuple[int, ...]], threads: int) -> list[Launch]:
    """One launch; one of the operand's axes is packed."""
    depth, columns = node.inputs[0].shape
    row, col = strides[0]
    by_rows = col == 1 or columns == 1
    table = ArgumentTable()
    table.pointer("x", Ref("input", 0))
    table.pointer("out", Ref("output", 0))
    table.integer("pairs", depth // 2)
    table.integer("columns", columns)
    table.integer(*(("row", row) if by_rows else ("col", col)))
    text = fill(TEXT, block=BLOCK, words="\n".join(table.lines), loops=BY_ROWS if by_rows else BY_COLUMNS)
    extent = -(-depth // (2 * BLOCK))
    return [Launch(KernelSource("pack_pairs", text), tuple(table.words), extent,
                   chunks_for(depth * columns, extent, threads))]


INTERLEAVED = {ops.pack_pairs: emit_pack_pairs}
