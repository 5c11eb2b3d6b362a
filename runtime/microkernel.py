"""Register tiles for contractions: outer-product tiles, dot products of rows, and the moves that lay operands out.

A kernel file makes its pieces once, at module level, and calls them on addresses (bytes) and strides (elements):

    multiply = outer_tile(rows=8, vectors=2, lanes=16, element="f32")
    multiply(a, a_row, a_step, 8, b, b_step, depth, tile, 0)

`outer_tile` keeps rows x (vectors * lanes) sums in registers: each step along the depth loads a few vectors of B,
broadcasts one element of A per row, and does rows x vectors multiply-adds (Goto and van de Geijn, "Anatomy of
high-performance matrix multiplication", 2008). A is addressed by two strides, so row-major, transposed and packed
operands are the same code. `table_tile` does the same for rows that lie anywhere: a table says where, anew for each run
of steps (Dukhan, "The indirect convolution algorithm", 2019). The other pieces: `row_dots` (sums along the depth, for
matrix times vector), `transpose_block` and `copy_row` (packing).

An element may be several small numbers that follow each other along the depth: a "quad" of four bytes, u8 in A and i8
in B, summed in i32, or a "pair" of two bf16, summed in f32. One instruction then stands for four (two) multiply-adds a
lane, and nothing else changes: quads are four bytes, as their sums are.

With `NUMBA_DISABLE_JIT=1` each piece is a plain NumPy function on the same addresses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from .build import has
from .convert import F32, F64, I8, I16, I32, I64, NUMPY, call_function
from .lowlevel import helper

SCALARS = {"f32": F32, "f64": F64, "quad": I32, "pair": I32}
TOTALS = {"quad": ("i32", I32), "pair": ("f32", F32)}  # what an element is summed in, where it is not itself
ALIGNMENT = {"quad": 1, "pair": 2}
WORD = {"quad": "i32", "pair": "i32"}  # an element as NumPy sees it, where it has no name for it
Piece = Callable[..., None]


def outer_tile(rows: int, vectors: int, lanes: int, element: str) -> Piece:
    """tile[r, c] = sum over k < depth of A[r, k] * B[k, c], of rows x (vectors * lanes); with `add`, added to the tile.

    A[r, k] lies at `a + r * a_row + k * a_step`, B[k, c] at `b + k * b_step + c`, the tile dense at `tile`. Only the
    first `valid` rows of A are read: the sums of the rows after them repeat the last one.
    """
    def plain(a: int, a_row: int, a_step: int, valid: int, b: int, b_step: int, depth: int, tile: int,
              add: int) -> None:
        columns = vectors * lanes
        operand = _view(element, a, (valid, depth), (a_row, a_step))[_repeat_last(rows, valid)]
        out = _view(_total(element), tile, (rows, columns), (columns, 1))
        out[...] = _products(element, operand, _view(element, b, (depth, columns), (b_step, 1))) + (out if add else 0)

    @helper(plain)
    def multiply(a: Any, a_row: Any, a_step: Any, valid: Any, b: Any, b_step: Any, depth: Any, tile: Any,
                 add: Any) -> Any:
        return _moves(9, lambda v, *values: _emit_outer_tile(v, rows, vectors, *values), element, lanes)
    return multiply


def table_tile(rows: int, vectors: int, lanes: int, element: str) -> Piece:
    """tile[r, c] = sum over runs u and k < depth of A[u, r, k] * B[u, k, c]; with `add`, added to the tile.

    `table` holds the addresses of A[u, r, 0], a row of them for each run, `offsets` the bytes from `b` to each B[u].
    A[u, r, k] lies `k * a_step` further on, B[u, k, c] at `k * b_step + c`.
    """
    def plain(table: int, offsets: int, runs: int, a_step: int, b: int, b_step: int, depth: int, tile: int,
              add: int) -> None:
        columns = vectors * lanes
        out = _view(_total(element), tile, (rows, columns), (columns, 1))
        total = out.copy() if add else np.zeros_like(out)
        for run in range(runs):
            places = (ctypes.c_int64 * rows).from_address(table + run * rows * 8)
            offset = ctypes.c_int64.from_address(offsets + run * 8).value
            operand = np.stack([_view(element, place, (depth,), (a_step,)) for place in places])
            total += _products(element, operand, _view(element, b + offset, (depth, columns), (b_step, 1)))
        out[...] = total

    @helper(plain)
    def multiply(table: Any, offsets: Any, runs: Any, a_step: Any, b: Any, b_step: Any, depth: Any, tile: Any,
                 add: Any) -> Any:
        return _moves(9, lambda v, *values: _emit_table_tile(v, rows, vectors, *values), element, lanes)
    return multiply


def line_tile(rows: int, vectors: int, lanes: int, element: str) -> Piece:
    """tile[r, c] = sum over lines u < count and k < depth of A[u, r, k] * B[u, k, c].

    `table` holds the place of each A[0, r, 0] in bytes from `base`; the next line lies `pitch` bytes further on, the
    elements of A[u, r] side by side, B[u, k, c] at `(u * depth + k) * b_step + c`. Only `valid` rows are read.
    """
    def plain(table: int, base: int, valid: int, count: int, pitch: int, b: int, b_step: int, depth: int,
              tile: int) -> None:
        columns = vectors * lanes
        out = _view(_total(element), tile, (rows, columns), (columns, 1))
        places = (ctypes.c_int64 * valid).from_address(table)
        operand = np.stack([np.concatenate([_view(element, base + place + u * pitch, (depth,), (1,))
                                            for u in range(count)]) for place in places])
        right = _view(element, b, (count * depth, columns), (b_step, 1))
        out[...] = _products(element, operand, right)[_repeat_last(rows, valid)]

    @helper(plain)
    def multiply(table: Any, base: Any, valid: Any, count: Any, pitch: Any, b: Any, b_step: Any, depth: Any,
                 tile: Any) -> Any:
        return _moves(9, lambda v, *values: _emit_line_tile(v, rows, vectors, *values), element, lanes)
    return multiply


def row_dots(rows: int, lanes: int, element: str) -> Piece:
    """out[r] = sum over k < depth of x[k] * B[r, k], for some rows; depth is a multiple of `lanes`.

    Only the first `valid` rows of B are read, as in `outer_tile`.
    """
    def plain(x: int, b: int, b_row: int, valid: int, depth: int, out: int) -> None:
        matrix = _view(element, b, (valid, depth), (b_row, 1))[_repeat_last(rows, valid)]
        _view(element, out, (rows,), (1,))[...] = matrix @ _view(element, x, (depth,), (1,))

    @helper(plain)
    def dots(x: Any, b: Any, b_row: Any, valid: Any, depth: Any, out: Any) -> Any:
        return _moves(6, lambda v, *values: _emit_row_dots(v, rows, *values), element, lanes)
    return dots


def transpose_block(lanes: int, element: str) -> Piece:
    """out[c, r] = x[r, c] for a lanes x lanes block, in registers.

    Only the first `valid` rows of x are read: the columns of out after them repeat the last one.
    """
    def plain(x: int, x_row: int, valid: int, out: int, out_row: int) -> None:
        block = _view(element, x, (valid, lanes), (x_row, 1))[_repeat_last(lanes, valid)]
        _view(element, out, (lanes, lanes), (out_row, 1))[...] = block.T

    @helper(plain)
    def transpose(x: Any, x_row: Any, valid: Any, out: Any, out_row: Any) -> Any:
        return _moves(5, _emit_transpose, element, lanes)
    return transpose


def copy_row(count: int, element: str) -> Piece:
    """out[c] = x[c] for c < count, as one vector."""
    def plain(x: int, out: int) -> None:
        _view(element, out, (count,), (1,))[...] = _view(element, x, (count,), (1,))

    @helper(plain)
    def copy(x: Any, out: Any) -> Any:
        return _moves(2, lambda v, x, out: v.store(v.load(v.pointer(x)), v.pointer(out)), element, count)
    return copy


class _Vectors:
    """Loads, stores and arithmetic of one vector type, for an LLVM builder."""

    def __init__(self, builder: Any, element: str, lanes: int) -> None:
        self.builder, self.lanes, self.element = builder, lanes, element
        self.scalar = SCALARS[element]
        self.align = ALIGNMENT.get(element) or NUMPY[element].itemsize
        self.vector = ir.VectorType(self.scalar, lanes)
        total, self.total_scalar = TOTALS.get(element, (element, self.scalar))
        self.total = ir.VectorType(self.total_scalar, lanes)
        self.suffix = f"v{lanes}{total}"
        self.zero = ir.Constant(self.total, None)

    def pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, ir.PointerType())

    def at(self, pointer: Any, elements: Any) -> Any:
        """`pointer + elements`, where elements is an int or an int64 value."""
        count = _int(elements) if isinstance(elements, int) else elements
        return self.builder.gep(pointer, [count], source_etype=self.scalar)

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=self.align, typ=self.vector)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer, align=self.align)

    def add_to(self, value: Any, pointer: Any) -> None:
        """Add sums to those at `pointer`."""
        add = self.builder.add if self.total_scalar == I32 else self.builder.fadd
        self.store(add(value, self.builder.load(pointer, align=self.align, typ=self.total)), pointer)

    def broadcast(self, pointer: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.load(pointer, align=self.align, typ=self.scalar)
        first = self.builder.insert_element(undefined, one, ir.Constant(I32, 0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def shuffle(self, x: Any, y: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), [ir.Constant(I32, lane) for lane in lanes])
        return self.builder.shuffle_vector(x, y, mask)

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        """x * y + z, fused only where the machine has it: elsewhere `llvm.fma` is a call into libm for each lane."""
        if self.element == "quad":
            return self._add_quads(x, y, z)
        if self.element == "pair":
            return self._add_pairs(x, y, z)
        if not (has("fma") or has("neon")):
            return self.builder.fadd(self.builder.fmul(x, y), z)
        return call_function(self.builder, f"llvm.fma.{self.suffix}", self.total, [x, y, z])

    def _add_quads(self, x: Any, y: Any, z: Any) -> Any:
        """z plus four products of u8 and i8, exactly: without the instruction, as 16-bit numbers, the even bytes and
        the odd ones, whose products LLVM adds in pairs (`vpmaddwd`); `vpmaddubsw` would saturate."""
        b, bits = self.builder, 32 * self.lanes
        if has("avxvnni" if bits < 512 and not has("avx512vl") else "avx512vnni"):
            return call_function(b, f"llvm.x86.avx512.vpdpbusd.{bits}", self.total, [z, x, y])
        halves = ir.VectorType(I16, 2 * self.lanes)
        x, y = b.bitcast(x, halves), b.bitcast(y, halves)
        eight, low = (ir.Constant(halves, [n] * 2 * self.lanes) for n in (8, 255))
        for u, s in ((b.and_(x, low), b.ashr(b.shl(y, eight), eight)), (b.lshr(x, eight), b.ashr(y, eight))):
            wide = ir.VectorType(I32, 2 * self.lanes)
            products = b.mul(b.sext(u, wide), b.sext(s, wide))
            even, odd = (self.shuffle(products, products, list(range(n, 2 * self.lanes, 2))) for n in (0, 1))
            z = b.add(z, b.add(even, odd))
        return z

    def _add_pairs(self, x: Any, y: Any, z: Any) -> Any:
        """z plus two products of bf16; each sum is rounded."""
        b, bits = self.builder, 32 * self.lanes
        if has("avx512bf16") and (bits == 512 or has("avx512vl")):
            return call_function(b, f"llvm.x86.avx512bf16.dpbf16ps.{bits}", self.total, [z, x, y])
        sixteen, high = (ir.Constant(self.vector, [n] * self.lanes) for n in (16, 0xFFFF0000))
        floats = _Vectors(b, "f32", self.lanes)
        for part, by in ((b.and_, high), (b.shl, sixteen)):  # the odd one first, as the processor
            z = floats.multiply_add(b.bitcast(part(x, by), self.total), b.bitcast(part(y, by), self.total), z)
        return z

    def sum(self, x: Any) -> Any:
        start = ir.Constant(self.scalar, 0.0)
        name = f"llvm.vector.reduce.fadd.{self.suffix}"
        return call_function(self.builder, name, self.scalar, [start, x], fastmath=("reassoc",))

    def rows(self, base: Any, stride: Any, valid: Any, count: int) -> list[Any]:
        """Pointers to `count` rows; those after the last valid row repeat it, so that nothing outside is read."""
        last, pointers = self.builder.sub(valid, _int(1)), []
        for row in range(count):
            inside = self.builder.icmp_signed("<", _int(row), last)
            pointers.append(self.at(base, self.builder.mul(stride, self.builder.select(inside, _int(row), last))))
        return pointers


def _emit_outer_tile(v: _Vectors, rows: int, vectors: int, a: Any, a_row: Any, a_step: Any, valid: Any, b: Any,
                     b_step: Any, depth: Any, tile: Any, add: Any) -> None:
    sums = [v.zero] * (rows * vectors)
    _store_sums(v, _accumulate(v, v.rows(v.pointer(a), a_row, valid, rows), a_step, v.pointer(b), b_step, depth, sums),
                tile, add)


def _emit_table_tile(v: _Vectors, rows: int, vectors: int, table: Any, offsets: Any, runs: Any, a_step: Any, b: Any,
                     b_step: Any, depth: Any, tile: Any, add: Any) -> None:
    builder, first = v.builder, v.pointer(b)

    def entry(base: Any, index: Any) -> Any:
        return builder.load(builder.gep(v.pointer(base), [index], source_etype=I64), align=8, typ=I64)

    def run(index: Any, sums: list[Any]) -> list[Any]:
        line = builder.mul(index, _int(rows))
        places = [v.pointer(entry(table, builder.add(line, _int(row)))) for row in range(rows)]
        start = builder.gep(first, [entry(offsets, index)], source_etype=I8)
        return _accumulate(v, places, a_step, start, b_step, depth, sums)

    _store_sums(v, _repeat(builder, runs, [v.zero] * (rows * vectors), run), tile, add)


def _emit_line_tile(v: _Vectors, rows: int, vectors: int, table: Any, base: Any, valid: Any, count: Any, pitch: Any,
                    b: Any, b_step: Any, depth: Any, tile: Any) -> None:
    builder, entries = v.builder, _Vectors(v.builder, "f64", 1)  # a place is eight bytes
    places = [builder.load(entry, align=8, typ=I64) for entry in entries.rows(v.pointer(table), _int(1), valid, rows)]
    pointers = [builder.gep(v.pointer(base), [place], source_etype=I8) for place in places]

    def line(index: Any, values: list[Any]) -> list[Any]:
        here = [builder.gep(pointer, [builder.mul(index, pitch)], source_etype=I8) for pointer in pointers]
        return [v.at(values[0], builder.mul(depth, b_step)), *_accumulate(v, here, _int(1), values[0], b_step, depth,
                                                                          values[1:])]

    _, *sums = _repeat(builder, count, [v.pointer(b), *[v.zero] * (rows * vectors)], line)
    _store_sums(v, sums, tile, _int(0))


def _accumulate(v: _Vectors, a_rows: list[Any], a_step: Any, b: Any, b_step: Any, depth: Any,
                sums: list[Any]) -> list[Any]:
    """`sums`, a row of vectors after the other, plus the outer products of `depth` steps."""
    builder, vectors = v.builder, len(sums) // len(a_rows)

    def step(_: Any, values: list[Any]) -> list[Any]:
        b_now, a_offset, *sums = values
        b_vectors = [v.load(v.at(b_now, v.lanes * column)) for column in range(vectors)]
        new = []
        for number, row in enumerate(a_rows):
            x = v.broadcast(v.at(row, a_offset))
            new += [v.multiply_add(x, y, sums[number * vectors + column]) for column, y in enumerate(b_vectors)]
        return [v.at(b_now, b_step), builder.add(a_offset, a_step), *new]

    return _repeat(builder, depth, [b, _int(0), *sums], step)[2:]


def _store_sums(v: _Vectors, sums: list[Any], tile: Any, add: Any) -> None:
    """Write the sums to the tile, where they lie one after the other, or add them to it."""
    store_or_add(v, sums, [v.at(v.pointer(tile), v.lanes * place) for place in range(len(sums))], add)


def store_or_add(v: _Vectors, sums: list[Any], places: list[Any], add: Any) -> None:
    """Write the sums to these places, or add them to what is there."""
    with v.builder.if_else(v.builder.icmp_signed("!=", add, _int(0))) as (more, first):
        with more:
            for total, place in zip(sums, places, strict=True):
                v.add_to(total, place)
        with first:
            for total, place in zip(sums, places, strict=True):
                v.store(total, place)


def _emit_row_dots(v: _Vectors, rows: int, x: Any, b: Any, b_row: Any, valid: Any, depth: Any, out: Any) -> None:
    builder = v.builder
    b_rows = v.rows(v.pointer(b), b_row, valid, rows)

    def step(index: Any, sums: list[Any]) -> list[Any]:
        offset = builder.mul(index, _int(v.lanes))
        now = v.load(v.at(v.pointer(x), offset))
        return [v.multiply_add(now, v.load(v.at(row, offset)), total) for row, total in zip(b_rows, sums, strict=True)]

    for row, total in enumerate(_repeat(builder, builder.sdiv(depth, _int(v.lanes)), [v.zero] * rows, step)):
        v.store(v.sum(total), v.at(v.pointer(out), row))


def _emit_transpose(v: _Vectors, x: Any, x_row: Any, valid: Any, out: Any, out_row: Any) -> None:
    rows = [v.load(row) for row in v.rows(v.pointer(x), x_row, valid, v.lanes)]
    half = v.lanes // 2
    # Interleaving row r with row r + half, log2(lanes) times, is the transpose.
    low = [lane // 2 + lane % 2 * v.lanes for lane in range(v.lanes)]
    high = [lane + half for lane in low]
    for _ in range(v.lanes.bit_length() - 1):
        rows = [v.shuffle(rows[row // 2], rows[row // 2 + half], high if row % 2 else low) for row in range(v.lanes)]
    for row, value in enumerate(rows):
        v.store(value, v.at(v.pointer(out), v.builder.mul(out_row, _int(row))))


def _repeat(builder: Any, count: Any, start: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """The values after `for index in range(count): values = step(index, values)`, from `start`."""
    before, loop, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", count, _int(0)), loop, after)
    builder.position_at_end(loop)
    index, values = builder.phi(I64), [builder.phi(value.type) for value in start]
    new = step(index, values)
    last = builder.block  # not `loop`, where a step has a loop in it
    following = builder.add(index, _int(1))
    for phi, first, again in zip([index, *values], [_int(0), *start], [following, *new], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(again, last)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    results = [builder.phi(value.type) for value in start]
    for phi, first, final in zip(results, start, new, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(final, last)
    return results


def _moves(arity: int, emit: Callable[..., None], element: str, lanes: int) -> Any:
    """The answer of a helper of `arity` integers without a result, whose code `emit(vectors, *values)` writes."""
    def generate(builder: Any, values: Any, signature: Any) -> None:
        emit(_Vectors(builder, element, lanes), *values)
    return types.void(*[types.int64] * arity), generate


def _total(element: str) -> str:
    return TOTALS[element][0] if element in TOTALS else element


def _products(element: str, x: Any, y: Any) -> Any:
    """x @ y in NumPy, of elements that may be several numbers."""
    if element not in TOTALS:
        return x @ y
    rows, columns = len(x), y.shape[1]
    if element == "quad":
        left, right = (np.ascontiguousarray(v).view(kind).astype(np.int64) for v, kind in ((x, "u1"), (y, "i1")))
    else:
        left, right = ((np.ascontiguousarray(v).view("u2").astype("u4") << 16).view("f4") for v in (x, y))
    depth = left.size // max(rows, 1)
    natural = right.reshape(len(y), columns, -1).swapaxes(1, 2).reshape(depth, columns)
    return (left.reshape(rows, depth) @ natural).astype(NUMPY[_total(element)])


def _int(value: int) -> Any:
    return ir.Constant(I64, value)


def _repeat_last(count: int, valid: int) -> Any:
    return np.minimum(np.arange(count), valid - 1)


def _view(element: str, address: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """The elements at `address` as a NumPy array; strides in elements."""
    dtype = NUMPY[WORD.get(element, element)]
    extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if min(shape) else 0
    memory: Any = (ctypes.c_char * (extent * dtype.itemsize)).from_address(address)
    return np.ndarray(shape, dtype, memory, strides=[stride * dtype.itemsize for stride in strides])
