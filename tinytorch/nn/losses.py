"""Losses as modules."""

from __future__ import annotations

from typing import Any

from tinytorch.tensor import Tensor

from . import functional as F
from .module import Module

__all__ = ["CrossEntropyLoss", "MSELoss"]


class _Loss(Module):
    """Holds how the losses of all elements become one number: "mean", "sum" or "none"."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction


class CrossEntropyLoss(_Loss):
    """-log softmax(logits)[label]: logits (batch, classes, …), integer labels (batch, …).

    Raises:
        IndexError: a label is not one of the classes.

    >>> import tinytorch as tt
    >>> tt.nn.CrossEntropyLoss()(tt.tensor([[0.0, 0.0]]), tt.tensor([1]))
    tensor(0.6931)
    """

    def forward(self, logits: Any, labels: Any) -> Tensor:
        """See `functional.cross_entropy`."""
        return F.cross_entropy(logits, labels, self.reduction)


class MSELoss(_Loss):
    """(prediction - target)², both of one shape.

    >>> import tinytorch as tt
    >>> tt.nn.MSELoss()(tt.tensor([1.0, 3.0]), tt.tensor([1.0, 1.0]))
    tensor(2.)
    """

    def forward(self, prediction: Any, target: Any) -> Tensor:
        """See `functional.mse_loss`."""
        return F.mse_loss(prediction, target, self.reduction)
