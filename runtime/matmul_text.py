"""The text of matmul kernels: register tiles, dot products, plain loops. `matmul.py` says when which is used.

A template is Python; a line `<name>` in it stands for a block that depends on the form. `left` is the operand whose
lines make the rows of the product that the kernel computes, `right` makes its columns: A and B, or B and A if swapped.
Of a convolution, `left` is an image, and each row of the product is one window of it (`windows_text.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent
from typing import TYPE_CHECKING

from .lines_text import FIND_LEFT_LINES, LINE_PIECES, LINE_SETUP, LINE_WORDS, MULTIPLY_LINES, STAGE_LINES
from .template import fill
from .windows_text import FIND_LEFT_WINDOWS, MULTIPLY_WINDOWS, WINDOW_PIECES, WINDOW_SETUP, WINDOW_WORDS

if TYPE_CHECKING:
    from .matmul import Epilogue, MatmulForm

FIRST_WORD = 18  # of the batch extents and strides; the epilogue's words follow these
SIZES = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "i16": 2, "i8": 1, "u8": 1, "quad": 4, "pair": 4}
TOTALS = {"f16": "f32", "bf16": "f32"}  # what an element type is summed in, where it is not itself
TILE_TOTALS = {"quad": "i32", "pair": "f32"}  # the same of a tile
# Elements summed up in one go at most, of a matrix and of windows: the error of a sum grows with them.
CHAINS = {"quad": (1 << 40, 1 << 40), "pair": (88, 48)}
USUAL_CHAINS = 176, 96
IMAGE_SIZES = {"quad": 1, "pair": 2}  # bytes of an element of an image, where the depth counts several as one
DOT_ROWS, DOT_COLS = 8, 64              # lines of `right` in one go; columns between two epilogues

KERNEL = '''\
"""C[b, i, j] = epilogue(sum over k of A[b, i, k] * B[b, k, j]).

