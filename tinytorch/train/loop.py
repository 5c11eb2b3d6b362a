"""The loop of `Trainer.fit`: batch after batch, and what is due after a step, after an epoch and at the end.

What a step costs besides the step itself is one look at the loss (a NumPy number), two additions and a clock. Order
after a step: log, callbacks, scheduler, validation, Ctrl-C, checkpoint; so a checkpoint holds all of what came before.
"""

from __future__ import annotations

import functools
import inspect
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinytorch.ir.errors import OpError

from .batch import Position, as_parts, size_of
from .interrupt import Asked
from .progress import Silent
from .step import Outcome

if TYPE_CHECKING:
    from .trainer import Trainer


@dataclass(frozen=True)
class Limits:
    """How far to go, and how often to validate."""

    epochs: int | None = None
    steps: int | None = None
    validation: Any = None
    validate_every: int | None = None

    def __post_init__(self) -> None:
        if self.epochs is None and self.steps is None:
            raise OpError("fit: expected epochs=… or steps=…, the whole number of them from the beginning of the run")
        for name in ("epochs", "steps", "validate_every"):
            number = getattr(self, name)
            if number is not None and (not hasattr(number, "__index__") or operator.index(number) < 1):
                raise OpError(f"fit({name}={number!r}): expected an integer ≥ 1")

    def total(self, batches: int | None, accumulate: int) -> int | None:
        """How many steps that will be, if it can be known."""
        whole = None if self.epochs is None or batches is None else self.epochs * -(-batches // accumulate)
        return min((n for n in (whole, self.steps) if n is not None), default=None)


class Loop:
    """One call of `fit`."""

    def __init__(self, trainer: Trainer, position: Position, limits: Limits, bar: Silent, asked: Asked) -> None:
        self.trainer, self.position, self.limits, self.bar, self.asked = trainer, position, limits, bar, asked
        self.hooks = [callback.on_step_end for callback in trainer.callbacks]
        self.began = self.lap = time.perf_counter()
        self.before = trainer.seconds
        self.lap_samples, self.lap_compiling, self.rate = trainer.samples, trainer.compile_seconds, 0.0

    def run(self) -> None:
        """Train until a limit, a callback or Ctrl-C says stop."""
        trainer = self.trainer
        if not self.done() and not trainer.ending and self.owes():
            self.validate()  # the run before was interrupted in it
        while not self.done():
            self.epoch()
        self.show()
        if not trainer.interrupted:
            self.log()
            self.validate()
        self.clock()

    def done(self) -> bool:
        """Whether it is time to stop."""
        trainer, limits = self.trainer, self.limits
        return (trainer.stopped is not None or (limits.steps is not None and trainer.step >= limits.steps)
                or (limits.epochs is not None and trainer.epoch >= limits.epochs))

    def epoch(self) -> None:
        """The batches of an epoch that are left, and its end, unless a step is the last."""
        if not self.trainer.ending:
            self.batches()
        if self.trainer.ending:
            self.end()

    def batches(self) -> None:
        """The batches that are left."""
        trainer = self.trainer
        empty = not self.position.batch
        for batch in self.position:
            empty = False
            self.batch(batch)
            if self.done():
                return
        if empty:
            raise OpError("fit: the loader gave no batch; one that can be gone through only once is used up by the "
                          "first epoch: give a list, or a DataLoader")
        if trainer.program.pending:  # fewer batches than accumulate=…
            outcome = trainer.program.flush(trainer.loss)
            if outcome.updated or not outcome.finite:
                self.moved(outcome, ())
        trainer.ending = True

    def end(self) -> None:
        """What is due after the last batch; where Ctrl-C breaks off the validation, a run resumed does all of it."""
        trainer = self.trainer
        self.log()
        if self.owes():
            self.validate()
        if self.owes():
            return
        if trainer.scheduler is not None and trainer.schedule_every == "epoch":
            _advance(trainer, trainer.validation.get("val_loss"))
        trainer.epoch, trainer.ending = trainer.epoch + 1, False
        for callback in trainer.callbacks:
            callback.on_epoch_end(trainer)
        self.interrupted()
        every = trainer.checkpoint_every
        if every is None or (trainer.step % every == 0 and trainer.saved_step != trainer.step):
            self.save()

    def batch(self, batch: Any) -> None:
        """One call of the program."""
        trainer, parts = self.trainer, as_parts(batch)
        outcome = trainer.program(parts)
        size = size_of(parts)
        if outcome.finite:
            trainer.loss = outcome.loss
            trainer.samples += size
            trainer.window.update(outcome.loss, size)
        if outcome.updated or not outcome.finite:
            self.updated(outcome, parts)

    def updated(self, outcome: Outcome, parts: tuple[Any, ...]) -> None:
        """What is due when the parameters have moved, amid an epoch."""
        trainer = self.trainer
        self.moved(outcome, parts)
        self.interrupted()
        if trainer.checkpoint_every is not None and trainer.step % trainer.checkpoint_every == 0:
            self.save()

    def moved(self, outcome: Outcome, parts: tuple[Any, ...]) -> None:
        """What is due when the parameters have moved, but for a checkpoint."""
        trainer = self.trainer
        if not outcome.finite:
            raise trainer.trouble(outcome, parts)
        trainer.step += 1
        trainer.norm = outcome.norm
        if self.bar.due:
            self.show()
        if trainer.step % trainer.log_every == 0:
            self.log()
        for hook in self.hooks:
            hook(trainer)
        if trainer.scheduler is not None and trainer.schedule_every == "step":
            _advance(trainer, trainer.loss)
        if self.owes():
            self.validate()

    def save(self) -> None:
        """Write a checkpoint, if there is a directory for it."""
        if self.trainer.checkpoints is not None:
            self.clock()
            self.trainer.save()

    def interrupted(self) -> None:
        """Ask the run to stop if Ctrl-C was pressed."""
        if self.asked.to_stop:
            self.trainer.interrupted = True
            self.trainer.stop("interrupted")

    def clock(self) -> None:
        """Note the time spent training, in all runs up to here."""
        self.trainer.seconds = self.before + time.perf_counter() - self.began

    def show(self) -> None:
        """Draw the bar."""
        trainer, now = self.trainer, time.perf_counter()
        if trainer.samples > self.lap_samples:  # compiling is no training
            seconds = now - self.lap - (trainer.compile_seconds - self.lap_compiling)
            self.rate = (trainer.samples - self.lap_samples) / max(seconds, 1e-9)
        self.lap, self.lap_samples, self.lap_compiling = now, trainer.samples, trainer.compile_seconds
        loss = trainer.window.compute() if trainer.window.weight else trainer.loss
        epoch = max(trainer.epoch + bool(self.position.batch), 1)  # the one that runs, or the last one
        self.bar.update(trainer.step, epoch, loss, trainer.lr, self.rate)

    def log(self) -> None:
        """Write a row, if there is something that no row has yet."""
        trainer = self.trainer
        if not trainer.window.weight:
            return
        self.clock()
        row = {"step": trainer.step, "epoch": trainer.epoch, "loss": trainer.window.compute(), "lr": trainer.lr,
               "seconds": round(trainer.seconds, 3)}
        trainer.window.reset()
        trainer.log.write(row if trainer.norm is None else {**row, "grad_norm": trainer.norm})

    def owes(self) -> bool:
        """Whether a validation is due."""
        trainer, every = self.trainer, self.limits.validate_every
        if self.limits.validation is None or trainer.validated == trainer.step:
            return False
        return trainer.ending if every is None else trainer.step > 0 and trainer.step % every == 0

    def validate(self) -> None:
        """Evaluate on the validation data, once a step at most."""
        trainer = self.trainer
        if self.limits.validation is None or trainer.validated == trainer.step:
            return
        began = time.perf_counter()
        with trainer.averaged():
            found = trainer.runner.evaluate(self.limits.validation, lambda: self.asked.to_stop)
        if found is None:
            self.interrupted()
            return
        trainer.validation = {f"val_{name}": value for name, value in found.items()}
        trainer.validated = trainer.step
        self.clock()
        self.lap += time.perf_counter() - began  # no training either
        trainer.log.write({"step": trainer.step, "epoch": trainer.epoch, **trainer.validation,
                           "seconds": round(trainer.seconds, 3)})
        words = [f"{name} {value:.4f}" for name, value in trainer.validation.items() if isinstance(value, float)]
        self.bar.note(f"step {trainer.step}: {', '.join(words)}")
        for callback in trainer.callbacks:
            callback.on_validation_end(trainer, trainer.validation)


def _advance(trainer: Trainer, measure: float | None) -> None:
    """Step the scheduler; one that goes by a measure gets the loss."""
    if not takes_measure(type(trainer.scheduler).step):
        trainer.scheduler.step()
        return
    if measure is None:
        raise OpError(f"{type(trainer.scheduler).__name__} goes by the validation loss: give fit(validation=…), and "
                      "validate before the first epoch ends")
    trainer.scheduler.step(measure)


@functools.cache
def takes_measure(step: Callable[..., Any]) -> bool:
    """Whether a scheduler's `step(self, …)` must be given a number, as that of ReduceLROnPlateau."""
    wanted = [p for p in inspect.signature(step).parameters.values()
              if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return len(wanted) > 1  # besides self
