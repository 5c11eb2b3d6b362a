"""The text of `packed_linear`'s kernel: a work item is 32 outputs and some rows of x."""

from __future__ import annotations

KERNEL = '''\
"""y[i, j] = epilogue(sum over k of x[i, k] * W[j, k]), with W of <bits> bits and a scale<more> for each chunk."""

from numpy import inf, nan

from tinytorch.runtime.lowlevel import *
from tinytorch.runtime.packed_tile import packed_tile
from tinytorch.runtime.scalars import *
from tinytorch.runtime.vecmath import *

BLOCK, WIDTH, COLS, ROWS, FEW = 32, <width>, <cols>, <rows>, <few>
one_row = packed_tile(1, <vectors>, <lanes>, <bits>, <offset>)
some_rows = packed_tile(<rows>, <vectors>, <lanes>, <bits>, <offset>)


def NAME(args, lo, hi, slot):
    <words>
    for item in range(lo, hi):
        block = item // row_blocks
        row_from = rows * (item % row_blocks) // row_blocks
        row_to = rows * (item % row_blocks + 1) // row_blocks
        start = block * BLOCK
        for row in range(row_from, row_to, ROWS):
            valid = min(ROWS, row_to - row)
            here = x + row * x_row * 4
            for col in range(0, BLOCK, COLS):
                y, s, m, to = q + block * q_block + col * 4, scale + block * s_block, <shift>, tile + col * 4
                s, m = s + col * 2, m + col * 2
                if valid <= FEW:  # the second finds the weights in the cache
                    for r in range(valid):
                        one_row(here + r * x_row * 4, x_row, 1, y, depth, chunk, s, m, s_step, to + r * BLOCK * 4, 0)
                    continue
                for w in range(0, depth, run):
                    there, yw, at = here + w * WIDTH * 4, y + w * BLOCK * 4, w // chunk * s_step
                    some_rows(there, x_row, valid, yw, min(run, depth - w), chunk, s + at, m + at, s_step, to, w)
            <epilogue>
'''
