"""Linear maps, tables and dropout as functions."""

from __future__ import annotations

from typing import Any

from tinytorch.ir import ops
from tinytorch.random import next_key
from tinytorch.tensor import Tensor, as_tensor

from .check import check_range

__all__ = ["dropout", "embedding", "linear", "one_hot"]


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """x Wᵀ + b: x (…, in), weight (out, in), bias (out) or None, result (…, out)."""
    return as_tensor(ops.linear(x, weight) if bias is None else ops.linear(x, weight, bias))


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """In training, zero each element with probability p, scale the others by 1 / (1 - p) (Srivastava et al., 2014)."""
    return as_tensor(ops.dropout(x, next_key(), p)) if training and p else as_tensor(x)


def embedding(indices: Any, weight: Any) -> Tensor:
    """The rows of `weight` (rows, features) at integer `indices` (…), as (…, features).

    Raises:
        IndexError: a row is not there.
    """
    indices, weight = as_tensor(indices), as_tensor(weight)
    check_range("embedding: index", indices, weight.shape[0], "rows of the table")
    return as_tensor(ops.take(weight, indices, 0))


def one_hot(labels: Any, num_classes: int) -> Tensor:
    """Integer labels (…) as i64 (…, num_classes): 1 at the label, 0 elsewhere.

    >>> import tinytorch as tt
    >>> tt.nn.functional.one_hot(tt.tensor([1, 0]), 3)
    tensor([[0, 1, 0],
            [1, 0, 0]])
    """
    labels = as_tensor(labels)
    check_range("one_hot: label", labels, num_classes, "classes")
    return as_tensor(ops.cast(ops.eq(ops.iota((*labels.shape, num_classes), -1), labels.unsqueeze(-1)), "i64"))
