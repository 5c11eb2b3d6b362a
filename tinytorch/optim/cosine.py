"""Schedules along a cosine: annealing, with restarts, one cycle, and a warm-up before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinytorch.ir.errors import OpError

from .decay import LambdaLR
from .optimizer import Optimizer
from .schedule import LRScheduler, for_each_group


def between(start: float, end: float, part: float) -> float:
    """Half a cosine wave: `start` at part 0, `end` at part 1."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


class CosineAnnealingLR(LRScheduler):
    """From the base learning rate to `eta_min` in `T_max` epochs along half a cosine wave, then up again (Loshchilov
    and Hutter, 2017: "SGDR").

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule, seen = tt.optim.CosineAnnealingLR(opt, T_max=4), []
    >>> for _ in range(6): seen.append(round(opt.lr, 3)); schedule.step()
    >>> seen
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.146]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if T_max < 1:
            raise OpError(f"CosineAnnealingLR(T_max={T_max}): expected a number of epochs ≥ 1")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[float]:
        """See the class; each is worked out from the one before, so that schedulers may be combined."""
        if self.is_initial:
            return self.rates()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # up from the lowest point, where 1 + cos is 0
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            pairs = zip(self.rates(), self.base_lrs, strict=True)
            return [rate + (base - self.eta_min) * rise for rate, base in pairs]
        now, before = (1 + math.cos(math.pi * t / self.T_max) for t in (self.last_epoch, self.last_epoch - 1))
        return [now / before * (rate - self.eta_min) + self.eta_min for rate in self.rates()]


class CosineAnnealingWarmRestarts(LRScheduler):
    """From the base learning rate to `eta_min` in `T_0` epochs, then from the top again, each time `T_mult` times as
    slowly (Loshchilov and Hutter, 2017: "SGDR").

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule, seen = tt.optim.CosineAnnealingWarmRestarts(opt, T_0=2, T_mult=2), []
    >>> for _ in range(7): seen.append(round(opt.lr, 3)); schedule.step()
    >>> seen
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        if T_0 < 1 or T_mult < 1 or T_0 != int(T_0) or T_mult != int(T_mult):
            raise OpError(f"CosineAnnealingWarmRestarts(T_0={T_0}, T_mult={T_mult}): expected whole numbers ≥ 1")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        self.T_i, self.T_cur = T_0, last_epoch  # of the present wave: its length, and how much of it is over
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[float]:
        """See the class."""
        self.T_i, self.T_cur = self.T_0, self.last_epoch
        while self.T_cur >= self.T_i:
            if self.T_mult == 1:
                self.T_cur %= self.T_0
            else:
                self.T_i, self.T_cur = self.T_i * self.T_mult, self.T_cur - self.T_i
        return [between(base, self.eta_min, self.T_cur / self.T_i) for base in self.base_lrs]


class OneCycleLR(LRScheduler):
    """Up to `max_lr` and down to nearly nothing, in one run of `total_steps` calls of `step` (Smith and Topin, 2018:
    "Super-convergence").

    From max_lr / div_factor to max_lr in the first `pct_start` of the steps, then to max_lr / div_factor /
    final_div_factor; with `three_phase` down to where it began first, as slowly as it went up.

    PyTorch also cycles momentum (or β₁), by default. Here these are constants of a compiled step, so the scheduler
    leaves them alone: pass cycle_momentum=False to PyTorch to get the same run.

    Args:
        max_lr: the peak, or one for each parameter group.
        total_steps: the length of the cycle; or give epochs and steps_per_epoch.
        anneal_strategy: "cos" or "linear".
    Raises:
        OpError: the length is not given, or an argument makes no sense; also `step` after the end of the cycle.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule, seen = tt.optim.OneCycleLR(opt, max_lr=1.0, total_steps=5, pct_start=0.4), []
    >>> for _ in range(5): seen.append(round(opt.lr, 3)); schedule.step()
    >>> seen
    [0.04, 1.0, 0.75, 0.25, 0.0]
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = False, *,
                 div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
                 last_epoch: int = -1) -> None:
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = epochs * steps_per_epoch
        if total_steps is None or total_steps < 1:
            raise OpError(f"OneCycleLR(total_steps={total_steps}, epochs={epochs}, steps_per_epoch={steps_per_epoch}): "
                          "expected total_steps ≥ 1, or epochs and steps_per_epoch")
        if not 0 <= pct_start <= 1 or anneal_strategy not in ("cos", "linear"):
            raise OpError(f"OneCycleLR(pct_start={pct_start}, anneal_strategy={anneal_strategy!r}): expected a part "
                          "from 0 to 1, and 'cos' or 'linear'")
        if cycle_momentum:
            raise OpError("OneCycleLR(cycle_momentum=True): momentum and betas are constants of a compiled step; "
                          "use cycle_momentum=False")
        self.total_steps, self.pct_start, self.three_phase = total_steps, pct_start, three_phase
        self.anneal_strategy, self.final_div_factor = anneal_strategy, final_div_factor
        self.max_lrs: list[float] = for_each_group("OneCycleLR(max_lr)", max_lr, optimizer)
        if last_epoch == -1:
            for group, peak in zip(optimizer.param_groups, self.max_lrs, strict=True):
                group["initial_lr"] = peak / div_factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Sequence[float]:
        """See the class."""
        now, last = self.last_epoch, self.total_steps - 1
        if now > self.total_steps:
            raise OpError(f"OneCycleLR.step(): the cycle of {self.total_steps} steps is over; it was to be called "
                          "once for each step of training")
        up = self.pct_start * self.total_steps - 1
        ends = [up, 2 * up, last] if self.three_phase else [up, last]
        phase = next((i for i, end in enumerate(ends) if now <= end), len(ends) - 1)
        start, end = ends[phase - 1] if phase else 0.0, ends[phase]
        part = (now - start) / (end - start) if end != start else 1.0
        anneal = between if self.anneal_strategy == "cos" else _straight
        rates = []
        for low, peak in zip(self.base_lrs, self.max_lrs, strict=True):
            levels = [low, peak, *([low] if self.three_phase else []), low / self.final_div_factor]
            rates.append(anneal(levels[phase], levels[phase + 1], part))
        return rates


def _straight(start: float, end: float, part: float) -> float:
    return (end - start) * part + start


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int, final: float = 0.0) -> LambdaLR:
    """What language models are trained with: a straight warm-up, then half a cosine wave down, then it stays there.

        lr · (t + 1) / (warmup_steps + 1)                       for t < warmup_steps
        lr · (final + (1 - final) (1 + cos πs) / 2)             s = (t - warmup_steps) / (total_steps - warmup_steps)

    Args:
        warmup_steps, total_steps: counted in calls of `step`.
        final: the part of the learning rate that is left at the end.

    >>> import tinytorch as tt
    >>> opt = tt.optim.AdamW([tt.ones(2, requires_grad=True)], lr=1.0)
    >>> schedule, seen = tt.optim.warmup_cosine(opt, 3, 5, final=0.1), []
    >>> for _ in range(7): seen.append(round(opt.lr, 6)); schedule.step()
    >>> seen
    [0.25, 0.5, 0.75, 1.0, 0.55, 0.1, 0.1]
    """
    if not 0 <= warmup_steps < total_steps:
        raise OpError(f"warmup_cosine({warmup_steps}, {total_steps}): expected 0 ≤ warmup_steps < total_steps")

    def part(t: int) -> float:
        if t < warmup_steps:
            return (t + 1) / (warmup_steps + 1)
        return between(1.0, final, min(1.0, (t - warmup_steps) / (total_steps - warmup_steps)))

    return LambdaLR(optimizer, part)
