"""Losses as functions: how far predictions are from targets, as one number (or, with reduction="none", one for each).

`reduction` is "mean" (the default), "sum" or "none" throughout, and a keyword. The mean of nothing is nan.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> F.cross_entropy(tt.tensor([[2.0, 0.0], [0.0, 2.0]]), tt.tensor([0, 1]))
    tensor(0.1269)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch.ir import ops
from tinytorch.ir.errors import DTypeError, OpError, ShapeError
from tinytorch.tensor import Tensor, as_tensor

from .check import check_range, reduced, same_shape
from .layers import pairwise_distance

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy", "huber_loss",
    "kl_div", "l1_loss", "mse_loss", "nll_loss", "smooth_l1_loss", "triplet_margin_loss",
]


# -- classes -----------------------------------------------------------------------------------------------------------


def cross_entropy(input: Any, target: Any, weight: Any = None, *, ignore_index: int | None = -100,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(input)[target], averaged over all targets.

    Args:
        input: logits, floating point (classes), (batch, classes) or (batch, classes, d₁, …).
        target: integer labels () or (batch) or (batch, d₁, …); or probabilities of the classes, of the shape of input.
        weight: a factor for each class, (classes); the mean is a weighted one then, as in PyTorch.
        ignore_index: a label that counts for nothing, also in the mean; None if there is no such label.
        label_smoothing: this share of each target is spread evenly over the classes (Szegedy et al., 2016).
    Raises:
        IndexError: a label is not one of the classes, in eager and in compiled code.
        ShapeError: the shapes do not fit.
        DTypeError: input is not floating point.
        OpError: label_smoothing is not from 0 to 1.

    >>> import tinytorch as tt
    >>> logits = tt.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> tt.nn.functional.cross_entropy(logits, tt.tensor([0, -100]), reduction="none")
    tensor([0.1269, 0.    ])
    >>> tt.nn.functional.cross_entropy(logits, tt.tensor([[0.5, 0.5], [0.0, 1.0]]))
    tensor(0.6269)
    """
    input, target = as_tensor(input), as_tensor(target)
    if not 0 <= label_smoothing <= 1:
        raise OpError(f"cross_entropy(label_smoothing={label_smoothing}): expected a share, from 0 to 1")
    if input.ndim and target.dtype.is_float and target.shape == input.shape:
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    if weight is not None or label_smoothing:
        log_p = as_tensor(ops.log_softmax(input, _class_axis("cross_entropy", input, target)))
        return _picked("cross_entropy", log_p, target, weight, ignore_index, reduction, label_smoothing)
    last = _classes_last("cross_entropy", input, target)
    labels, ignored = _labels("cross_entropy", target, last.shape[-1], ignore_index)
    loss = as_tensor(ops.cross_entropy(last, labels))
    return reduced(loss, reduction) if ignored is None else _averaged(loss, ignored, None, reduction)


def nll_loss(input: Any, target: Any, weight: Any = None, *, ignore_index: int | None = -100,
             reduction: str = "mean") -> Tensor:
    """-input[target], averaged over all targets: for an input of log probabilities.

    Arguments, shapes and errors are those of `cross_entropy` with integer labels.

    >>> import tinytorch as tt
    >>> tt.nn.functional.nll_loss(tt.tensor([[-0.5, -2.0], [-1.0, -3.0]]), tt.tensor([0, 1]))
    tensor(1.75)
    """
    input, target = as_tensor(input), as_tensor(target)
    return _picked("nll_loss", input, target, weight, ignore_index, reduction, 0.0)


def _class_axis(function: str, input: Tensor, target: Tensor) -> int:
    """The axis of the classes, if labels of this type fit."""
    axis = min(1, input.ndim - 1)
    if not input.dtype.is_float:
        raise DTypeError(f"{function}({input.type}, {target.type}): expected floating point input first, and labels "
                         "second; convert the input, as in x.float()")
    if not input.ndim or target.dtype.kind not in "iu" or target.shape != input.shape[:axis] + input.shape[axis + 1:]:
        raise ShapeError(f"{function}({input.type}, {target.type}): expected input (batch, classes, …) and one integer "
                         "label for each, (batch, …)")
    return axis


