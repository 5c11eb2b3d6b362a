"""Functions of tensors that are not methods, or that read better as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytorch.ir import ops

from .tensor import Tensor, as_tensor


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where `condition` holds, y elsewhere; all three broadcast."""
    return as_tensor(ops.where(condition, x, y))


def concat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors one after the other along `dim`."""
    return as_tensor(ops.concat(*tensors, axis=dim))


cat = concat


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis `dim`."""
    return concat([as_tensor(t).unsqueeze(dim) for t in tensors], dim)


def maximum(x: Any, y: Any) -> Tensor:
    """The greater of each pair; nan if either is."""
    return as_tensor(ops.maximum(x, y))


def minimum(x: Any, y: Any) -> Tensor:
    """The lesser of each pair; nan if either is."""
    return as_tensor(ops.minimum(x, y))


def exp(x: Any) -> Tensor:
    """eˣ."""
    return as_tensor(ops.exp(x))


def log(x: Any) -> Tensor:
    """The natural logarithm."""
    return as_tensor(ops.log(x))


def sqrt(x: Any) -> Tensor:
    """√x."""
    return as_tensor(ops.sqrt(x))


def abs(x: Any) -> Tensor:
    """|x|."""
    return as_tensor(ops.abs(x))


def sin(x: Any) -> Tensor:
    """The sine."""
    return as_tensor(ops.sin(x))


def cos(x: Any) -> Tensor:
    """The cosine."""
    return as_tensor(ops.cos(x))


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent."""
    return as_tensor(ops.tanh(x))


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + e⁻ˣ)."""
    return as_tensor(ops.sigmoid(x))


def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """x kept within [min, max]; None leaves a side open."""
    return as_tensor(ops.clip(x, min, max))


def sum(x: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Σ over `dim`."""
    return as_tensor(x).sum(dim, keepdim)


def mean(x: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The mean over `dim`."""
    return as_tensor(x).mean(dim, keepdim)


def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the greatest."""
    return as_tensor(x).argmax(dim, keepdim)


def softmax(x: Any, dim: int = -1) -> Tensor:
    """eˣ / Σeˣ along `dim`."""
    return as_tensor(ops.softmax(x, dim))
