"""The text of `filter_tiles`: convolution by 3 × 3 with 16 multiplications for 4 outputs, where windows take 36.

    Y = Aᵀ [ Σ_c U_c ⊙ (Bᵀ D_c B) ] A      (Winograd's minimal filtering: Lavin and Gray, 2016)

D is a tile of 4 × 4 elements of x, Y the 2 × 2 outputs it decides; the op is given U = G w Gᵀ. A work item takes some
hundred tiles: it transforms them to V (16, tiles, channels), multiplies V by U, place by place, with register tiles,
and transforms the products back, a tile after the other, each with its epilogue. V and the products lie in scratch, in
the second-level cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .matmul_text import SIZES, epilogue_text, image_words, kernel_text
from .template import fill

if TYPE_CHECKING:
    from .matmul import Epilogue, MatmulForm

CACHE_BYTES = 384 << 10  # for V and the products of a work item

PIECES = '''\
from tinytorch.runtime.microkernel import outer_tile

multiply = outer_tile(ROWS, VECTORS, LANES, ELEMENT)
CHAIN = 32  # products summed up in one go: the error of a sum grows with it
'''

SETUP = '''\
<words>
v, products, tile = tiles, tiles + products_at, tiles + room_at
places = tile + 4 * COLS * SIZE
zeros = places + 32
zero_fill(zeros, channels * SIZE)
origin, strips = 0, cols // COLS
# From one place of a tile to the next: a cache line more than the tiles need, or all 16 would fall on the same lines.
v_pitch, pitch = count * channels + 64 // SIZE, count * cols + 64 // SIZE
'''

NEXT_TILE = '''\
right += 1
if right == wide:
    right, down = 0, down + 1
    if down == tall:
        down, image = 0, image + 1
'''

# Bᵀ = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1], first on columns, then on rows.
BODY = '''\
first = row_block * count
amount = min(count, rows - first)
down, right = first // wide % tall, first % wide
image = first // (tall * wide)
for t in range(amount):
    y, x = down * 2 - low_h, right * 2 - low_w
    <find>
    for block in range(0, channels, LANES):
        for c in range(block, block + LANES):
            <transform>
    <next_tile>
for place in range(16):
    for strip in range(strips):
        weight = right_base + (place * channels * cols + strip * COLS) * SIZE
        product = products + (place * pitch + strip * count * COLS) * SIZE
        for t in range(0, amount, ROWS):
            start = v + (place * v_pitch + t * channels) * SIZE
            for c in range(0, channels, CHAIN):
                multiply(start + c * SIZE, channels, 1, min(ROWS, amount - t), weight + c * cols * SIZE, cols,
                         min(CHAIN, channels - c), product + t * COLS * SIZE, c)
down, right = first // wide % tall, first % wide
image = first // (tall * wide)
for t in range(amount):
    row, valid = 0, 4
    for r in range(4):
        y, x = down * 2 + r // 2, right * 2 + r % 2
        pixel = (image * out_height + y) * out_width + x
        store_i64(places, r, select((y < out_height) & (x < out_width), pixel, -1), 59)
    for strip in range(strips):
        product = products + (strip * count + t) * COLS * SIZE
        for c in range(COLS):
            <gather>
        col, start = strip * COLS, strip * COLS
        <epilogue>
    <next_tile>
'''


def _find() -> str:
    """The addresses of the 16 pixels of a tile, and zeros for those outside."""
    lines = ["corner = left_base + (image * x_n + y * x_h + x * x_w) * SIZE"]
    lines += [f"in_h{i}, in_w{i} = (y + {i} >= 0) & (y + {i} < height), (x + {i} >= 0) & (x + {i} < width)"
              for i in range(4)]
    return "\n".join([*lines, *(f"p{i}{j} = select(in_h{i} & in_w{j}, corner + ({i} * x_h + {j} * x_w) * SIZE, zeros)"
                                for i in range(4) for j in range(4))])


def _transform() -> str:
    """V = Bᵀ D B of one channel."""
    lines = [f"d{i}{j} = load(p{i}{j}, c, 62)" for i in range(4) for j in range(4)]
    for j in range(4):
        lines += [f"e0{j} = d0{j} - d2{j}", f"e1{j} = d1{j} + d2{j}"]
        lines += [f"e2{j} = d2{j} - d1{j}", f"e3{j} = d1{j} - d3{j}"]
    for i in range(4):
        sums = (f"e{i}0 - e{i}2", f"e{i}1 + e{i}2", f"e{i}2 - e{i}1", f"e{i}1 - e{i}3")
        lines += [f"store(v, {4 * i + j} * v_pitch + t * channels + c, {total}, 63)" for j, total in enumerate(sums)]
    return "\n".join(lines)


def _gather() -> str:
    """Y = Aᵀ M A of one column, with Aᵀ = [1 1 1 0; 0 1 -1 -1]."""
    lines = [f"m{i}{j} = load(product, {4 * i + j} * pitch + c, 61)" for i in range(4) for j in range(4)]
    for j in range(4):
        lines += [f"n0{j} = m0{j} + m1{j} + m2{j}", f"n1{j} = m1{j} - m2{j} - m3{j}"]
    for i in range(2):
        lines += [f"store(tile, {2 * i} * COLS + c, n{i}0 + n{i}1 + n{i}2, 60)",
                  f"store(tile, {2 * i + 1} * COLS + c, n{i}1 - n{i}2 - n{i}3, 60)"]
    return "\n".join(lines)


def winograd_text(name: str, form: MatmulForm, epilogue: Epilogue) -> str:
    """The kernel of this form and this epilogue."""
    constants = (f"ROWS, COLS, VECTORS, LANES = {form.tile_rows[0]}, {form.vectors * form.lanes}, {form.vectors}, "
                 f"{form.lanes}\n")
    body = fill(BODY, find=_find(), transform=_transform(), gather=_gather(), next_tile=NEXT_TILE,
                epilogue=epilogue_text(form, epilogue, "0"))
    return kernel_text(name, form, epilogue, constants + PIECES, fill(SETUP, words=image_words(form)), body)


def tiles_an_item(tiles: int, channels: int, cols: int, element: str, rows: int, threads: int) -> int:
    """How many tiles a work item takes: what fits the cache, and fewer where threads would be idle."""
    most = CACHE_BYTES // (16 * (channels + cols) * SIZES[element])
    share = -(-tiles // (4 * threads))
    return max(1, min(most, share) // rows) * rows


def scratch_layout(count: int, channels: int, cols: int, element: str, tile_cols: int) -> tuple[int, int, int]:
    """(where the products begin, where the rest begins, all bytes) of a worker's scratch."""
    size = SIZES[element]
    products_at = 16 * (count * channels * size + 64)
    room_at = products_at + 16 * (count * cols * size + 64)
    return products_at, room_at, room_at + 4 * tile_cols * size + 32 + channels * size
