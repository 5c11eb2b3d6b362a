"""Plan and emit matrix products: C[b, i, j] = epilogue(sum over k of A[b, i, k] * B[b, k, j]), one launch, any sizes.

    plan = plan_matmul(64, 128, 784, lda=784, ldb=784, transpose_b=True, threads=2)   # x @ weight.T
    source = emit_matmul("linear", plan.form, store_epilogue())
    args = [*plan.words, c, 128, 0]                          # the epilogue's own words come last
    args[plan.a_word], args[plan.b_word], args[SCRATCH_WORD] = a, b, scratch   # scratch: plan.scratch_bytes a thread
    step = [kernel.address, address_of(args), plan.extent, plan.chunks]

The text of a kernel depends on `plan.form` and the epilogue only; sizes, strides and blocking are words of its table.
For matrices there are three methods, of which a small cost model takes the cheapest:

* "tile": register tiles of outer products. A is read where it lies, or packed if it lies transposed; B is read where it
  lies, or packed to panels as wide as a tile, transposed in registers if need be.
* "dot": sums along k, for a few rows times a matrix that lies along k.
* "loop": plain loops, for a single row times a matrix, and for element types without register tiles.

Each may compute C^T = B^T A^T instead (`swapped`): B plays the left operand, and the epilogue runs down columns of C.

Quads and pairs of small numbers (`microkernel.py`) take "tile", as they are: their left operand is rows, their right
one lies as the weights of `quad_matmul` do.

Convolutions are products too, and never swapped: `images.py` plans them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from .build import KernelSource, vector_bits
from .matmul_text import DOT_COLS, DOT_ROWS, FIRST_WORD, IMAGE_WORDS, SIZES, dot_text, loop_text, tile_text
from .winograd import winograd_text

SCRATCH_WORD = 2
TILED = ("f32", "f64")
GROUPED = ("quad", "pair")  # several small numbers as one element
TILE_ROWS = {512: (8, 4), 256: (6, 4), 128: (4, 2)}  # vector bits: rows of the usual tile, of the small one
VECTORS = 2               # side by side in a tile
DEPTH_BLOCK = 1024        # the longest run along k that a tile sums up in one go
ITEM_SIDE = 1024          # rows and columns of a block of C whose tiles, or whose packed A, must wait in scratch
PANEL_BYTES = 512 << 10   # packed panels of B are to stay in the second-level cache
SERIAL_STEPS = 10_000     # with less work than this (about 3 us) a second thread costs more than it brings
ENDLESS = 1 << 40


@dataclass(frozen=True)
class Epilogue:
    """What happens to each element of C: kernel text over `acc` (the sum), `b`, `i`, `j` and operands of one's own.

    `prologue` runs once a call and unpacks what it needs from `args`, from word `first_word(form)` on. `row` runs once
    a row of C, or once an element, and may use `i`, `b` and, of a batch of several axes, `b0`, `b1`, ... `body` runs
    once an element, may use `acc` and `j` too, and stores the results.

    End your own names in a digit: the kernel's own do not, but for b0, b1, ... Scopes 61 to 63 of loads and stores are
    the kernel's. An output must not overlap A or B.
    """

    prologue: tuple[str, ...] = ()
    row: tuple[str, ...] = ()
    body: tuple[str, ...] = ()


@dataclass(frozen=True)
class MatmulForm:
    """All that the text of a matmul kernel depends on, beside the epilogue.

    `transpose_a` and `transpose_b` speak of the kernel's left and right operand, which are B and A if `swapped`.
    """

    transpose_a: bool
    transpose_b: bool
    batch_rank: int
    element: str
    method: str
    swapped: bool
    lanes: int
    tile_rows: tuple[int, int]
    vectors: int = VECTORS
    left: str = "rows"  # what the rows of the product are: rows of a matrix, "windows" of images, or "tiles" of them


@dataclass(frozen=True)
class MatmulPlan:
    """A form, and the integers of one product. `words` start the kernel's table; the addresses in them are still 0."""

    form: MatmulForm
    words: tuple[int, ...]
    extent: int
    chunks: int
    scratch_bytes: int  # a thread

    @property
    def a_word(self) -> int:
        """The index in the table of A's address."""
        return 1 if self.form.swapped else 0

    @property
    def b_word(self) -> int:
        """The index in the table of B's address."""
        return 0 if self.form.swapped else 1


