"""From a model and a batch to a loss: the usual way, or a `loss_step(model, batch)` of one's own.

    >>> import tinytorch as tt
    >>> usual = UsualLoss(tt.nn.CrossEntropyLoss())
    >>> loss, output, target = usual(tt.nn.Linear(3, 2), (tt.zeros(4, 3), tt.zeros(4, dtype="i64")))
    >>> loss.shape, output.shape, target.shape
    ((), (4, 2), (4,))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinytorch.ir.errors import ShapeError
from tinytorch.nn import Module
from tinytorch.surroundings import Surroundings
from tinytorch.tensor import Tensor

from .batch import align, inputs_and_target

Loss = Callable[[Module, tuple[Any, ...]], Any]  # gives the loss, or (loss, output), or (loss, output, target)


class UsualLoss:
    """A batch's last part is the target, the others go into the model; `loss(output, target)` is the loss.

    Logits of a language model, (batch, time, classes), are flattened with their labels (`batch.align`).
    """

    def __init__(self, loss: Callable[[Any, Any], Any]) -> None:
        self.loss = loss

    def __call__(self, model: Module, parts: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        inputs, target = inputs_and_target(parts)
        output, target = align(model(*inputs), target)
        return self.loss(output, target), output, target


def modules_of(model: Module, loss_of: Loss) -> list[Module]:
    """The model, and the modules that the loss sees: a compiled function that has them in a list heeds their modes."""
    return [model, *Surroundings(loss_of.loss if isinstance(loss_of, UsualLoss) else loss_of).all_modules()]


def loss_alone(result: Any) -> Tensor:
    """The loss, of what a loss step gave.

    Raises:
        ShapeError: it is not one number.
    """
    loss = result[0] if isinstance(result, tuple) else result
    if not isinstance(loss, Tensor) or loss.size != 1:
        what = f"of shape {loss.shape}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ShapeError(f"the loss is {what}: expected a tensor of one number, such as a mean over the batch")
    return loss.reshape(())
