"""Layers that convolve, over one spatial axis (Conv1d) or two (Conv2d), and the transposed ones that spread out again.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> down, up = nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)
    >>> x = tt.zeros(5, 3, 32, 32)
    >>> down(x).shape, up(down(x)).shape
    ((5, 8, 16, 16), (5, 3, 32, 32))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinytorch.creation import zeros
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Parameter, Tensor

from . import functional as F
from . import init
from .functional.convolution import padding_pairs
from .functional.spatial import numbers
from .module import Module

__all__ = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all four are made of; a subclass names its axes and its functions."""

    axes: int
    weight: Tensor
    bias: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, dilation: Any,
                 groups: int, padding_mode: str) -> None:
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(f"{name}({in_channels}, {out_channels}, groups={groups}): "
                             "in_channels and out_channels must divide by groups")
        if padding_mode not in PADDING_MODES:
            raise OpError(f"{name}(padding_mode={padding_mode!r}): expected one of {', '.join(PADDING_MODES)}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = numbers("kernel_size", kernel_size, self.axes)
        self.stride = numbers("stride", stride, self.axes)
        self.dilation = numbers("dilation", dilation, self.axes)
        self.padding: Any = (0,) * self.axes
        self.output_padding = (0,) * self.axes
        self.groups, self.padding_mode = groups, padding_mode

    def _make_weights(self, rows: int, columns: int, bias: bool, dtype: Any) -> None:
        """weight (rows, columns, *kernel_size) and bias, uniform on ±1 / √(columns · kernel elements)."""
        fan = columns * math.prod(self.kernel_size)
        bound = 1 / math.sqrt(fan) if fan > 0 else 0.0
        shape = (rows, columns, *self.kernel_size)
        self.weight = init.uniform_(Parameter(zeros(shape, dtype=dtype)), -bound, bound)
        self.bias = init.uniform_(Parameter(zeros(self.out_channels, dtype=dtype)), -bound, bound) if bias else None

    def extra_repr(self) -> str:
        """As PyTorch prints it: what is not as it is by default."""
        none, ones = (0,) * self.axes, (1,) * self.axes
        notes = [("padding", self.padding, none), ("dilation", self.dilation, ones),
                 ("output_padding", self.output_padding, none), ("groups", self.groups, 1),
                 ("bias", self.bias is not None, True), ("padding_mode", self.padding_mode, "zeros")]
        shown = [f"{self.in_channels}", f"{self.out_channels}", f"kernel_size={self.kernel_size}",
                 f"stride={self.stride}", *(f"{name}={value}" for name, value, usual in notes if value != usual)]
        return ", ".join(shown)


class _Conv(_Convolution):
    function: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 dtype: Any = "f32") -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode)
        self._pairs = padding_pairs(padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding if isinstance(padding, str) else tuple(low for low, _ in self._pairs)
        self._make_weights(out_channels, in_channels // groups, bias, dtype)

    def forward(self, x: Any) -> Tensor:
        """The correlation of x with each kernel, plus bias."""
        padding = self.padding
        if self.padding_mode != "zeros":
            counts = [count for pair in self._pairs[::-1] for count in pair]
            x, padding = F.pad(x, counts, self.padding_mode), 0
        return type(self).function(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """A convolution over one axis: x (batch, in_channels, length) to (batch, out_channels, length of the result).

    Args:
        kernel_size, stride, dilation: numbers.
        padding: a number of elements at both ends, "same" or "valid".
        groups: channels and outputs are split into so many parts, each with kernels of its own.
        padding_mode: what the elements at the ends are: "zeros", "reflect", "replicate" or "circular".
    Attributes:
        weight: (out_channels, in_channels / groups, kernel_size); bias: (out_channels) or None. Both begin uniform on
            ±1 / √(in_channels / groups · kernel_size).
    Raises:
        ShapeError: channels do not divide by groups; x has other channels, or is shorter than the kernel.

    >>> import tinytorch as tt
    >>> tt.nn.Conv1d(16, 33, 3, stride=2)(tt.zeros(20, 16, 50)).shape
    (20, 33, 24)
    """

    axes, function = 1, F.conv1d


class Conv2d(_Conv):
    """A convolution of images: x (batch, in_channels, height, width) to (batch, out_channels, oh, ow).

    Args:
        kernel_size, stride, dilation: one number, or one for each axis.
        padding: numbers of elements at both ends, "same" or "valid".
        groups: channels and outputs are split into so many parts, each with kernels of its own.
        padding_mode: what the elements at the ends are: "zeros", "reflect", "replicate" or "circular".
    Attributes:
        weight: (out_channels, in_channels / groups, kh, kw); bias: (out_channels) or None. Both begin uniform on
            ±1 / √(in_channels / groups · kh · kw).
    Raises:
        ShapeError: channels do not divide by groups; x has other channels, or is smaller than the kernel.

    >>> import tinytorch as tt
    >>> layer = tt.nn.Conv2d(3, 8, 3, padding="same")
    >>> layer
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=same)
    >>> layer(tt.zeros(5, 3, 32, 32)).shape
    (5, 8, 32, 32)
    """

    axes, function = 2, F.conv2d


class _ConvTranspose(_Convolution):
    function: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
                 padding_mode: str = "zeros", dtype: Any = "f32") -> None:
        if padding_mode != "zeros":
            raise OpError(f"{type(self).__name__}(padding_mode={padding_mode!r}): expected 'zeros', "
                          "a transposed convolution has no other")
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode)
        self.padding = numbers("padding", padding, self.axes, least=0)
        self.output_padding = numbers("output_padding", output_padding, self.axes, least=0)
        self._make_weights(in_channels, out_channels // groups, bias, dtype)

    def forward(self, x: Any, output_size: Any = None) -> Tensor:
        """Each element of x stamps the kernel on the result; with `output_size`, one of the extents that can be."""
        more = self.output_padding if output_size is None else self._missing(x.shape, tuple(output_size))
        return type(self).function(x, self.weight, self.bias, self.stride, self.padding, more, self.groups,
                                   self.dilation)

    def _missing(self, shape: tuple[int, ...], output_size: tuple[int, ...]) -> tuple[int, ...]:
        """The output_padding that gives results of `output_size`."""
        parts = zip(shape[-self.axes:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        least = tuple((n - 1) * step - 2 * cut + gap * (k - 1) + 1 for n, step, cut, gap, k in parts)
        wanted = output_size[-self.axes:]
        if len(wanted) != self.axes or any(not 0 <= w - n < s for w, n, s in zip(wanted, least, self.stride)):
            most = tuple(n + s - 1 for n, s in zip(least, self.stride, strict=True))
            raise ShapeError(f"{type(self).__name__}: output_size={output_size}, expected from {least} to {most}")
        return tuple(w - n for w, n in zip(wanted, least, strict=True))


class ConvTranspose1d(_ConvTranspose):
    """The gradient of `Conv1d` by its input, as a layer: x (batch, in_channels, length) becomes longer by stride.

    Args:
        padding: how many elements of the result are cut off at both ends.
        output_padding: how many more it has at the far end.
    Attributes:
        weight: (in_channels, out_channels / groups, kernel_size); bias: (out_channels) or None. Both begin uniform on
            ±1 / √(out_channels / groups · kernel_size).
    Raises:
        ShapeError: as `Conv1d`, or `output_size` is not one that can be.

    >>> import tinytorch as tt
    >>> tt.nn.ConvTranspose1d(16, 8, 4, stride=2, padding=1)(tt.zeros(5, 16, 25)).shape
    (5, 8, 50)
    """

    axes, function = 1, F.conv_transpose1d


class ConvTranspose2d(_ConvTranspose):
    """The gradient of `Conv2d` by its input, as a layer: images become larger by stride (Zeiler et al., 2010).

    Args:
        padding: how many elements of the result are cut off at each end.
        output_padding: how many more it has at the far ends.
    Attributes:
        weight: (in_channels, out_channels / groups, kh, kw); bias: (out_channels) or None. Both begin uniform on
            ±1 / √(out_channels / groups · kh · kw).
    Raises:
        ShapeError: as `Conv2d`, or `output_size` is not one that can be.

    >>> import tinytorch as tt
    >>> up = tt.nn.ConvTranspose2d(8, 3, 3, stride=2, padding=1)
    >>> x = tt.zeros(5, 8, 16, 16)
    >>> up(x).shape, up(x, output_size=(32, 32)).shape
    ((5, 3, 31, 31), (5, 3, 32, 32))
    """

    axes, function = 2, F.conv_transpose2d
