"""Train a model: `Trainer(model, optimizer, loss).fit(loader, epochs=3)`; evaluate it, use it, go on where it stopped.

    >>> import numpy as np, tinytorch as tt
    >>> from tinytorch.train import Accuracy, Trainer
    >>> _ = tt.manual_seed(0)
    >>> x = np.random.default_rng(0).standard_normal((64, 2)).astype("f4"); y = (x[:, 0] > x[:, 1]).astype("i8")
    >>> batches = [(x[i:i + 16], y[i:i + 16]) for i in range(0, 64, 16)]
    >>> model = tt.nn.Linear(2, 2)
    >>> trainer = Trainer(model, tt.optim.Adam(model.parameters(), lr=0.1), tt.nn.CrossEntropyLoss(),
    ...                   metrics=[Accuracy()], progress=False)
    >>> result = trainer.fit(batches, epochs=10)
    >>> result.step, trainer.evaluate(batches)["accuracy"] > 0.9, trainer.predict(x).shape
    (40, True, (64, 2))

The idea: a step is one function (`train.step`), compiled whole or run eagerly, and the trainer is the state around it:
counters, random numbers, the place in the data, what callbacks remember. All of that is in a checkpoint, so a run that
was killed at any moment and resumed ends in the same bits as one that was not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.ir.errors import OpError
from tinytorch.nn import Module
from tinytorch.nn.module import in_mode
from tinytorch.optim import Optimizer
from tinytorch.random import manual_seed

from . import state
from .batch import Position
from .callbacks import Callback
from .checkpoint import Checkpoints, read
from .ema import ExponentialMovingAverage
from .evaluation import Runner
from .interrupt import patience
from .log import Log, draw_curves
from .loop import Limits, Loop
from .loss import Loss, UsualLoss
from .metrics import Mean, Metric
from .nonfinite import NonFiniteError, bad_parameter, trouble
from .precision import GradScaler
from .progress import show_progress
from .step import Outcome, Step


@dataclass(frozen=True)
class Result:
    """What `fit` gives.

    Attributes:
        step, epoch: how many updates and epochs the run has made, from its beginning.
        seconds: the time they took, over all restarts.
        history: the rows of the log.
        interrupted: whether Ctrl-C ended it.
        stopped: why it ended before its limits, or None.
        checkpoint: the last one written, or None.

    >>> import tinytorch as tt
    >>> model = tt.nn.Linear(2, 1)
    >>> trainer = Trainer(model, tt.optim.SGD(model.parameters(), lr=0.1), tt.nn.MSELoss(), compile=False,
    ...                   progress=False)
    >>> result = trainer.fit([(tt.ones(4, 2), tt.ones(4, 1))], steps=3)
    >>> result.step, result.epoch, result.stopped
    (3, 2, None)
    """

    step: int
    epoch: int
    seconds: float
    history: list[dict[str, Any]]
    interrupted: bool
    stopped: str | None
    checkpoint: Path | None


class Trainer:
    """Trains a model and keeps what that needs.

    Args:
        model: what is trained.
        optimizer: made over its parameters.
        loss: `loss(output, target)`, a number; the last part of a batch is the target, the others go into the model.
            Logits (batch, time, classes) with labels (batch, time) are flattened.
        loss_step: in its place, `loss_step(model, batch)` -> the loss, or (loss, output), or (loss, output, target).
        scheduler: of `tinytorch.optim`; it steps after each update or each epoch (`schedule_every`).
        metrics: `Metric`s, or functions (output, target) -> number, for validations and `evaluate`.
        compile: one switch: each step is one compiled function, or the same function runs eagerly.
        accumulate: batches that make one update, each weighted by its size.
        clip_norm, clip_value: bounds for the gradient's norm, and for each of its numbers.
        precision: "f32"; "bf16" or "f16" for products of rounded operands in training (`passes.CastPrecision`), with
            parameters, sums and gradients in f32. "f16" comes with a `GradScaler`: a step that overflows is left out.
        memory: a budget for the intermediates of a step, in bytes or, up to 1.0, as a part of what they need else: the
            rest is computed again, with the same results (`passes.Rematerialize`).
        ema: decay of an `ExponentialMovingAverage`, or one; validations, `evaluate` and `predict` use the averages.
        callbacks: see `Callback`.
        directory: a folder for checkpoints, `log.jsonl` and `curves.png`.
        checkpoint_every: steps between checkpoints; by default there is one at the end of each epoch. One more is
            written at the end of `fit`.
        keep: how many of the newest checkpoints stay; None for all.
        log_every: steps between rows of the log; an epoch ends with a row, too.
        seed: for `tt.manual_seed` at the beginning of a run (not when one is resumed).
        progress: whether to show how it goes: a bar on a terminal, a line now and then elsewhere.
    Attributes:
        step, epoch, samples: how many updates, whole epochs and samples the run has behind it.
        loss, lr: the loss of the last batch, and the learning rate.
        history: rows of the log; `stopped` and `interrupted` say why a run ended early.
    Raises:
        OpError: options that make no sense.

    >>> import tinytorch as tt
    >>> model = tt.nn.Linear(2, 1)
    >>> trainer = Trainer(model, tt.optim.SGD(model.parameters(), lr=0.1), tt.nn.MSELoss())
    >>> trainer.predict(tt.ones(3, 2)).shape
    (3, 1)
    """

    step: int
    loss: float
    norm: float | None
    validation: dict[str, Any]
    saved: Path | None
    saved_at: tuple[int, int, int, bool] | None
    ending: bool  # the batches of the epoch are behind the run, what is due at its end is not
    stopped: str | None

    def __init__(self, model: Module, optimizer: Optimizer, loss: Callable[[Any, Any], Any] | None = None, *,
                 loss_step: Loss | None = None, scheduler: Any = None, schedule_every: str = "step",
                 metrics: Sequence[Metric | Callable[..., Any]] = (), compile: bool = True, precision: str = "f32",
                 memory: int | float | None = None, accumulate: int = 1,
                 clip_norm: float | None = None, clip_value: float | None = None,
                 ema: float | ExponentialMovingAverage | None = None, callbacks: Sequence[Callback] = (),
                 directory: str | Path | None = None, checkpoint_every: int | None = None, keep: int | None = 3,
                 log_every: int = 50, seed: int | None = None, progress: bool = True) -> None:
        if (loss is None) == (loss_step is None):
            raise OpError("Trainer: expected a loss, or a loss_step, and not both")
        if schedule_every not in ("step", "epoch"):
            raise OpError(f"Trainer(schedule_every={schedule_every!r}): expected 'step' or 'epoch'")
        for name, every in ("checkpoint_every", checkpoint_every), ("log_every", log_every):
            if every is not None and every < 1:
                raise OpError(f"Trainer({name}={every}): expected a number of steps ≥ 1")
        self.model, self.optimizer, self.scheduler, self.schedule_every = model, optimizer, scheduler, schedule_every
        self.loss_of: Loss = loss_step if loss_step is not None else UsualLoss(loss)  # type: ignore[arg-type]
        self.ema = ExponentialMovingAverage(model, ema) if isinstance(ema, (int, float)) else ema
        self.scaler = GradScaler() if precision == "f16" else None
        self.program = Step(model, optimizer, self.loss_of, compiled=compile, accumulate=accumulate,
                            clip_norm=clip_norm, clip_value=clip_value, ema=self.ema, scaler=self.scaler,
                            precision=precision, memory=memory)
        self.runner = Runner(model, self.loss_of, metrics, compile)
        self.callbacks = list(callbacks)
        self.directory = None if directory is None else Path(directory)
        self.checkpoints = None if self.directory is None else Checkpoints(self.directory, keep)
        self.checkpoint_every, self.log_every, self.seed, self.progress = checkpoint_every, log_every, seed, progress
        self.log = Log(None if self.directory is None else self.directory / "log.jsonl")
        self.position: Position | None = None
        self._reset()

    def _reset(self) -> None:
        """The beginning of a run."""
        self.step = self.epoch = self.samples = 0
        self.seconds, self.loss, self.norm = 0.0, float("nan"), None
        self.window, self.validated, self.validation = Mean(), -1, {}
        self.saved, self.saved_at, self.stopped, self.interrupted, self.ending = None, None, None, False, False

    @property
    def lr(self) -> float:
        """The learning rate of the optimiser's first group."""
        return self.optimizer.lr

    @property
    def compile_seconds(self) -> float:
        """How long tracing and compiling training steps has taken so far; 0 in eager mode."""
        return self.program.compile_seconds

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of the log."""
        return self.log.rows

    # -- what users call -----------------------------------------------------------------------------------------------

    def fit(self, loader: Iterable[Any], *, epochs: int | None = None, steps: int | None = None,
            validation: Iterable[Any] | None = None, validate_every: int | None = None,
            resume: bool | str | Path = False, overwrite: bool = False) -> Result:
        """Train, until there are so many epochs or steps behind the run, counted from its beginning.

        Ctrl-C ends the step that runs, writes a checkpoint and returns, with `interrupted` set; a second one stops at
        once.

        Args:
            loader: gives batches, each time it is gone through: a `DataLoader`, or a list.
            epochs, steps: how far to go; with both, to what comes first.
            validation: a loader to evaluate on at the end of each epoch, or every `validate_every` steps.
            resume: go on from the newest checkpoint of the directory if there is one (True), or from a file.
            overwrite: a new run may remove the checkpoints of an earlier one in the directory.
        Raises:
            NonFiniteError: a loss is NaN or infinite; all is as it was before that step.
            CheckpointError: a checkpoint cannot be written.
            FormatError: a checkpoint is damaged, or of another model; then nothing was changed.
            OpError: there is no limit; another run trains in the directory; or the checkpoints of an earlier one there
                are neither to be resumed nor overwritten.
        """
        limits = Limits(epochs, steps, validation, validate_every)
        with self.checkpoints.claimed() if self.checkpoints is not None else nullcontext():
            return self._fit(loader, limits, resume, overwrite)

    def _fit(self, loader: Iterable[Any], limits: Limits, resume: bool | str | Path, overwrite: bool) -> Result:
        """`fit`, in a directory that nobody else writes into."""
        self.position = Position(loader)
        self._begin(resume, overwrite)
        total = limits.total(self.position.length, self.program.accumulate)
        with in_mode(self.model, True), patience() as asked, show_progress(total, self.progress) as bar:
            for callback in self.callbacks:
                callback.on_fit_begin(self)
            Loop(self, self.position, limits, bar, asked).run()
            if self.checkpoints is not None:
                if self.saved_at != self._place():
                    self.save()
                self._draw(self.checkpoints.directory / "curves.png")
            if self.stopped is not None:
                where = f"; {self.saved} has all of it, fit(resume=True) goes on" if self.saved else ""
                bar.note(f"stopped after step {self.step}: {self.stopped}{where}")
            for callback in self.callbacks:
                callback.on_fit_end(self)
        return Result(self.step, self.epoch, self.seconds, list(self.history), self.interrupted, self.stopped,
                      self.saved)

    def evaluate(self, loader: Iterable[Any]) -> dict[str, Any]:
        """The loss (a mean over samples) and each metric, by name, in evaluation mode, with averaged weights if any."""
        with self.averaged():
            return self.runner.evaluate(loader) or {}

    def predict(self, data: Any, batch_size: int = 256) -> np.ndarray:
        """The model's outputs for an array or tensor (samples, …), or for the inputs of a loader's batches."""
        with self.averaged():
            return self.runner.predict(data, batch_size)

    def stop(self, reason: str = "stopped by a callback") -> None:
        """End the run after this step; for callbacks."""
        self.stopped = self.stopped or reason

    def save(self) -> Path:
        """Write a checkpoint into the directory.

        Raises:
            CheckpointError: it cannot be written; older ones are whole.
            NonFiniteError: a parameter is not finite, so nobody would want to go on from there.
        """
        if self.checkpoints is None:
            raise OpError("Trainer.save: there is no directory; give Trainer(directory=…)")
        if found := bad_parameter(self.model):
            raise NonFiniteError(f"no checkpoint after step {self.step}: {found.text}", self.step, found.kind,
                                 found.module)
        path = self.checkpoints.save(state.gather(self), self.step)
        self._note(path)
        return path

    def load(self, path: str | Path) -> None:
        """Take over all that a checkpoint holds, but for the place in the data outside of `fit`.

        Raises:
            FormatError: it is missing, damaged, or of another model; then nothing was changed.
        """
        state.restore(self, read(path), str(path))
        self._note(Path(path))

    # -- for callbacks and the loop ------------------------------------------------------------------------------------

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has its averaged weights while the block runs, if there are any."""
        if self.ema is None:
            yield
            return
        with self.ema.applied():
            yield

    def weights(self) -> dict[str, Any]:
        """A copy of the weights that `evaluate` uses, by name."""
        with self.averaged():
            return state.copied(self.model.state_dict())

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Give the model, and its averages, these weights."""
        self.model.load_state_dict(weights)
        if self.ema is not None:
            self.ema.load_state_dict({"decay": self.ema.decay,
                                      "shadow": {name: weights[name] for name in self.ema.shadow}})

    def trouble(self, outcome: Outcome, parts: tuple[Any, ...]) -> NonFiniteError:
        """What to raise for a step that was not finite: it says where that began."""
        before = self.program.guard.before()
        try:
            return trouble(self.model, parts, self.loss_of, self.step + 1, outcome.loss, outcome.norm, self.saved)
        finally:
            self.program.guard.restore(before)

    def _place(self) -> tuple[int, int, int, bool]:
        """What tells two moments of a run apart."""
        return self.step, self.epoch, self.validated, self.ending

    @property
    def saved_step(self) -> int | None:
        """The step of the last checkpoint."""
        return self.saved_at[0] if self.saved_at is not None else None

    def _note(self, path: Path) -> None:
        """Remember what the last checkpoint holds."""
        self.saved, self.saved_at = path, self._place()

    def _draw(self, path: Path) -> None:
        """Draw the curves; a run is not lost for a picture."""
        try:
            draw_curves(self.history, path)
        except OSError as error:
            warnings.warn(f"{path}: the curves cannot be written: {error.strerror}", stacklevel=3)

    def _begin(self, resume: bool | str | Path, overwrite: bool) -> None:
        """Find out where to begin, and be there."""
        self.program.reset()
        if self.checkpoints is not None:
            self.checkpoints.sweep()
        if isinstance(resume, (str, Path)):
            self._reset()
            self.load(resume)
            return
        if resume and self.checkpoints is None:
            raise OpError("fit(resume=True): there is no directory to look in; give Trainer(directory=…), or a path")
        found = self.checkpoints.latest() if resume and self.checkpoints is not None else None
        if found is not None:
            self._reset()
            state.restore(self, found[1], str(found[0]))
            self._note(found[0])
            return
        for old in self.checkpoints.paths() if self.checkpoints is not None else ():
            if not overwrite:
                raise OpError(f"fit: {self.directory} has checkpoints of an earlier run, the newest {old.name}: go on "
                              "with fit(resume=True), remove them with fit(overwrite=True), or give another directory")
            old.unlink()
        self._reset()
        self.log.restart([])
        if self.seed is not None:
            manual_seed(self.seed)
