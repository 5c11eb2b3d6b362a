"""Average the weights of a model over its training: often the better model, and a smoother validation curve.

    >>> import tinytorch as tt
    >>> from tinytorch.train import ExponentialMovingAverage
    >>> model = tt.nn.Linear(2, 1)
    >>> ema = ExponentialMovingAverage(model, decay=0.9)
    >>> with tt.no_grad():
    ...     _ = model.weight.copy_(model.weight + 1.0)
    >>> ema.update()
    >>> with ema.applied():
    ...     averaged = model.weight.numpy().copy()
    >>> bool(((model.weight.numpy() - averaged) > 0.89).all())
    True

The update is made of tensor operations, so a compiled training step contains it. To apply the average, parameters and
averages swap their arrays: nothing is copied, nothing is rounded, and programs already compiled read the other one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.ir.errors import FormatError, OpError
from tinytorch.nn import Module
from tinytorch.tensor import Tensor, as_tensor


class ExponentialMovingAverage:
    """shadow ← shadow + (1 - decay) · (p - shadow), for each parameter p (Polyak and Juditsky, 1992).

    Args:
        model: whose parameters; averages begin as they are now. Buffers, such as running statistics, are not averaged.
        decay: how much of the old average stays, between 0 and 1; 1 / (1 - decay) steps are averaged over, roughly.
    Attributes:
        shadow: the averages, by the parameter's name.
    Raises:
        OpError: decay is not in [0, 1).

    >>> import tinytorch as tt
    >>> sorted(ExponentialMovingAverage(tt.nn.Linear(2, 1)).shadow)
    ['bias', 'weight']
    """

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise OpError(f"ExponentialMovingAverage(decay={decay}): expected 0 ≤ decay < 1, such as 0.999")
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.shadow = {name: Tensor(np.array(p.numpy())) for name, p in self.parameters.items()}

    def update(self) -> None:
        """Move the averages towards the parameters."""
        with no_grad():
            for name, p in self.parameters.items():
                shadow = self.shadow[name]
                shadow.add_((p - shadow) * (1 - self.decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights while the block runs; do not train it there."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, p in self.parameters.items():
            shadow = self.shadow[name]
            p.payload, shadow.payload = shadow.payload, p.payload
            p.version += 1
            shadow.version += 1

    def state_dict(self) -> dict[str, Any]:
        """The averages by name, and the decay; they share memory."""
        return {"decay": self.decay, "shadow": {name: shadow.detach() for name, shadow in self.shadow.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            FormatError: names or shapes differ; then nothing was changed.
        """
        given = {name: as_tensor(value) for name, value in state["shadow"].items()}
        wanted, found = ({name: t.shape for name, t in ts.items()} for ts in (self.shadow, given))
        if wanted != found:
            odd = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
            raise FormatError(f"load_state_dict of ExponentialMovingAverage, nothing was changed: {odd[:5]} differ")
        self.decay = float(state["decay"])
        with no_grad():
            for name, value in given.items():
                self.shadow[name].copy_(value)

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) for the averages: how a graph names them."""
        return ((f"ema_{name}", shadow) for name, shadow in self.shadow.items())
