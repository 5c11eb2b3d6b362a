"""Losses as functions."""

from __future__ import annotations

from typing import Any

from tinytorch.ir import ops
from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Tensor, as_tensor

from .check import check_range, reduced

__all__ = ["cross_entropy", "mse_loss"]


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
    check_range("cross_entropy: label", labels, last.shape[-1], "classes")
    return reduced(as_tensor(ops.cross_entropy(last, labels)), reduction)


def mse_loss(prediction: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(prediction - target)², averaged over all elements.

    Raises:
        ShapeError: the shapes differ; (batch, 1) against (batch) would compare each with each.
    """
    prediction, target = as_tensor(prediction), as_tensor(target)
    if prediction.shape != target.shape:
        raise ShapeError(
            f"mse_loss({prediction.type}, {target.type}): the shapes must be the same; reshape one of them")
    return reduced((prediction - target).square(), reduction)
