"""x[…] in terms of ops: NumPy's basic and advanced indexing.

Integers, slices, None and … become `slice` and `reshape`. Integer arrays become one `take` (or, if several, one `take`
over the axes they index, flattened). A boolean mask needs its numbers, so it works eagerly; while tracing, use `where`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch.ir import Operand, ops
from tinytorch.ir.errors import ShapeError, TracingError


def get_item(x: Any, index: Any) -> Any:
    """x[index], with NumPy's rules; raises IndexError for positions that do not exist."""
    parts = _expand(x, index if isinstance(index, tuple) else (index,))
    start, size, step, shape, arrays, advanced = [], [], [], [], [], []
    axis = 0
    for number, part in enumerate(parts):
        if part is None:
            shape.append(1)
            continue
        extent = x.shape[axis]
        if _is_array(part):
            first, count, stride = 0, extent, 1
            arrays.append((len(shape), part))
            advanced.append(number)
            shape.append(extent)
        elif isinstance(part, slice):
            first, stop, stride = part.indices(extent)
            count = len(range(first, stop, stride))
            first = first if count else 0
            shape.append(count)
        else:
            first, count, stride = _position(part, extent, axis), 1, 1
            advanced.append(number)  # next to arrays, an integer is one of them
        start.append(first)
        size.append(count)
        step.append(stride)
        axis += 1
    whole = all(f == 0 and s == 1 and n == e for f, n, s, e in zip(start, size, step, x.shape, strict=True))
    result = x if whole else ops.slice(x, start, size, step)
    result = result if result.shape == tuple(shape) else ops.reshape(result, shape)
    if arrays:
        return _advanced(result, arrays, together=advanced[-1] - advanced[0] < len(advanced))
    return ops.reshape(result, result.shape) if result is x else result


def _expand(x: Any, index: tuple[Any, ...]) -> list[Any]:
    """One entry an axis: … filled in with full slices, masks turned into positions, missing axes appended."""
    given = [_plain(part) for part in index]
    used = sum(part.ndim if _is_mask(part) else 1 for part in given if part is not None and part is not Ellipsis)
    if used > x.ndim:
        raise IndexError(f"{used} indices for a tensor with {x.ndim} axes ({x.type})")
    dots = [i for i, part in enumerate(given) if part is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('…')")
    at = dots[0] if dots else len(given)
    parts: list[Any] = []
    axis = 0
    for part in [*given[:at], *[slice(None)] * (x.ndim - used), *given[at + 1:]]:
        extents = x.shape[axis:axis + part.ndim] if _is_mask(part) else ()
        if _is_mask(part) and (part.shape != extents or not extents):
            raise IndexError(f"a mask of shape {part.shape} for axes of shape {extents}: they must agree" if part.ndim
                             else "a single bool cannot index a tensor")
        parts += np.nonzero(part) if extents else [part]
        axis += len(extents) or part is not None
    return parts


def _plain(part: Any) -> Any:
    """Lists and masks as arrays."""
    if isinstance(part, (bool, list, np.ndarray)):
        part = np.asarray(part)
        return part.astype(np.int64) if part.size == 0 and part.dtype == np.float64 else part
    if isinstance(part, Operand) and part.dtype.kind == "b":
        if part.is_traced:
            raise TracingError("x[mask] gives as many elements as the mask has true ones, which is not known while "
                               "tracing; use tt.where(mask, x, 0) or multiply by the mask")
        return part.payload
    return part


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == bool


def _is_array(part: Any) -> bool:
    return isinstance(part, np.ndarray) or (isinstance(part, Operand) and (part.ndim > 0 or part.is_traced))


def _position(part: Any, extent: int, axis: int) -> int:
    try:
        number = int(part.item() if hasattr(part, "item") else part.__index__())
    except AttributeError:
        raise IndexError(f"{part!r} cannot index a tensor; "
                         "expected integers, slices, …, None, integer arrays or boolean masks") from None
    if not -extent <= number < extent:
        raise IndexError(f"index {number} is out of bounds for axis {axis} with extent {extent}")
    return number % extent


def _advanced(x: Any, arrays: list[tuple[int, Any]], together: bool) -> Any:
    """Axes indexed by integer arrays: brought together, flattened, taken at once.

    The result's axes stand where they stood, if that was `together`.
    """
    axes = [axis for axis, _ in arrays]
    extents = [x.shape[axis] for axis in axes]
    positions = [ops.cast(i, "i64") if isinstance(i, Operand) else np.asarray(i, np.int64) for _, i in arrays]
    for number, extent in zip(positions, extents, strict=True):
        _check_range(number, extent)
    at = axes[0] if together else 0
    rest = [a for a in range(x.ndim) if a not in axes]
    order = rest[:at] + axes + rest[at:]
    moved = x if order == list(range(x.ndim)) else ops.transpose(x, order)
    if len(axes) == 1:
        return ops.take(moved, positions[0], at)
    flat = ops.reshape(moved, (*moved.shape[:at], math.prod(extents), *moved.shape[at + len(axes):]))
    linear: Any = None
    for number, extent in zip(positions, extents, strict=True):
        wrapped = ops.where(ops.lt(number, 0), ops.add(number, extent), number)
        linear = wrapped if linear is None else linear * extent + wrapped
    return ops.take(flat, linear, at)


def _check_range(number: Any, extent: int) -> None:
    payload = number.payload if isinstance(number, Operand) else number
    if isinstance(payload, np.ndarray) and payload.size and not (-extent <= payload.min() and payload.max() < extent):
        wrong = payload.max() if payload.max() >= extent else payload.min()
        raise IndexError(f"index {wrong} is out of bounds for an axis with extent {extent}")


def set_item(x: Any, index: Any, value: Any) -> Any:
    """A tensor like x with x[index] = value: each element is picked from x or from `value` by where it lies."""
    places = get_item(Operand(np.arange(math.prod(x.shape)).reshape(x.shape)), index)
    if not isinstance(places.payload, np.ndarray):
        raise TracingError("x[i] = value with a traced index; use tt.where or scatter_add")
    flat = places.payload.ravel()
    hit = np.zeros(math.prod(x.shape), bool)
    hit[flat] = True
    source = np.zeros(math.prod(x.shape), np.int64)
    source[flat] = np.arange(flat.size)
    given = value if isinstance(value, Operand) else Operand(np.asarray(value, x.dtype.np))
    if flat.size == 0:
        return x
    try:
        spread = ops.reshape(ops.broadcast_to(ops.cast(given, x.dtype), places.shape), (flat.size,))
    except ShapeError:
        raise ShapeError(
            f"x[index] has shape {places.shape}, the value {given.shape} does not broadcast to it") from None
    picked = ops.reshape(ops.take(spread, source, 0), x.shape)
    return ops.where(hit.reshape(x.shape), picked, x)