def _classes_last(function: str, input: Tensor, target: Tensor) -> Tensor:
    """(batch, classes, d₁, …) as (batch, d₁, …, classes)."""
    _class_axis(function, input, target)
    return input if input.ndim <= 2 else input.permute(0, *range(2, input.ndim), 1)


def _labels(function: str, labels: Tensor, classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor | None]:
    """Labels that can be picked (IndexError if not), and which are ignored (None if none is); those read 0."""
    known = labels.payload if isinstance(labels.payload, np.ndarray) else None
    ignored, limits = None, np.iinfo(labels.dtype.np)
    possible = ignore_index is not None and limits.min <= ignore_index <= limits.max  # u8 holds no -100
    if possible and (known is None or (known == ignore_index).any()):
        ignored = labels == ignore_index
        labels = as_tensor(ops.where(ignored, 0, labels))
    if known is not None:  # in traced code whoever picks checks: ops.cross_entropy, `check_range` in _picked
        check_range(f"{function}: label", labels, classes, "classes")
    return labels, ignored


def _picked(function: str, log_p: Tensor, target: Tensor, weight: Any, ignore_index: int | None, reduction: str,
            smoothing: float) -> Tensor:
    """-Σ q_c · weight_c · log_p_c, where q is 1 - smoothing at the label, plus smoothing / classes everywhere."""
    last = _classes_last(function, log_p, target)
    classes = last.shape[-1]
    labels, ignored = _labels(function, target, classes, ignore_index)
    labels = check_range(f"{function}: label", labels, classes, "classes")
    scale = None if weight is None else as_tensor(ops.take(_class_weights(function, weight, classes), labels, 0))
    loss = -as_tensor(ops.take_along(last, labels.unsqueeze(-1), -1)).squeeze(-1)
    loss = loss if scale is None else loss * scale
    if smoothing:
        spread = -(last if weight is None else last * as_tensor(weight)).sum(-1)
        loss = loss * (1 - smoothing) + spread * (smoothing / classes)
    return _averaged(loss, ignored, scale, reduction)


def _class_weights(function: str, weight: Any, classes: int) -> Tensor:
    weight = as_tensor(weight)
    if weight.shape != (classes,):
        raise ShapeError(f"{function}(weight={weight.type}): expected one weight for each of the {classes} classes")
    return weight


def _averaged(loss: Tensor, ignored: Tensor | None, scale: Tensor | None, reduction: str) -> Tensor:
    """`reduced`, without the ignored, and with a mean that `scale` weighs."""
    kept = loss if ignored is None else as_tensor(ops.where(ignored, 0.0, loss))
    if reduction != "mean" or (ignored is None and scale is None):
        return reduced(kept, reduction)
    share = scale if scale is not None else loss.detach().zeros_like() + 1.0
    return kept.sum() / (share if ignored is None else as_tensor(ops.where(ignored, 0.0, share))).sum()


def _soft_cross_entropy(input: Tensor, target: Tensor, weight: Any, reduction: str, smoothing: float) -> Tensor:
    """-Σ target_c · weight_c · log softmax(input)_c; the mean is over all rows, whatever the weights."""
    axis = min(1, input.ndim - 1)
    classes = input.shape[axis]
    if smoothing:
        target = target * (1 - smoothing) + smoothing / classes
    if weight is not None:
        along = (classes, *(1 for _ in input.shape[axis + 1:]))
        target = target * _class_weights("cross_entropy", weight, classes).reshape(along)
    return reduced(-(target * ops.log_softmax(input, axis)).sum(axis), reduction)


# -- probabilities -----------------------------------------------------------------------------------------------------


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Tensor:
    """-(target · log input + (1 - target) · log(1 - input)), for inputs that are probabilities.

    As in PyTorch a logarithm is -100 at least, with a gradient of 10¹² there. Where the input comes from a sigmoid, use
    `binary_cross_entropy_with_logits`, which is exact.

    Args:
        input, target: of one shape, from 0 to 1.
        weight: a factor for each element; broadcasts.
    Raises:
        ShapeError: the shapes differ.
        OpError: an input is known and not from 0 to 1.

    >>> import tinytorch as tt
    >>> tt.nn.functional.binary_cross_entropy(tt.tensor([0.5, 0.0]), tt.tensor([1.0, 1.0]), reduction="none")
    tensor([  0.6931, 100.    ])
    """
    input, target = same_shape("binary_cross_entropy", input, target)
    known = input.payload
    if isinstance(known, np.ndarray) and not ((known >= 0) & (known <= 1) | np.isnan(known)).all():
        raise OpError("binary_cross_entropy: expected an input of probabilities, from 0 to 1; for other numbers "
                      "(logits) there is binary_cross_entropy_with_logits")
    loss = -(target * _log(input) + (1.0 - target) * _log(1.0 - input))
    return reduced(loss if weight is None else loss * weight, reduction)


