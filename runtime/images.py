"""Plan convolutions as products of matrices: the rows of the left operand are windows, lines or tiles of images.

    plan_windows    windows found by a table of addresses, one for each tap of the kernel (`windows_text.py`)
    plan_lines      of quads and pairs, lines of images that are padded in scratch (`lines_text.py`)
    plan_tiles      4 × 4 elements at a time, place by place: the method "winograd" (`winograd.py`)

Each gives a `MatmulPlan`, whose kernel `emit_matmul` emits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tinytorch.ir.types import Shape

from .build import vector_bits
from .matmul import (
    SERIAL_STEPS,
    TILE_ROWS,
    MatmulForm,
    MatmulPlan,
    Product,
    block_tiles,
    ceil_by,
    chunks_of,
    round_up,
    shape_of_tiles,
    steps_of,
)
from .matmul_text import IMAGE_SIZES, SIZES
from .winograd import scratch_layout, tiles_an_item

STAGE_BYTES = 128 << 10   # of padded lines of images in scratch: they are read from the second-level cache
ITEM_PIXELS = 256         # of a work item, if there are so many


@dataclass(frozen=True)
class Windows:
    """How the windows of images lie, of one group of channels; strides of x in elements.

    Of quads and pairs, `channels` counts those, which lie side by side, and strides are in single numbers but the last.
    """

    images: int
    size: Shape
    out_size: Shape
    kernel: Shape
    channels: int
    x_strides: Shape
    stride: Shape
    low: Shape
    dilation: Shape
    spread: Shape
    outside: int = 0  # what bytes outside an image are


def plan_windows(windows: Windows, cols: int, *, groups: int, element: str, threads: int) -> MatmulPlan:
    """Plan the product of windows of images with a weight (kernel_h · kernel_w · channels, groups · cols): `convolve`.

    A group takes its own channels of x and its own columns. Epilogues see pixel i and column j of group b.
    """
    bits = vector_bits()
    lanes = bits // 8 // SIZES[element]
    vectors, height = shape_of_tiles(cols, lanes, bits)
    pixels = prod(round_up(n, s) for n, s in zip(windows.out_size, windows.spread, strict=True))
    # Tiles end where an image does, and the table of one serves all images, unless that leaves many rows empty.
    batches = windows.images if round_up(pixels, height) <= 1.07 * pixels else 1
    images = windows.images // batches
    rank = int(groups > 1)
    form = MatmulForm(False, False, rank, element, "tile", False, lanes, (height, 0), vectors, "windows")
    depth = prod(windows.kernel) * windows.channels
    product = Product(form, batches * round_up(images * pixels, height), cols, depth, 0, groups * cols)
    busy = threads if groups * steps_of(product) >= SERIAL_STEPS else 1
    blocking = block_tiles(product, groups, busy)
    table_at = round_up(blocking.scratch, 64)
    table = (56 + 16 * prod(windows.kernel)) * height + 8 * prod(windows.kernel)
    table += ((windows.channels - 1) * windows.x_strides[3] + 1) * product.size
    scratch = round_up(table_at + table, 64)
    words = (0, 0, 0, scratch, product.rows, cols, depth, 0, product.right_ld, *blocking.grid, *blocking.words,
             *((groups, windows.channels * windows.x_strides[3], cols) if rank else ()),
             *windows.size, *windows.out_size, *windows.kernel, windows.channels, *windows.x_strides, *windows.stride,
             *windows.low, *windows.dilation, *windows.spread, images, batches, table_at,
             windows.outside)
    extent = groups * prod(blocking.grid)
    return MatmulPlan(form, words, extent, chunks_of(extent, busy), scratch)


def plan_lines(windows: Windows, cols: int, *, element: str, threads: int) -> MatmulPlan:
    """Plan the product of windows of images of quads or pairs with a weight: `quad_convolve` where it has one group,
    and is not dilated along its rows.

    `windows.channels` counts elements of a row of the kernel, kw · C numbers of them; its strides are in single
    numbers, and pixels lie side by side.
    """
    bits = vector_bits()
    lanes = bits // 8 // SIZES[element]
    vectors, height = shape_of_tiles(cols, lanes, bits)
    form = MatmulForm(False, False, 0, element, "tile", False, lanes, (height, 0), vectors, "lines")
    lying, depth = _lying(windows, element), windows.kernel[0] * windows.channels
    high, wide = windows.out_size
    busy = threads if windows.images * high * wide * cols * depth >= 2 * SERIAL_STEPS * lanes else 1
    images, tall = _items_of_lines(windows, lying.lines * lying.pitch, busy)
    bands, pixels = ceil_by(high, tall), images * tall * wide
    items, rows = ceil_by(windows.images, images) * bands, round_up(pixels, height)
    grid = 1, min(ceil_by(cols, vectors * lanes), ceil_by(busy, items))
    blocking = block_tiles(Product(form, rows, cols, depth, 0, cols), items, 1, grid)
    stage_lines = lying.lines - (high - tall) * windows.stride[0]
    pitches = (lying.pitch, stage_lines * lying.pitch) if lying.staged else (lying.x_h, lying.x_n)
    table_at = round_up(blocking.scratch, 64)
    stage_at = round_up(table_at + 8 * pixels, 64)
    scratch = round_up(stage_at + lying.staged * images * pitches[1], 64)
    words = (0, 0, 0, scratch, items * rows, cols, depth, 0, cols, items, grid[1], *blocking.words,
             windows.size[0], lying.row_bytes, tall, high, wide, windows.kernel[0], windows.channels,
             *windows.x_strides[:2], lying.pixel, *windows.stride, windows.low[0], lying.edge, lying.skip,
             windows.dilation[0], windows.images, images, bands, *pitches, stage_lines, windows.outside,
             int(lying.staged), table_at, stage_at)
    return MatmulPlan(form, words, items * grid[1], chunks_of(items * grid[1], busy), scratch)


@dataclass(frozen=True)
class _Lying:
    """How lines of images lie, in bytes: from image to image, line to line, pixel to pixel; the part of a line that is
    copied, after `skip` bytes that are cut off, to `edge` bytes into one of the padded `lines` that are `pitch` long;
    and whether they are copied at all."""

    x_n: int
    x_h: int
    pixel: int
    row_bytes: int
    skip: int
    edge: int
    lines: int
    pitch: int
    staged: bool


def _lying(windows: Windows, element: str) -> _Lying:
    x_n, x_h, pixel = (n * IMAGE_SIZES[element] for n in windows.x_strides[:3])
    (high, wide), (low_h, low_w), (stride_h, stride_w) = windows.size, windows.low, windows.stride
    edge, skip = max(low_w, 0) * pixel, max(-low_w, 0) * pixel
    row_bytes = wide * pixel - skip
    reach = (windows.out_size[1] - 1) * stride_w * pixel + windows.channels * SIZES[element]
    lines = (windows.out_size[0] - 1) * stride_h + (windows.kernel[0] - 1) * windows.dilation[0] + 1
    staged = low_h > 0 or lines - low_h > high or edge > 0 or reach > row_bytes
    return _Lying(x_n, x_h, pixel, row_bytes, skip, edge, lines, round_up(max(edge + row_bytes, reach), 64), staged)


def _items_of_lines(windows: Windows, image_bytes: int, threads: int) -> tuple[int, int]:
    """(images, output lines of one) of a work item: not too much memory, not too few pixels, enough for all threads."""
    high, wide = windows.out_size
    wanted = 2 * threads if threads > 1 else 1
    images = min(windows.images // wanted, ceil_by(ITEM_PIXELS, high * wide), STAGE_BYTES // image_bytes)
    if images > 1:
        return images, high
    bands = max(ceil_by(image_bytes, STAGE_BYTES), ceil_by(wanted, windows.images))
    return 1, ceil_by(high, min(bands, high))


def plan_tiles(x_shape: Shape, x_strides: Shape, out_shape: Shape, low: Shape, element: str,
               threads: int) -> MatmulPlan:
    """Plan `filter_tiles`: channels and outputs are whole vectors."""
    bits = vector_bits()
    lanes, channels, cols = bits // 8 // SIZES[element], x_shape[3], out_shape[3]
    vectors = 1 if cols % (2 * lanes) else 2
    form = MatmulForm(False, False, 0, element, "winograd", False, lanes, TILE_ROWS[bits], vectors, "tiles")
    tall, wide = ceil_by(out_shape[1], 2), ceil_by(out_shape[2], 2)
    tiles, height = x_shape[0] * tall * wide, TILE_ROWS[bits][0]
    busy = threads if tiles * channels * cols > 4 * SERIAL_STEPS else 1
    count = tiles_an_item(tiles, channels, cols, element, height, busy)
    products_at, room_at, scratch = scratch_layout(count, channels, cols, element, vectors * lanes)
    scratch, items = round_up(scratch, 64), ceil_by(tiles, count)
    words = (0, 0, 0, scratch, tiles, cols, channels, 0, cols, items, 1, *(0,) * 7,
             *x_shape[1:3], *out_shape[1:3], channels, *x_strides[:3], *low, tall, wide, count, products_at, room_at)
    return MatmulPlan(form, words, items, chunks_of(items, busy), scratch)
