"""Layers that normalise: batch norm over the batch, layer, RMS and group norm within each example.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> layer = nn.BatchNorm1d(1)
    >>> layer(tt.tensor([[1.0], [3.0]])).tolist()[0], layer.running_mean  # in training: the batch's statistics
    ([-0.9999949932098389], tensor([0.2]))
    >>> layer.eval()(tt.tensor([[0.2]])).tolist()  # afterwards: those that were kept
    [[0.0]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytorch.autograd import no_grad
from tinytorch.creation import ones, zeros
from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Parameter, Tensor, as_tensor

from . import functional as F
from .module import Module

__all__ = ["BatchNorm1d", "BatchNorm2d", "GroupNorm", "LayerNorm", "RMSNorm"]


class LayerNorm(Module):
    """(x - mean) / √(variance + eps) over the last axes, · weight + bias (Ba et al., 2016).

    Attributes:
        weight, bias: of shape `normalized_shape`, begin as 1 and 0; None without `elementwise_affine` (or `bias`).
    Raises:
        ShapeError: when called with an x that does not end in `normalized_shape`.

    >>> import tinytorch as tt
    >>> tt.nn.LayerNorm(2)(tt.tensor([[1.0, 3.0]]))
    tensor([[-1.,  1.]], grad of layer_norm)
    """

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, dtype: Any = "f32") -> None:
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = Parameter(ones(self.normalized_shape, dtype=dtype)) if elementwise_affine else None
        self.bias = Parameter(zeros(self.normalized_shape, dtype=dtype)) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Tensor:
        """x, normalised."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        affine, bias = self.weight is not None, self.bias is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}, bias={bias}"


class RMSNorm(Module):
    """x / √(mean x² + eps) over the last axes, · weight (Zhang and Sennrich, 2019).

    Attributes:
        weight: of shape `normalized_shape`, begins as 1; None without `elementwise_affine`.
        eps: None for the distance from 1 to the next number of x's element type.
    Raises:
        ShapeError: when called with an x that does not end in `normalized_shape`.

    >>> import tinytorch as tt
    >>> tt.nn.RMSNorm(2)(tt.tensor([[1.0, 7.0]]))
    tensor([[0.2, 1.4]], grad of rms_norm)
    """

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None = None,
                 elementwise_affine: bool = True, dtype: Any = "f32") -> None:
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = Parameter(ones(self.normalized_shape, dtype=dtype)) if elementwise_affine else None

    def forward(self, x: Any) -> Tensor:
        """x, normalised."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class GroupNorm(Module):
    """(x - mean) / √(variance + eps) over each group of channels of each example, · weight + bias (Wu and He, 2018).

    Attributes:
        weight, bias: (num_channels), begin as 1 and 0; None without `affine` (or `bias`).
    Raises:
        ShapeError: num_channels does not divide by num_groups; or x is not (batch, num_channels, …).

    >>> import tinytorch as tt
    >>> tt.nn.GroupNorm(2, 6)(tt.zeros(5, 6, 8, 8)).shape
    (5, 6, 8, 8)
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, dtype: Any = "f32",
                 *, bias: bool = True) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ShapeError(f"GroupNorm({num_groups}, {num_channels}): the channels must divide by the groups")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.weight = Parameter(ones(num_channels, dtype=dtype)) if affine else None
        self.bias = Parameter(zeros(num_channels, dtype=dtype)) if affine and bias else None

    def forward(self, x: Any) -> Tensor:
        """x, normalised."""
        x = as_tensor(x)
        _check_channels(self, x, self.num_channels)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


class _BatchNorm(Module):
    ranks: tuple[int, ...]
    layout: str
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, dtype: Any = "f32", *, bias: bool = True) -> None:
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats = track_running_stats
        self.weight = Parameter(ones(num_features, dtype=dtype)) if affine else None
        self.bias = Parameter(zeros(num_features, dtype=dtype)) if affine and bias else None
        self.register_buffer("running_mean", zeros(num_features, dtype=dtype) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features, dtype=dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype="i64") if track_running_stats else None)

    def forward(self, x: Any) -> Tensor:
        """x, normalised; in training the statistics are kept."""
        x = as_tensor(x)
        if x.ndim not in self.ranks:
            raise ShapeError(f"{type(self).__name__} of {x.type}: expected {self.layout}")
        _check_channels(self, x, self.num_features)
        own = self.training or self.running_mean is None  # whether x is normalised by its own statistics
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, own, self._momentum(),
                         self.eps)
        if self.training and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.add_(1)
        return y

    def _momentum(self) -> Any:
        """The weight of this batch in the statistics that are kept."""
        if self.momentum is None and self.training and self.num_batches_tracked is not None:
            return (1.0 / (self.num_batches_tracked + 1).double()).to(self.running_mean.dtype)  # type: ignore[union-attr]
        return self.momentum or 0.0

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class BatchNorm1d(_BatchNorm):
    """(x - mean) / √(variance + eps) of each feature, · weight + bias (Ioffe and Szegedy, 2015).

    x is (batch, num_features) or (batch, num_features, length). In training mean and variance are the batch's, and
    moving averages of them are kept (of the unbiased variance); in use (`eval()`) those are taken.

    Args:
        momentum: the weight of a new batch in the averages; None weights all batches alike.
        track_running_stats: without, the batch's own statistics are always taken.
    Attributes:
        weight, bias: (num_features), begin as 1 and 0; None without `affine` (or `bias`).
        running_mean, running_var: (num_features); num_batches_tracked: i64. Buffers; None if they are not tracked.
    Raises:
        ShapeError: x has another rank or other features; or in training one value a feature.

    >>> import tinytorch as tt
    >>> tt.nn.BatchNorm1d(3)(tt.zeros(8, 3)).shape
    (8, 3)
    """

    ranks, layout = (2, 3), "(batch, features) or (batch, features, length)"


class BatchNorm2d(_BatchNorm):
    """`BatchNorm1d` for images: x is (batch, num_features, height, width), statistics are over all but the features.

    >>> import tinytorch as tt
    >>> layer = tt.nn.BatchNorm2d(3)
    >>> layer(tt.zeros(8, 3, 32, 32)).shape, layer.num_batches_tracked
    ((8, 3, 32, 32), tensor(1))
    """

    ranks, layout = (4,), "(batch, features, height, width)"


def _check_channels(module: Module, x: Tensor, expected: int) -> None:
    if x.ndim < 2 or x.shape[1] != expected:
        raise ShapeError(f"{type(module).__name__} of {x.type}: expected {expected} channels (axis 1)")
