"""Numbers on a grid: q stands for (q - zero) · scale. `quantize` rounds to the grid, `dequantize` goes back.

    q = ops.quantize(x, scale=0.1, zero=128)               # u8: clip(round(x / scale) + zero, 0, 255)
    y = ops.dequantize(q, scale=0.1, zero=128)             # within scale / 2 of x, where x was inside
    y = ops.fake_quantize(x, 0.1, 128, 0, 255)             # both at once, with a gradient

One scale and one zero for all elements, or, with `axis`, one for each place along an axis. They are composites of
pointwise ops, which `Fuse` puts wherever the numbers are made or read. x is multiplied by 1 / scale, which is known
beforehand, rather than divided.

    >>> import tinytorch as tt
    >>> from tinytorch.ir import ops
    >>> q = ops.quantize(tt.tensor([-1.0, 0.24, 100.0]), 0.1, 128)
    >>> q, ops.dequantize(q, 0.1, 128)
    (tensor([118, 130, 255], dtype=u8), tensor([-1. ,  0.2, 12.7]))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype, f32, f64
from ..errors import DTypeError, OpError, ShapeError
from ..op import Op
from ..types import normalize_axis
from .composite import clip
from .define import Prepared, attributes, cast_to, composite, lift
from .pointwise import cast, ge, le, round, sub, where
from .view import reshape

__all__ = ["dequantize", "fake_quantize", "quantize"]


def bounds(dtype: DType) -> tuple[int, int]:
    """The least and the greatest integer of a type."""
    limits = np.iinfo(dtype.np)
    return int(limits.min), int(limits.max)


def _grid(name: str, x: Any, scale: Any, zero: Any, dtype: DType, axis: int | None) -> tuple[Any, Any, int | None]:
    """Scale and zero as `dtype`, checked against x: single numbers, or one for each place along `axis`."""
    scale, zero = (cast_to(lift(t, dtype), dtype) for t in (scale, zero))
    axis = None if axis is None else normalize_axis(axis, x.ndim)
    wanted: tuple[tuple[int, ...], ...] = ((),) if axis is None else ((), (x.shape[axis],))
    if scale.shape not in wanted or zero.shape not in wanted:
        raise ShapeError(f"{name}({x.type}, scale {scale.type}, zero {zero.type}, axis={axis}): expected "
                         f"{'single numbers' if axis is None else f'numbers or ({x.shape[axis]},)'}; "
                         "name the axis along which they vary")
    return scale, zero, axis


def _floating(name: str, x: Any) -> Any:
    x = lift(x)
    if not x.dtype.is_float:
        raise DTypeError(f"{name} of {x.type}: expected floating point numbers")
    return cast_to(x, f64 if x.dtype is f64 else f32)


def _along(x: Any, axis: int | None, *grid: Any) -> tuple[Any, ...]:
    """Vectors as they broadcast against x."""
    if axis is None:
        return grid
    shape = tuple(-1 if a == axis else 1 for a in range(x.ndim))
    return tuple(reshape(t, shape) if t.ndim else t for t in grid)


def _rounded(x: Any, scale: Any, zero: Any, axis: int | None) -> Any:
    """The place of x on the grid, before it is cut."""
    scale, zero = _along(x, axis, scale, zero)
    return round(x * (1.0 / scale)) + zero


# -- to integers and back ----------------------------------------------------------------------------------------------


def _quantize_prepare(x: Any, scale: Any, zero: Any = 0, dtype: Any = "u8", axis: int | None = None) -> Prepared:
    x, dtype = _floating("quantize", x), as_dtype(dtype)
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        raise DTypeError(f"quantize to {dtype}: expected u8, i8 or i16")
    scale, zero, axis = _grid("quantize", x, scale, zero, x.dtype, axis)
    return (x, scale, zero), {"dtype": dtype, "axis": axis}


def _quantize(x: Any, scale: Any, zero: Any, *, dtype: DType, axis: int | None) -> Any:
    return cast(clip(_rounded(x, scale, zero, axis), *map(float, bounds(dtype))), dtype)


quantize: Op = composite(
    "quantize", _quantize, attributes(_quantize_prepare),
    "clip(round(x / scale) + zero) as u8, i8 or i16; scale and zero are numbers, or vary along `axis` "
    "(Jacob et al., 2018)", vjp=lambda g, out, *operands, **attrs: (None,) * len(operands))


def _dequantize_prepare(q: Any, scale: Any, zero: Any = 0, axis: int | None = None) -> Prepared:
    q, scale = lift(q), lift(scale, f32)
    if q.dtype.kind not in "iu" or not scale.dtype.is_float:
        raise DTypeError(f"dequantize({q.type}, scale {scale.type}): expected integers, and a floating point scale")
    scale, zero, axis = _grid("dequantize", q, scale, zero, scale.dtype, axis)
    return (q, scale, zero), {"axis": axis}


def _dequantize(q: Any, scale: Any, zero: Any, *, axis: int | None) -> Any:
    scale, zero = _along(q, axis, scale, zero)
    return sub(cast(q, scale.dtype), zero) * scale


dequantize: Op = composite("dequantize", _dequantize, attributes(_dequantize_prepare),
                           "(q - zero) · scale; scale and zero are numbers, or vary along `axis`")

# -- both at once, for training ----------------------------------------------------------------------------------------


def _fake_prepare(x: Any, scale: Any, zero: Any, low: int, high: int, axis: int | None = None) -> Prepared:
    x = _floating("fake_quantize", x)
    if not low < high:
        raise OpError(f"fake_quantize(low={low}, high={high}): expected the least and the greatest integer of a grid")
    scale, zero, axis = _grid("fake_quantize", x, scale, zero, x.dtype, axis)
    return (x, scale, zero), {"low": int(low), "high": int(high), "axis": axis}


def _fake(x: Any, scale: Any, zero: Any, *, low: int, high: int, axis: int | None) -> Any:
    q = clip(_rounded(x, scale, zero, axis), float(low), float(high))
    scale, zero = _along(x, axis, scale, zero)
    return (q - zero) * scale


def _fake_vjp(g: Any, out: Any, x: Any, scale: Any, zero: Any, *, low: int, high: int,
              axis: int | None) -> tuple[Any, None, None]:
    place = _rounded(x, scale, zero, axis)
    return where(ge(place, float(low)) & le(place, float(high)), g, 0.0), None, None


fake_quantize: Op = composite(
    "fake_quantize", _fake, attributes(_fake_prepare),
    "x rounded to the integers low … high of a grid, as floats; x has the gradient of what is inside the grid, as if "
    "there were no rounding (the straight-through estimator: Bengio et al., 2013)", vjp=_fake_vjp)
