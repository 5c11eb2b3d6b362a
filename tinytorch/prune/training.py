"""Training pruned models on: zeros stay zeros, sparsity grows by a schedule, weights are wound back.

    optimizer = KeepZeros(optim.Adam(model.parameters()), model)       # any optimiser; also inside compiled steps
    Trainer(model, optimizer, loss, callbacks=[Gradually(model, 0.9, begin=100, end=900)])

The mask is the weights themselves: what is zero before a step is zero after it. So there is nothing to save, to load or
to pass to a compiled step besides the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinytorch.functional import where
from tinytorch.ir.errors import FormatError, OpError
from tinytorch.nn.module import Module
from tinytorch.optim.optimizer import Group, Optimizer
from tinytorch.tensor import Tensor
from tinytorch.watch import touch

from .criteria import Criterion
from .weights import Elements, weights_of, zero_smallest


class KeepZeros(Optimizer):
    """`optimizer`, but weights of `model` that are zero stay zero.

    Args:
        optimizer: made over parameters of the model; use this one in its place from now on.
        layers: only in these; by default in all weights of two axes or more, but for embeddings.
    Raises:
        OpError: a layer has no such weights.

    A weight that begins as zeros everywhere would never learn: leave its layer out.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> from tinytorch.prune import KeepZeros, prune, rewind, sparsity
    >>> model = prune(nn.Linear(8, 8), 0.75, "weights")
    >>> opt = KeepZeros(tt.optim.SGD(model.parameters(), lr=0.1), model)
    >>> model(tt.ones(1, 8)).sum().backward(); opt.step()
    >>> sparsity(model)
    0.75
    """

    def __init__(self, optimizer: Optimizer, model: Module, layers: Any = None) -> None:
        self.inner = optimizer
        self.defaults, self.param_groups, self.state = optimizer.defaults, optimizer.param_groups, optimizer.state
        self.kept = {id(p) for p in weights_of(model, layers).values()}

    def check(self, options: Mapping[str, Any]) -> None:
        """As the optimiser inside."""
        self.inner.check(options)

    def slots(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """As the optimiser inside."""
        return self.inner.slots(options)

    def update(self, group: Group) -> None:
        """As the optimiser inside, then zeros where there were zeros."""
        zeros = [(p, p == 0) for p in group["params"] if id(p) in self.kept and p.grad is not None]
        self.inner.update(group)
        for p, zero in zeros:
            p.copy_(where(zero, Tensor(np.zeros((), p.dtype.np)), p))


def cubic(step: int, begin: int, end: int, amount: float, start: float = 0.0) -> float:
    """The sparsity at a step: from `start` at `begin` to `amount` at `end`, fast at first and slower towards the end,
    s = amount + (start - amount) (1 - (step - begin) / (end - begin))³ (Zhu and Gupta, "To prune, or not to prune",
    2017).

    >>> from tinytorch.prune import cubic
    >>> [round(cubic(step, 0, 4, 0.8), 3) for step in range(6)]
    [0.0, 0.463, 0.7, 0.788, 0.8, 0.8]
    """
    done = min(max((step - begin) / max(end - begin, 1), 0.0), 1.0)
    return amount + (start - amount) * (1 - done) ** 3


def rewind(model: Module, state: Mapping[str, Any], layers: Any = None) -> None:
    """Put the weights back to what they were in `state` (a `state_dict` from before or early in training), but for the
    zeros: the winning ticket of the lottery (Frankle and Carbin, 2019).

    Raises:
        FormatError: the state is of another model; then nothing was changed.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> from tinytorch.prune import KeepZeros, prune, rewind, sparsity
    >>> model = nn.Linear(8, 8)
    >>> early = {key: value.clone() for key, value in model.state_dict().items()}
    >>> ticket = prune(model, 0.5, "weights")
    >>> rewind(ticket, early); sparsity(ticket)
    0.5
    """
    if not set(model.state_dict()) <= set(state):
        raise FormatError(f"rewind: the state is not of this {type(model).__name__}: it has no "
                          f"{', '.join(sorted(set(model.state_dict()) - set(state)))}")
    zeros = {path: p.numpy() == 0 for path, p in weights_of(model, layers).items()}
    model.load_state_dict(state)
    for path, p in weights_of(model, layers).items():
        p.payload[zeros[path]] = 0
        touch(p.payload)


def iteratively(model: Module, train: Callable[[Module], Any], amount: float, rounds: int,
                state: Mapping[str, Any] | None = None, criterion: Criterion = "l1", layers: Any = None,
                scope: str = "global") -> None:
    """Prune in place in `rounds`, each an equal share of what is left, and train after each.

    Args:
        train: trains the model, with a `KeepZeros` around its optimiser.
        amount: the share of zeros at the end.
        state: weights to go back to before each training (lottery tickets); by default training goes on.
        criterion, layers, scope: see `prune`.
    Raises:
        OpError: numbers that make no sense; a layer would be left without weights.

    >>> from tinytorch import nn
    >>> from tinytorch.prune import iteratively, sparsity
    >>> model, seen = nn.Linear(8, 8), []
    >>> iteratively(model, lambda model: seen.append(sparsity(model)), 0.75, rounds=2); seen
    [0.5, 0.75]
    """
    if rounds < 1 or not 0 < amount < 1:
        raise OpError(f"iteratively(amount={amount}, rounds={rounds}): expected 0 < amount < 1 and a round at least")
    for number in range(1, rounds + 1):
        share = 1 - (1 - amount) ** (number / rounds)
        zero_smallest(model, Elements(share, scope == "global"), criterion, layers)
        if state is not None:
            rewind(model, state, layers)
        train(model)
