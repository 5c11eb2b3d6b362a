"""The state of a run as one nested dictionary, and back again: all or nothing.

    >>> import tinytorch as tt
    >>> from tinytorch.train import Trainer
    >>> model = tt.nn.Linear(2, 1)
    >>> trainer = Trainer(model, tt.optim.SGD(model.parameters()), tt.nn.MSELoss())
    >>> sorted(gather(trainer))
    ['callbacks', 'data', 'ema', 'history', 'model', 'optimizer', 'progress', 'random', 'scaler', 'scheduler']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.frontends.tree import map_tree
from tinytorch.ir.errors import FormatError
from tinytorch.random import default_generator
from tinytorch.tensor import Tensor
from tinytorch.watch import touch

if TYPE_CHECKING:
    from .trainer import Trainer

COUNTERS = ("step", "epoch", "samples", "seconds", "loss", "norm", "validated", "validation", "ending")
OPTIONAL = ("scheduler", "ema", "scaler")


def copied(state: Any) -> Any:
    """The same with tensors of its own."""
    return map_tree(lambda leaf: Tensor(np.array(leaf.numpy())) if isinstance(leaf, Tensor) else leaf, state)


def _arrays(rows: Any) -> Any:
    """Rows as they were before a file held them: a confusion matrix is an array."""
    return map_tree(lambda leaf: leaf.numpy() if isinstance(leaf, Tensor) else leaf, rows)


def gather(trainer: Trainer) -> dict[str, Any]:
    """All that a run needs to go on; tensors share memory with it."""
    optional = {name: part.state_dict() if (part := getattr(trainer, name)) is not None else None for name in OPTIONAL}
    window = trainer.window
    return {
        "model": trainer.model.state_dict(), "optimizer": trainer.optimizer.state_dict(), **optional,
        "random": default_generator.state.detach(),
        "data": trainer.position.state_dict() if trainer.position is not None else None,
        "progress": {**{name: getattr(trainer, name) for name in COUNTERS}, "window": [window.total, window.weight]},
        "history": trainer.history,
        "callbacks": [{"name": type(c).__name__, "state": c.state_dict()} for c in trainer.callbacks],
    }


def restore(trainer: Trainer, state: Mapping[str, Any], where: str = "the state") -> None:
    """Take over what `gather` gave.

    Raises:
        FormatError: it is of another model, optimiser or setting; then nothing was changed.
    """
    before = copied(gather(trainer))
    try:
        _take(trainer, state)
    except Exception as error:
        _take(trainer, before)  # the log was not touched
        raise FormatError(f"{where}: the checkpoint is not of this run, nothing was changed: {error!s}") from error
    trainer.log.restart(_arrays(state["history"]))


def _take(trainer: Trainer, state: Mapping[str, Any]) -> None:
    for name in OPTIONAL:
        part, kept = getattr(trainer, name), state.get(name)  # older ones have no scaler
        if (part is None) != (kept is None):
            raise FormatError(f"it has {'a' if kept is not None else 'no'} {name}, this trainer has "
                              f"{'one' if part is not None else 'none'}")
    trainer.model.load_state_dict(state["model"])
    with no_grad():
        trainer.optimizer.load_state_dict(state["optimizer"])
    for name in OPTIONAL:
        if getattr(trainer, name) is not None:
            getattr(trainer, name).load_state_dict(state[name])
    if trainer.position is not None and state["data"] is not None:
        trainer.position.load_state_dict(state["data"])
    default_generator.state.payload[...] = state["random"].numpy()
    touch(default_generator.state.payload)
    progress = {**state["progress"], "validation": _arrays(state["progress"]["validation"])}
    for name in COUNTERS:
        setattr(trainer, name, progress[name])
    trainer.window.total, trainer.window.weight = progress["window"]
    _tell_callbacks(trainer, state["callbacks"])


def _tell_callbacks(trainer: Trainer, kept: list[dict[str, Any]]) -> None:
    """Each callback gets the state of the next of its class; a new one begins anew."""
    left = list(kept)
    for callback in trainer.callbacks:
        own = next((entry for entry in left if entry["name"] == type(callback).__name__), None)
        if own is not None:
            left.remove(own)
            callback.load_state_dict(own["state"])
