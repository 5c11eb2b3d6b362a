"""Convolutions as functions, over one spatial axis or two. With or without a batch axis.

A convolution is what machine learning calls by that name: a correlation, the kernel is not turned round. A transposed
convolution is the gradient of a convolution by its input, used forward: each element of x stamps the kernel, times
itself, on the result.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> F.conv1d(tt.tensor([[1.0, 2.0, 4.0]]), tt.tensor([[[-1.0, 1.0]]]))
    tensor([[1., 2.]])
    >>> F.conv_transpose1d(tt.tensor([[1.0, 2.0]]), tt.tensor([[[-1.0, 1.0]]]))
    tensor([[-1., -1.,  2.]])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytorch.ir import ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.ir.ops.convolve import turned
from tinytorch.tensor import Tensor, as_tensor

from .check import as_floats
from .layers import pad
from .spatial import Windows, as_given, as_images, numbers

__all__ = ["conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"]

KERNELS = {1: "size", 2: "kh, kw"}


def padding_pairs(padding: Any, kernel: Sequence[int], stride: Sequence[int],
                  dilation: Sequence[int]) -> list[tuple[int, int]]:
    """How many elements go before and after each spatial axis; "same" gives results the extents of x."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        if any(step != 1 for step in stride):
            raise ShapeError(f"padding='same' with stride={tuple(stride)}: results have the extents of x only with "
                             "stride 1; give the padding in numbers")
        spans = [gap * (k - 1) for k, gap in zip(kernel, dilation, strict=True)]
        return [(span // 2, span - span // 2) for span in spans]
    if isinstance(padding, str):
        raise OpError(f"padding={padding!r}: expected numbers, 'same' or 'valid'")
    return [(n, n) for n in numbers("padding", padding, len(kernel), least=0)]


# -- convolution -------------------------------------------------------------------------------------------------------


def conv1d(x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
    """y[o, t] = Σ over c, i of weight[o, c, i] · x[c, t · stride + i · dilation - padding], plus bias[o].

    Args:
        x: (batch, channels, length) or (channels, length).
        weight: (out, channels / groups, size); bias: (out) or None.
        padding: a number of zeros at both ends, "same" or "valid".
        groups: channels and outputs are split into so many parts, each with a convolution of its own.
    Returns:
        (batch, out, ⌊(length + 2 · padding - dilation · (size - 1) - 1) / stride⌋ + 1), or without the batch.
    Raises:
        ShapeError: shapes do not fit, or the kernel is larger than the padded x.

    >>> import tinytorch as tt
    >>> tt.nn.functional.conv1d(tt.ones(1, 1, 5), tt.ones(1, 1, 3), padding="same")
    tensor([[[2., 3., 3., 3., 2.]]])
    """
    return _convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
    """`conv1d` over two axes; stride, padding and dilation are one number, or one for each axis.

    Args:
        x: (batch, channels, height, width) or (channels, height, width).
        weight: (out, channels / groups, kh, kw); bias: (out) or None.
        padding: numbers of zeros at both ends, "same" or "valid".
    Raises:
        ShapeError: shapes do not fit, or the kernel is larger than the padded x.

    >>> import tinytorch as tt
    >>> tt.nn.functional.conv2d(tt.zeros(2, 3, 32, 32), tt.zeros(8, 3, 5, 5), stride=2, padding=2).shape
    (2, 8, 16, 16)
    """
    return _convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def _convolve(name: str, n: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
              groups: int) -> Tensor:
    x, weight = as_floats(name, x), as_tensor(weight)
    call = f"{name}({x.type}, weight {weight.type}, groups={groups})"
    images = as_images(name, x, n)
    if weight.ndim != n + 2:
        raise ShapeError(f"{call}: expected a weight (out, channels / groups, {KERNELS[n]})")
    out, inner, *kernel = weight.shape
    if groups < 1 or images.shape[1] != inner * groups or out % groups:
        raise ShapeError(f"{call}: x has {images.shape[1]} channels, the weight is for {inner} × {groups} groups, "
                         f"and its {out} outputs must divide by the groups")
    step, gap = numbers("stride", stride, n), numbers("dilation", dilation, n)
    pairs = padding_pairs(padding, kernel, step, gap)
    for extent, size, jump, (low, high) in zip(x.shape[-n:], kernel, gap, pairs, strict=True):
        reach = Windows(extent, size, 1, 0, jump).reach
        if reach > extent + low + high:
            raise ShapeError(f"{call}: the kernel reaches {reach} elements, x with its padding has "
                             f"{extent + low + high}; pad more, or take a smaller kernel or dilation")
    if any(low != high for low, high in pairs):
        images = pad(images, [count for pair in pairs[::-1] for count in pair])
        pairs = [(0, 0)] * n
    one = (1,) * (2 - n)  # the height that an x of one axis is given
    y = as_tensor(ops.conv2d(images, weight if n == 2 else weight.unsqueeze(-2), one + step,
                             (0,) * (2 - n) + tuple(low for low, _ in pairs), one + gap, groups))
    return _plus_bias(as_given(y, x, n), bias, out, n, call)


def _plus_bias(y: Tensor, bias: Any, out: int, n: int, call: str) -> Tensor:
    if bias is None:
        return y
    bias = as_tensor(bias)
    if bias.shape != (out,):
        raise ShapeError(f"{call}: bias is {bias.type}, expected one number for each of the {out} outputs")
    return y + bias.reshape(out, *(1,) * n)


# -- transposed convolution --------------------------------------------------------------------------------------------


def conv_transpose1d(x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                     groups: int = 1, dilation: Any = 1) -> Tensor:
    """The gradient of `conv1d` by its input, as a layer: a longer x from a shorter one.

    Args:
        x: (batch, channels, length) or (channels, length).
        weight: (channels, out / groups, size); bias: (out) or None.
        padding: how many elements of the result are cut off at both ends.
        output_padding: how many more it has at the far end: lengths that stride makes one can be told apart.
    Returns:
        (batch, out, (length - 1) · stride - 2 · padding + dilation · (size - 1) + output_padding + 1).
    Raises:
        ShapeError: shapes do not fit, output_padding reaches both stride and dilation, or nothing would be left.

    >>> import tinytorch as tt
    >>> tt.nn.functional.conv_transpose1d(tt.tensor([[1.0, 2.0]]), tt.ones(1, 1, 2), stride=2)
    tensor([[1., 1., 2., 2.]])
    """
    return _stamp("conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                     groups: int = 1, dilation: Any = 1) -> Tensor:
    """`conv_transpose1d` over two axes; the gradient of `conv2d` by its input (Zeiler et al., 2010).

    Args:
        x: (batch, channels, height, width) or (channels, height, width).
        weight: (channels, out / groups, kh, kw); bias: (out) or None.
    Raises:
        ShapeError: as `conv_transpose1d`.

    >>> import tinytorch as tt
    >>> x, weight = tt.zeros(2, 8, 16, 16), tt.zeros(8, 3, 5, 5)
    >>> tt.nn.functional.conv_transpose2d(x, weight, stride=2, padding=2, output_padding=1).shape
    (2, 3, 32, 32)
    """
    return _stamp("conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation)


def _stamp(name: str, n: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
           groups: int, dilation: Any) -> Tensor:
    x, weight = as_floats(name, x), as_tensor(weight)
    call = f"{name}({x.type}, weight {weight.type}, groups={groups})"
    images = as_images(name, x, n)
    if weight.ndim != n + 2:
        raise ShapeError(f"{call}: expected a weight (channels, out / groups, {KERNELS[n]})")
    channels, part, *kernel = weight.shape
    if groups < 1 or images.shape[1] != channels or channels % groups:
        raise ShapeError(f"{call}: x has {images.shape[1]} channels, the weight is for {channels}, "
                         "which must divide by the groups")
    step, gap = numbers("stride", stride, n), numbers("dilation", dilation, n)
    cut, more = numbers("padding", padding, n, least=0), numbers("output_padding", output_padding, n, least=0)
    if any(m >= max(s, d) for m, s, d in zip(more, step, gap, strict=True)):
        raise ShapeError(f"{call}: output_padding={more} must be less than stride={step} or dilation={gap}")
    out = part * groups
    whole = [(m - 1) * s + d * (k - 1) + 1 for m, s, d, k in zip(x.shape[-n:], step, gap, kernel, strict=True)]
    if any(m - 2 * p + o < 1 for m, p, o in zip(whole, cut, more, strict=True)):
        raise ShapeError(f"{call}: padding={cut} cuts off all of the {tuple(whole)} elements")
    one, reach = (1,) * (2 - n), [d * (k - 1) for d, k in zip(gap, kernel, strict=True)]
    low = (*(0,) * (2 - n), *(r - p for r, p in zip(reach, cut, strict=True)))
    high = (*(0,) * (2 - n), *(r - p + o for r, p, o in zip(reach, cut, more, strict=True)))
    # The convolution, channels last, of x with zeros spread in between; its kernel is turned round.
    stamp = (weight if n == 2 else weight.unsqueeze(-2)).permute(2, 3, 1, 0)  # (kh, kw, out / groups, channels)
    y = as_tensor(ops.convolve(images.permute(0, 2, 3, 1), turned(stamp, groups), 1, low, high, one + gap, one + step,
                               groups)).permute(0, 3, 1, 2)
    y = y if n == 2 else y.reshape(y.shape[0], out, y.shape[3])
    return _plus_bias(y if x.ndim == n + 2 else y.reshape(y.shape[1:]), bias, out, n, call)
