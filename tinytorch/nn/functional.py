"""Layers as plain functions: `from tinytorch.nn import functional as F`. Names and conventions are PyTorch's.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> F.relu(tt.tensor([-1.0, 2.0]))
    tensor([0., 2.])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinytorch.functional import sigmoid, softmax, tanh
from tinytorch.ir import ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.random import next_key
from tinytorch.tensor import Tensor, as_tensor

__all__ = [
    "avg_pool2d", "conv2d", "cross_entropy", "dropout", "embedding", "gelu", "layer_norm", "leaky_relu", "linear",
    "log_softmax", "max_pool2d", "mse_loss", "one_hot", "relu", "scaled_dot_product_attention", "sigmoid", "silu",
    "softmax", "softplus", "tanh",
]

# -- activations -------------------------------------------------------------------------------------------------------


def relu(x: Any) -> Tensor:
    """max(x, 0)."""
    return as_tensor(ops.relu(x))


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """x where positive, negative_slope · x elsewhere (Maas et al., 2013)."""
    return as_tensor(ops.leaky_relu(x, negative_slope))


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x Φ(x), exact or, with approximate="tanh", by tanh (Hendrycks and Gimpel, 2016)."""
    return as_tensor(ops.gelu(x, approximate))


def silu(x: Any) -> Tensor:
    """x · sigmoid(x)."""
    return as_tensor(ops.silu(x))


def softplus(x: Any, beta: float = 1.0) -> Tensor:
    """log(1 + exp(beta · x)) / beta, a smooth relu."""
    return as_tensor(ops.softplus(x) if beta == 1 else ops.softplus(as_tensor(x) * beta) / beta)


def log_softmax(x: Any, dim: int = -1) -> Tensor:
    """log of softmax along `dim`."""
    return as_tensor(ops.log_softmax(x, dim))


# -- layers ------------------------------------------------------------------------------------------------------------


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """x Wᵀ + b: x (…, in), weight (out, in), bias (out) or None, result (…, out)."""
    return as_tensor(ops.linear(x, weight) if bias is None else ops.linear(x, weight, bias))


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """In training, zero each element with probability p, scale the others by 1 / (1 - p) (Srivastava et al., 2014)."""
    return as_tensor(ops.dropout(x, next_key(), p)) if training and p else as_tensor(x)


def layer_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / standard deviation over the last axes, times weight, plus bias (Ba et al., 2016).

    Raises:
        ShapeError: x does not end in `normalized_shape`.
    """
    x = as_tensor(x)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape):] != shape:
        raise ShapeError(f"layer_norm of {x.type}: expected a tensor whose shape ends in {shape}")
    axes = tuple(range(-len(shape), 0))
    y = ops.layer_norm(x, *([] if weight is None else [weight] if bias is None else [weight, bias]), axis=axes, eps=eps)
    return as_tensor(y + bias if weight is None and bias is not None else y)


def embedding(indices: Any, weight: Any) -> Tensor:
    """The rows of `weight` (rows, features) at integer `indices` (…), as (…, features).

    Raises:
        IndexError: a row is not there.
    """
    indices, weight = as_tensor(indices), as_tensor(weight)
    _check_range("embedding: index", indices, weight.shape[0], "rows of the table")
    return as_tensor(ops.take(weight, indices, 0))


def one_hot(labels: Any, num_classes: int) -> Tensor:
    """Integer labels (…) as i64 (…, num_classes): 1 at the label, 0 elsewhere.

    >>> import tinytorch as tt
    >>> tt.nn.functional.one_hot(tt.tensor([1, 0]), 3)
    tensor([[0, 1, 0],
            [1, 0, 0]])
    """
    labels = as_tensor(labels)
    _check_range("one_hot: label", labels, num_classes, "classes")
    return as_tensor(ops.cast(ops.eq(ops.iota((*labels.shape, num_classes), -1), labels.unsqueeze(-1)), "i64"))


def conv2d(x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
    """Correlate x (batch, channels, height, width) with weight (out, channels / groups, kh, kw), plus bias (out)."""
    y = as_tensor(ops.conv2d(x, weight, stride, padding, dilation, groups))
    return y if bias is None else y + as_tensor(bias).reshape(-1, 1, 1)


def max_pool2d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The greatest of each window of x (batch, channels, height, width); windows are `stride` (or their size) apart."""
    return as_tensor(ops.max_pool2d(x, kernel_size, stride, padding))


