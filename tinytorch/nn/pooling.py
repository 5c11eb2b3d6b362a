"""Layers that pool: each window, or each part, of an image becomes one number. They have no parameters.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> x = tt.zeros(5, 3, 32, 32)
    >>> nn.MaxPool2d(2)(x).shape, nn.AdaptiveAvgPool2d(1)(x).shape
    ((5, 3, 16, 16), (5, 3, 1, 1))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinytorch.ir.errors import OpError
from tinytorch.tensor import Tensor

from . import functional as F
from .functional.spatial import numbers
from .module import Module

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AvgPool1d", "AvgPool2d",
    "MaxPool1d", "MaxPool2d",
]


class _MaxPool(Module):
    function: Callable[..., Tensor]

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        if return_indices:
            raise OpError(f"{type(self).__name__}(return_indices=True) is not there: only the greatest numbers are "
                          "given, not where they stand")
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x: Any) -> Tensor:
        """The greatest of each window."""
        return type(self).function(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPool):
    """The greatest of each window of x (batch, channels, length); see `functional.max_pool1d`.

    >>> import tinytorch as tt
    >>> tt.nn.MaxPool1d(2)(tt.tensor([[1.0, 5.0, 2.0, 4.0]]))
    tensor([[5., 4.]])
    """

    function = F.max_pool1d


class MaxPool2d(_MaxPool):
    """The greatest of each window of x (batch, channels, height, width); windows are their size apart by default.

    Args:
        padding: how many places at both ends, at most half a window; none is ever the greatest.
        dilation: the distance between the elements of a window.
        ceil_mode: whether a last window that begins inside and ends outside counts.
    Raises:
        ShapeError: when called with an x that no window fits into.

    >>> import tinytorch as tt
    >>> tt.nn.MaxPool2d(3, stride=2, padding=1)(tt.zeros(5, 64, 112, 112)).shape
    (5, 64, 56, 56)
    """

    function = F.max_pool2d


class AvgPool1d(Module):
    """The mean of each window of x (batch, channels, length); see `functional.avg_pool1d`.

    >>> import tinytorch as tt
    >>> tt.nn.AvgPool1d(2)(tt.tensor([[1.0, 5.0, 2.0, 4.0]]))
    tensor([[3., 3.]])
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> None:
        self.kernel_size = numbers("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else numbers("stride", stride, 1)
        self.padding = numbers("padding", padding, 1, least=0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Any) -> Tensor:
        """The mean of each window."""
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(Module):
    """The mean of each window of x (batch, channels, height, width); windows are their size apart by default.

    Args:
        padding: how many zeros at both ends, at most half a window.
        ceil_mode: whether a last window that begins inside and ends outside counts.
        count_include_pad: whether those zeros count as elements.
        divisor_override: what sums are divided by, in place of the number of elements.
    Raises:
        ShapeError: when called with an x that no window fits into.

    >>> import tinytorch as tt
    >>> tt.nn.AvgPool2d((3, 2), stride=2)(tt.zeros(5, 3, 32, 32)).shape
    (5, 3, 15, 16)
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Any) -> Tensor:
        """The mean of each window."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                            self.divisor_override)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _Adaptive(Module):
    function: Callable[..., Tensor]

    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        """One number for each part."""
        return type(self).function(x, self.output_size)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"output_size={self.output_size}"


class _AdaptiveMax(_Adaptive):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        if return_indices:
            raise OpError(f"{type(self).__name__}(return_indices=True) is not there: only the greatest numbers are "
                          "given, not where they stand")
        super().__init__(output_size)


class AdaptiveAvgPool1d(_Adaptive):
    """The means of `output_size` parts of x (batch, channels, length), whatever its length.

    >>> import tinytorch as tt
    >>> tt.nn.AdaptiveAvgPool1d(2)(tt.tensor([[1.0, 2.0, 6.0]]))
    tensor([[1.5, 4. ]])
    """

    function = F.adaptive_avg_pool1d


class AdaptiveAvgPool2d(_Adaptive):
    """The means of parts of x (batch, channels, height, width), whatever its extents; of 1 part, the mean of all.

    Args:
        output_size: how many parts, or how many along each axis; None keeps an axis.

    >>> import tinytorch as tt
    >>> tt.nn.AdaptiveAvgPool2d((5, None))(tt.zeros(1, 64, 8, 9)).shape
    (1, 64, 5, 9)
    """

    function = F.adaptive_avg_pool2d


class AdaptiveMaxPool1d(_AdaptiveMax):
    """The greatest of each of `output_size` parts of x (batch, channels, length).

    >>> import tinytorch as tt
    >>> tt.nn.AdaptiveMaxPool1d(2)(tt.tensor([[1.0, 2.0, 6.0]]))
    tensor([[2., 6.]])
    """

    function = F.adaptive_max_pool1d


class AdaptiveMaxPool2d(_AdaptiveMax):
    """The greatest of each part of x (batch, channels, height, width).

    >>> import tinytorch as tt
    >>> tt.nn.AdaptiveMaxPool2d((5, None))(tt.zeros(1, 64, 8, 9)).shape
    (1, 64, 5, 9)
    """

    function = F.adaptive_max_pool2d
