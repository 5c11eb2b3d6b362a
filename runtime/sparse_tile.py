"""Register tiles of a product with a weight that has blocks of zeros: `runs_tile(rows, vectors, lanes, run)`.

    multiply = runs_tile(8, 2, 16, 4)
    multiply(x, x_row, 8, places, runs, blocks, tile, 0)

The list `places` says where along the depth the runs begin that are there; their weights follow one another in memory,
so nothing is read or multiplied that is zero. A run has a fixed length, and stands step by step in the code.

With `NUMBA_DISABLE_JIT=1` it is a plain NumPy function on the same addresses.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numba import types

from .convert import I64
from .lowlevel import helper
from .microkernel import Piece, _int, _repeat, _repeat_last, _Vectors, _view, store_or_add

PANEL = 32  # outputs side by side


def runs_tile(rows: int, vectors: int, lanes: int, run: int) -> Piece:
    """tile[r, c] = sum over runs u and k < run of x[r, places[u] + k] * B[u, k, c]; with `add`, added to the tile.

    B[u, k, c] lies at `blocks + ((u * run + k) * 32 + c) * 4`; rows of the tile are 32 floats apart. Only the first
    `valid` rows of x are read: the sums of the rows after them repeat the last one.
    """
    def plain(x: int, x_row: int, valid: int, places: int, runs: int, blocks: int, tile: int, add: int) -> None:
        columns = vectors * lanes
        out = _view("f32", tile, (rows, columns), (PANEL, 1))
        total = out.copy() if add else np.zeros_like(out)
        for number, place in enumerate((ctypes.c_int64 * runs).from_address(places)):
            operand = _view("f32", x + place * 4, (valid, run), (x_row, 1))[_repeat_last(rows, valid)]
            total += operand @ _view("f32", blocks + number * run * PANEL * 4, (run, columns), (PANEL, 1))
        out[...] = total

    @helper(plain)
    def multiply(x: Any, x_row: Any, valid: Any, places: Any, runs: Any, blocks: Any, tile: Any, add: Any) -> Any:
        def generate(builder: Any, values: Any, signature: Any) -> None:
            _emit(_Vectors(builder, "f32", lanes), rows, vectors, run, *values)
        return types.void(*[types.int64] * 8), generate
    return multiply


def _emit(v: _Vectors, rows: int, vectors: int, run: int, x: Any, x_row: Any, valid: Any, places: Any, runs: Any,
          blocks: Any, tile: Any, add: Any) -> None:
    b = v.builder
    x_rows = v.rows(v.pointer(x), x_row, valid, rows)
    sets = min(run, 4) if rows == 1 else 1  # sums that do not wait for one another, where there are few

    def step(index: Any, sums: list[Any]) -> list[Any]:
        place = b.load(b.gep(v.pointer(places), [index], source_etype=I64), align=8, typ=I64)
        here = v.at(v.pointer(blocks), b.mul(index, _int(run * PANEL)))
        sums = list(sums)
        for k in range(run):
            weights = [v.load(v.at(here, k * PANEL + v.lanes * c)) for c in range(vectors)]
            for r, row in enumerate(x_rows):
                given = v.broadcast(v.at(row, b.add(place, _int(k))))
                for c, weight in enumerate(weights):
                    at = (k % sets * rows + r) * vectors + c
                    sums[at] = v.multiply_add(given, weight, sums[at])
        return sums

    found = _repeat(b, runs, [v.zero] * (sets * rows * vectors), step)
    while len(found) > rows * vectors:
        half = len(found) // 2
        found = [b.fadd(one, other) for one, other in zip(found[:half], found[half:], strict=True)]
    outs = [v.at(v.pointer(tile), r * PANEL + c * v.lanes) for r in range(rows) for c in range(vectors)]
    store_or_add(v, found, outs, add)
