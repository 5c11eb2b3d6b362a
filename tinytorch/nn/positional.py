"""Where a token stands: encodings added to embeddings (sinusoidal, learned), or turned into queries and keys (rotary).

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> nn.SinusoidalPositionalEncoding(8, max_len=100)(tt.zeros(2, 10, 8)).shape     # (batch, time, features)
    (2, 10, 8)
    >>> nn.RotaryEmbedding(16)(tt.zeros(2, 4, 10, 16)).shape                          # (batch, heads, time, head_dim)
    (2, 4, 10, 16)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.creation import arange, zeros
from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Parameter, Tensor, as_tensor, tensor

from . import functional as F
from . import init
from .module import Module

__all__ = ["LearnedPositionalEmbedding", "RotaryEmbedding", "SinusoidalPositionalEncoding"]


class SinusoidalPositionalEncoding(Module):
    """x + p, where p[t, 2i] = sin(t / base^(2i / d)) and p[t, 2i + 1] = cos of the same (Vaswani et al., 2017).

    The table is no parameter, and not in `state_dict`: it follows from the sizes.

    Args:
        d_model: features d; an odd one ends with a sine.
        max_len: the greatest number of positions.
        dropout: of the sum, in training.
    Raises:
        ShapeError: when called with other features, or beyond `max_len` positions.

    >>> import tinytorch as tt
    >>> tt.nn.SinusoidalPositionalEncoding(4)(tt.zeros(1, 2, 4))
    tensor([[[0.    , 1.    , 0.    , 1.    ],
             [0.8415, 0.5403, 0.01  , 0.9999]]])
    """

    table: Tensor

    def __init__(self, d_model: int, max_len: int = 5000, dropout: float = 0.0, base: float = 10000.0) -> None:
        self.d_model, self.max_len, self.dropout = d_model, max_len, dropout
        angles = _angles(max_len, d_model, base)
        table = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(max_len, -1)[:, :d_model]
        self.register_buffer("table", tensor(table, "f32"), persistent=False)

    def forward(self, x: Any, offset: int | Tensor = 0) -> Tensor:
        """x (…, time, d_model) plus the encodings of positions offset, offset + 1, …"""
        x = as_tensor(x)
        _check_features(type(self).__name__, x, self.d_model)
        return F.dropout(x + rows(self.table, x.shape[-2], offset, type(self).__name__), self.dropout, self.training)

    def extra_repr(self) -> str:
        """Its sizes."""
        return f"{self.d_model}, max_len={self.max_len}" + (f", dropout={self.dropout}" if self.dropout else "")


class LearnedPositionalEmbedding(Module):
    """x + weight[position]: a trained vector for each position, as in BERT and GPT-2.

    Attributes:
        weight: (max_len, d_model), begins normal with standard deviation 0.02.
    Raises:
        ShapeError: when called with other features, or beyond `max_len` positions.

    >>> import tinytorch as tt
    >>> tt.nn.LearnedPositionalEmbedding(64, 8)(tt.zeros(2, 10, 8)).shape
    (2, 10, 8)
    """

    def __init__(self, max_len: int, d_model: int, dtype: Any = "f32") -> None:
        self.max_len, self.d_model = max_len, d_model
        self.weight = init.normal_(Parameter(zeros(max_len, d_model, dtype=dtype)), std=0.02)

    def forward(self, x: Any, offset: int | Tensor = 0) -> Tensor:
        """x (…, time, d_model) plus the vectors of positions offset, offset + 1, …"""
        x = as_tensor(x)
        _check_features(type(self).__name__, x, self.d_model)
        return x + rows(self.weight, x.shape[-2], offset, type(self).__name__)

    def extra_repr(self) -> str:
        """As PyTorch prints a table."""
        return f"{self.max_len}, {self.d_model}"


class RotaryEmbedding(Module):
    """Queries and keys turned by angles that grow with their position (Su et al., "RoFormer", 2021).

    The product of a query and a key then depends on the distance between them. Pair i of the features is turned by
    position / base^(2i / dim). The tables are no parameters, and not in `state_dict`.

    Args:
        dim: features of a head, even.
        max_len: the greatest number of positions.
        interleaved: which features make a pair, see `F.rotary`.
    Raises:
        ShapeError: `dim` is odd; or when called with other features, or beyond `max_len` positions.

    >>> import tinytorch as tt
    >>> rope = tt.nn.RotaryEmbedding(2)
    >>> x = tt.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> rope(x)                                                   # by 0 and by 1 radian
    tensor([[1.    , 0.    ],
            [0.5403, 0.8415]])
    >>> rope(x[1:], offset=1)                                     # when decoding: the position of the first
    tensor([[0.5403, 0.8415]])
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, dim: int, max_len: int = 2048, base: float = 10000.0, interleaved: bool = False) -> None:
        if dim % 2:
            raise ShapeError(f"RotaryEmbedding({dim}): features are turned in pairs; expected an even number")
        self.dim, self.max_len, self.base, self.interleaved = dim, max_len, base, interleaved
        angles = _angles(max_len, dim, base)
        self.register_buffer("cos", tensor(np.cos(angles), "f32"), persistent=False)
        self.register_buffer("sin", tensor(np.sin(angles), "f32"), persistent=False)

    def forward(self, x: Any, offset: int | Tensor = 0) -> Tensor:
        """x (…, time, dim), turned as positions offset, offset + 1, … are."""
        x = as_tensor(x)
        _check_features(type(self).__name__, x, self.dim)
        cos, sin = (rows(table, x.shape[-2], offset, type(self).__name__) for table in (self.cos, self.sin))
        return F.rotary(x, cos, sin, self.interleaved)

    def extra_repr(self) -> str:
        """Its sizes."""
        return f"{self.dim}, max_len={self.max_len}, base={self.base}, interleaved={self.interleaved}"


def rows(table: Tensor, count: int, offset: int | Tensor, who: str) -> Tensor:
    """`count` rows of a table of positions, from `offset` on; an offset that is a tensor is an input when compiled.

    Raises:
        ShapeError: there are not so many positions (IndexError, if the offset is a tensor).
    """
    if isinstance(offset, Tensor):
        return F.embedding(offset + arange(count), table)
    if not 0 <= offset <= offset + count <= table.shape[0]:
        raise ShapeError(f"{who}: positions {offset} … {offset + count - 1} of a table that ends at "
                         f"{table.shape[0] - 1}; use a shorter sequence, or make the module with more positions")
    return table if count == table.shape[0] else table[offset:offset + count]


def _angles(positions: int, features: int, base: float) -> np.ndarray:
    """position / base^(2i / features): (positions, ⌈features / 2⌉), in f64."""
    rates = base ** (-np.arange(0, features, 2) / features)
    return np.outer(np.arange(positions), rates)


def _check_features(who: str, x: Tensor, features: int) -> None:
    if x.ndim < 2 or x.shape[-1] != features:
        raise ShapeError(f"{who}({x.type}): expected (…, time, {features})")
