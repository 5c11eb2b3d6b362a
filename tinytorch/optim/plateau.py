"""A schedule that waits until a measure stops getting better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinytorch.ir.errors import OpError

from .optimizer import Optimizer
from .schedule import LRScheduler, for_each_group


class ReduceLROnPlateau(LRScheduler):
    """lr ← factor · lr when a measure, such as the validation loss, has not got better for `patience` epochs.

    Args:
        mode: "min" if less is better, "max" if more is.
        threshold: by how much it must be better to count: relative to the best so far, or with threshold_mode="abs" in
            the measure's own unit.
        cooldown: how many epochs to wait after a change before counting again.
        min_lr: the least learning rate, or one for each parameter group.
        eps: smaller changes of the learning rate than this are not made.
    Raises:
        OpError: an argument makes no sense.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule = tt.optim.ReduceLROnPlateau(opt, patience=1)
    >>> for loss in (3.0, 2.0, 2.5, 2.1): schedule.step(loss)
    >>> opt.lr
    0.1
    """

    hidden = ("optimizer", "base_lrs")

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
                 min_lr: float | Sequence[float] = 0.0, eps: float = 1e-8) -> None:
        if factor >= 1 or mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise OpError(f"ReduceLROnPlateau(mode={mode!r}, factor={factor}, threshold_mode={threshold_mode!r}): "
                          "expected 'min' or 'max', a factor < 1, and 'rel' or 'abs'")
        self.mode, self.factor, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.eps = threshold, threshold_mode, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0
        super().__init__(optimizer)
        self.min_lrs: list[float] = for_each_group("ReduceLROnPlateau(min_lr)", min_lr, optimizer)

    def get_lr(self) -> Sequence[float]:
        """As they are."""
        return self.rates()

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Take note of the measure of one more epoch: a number, or a tensor that holds one."""
        self.check_step()
        measure = float(metrics)
        self.last_epoch += 1
        better = self._is_better(measure)
        self.best = measure if better else self.best
        self.num_bad_epochs = 0 if better else self.num_bad_epochs + 1
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        rates = self.rates()
        if self.num_bad_epochs > self.patience:
            lower = [max(rate * self.factor, least) for rate, least in zip(rates, self.min_lrs, strict=True)]
            rates = [new if old - new > self.eps else old for old, new in zip(rates, lower, strict=True)]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self.write(rates)

    def _is_better(self, measure: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if math.isinf(self.best):
            return sign * measure < math.inf
        margin = self.best * self.threshold if self.threshold_mode == "rel" else self.threshold
        return sign * measure < sign * self.best - margin