@dataclass(frozen=True)
class Product:
    """A product as a kernel sees it: left (rows, depth) times right (depth, cols), with their leading dimensions."""

    form: MatmulForm
    rows: int
    cols: int
    depth: int
    left_ld: int
    right_ld: int

    @property
    def size(self) -> int:
        return SIZES[self.form.element]

    @property
    def tile(self) -> tuple[int, int]:
        return self.form.tile_rows[0], self.form.vectors * self.form.lanes


@dataclass(frozen=True)
class _Blocking:
    """Work items of one matrix: `grid` blocks of rows and of columns; the method's words; bytes of scratch."""

    grid: tuple[int, int]
    words: tuple[int, ...]
    scratch: int


def first_word(form: MatmulForm) -> int:
    """The index in `args` of the epilogue's first word."""
    return FIRST_WORD + 3 * form.batch_rank + len(IMAGE_WORDS[form.left])


def store_epilogue(element: str = "f32", batch_rank: int = 0) -> Epilogue:
    """C[b, i, j] = acc. Its words: the address of C, C's row stride, C's stride along the flat batch."""
    at = FIRST_WORD + 3 * batch_rank
    return Epilogue(
        (f"out0, out0_ld0, out0_batch0 = pointer(args, {at}), integer(args, {at + 1}), integer(args, {at + 2})",),
        ("row0 = b * out0_batch0 + i * out0_ld0",),
        (f"store_{element}(out0, row0 + j, acc, 0)",))


def emit_matmul(name: str, form: MatmulForm, epilogue: Epilogue) -> KernelSource:
    """The kernel `name` of this form and this epilogue."""
    text = {"tile": tile_text, "dot": dot_text, "loop": loop_text, "winograd": winograd_text}[form.method]
    return KernelSource(name, text(name, form, epilogue))


def plan_matmul(m: int, n: int, k: int, *, lda: int, ldb: int, transpose_a: bool = False, transpose_b: bool = False,
                batch: tuple[int, ...] = (), a_strides: tuple[int, ...] = (), b_strides: tuple[int, ...] = (),
                element: str = "f32", threads: int = 1) -> MatmulPlan:
    """Choose form and blocking of (m, k) @ (k, n). Strides are in elements; a batch stride of 0 broadcasts.

    A lies as (m, k) with row stride lda, or with `transpose_a` as (k, m); B as (k, n), or with `transpose_b` as (n, k).
    `element` is an element type of `lowlevel`; f16 and bf16 are summed in f32, integers wrap around in their own type.
    Of "quad" and "pair", k counts elements of four and two numbers.
    The result does not depend on `threads`, bit for bit.
    """
    bits = vector_bits()
    lanes = bits // 8 // SIZES[element]
    form = MatmulForm(transpose_a, transpose_b, len(batch), element, "loop", False, lanes, TILE_ROWS[bits])
    if element in GROUPED:
        vectors, height = shape_of_tiles(n, lanes, bits) if m > 1 else _shape_of_row(n, lanes)
        form = replace(form, method="tile", vectors=vectors, tile_rows=(height, min(height, form.tile_rows[1])))
    product = min(_ways(Product(form, m, n, k, lda, ldb)), key=lambda way: steps_of(_typical(way)))
    matrices = prod(batch)
    busy = threads if matrices * steps_of(product) >= SERIAL_STEPS else 1
    block = {"tile": block_tiles, "dot": _block_dots, "loop": _block_loops}[product.form.method]
    blocking = block(product, matrices, busy)
    scratch = round_up(blocking.scratch, 64)
    strides = (*b_strides, *a_strides) if product.form.swapped else (*a_strides, *b_strides)
    words = (0, 0, 0, scratch, product.rows, product.cols, k, product.left_ld, product.right_ld,
             *blocking.grid, *blocking.words, *batch, *strides)
    extent = matrices * prod(blocking.grid) if m and n else 0
    return MatmulPlan(product.form, words, extent, chunks_of(extent, busy), scratch)


