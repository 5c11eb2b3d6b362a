"""One training step as one function: forward, backward, clipping, optimiser, averages. Eager, or compiled whole.

    step = Step(model, optimizer, loss_of, clip_norm=1.0)
    outcome = step((x, y))          # outcome.loss is a number, and everything was updated

A step whose loss (or clipped gradient norm) is not finite changes nothing: a compiled step writes `where(good, new,
old)` into all that it updates, which costs next to nothing because the old numbers are read anyway; an eager one stops
in time and puts back what its forward pass moved. So parameters, statistics, averages and the random generator are
those from before the step, and `tinytorch.train.nonfinite` can run it again to see where it went wrong.

With a `GradScaler` a step whose gradients overflow is left out in the same way, and the next one has a smaller scale.

With `accumulate` > 1 a step is k calls that add up gradients in tensors of their own, each weighted by its batch size,
and one that applies them: exactly the step of one batch k times as big, if the loss is a mean over samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.compile import compile as compile_function
from tinytorch.functional import where
from tinytorch.ir import is_tracing
from tinytorch.ir.errors import OpError
from tinytorch.nn import Module
from tinytorch.optim import Optimizer
from tinytorch.optim.clip import clip_grad_norm_, clip_grad_value_
from tinytorch.random import default_generator
from tinytorch.tensor import Tensor
from tinytorch.watch import touch

from .batch import size_of
from .ema import ExponentialMovingAverage
from .loss import Loss, loss_alone, modules_of

if TYPE_CHECKING:
    from .precision import GradScaler

LEAST_SCALE = 2.0**-14  # of the gradient: if even that overflows, it is not the scale


class Outcome(NamedTuple):
    """What a call gave: the loss of its batch, the norm of the gradient where it was clipped by norm, and whether
    parameters were updated."""

    loss: float
    norm: float | None
    updated: bool

    @property
    def finite(self) -> bool:
        """Whether all is well: an update was made, or added up for, or left out for a smaller scale of the loss. If
        not, nothing has changed."""
        return math.isfinite(self.loss) and (self.norm is None or math.isfinite(self.norm))


class Step:
    """Train `model` on one batch after the other.

    Args:
        model, optimizer: what is trained, and how.
        loss_of: (model, parts of a batch) -> the loss, or a tuple that begins with it.
        compiled: whether the functions are compiled.
        accumulate: how many calls make one update.
        clip_norm, clip_value: bounds for the gradient.
        ema: averages to update.
        scaler: scales the loss, and leaves out steps whose gradients overflow.
        precision, memory: of the compiled functions, see `tt.compile`; the budget is one for forward and backward.
    Raises:
        OpError: options that make no sense.
    """

    def __init__(self, model: Module, optimizer: Optimizer, loss_of: Loss, *, compiled: bool = True,
                 accumulate: int = 1, clip_norm: float | None = None, clip_value: float | None = None,
                 ema: ExponentialMovingAverage | None = None, scaler: GradScaler | None = None,
                 precision: str = "f32", memory: int | float | None = None) -> None:
        for name, bound in ("clip_norm", clip_norm), ("clip_value", clip_value):
            if bound is not None and not bound > 0:
                raise OpError(f"Trainer({name}={bound}): expected a number > 0, or None")
        if accumulate < 1:
            raise OpError(f"Trainer(accumulate={accumulate}): expected 1 or more batches an update")
        if not compiled and (precision != "f32" or memory is not None):
            raise OpError(f"Trainer(precision={precision!r}, memory={memory}, compile=False): both are passes over the "
                          "graph of a compiled step; leave compile=True")
        self.accumulate, self.scaler = accumulate, scaler
        parameters = parameters_of(optimizer)
        self.sums = [_sum_for(p) for p in parameters] if accumulate > 1 else []
        self.touched: set[int] = set()  # numbers of the parameters that have had a gradient
        self.pending = self.samples = 0

        def state() -> Iterator[Tensor]:  # all that a step may change
            yield from (*self.guard.moving, *model.parameters(), *parameters, *self.sums)
            yield from (tensor for _, tensor in optimizer.named_state())
            yield from ema.shadow.values() if ema is not None else ()

        self.guard = guard = Guard([*model.buffers(), default_generator.state], state)
        clip = partial(_clip, optimizer, clip_value, clip_norm)
        functions = [(_whole(model, optimizer, loss_of, clip, ema, guard, scaler), memory),
                     (_micro(model, optimizer, loss_of, self.sums, self.touched, guard, scaler), memory),
                     (_apply(optimizer, self.sums, clip, ema, guard, scaler), None)]
        ready: list[Callable[..., Any]] = [
            compile_function(f, precision=precision, memory=budget) if compiled else f for f, budget in functions]
        self.whole, self.micro, self.apply = ready

    def __call__(self, parts: tuple[Any, ...]) -> Outcome:
        """Take a batch; gives its loss. If that is not finite, nothing has changed."""
        if self.accumulate == 1:
            loss, norm, good = self.whole(*parts)
            return self._outcome(float(loss.payload), norm, good)
        size = size_of(parts)
        loss = float(self.micro(float(size), *parts).payload)
        if not math.isfinite(loss):
            return Outcome(loss, None, False)
        self.pending += 1
        self.samples += size
        return self.flush(loss) if self.pending == self.accumulate else Outcome(loss, None, False)

    def flush(self, loss: float) -> Outcome:
        """Apply the gradients that were added up; `loss` is that of the last batch."""
        if not self.pending:
            return Outcome(loss, None, False)
        norm, good = self.apply(1.0 / max(self.samples, 1), frozenset(self.touched))
        self.pending = self.samples = 0
        return self._outcome(loss, norm, good)

    def _outcome(self, loss: float, norm: Tensor | None, good: Tensor | None) -> Outcome:
        if self.scaler is None or good is None or good.item() or not math.isfinite(loss):
            return Outcome(loss, None if norm is None else float(norm.payload), True)
        return Outcome(loss, None if self.scaler.get_scale() >= LEAST_SCALE else math.nan, False)

    @property
    def compile_seconds(self) -> float:
        """How long tracing and compiling has taken so far; 0 if the functions run eagerly."""
        programs = [entry for function in (self.whole, self.micro, self.apply)
                    for entries in getattr(function, "entries", {}).values() for entry in entries]
        return float(sum(sum(entry.spent.seconds.values()) for entry in programs))

    def reset(self) -> None:
        """Forget gradients that were added up and not applied."""
        self.pending = self.samples = 0
        for total in self.sums:
            total.payload[...] = 0
            touch(total.payload)


class Guard:
    """Keeps what stood in tensors, for a step that turns out not to be finite.

    Args:
        moving: those that a forward pass may change.
        state: gives all that a step may change.
    """

    def __init__(self, moving: Sequence[Tensor], state: Callable[[], Iterable[Tensor]]) -> None:
        self.moving, self.state = moving, state

    def before(self, moving: bool = True) -> list[tuple[Tensor, Tensor, int]]:
        """What stands in the tensors now. A trace only names it; eagerly, what a forward pass may change is copied."""
        with no_grad():
            if is_tracing():
                state = {id(tensor): tensor for tensor in self.state()}.values()
                return [(tensor, tensor.alias(), tensor.version) for tensor in state]
            return [(tensor, tensor.clone(), tensor.version) for tensor in (self.moving if moving else ())]

    def stops(self, good: Tensor, before: list[tuple[Tensor, Tensor, int]]) -> bool:
        """Whether an eager step ends here; then the tensors are as they were."""
        if good.is_traced or good.item():
            return False
        self.restore(before)
        return True

    def restore(self, before: list[tuple[Tensor, Tensor, int]]) -> None:
        """Put everything back."""
        with no_grad():
            for tensor, old, _ in before:
                tensor.copy_(old)

    def settle(self, good: Tensor, before: list[tuple[Tensor, Tensor, int]]) -> None:
        """In a trace: all that was overwritten keeps its old numbers, unless the step is good."""
        if good.is_traced:
            with no_grad():
                for tensor, old, version in before:
                    if tensor.version != version:
                        tensor.copy_(where(good, tensor, old))


def is_finite(x: Tensor) -> Tensor:
    """Whether a number is neither NaN nor infinite."""
    return x.detach().abs() < math.inf


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """All that it moves, in order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _sum_for(p: Tensor) -> Tensor:
    """Zeros to add gradients up in: f32 where the parameter itself is shorter."""
    return Tensor(np.zeros(p.shape, np.promote_types(p.dtype.np, np.float32)))


