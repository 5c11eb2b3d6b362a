"""Linear maps, tables, dropout, padding and distances as functions.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> F.linear(tt.ones(5, 3), tt.ones(2, 3)).shape
    (5, 2)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinytorch.creation import ones
from tinytorch.ir import ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.random import next_key
from tinytorch.tensor import Tensor, as_tensor

from .check import as_floats, check_probability, check_range

__all__ = [
    "bilinear", "cosine_similarity", "dropout", "dropout1d", "dropout2d", "embedding", "linear", "normalize", "one_hot",
    "pad", "pairwise_distance",
]

FILLS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # PyTorch's names, NumPy's


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """x Wᵀ + b: x (…, in), weight (out, in), bias (out) or None, result (…, out).

    Raises:
        ShapeError: the shapes do not fit.
        DTypeError: x is not floating point.

    >>> import tinytorch as tt
    >>> tt.nn.functional.linear(tt.tensor([1.0, 2.0]), tt.tensor([[1.0, 10.0]]))
    tensor([21.])
    """
    x = as_floats("linear", x)
    return as_tensor(ops.linear(x, weight) if bias is None else ops.linear(x, weight, bias))


def bilinear(x1: Any, x2: Any, weight: Any, bias: Any = None) -> Tensor:
    """yₒ = x1ᵀ Wₒ x2 + bₒ: x1 (…, in1), x2 (…, in2), weight (out, in1, in2), bias (out) or None, result (…, out).

    Raises:
        ShapeError: the shapes do not fit.

    >>> import tinytorch as tt
    >>> tt.nn.functional.bilinear(tt.ones(4, 2), tt.ones(4, 3), tt.ones(5, 2, 3)).shape
    (4, 5)
    """
    x1, x2, weight = as_floats("bilinear", x1), as_floats("bilinear", x2), as_tensor(weight)
    if (not x1.ndim or weight.ndim != 3 or x1.shape[:-1] != x2.shape[:-1]
            or (x1.shape[-1:], x2.shape[-1:]) != (weight.shape[1:2], weight.shape[2:])):
        raise ShapeError(f"bilinear({x1.type}, {x2.type}, weight {weight.type}): expected x1 (…, in1) and x2 (…, in2) "
                         "for a weight (out, in1, in2)")
    out, in1, in2 = weight.shape
    left = x1.reshape(math.prod(x1.shape[:-1]), in1) @ weight.permute(1, 0, 2).reshape(in1, out * in2)
    y = (left.reshape(*x1.shape[:-1], out, in2) * x2.unsqueeze(-2)).sum(-1)
    return y if bias is None else as_tensor(y + bias)


def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, zero each element with probability p, scale the others by 1 / (1 - p) (Srivastava et al., 2014).

    Raises:
        OpError: p is not from 0 to 1.

    >>> import tinytorch as tt
    >>> sorted(set(tt.nn.functional.dropout(tt.ones(100), 0.75).tolist()))
    [0.0, 4.0]
    """
    check_probability("dropout(p", p)
    x = as_tensor(x)
    return as_tensor(ops.dropout(as_floats("dropout", x), next_key(), p)) if training and p else x


def dropout1d(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, zero whole channels of x (batch, channels, length) or (channels, length); see `dropout2d`.

    Raises:
        ShapeError: x has other axes.

    >>> import tinytorch as tt
    >>> sorted(set(tt.nn.functional.dropout1d(tt.ones(8, 8, 4), 0.5).sum(-1).flatten().tolist()))
    [0.0, 8.0]
    """
    x = as_tensor(x)
    if x.ndim not in (2, 3):
        raise ShapeError(f"dropout1d of {x.type}: expected (batch, channels, length) or (channels, length)")
    return _drop_channels("dropout1d", x, x.ndim - 1, p, training)


def dropout2d(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, zero whole channels with probability p, scale the others by 1 / (1 - p) (Tompson et al., 2015).

    Args:
        x: (batch, channels, height, width), or, as in PyTorch, (batch, channels, …).
    Raises:
        ShapeError: x has fewer than two axes.

    >>> import tinytorch as tt
    >>> sorted(set(tt.nn.functional.dropout2d(tt.ones(8, 8, 2, 2), 0.5).sum((2, 3)).flatten().tolist()))
    [0.0, 8.0]
    """
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"dropout2d of {x.type}: expected (batch, channels, height, width)")
    return _drop_channels("dropout2d", x, 2, p, training)


def _drop_channels(function: str, x: Tensor, axes: int, p: float, training: bool) -> Tensor:
    """x times one number, 0 or 1 / (1 - p), for each place in its first axes."""
    check_probability(f"{function}(p", p)
    if not training or not p:
        return x
    x = as_floats(function, x)
    channels = ones(*x.shape[:axes], *(1 for _ in x.shape[axes:]), dtype=x.dtype)
    return as_tensor(x * ops.dropout(channels, next_key(), p))


def embedding(indices: Any, weight: Any, padding_idx: int | None = None) -> Tensor:
    """The rows of `weight` (rows, features) at integer `indices` (…), as (…, features).

    Args:
        padding_idx: a row that gets no gradient from here; a negative one counts from the end.
    Raises:
        IndexError: a row is not there, in eager and in compiled code.
        DTypeError: indices are not integers.

    >>> import tinytorch as tt
    >>> tt.nn.functional.embedding(tt.tensor([2, 0]), tt.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    tensor([[4., 5.],
            [0., 1.]])
    """
    indices, weight = as_tensor(indices), as_tensor(weight)
    indices = check_range("embedding: index", indices, weight.shape[0], "rows of the table")
    rows = as_tensor(ops.take(weight, indices, 0))
    if padding_idx is None:
        return rows
    padding = (indices == check_row(padding_idx, weight.shape[0])).unsqueeze(-1)
    return as_tensor(ops.where(padding, ops.detach(rows), rows))