def shape_of_tiles(cols: int, lanes: int, bits: int) -> tuple[int, int]:
    """Vectors side by side, and rows, of tiles for a product of so many columns, which may be few."""
    vectors = min((1, 2), key=lambda n: round_up(cols, n * lanes) * (1 if n == 2 else 1.2))
    return vectors, TILE_ROWS[bits][0] * (3 if vectors == 1 else 2) // 2


def _shape_of_row(cols: int, lanes: int) -> tuple[int, int]:
    """The same for a single row: wide, for the right operand is to be read in long runs."""
    return next((n for n in (8, 4, 2) if n * lanes <= cols), 1), 1


def _typical(product: Product) -> Product:
    """A product of the same order of size: the form, and so the kernel, must not change with every other batch size."""
    def round_off(n: int) -> int:
        return n if n <= 8 else 16 if n < 32 else 128

    return replace(product, rows=round_off(product.rows), cols=round_off(product.cols), depth=round_off(product.depth))


def _ways(product: Product) -> Iterator[Product]:
    """The product by every method that can do it, as it is and swapped."""
    if product.form.element in GROUPED:
        yield product
        return
    product = _straightened(product)
    if product.form.element not in TILED:
        yield product
        return
    form = product.form
    other = replace(form, transpose_a=not form.transpose_b, transpose_b=not form.transpose_a, swapped=True)
    swapped = Product(other, product.cols, product.rows, product.depth, product.right_ld, product.left_ld)
    for way in (product, swapped):
        yield replace(way, form=replace(way.form, method="tile"))
        if not way.form.transpose_b:
            yield way
        elif not way.form.transpose_a:
            yield replace(way, form=replace(way.form, method="dot"))


def _straightened(product: Product) -> Product:
    """A vector without gaps is a row as well as a column: let it lie along k where k is long, across where it is 1."""
    form, rows, cols, depth, left_ld, right_ld = vars(product).values()
    if depth == 1 and left_ld == 1 and not form.transpose_a:
        form, left_ld = replace(form, transpose_a=True), rows
    elif rows == 1 and left_ld == 1 and form.transpose_a:
        form, left_ld = replace(form, transpose_a=False), depth
    if depth == 1 and right_ld == 1 and form.transpose_b:
        form, right_ld = replace(form, transpose_b=False), cols
    elif cols == 1 and right_ld == 1 and not form.transpose_b:
        form, right_ld = replace(form, transpose_b=True), depth
    return Product(form, rows, cols, depth, left_ld, right_ld)