<about>
"""

from numpy import inf, nan

from tinytorch.runtime.lowlevel import *
from tinytorch.runtime.scalars import *
from tinytorch.runtime.vecmath import *
<pieces>


def NAME(args, lo, hi, slot):
    left_base, right_base = pointer(args, 0), pointer(args, 1)
    tiles = pointer(args, 2) + slot * integer(args, 3)
    rows, cols, depth = integer(args, 4), integer(args, 5), integer(args, 6)
    left_ld, right_ld = integer(args, 7), integer(args, 8)
    row_blocks, col_blocks = integer(args, 9), integer(args, 10)
    <setup>
    <prologue>

    for item in range(lo, hi):
        b = item // (row_blocks * col_blocks)
        row_block = item // col_blocks - b * row_blocks
        col_block = item % col_blocks
        <batch>
        <body>
'''

TILE_PIECES = '''\
from tinytorch.runtime.microkernel import copy_row, outer_tile, transpose_block

multiply = outer_tile(ROWS, VECTORS, LANES, ELEMENT)
multiply_few = outer_tile(FEW, VECTORS, LANES, ELEMENT)
copy_left = copy_row(ROWS, ELEMENT)
copy_right = copy_row(COLS, ELEMENT)
transpose = transpose_block(LANES, ELEMENT)
'''

TILE_SETUP = '''\
depth_block, col_step, tile_bytes = integer(args, 11), integer(args, 12), integer(args, 13)
left_panels, right_panels = tiles + integer(args, 14), tiles + integer(args, 15)
pack_left, pack_right = integer(args, 16), integer(args, 17)
row_panels, col_panels = (rows + ROWS - 1) // ROWS, (cols + COLS - 1) // COLS
'''

TILE_BODY = '''\
row_from = row_panels * row_block // row_blocks * ROWS
row_to = min(rows, row_panels * (row_block + 1) // row_blocks * ROWS)
col_from = col_panels * col_block // col_blocks * COLS
col_to = min(cols, col_panels * (col_block + 1) // col_blocks * COLS)
tiles_a_row = (col_to - col_from + COLS - 1) // COLS
for k_from in range(0, max(depth, 1), depth_block):
    count = min(depth_block, depth - k_from)
    chains = max(1, (count + CHAIN - 1) // CHAIN)
    chain = max(1, (count + chains - 1) // chains)
    # Panels lie one cache line further apart than they are long: powers of two would all fall on the same lines.
    left_pitch, right_pitch = count * ROWS * SIZE + 64, max(count, LANES) * COLS * SIZE + 64
    <pack_left>
    for step_from in range(col_from, col_to, col_step):
        step_to = min(col_to, step_from + col_step)
        <pack_right>
        for row in range(row_from, row_to, ROWS):
            valid = min(ROWS, row_to - row)
            <find_left>
            for col in range(step_from, step_to, COLS):
                <find_right>
                tile = tiles + ((row - row_from) // ROWS * tiles_a_row + (col - col_from) // COLS) * tile_bytes
                <multiply>
                if k_from + depth_block >= depth:
                    <epilogue>
'''

MULTIPLY = '''\
for k in range(0, max(count, 1), chain):
    x_here, y_here, steps = x + k * x_step * SIZE, y + k * y_step * SIZE, min(chain, count - k)
    if valid > FEW:
        multiply(x_here, x_row, x_step, valid, y_here, y_step, steps, tile, k_from + k)
    else:
        multiply_few(x_here, x_row, x_step, valid, y_here, y_step, steps, tile, k_from + k)
'''

FIND_LEFT = '''\
x, x_row, x_step = left + (row * left_ld + k_from) * SIZE, left_ld, 1
'''

PACK_LEFT_TRANSPOSED = '''\
if pack_left:
    for k in range(count):
        source = left + (k_from + k) * left_ld * SIZE
        for row in range(row_from, row_to - ROWS + 1, ROWS):
            panel = left_panels + (row - row_from) // ROWS * left_pitch
            copy_left(source + row * SIZE, panel + k * ROWS * SIZE)
'''

FIND_LEFT_TRANSPOSED = '''\
packed = pack_left and valid == ROWS
x, x_row = left + (k_from * left_ld + row) * SIZE, 1
if packed:
    x = left_panels + (row - row_from) // ROWS * left_pitch
x_step = ROWS if packed else left_ld
'''

# A short last panel starts further left, so that it is as wide as the others: its first columns are done already.
PACK_RIGHT = '''\
if pack_right and cols >= COLS:
    for col in range(step_from, step_to, COLS):
        source = right + (k_from * right_ld + min(col, cols - COLS)) * SIZE
        panel = right_panels + (col - step_from) // COLS * right_pitch
        for k in range(count):
            copy_right(source + k * right_ld * SIZE, panel + k * COLS * SIZE)
elif pack_right:
    for k in range(count):
        for col in range(cols):
            store(right_panels, k * COLS + col, load(right, (k_from + k) * right_ld + col, 62), 63)
'''

FIND_RIGHT = '''\
start = max(min(col, cols - COLS), 0)
y = right + (k_from * right_ld + start) * SIZE
if pack_right:
    y = right_panels + (col - step_from) // COLS * right_pitch
y_step = COLS if pack_right else right_ld
'''

# The last block along the depth overlaps the one before. A line shorter than a block runs on into the next, if any.
PACK_RIGHT_TRANSPOSED = '''\
for col in range(step_from, step_to, LANES):
    source = right + (col * right_ld + k_from) * SIZE
    panel = right_panels + (col - step_from) // COLS * right_pitch + (col - step_from) % COLS * SIZE
    if count >= LANES or (cols - col - LANES) * right_ld >= LANES - count:
        for k in range(0, count, LANES):
            first = max(min(k, count - LANES), 0)
            transpose(source + first * SIZE, right_ld, min(LANES, cols - col), panel + first * COLS * SIZE, COLS)
    else:
        for c in range(min(LANES, cols - col)):
            for k in range(count):
                store(panel, k * COLS + c, load(source, c * right_ld + k, 62), 63)
'''

FIND_RIGHT_TRANSPOSED = '''\
start = col
y, y_step = right_panels + (col - step_from) // COLS * right_pitch, COLS
'''

# Of `winograd.py`: tiles of 4 × 4 elements, two apart.
TILE_WORDS = ("height", "width", "out_height", "out_width", "channels", "x_n", "x_h", "x_w", "low_h", "low_w", "tall",
              "wide", "count", "products_at", "room_at")
IMAGE_WORDS: dict[str, tuple[str, ...]] = {
    "rows": (), "windows": WINDOW_WORDS, "lines": LINE_WORDS, "tiles": TILE_WORDS}

DOT_PIECES = '''\
from tinytorch.runtime.microkernel import row_dots

dots = row_dots(LINES, LANES, ELEMENT)
'''

DOT_BODY = '''\
panels = (cols + COLS - 1) // COLS
col_from = panels * col_block // col_blocks * COLS
col_to = min(cols, panels * (col_block + 1) // col_blocks * COLS)
whole = depth // LANES * LANES
tile, valid = tiles, 1
for col in range(col_from, col_to, COLS):
    start = col
    width = min(COLS, col_to - col)
    y = right + col * right_ld * SIZE
    for row in range(rows):
        x = left + row * left_ld * SIZE
        for c in range(0, width, LINES):
            dots(x, y + c * right_ld * SIZE, right_ld, min(LINES, width - c), whole, tile + c * SIZE)
        if whole < depth:
            for c in range(width):
                total = load(tile, c, 61)
                for k in range(whole, depth):
                    total += load(x, k, 62) * load(y, c * right_ld + k, 62)
                store(tile, c, total, 61)
        <epilogue>
'''

LOOP_BODY = '''\
row = row_block
start = cols * col_block // col_blocks
width = cols * (col_block + 1) // col_blocks - start
tile, valid = tiles, 1
for c in range(width):
    store_total(tile, c, 0, 61)
for k in range(0, depth - 3, 4):
    x = row * left_row + k * left_step
    xa, xb = load(left, x, 62), load(left, x + left_step, 62)
    xc, xd = load(left, x + 2 * left_step, 62), load(left, x + 3 * left_step, 62)
    for c in range(width):
        y = (start + c) * right_col + k * right_step
        low = xa * load(right, y, 62) + xb * load(right, y + right_step, 62)
        high = xc * load(right, y + 2 * right_step, 62) + xd * load(right, y + 3 * right_step, 62)
        store_total(tile, c, load_total(tile, c, 61) + low + high, 61)
for k in range(depth // 4 * 4, depth):
    xa = load(left, row * left_row + k * left_step, 62)
    for c in range(width):
        y = (start + c) * right_col + k * right_step
        store_total(tile, c, load_total(tile, c, 61) + xa * load(right, y, 62), 61)
<epilogue>
'''


def tile_text(name: str, form: MatmulForm, epilogue: Epilogue) -> str:
    """Blocks of C swept by register tiles; a tile lies in scratch, still hot, when the epilogue reads it."""
    rows, few = form.tile_rows
    constants = (f"ROWS, FEW, COLS, VECTORS, LANES = {rows}, {few}, {form.vectors * form.lanes}, {form.vectors}, "
                 f"{form.lanes}\n")
    more_setup, more_pieces, pack_left, find_left, multiply = _left_text(form)
    constants += f"X_SIZE, CHAIN = {IMAGE_SIZES.get(form.element, SIZES[form.element])}, {_chain(form)}\n"
    body = fill(
        TILE_BODY, pack_left=pack_left, find_left=find_left, multiply=multiply,
        pack_right=PACK_RIGHT_TRANSPOSED if form.transpose_b else PACK_RIGHT,
        find_right=FIND_RIGHT_TRANSPOSED if form.transpose_b else FIND_RIGHT,
        epilogue=epilogue_text(form, epilogue, "0" if form.transpose_b else "col - start"))
    setup = TILE_SETUP + (fill(more_setup, words=image_words(form)) if more_setup else "")
    return kernel_text(name, form, epilogue, constants + TILE_PIECES + more_pieces, setup, body)


def _left_text(form: MatmulForm) -> tuple[str, str, str, str, str]:
    """Of a left operand: setup, pieces, how it is packed, found and multiplied."""
    if form.left == "windows":
        return WINDOW_SETUP, WINDOW_PIECES, "", FIND_LEFT_WINDOWS, MULTIPLY_WINDOWS
    if form.left == "lines":
        return LINE_SETUP, LINE_PIECES, STAGE_LINES, FIND_LEFT_LINES, MULTIPLY_LINES
    if form.transpose_a:
        return "", "", PACK_LEFT_TRANSPOSED, FIND_LEFT_TRANSPOSED, MULTIPLY
    return "", "", "", FIND_LEFT, MULTIPLY


def _chain(form: MatmulForm) -> int:
    return CHAINS.get(form.element, USUAL_CHAINS)[form.left == "windows"]


def image_words(form: MatmulForm) -> str:
    """The words of a kernel whose left operand is images."""
    first = FIRST_WORD + 3 * form.batch_rank
    return "\n".join(f"{name} = integer(args, {first + at})" for at, name in enumerate(IMAGE_WORDS[form.left]))


def dot_text(name: str, form: MatmulForm, epilogue: Epilogue) -> str:
    """Lines of `left` times lines of `right`, along the depth."""
    constants = f"LINES, COLS, LANES = {DOT_ROWS}, {DOT_COLS}, {form.lanes}\n"
    body = fill(DOT_BODY, epilogue=epilogue_text(form, epilogue, "0"))
    return kernel_text(name, form, epilogue, constants + DOT_PIECES, "", body)


def loop_text(name: str, form: MatmulForm, epilogue: Epilogue) -> str:
    """A row at a time, summed in scratch from four lines of `right` as they stream by."""
    total = TOTALS.get(form.element, form.element)
    setup = (f"left_row, left_step = {'1, left_ld' if form.transpose_a else 'left_ld, 1'}\n"
             f"right_step, right_col = {'1, right_ld' if form.transpose_b else 'right_ld, 1'}\n")
    return kernel_text(name, form, epilogue, f"load_total, store_total = load_{total}, store_{total}\n", setup,
                   fill(LOOP_BODY, epilogue=epilogue_text(form, epilogue, "")))


def kernel_text(name: str, form: MatmulForm, epilogue: Epilogue, pieces: str, setup: str, body: str) -> str:
    left, right = ("B", "A") if form.swapped else ("A", "B")
    left_lies = "(depth, rows)" if form.transpose_a else "(rows, depth)"
    if form.left != "rows":
        left_lies = f"{form.left} of images"
    right_lies = "(cols, depth)" if form.transpose_b else "(depth, cols)"
    number = TILE_TOTALS.get(form.element, form.element)
    constants = (f'ELEMENT, SIZE = "{form.element}", {SIZES[form.element]}\n'
                 f"load, store = load_{number}, store_{number}\n")
    text = fill(
        KERNEL,
        about=f"Left is {left}, as {left_lies}; right is {right}, as {right_lies}. Elements are {form.element}.",
        pieces=_imports_first(constants + pieces), setup=setup, prologue="\n".join(epilogue.prologue),
        batch=_batch(form.batch_rank), body=body)
    return text.replace("NAME", name, 1)


def _imports_first(text: str) -> str:
    lines = [line for line in text.splitlines() if line]
    return "\n".join([*(line for line in lines if line.startswith("from")), "",
                      *(line for line in lines if not line.startswith("from"))])


def _batch(rank: int) -> str:
    """b0, b1, ... from the flat batch index `b`, and the addresses of the operands."""
    lines, rest = [], "b"
    for axis in reversed(range(rank)):
        extent = f"integer(args, {FIRST_WORD + axis})"
        lines.append(f"b{axis} = {rest} % {extent}" if axis else f"b0 = {rest}")
        rest = f"{rest} // {extent}"
    for operand, first in (("left", FIRST_WORD + rank), ("right", FIRST_WORD + 2 * rank)):
        offset = " + ".join(f"b{axis} * integer(args, {first + axis})" for axis in range(rank))
        lines.append(f"{operand} = {operand}_base + ({offset}) * SIZE" if rank else f"{operand} = {operand}_base")
    return "\n".join(lines)


def epilogue_text(form: MatmulForm, epilogue: Epilogue, first: str) -> str:
    """The caller's text over the `valid` rows of a tile, from column `first` on (empty: one row, `width` columns).

    A whole row of a tile is a loop of known length, which vectorises without a remainder.
    """
    take = f"acc = {'load(tile, r * COLS + c, 61)' if first else 'load_total(tile, c, 61)'}"
    if form.swapped:
        outer, element = ["j = row + r"], ["i = start + c", *epilogue.row, take, *epilogue.body]
    else:
        place = ["i = row + r"]
        if form.left == "lines":
            place = ["i = first_pixel + r"]
        elif form.left != "rows":
            place = ["i = origin + load_i64(places, r, 59)", "if i < origin:", "    continue"]
        outer, element = [*place, *epilogue.row], ["j = start + c", take, *epilogue.body]
    inner = ["for c in range(width):", *_deeper(element)]
    if first:
        inner = ["if col + COLS <= cols:", "    for c in range(COLS):", *_deeper(_deeper(element)),
                 "else:", f"    for c in range({first}, min(COLS, cols - start)):", *_deeper(_deeper(element))]
    return "\n".join(["for r in range(valid):", *_deeper(outer), *_deeper(inner)])


def _deeper(lines: Sequence[str]) -> list[str]:
    return [indent(line, "    ") for line in lines]
