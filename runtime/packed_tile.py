"""Register tiles of a product with a weight of 8 or 4 bits: `packed_tile(rows, vectors, lanes, bits, offset)`.

    multiply = packed_tile(1, 2, 16, 4, False)
    multiply(x, x_row, 1, q, words, chunk, scale, 0, 64, tile, 0)

A vector of words (`ir/ops/packed.py` says how they lie) holds, in each 32-bit lane, the next 8 or 4 elements of one
output. They are taken out one by one, turned to floats, and multiplied with an element of x that is broadcast. Four
bits need two instructions: a shift, and a look into a table of 16 floats that takes the index from the lowest bits of a
lane. One row adds up products of whole numbers, and multiplies a chunk's sum by its scale; for several rows the
elements are scaled as they are taken out, once for all rows.

With `NUMBA_DISABLE_JIT=1` it is a plain NumPy function on the same addresses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from .build import has
from .convert import I8, I16, I32, call_function
from .lowlevel import helper
from .microkernel import Piece, _int, _repeat, _repeat_last, _Vectors, _view, store_or_add

BLOCK = 32        # outputs side by side
STEP = 4 * BLOCK  # bytes from a word of an output to its next
AHEAD = 12 << 10  # bytes; with less, one stream does not fill the bandwidth of the memory of today's servers


def packed_tile(rows: int, vectors: int, lanes: int, bits: int, offset: bool) -> Piece:
    """tile[r, c] = sum over k of x[r, k] * W[c, k], of rows x (vectors * lanes), for a run of words; with `add`, added.

    Word w of column c lies at `q + w * 128 + 4 * c`; the scale (and the offset) of its chunk of `chunk` words at
    `scale + w // chunk * scale_step + 2 * c`. Rows of the tile are 32 floats apart. Only the first `valid` rows of x
    are read: the sums of the rows after them repeat the last one.
    """
    def plain(x: int, x_row: int, valid: int, q: int, words: int, chunk: int, scale: int, shift: int, scale_step: int,
              tile: int, add: int) -> None:
        columns, width = vectors * lanes, 32 // bits
        lying = _view("i32", q, (words, columns), (BLOCK, 1))
        left = np.arange(32 - bits, -1, -bits, dtype=np.int32)
        elements = (lying[:, None] << left[:, None]) >> (32 - bits)  # (words, width, columns)

        def spread(address: int) -> Any:
            stored = _view("bf16", address, (-(-words // chunk), columns), (scale_step // 2, 1))
            return np.repeat((stored.astype(np.uint32) << 16).view(np.float32), chunk, 0)[:words, None]
        weight = elements * spread(scale) + (spread(shift) if offset else np.float32(0))
        operand = _view("f32", x, (valid, words * width), (x_row, 1))[_repeat_last(rows, valid)]
        out = _view("f32", tile, (rows, columns), (BLOCK, 1))
        out[...] = operand @ weight.reshape(words * width, columns) + (out if add else 0)

    @helper(plain)
    def multiply(x: Any, x_row: Any, valid: Any, q: Any, words: Any, chunk: Any, scale: Any, shift: Any,
                 scale_step: Any, tile: Any, add: Any) -> Any:
        def generate(builder: Any, values: Any, signature: Any) -> None:
            _emit(_Words(builder, lanes, bits), rows, vectors, offset, *values)
        return types.void(*[types.int64] * 11), generate
    return multiply


class _Words(_Vectors):
    """Vectors of floats, and of words with small whole numbers in them."""

    def __init__(self, builder: Any, lanes: int, bits: int) -> None:
        super().__init__(builder, "f32", lanes)
        self.bits, self.words = bits, ir.VectorType(I32, lanes)
        self.by_table = bits == 4 and lanes == 16 and has("avx512f")

    def all(self, number: int) -> Any:
        return ir.Constant(self.words, [number] * self.lanes)

    def load_words(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=4, typ=self.words)

    def take_out(self, words: Any, number: int) -> Any:
        """Element `number` of each word, as a float."""
        if self.by_table:
            index = self.builder.lshr(words, self.all(self.bits * number)) if number else words
            table = ir.Constant(self.vector, [float((n + 8) % 16 - 8) for n in range(16)])
            return call_function(self.builder, "llvm.x86.avx512.permvar.sf.512", self.vector, [table, index])
        left = 32 - self.bits * (number + 1)
        high = self.builder.shl(words, self.all(left)) if left else words
        return self.builder.sitofp(self.builder.ashr(high, self.all(32 - self.bits)), self.vector)

    def fetch(self, pointer: Any, count: int) -> None:
        """Have the lines of `count` bytes brought near that lie `AHEAD` from here (or nothing, past the end)."""
        for line in range(0, count, 64):
            there = self.builder.gep(pointer, [_int(AHEAD + line)], source_etype=I8)
            read, near, data = I32(0), I32(3), I32(1)
            call_function(self.builder, "llvm.prefetch.p0", ir.VoidType(), [there, read, near, data])

    def load_scale(self, pointer: Any) -> Any:
        """A vector of bf16, as floats."""
        stored = self.builder.load(pointer, align=2, typ=ir.VectorType(I16, self.lanes))
        return self.builder.bitcast(self.builder.shl(self.builder.zext(stored, self.words), self.all(16)), self.vector)


def _emit(v: _Words, rows: int, vectors: int, offset: bool, x: Any, x_row: Any, valid: Any, q: Any, words: Any,
          chunk: Any, scale: Any, shift: Any, scale_step: Any, tile: Any, add: Any) -> None:
    b, width = v.builder, 32 // v.bits
    x_rows = v.rows(v.pointer(x), x_row, valid, rows)
    columns = range(vectors)
    sets = 4 if rows == 1 else 1  # sums that do not wait for one another, where there are few

    def numbers(base: Any, index: Any) -> list[Any]:
        at = v.pointer(b.add(base, b.mul(index, scale_step)))
        return [v.load_scale(b.gep(at, [_int(v.lanes * c)], source_etype=I16)) for c in columns]

    def run(index: Any, totals: list[Any]) -> list[Any]:
        first = b.mul(index, chunk)
        left = b.sub(words, first)
        count = b.select(b.icmp_signed("<", left, chunk), left, chunk)
        start = b.add(q, b.mul(first, _int(STEP)))
        scales, shifts = numbers(scale, index), numbers(shift, index) if offset else []

        def step(number: Any, sums: list[Any]) -> list[Any]:
            here = v.pointer(b.add(start, b.mul(number, _int(STEP))))
            now = [v.load_words(v.at(here, v.lanes * c)) for c in columns]
            if rows == 1:  # nothing is read twice, and everything comes from far away
                v.fetch(here, 4 * v.lanes * vectors)
            place = b.mul(b.add(first, number), _int(width))
            sums = list(sums)
            for n in range(width):
                taken = [v.take_out(word, n) for word in now]
                if rows > 1:
                    taken = [v.multiply_add(w, s, m) for w, s, m in zip(taken, scales, shifts, strict=True)] if offset \
                        else [b.fmul(w, s) for w, s in zip(taken, scales, strict=True)]
                for r, row in enumerate(x_rows):
                    given = v.broadcast(v.at(row, b.add(place, _int(n))))
                    for c in columns:
                        at = ((n % sets) * rows + r) * vectors + c
                        sums[at] = v.multiply_add(taken[c], given, sums[at])
                    if rows == 1 and offset:
                        sums[-1 - n % 2] = b.fadd(sums[-1 - n % 2], given)
            return sums

        if rows > 1:
            return _repeat(b, count, totals, step)
        sums = _repeat(b, count, [v.zero] * (sets * vectors + 2 * offset), step)
        found = []
        for c in columns:
            parts = sums[c:sets * vectors:vectors]
            part = b.fadd(b.fadd(parts[0], parts[1]), b.fadd(parts[2], parts[3]))
            total = v.multiply_add(part, scales[c], totals[c])
            found.append(v.multiply_add(b.fadd(sums[-1], sums[-2]), shifts[c], total) if offset else total)
        return found

    chunks = b.sdiv(b.add(words, b.sub(chunk, _int(1))), chunk)
    totals = _repeat(b, chunks, [v.zero] * (rows * vectors), run)
    places = [v.at(v.pointer(tile), r * BLOCK + c * v.lanes) for r in range(rows) for c in columns]
    store_or_add(v, totals, places, add)