def steps_of(product: Product) -> float:
    """About how many machine steps, of two vector multiply-adds each, one matrix takes: to compare ways of doing it."""
    form, rows, cols, depth = product.form, product.rows, product.cols, product.depth
    # Down the columns of C one stores element by element; of a C that leaves the cache, line by line.
    across = form.swapped and rows > 1
    outputs = rows * cols * (0.15 if not across else 1.5 if rows * cols * product.size <= PANEL_BYTES else 12)
    if form.method == "loop":
        line = 9 * cols / form.lanes + 2 + 0.1 * (cols % form.lanes)
        return outputs + rows * (10 + line * (depth // 4 + depth % 4))
    if form.method == "dot":
        return outputs + rows * round_up(cols, DOT_ROWS) * (depth / form.lanes / 1.7 + 8 + 2 * (depth % form.lanes))
    (big, width), small = product.tile, form.tile_rows[1]
    row_tiles = rows // big + (0 if rows % big == 0 else 0.6 if rows % big <= small else 1)
    packing = 0.3 * depth * cols if form.transpose_b else 0
    ragged = 10 * rows if cols % width and not across else 0  # the epilogue's loop over a part of a tile's row
    tiles = row_tiles * (round_up(cols, width) / width)
    return outputs + ragged + packing + tiles * (depth * big * form.vectors / 2 + 20)


def block_tiles(product: Product, matrices: int, threads: int, grid: tuple[int, int] | None = None) -> _Blocking:
    form, size, (height, width) = product.form, product.size, product.tile
    depth_blocks = 1 if form.left != "rows" else max(1, ceil_by(product.depth, DEPTH_BLOCK))
    depth = max(1, ceil_by(product.depth, depth_blocks))
    pack_left = form.transpose_a and product.cols > 2 * width
    side = ITEM_SIDE if depth_blocks > 1 or pack_left else ENDLESS
    grid = grid or _grid(product, matrices, threads, height, width, side)
    item_rows = ceil_by(ceil_by(product.rows, height), grid[0]) * height
    item_cols = ceil_by(ceil_by(product.cols, width), grid[1]) * width
    col_step = round_up(ceil_by(item_cols, ceil_by(item_cols * depth * size, PANEL_BYTES) or 1), width) or width
    tiles = item_rows * item_cols * size if depth_blocks > 1 else height * width * size
    # Read B where it lies, unless it is too narrow, or would not stay in the cache while many rows of tiles need it.
    far = product.right_ld * size % 2048 == 0 or product.depth * product.right_ld * size > PANEL_BYTES
    pack_right = form.transpose_b or product.cols < width or (far and product.rows > 3 * height)
    left_panels = item_rows // height * (depth * height * size + 64) if pack_left else 0
    right_panels = col_step // width * (max(depth, form.lanes) * width * size + 64) if pack_right else 0
    left_at, right_at = round_up(tiles, 64), round_up(tiles, 64) + round_up(left_panels, 64)
    tile_bytes = height * width * size if depth_blocks > 1 else 0
    words = (depth, col_step, tile_bytes, left_at, right_at, int(pack_left), int(pack_right))
    return _Blocking(grid, words, right_at + right_panels)


def _block_dots(product: Product, matrices: int, threads: int) -> _Blocking:
    grid = _grid(product, matrices, threads, max(1, product.rows), DOT_COLS, ENDLESS)
    return _Blocking(grid, (0,) * 7, DOT_COLS * product.size)


def _block_loops(product: Product, matrices: int, threads: int) -> _Blocking:
    _, col_blocks = _grid(product, matrices, threads, 1, DOT_COLS, ENDLESS)
    return _Blocking((max(1, product.rows), col_blocks), (0,) * 7, 8 * product.cols)


def _grid(product: Product, matrices: int, threads: int, height: int, width: int, side: int) -> tuple[int, int]:
    """Blocks of rows and of columns, none longer than `side`: those with which the busiest thread is done first."""
    row_panels, col_panels = max(1, ceil_by(product.rows, height)), max(1, ceil_by(product.cols, width))
    least = max(1, ceil_by(product.rows, side)), max(1, ceil_by(product.cols, side))
    if threads == 1:
        return least

    def busiest(grid: tuple[int, int]) -> float:
        rows, cols = ceil_by(row_panels, grid[0]) * height, ceil_by(col_panels, grid[1]) * width
        packing = (0.3 if product.form.transpose_b else 0.15) * cols + 0.1 * rows
        return ceil_by(matrices * grid[0] * grid[1], threads) * (rows * cols / 2 / product.form.lanes + packing)
    choices = [(r, c) for r in range(least[0], min(row_panels, 2 * threads * least[0]) + 1)
               for c in range(least[1], min(col_panels, 2 * threads * least[1]) + 1)]
    return min(choices, key=busiest)


def chunks_of(items: int, busy: int) -> int:
    """Into how many parts to cut the work items, for so many threads."""
    return min(items, 4 * busy if busy > 1 else 1)


def ceil_by(value: int, by: int) -> int:
    return -(-value // by)


def round_up(value: int, step: int) -> int:
    return ceil_by(value, step) * step
