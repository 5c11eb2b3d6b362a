"""Ops that move or repeat elements without computing. At run time most of them are strides, not copies."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import as_dtype
from ..errors import DTypeError, ShapeError
from ..op import Kind, Op
from ..types import Shape, TensorType, broadcast_shapes, normalize_axis
from .define import Prepared, attributes, cast_to, lift
from .leading import extended, levelled, shifted

__all__ = ["broadcast_to", "concat", "fold", "pad", "reshape", "slice", "transpose", "windows"]


def _reshape(x: Any, shape: Any) -> Prepared:
    x = lift(x)
    shape = tuple(int(n) for n in ((shape,) if isinstance(shape, (int, np.integer)) else shape))
    size = math.prod(x.shape)
    if shape.count(-1) == 1:
        rest = math.prod(n for n in shape if n != -1)
        shape = tuple((size // rest if rest else 0) if n == -1 else n for n in shape)
    if math.prod(shape) != size or any(n < 0 for n in shape):
        raise ShapeError(f"reshape of {x.type} ({size} elements) to {shape} ({math.prod(shape)}): "
                         "the numbers of elements must agree")
    return (x,), {"shape": shape}


reshape: Op = Op(
    name="reshape", kind=Kind.VIEW, doc="the same elements in C order in another shape; one extent may be -1",
    prepare=attributes(_reshape), eval=lambda x, *, shape: x.reshape(shape), infer=lambda x, *, shape: _sized(x, shape),
    vjp=lambda g, out, x, *, shape: (reshape(g, x.shape),), vmap=extended(shape="size"))


def _sized(x: TensorType, shape: Shape) -> TensorType:
    if math.prod(shape) != x.size:
        raise ShapeError(f"reshape of {x} to {shape}: the numbers of elements must agree")
    return TensorType(x.dtype, shape)


def _transpose(x: Any, axes: Sequence[int] | None = None) -> Prepared:
    x = lift(x)
    order = tuple(reversed(range(x.ndim))) if axes is None else tuple(normalize_axis(a, x.ndim) for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"transpose of {x.type} by axes {axes}: expected each of its {x.ndim} axes once")
    return (x,), {"axes": order}


transpose: Op = Op(
    name="transpose", kind=Kind.VIEW, doc="axes in another order (reversed by default)", prepare=attributes(_transpose),
    eval=lambda x, *, axes: x.transpose(axes),
    infer=lambda x, *, axes: TensorType(x.dtype, tuple(x.shape[a] for a in axes)),
    vjp=lambda g, out, x, *, axes: (transpose(g, tuple(int(a) for a in np.argsort(axes))),),
    vmap=lambda op, size, mapped, x, *, axes: op(x, (0, *(a + 1 for a in axes))))


def _broadcast_infer(x: TensorType, *, shape: Shape) -> TensorType:
    if broadcast_shapes(x.shape, shape) != shape:
        raise ShapeError(f"{x} does not broadcast to {shape}")
    return TensorType(x.dtype, shape)


broadcast_to = Op(
    name="broadcast_to", kind=Kind.VIEW, doc="repeat along new axes and axes of extent 1", infer=_broadcast_infer,
    prepare=attributes(lambda x, shape: ((lift(x),), {"shape": tuple(int(n) for n in shape)})),
    eval=lambda x, *, shape: np.broadcast_to(x, shape), vjp=lambda g, out, x, *, shape: (g,),
    vmap=lambda op, size, mapped, x, *, shape: op(*levelled([x], mapped, len(shape)), (size, *shape)))


def _slice(x: Any, start: Sequence[int], size: Sequence[int], step: Sequence[int] | None = None) -> Prepared:
    x = lift(x)
    ints = [tuple(int(n) for n in part) for part in (start, size, step or (1,) * x.ndim)]
    attrs = dict(zip(("start", "size", "step"), ints, strict=True))
    _slice_infer(x.type, **attrs)  # NumPy would take what there is
    return (x,), attrs


def _slice_infer(x: TensorType, *, start: Shape, size: Shape, step: Shape) -> TensorType:
    if not len(start) == len(size) == len(step) == x.ndim:
        raise ShapeError(f"slice of {x} by start={start}, size={size}, step={step}: expected {x.ndim} numbers each")
    for axis, (first, count, stride, extent) in enumerate(zip(start, size, step, x.shape, strict=True)):
        last = first + (count - 1) * stride
        if count < 0 or (count > 0 and not (0 <= first < extent and 0 <= last < extent)):
            raise ShapeError(f"slice of {x}: axis {axis} has no elements {first}, {first + stride}, … {last}")
    return TensorType(x.dtype, size)


def _slice_eval(x: np.ndarray, *, start: Shape, size: Shape, step: Shape) -> np.ndarray:
    def one(first: int, count: int, stride: int) -> Any:
        stop = first + count * stride
        return np.s_[first:(stop if stop >= 0 else None):stride] if count else np.s_[:0]

    return x[tuple(map(one, start, size, step))]


def _slice_vjp(g: Any, out: Any, x: Any, *, start: Shape, size: Shape, step: Shape) -> tuple[Any]:
    if any(s < 0 for s in step):  # turn the axes round that run backwards
        g = slice(g, start=[n - 1 if s < 0 and n else 0 for n, s in zip(size, step, strict=True)], size=size,
                  step=[-1 if s < 0 else 1 for s in step])
        start = tuple(f + (n - 1) * s if s < 0 and n else f for f, n, s in zip(start, size, step, strict=True))
    gaps = tuple(builtins.abs(s) - 1 for s in step)
    low = tuple(f if n else 0 for f, n in zip(start, size, strict=True))
    high = tuple(extent - lo - n - builtins.max(n - 1, 0) * gap
                 for extent, lo, n, gap in zip(x.shape, low, size, gaps, strict=True))
    return (pad(g, low, high, gaps),)


slice = Op(
    name="slice", kind=Kind.VIEW,
    doc="elements start, start + step, … (`size` of them) along every axis; steps may be negative",
    prepare=attributes(_slice), infer=_slice_infer, eval=_slice_eval, vjp=_slice_vjp,
    vmap=extended(start=0, size="size", step=1))


def _pad(x: Any, low: Sequence[int], high: Sequence[int], interior: Sequence[int] | None = None,
         value: float = 0.0) -> Prepared:
    x = lift(x)
    ints = [tuple(int(n) for n in part) for part in (low, high, interior or (0,) * x.ndim)]
    if any(len(part) != x.ndim for part in ints) or any(n < 0 for part in ints for n in part):
        raise ShapeError(f"pad of {x.type} by low={low}, high={high}, interior={interior}: "
                         f"expected {x.ndim} counts ≥ 0 each")
    return (x,), dict(zip(("low", "high", "interior"), ints, strict=True)) | {"value": float(value)}


def _pad_infer(x: TensorType, *, low: Shape, high: Shape, interior: Shape, value: float) -> TensorType:
    return TensorType(x.dtype, tuple(a + b + n + builtins.max(n - 1, 0) * gap
                                     for n, a, b, gap in zip(x.shape, low, high, interior, strict=True)))


def _pad_eval(x: np.ndarray, *, low: Shape, high: Shape, interior: Shape, value: float) -> np.ndarray:
    shape = _pad_infer(TensorType.of(x), low=low, high=high, interior=interior, value=value).shape
    out = np.full(shape, value, x.dtype)
    out[tuple(np.s_[a:a + builtins.max(n - 1, 0) * (gap + 1) + builtins.min(n, 1):gap + 1]
              for n, a, gap in zip(x.shape, low, interior, strict=True))] = x
    return out


pad = Op(
    name="pad", kind=Kind.INDEX, doc="put `value` before, after and between the elements of every axis",
    prepare=attributes(_pad), infer=_pad_infer, eval=_pad_eval,
    vjp=lambda g, out, x, *, low, high, interior, value: (slice(g, low, x.shape, [n + 1 for n in interior]),),
    vmap=extended(low=0, high=0, interior=0))


def _concat(*parts: Any, axis: int = 0) -> Prepared:
    operands = [lift(x) for x in parts]
    if not operands:
        raise ShapeError("concat of nothing: expected at least one tensor")
    dtype = np.result_type(*(x.dtype.np for x in operands))
    return tuple(cast_to(x, as_dtype(dtype)) for x in operands), {"axis": normalize_axis(axis, operands[0].ndim)}


def _concat_infer(*types: TensorType, axis: int) -> TensorType:
    first = types[0]
    rest = [t.shape[:axis] + t.shape[axis + 1:] for t in types]
    if any(r != rest[0] or t.ndim != first.ndim for r, t in zip(rest, types, strict=True)):
        raise ShapeError(f"concat({', '.join(map(str, types))}, axis={axis}): "
                         f"all extents but that of axis {axis} must agree")
    if any(t.dtype is not first.dtype for t in types):
        raise DTypeError(f"concat({', '.join(map(str, types))}): element types must agree; insert casts")
    return TensorType(first.dtype,
                      (*first.shape[:axis], builtins.sum(t.shape[axis] for t in types), *first.shape[axis + 1:]))


def _concat_vjp(g: Any, out: Any, *parts: Any, axis: int) -> tuple[Any, ...]:
    found, at = [], 0
    for x in parts:
        found.append(slice(g, [at if a == axis else 0 for a in range(x.ndim)], x.shape))
        at += x.shape[axis]
    return tuple(found)


concat = Op(
    name="concat", kind=Kind.INDEX, doc="tensors one after the other along `axis`", prepare=attributes(_concat),
    infer=_concat_infer, eval=lambda *parts, axis: np.concatenate(parts, axis=axis), vjp=_concat_vjp, vmap=shifted)


def _windows(x: Any, axes: Sequence[int], size: Sequence[int], step: Sequence[int],
             dilation: Sequence[int]) -> Prepared:
    x = lift(x)
    found = tuple(normalize_axis(a, x.ndim) for a in axes)
    return (x,), {"axes": found} | {k: tuple(int(n) for n in v)
                                    for k, v in (("size", size), ("step", step), ("dilation", dilation))}


def _windows_infer(x: TensorType, *, axes: Shape, size: Shape, step: Shape, dilation: Shape) -> TensorType:
    if not len(axes) == len(size) == len(step) == len(dilation):
        raise ShapeError(f"windows of {x} over axes={axes}: "
                         f"size={size}, step={step}, dilation={dilation} must have a number for each axis")
    shape = list(x.shape)
    for axis, n, stride, gap in zip(axes, size, step, dilation, strict=True):
        reach = (n - 1) * gap + 1
        if n < 1 or stride < 1 or gap < 1 or reach > x.shape[axis]:
            raise ShapeError(f"windows of {x}: a window of {n} (step {stride}, dilation {gap}) "
                             f"reaches {reach} elements, axis {axis} has {x.shape[axis]}")
        shape[axis] = (x.shape[axis] - reach) // stride + 1
    return TensorType(x.dtype, (*shape, *size))


def _windows_eval(x: np.ndarray, *, axes: Shape, size: Shape, step: Shape, dilation: Shape) -> np.ndarray:
    shape = _windows_infer(TensorType.of(x), axes=axes, size=size, step=step, dilation=dilation).shape
    strides = [s * step[axes.index(a)] if a in axes else s for a, s in enumerate(x.strides)]
    inner = [x.strides[a] * d for a, d in zip(axes, dilation, strict=True)]
    return np.lib.stride_tricks.as_strided(x, shape, (*strides, *inner), writeable=False)


windows = Op(
    name="windows", kind=Kind.VIEW,
    doc="sliding windows over `axes`: their positions stay in place, their contents become new last axes",
    prepare=attributes(_windows), infer=_windows_infer, eval=_windows_eval,
    vjp=lambda g, out, x, **attrs: (fold(g, shape=x.shape, **attrs),), vmap=shifted)


def _fold(x: Any, shape: Shape, axes: Shape, size: Shape, step: Shape, dilation: Shape) -> Prepared:
    attrs = {"shape": shape, "axes": axes, "size": size, "step": step, "dilation": dilation}
    found = {k: tuple(int(n) for n in v) for k, v in attrs.items()}
    x = lift(x)
    _fold_infer(x.type, **found)  # NumPy would broadcast the windows
    return (x,), found


def _fold_infer(x: TensorType, *, shape: Shape, **attrs: Shape) -> TensorType:
    if _windows_infer(TensorType(x.dtype, shape), **attrs) != x:
        raise ShapeError(f"fold of {x} to {shape}: those are not the windows of such a tensor")
    return TensorType(x.dtype, shape)


def _fold_eval(x: np.ndarray, *, shape: Shape, axes: Shape, size: Shape, step: Shape, dilation: Shape) -> np.ndarray:
    out = np.zeros(shape, x.dtype)
    for place in np.ndindex(*size):
        at = {a: np.s_[p * d:p * d + (x.shape[a] - 1) * s + 1:s]
              for a, p, s, d in zip(axes, place, step, dilation, strict=True)}
        out[tuple(at.get(a, np.s_[:]) for a in range(len(shape)))] += x[(..., *place)]
    return out


fold: Op = Op(
    name="fold", kind=Kind.INDEX, doc="add windows up where they lie: the transpose of `windows`",
    prepare=attributes(_fold), infer=_fold_infer, eval=_fold_eval, flops=lambda out, x, **_: x.size,
    vjp=lambda g, out, x, *, shape, **attrs: (windows(g, **attrs),), vmap=extended(shape="size"))
