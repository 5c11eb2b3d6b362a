"""Emit `sparse_linear`: a product with the blocks of a weight that are not zero, and the pointwise ops after it.

    launch = emit_sparse(node, strides, aliases, threads)     # a `sparse_linear`, or a fused node that begins with one

A work item is a panel of 32 outputs and some rows of x. It walks the panel's own list of runs (`sparse_tile.py`), so
its time is that of the blocks that are there; for one row, as in decoding, so are the bytes that are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinytorch.ir import Graph, Node
from tinytorch.ir.layout import runs as walks

from .build import KernelSource, vector_bits
from .contract import kernel_name, panel_epilogue
from .launch import ArgumentTable, Launch, Ref, chunks_for
from .sparse_tile import PANEL
from .template import fill

TILES = {512: (2, 8), 256: (2, 4), 128: (2, 4)}  # vector bits: vectors side by side, rows of a tile
CHAIN = 128     # products summed up in one go at most: the error of a sum grows with it
ITEM_ROWS = 64
VECTORISED = 16  # multiply-adds that take as long as a simple operation of `chunks_for`

KERNEL = '''\
"""y[i, j] = epilogue(sum over runs u of panel j // 32 and k < <run> of x[i, places[u] + k] * blocks[u, k, j % 32])."""

from numpy import inf, nan

from tinytorch.runtime.lowlevel import *
from tinytorch.runtime.scalars import *
from tinytorch.runtime.sparse_tile import runs_tile
from tinytorch.runtime.vecmath import *

PANEL, RUN, COLS, ROWS, AT_ONCE = <panel>, <run>, <cols>, <rows>, <at_once>
one_row = runs_tile(1, <vectors>, <lanes>, <run>)
more_rows = runs_tile(<rows>, <vectors>, <lanes>, <run>)


def NAME(args, lo, hi, slot):
    <words>
    for item in range(lo, hi):
        panel = item // row_blocks
        row_from = rows * (item % row_blocks) // row_blocks
        row_to = rows * (item % row_blocks + 1) // row_blocks
        start = panel * PANEL
        begin, end = load_i64(starts, panel, 58), load_i64(starts, panel + 1, 58)
        for row in range(row_from, row_to, ROWS):
            valid = min(ROWS, row_to - row)
            here = x + row * x_row * 4
            for col in range(0, PANEL, COLS):
                for u in range(begin, max(end, begin + 1), AT_ONCE):
                    count, at = min(AT_ONCE, end - u), blocks + (u * RUN * PANEL + col) * 4
                    if valid == 1:
                        one_row(here, x_row, 1, places + u * 8, count, at, tile + col * 4, u - begin)
                    else:
                        more_rows(here, x_row, valid, places + u * 8, count, at, tile + col * 4, u - begin)
            <epilogue>
'''


def emit_sparse(node: Node, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int], threads: int) -> Launch:
    """One launch for a `sparse_linear` node, or for a fused one whose body begins with one."""
    body = node.body or Graph("sparse_linear", node.inputs, (node,), node.outputs)
    product = body.nodes[0]
    slots = [body.inputs.index(v) for v in product.inputs]
    x, blocks, out, outputs = product.inputs[0], product.inputs[1], product.output, product.attrs["outputs"]
    lines, rows = walks(x.shape[:-1], strides[slots[0]][:-1]), out.type.size // outputs
    table = ArgumentTable()
    for name, slot in zip(("x", "blocks", "places", "starts"), slots, strict=True):
        table.pointer(name, Ref("input", slot))
    row_blocks = -(-rows // ITEM_ROWS)
    numbers = {"rows": rows, "outputs": outputs, "x_row": lines[0][1] if lines else x.shape[-1],
               "row_blocks": row_blocks}
    for name, number in numbers.items():
        table.integer(name, number)
    vectors, tile_rows = TILES[vector_bits()]
    lanes, scratch, run = vector_bits() // 32, tile_rows * PANEL * 4, blocks.shape[1]
    epilogue = panel_epilogue(table, "PANEL", scratch, body, strides, aliases)
    name = kernel_name(body)
    text = fill(KERNEL, panel=PANEL, run=run, vectors=vectors, lanes=lanes, cols=vectors * lanes, rows=tile_rows,
                at_once=CHAIN // run, words="\n".join(table.lines), epilogue=epilogue)
    extent = row_blocks * -(-outputs // PANEL)
    chunks = chunks_for(blocks.type.size * rows // VECTORISED, extent, threads)
    return Launch(KernelSource(name, text.replace("NAME", name, 1)), tuple(table.words), extent, chunks, scratch)
