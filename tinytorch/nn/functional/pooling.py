"""Pooling as functions, over one spatial axis or two: each window, or each part, of an image becomes one number.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> x = tt.tensor([[1.0, 5.0, 2.0, 4.0]])  # (channels, length); a batch axis may come first
    >>> F.max_pool1d(x, 2), F.avg_pool1d(x, 2), F.adaptive_avg_pool1d(x, 1)
    (tensor([[5., 4.]]), tensor([[3., 3.]]), tensor([[3.]]))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytorch.ir import ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Tensor, as_tensor

from .spatial import Windows, as_given, as_images, numbers

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d",
    "avg_pool2d", "max_pool1d", "max_pool2d",
]


# -- windows of one size -----------------------------------------------------------------------------------------------


def max_pool1d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Tensor:
    """The greatest of each window; the first among equals gets the gradient.

    Args:
        x: (batch, channels, length) or (channels, length).
        stride: how far windows are apart, their size by default.
        padding: how many places at both ends, at most half a window; none is ever the greatest.
        dilation: the distance between the elements of a window.
        ceil_mode: whether a last window that begins inside and ends outside counts.
    Raises:
        ShapeError: shapes do not fit, or no window fits into x.
        OpError: `return_indices` is asked for; it is not there.

    >>> import tinytorch as tt
    >>> tt.nn.functional.max_pool1d(tt.tensor([[1.0, 5.0, 2.0]]), 2, ceil_mode=True)
    tensor([[5., 2.]])
    """
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Tensor:
    """`max_pool1d` over two axes: x is (batch, channels, height, width) or (channels, height, width).

    >>> import tinytorch as tt
    >>> tt.nn.functional.max_pool2d(tt.zeros(2, 3, 28, 28), 3, stride=2, padding=1).shape
    (2, 3, 14, 14)
    """
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window.

    Args:
        x: (batch, channels, length) or (channels, length).
        stride: how far windows are apart, their size by default.
        padding: how many zeros at both ends, at most half a window.
        ceil_mode: whether a last window that begins inside and ends outside counts.
        count_include_pad: whether those zeros count as elements; what lies beyond them never does.
    Raises:
        ShapeError: shapes do not fit, or no window fits into x.

    >>> import tinytorch as tt
    >>> x = tt.tensor([[2.0, 4.0, 6.0]])
    >>> tt.nn.functional.avg_pool1d(x, 2, padding=1), tt.nn.functional.avg_pool1d(x, 2, None, 1, False, False)
    (tensor([[1., 5.]]), tensor([[2., 5.]]))
    """
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """`avg_pool1d` over two axes: x is (batch, channels, height, width) or (channels, height, width).

    Args:
        divisor_override: what each window's sum is divided by, in place of its number of elements.

    >>> import tinytorch as tt
    >>> tt.nn.functional.avg_pool2d(tt.ones(1, 2, 2), 2, divisor_override=1)
    tensor([[[4.]]])
    """
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _windows(name: str, x: Tensor, n: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
             ceil_mode: bool) -> list[Windows]:
    """The windows along height and width of an x with `n` spatial axes."""
    size = numbers("kernel_size", kernel_size, n)
    step = size if stride is None else numbers("stride", stride, n)
    edge, gap = numbers("padding", padding, n, least=0), numbers("dilation", dilation, n)
    found = [Windows(*parts, bool(ceil_mode)) for parts in zip(x.shape[-n:], size, step, edge, gap, strict=True)]
    for w in found:
        if w.padding > w.reach // 2:
            raise ShapeError(f"{name}: padding={w.padding} is more than half of a window, which reaches {w.reach}")
        if w.count < 1:
            raise ShapeError(f"{name} of {x.type}: a window reaches {w.reach} elements, x with its padding has "
                             f"{w.extent + 2 * w.padding}; take smaller windows")
    return [Windows(1, 1, 1, 0)] * (2 - n) + found


def _attributes(windows: Sequence[Windows]) -> dict[str, list[int]]:
    """How the windows lie, in the words of `ops.max_pool2d` and `ops.avg_pool2d`."""
    parts = {"size": "size", "stride": "step", "padding": "padding", "dilation": "dilation"}
    return {name: [getattr(w, part) for w in windows] for name, part in parts.items()} | {
        "high": [w.padding + w.overhang for w in windows]}


def _max_pool(name: str, n: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
              return_indices: bool) -> Tensor:
    if return_indices:
        raise OpError(f"{name}(return_indices=True) is not there: only the greatest numbers are given, "
                      "not where they stand")
    x = as_tensor(x)
    images = as_images(name, x, n)
    windows = _windows(name, x, n, kernel_size, stride, padding, dilation, ceil_mode)
    return as_given(as_tensor(ops.max_pool2d(images, **_attributes(windows))), x, n)


def _avg_pool(name: str, n: int, x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
              count_include_pad: bool, divisor_override: int | None) -> Tensor:
    if divisor_override == 0:
        raise OpError(f"{name}(divisor_override=0): sums cannot be divided by 0; None divides by the elements")
    x = as_tensor(x)
    images = as_images(name, x, n)
    windows = _windows(name, x, n, kernel_size, stride, padding, 1, ceil_mode)
    count = math.prod(w.size for w in windows)
    y = as_tensor(ops.avg_pool2d(images, **_attributes(windows)))
    if divisor_override is not None:
        y = y * (count / divisor_override)
    elif any(w.overhang or (w.padding and not count_include_pad) for w in windows):
        rows, columns = (w.covered(count_include_pad) for w in windows)
        y = y * (count / np.outer(rows, columns)).astype(y.dtype.np)
    return as_given(y, x, n)