def check_row(padding_idx: int, rows: int) -> int:
    """The number of the row that `padding_idx` means; an IndexError if there is none."""
    if not -rows <= padding_idx < rows:
        raise IndexError(f"embedding: padding_idx={padding_idx} is not one of the {rows} rows of the table")
    return padding_idx % rows


def one_hot(labels: Any, num_classes: int = -1) -> Tensor:
    """Integer labels (…) as i64 (…, num_classes): 1 at the label, 0 elsewhere.

    Args:
        num_classes: -1 for one more than the greatest label, which must be known then: not in traced code.
    Raises:
        IndexError: a label is not one of the classes, in eager and in compiled code.

    >>> import tinytorch as tt
    >>> tt.nn.functional.one_hot(tt.tensor([1, 0]), 3)
    tensor([[0, 1, 0],
            [1, 0, 0]])
    """
    labels = as_tensor(labels)
    count = int(labels.numpy().max(initial=-1)) + 1 if num_classes == -1 else num_classes
    labels = check_range("one_hot: label", labels, count, "classes")
    return as_tensor(ops.cast(ops.eq(ops.iota((*labels.shape, count), -1), labels.unsqueeze(-1)), "i64"))


def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """x with more, or fewer, elements at the ends of its last axes.

    Args:
        pad: (before, after) of the last axis, then (before, after) of the one before it, and so on; negative: cut off.
        mode: "constant" fills with `value` (0 if None); "reflect", "replicate" and "circular" with elements of x.
    Raises:
        ShapeError: `pad` does not fit the axes of x, or more would be cut off or reflected than there is.
        OpError: another mode.

    >>> import tinytorch as tt
    >>> tt.nn.functional.pad(tt.tensor([[1, 2, 3]]), (1, 2))
    tensor([[0, 1, 2, 3, 0, 0]])
    >>> tt.nn.functional.pad(tt.tensor([[1, 2, 3]]), (2, -1), mode="reflect")
    tensor([[3, 2, 1, 2]])
    """
    x = as_tensor(x)
    if mode != "constant" and mode not in FILLS:
        raise OpError(f"pad(mode={mode!r}): expected 'constant', {', '.join(map(repr, FILLS))}")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(f"pad({x.type}, {tuple(pad)}): expected (before, after) for some of the last axes")
    ends = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    if any(n + low + high < 0 for n, (low, high) in zip(x.shape, ends, strict=True)):
        raise ShapeError(f"pad({x.type}, {tuple(pad)}): more is cut off than there is")
    if mode != "constant":
        for axis, (low, high) in enumerate(ends):
            x = as_tensor(ops.take(x, _sources(x.shape[axis], low, high, mode), axis)) if low or high else x
        return x
    x = x[tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(x.shape, ends, strict=True))]
    low_high = ([max(low, 0) for low, _ in ends], [max(high, 0) for _, high in ends])
    return as_tensor(ops.pad(x, *low_high, value=0.0 if value is None else value))


def _sources(extent: int, low: int, high: int, mode: str) -> np.ndarray:
    """For each place of a padded axis, where its element comes from."""
    most = {"reflect": extent - 1, "circular": extent, "replicate": math.inf if extent else 0}[mode]
    if max(low, high) > most:
        raise ShapeError(f"pad(mode={mode!r}) by {max(low, high)} of an axis of {extent}: expected {most} at most")
    places = np.pad(np.arange(extent), (max(low, 0), max(high, 0)), mode=FILLS[mode])  # type: ignore[call-overload]
    return np.asarray(places[max(-low, 0):len(places) - max(-high, 0)])


# -- norms -------------------------------------------------------------------------------------------------------------


def _norm(x: Tensor, p: float, dim: int, keepdim: bool, least: float = 0.0) -> Tensor:
    """max(‖x‖ₚ, least) along `dim`, (Σ|x|ᵖ)^(1/p); where it is `least` no gradient flows (and no 0 / 0)."""
    if p == math.inf:
        return x.abs().amax(dim, keepdim).clip(least or None)
    if p == 1:
        return x.abs().sum(dim, keepdim).clip(least or None)
    if p == 2:
        return x.square().sum(dim, keepdim).clip(least * least or None).sqrt()
    return x.abs().pow(p).sum(dim, keepdim).clip(least ** p or None).pow(1 / p)


def normalize(x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖ₚ, eps), with the p-norm along `dim`; of the type of x.

    >>> import tinytorch as tt
    >>> tt.nn.functional.normalize(tt.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6, 0.8],
            [0. , 0. ]])
    """
    x = as_tensor(x)
    return x / _norm(x, p, dim, True, eps)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 · x2 / (max(‖x1‖, eps) · max(‖x2‖, eps)) along `dim`; the shapes broadcast.

    >>> import tinytorch as tt
    >>> tt.nn.functional.cosine_similarity(tt.tensor([[3.0, 4.0]]), tt.tensor([[1.0, 0.0]]))
    tensor([0.6])
    """
    x1, x2 = as_tensor(x1), as_tensor(x2)
    return (x1 / _norm(x1, 2, dim, True, eps) * (x2 / _norm(x2, 2, dim, True, eps))).sum(dim)


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """‖x1 - x2 + eps‖ₚ along the last axis; the shapes broadcast.

    >>> import tinytorch as tt
    >>> tt.nn.functional.pairwise_distance(tt.tensor([[3.0, 4.0]]), tt.tensor([[0.0, 0.0]]))
    tensor([5.])
    """
    return _norm(as_tensor(x1) - as_tensor(x2) + eps, p, -1, keepdim)
