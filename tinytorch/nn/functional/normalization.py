"""Normalisation as functions: numbers shifted and scaled to mean 0 and variance 1, over parts that differ by method.

Of x (batch, channels, …), batch norm takes the statistics over all but the channels, layer norm over the last axes,
group norm over groups of channels of one example. RMS norm leaves the mean where it is.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> x = tt.tensor([[1.0, 5.0], [3.0, 5.0]])
    >>> F.layer_norm(x, 2, eps=0.0)
    tensor([[-1.,  1.],
            [-1.,  1.]])
    >>> F.batch_norm(x, None, None, training=True)
    tensor([[-1.,  0.],
            [ 1.,  0.]])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.ir import ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Tensor, as_tensor, tensor

from .check import as_floats

__all__ = ["batch_norm", "group_norm", "layer_norm", "rms_norm"]


def layer_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / standard deviation over the last axes, times weight, plus bias (Ba et al., 2016).

    Args:
        x: (…, *normalized_shape).
        weight, bias: of shape `normalized_shape`, or None.
    Raises:
        ShapeError: x does not end in `normalized_shape`.

    >>> import tinytorch as tt
    >>> tt.nn.functional.layer_norm(tt.tensor([[1.0, 3.0]]), 2)
    tensor([[-1.,  1.]])
    """
    x = as_floats("layer_norm", x)
    axes = _last_axes("layer_norm", x, normalized_shape)
    y = ops.layer_norm(x, *([] if weight is None else [weight] if bias is None else [weight, bias]), axis=axes, eps=eps)
    return as_tensor(y + bias if weight is None and bias is not None else y)


def rms_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None) -> Tensor:
    """x / √(mean x² + eps) over the last axes, times weight (Zhang and Sennrich, 2019).

    Args:
        x: (…, *normalized_shape).
        weight: of shape `normalized_shape`, or None.
        eps: by default the distance from 1 to the next number of x's element type.
    Raises:
        ShapeError: x does not end in `normalized_shape`.

    >>> import tinytorch as tt
    >>> tt.nn.functional.rms_norm(tt.tensor([[1.0, 7.0]]), 2)
    tensor([[0.2, 1.4]])
    """
    x = as_floats("rms_norm", x)
    axes = _last_axes("rms_norm", x, normalized_shape)
    eps = _epsilon(x) if eps is None else eps
    return as_tensor(ops.rms_norm(x, *([] if weight is None else [weight]), axis=axes, eps=eps))


def _last_axes(name: str, x: Tensor, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape):] != shape:
        raise ShapeError(f"{name} of {x.type}: expected a tensor whose shape ends in {shape}")
    return tuple(range(-len(shape), 0))


def _epsilon(x: Tensor) -> float:
    """The distance from 1 to the next number of x's type."""
    return 2.0**-7 if x.dtype.name == "bf16" else float(np.finfo(x.dtype.np).eps)


# -- over channels -----------------------------------------------------------------------------------------------------


def group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / standard deviation over each group of channels of each example (Wu and He, 2018).

    Args:
        x: (batch, channels, …); channels divide by `num_groups`.
        weight, bias: (channels) to multiply by and to add, or None.
    Raises:
        ShapeError: the channels do not divide, or weight or bias is not one number for each.

    >>> import tinytorch as tt
    >>> tt.nn.functional.group_norm(tt.tensor([[[1.0], [3.0], [0.0], [8.0]]]), 2).flatten()
    tensor([-1.,  1., -1.,  1.])
    """
    x = as_floats("group_norm", x)
    _check_channels("group_norm", x, weight=weight, bias=bias)
    batch, channels, *rest = x.shape
    if num_groups < 1 or channels % num_groups:
        raise ShapeError(f"group_norm of {x.type}: its {channels} channels do not divide by num_groups={num_groups}")
    groups = x.reshape(batch, num_groups, channels // num_groups * math.prod(rest))
    y = as_tensor(ops.layer_norm(groups, axis=-1, eps=eps)).reshape(x.shape)
    y = y if weight is None else y * _along_channels(weight, x)
    return y if bias is None else y + _along_channels(bias, x)


def batch_norm(x: Any, running_mean: Tensor | None, running_var: Tensor | None, weight: Any = None, bias: Any = None,
               training: bool = False, momentum: Any = 0.1, eps: float = 1e-5) -> Tensor:
    """(x - mean) / √(variance + eps) of each channel, times weight, plus bias (Ioffe and Szegedy, 2015).

    Args:
        x: (batch, channels, …).
        running_mean, running_var: (channels); what is used if not `training`. In training the statistics of x are
            used, and these are overwritten by (1 - momentum) · running + momentum · batch, if they are not None.
            The variance that is kept is the unbiased one, divided by n - 1.
        weight, bias: (channels), or None.
        momentum: a number, or a tensor of one.
    Raises:
        ShapeError: statistics or weights are not one number a channel, or in training a channel has one value only.
        OpError: there are no statistics to use.

    >>> import tinytorch as tt
    >>> mean, var = tt.zeros(1), tt.ones(1)
    >>> tt.nn.functional.batch_norm(tt.tensor([[1.0], [3.0]]), mean, var, training=True)
    tensor([[-1.],
            [ 1.]])
    >>> mean, var
    (tensor([0.2]), tensor([1.1]))
    """
    x = as_floats("batch_norm", x)
    _check_channels("batch_norm", x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    axes = (0, *range(2, x.ndim))
    count = math.prod(x.shape[axis] for axis in axes)
    if not training or not count:
        return _by_given(x, running_mean, running_var, weight, bias, eps)
    if count == 1:
        raise ShapeError(f"batch_norm of {x.type} in training: a channel has one value only, whose variance is 0; "
                         "train on larger batches, or use eval()")
    mean = x.mean(axes, keepdim=True)
    d = x - mean
    var = d.square().mean(axes, keepdim=True)
    _move(running_mean, mean, momentum)
    _move(running_var, var * (count / (count - 1)), momentum)
    scale = (var + eps).rsqrt()
    y = d * (scale if weight is None else scale * _along_channels(weight, x))
    return y if bias is None else y + _along_channels(bias, x)


def _by_given(x: Tensor, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> Tensor:
    """x normalised by given statistics; any will do for an empty one."""
    if x.size and (mean is None or var is None):
        raise OpError("batch_norm(training=False) needs running_mean and running_var; "
                      "training=True takes the statistics of x")
    found = (tensor(default, x.dtype) if given is None else given
             for given, default in ((mean, 0.0), (var, 1.0), (weight, 1.0), (bias, 0.0)))
    return as_tensor(ops.batch_norm(x, *found, eps))


def _move(running: Tensor | None, batch: Tensor, momentum: Any) -> None:
    """running ← (1 - momentum) · running + momentum · batch."""
    if running is not None:
        with no_grad():
            running.copy_(running * (1 - momentum) + batch.reshape(running.shape) * momentum)


def _along_channels(numbers: Any, x: Tensor) -> Tensor:
    """(channels) as (channels, 1, …), to meet axis 1 of x."""
    return as_tensor(numbers).reshape(-1, *(1,) * (x.ndim - 2))


def _check_channels(name: str, x: Tensor, **given: Any) -> None:
    if x.ndim < 2:
        raise ShapeError(f"{name} of {x.type}: expected (batch, channels, …)")
    for label, numbers in given.items():
        if numbers is not None and as_tensor(numbers).shape != x.shape[1:2]:
            raise ShapeError(f"{name} of {x.type}: {label} is {as_tensor(numbers).type}, expected one number for each "
                             f"of the {x.shape[1]} channels (axis 1)")