# -- a given number of parts -------------------------------------------------------------------------------------------


def adaptive_avg_pool1d(x: Any, output_size: Any) -> Tensor:
    """The means of `output_size` parts of as equal lengths as can be: part i is ⌊i n / parts⌋ … ⌈(i + 1) n / parts⌉.

    Args:
        x: (batch, channels, length) or (channels, length).
        output_size: how many parts, more than the length too; None for the length.
    Raises:
        ShapeError: shapes do not fit, or x has no elements to pool.

    >>> import tinytorch as tt
    >>> tt.nn.functional.adaptive_avg_pool1d(tt.tensor([[1.0, 2.0, 6.0]]), 2)
    tensor([[1.5, 4. ]])
    """
    return _adaptive("adaptive_avg_pool1d", 1, x, output_size, _mean_of_parts)


def adaptive_avg_pool2d(x: Any, output_size: Any) -> Tensor:
    """`adaptive_avg_pool1d` over two axes: x is (batch, channels, height, width) or (channels, height, width).

    Args:
        output_size: one number of parts, or one for each axis; None keeps an axis.

    >>> import tinytorch as tt
    >>> tt.nn.functional.adaptive_avg_pool2d(tt.zeros(2, 64, 7, 9), (1, None)).shape
    (2, 64, 1, 9)
    """
    return _adaptive("adaptive_avg_pool2d", 2, x, output_size, _mean_of_parts)


def adaptive_max_pool1d(x: Any, output_size: Any, return_indices: bool = False) -> Tensor:
    """The greatest of each of the parts that `adaptive_avg_pool1d` makes.

    >>> import tinytorch as tt
    >>> tt.nn.functional.adaptive_max_pool1d(tt.tensor([[1.0, 2.0, 6.0]]), 2)
    tensor([[2., 6.]])
    """
    return _adaptive("adaptive_max_pool1d", 1, x, output_size, _max_of_parts, return_indices)


def adaptive_max_pool2d(x: Any, output_size: Any, return_indices: bool = False) -> Tensor:
    """The greatest of each of the parts that `adaptive_avg_pool2d` makes.

    >>> import tinytorch as tt
    >>> tt.nn.functional.adaptive_max_pool2d(tt.zeros(2, 64, 7, 9), 3).shape
    (2, 64, 3, 3)
    """
    return _adaptive("adaptive_max_pool2d", 2, x, output_size, _max_of_parts, return_indices)


def _adaptive(name: str, n: int, x: Any, output_size: Any, pool: Callable[[Tensor, Sequence[int]], Tensor],
              return_indices: bool = False) -> Tensor:
    if return_indices:
        raise OpError(f"{name}(return_indices=True) is not there: only the numbers are given, not where they stand")
    x = as_tensor(x)
    images = as_images(name, x, n)
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if len(given) == n:  # else `numbers` complains
        given = tuple(extent if parts is None else parts for parts, extent in zip(given, x.shape[-n:], strict=True))
    parts = numbers("output_size", given, n)
    if 0 in images.shape[1:]:
        raise ShapeError(f"{name} of {x.type}: there are no elements to pool")
    return as_given(pool(images, (1,) * (2 - n) + parts), x, n)


def _mean_of_parts(x: Tensor, parts: Sequence[int]) -> Tensor:
    sizes = _equal_sizes(x, parts)
    if sizes and tuple(parts) == (1, 1):
        return x.mean((2, 3), keepdim=True)
    if sizes:
        return as_tensor(ops.avg_pool2d(x, sizes))
    for axis, count in ((3, parts[1]), (2, parts[0])):
        split, lengths = _split(x, axis, count, 0.0)
        x = split.sum(axis + 1) * (1 / lengths).astype(x.dtype.np).reshape(-1, *(1,) * (3 - axis))
    return x


def _max_of_parts(x: Tensor, parts: Sequence[int]) -> Tensor:
    sizes = _equal_sizes(x, parts)
    if sizes:
        return as_tensor(ops.max_pool2d(x, sizes))
    for axis, count in ((3, parts[1]), (2, parts[0])):  # rows first: the first of equals is the first row by row
        x = _split(x, axis, count, -math.inf)[0].max(axis + 1).values
    return x


def _equal_sizes(x: Tensor, parts: Sequence[int]) -> list[int]:
    """The height and width of the parts of x, if they all have the same without overlap; else nothing."""
    pairs = list(zip(x.shape[2:], parts, strict=True))
    return [] if any(extent % count for extent, count in pairs) else [extent // count for extent, count in pairs]


def _split(x: Tensor, axis: int, count: int, fill: float) -> tuple[Tensor, np.ndarray]:
    """The parts along `axis`, each along a new axis after it and filled up with `fill`; and how long they are."""
    extent, i = x.shape[axis], np.arange(count)
    start, stop = i * extent // count, -(-(i + 1) * extent // count)
    positions = start[:, None] + np.arange((stop - start).max())  # (count, longest)
    there = (positions < stop[:, None]).reshape(*positions.shape, *(1,) * (x.ndim - axis - 1))
    parts = ops.take(x, np.minimum(positions, extent - 1), axis)
    return as_tensor(parts if there.all() else ops.where(there, parts, fill)), stop - start
