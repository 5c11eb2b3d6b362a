"""Functions of tensors that are not methods, or that read better as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytorch.ir import ops

from .tensor import Tensor, as_tensor


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where `condition` holds, y elsewhere; all three broadcast.

    >>> import tinytorch as tt
    >>> tt.where(tt.tensor([True, False]), 1.0, tt.tensor([5.0, 6.0]))
    tensor([1., 6.])
    """
    return as_tensor(ops.where(condition, x, y))


def concat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors one after the other along `dim`.

    >>> import tinytorch as tt
    >>> tt.concat([tt.zeros(2), tt.ones(1)])
    tensor([0., 0., 1.])
    """
    return as_tensor(ops.concat(*tensors, axis=dim))


cat = concat


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis `dim`.

    >>> import tinytorch as tt
    >>> tt.stack([tt.zeros(2), tt.ones(2)]).shape
    (2, 2)
    """
    return concat([as_tensor(t).unsqueeze(dim) for t in tensors], dim)


def maximum(x: Any, y: Any) -> Tensor:
    """The greater of each pair; nan if either is.

    >>> import tinytorch as tt
    >>> tt.maximum(tt.tensor([1.0, 4.0]), 2.0)
    tensor([2., 4.])
    """
    return as_tensor(ops.maximum(x, y))


def minimum(x: Any, y: Any) -> Tensor:
    """The lesser of each pair; nan if either is.

    >>> import tinytorch as tt
    >>> tt.minimum(tt.tensor([1.0, 4.0]), 2.0)
    tensor([1., 2.])
    """
    return as_tensor(ops.minimum(x, y))


def logaddexp(x: Any, y: Any) -> Tensor:
    """log(eˣ + eʸ), never overflowing: how probabilities are added whose logarithms are known.

    >>> import tinytorch as tt
    >>> tt.logaddexp(tt.tensor([0.0, 1000.0]), 0.0)
    tensor([6.9315e-01, 1.0000e+03])
    """
    return as_tensor(ops.logaddexp(x, y))


def exp(x: Any) -> Tensor:
    """eˣ.

    >>> import tinytorch as tt
    >>> tt.exp(tt.tensor([0.0, 1.0]))
    tensor([1.    , 2.7183])
    """
    return as_tensor(ops.exp(x))


def log(x: Any) -> Tensor:
    """The natural logarithm.

    >>> import tinytorch as tt
    >>> tt.log(tt.tensor([1.0, 10.0]))
    tensor([0.    , 2.3026])
    """
    return as_tensor(ops.log(x))


def sqrt(x: Any) -> Tensor:
    """√x.

    >>> import tinytorch as tt
    >>> tt.sqrt(tt.tensor([4.0, 9.0]))
    tensor([2., 3.])
    """
    return as_tensor(ops.sqrt(x))


def abs(x: Any) -> Tensor:
    """|x|.

    >>> import tinytorch as tt
    >>> tt.abs(tt.tensor([-1.0, 2.0]))
    tensor([1., 2.])
    """
    return as_tensor(ops.abs(x))


def sin(x: Any) -> Tensor:
    """The sine.

    >>> import tinytorch as tt
    >>> tt.sin(tt.tensor([0.0, 1.0]))
    tensor([0.    , 0.8415])
    """
    return as_tensor(ops.sin(x))


def cos(x: Any) -> Tensor:
    """The cosine.

    >>> import tinytorch as tt
    >>> tt.cos(tt.tensor([0.0, 1.0]))
    tensor([1.    , 0.5403])
    """
    return as_tensor(ops.cos(x))


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent.

    >>> import tinytorch as tt
    >>> tt.tanh(tt.tensor([0.0, 1.0]))
    tensor([0.    , 0.7616])
    """
    return as_tensor(ops.tanh(x))


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + e⁻ˣ).

    >>> import tinytorch as tt
    >>> tt.sigmoid(tt.tensor([0.0, 1.0]))
    tensor([0.5   , 0.7311])
    """
    return as_tensor(ops.sigmoid(x))


def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """x kept within [min, max]; None leaves a side open.

    >>> import tinytorch as tt
    >>> tt.clip(tt.tensor([-1.0, 0.5, 3.0]), 0.0, 1.0)
    tensor([0. , 0.5, 1. ])
    """
    return as_tensor(ops.clip(x, min, max))


def sum(x: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Σ over `dim`.

    >>> import tinytorch as tt
    >>> tt.sum(tt.ones(2, 3), dim=1)
    tensor([3., 3.])
    """
    return as_tensor(x).sum(dim, keepdim)


def mean(x: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The mean over `dim`.

    >>> import tinytorch as tt
    >>> tt.mean(tt.tensor([1.0, 3.0]))
    tensor(2.)
    """
    return as_tensor(x).mean(dim, keepdim)


def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the greatest.

    >>> import tinytorch as tt
    >>> tt.argmax(tt.tensor([1.0, 5.0, 2.0]))
    tensor(1)
    """
    return as_tensor(x).argmax(dim, keepdim)


def softmax(x: Any, dim: int = -1) -> Tensor:
    """eˣ / Σeˣ along `dim`.

    >>> import tinytorch as tt
    >>> tt.softmax(tt.tensor([0.0, 0.0]))
    tensor([0.5, 0.5])
    """
    return as_tensor(ops.softmax(x, dim))