def _log(p: Tensor) -> Tensor:
    """log p, that goes on as a steep line where it is -100."""
    safe = p > math.exp(-100)
    return as_tensor(ops.where(safe, ops.log(ops.where(safe, p, 1.0)), p * 1e12 - 100.0))


def binary_cross_entropy_with_logits(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean",
                                     pos_weight: Any = None) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), exact for inputs of any size.

        pos_weight · target · log(1 + e⁻ˣ) + (1 - target) · log(1 + eˣ)

    Args:
        input, target: of one shape; targets from 0 to 1.
        weight: a factor for each element; broadcasts.
        pos_weight: a factor for the positives; broadcasts.
    Raises:
        ShapeError: the shapes differ.

    >>> import tinytorch as tt
    >>> x, target = tt.tensor([0.0, -100.0]), tt.tensor([1.0, 1.0])
    >>> tt.nn.functional.binary_cross_entropy_with_logits(x, target, reduction="none")
    tensor([  0.6931, 100.    ])
    """
    input, target = same_shape("binary_cross_entropy_with_logits", input, target)
    positive = target if pos_weight is None else target * as_tensor(pos_weight)
    loss = as_tensor(positive * ops.softplus(-input) + (1.0 - target) * ops.softplus(input))
    return reduced(loss if weight is None else loss * weight, reduction)


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target · (log target - input): the divergence of exp(input) from target (Kullback and Leibler, 1951).

    Args:
        input: log probabilities.
        target: probabilities (0 counts as 0), or log probabilities if `log_target`; of the shape of input.
        reduction: also "batchmean", the sum divided by the first extent, which is what the mathematics means.
    Raises:
        ShapeError: the shapes differ.

    >>> import tinytorch as tt
    >>> p, q = tt.tensor([[0.5, 0.5]]), tt.tensor([[0.25, 0.75]])
    >>> tt.nn.functional.kl_div(p.log(), q, reduction="batchmean")
    tensor(0.1308)
    """
    input, target = same_shape("kl_div", input, target)
    if log_target:
        loss = as_tensor(ops.exp(target) * (target - input))
    else:
        loss = as_tensor(target * (ops.log(ops.where(target == 0, 1.0, target)) - input))  # 0 log 0 = 0
    if reduction == "batchmean":
        count = input.shape[0] if input.ndim else 1
        return loss.sum() * (1 / count if count else math.nan)
    return reduced(loss, reduction)


# -- numbers -----------------------------------------------------------------------------------------------------------


def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """(input - target)², averaged over all elements.

    Raises:
        ShapeError: the shapes differ; (batch, 1) against (batch) would compare each with each.

    >>> import tinytorch as tt
    >>> tt.nn.functional.mse_loss(tt.tensor([1.0, 3.0]), tt.tensor([1.0, 1.0]))
    tensor(2.)
    """
    input, target = same_shape("mse_loss", input, target)
    return reduced((input - target).square(), reduction)


