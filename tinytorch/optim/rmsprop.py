"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinytorch.functional import maximum, sqrt

from .optimizer import Group, Optimizer


class RMSprop(Optimizer):
    """Gradients divided by a running root mean square of theirs (Tieleman and Hinton, 2012, lecture 6.5; centered:
    Graves, 2013).

        g ← g + weight_decay · p                        (g ← -gradient + … if maximize)
        v ← α v + (1 - α) g²
        u ← g / (√v + eps),   or   g / (√(v - a²) + eps),   a ← α a + (1 - α) g,   if centered
        b ← momentum · b + u,   p ← p - lr · b          (p ← p - lr · u without momentum)

    v - a² is a variance: where rounding makes it negative (PyTorch's step is nan there) it counts as 0.

    Raises:
        OpError: lr, alpha, eps, weight_decay or momentum is negative.

    >>> import tinytorch as tt
    >>> w = tt.tensor([3.0], requires_grad=True)
    >>> opt = tt.optim.RMSprop([w], lr=0.1, alpha=0.75)
    >>> (w * w).sum().backward(); opt.step(); w
    tensor([2.8], requires_grad=True)
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *,
                 maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
                                  "momentum": momentum, "centered": centered, "maximize": maximize})

    def slots(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """v, b and a, under PyTorch's names."""
        wanted = {"square_avg": True, "momentum_buffer": options["momentum"], "grad_avg": options["centered"]}
        return {key: 0.0 for key, needed in wanted.items() if needed}

    def update(self, group: Group) -> None:
        """See the class."""
        lr, alpha, momentum = group["lr"], group["alpha"], group["momentum"]
        for p, g, state in self.gradients(group, group["weight_decay"]):
            v = state["square_avg"]
            v.mul_(alpha).add_(g * g * (1 - alpha))
            if group["centered"]:
                a = state["grad_avg"]
                a.add_((g - a) * (1 - alpha))
                v = maximum(v - a * a, 0.0)
            u = g / (sqrt(v) + group["eps"])
            p.sub_((state["momentum_buffer"].mul_(momentum).add_(u) if momentum else u) * lr)
