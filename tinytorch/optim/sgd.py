"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinytorch.functional import where
from tinytorch.ir.errors import OpError

from .optimizer import Group, Optimizer


class SGD(Optimizer):
    """p ← p - lr · g (Robbins and Monro, 1951), with momentum (Polyak, 1964; Sutskever et al., 2013) if asked.

        g ← g + weight_decay · p                        (g ← -gradient + … if maximize)
        b ← momentum · b + (1 - dampening) · g          (b ← g in the first step)
        g ← g + momentum · b  if nesterov, else  b

    Raises:
        OpError: lr, momentum or weight_decay is negative, or nesterov is asked for without momentum or with dampening.

    >>> import tinytorch as tt
    >>> model = tt.nn.Linear(2, 1)
    >>> opt = tt.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> model(tt.ones(4, 2)).sum().backward(); opt.step(); opt.zero_grad()
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening,
                                  "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize})

    def check(self, options: Mapping[str, Any]) -> None:
        """See the class."""
        super().check(options)
        if options["nesterov"] and (not options["momentum"] or options["dampening"]):
            raise OpError("SGD(nesterov=True): expected momentum > 0 and dampening = 0")

    def slots(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """Momentum keeps a running gradient."""
        return {"momentum_buffer": 0.0} if options["momentum"] else {}

    def update(self, group: Group) -> None:
        """See the class."""
        lr, momentum = group["lr"], group["momentum"]
        share = where(group["step"] == 1.0, 1.0, 1 - group["dampening"]) if group["dampening"] else None
        for p, g, state in self.gradients(group, group["weight_decay"]):
            if momentum:
                b = state["momentum_buffer"]
                b.mul_(momentum).add_(g if share is None else g * share)
                g = g + b * momentum if group["nesterov"] else b
            p.sub_(g * lr)