def avg_pool2d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The mean of each window, padding included."""
    return as_tensor(ops.avg_pool2d(x, kernel_size, stride, padding))


def scaled_dot_product_attention(query: Any, key: Any, value: Any, attn_mask: Any = None, is_causal: bool = False,
                                 scale: float | None = None) -> Tensor:
    """softmax(q kᵀ · scale + mask) v over (…, time, head_dim) (Vaswani et al., 2017); scale is 1 / √head_dim if None.

    Args:
        attn_mask: broadcastable to (…, queries, keys): boolean, true where a key may be seen, or numbers to add.
        is_causal: query i sees keys 0 … i.
    """
    query, key = as_tensor(query), as_tensor(key)
    n, m = query.shape[-2], key.shape[-2]
    if is_causal and n != m:  # the op aligns the last query with the last key, PyTorch the first with the first
        seen = ops.ge(ops.iota((n, m), 0), ops.iota((n, m), 1))
        attn_mask = (seen if attn_mask is None else seen & attn_mask if attn_mask.dtype.kind == "b"
                     else ops.where(seen, attn_mask, -math.inf))
        is_causal = False
    return as_tensor(ops.attention(query, key, value, attn_mask, is_causal, scale))


# -- losses ------------------------------------------------------------------------------------------------------------


def cross_entropy(logits: Any, labels: Any, reduction: str = "mean") -> Tensor:
    """-log softmax(logits)[label], averaged over all labels.

    Args:
        logits: floating point (classes), (batch, classes) or (batch, classes, d₁, …).
        labels: integers () or (batch) or (batch, d₁, …).
        reduction: "mean", "sum", or "none" for one number a label.
    Raises:
        IndexError: a label is not one of the classes (checked where its number is known: not in traced code).
        ShapeError: the shapes do not fit.

    >>> import tinytorch as tt
    >>> tt.nn.functional.cross_entropy(tt.tensor([[0.0, 0.0]]), tt.tensor([1]))
    tensor(0.6931)
    """
    logits, labels = as_tensor(logits), as_tensor(labels)
    if not logits.ndim:
        raise ShapeError(
            f"cross_entropy({logits.type}, {labels.type}): expected logits (batch, classes) and labels (batch)")
    last = logits if logits.ndim <= 2 else logits.permute(0, *range(2, logits.ndim), 1)  # (batch, d₁, …, classes)
    _check_range("cross_entropy: label", labels, last.shape[-1], "classes")
    return _reduced(as_tensor(ops.cross_entropy(last, labels)), reduction)


def mse_loss(prediction: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(prediction - target)², averaged over all elements.

    Raises:
        ShapeError: the shapes differ; (batch, 1) against (batch) would compare each with each.
    """
    prediction, target = as_tensor(prediction), as_tensor(target)
    if prediction.shape != target.shape:
        raise ShapeError(
            f"mse_loss({prediction.type}, {target.type}): the shapes must be the same; reshape one of them")
    return _reduced((prediction - target).square(), reduction)


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise OpError(f"reduction={reduction!r}: expected 'mean', 'sum' or 'none'")
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _check_range(what: str, numbers: Tensor, extent: int, of: str) -> None:
    """An IndexError that names the first number outside 0 … extent - 1, if the numbers are known."""
    array = numbers.payload
    if not isinstance(array, np.ndarray) or not array.size or array.dtype.kind not in "iu":
        return
    if array.min() < 0 or array.max() >= extent:
        wrong = array[(array < 0) | (array >= extent)].flat[0]
        raise IndexError(f"{what} {wrong} is not one of the {extent} {of} 0 … {extent - 1}")
