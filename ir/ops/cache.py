"""A cache of keys and values: `write_rows` puts new rows into it, `attend_cached` looks at what is in it.

    k = ops.write_rows(k, new_k, positions)                     # k (batch, capacity, heads, head_dim)
    v = ops.write_rows(v, new_v, positions)
    out = ops.attend_cached(q, k, v, positions, scale=0.125)    # q (batch, new, heads, head_dim)

`positions` (batch,) says where the new rows of each sequence begin, so that sequences of different length share a call.
Both are composites: what they mean is their expansion. Compiled, rows are written in place where the cache is donated,
and attention reads the keys that are there, not the whole cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import as_dtype, bf16, f16, f32, i8, i64
from ..errors import DTypeError, OpError, ShapeError
from ..types import TensorType
from .attention import attend
from .define import Prepared, attributes, cast_to, composite, lift
from .index import put_along
from .pointwise import gt, le, logical_and, where
from .source import constant, iota
from .view import broadcast_to, reshape

__all__ = ["attend_cached", "write_rows"]


def _begins(positions: Any, batch: int, op: str) -> Any:
    """Where the rows of each sequence begin, as i64."""
    positions = lift(positions)
    if positions.dtype.kind not in "iu":
        raise DTypeError(f"{op}: positions are {positions.type}, expected integers")
    if positions.shape != (batch,):
        raise ShapeError(f"{op}: positions are {positions.type}, expected one integer a sequence, ({batch},)")
    return cast_to(positions, as_dtype(np.int64))


def _column(x: Any, ndim: int) -> Any:
    """`x` with axes of extent 1 behind its own, `ndim` in all."""
    return reshape(x, (*x.shape, *(1,) * (ndim - x.ndim)))


# -- writing -----------------------------------------------------------------------------------------------------------


def _write_prepare(cache: Any, rows: Any, positions: Any) -> Prepared:
    cache, rows = lift(cache), lift(rows)
    fits = (cache.ndim == rows.ndim >= 2 and cache.dtype is rows.dtype and rows.shape[0] == cache.shape[0]
            and rows.shape[1] <= cache.shape[1] and rows.shape[2:] == cache.shape[2:])
    if not fits:
        raise ShapeError(f"write_rows({cache.type}, {rows.type}): expected a cache (batch, capacity, …) and no more "
                         "rows than it holds, (batch, rows, …), of its element type")
    return (cache, rows, _begins(positions, cache.shape[0], "write_rows")), {}


def _write_rows(cache: Any, rows: Any, positions: Any) -> Any:
    batch, count = rows.shape[:2]
    index = broadcast_to(_column(positions, 2), (batch, count)) + iota((batch, count), 1)
    there = put_along(broadcast_to(constant(0, i64), cache.shape[:2]), index,
                      broadcast_to(constant(1, i64), (batch, count)), 1)
    nothing = constant(-0.0 if cache.dtype.is_float else 0, cache.dtype)  # x + -0.0 is x, the sign of a zero included
    placed = put_along(broadcast_to(nothing, cache.shape), _column(index, cache.ndim), rows, 1)
    return where(_column(gt(there, 0), cache.ndim), placed, cache)


write_rows = composite(
    "write_rows", _write_rows, attributes(_write_prepare),
    "the cache (batch, capacity, …) with rows (batch, rows, …) in place of what was at positions[b] + i of sequence b",
    native=lambda cache, rows, positions: min(rows.shape) > 0)


# -- attention ---------------------------------------------------------------------------------------------------------


def _attend_prepare(q: Any, k: Any, v: Any, positions: Any, k_scale: Any = None, v_scale: Any = None, *,
                    scale: float | None = None, window: int | None = None) -> Prepared:
    q, k, v = lift(q), lift(k), lift(v)
    scales = tuple(lift(t) for t in (k_scale, v_scale) if t is not None)
    reason = _refusal(q.type, k.type, v.type, *(t.type for t in scales))
    if reason:
        shown = ", ".join(str(t.type) for t in (q, k, v, *scales))
        raise ShapeError(f"attend_cached({shown}): {reason}")
    if window is not None and window < 1:
        raise OpError(f"attend_cached(window={window}): a query sees itself at least; expected 1 or more, or None")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    return (q, k, v, _begins(positions, q.shape[0], "attend_cached"), *scales), {"scale": scale, "window": window}


def _refusal(q: TensorType, k: TensorType, v: TensorType, *scales: TensorType) -> str:
    """Why `attend_cached` cannot take operands of these types; empty if it can."""
    if not len(q.shape) == len(k.shape) == len(v.shape) == 4:
        return "expected (batch, time, heads, head_dim) each"
    if k.shape != (q.shape[0], *k.shape[1:3], q.shape[3]) or v.shape[:3] != k.shape[:3]:
        return "batch and head_dim of queries and keys, and all but the last axis of keys and values, must agree"
    if not k.shape[2] or q.shape[2] % k.shape[2]:
        return f"the {q.shape[2]} heads of queries must be a multiple of the {k.shape[2]} of keys"
    if not q.dtype.is_float or k.dtype is not v.dtype or k.dtype not in (q.dtype, f16, bf16, i8):
        return "expected keys and values of one type, the queries' own or one that stores: f16, bf16, i8"
    if len(scales) != (2 if k.dtype is i8 else 0) or any(t != TensorType(q.dtype, k.shape[:3]) for t in scales):
        return "keys and values of i8, and no others, come with a scale each, (batch, capacity, key heads) of q's type"
    return ""


def _stored(x: Any, dtype: Any, *scale: Any) -> Any:
    """What a cache of another type holds, as numbers of `dtype`."""
    x = cast_to(x, dtype)
    return x * _column(scale[0], 4) if scale else x


def _attend_cached(q: Any, k: Any, v: Any, positions: Any, *scales: Any, scale: float, window: int | None) -> Any:
    (batch, count), capacity = q.shape[:2], k.shape[1]
    keys = [_stored(t, q.dtype, *scales[n:n + 1]) for n, t in enumerate((k, v))]
    whole = (batch, 1, count, capacity)
    own = broadcast_to(_column(positions, 4), whole) + iota(whole, 2)  # where each query stands
    seen = le(iota(whole, 3), own)
    if window is not None:
        seen = logical_and(seen, gt(iota(whole, 3), own - window))
    return attend(q, *keys, seen, scale=scale)[0]


def _native(q: TensorType, k: TensorType, v: TensorType, *_: TensorType, scale: float, window: int | None) -> bool:
    """Whether a kernel is there and worth it; it reads whole vectors of 4 numbers and more."""
    whole = q.shape[3] % 4 == 0 and v.shape[3] % 4 == 0
    return q.dtype is f32 and whole and min(*q.shape, *k.shape, *v.shape) > 0


attend_cached = composite(
    "attend_cached", _attend_cached, attributes(_attend_prepare),
    "attention of q (batch, time, heads, head_dim) to caches (batch, capacity, key heads, head_dim): query i of "
    "sequence b stands at positions[b] + i and sees the keys up to there, the last `window` of them if one is given",
    native=_native)
