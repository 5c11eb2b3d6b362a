"""Sparsity that grows while a `Trainer` trains."""

from __future__ import annotations

from typing import Any

from tinytorch.ir.errors import OpError
from tinytorch.nn.module import Module
from tinytorch.train.callbacks import Callback
from tinytorch.train.trainer import Trainer

from .criteria import Criterion
from .training import cubic
from .weights import Elements, zero_smallest


class Gradually(Callback):
    """Prune while training: every so many steps, zero as many weights as the cubic schedule says.

    Args:
        amount: the share of zeros at the end.
        begin, end: the steps between which it grows.
        every: steps from one pruning to the next.
        layers, criterion, scope: see `prune`.
    Raises:
        OpError: numbers that make no sense.

    The trainer's optimiser is to be a `KeepZeros`. There is nothing to remember over a restart.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> from tinytorch.prune import Gradually, KeepZeros, sparsity
    >>> from tinytorch.train import Trainer
    >>> model = nn.Linear(8, 4)
    >>> optimizer = KeepZeros(tt.optim.SGD(model.parameters(), lr=0.1), model)
    >>> grow = Gradually(model, 0.75, begin=0, end=4, every=2)
    >>> trainer = Trainer(model, optimizer, nn.MSELoss(), callbacks=[grow], compile=False, progress=False)
    >>> _ = trainer.fit([(tt.randn(2, 8), tt.zeros(2, 4))], steps=4)
    >>> sparsity(model)
    0.75
    """

    def __init__(self, model: Module, amount: float, begin: int, end: int, every: int = 10, layers: Any = None,
                 criterion: Criterion = "l1", scope: str = "global") -> None:
        if not 0 < amount < 1 or not 0 <= begin < end or every < 1:
            raise OpError(f"Gradually(amount={amount}, begin={begin}, end={end}, every={every}): expected "
                          "0 < amount < 1, 0 ≤ begin < end, every ≥ 1")
        self.model, self.amount, self.begin, self.end, self.every = model, amount, begin, end, every
        self.layers, self.criterion, self.scope = layers, criterion, scope

    def on_step_end(self, trainer: Trainer) -> None:
        """Prune, if it is time."""
        if self.begin <= trainer.step <= self.end and ((trainer.step - self.begin) % self.every == 0
                                                       or trainer.step == self.end):
            share = cubic(trainer.step, self.begin, self.end, self.amount)
            zero_smallest(self.model, Elements(share, self.scope == "global"), self.criterion, self.layers)
