"""The type of a tensor: its element type and its shape. `f32[2, 3]` makes one; `str` gives the same text back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dtypes import DType
from .errors import ShapeError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape; equal types are equal objects for `==` and as dictionary keys."""

    dtype: DType
    shape: Shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, packed."""
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape)) or '()'}]"

    @staticmethod
    def of(array: np.ndarray) -> TensorType:
        """The type of a NumPy array."""
        from .dtypes import as_dtype

        return TensorType(as_dtype(array.dtype), array.shape)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcast of `shapes`; raises ShapeError naming the axis that does not fit."""
    first = shapes[0] if shapes else ()
    if all(shape == first for shape in shapes):
        return first
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        shown = " and ".join(str(shape) for shape in shapes)
        raise ShapeError(f"shapes {shown} do not broadcast: aligned at the right, "
                         "two extents must be equal or one of them 1; reshape or insert axes of extent 1") from None


def normalize_axis(axis: int, ndim: int) -> int:
    """`axis` counted from the front; raises ShapeError if there is no such axis."""
    if not isinstance(axis, (int, np.integer)) or not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis!r} of a tensor with {ndim} axes: expected an integer from {-ndim} to {ndim - 1}")
    return int(axis) % ndim


def normalize_axes(axes: int | Sequence[int] | None, ndim: int) -> Shape:
    """`axes` as a sorted tuple counted from the front; None means all of them."""
    if axes is None:
        return tuple(range(ndim))
    found = sorted(normalize_axis(axis, ndim) for axis in ((axes,) if isinstance(axes, (int, np.integer)) else axes))
    if len(set(found)) != len(found):
        raise ShapeError(f"axes {tuple(axes)} name an axis twice")  # type: ignore[arg-type]
    return tuple(found)


def reduced_shape(shape: Shape, axes: Shape, keepdims: bool) -> Shape:
    """`shape` without `axes`, or with 1 in their places."""
    if keepdims:
        return tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    return tuple(n for axis, n in enumerate(shape) if axis not in axes)


def row_major_strides(shape: Shape) -> Shape:
    """Strides in elements of a packed array in C order."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)
