"""Reductions: fold some axes into one number each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import as_dtype
from ..errors import ShapeError
from ..op import Kind, Op
from ..types import TensorType, normalize_axis, reduced_shape
from .define import Prepared, attributes, lift, reduction, widened
from .leading import shifted
from .pointwise import cast, eq
from .view import broadcast_to, concat, pad, reshape, slice, transpose

__all__ = ["argmax", "argmin", "cumsum", "max", "min", "prod", "sum"]


def spread(g: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """A reduced cotangent, with its axes of extent 1 put back."""
    return reshape(g, reduced_shape(x.shape, axis, True))


def _extreme_vjp(g: Any, out: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    hits = cast(eq(x, spread(out, x, axis)), x.dtype)
    return (spread(g, x, axis) * hits / sum(hits, axis, keepdims=True),)  # elements that tie share


def _prod_vjp(g: Any, out: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    order = (*(a for a in range(x.ndim) if a not in axis), *axis)
    last = transpose(x, order)
    others = _product_of_others(reshape(last, (*last.shape[:x.ndim - len(axis)], math.prod(x.shape[a] for a in axis))))
    return (spread(g, x, axis) * transpose(reshape(others, last.shape), [order.index(a) for a in range(x.ndim)]),)


def _product_of_others(x: Any) -> Any:
    """For each element of the last axis the product of all others, by pairs:
    no division, so that zeros are right at every order."""
    *lead, n = x.shape
    if n < 2 or 0 in lead:
        return broadcast_to(lift(1, x.dtype), x.shape)
    if n % 2:
        x = pad(x, [0] * x.ndim, [0] * (x.ndim - 1) + [1], value=1.0)
    pairs = reshape(x, (*lead, (n + 1) // 2, 2))
    size = (*pairs.shape[:-1], 1)
    left, right = slice(pairs, [0] * pairs.ndim, size), slice(pairs, [0] * (pairs.ndim - 1) + [1], size)
    rest = reshape(_product_of_others(reshape(left * right, size[:-1])), size)
    return slice(reshape(concat(rest * right, rest * left, axis=-1), x.shape), [0] * x.ndim, (*lead, n))


sum = reduction("sum", np.sum, "Σ over `axis` (all by default); small integers and booleans are summed as i64",
                scalar="{0} + {1}", identity=0, widen=True,
                vjp=lambda g, out, x, *, axis, keepdims: (broadcast_to(spread(g, x, axis), x.shape),))
prod = reduction("prod", np.prod, "Π over `axis` (all by default)", scalar="{0} * {1}", identity=1, widen=True,
                 vjp=_prod_vjp)
max = reduction("max", np.max, "the greatest over `axis`; nan if one is nan", scalar="maximum({0}, {1})", identity=None,
                vjp=_extreme_vjp)
min = reduction("min", np.min, "the least over `axis`; nan if one is nan", scalar="minimum({0}, {1})", identity=None,
                vjp=_extreme_vjp)


def _position(name: str, numpy: Any) -> Op:
    def prepare(x: Any, axis: int = -1, keepdims: bool = False) -> Prepared:
        x = lift(x)
        return (x,), {"axis": normalize_axis(axis, x.ndim), "keepdims": bool(keepdims)}

    def infer(x: TensorType, *, axis: int, keepdims: bool) -> TensorType:
        if x.shape[axis] == 0:
            raise ShapeError(f"{name} of {x} along axis {axis}: there is no element")
        return TensorType(as_dtype(np.int64), reduced_shape(x.shape, (axis,), keepdims))

    prepare.__name__ = name
    return Op(name=name, kind=Kind.INDEX,
              doc=f"the position of the {'greatest' if name == 'argmax' else 'least'} along "
              "`axis`; the first among equals",
              infer=infer, eval=lambda x, *, axis, keepdims: np.asarray(numpy(x, axis=axis, keepdims=keepdims)),
              prepare=attributes(prepare), vmap=shifted,
              vjp=lambda g, out, x, *, axis, keepdims: (None,), flops=lambda out, x, **_: x.size - out.size)


argmax = _position("argmax", np.argmax)
argmin = _position("argmin", np.argmin)


def _flip(x: Any, axis: int) -> Any:
    n = x.shape[axis]
    start = [n - 1 if a == axis and n else 0 for a in range(x.ndim)]
    return slice(x, start=start, size=x.shape, step=[-1 if a == axis else 1 for a in range(x.ndim)])


def _cumsum(x: Any, axis: int = -1) -> Prepared:
    x = lift(x)
    x = cast(x, as_dtype(np.int64)) if x.dtype.kind in "iub" else x
    return (x,), {"axis": normalize_axis(axis, x.ndim)}


cumsum: Op = Op(
    name="cumsum", kind=Kind.INDEX, doc="running sums along `axis`", infer=lambda x, *, axis: x,
    prepare=attributes(_cumsum), vmap=shifted,
    eval=lambda x, *, axis: np.cumsum(widened(x), axis=axis).astype(x.dtype, copy=False),
    flops=lambda out, x, *, axis: x.size - x.size // (x.shape[axis] or 1),
    vjp=lambda g, out, x, *, axis: (_flip(cumsum(_flip(g, axis), axis), axis),))