def l1_loss(input: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """|input - target|, averaged over all elements, which are of one shape (ShapeError).

    >>> import tinytorch as tt
    >>> tt.nn.functional.l1_loss(tt.tensor([1.0, 3.0]), tt.tensor([1.0, 1.0]))
    tensor(1.)
    """
    input, target = same_shape("l1_loss", input, target)
    return reduced((input - target).abs(), reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d² / 2 up to |d| = delta, then on as a line, delta · (|d| - delta / 2), where d = input - target (Huber, 1964).

    Raises:
        ShapeError: the shapes differ.
        OpError: delta is not positive.

    >>> import tinytorch as tt
    >>> tt.nn.functional.huber_loss(tt.tensor([1.0, 5.0]), tt.tensor([0.0, 0.0]), reduction="none", delta=2.0)
    tensor([0.5, 8. ])
    """
    if delta <= 0:
        raise OpError(f"huber_loss(delta={delta}): expected a delta > 0")
    input, target = same_shape("huber_loss", input, target)
    return reduced(_huber(input - target, delta), reduction)


def _huber(d: Tensor, delta: float) -> Tensor:
    near = d.clip(-delta, delta)  # c (d - c/2): d² / 2 where c = d, delta (|d| - delta/2) where c = ±delta
    return near * (d - near * 0.5)


def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d² / 2beta up to |d| = beta, then |d| - beta / 2, where d = input - target (Girshick, 2015); L1 for beta = 0.

    Raises:
        ShapeError: the shapes differ.
        OpError: beta is negative.

    >>> import tinytorch as tt
    >>> tt.nn.functional.smooth_l1_loss(tt.tensor([0.5, 3.0]), tt.tensor([0.0, 0.0]), reduction="none")
    tensor([0.125, 2.5  ])
    """
    if beta < 0:
        raise OpError(f"smooth_l1_loss(beta={beta}): expected a beta ≥ 0")
    input, target = same_shape("smooth_l1_loss", input, target)
    d = input - target
    return reduced(_huber(d, beta) / beta if beta else d.abs(), reduction)


# -- directions and distances ------------------------------------------------------------------------------------------


def cosine_embedding_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, *,
                          reduction: str = "mean") -> Tensor:
    """1 - cos for pairs that belong together (target 1), max(0, cos - margin) for others (target -1).

    Args:
        input1, input2: (batch, features) or (features).
        target: (batch) or (), of 1 and -1.
    Raises:
        ShapeError: the shapes do not fit.

    >>> import tinytorch as tt
    >>> x, y = tt.tensor([[1.0, 0.0], [1.0, 0.0]]), tt.tensor([[0.0, 1.0], [2.0, 0.0]])
    >>> tt.nn.functional.cosine_embedding_loss(x, y, tt.tensor([1, -1]), reduction="none")
    tensor([1., 1.])
    """
    (x, y), target = same_shape("cosine_embedding_loss", input1, input2), as_tensor(target)
    if x.ndim not in (1, 2) or target.shape != x.shape[:-1]:
        raise ShapeError(f"cosine_embedding_loss({x.type}, {y.type}, {target.type}): expected (batch, features) twice, "
                         "and targets (batch)")
    lengths = (x.square().sum(-1) + 1e-12) * (y.square().sum(-1) + 1e-12)
    cos = (x * y).sum(-1) / lengths.sqrt()
    together = ops.where(target == 1, 1.0 - cos, 0.0)
    return reduced(as_tensor(together + ops.where(target == -1, (cos - margin).clip(0.0), 0.0)), reduction)


def triplet_margin_loss(anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2.0,
                        eps: float = 1e-6, swap: bool = False, *, reduction: str = "mean") -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin), in the p-norm over the last axis.

    Args:
        anchor, positive, negative: of one shape, (batch, features) or (features).
        eps: added to the differences.
        swap: let the positive stand for the anchor where it is nearer to the negative (Balntas et al., 2016).
    Raises:
        ShapeError: the shapes differ.
        OpError: margin is not positive.

    >>> import tinytorch as tt
    >>> x, near, far = tt.tensor([[0.0, 0.0]]), tt.tensor([[0.0, 1.0]]), tt.tensor([[1.5, 0.0]])
    >>> tt.nn.functional.triplet_margin_loss(x, near, far)
    tensor(0.5)
    """
    if margin <= 0:
        raise OpError(f"triplet_margin_loss(margin={margin}): expected a margin > 0")
    anchor, positive = same_shape("triplet_margin_loss", anchor, positive)
    _, negative = same_shape("triplet_margin_loss", anchor, negative)
    nearest = pairwise_distance(anchor, negative, p, eps)
    if swap:
        nearest = as_tensor(ops.minimum(nearest, pairwise_distance(positive, negative, p, eps)))
    return reduced((pairwise_distance(anchor, positive, p, eps) - nearest + margin).clip(0.0), reduction)
