"""What a loader gives, as a step wants it: a tuple of tensors, the last of which is the target.

    >>> import tinytorch as tt
    >>> parts = as_parts((tt.zeros(8, 3).numpy(), [0] * 8))
    >>> [type(part).__name__ for part in parts], size_of(parts)
    (['Tensor', 'Tensor'], 8)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from tinytorch.data import DataLoader
from tinytorch.frontends.tree import flatten, map_tree
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Tensor, as_tensor


def as_parts(batch: Any) -> tuple[Any, ...]:
    """The parts of a batch, arrays and lists of numbers as tensors; a batch that is one array has one part."""
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    return tuple([part if isinstance(part, Tensor) else _as_tensors(part) for part in parts])


def _as_tensors(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return Tensor(part)  # not copied
    if isinstance(part, list):
        return as_tensor(part)
    if isinstance(part, dict):
        return map_tree(lambda leaf: Tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, part)
    return part if isinstance(part, (str, bytes)) else as_tensor(part)


def size_of(parts: tuple[Any, ...]) -> int:
    """How many samples a batch holds: the first extent of its first tensor."""
    first = parts[0] if isinstance(parts[0], Tensor) else next(iter(flatten(parts)[0]), None)
    shape = getattr(first, "shape", ())
    return int(shape[0]) if shape else 1


def inputs_and_target(parts: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    """All parts but the last, and the last.

    Raises:
        OpError: the batch has only one part.
    """
    if len(parts) < 2:
        raise OpError("a batch has one part: expected (input, target); for a model that is trained otherwise, give "
                      "Trainer(loss_step=lambda model, batch: …)")
    return parts[:-1], parts[-1]


def align(output: Any, target: Any) -> tuple[Any, Any]:
    """Output and target as a loss over classes wants them: those of a language model lose their time axis.

    Integer targets (batch, time) with an output (batch, time, classes) become (batch · time,) and (batch · time,
    classes). An output (batch, classes, …), PyTorch's order, stays as it is, and so does everything else.

    Raises:
        ShapeError: both readings fit, as for logits (8, 64, 64) and labels (8, 64).

    >>> import tinytorch as tt
    >>> output, target = align(tt.zeros(2, 5, 7), tt.zeros(2, 5, dtype="i64"))
    >>> output.shape, target.shape
    ((10, 7), (10,))
    """
    shape: tuple[int, ...] = getattr(output, "shape", ())
    labels: tuple[int, ...] = getattr(target, "shape", ())
    if len(shape) != len(labels) + 1 or len(labels) < 2 or target.dtype.is_float or shape[:-1] != labels:
        return output, target
    if (shape[0], *shape[2:]) == labels:
        raise ShapeError(f"an output {shape} and labels {labels}: are the classes on axis 1 or on the last? Flatten "
                         "them yourself: Trainer(loss_step=lambda model, batch: cross_entropy("
                         "model(batch[0]).flatten(0, 1), batch[1].flatten()))")
    return output.reshape(-1, shape[-1]), target.reshape(-1)


def from_its_start(loader: Any) -> AbstractContextManager[None]:
    """While it lasts, a `DataLoader` is at the beginning of epoch 0; others are left alone.

    So an evaluation gives the same numbers each time, also where its loader shuffles or crops at random and the run
    was resumed in between; and one over the training data does not move the training.
    """
    return loader.apart() if isinstance(loader, DataLoader) else nullcontext()


class Position:
    """Where a loader stands: its own `state_dict` where it has one, else how many batches of the epoch were taken."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.batch = 0
        self._keeps = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")

    def __iter__(self) -> Iterator[Any]:
        """The batches of the epoch that are left."""
        skip = 0 if self._keeps else self.batch
        for number, batch in enumerate(self.loader):
            if number >= skip:
                self.batch += 1
                yield batch
        self.batch = 0

    @property
    def length(self) -> int | None:
        """How many batches an epoch has, where the loader knows."""
        try:
            return len(self.loader)
        except TypeError:
            return None

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on with the next batch."""
        return {"batch": self.batch, "loader": self.loader.state_dict() if self._keeps else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the batch after the last one taken."""
        self.batch = int(state["batch"])
        if self._keeps and state["loader"] is not None:
            self.loader.load_state_dict(state["loader"])
