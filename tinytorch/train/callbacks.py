"""Do something while a model trains: stop early, print samples, write to TensorBoard, or what one thinks of.

    >>> import tinytorch as tt
    >>> from tinytorch.train import LambdaCallback, Trainer
    >>> model = tt.nn.Linear(1, 1)
    >>> seen = []
    >>> watch = LambdaCallback(on_step_end=lambda trainer: seen.append(trainer.step), every=2)
    >>> trainer = Trainer(model, tt.optim.SGD(model.parameters(), lr=0.1), tt.nn.MSELoss(), callbacks=[watch],
    ...                   compile=False, progress=False)
    >>> _ = trainer.fit([(tt.ones(4, 1), tt.ones(4, 1))], steps=5)
    >>> seen
    [2, 4]

A callback is an object with methods `on_…`. What it must remember over a restart it gives as `state_dict`, which stands
in the checkpoints. `trainer.stop("why")` ends the training after the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.ir.errors import OpError

if TYPE_CHECKING:
    from .trainer import Trainer


class Callback:
    """The base: each method is called at its time, and does nothing. Subclass it, and write those that you need.

    >>> class Count(Callback):
    ...     epochs = 0
    ...     def on_epoch_end(self, trainer):
    ...         self.epochs += 1
    >>> Count().state_dict()
    {}
    """

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first step, after a checkpoint was loaded if there is one."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After each update; `trainer.step`, `trainer.loss` and `trainer.lr` are those of this step."""

    def on_validation_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """After a validation, with its numbers as `val_loss`, `val_accuracy`, …"""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After the last batch of an epoch, and the validation there."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """At the end, also of a run that was interrupted; the last checkpoint is written by then."""

    def state_dict(self) -> dict[str, Any]:
        """What to remember over a restart, as plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class LambdaCallback(Callback):
    """Functions as a callback.

    Args:
        every: call `on_step_end` only after steps whose number is a multiple of this.
        functions: by the name of the method they stand for, with its arguments after self.
    Raises:
        OpError: there is no such method, or every < 1.

    >>> LambdaCallback(on_epoch_end=lambda trainer: print(trainer.epoch)).every
    1
    """

    def __init__(self, *, every: int = 1, **functions: Callable[..., Any]) -> None:
        names = [name for name in vars(Callback) if name.startswith("on_")]
        if unknown := sorted(set(functions) - set(names)):
            raise OpError(f"LambdaCallback: there is no {unknown}; expected some of {names}")
        if every < 1:
            raise OpError(f"LambdaCallback(every={every}): expected a number of steps ≥ 1")
        self.every = every
        on_step_end = functions.pop("on_step_end", None)
        if on_step_end is not None:
            self.function = on_step_end
            functions["on_step_end"] = self._sometimes
        for name, function in functions.items():
            setattr(self, name, function)

    def _sometimes(self, trainer: Trainer) -> None:
        if trainer.step % self.every == 0:
            self.function(trainer)


class Best:
    """The best value so far, and whether a new one is better by more than `min_delta`; NaN never is."""

    def __init__(self, mode: str = "min", min_delta: float = 0.0) -> None:
        if mode not in ("min", "max"):
            raise OpError(f"mode={mode!r}: expected 'min' (a loss) or 'max' (an accuracy)")
        self.mode, self.min_delta = mode, abs(min_delta)
        self.value: float | None = None
        self.step = 0

    def improves(self, value: float, step: int) -> bool:
        """Whether `value` is better than all before; if so it is the best now."""
        gain = (self.value - value if self.mode == "min" else value - self.value) if self.value is not None else np.inf
        if value != value or not gain > self.min_delta:
            return False
        self.value, self.step = float(value), step
        return True


class EarlyStopping(Callback):
    """Stop when a validation figure has not improved for a while (Prechelt, 1998).

    Args:
        monitor: which figure, such as "val_loss" or "val_accuracy".
        patience: after how many validations in a row that were not better.
        min_delta: how much better it must be to count.
        mode: "min" if lower is better, "max" if higher is.
        restore_best: give the model (and its averages) the best weights at the end of the run.
    Attributes:
        best: the best value so far, and `best_step` its step.
    Raises:
        OpError: options that make no sense, or a figure that no validation gives.

    >>> EarlyStopping("val_accuracy", patience=5, mode="max").best is None
    True
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, mode: str = "min",
                 restore_best: bool = False) -> None:
        if patience < 1:
            raise OpError(f"EarlyStopping(patience={patience}): expected a number of validations ≥ 1")
        self.monitor, self.patience, self.restore_best = monitor, patience, restore_best
        self._best, self.waited = Best(mode, min_delta), 0
        self.weights: dict[str, Any] | None = None

    best = property(lambda self: self._best.value)
    best_step = property(lambda self: self._best.step)

    def on_validation_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Look at the figure, and stop the run if it is time."""
        if self.monitor not in metrics:
            raise OpError(f"EarlyStopping(monitor={self.monitor!r}): the validation gives {', '.join(metrics)}")
        if self._best.improves(float(metrics[self.monitor]), trainer.step):
            self.waited = 0
            self.weights = trainer.weights() if self.restore_best else None
            return
        self.waited += 1
        self._stop_in_time(trainer)

    def on_fit_begin(self, trainer: Trainer) -> None:
        """A run that it had ended does not begin again."""
        self._stop_in_time(trainer)

    def _stop_in_time(self, trainer: Trainer) -> None:
        if self.waited >= self.patience:
            best = "never a number" if self.best is None else f"best {self.best:.5g} at step {self.best_step}"
            trainer.stop(f"{self.monitor} has not improved for {self.waited} validations ({best})")

    def on_fit_end(self, trainer: Trainer) -> None:
        """Restore the best weights, if asked and the run was not interrupted."""
        if self.weights is not None and not trainer.interrupted:
            trainer.load_weights(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The best value, its step and weights, and for how long it has been waited."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._best.value, self._best.step = state["best"], state["best_step"]
        self.waited, self.weights = state["waited"], state["weights"]
