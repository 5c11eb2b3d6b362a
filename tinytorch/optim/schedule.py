"""The base of learning rate schedulers: what is called after each step or epoch, and what is saved.

A scheduler writes into the tensor that holds the learning rate, so it works with compiled steps and makes them compile
nothing; it must stand outside of them. Write `get_lr` to have one of your own:

    >>> import tinytorch as tt
    >>> class Harmonic(tt.optim.LRScheduler):
    ...     def get_lr(self):
    ...         return [base / (self.last_epoch + 1) for base in self.base_lrs]
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule = Harmonic(opt)
    >>> for _ in range(3): schedule.step()
    >>> schedule.get_last_lr(), opt.lr
    ([0.25], 0.25)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tinytorch.ir.errors import FormatError, OpError

from .optimizer import Optimizer, outside_traces


class LRScheduler:
    """What all schedulers share; they have PyTorch's names, arguments and results.

    Args:
        optimizer: whose learning rates to set: those of its groups, when the scheduler is made, are the base.
        last_epoch: the number of `step()` calls to go on from; -1 starts anew. (A state dict knows more.)
    Attributes:
        last_epoch: how often `step` was called.
        base_lrs: the learning rate of each group before any scheduler.
    Raises:
        OpError: `optimizer` is none, or last_epoch is given for one that no scheduler was ever made for.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule = tt.optim.ExponentialLR(opt, gamma=0.5)
    >>> schedule.step(); schedule.last_epoch, schedule.base_lrs, schedule.get_last_lr()
    (1, [1.0], [0.5])
    """

    hidden: tuple[str, ...] = ("optimizer",)  # attributes that are not state
    is_initial = False  # while the first learning rate is being set

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise OpError(f"{name}: expected an optimiser, got {optimizer!r:.80}")
        self.optimizer, self.last_epoch = optimizer, last_epoch
        for group in optimizer.param_groups:
            if last_epoch >= 0 and "initial_lr" not in group:
                raise OpError(f"{name}(last_epoch={last_epoch}): the optimiser has never had a scheduler; load its "
                              "state dict first, or leave last_epoch out")
            group.setdefault("initial_lr", group.rate)
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self._last_lr: list[float] = []
        self.set_initial()

    # -- what a scheduler says -----------------------------------------------------------------------------------------

    def get_lr(self) -> Sequence[float]:
        """The learning rate of each group at `last_epoch`, from `base_lrs` or from `rates()`, the present ones."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr(self): give the learning rate of each group")

    def rates(self) -> list[float]:
        """The present learning rate of each group."""
        return [group.rate for group in self.optimizer.param_groups]

    def scaled(self, factor: float) -> list[float]:
        """The present learning rates times a factor."""
        return [rate * factor for rate in self.rates()]

    # -- what users call -----------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Count one more epoch (or step: as often as you call it) and set the learning rates; after `optimizer.step()`.

        Raises:
            TracingError: a function is being traced or compiled; call it outside.
        """
        self.check_step()
        self.last_epoch += 1
        self.write(self.get_lr())

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group that was set last."""
        return list(self._last_lr)

    def write(self, rates: Sequence[float]) -> None:
        """Set the learning rates."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self.rates()

    def check_step(self) -> None:
        """Complain about a step inside a trace (TracingError), or for groups that were not there (OpError)."""
        outside_traces(f"{type(self).__name__}.step()")
        known, groups = len(self.base_lrs), len(self.optimizer.param_groups)
        if known != groups:
            raise OpError(f"{type(self).__name__} was made for {known} parameter groups, the optimiser has {groups}: "
                          "make schedulers after the groups")

    def set_initial(self) -> None:
        """The step that every scheduler makes as it is made."""
        self.is_initial = True
        try:
            LRScheduler.step(self)
        finally:
            del self.is_initial

    def restart(self) -> None:
        """Start anew from `base_lrs`: what a `SequentialLR` does when this scheduler's turn comes."""
        self.write(self.base_lrs)
        self.last_epoch = -1
        self.set_initial()

    # -- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, as numbers, strings and lists; functions are not saved.

        The learning rate that an optimiser has now is in the state dict of the optimiser.
        """
        return copy.deepcopy(self._plain())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of the same kind of scheduler; load that of the optimiser too.

        Raises:
            FormatError: something is missing, or it is of another number of groups; then nothing was changed.
        """
        outside_traces("load_state_dict of a scheduler")
        self.check_state(state)
        vars(self).update(copy.deepcopy({key: state[key] for key in self._plain()}))

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Complain (FormatError) about a state that does not fit."""
        name, own = type(self).__name__, self.state_dict()
        if missing := set(own) - set(state):
            raise FormatError(f"load_state_dict of {name}, nothing was changed: {', '.join(sorted(missing))} missing; "
                              "is it of another scheduler?")
        for key in {"base_lrs", "_last_lr", "_schedulers"} & set(own):
            if len(state[key]) != len(own[key]):
                raise FormatError(f"load_state_dict of {name}, nothing was changed: expected {len(own[key])} {key}, "
                                  f"got {len(state[key])}")

    def _plain(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in self.hidden}


def for_each_group(name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value for all groups, or a list of one for each."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise OpError(f"{name}: expected one value, or {count}, one for each parameter group; got {len(value)}")
    return list(value)
