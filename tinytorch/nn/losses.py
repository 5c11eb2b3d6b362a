"""Losses as modules: the functions of `tinytorch.nn.functional` with their options kept.

All take `reduction` as a keyword: "mean" (the default), "sum", or "none" for one number each. A `weight` is a buffer:
it stands in the state, and follows `to`.

    >>> import tinytorch as tt
    >>> loss_fn = tt.nn.CrossEntropyLoss(label_smoothing=0.1)
    >>> loss_fn(tt.tensor([[0.0, 0.0]]), tt.tensor([1]))
    tensor(0.6931)
"""

from __future__ import annotations

from typing import Any

from tinytorch.tensor import Tensor, as_tensor

from . import functional as F
from .module import Module

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CosineEmbeddingLoss", "CosineSimilarity", "CrossEntropyLoss", "HuberLoss",
    "KLDivLoss", "L1Loss", "MSELoss", "NLLLoss", "PairwiseDistance", "SmoothL1Loss", "TripletMarginLoss",
]


class _Loss(Module):
    """Holds how the losses of all elements become one number."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def _keep(self, name: str, weight: Any) -> None:
        self.register_buffer(name, None if weight is None else as_tensor(weight))


class CrossEntropyLoss(_Loss):
    """-log softmax(input)[target]: logits (batch, classes, …) and integer labels (batch, …), or probabilities.

    Arguments and errors are those of `functional.cross_entropy`.

    >>> import tinytorch as tt
    >>> tt.nn.CrossEntropyLoss()(tt.tensor([[0.0, 0.0]]), tt.tensor([1]))
    tensor(0.6931)
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, *, ignore_index: int | None = -100, reduction: str = "mean",
                 label_smoothing: float = 0.0) -> None:
        super().__init__(reduction)
        self._keep("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.cross_entropy`."""
        return F.cross_entropy(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
                               label_smoothing=self.label_smoothing)


class NLLLoss(_Loss):
    """-input[target]: log probabilities (batch, classes, …) and integer labels (batch, …).

    Arguments and errors are those of `functional.nll_loss`.

    >>> import tinytorch as tt
    >>> tt.nn.NLLLoss()(tt.tensor([[-0.5, -2.0]]), tt.tensor([1]))
    tensor(2.)
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, *, ignore_index: int | None = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._keep("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.nll_loss`."""
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class BCELoss(_Loss):
    """-(target · log input + (1 - target) · log(1 - input)), for probabilities of one shape.

    Arguments and errors are those of `functional.binary_cross_entropy`.

    >>> import tinytorch as tt
    >>> tt.nn.BCELoss()(tt.tensor([0.5]), tt.tensor([1.0]))
    tensor(0.6931)
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._keep("weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.binary_cross_entropy`."""
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """`BCELoss` of sigmoid(input), exact for inputs of any size.

    Arguments and errors are those of `functional.binary_cross_entropy_with_logits`.

    >>> import tinytorch as tt
    >>> tt.nn.BCEWithLogitsLoss()(tt.tensor([-1000.0]), tt.tensor([1.0]))
    tensor(1000.)
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self._keep("weight", weight)
        self._keep("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.binary_cross_entropy_with_logits`."""
        return F.binary_cross_entropy_with_logits(input, target, self.weight, reduction=self.reduction,
                                                  pos_weight=self.pos_weight)


class KLDivLoss(_Loss):
    """target · (log target - input), for an input of log probabilities.

    Arguments and errors are those of `functional.kl_div`.

    >>> import tinytorch as tt
    >>> p = tt.tensor([[0.5, 0.5]])
    >>> tt.nn.KLDivLoss(reduction="batchmean")(p.log(), p)
    tensor(0.)
    """

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.kl_div`."""
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class MSELoss(_Loss):
    """(input - target)², both of one shape (ShapeError).

    >>> import tinytorch as tt
    >>> tt.nn.MSELoss()(tt.tensor([1.0, 3.0]), tt.tensor([1.0, 1.0]))
    tensor(2.)
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.mse_loss`."""
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|input - target|, both of one shape (ShapeError).

    >>> import tinytorch as tt
    >>> tt.nn.L1Loss()(tt.tensor([1.0, 3.0]), tt.tensor([1.0, 1.0]))
    tensor(1.)
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.l1_loss`."""
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """d² / 2beta up to |d| = beta, then |d| - beta / 2, where d = input - target (Girshick, 2015).

    Arguments and errors are those of `functional.smooth_l1_loss`.

    >>> import tinytorch as tt
    >>> tt.nn.SmoothL1Loss()(tt.tensor([3.0]), tt.tensor([0.0]))
    tensor(2.5)
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.smooth_l1_loss`."""
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """d² / 2 up to |d| = delta, then delta · (|d| - delta / 2), where d = input - target (Huber, 1964).

    Arguments and errors are those of `functional.huber_loss`.

    >>> import tinytorch as tt
    >>> tt.nn.HuberLoss(delta=2.0)(tt.tensor([5.0]), tt.tensor([0.0]))
    tensor(8.)
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Any, target: Any) -> Tensor:
        """See `functional.huber_loss`."""
        return F.huber_loss(input, target, self.reduction, self.delta)


class CosineEmbeddingLoss(_Loss):
    """1 - cos for pairs that belong together (target 1), max(0, cos - margin) for others (target -1).

    Arguments and errors are those of `functional.cosine_embedding_loss`.

    >>> import tinytorch as tt
    >>> tt.nn.CosineEmbeddingLoss()(tt.tensor([[1.0, 0.0]]), tt.tensor([[0.0, 1.0]]), tt.tensor([1]))
    tensor(1.)
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Any, input2: Any, target: Any) -> Tensor:
        """See `functional.cosine_embedding_loss`."""
        return F.cosine_embedding_loss(input1, input2, target, self.margin, reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """max(0, |anchor - positive| - |anchor - negative| + margin), all (batch, features) (Schroff et al., 2015).

    Arguments and errors are those of `functional.triplet_margin_loss`.

    >>> import tinytorch as tt
    >>> x, near, far = tt.tensor([[0.0, 0.0]]), tt.tensor([[0.0, 1.0]]), tt.tensor([[1.5, 0.0]])
    >>> tt.nn.TripletMarginLoss()(x, near, far)
    tensor(0.5)
    """

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, *,
                 reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:
        """See `functional.triplet_margin_loss`."""
        return F.triplet_margin_loss(anchor, positive, negative, self.margin, self.p, self.eps, self.swap,
                                     reduction=self.reduction)


class CosineSimilarity(Module):
    """The cosine of the angle between x1 and x2 along `dim`.

    >>> import tinytorch as tt
    >>> tt.nn.CosineSimilarity()(tt.tensor([[3.0, 4.0]]), tt.tensor([[1.0, 0.0]]))
    tensor([0.6])
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim, self.eps = dim, eps

    def forward(self, x1: Any, x2: Any) -> Tensor:
        """See `functional.cosine_similarity`."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """‖x1 - x2 + eps‖ₚ along the last axis.

    >>> import tinytorch as tt
    >>> tt.nn.PairwiseDistance()(tt.tensor([[3.0, 4.0]]), tt.tensor([[0.0, 0.0]]))
    tensor([5.])
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.p, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Any, x2: Any) -> Tensor:
        """See `functional.pairwise_distance`."""
        return F.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)