def _clip(optimizer: Optimizer, clip_value: float | None, clip_norm: float | None) -> Tensor | None:
    """Bound the gradients; gives their norm before, where it is bounded."""
    found = [p for p in parameters_of(optimizer) if p.grad is not None]
    if clip_value is not None:
        clip_grad_value_(found, clip_value)
    return clip_grad_norm_(found, clip_norm).detach() if clip_norm is not None else None


def _forget(optimizer: Optimizer, modules: Sequence[Module]) -> None:
    """No gradient outlives its step: that of a parameter which is not optimised would pile up."""
    optimizer.zero_grad()
    for module in modules:
        module.zero_grad()


def _whole(model: Module, optimizer: Optimizer, loss_of: Loss, clip: Callable[[], Tensor | None],
           ema: ExponentialMovingAverage | None, guard: Guard, scaler: GradScaler | None) -> Callable[..., Any]:
    modules = modules_of(model, loss_of)

    def training_step(*parts: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        before = guard.before()
        _forget(optimizer, modules)
        loss = loss_alone(loss_of(model, parts))
        good = is_finite(loss)
        if guard.stops(good, before):
            return loss.detach(), None, None
        (loss if scaler is None else scaler.scale(loss)).backward()
        good = good if scaler is None else good & scaler.unscale_(optimizer)
        norm = clip()
        good = good if norm is None else good & is_finite(norm)
        if not guard.stops(good, before):
            optimizer.step()
            if ema is not None:
                ema.update()
        _forget(optimizer, modules)
        guard.settle(good, before)
        if scaler is not None:
            scaler.update()
        return loss.detach(), norm, None if scaler is None else good

    return training_step


def _micro(model: Module, optimizer: Optimizer, loss_of: Loss, sums: Sequence[Tensor], touched: set[int],
           guard: Guard, scaler: GradScaler | None) -> Callable[..., Any]:
    modules, parameters = modules_of(model, loss_of), parameters_of(optimizer)

    def micro_step(weight: Any, *parts: Any) -> Tensor:
        before = guard.before()
        _forget(optimizer, modules)
        loss = loss_alone(loss_of(model, parts))
        good = is_finite(loss)
        if guard.stops(good, before):
            return loss.detach()
        (loss if scaler is None else scaler.scale(loss)).backward()
        with no_grad():
            for number, p in enumerate(parameters):
                if p.grad is not None:
                    touched.add(number)
                    sums[number].add_(p.grad * weight)
        _forget(optimizer, modules)
        guard.settle(good, before)
        return loss.detach()

    return micro_step


def _apply(optimizer: Optimizer, sums: Sequence[Tensor], clip: Callable[[], Tensor | None],
           ema: ExponentialMovingAverage | None, guard: Guard, scaler: GradScaler | None) -> Callable[..., Any]:
    parameters = parameters_of(optimizer)

    def apply_step(scale: Any, touched: frozenset[int]) -> tuple[Tensor | None, Tensor | None]:
        before = guard.before(moving=False)
        with no_grad():
            for number in sorted(touched):
                p = parameters[number]
                p.grad = (sums[number] * scale).to(p.dtype)
        good = Tensor(np.array(True)) if scaler is None else scaler.unscale_(optimizer)
        norm = clip()
        good = good if norm is None else good & is_finite(norm)
        if not guard.stops(good, before):
            optimizer.step()
            if ema is not None:
                ema.update()
        optimizer.zero_grad()
        guard.settle(good, before)
        with no_grad():
            for number in sorted(touched):
                sums[number].zero_()
        if scaler is not None:
            scaler.update()
        return norm, None if scaler is None else good

    return apply_step
