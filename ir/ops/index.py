"""Gathering and scattering by integer positions. Negative positions count from the end;
others out of range raise IndexError."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import as_dtype
from ..errors import DTypeError, ShapeError
from ..op import Kind, Op
from ..types import TensorType, broadcast_shapes, normalize_axis
from .define import Prepared, attributes, cast_to, lift
from .leading import Mapped, moved, row_numbers, rows, shifted, spread
from .view import broadcast_to, reshape, transpose

__all__ = ["put_along", "scatter_add", "take", "take_along"]


def _positions(indices: Any, op: str) -> Any:
    indices = lift(indices)
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"{op}: positions are {indices.type}, expected integers; "
                         "a mask selects with `x[mask]` or `where`")
    return cast_to(indices, as_dtype(np.int64))


def _take(x: Any, indices: Any, axis: int = 0) -> Prepared:
    x = lift(x)
    return (x, _positions(indices, "take")), {"axis": normalize_axis(axis, x.ndim)}


def _take_infer(x: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    return TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1:]))


def _take_mapped(op: Op, size: int, mapped: Mapped, x: Any, indices: Any, *, axis: int) -> Any:
    if not mapped[1]:
        return take(x, indices, axis + 1)
    if not mapped[0]:
        return moved(take(x, indices, axis), axis, 0)
    found = take(rows(x, True, size, axis), row_numbers(indices, size, x.shape[axis + 1]), 0)
    return _turned(found, indices.ndim - 1, axis)  # from (size, positions, before, after)


def _turned(x: Any, first: int, second: int) -> Any:
    """(size, a, b, rest) with `first` axes a and `second` axes b as (size, b, a, rest)."""
    a, b = range(1, 1 + first), range(1 + first, 1 + first + second)
    return transpose(x, (0, *b, *a, *range(1 + first + second, x.ndim)))


def _scatter_mapped(op: Op, size: int, mapped: Mapped, x: Any, indices: Any, updates: Any, *, axis: int) -> Any:
    updates = spread(updates, mapped[2], size)
    if not mapped[1]:
        return scatter_add(spread(x, mapped[0], size), indices, updates, axis + 1)
    extent = x.shape[axis + mapped[0]]
    flat = rows(x, mapped[0], size, axis)
    found = scatter_add(flat, row_numbers(indices, size, extent), _turned(updates, axis, indices.ndim - 1), 0)
    return moved(reshape(found, (size, extent, *found.shape[1:])), 1, axis + 1)


def _zeros_like(x: Any) -> Any:
    return broadcast_to(lift(0, x.dtype), x.shape)


take = Op(
    name="take", kind=Kind.INDEX, doc="the parts of x at `indices` along `axis`, as in an embedding",
    prepare=attributes(_take), infer=_take_infer, eval=lambda x, indices, *, axis: np.take(x, indices, axis=axis),
    vmap=_take_mapped,
    vjp=lambda g, out, x, indices, *, axis: (scatter_add(_zeros_like(x), indices, g, axis), None))


def _scatter(x: Any, indices: Any, updates: Any, axis: int = 0) -> Prepared:
    x, updates = lift(x), lift(updates)
    operands = x, _positions(indices, "scatter_add"), cast_to(updates, x.dtype)
    axis = normalize_axis(axis, x.ndim)
    _scatter_infer(*(o.type for o in operands), axis=axis)  # NumPy would broadcast the updates
    return operands, {"axis": axis}


def _scatter_infer(x: TensorType, indices: TensorType, updates: TensorType, *, axis: int) -> TensorType:
    wanted = _take_infer(x, indices, axis=axis)
    if updates != wanted:
        raise ShapeError(f"scatter_add({x}, {indices}, {updates}, axis={axis}): the updates must be {wanted}")
    return x


def _scatter_eval(x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, axis: int) -> np.ndarray:
    out = x.copy()
    before: tuple[Any, ...] = (np.s_[:],) * axis
    np.add.at(out, (*before, indices), updates)
    return out


scatter_add: Op = Op(
    name="scatter_add", kind=Kind.INDEX,
    doc="x with `updates` added at `indices` along `axis`: the transpose of `take`",
    prepare=attributes(_scatter), infer=_scatter_infer, eval=_scatter_eval, vmap=_scatter_mapped,
    flops=lambda out, x, indices, updates, *, axis: updates.size,
    vjp=lambda g, out, x, indices, updates, *, axis: (g, None, take(g, indices, axis)))


def _take_along(x: Any, indices: Any, axis: int = -1) -> Prepared:
    x = lift(x)
    return (x, _positions(indices, "take_along")), {"axis": normalize_axis(axis, x.ndim)}


def _take_along_infer(x: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    if x.ndim != indices.ndim:
        raise ShapeError(f"take_along({x}, {indices}): as many axes are needed in both")
    rest = [t.shape[:axis] + (1,) + t.shape[axis + 1:] for t in (x, indices)]
    shape = broadcast_shapes(*rest)
    if shape != rest[0]:
        raise ShapeError(f"take_along({x}, {indices}, axis={axis}): "
                         "the other extents of the positions must be those of x, or 1")
    return TensorType(x.dtype, (*shape[:axis], indices.shape[axis], *shape[axis + 1:]))


def _put(x: Any, indices: Any, updates: Any, axis: int = -1) -> Prepared:
    (x, indices), attrs = _take_along(x, indices, axis)
    operands = (x, indices, cast_to(lift(updates), x.dtype))
    _put_infer(*(o.type for o in operands), **attrs)  # NumPy would broadcast the updates
    return operands, attrs


def _put_infer(x: TensorType, indices: TensorType, updates: TensorType, *, axis: int) -> TensorType:
    wanted = _take_along_infer(x, indices, axis=axis)
    if updates != wanted:
        raise ShapeError(f"put_along({x}, {indices}, {updates}, axis={axis}): the updates must be {wanted}")
    return x


def _put_eval(x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, axis: int) -> np.ndarray:
    out = x.copy()
    grid = list(np.ogrid[tuple(np.s_[:n] for n in updates.shape)])
    grid[axis] = np.broadcast_to(indices, updates.shape)
    np.add.at(out, tuple(grid), updates)
    return out


take_along = Op(
    name="take_along", kind=Kind.INDEX,
    doc="along `axis`, the element at the position that `indices` holds for each place",
    prepare=attributes(_take_along), infer=_take_along_infer, vmap=shifted,
    eval=lambda x, indices, *, axis: np.take_along_axis(x, indices, axis),
    vjp=lambda g, out, x, indices, *, axis: (put_along(_zeros_like(x), indices, g, axis), None))

put_along: Op = Op(
    name="put_along", kind=Kind.INDEX,
    doc="x with `updates` added along `axis` at the positions of `indices`: the transpose of `take_along`",
    prepare=attributes(_put), infer=_put_infer, eval=_put_eval, vmap=shifted,
    flops=lambda out, x, indices, updates, *, axis: updates.size,
    vjp=lambda g, out, x, indices, updates, *, axis: (g, None, take_along(g, indices, axis)))
