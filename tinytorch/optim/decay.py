"""Schedules by simple rules: steps, powers, a straight line, any function of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tinytorch.ir.errors import OpError

from .optimizer import Optimizer
from .schedule import LRScheduler, for_each_group


class StepLR(LRScheduler):
    """lr ← gamma · lr every `step_size` epochs.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule, seen = tt.optim.StepLR(opt, step_size=2, gamma=0.5), []
    >>> for _ in range(5): seen.append(opt.lr); schedule.step()
    >>> seen
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        if step_size < 1:
            raise OpError(f"StepLR(step_size={step_size}): expected a number of epochs ≥ 1")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[float]:
        """See the class."""
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return self.scaled(self.gamma) if due else self.rates()


class MultiStepLR(LRScheduler):
    """lr ← gamma · lr at each of the epochs `milestones`.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule, seen = tt.optim.MultiStepLR(opt, [1, 3], gamma=0.5), []
    >>> for _ in range(5): seen.append(opt.lr); schedule.step()
    >>> seen
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[float]:
        """See the class; a milestone that is named twice counts twice."""
        return self.scaled(self.gamma ** self.milestones.count(self.last_epoch))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `LRScheduler`; PyTorch's milestones, a `Counter`, are taken too."""
        milestones = state.get("milestones", [])
        if isinstance(milestones, Mapping):
            milestones = sorted(int(epoch) for epoch, count in milestones.items() for _ in range(count))
        super().load_state_dict({**state, "milestones": milestones} if "milestones" in state else state)


class ExponentialLR(LRScheduler):
    """lr ← gamma · lr every epoch.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule = tt.optim.ExponentialLR(opt, gamma=0.5)
    >>> schedule.step(); schedule.step(); opt.lr
    0.25
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[float]:
        """See the class."""
        return self.rates() if self.is_initial else self.scaled(self.gamma)


class LinearLR(LRScheduler):
    """A straight line from start_factor · lr to end_factor · lr in `total_iters` epochs: a warm-up.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule, seen = tt.optim.LinearLR(opt, start_factor=0.25, total_iters=3), []
    >>> for _ in range(5): seen.append(round(opt.lr, 6)); schedule.step()
    >>> seen
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0,
                 total_iters: int = 5, last_epoch: int = -1) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1 or total_iters < 1:
            raise OpError(f"LinearLR(start_factor={start_factor}, end_factor={end_factor}, total_iters={total_iters}): "
                          "expected 0 < start_factor ≤ 1, 0 ≤ end_factor ≤ 1 and total_iters ≥ 1")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[float]:
        """See the class; each is worked out from the one before, so that schedulers may be combined."""
        if self.last_epoch == 0:
            return self.scaled(self.start_factor)
        if self.is_initial or self.last_epoch > self.total_iters:
            return self.rates()
        rise = self.end_factor - self.start_factor
        return self.scaled(1 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise))


class LambdaLR(LRScheduler):
    """The base learning rate times a function of the epoch, or one function for each group.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule = tt.optim.LambdaLR(opt, lambda epoch: 1 / (epoch + 1))
    >>> schedule.step(); opt.lr
    0.5
    """

    hidden = ("optimizer", "lr_lambdas")

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
                 last_epoch: int = -1) -> None:
        self.lr_lambdas: list[Callable[[int], float]] = for_each_group("LambdaLR(lr_lambda)", lr_lambda, optimizer)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[float]:
        """See the class."""
        return [base * function(self.last_epoch) for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]
