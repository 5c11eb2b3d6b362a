"""Layers with parameters or with a mode: Linear, Bilinear, Embedding, Dropout, and those that change the shape.

    >>> import tinytorch as tt
    >>> tt.nn.Embedding(10, 4, padding_idx=0)
    Embedding(10, 4, padding_idx=0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinytorch.autograd import no_grad
from tinytorch.creation import zeros
from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Parameter, Tensor, as_tensor

from . import functional as F
from . import init
from .functional.check import check_probability
from .functional.layers import check_row
from .module import Module

__all__ = [
    "Bilinear", "Dropout", "Dropout1d", "Dropout2d", "Embedding", "Flatten", "Identity", "Linear", "Unflatten",
]


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
        bound = 1 / math.sqrt(in_features) if in_features > 0 else 0.0
        self.weight = init.uniform_(Parameter(zeros(out_features, in_features, dtype=dtype)), -bound, bound)
        self.bias = init.uniform_(Parameter(zeros(out_features, dtype=dtype)), -bound, bound) if bias else None

    def forward(self, x: Any) -> Tensor:
        """x Wᵀ + b."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """yₒ = x1ᵀ Wₒ x2 + bₒ: x1 (…, in1_features), x2 (…, in2_features), y (…, out_features).

    Attributes:
        weight: (out_features, in1_features, in2_features); bias: (out_features) or None. Both begin uniform on
            ±1 / √in1_features.
    Raises:
        ShapeError: when called with shapes that do not fit.

    >>> import tinytorch as tt
    >>> tt.nn.Bilinear(3, 4, 2)(tt.zeros(5, 3), tt.zeros(5, 4)).shape
    (5, 2)
    """

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
                 dtype: Any = "f32") -> None:
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        bound = 1 / math.sqrt(in1_features) if in1_features > 0 else 0.0
        shape = (out_features, in1_features, in2_features)
        self.weight = init.uniform_(Parameter(zeros(shape, dtype=dtype)), -bound, bound)
        self.bias = init.uniform_(Parameter(zeros(out_features, dtype=dtype)), -bound, bound) if bias else None

    def forward(self, x1: Any, x2: Any) -> Tensor:
        """The formula above."""
        return F.bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")


class Embedding(Module):
    """A table of vectors: integer positions (…) give (…, embedding_dim).

    Args:
        padding_idx: a row that begins as 0 and gets no gradient; a negative one counts from the end.
    Attributes:
        weight: (num_embeddings, embedding_dim), begins standard normal.
    Raises:
        IndexError: there is no row padding_idx; when called with a position that is not in the table.

    >>> import tinytorch as tt
    >>> tt.nn.Embedding(10, 4)(tt.tensor([[1, 2, 9]])).shape
    (1, 3, 4)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *,
                 dtype: Any = "f32") -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else check_row(padding_idx, num_embeddings)
        self.weight = init.normal_(Parameter(zeros(num_embeddings, embedding_dim, dtype=dtype)))
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """A layer with a copy of the table `embeddings` (rows, features), not trained if `freeze`."""
        weight = as_tensor(embeddings)
        if weight.ndim != 2:
            raise ShapeError(f"Embedding.from_pretrained({weight.type}): expected a table (rows, features)")
        rows, features = weight.shape
        layer = cls(rows, features, padding_idx, dtype=weight.dtype)
        layer.weight = Parameter(weight.clone(), not freeze)
        return layer

    def forward(self, indices: Any) -> Tensor:
        """The rows at `indices`."""
        return F.embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Dropout(Module):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p) (Srivastava et al., 2014).

    Raises:
        OpError: p is not from 0 to 1.

    >>> import tinytorch as tt
    >>> tt.nn.Dropout(0.5).eval()(tt.ones(3))
    tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        check_probability(f"{type(self).__name__}(p", p)
        self.p, self.inplace = p, inplace

    def forward(self, x: Any) -> Tensor:
        """x, thinned out in training."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """What is dropped."""
        return f"p={self.p}, inplace=True" if self.inplace else f"p={self.p}"


class Dropout1d(Dropout):
    """`Dropout` of whole channels of x (batch, channels, length) or (channels, length).

    Raises:
        OpError: p is not from 0 to 1.
        ShapeError: when called with another number of axes.

    >>> import tinytorch as tt
    >>> tt.nn.Dropout1d(0.5)(tt.ones(2, 3, 4)).shape
    (2, 3, 4)
    """

    def forward(self, x: Any) -> Tensor:
        """x, without some channels in training."""
        return F.dropout1d(x, self.p, self.training)


class Dropout2d(Dropout):
    """`Dropout` of whole channels of x (batch, channels, height, width) (Tompson et al., 2015).

    Raises:
        OpError: p is not from 0 to 1.

    >>> import tinytorch as tt
    >>> sums = tt.nn.Dropout2d(0.5)(tt.ones(8, 8, 2, 2)).sum((2, 3))
    >>> sorted(set(sums.flatten().tolist()))
    [0.0, 8.0]
    """

    def forward(self, x: Any) -> Tensor:
        """x, without some channels in training."""
        return F.dropout2d(x, self.p, self.training)


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


class Unflatten(Module):
    """Split the axis `dim` into several: (batch, c · h · w) becomes (batch, c, h, w).

    Args:
        unflattened_size: the extents of the new axes; one may be -1.
    Raises:
        ShapeError: when called with an x that has no such axis, or one of another extent.

    >>> import tinytorch as tt
    >>> tt.nn.Unflatten(1, (1, 28, 28))(tt.zeros(5, 784)).shape
    (5, 1, 28, 28)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        """x with that axis split."""
        if not -x.ndim <= self.dim < x.ndim:
            raise ShapeError(f"Unflatten(dim={self.dim}) of {x.type}: there is no such axis")
        at, size = self.dim % x.ndim, self.unflattened_size
        if -1 in size:
            rest = -math.prod(size)
            size = tuple(x.shape[at] // rest if n == -1 and rest > 0 else n for n in size)
        if math.prod(size) != x.shape[at]:
            raise ShapeError(f"Unflatten of {x.type}: axis {self.dim} does not split into {self.unflattened_size}")
        return x.reshape(*x.shape[:at], *size, *x.shape[at + 1:])

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Identity(Module):
    """Gives back what it is given; takes a layer's place. Arguments for that layer are passed over.

    >>> import tinytorch as tt
    >>> tt.nn.Identity(54, bias=False)(tt.tensor([1.0]))
    tensor([1.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        """x."""
        return x
