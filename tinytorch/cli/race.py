"""Train one model eager and compiled side by side: same start, same batches, turns of equal length.

Each of the two keeps its own clock, which runs only during its own steps, so the bars of a race move as fast as each
of them really is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.autograd import no_grad
from tinytorch.compile import Compiled, compile
from tinytorch.data import mnist_batches
from tinytorch.random import manual_seed
from tinytorch.tensor import Tensor

BATCH = 64
TURN = 0.1  # seconds
Digits = tuple[np.ndarray, np.ndarray]


def batches(digits: Digits, epochs: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All batches of all epochs, in the order that belongs to the seed."""
    for epoch in range(epochs):
        for x, y in mnist_batches(*digits, BATCH, seed=1000 * seed + epoch, drop_last=True):
            yield Tensor(x), Tensor(y)


@dataclass
class Runner:
    """One side of the race.

    Attributes:
        losses: after each step; seconds: after each step, on this runner's clock.
        first: seconds of the first step, which for a compiled step holds the compilation.
    """

    name: str
    model: nn.Module
    step: Callable[[Any, Any], Any]
    batches: Iterator[tuple[Tensor, Tensor]]
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def run(self, turn: float) -> bool:
        """Train for about `turn` seconds, one step at least; False when there are no more batches."""
        spent = 0.0
        for x, y in self.batches:
            start = time.perf_counter()
            loss = self.step(x, y)
            taken = time.perf_counter() - start
            spent += taken
            self.seconds.append(self.total + taken)
            self.losses.append(float(loss.item()))
            if spent >= turn:
                return True
        return False

    @property
    def fast(self) -> Compiled:
        """The compiled step."""
        assert isinstance(self.step, Compiled), self.name
        return self.step

    @property
    def total(self) -> float:
        """Seconds of all steps so far."""
        return self.seconds[-1] if self.seconds else 0.0

    @property
    def first(self) -> float:
        """Seconds of the first step."""
        return self.seconds[0]

    @property
    def rest(self) -> float:
        """Seconds of all the other steps so far."""
        return self.total - self.first if self.seconds else 0.0

    def per_step(self, part: float = 0.5) -> float:
        """Seconds of a step after the first: the median, or what the fastest `part` of them stay below."""
        return float(np.quantile(np.diff(self.seconds), part)) if len(self.seconds) > 1 else self.total


def make_runner(name: str, program: ModuleType, digits: Digits, epochs: int, seed: int) -> Runner:
    """The side called "eager" or "compiled", of the demo's program (see `demo_program`)."""
    manual_seed(seed)
    model = program.MLP()
    step = program.training_step(model)
    return Runner(name, model, compile(step) if name == "compiled" else step, batches(digits, epochs, seed))


def race(runners: list[Runner], tell: Callable[[Runner], None]) -> None:
    """Let all run to the end, in turns; `tell` is called after each turn."""
    running = list(runners)
    while running:
        for runner in list(running):
            if not runner.run(TURN):
                running.remove(runner)
            tell(runner)


def accuracy(model: nn.Module, digits: Digits) -> float:
    """The fraction of digits that the model tells right."""
    [(x, y)] = mnist_batches(*digits, batch_size=len(digits[1]), seed=None)
    with no_grad():
        logits = compile(model, pipeline="infer")(Tensor(x))
    return float((logits.numpy().argmax(1) == y).mean())
