"""Schedulers one after the other, and at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from tinytorch.ir.errors import OpError

from .optimizer import Optimizer
from .plateau import ReduceLROnPlateau
from .schedule import LRScheduler


class _Combined(LRScheduler):
    hidden = ("optimizer", "_schedulers")

    def __init__(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler]) -> None:
        name = type(self).__name__
        if not schedulers:
            raise OpError(f"{name}: expected at least one scheduler")
        for scheduler in schedulers:
            if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
                raise OpError(f"{name}: expected schedulers whose step() takes nothing, got {scheduler!r:.80}")
            if scheduler.optimizer is not optimizer:
                raise OpError(f"{name}: expected schedulers of one optimiser; {type(scheduler).__name__} is of another")
        self._schedulers = list(schedulers)
        super().__init__(schedulers[0].optimizer)

    def get_lr(self) -> Sequence[float]:
        """As the schedulers left them."""
        return self.rates()

    def state_dict(self) -> dict[str, Any]:
        """See `LRScheduler`; with the states of all schedulers."""
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `LRScheduler`."""
        super().load_state_dict(state)
        for scheduler, one in zip(self._schedulers, state["_schedulers"], strict=True):
            scheduler.load_state_dict(one)

    def check_state(self, state: Mapping[str, Any]) -> None:
        """See `LRScheduler`."""
        super().check_state(state)
        for scheduler, one in zip(self._schedulers, state["_schedulers"], strict=True):
            scheduler.check_state(one)


class SequentialLR(_Combined):
    """One scheduler after the other: each begins anew, from the base learning rate, at its milestone.

    Args:
        milestones: the epochs at which the second scheduler begins, the third, …
    Raises:
        OpError: the schedulers are of several optimisers, or milestones do not fit them.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> warm, cool = tt.optim.LinearLR(opt, 0.5, total_iters=2), tt.optim.ExponentialLR(opt, 0.5)
    >>> schedule, seen = tt.optim.SequentialLR(opt, [warm, cool], milestones=[3]), []
    >>> for _ in range(6): seen.append(opt.lr); schedule.step()
    >>> seen
    [0.5, 0.75, 1.0, 1.0, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        self._milestones = list(milestones)
        if len(self._milestones) != len(schedulers) - 1 or sorted(self._milestones) != self._milestones:
            raise OpError(f"SequentialLR: expected milestones in order, one fewer than schedulers ({len(schedulers)}); "
                          f"got {self._milestones}")
        super().__init__(optimizer, schedulers)

    def set_initial(self) -> None:
        """The first scheduler begins."""
        self.last_epoch += 1
        self._schedulers[0].restart()
        self._last_lr = self.rates()

    def step(self) -> None:
        """See `LRScheduler`."""
        self.check_step()
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        begins = turn > 0 and self._milestones[turn - 1] == self.last_epoch
        scheduler = self._schedulers[turn]
        (scheduler.restart if begins else scheduler.step)()
        self._last_lr = self.rates()


class ChainedScheduler(_Combined):
    """Several schedulers at once: each changes the learning rate that the one before it left.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> parts = [tt.optim.ExponentialLR(opt, 0.5), tt.optim.StepLR(opt, 2, 0.1)]
    >>> schedule, seen = tt.optim.ChainedScheduler(parts), []
    >>> for _ in range(4): seen.append(round(opt.lr, 6)); schedule.step()
    >>> seen
    [1.0, 0.5, 0.025, 0.0125]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        super().__init__(optimizer or (schedulers[0].optimizer if schedulers else None), schedulers)

    def step(self) -> None:
        """See `LRScheduler`."""
        self.check_step()
        self.last_epoch += 1
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self.rates()

    def restart(self) -> None:
        """See `LRScheduler`."""
        self.write(self.base_lrs)
        self.last_epoch = 0
        for scheduler in self._schedulers:
            scheduler.last_epoch = -1
            scheduler.set_initial()
        self._last_lr = self.rates()
