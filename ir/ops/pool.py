"""Pooling. Users call `max_pool2d` and `avg_pool2d`; they open to transposes around ops that work channels last:

    pool_max, pool_max_grad    the greatest of each window of (N, H, W, C); g, put where the greatest stood
    pool_sum, pool_sum_grad    the sum of each window; g, repeated over each window

Along each axis, window p holds the elements p · stride + k · dilation - low, k < size; those outside count as nothing:
as -inf among the greatest, as 0 in sums. The first of equals in a window, row by row, gets its gradient; nan is greater
than any number.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from ml_dtypes import finfo

from ..errors import ShapeError
from ..interp import Evaluate, Operand
from ..op import Op
from ..types import Shape, TensorType
from .convolve import CHANNELS_FIRST, CHANNELS_LAST
from .define import Prepared, attributes, composite, lift, pair
from .index import put_along
from .leading import merged
from .pointwise import div, maximum
from .reduce import argmax, max, sum
from .view import broadcast_to, fold, pad, reshape, slice, transpose, windows

__all__ = ["avg_pool2d", "max_pool2d", "pool_max", "pool_max_grad", "pool_sum", "pool_sum_grad"]


def _images(x: Any, axes: str) -> Any:
    x = lift(x)
    if x.ndim != 4:
        raise ShapeError(f"pooling of {x.type}: expected ({axes})")
    return x


# -- channels last -----------------------------------------------------------------------------------------------------


def _prepare(x: Any, size: Any, stride: Any = None, low: Any = 0, high: Any = 0, dilation: Any = 1) -> Prepared:
    x = _images(x, "batch, height, width, channels")
    return (x,), {"size": pair(size), "stride": pair(size if stride is None else stride), "low": pair(low),
                  "high": pair(high), "dilation": pair(dilation)}


def _is_native(*types: TensorType, **_: Any) -> bool:
    return types[0].dtype.name in ("f32", "f64") and all(0 not in t.shape for t in types)


def _is_native_max(*types: TensorType, **_: Any) -> bool:
    return types[0].dtype.name in ("f32", "f64", "u8", "i8") and all(0 not in t.shape for t in types)


def _windows(x: Any, fill: float, *, size: Shape, stride: Shape, low: Shape, high: Shape, dilation: Shape) -> Any:
    """(N, OH, OW, C, kh, kw)"""
    if any(low) or any(high):
        x = pad(x, (0, *low, 0), (0, *high, 0), value=fill)
    return windows(x, axes=(1, 2), size=size, step=stride, dilation=dilation)


def _add_up(view: Any, height: int, width: int, *, size: Shape, stride: Shape, low: Shape, high: Shape,
            dilation: Shape) -> Any:
    """The transpose of `_windows`: (N, OH, OW, C, kh, kw) to (N, height, width, C)."""
    shape = (view.shape[0], height + low[0] + high[0], width + low[1] + high[1], view.shape[3])
    whole = fold(view, shape, (1, 2), size, stride, dilation)
    return slice(whole, (0, *low, 0), (shape[0], height, width, shape[3])) if any(low) or any(high) else whole


def _least(x: Any) -> float:
    return -math.inf if x.dtype.is_float else float(np.iinfo(x.dtype.np).min)


def _max(x: Any, **attrs: Any) -> Any:
    return max(_windows(x, _least(x), **attrs), (4, 5))


def _view(x: np.ndarray, **attrs: Any) -> np.ndarray:
    with Evaluate():
        return _windows(Operand(x), _least(Operand(x)), **attrs).payload


def _greatest(view: np.ndarray) -> np.ndarray:
    """Of windows in the last two axes, an element of all at a time: NumPy is slow at short axes."""
    return functools.reduce(np.maximum, (view[(..., *place)] for place in np.ndindex(view.shape[4:])))


pool_max: Op = composite(
    "pool_max", _max, attributes(_prepare), "the greatest of each window of (batch, height, width, channels)",
    vjp=lambda g, out, x, **attrs: (pool_max_grad(g, x, out, **attrs),), vmap=merged, native=_is_native_max,
    eval=lambda x, **attrs: _greatest(_view(x, **attrs)))


def _max_grad_prepare(g: Any, x: Any, out: Any, size: Any, stride: Any = None, low: Any = 0, high: Any = 0,
                      dilation: Any = 1) -> Prepared:
    (x,), attrs = _prepare(x, size, stride, low, high, dilation)
    g, out, pooled = lift(g), lift(out), pool_max.infer(x.type, **attrs)
    if not g.type == out.type == pooled:
        raise ShapeError(f"pool_max_grad({g.type}, {x.type}, {out.type}): pool_max makes {pooled} of x; "
                         "its gradient and its result must be of that type")
    return (g, x, out), attrs


def _max_grad(g: Any, x: Any, out: Any, **attrs: Any) -> Any:
    view = _windows(_above_nothing(x), _least(x), **attrs)
    flat = reshape(view, (*view.shape[:4], math.prod(attrs["size"])))
    zeros = broadcast_to(lift(0, g.dtype), flat.shape)
    placed = put_along(zeros, argmax(flat, -1, True), reshape(g, (*g.shape, 1)), -1)
    return _add_up(reshape(placed, view.shape), *x.shape[1:3], **attrs)


def _above_nothing(x: Any) -> Any:
    """x where any element is greater than what stands for no element."""
    return maximum(x, float(finfo(x.dtype.np).min)) if x.dtype.is_float else x  # type: ignore[no-untyped-call]


def _max_grad_eval(g: np.ndarray, x: np.ndarray, out: np.ndarray, **attrs: Any) -> np.ndarray:
    with Evaluate():
        x, best = (_above_nothing(Operand(t)).payload for t in (x, out))
    view = _view(x, **attrs)
    placed = np.moveaxis(np.empty((*attrs["size"], *g.shape), g.dtype), (0, 1), (-2, -1))
    given = np.zeros(g.shape, bool)
    for place in np.ndindex(attrs["size"]):
        v = view[(..., *place)]
        hit = ((v == best) | (v != v)) & ~given
        placed[(..., *place)] = np.where(hit, g, np.zeros((), g.dtype))
        given |= hit
    with Evaluate():
        return _add_up(Operand(placed), *x.shape[1:3], **attrs).payload


pool_max_grad: Op = composite(
    "pool_max_grad", _max_grad, attributes(_max_grad_prepare),
    "g of each window at the first of its greatest elements, added up: the gradient of pool_max", native=_is_native,
    eval=_max_grad_eval, vmap=merged)


def _sum(x: Any, **attrs: Any) -> Any:
    return sum(_windows(x, 0.0, **attrs), (4, 5))


pool_sum: Op = composite(
    "pool_sum", _sum, attributes(_prepare), "the sum of each window of (batch, height, width, channels)",
    vjp=lambda g, out, x, **attrs: (pool_sum_grad(g, x.shape[1:3], **attrs),), vmap=merged, native=_is_native)


def _sum_grad_prepare(g: Any, extent: Any, size: Any, stride: Any = None, low: Any = 0, high: Any = 0,
                      dilation: Any = 1) -> Prepared:
    (g,), attrs = _prepare(g, size, stride, low, high, dilation)
    return (g,), {"extent": pair(extent)} | attrs


def _sum_grad(g: Any, *, extent: Shape, **attrs: Any) -> Any:
    view = broadcast_to(reshape(g, (*g.shape, 1, 1)), (*g.shape, *attrs["size"]))
    return _add_up(view, *extent, **attrs)


pool_sum_grad: Op = composite(
    "pool_sum_grad", _sum_grad, attributes(_sum_grad_prepare),
    "g repeated over each window of images of `extent`, added up: the gradient of pool_sum",
    vjp=lambda g, out, x, *, extent, **attrs: (pool_sum(g, **attrs),), vmap=merged, native=_is_native)


# -- channels first ----------------------------------------------------------------------------------------------------


def _pool2d_prepare(x: Any, size: Any, stride: Any = None, padding: Any = 0, high: Any = None,
                    dilation: Any = 1) -> Prepared:
    x = _images(x, "batch, channels, height, width")
    return (x,), {"size": pair(size), "stride": pair(size if stride is None else stride), "padding": pair(padding),
                  "high": pair(padding if high is None else high), "dilation": pair(dilation)}


def _max_pool2d(x: Any, *, padding: Shape, **attrs: Any) -> Any:
    return transpose(pool_max(transpose(x, CHANNELS_LAST), low=padding, **attrs), CHANNELS_FIRST)


def _avg_pool2d(x: Any, *, padding: Shape, **attrs: Any) -> Any:
    total = pool_sum(transpose(x, CHANNELS_LAST), low=padding, **attrs)
    return transpose(total * (1.0 / math.prod(attrs["size"])), CHANNELS_FIRST)


def _avg_pool2d_prepare(x: Any, size: Any, stride: Any = None, padding: Any = 0, high: Any = None,
                        dilation: Any = 1) -> Prepared:
    (x,), attrs = _pool2d_prepare(x, size, stride, padding, high, dilation)
    return (div.prepare(x, 1.0)[0][0],), attrs  # integers as floats


max_pool2d = composite("max_pool2d", _max_pool2d, attributes(_pool2d_prepare),
                       "the greatest of each window of (batch, channels, height, width); "
                       "`padding` before each axis, `high` after it (as much by default)")
avg_pool2d = composite("avg_pool2d", _avg_pool2d, attributes(_avg_pool2d_prepare),
                       "the mean of each window, padding included")
