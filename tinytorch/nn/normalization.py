"""Layers that normalise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytorch.creation import ones, zeros
from tinytorch.tensor import Parameter, Tensor

from . import functional as F
from .module import Module

__all__ = ["LayerNorm"]


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
