"""Layers with parameters or with a mode: Linear, Embedding, Dropout, Flatten, Identity."""

from __future__ import annotations

import math
from typing import Any

from tinytorch.creation import zeros
from tinytorch.ir.errors import OpError
from tinytorch.tensor import Parameter, Tensor

from . import functional as F
from . import init
from .module import Module

__all__ = ["Dropout", "Embedding", "Flatten", "Identity", "Linear"]


class Linear(Module):
    """y = x Wᵀ + b: x (…, in_features), y (…, out_features).

    Attributes:
        weight: (out_features, in_features); bias: (out_features) or None. Both begin uniform on ±1 / √in_features.
    Raises:
        ShapeError: when called with an x whose last extent is not in_features.

    >>> import tinytorch as tt
    >>> tt.nn.Linear(3, 2)(tt.zeros(5, 3)).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: Any = "f32") -> None:
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = init.uniform_(Parameter(zeros(out_features, in_features, dtype=dtype)), -bound, bound)
        self.bias = init.uniform_(Parameter(zeros(out_features, dtype=dtype)), -bound, bound) if bias else None

    def forward(self, x: Any) -> Tensor:
        """x Wᵀ + b."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of vectors: integer positions (…) give (…, embedding_dim).

    Attributes:
        weight: (num_embeddings, embedding_dim), begins standard normal.
    Raises:
        IndexError: when called with a position that is not in the table.

    >>> import tinytorch as tt
    >>> tt.nn.Embedding(10, 4)(tt.tensor([[1, 2, 9]])).shape
    (1, 3, 4)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: Any = "f32") -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = init.normal_(Parameter(zeros(num_embeddings, embedding_dim, dtype=dtype)))

    def forward(self, indices: Any) -> Tensor:
        """The rows at `indices`."""
        return F.embedding(indices, self.weight)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class Dropout(Module):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p) (Srivastava et al., 2014).

    >>> import tinytorch as tt
    >>> tt.nn.Dropout(0.5).eval()(tt.ones(3))
    tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise OpError(f"Dropout(p={p}): expected a probability, 0 ≤ p ≤ 1")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        """x, thinned out in training."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"p={self.p}"


class Flatten(Module):
    """Merge the axes start_dim to end_dim: (batch, c, h, w) becomes (batch, c · h · w).

    >>> import tinytorch as tt
    >>> tt.nn.Flatten()(tt.zeros(5, 1, 28, 28)).shape
    (5, 784)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """x with those axes merged."""
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Gives back what it is given; takes a layer's place."""

    def forward(self, x: Any) -> Any:
        """x."""
        return x
