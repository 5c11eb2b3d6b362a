"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinytorch.functional import sqrt

from .optimizer import Group, Optimizer


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of their squares so far (Duchi, Hazan and Singer, 2011).

        g ← g + weight_decay · p                        (g ← -gradient + … if maximize)
        s ← s + g²                                      (at first s = initial_accumulator_value)
        p ← p - lr / (1 + (t - 1) lr_decay) · g / (√s + eps)

    All parameters of a group share the step count t.

    Raises:
        OpError: lr, lr_decay, weight_decay, initial_accumulator_value or eps is negative.

    >>> import tinytorch as tt
    >>> w = tt.tensor([1.0, 100.0], requires_grad=True)
    >>> opt = tt.optim.Adagrad([w], lr=0.5)
    >>> (w * w).sum().backward(); opt.step(); w
    tensor([ 0.5, 99.5], requires_grad=True)
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
                 initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay,
                                  "initial_accumulator_value": initial_accumulator_value, "eps": eps,
                                  "maximize": maximize})

    def slots(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """s, under PyTorch's name."""
        return {"sum": options["initial_accumulator_value"]}

    def update(self, group: Group) -> None:
        """See the class."""
        lr = group["lr"] / ((group["step"] - 1.0) * group["lr_decay"] + 1.0) if group["lr_decay"] else group["lr"]
        for p, g, state in self.gradients(group, group["weight_decay"]):
            s = state["sum"].add_(g * g)
            p.sub_(g / (sqrt(s) + group["eps"]) * lr)
