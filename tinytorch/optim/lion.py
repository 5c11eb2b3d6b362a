"""Lion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinytorch.ir import ops

from .optimizer import Group, Optimizer


class Lion(Optimizer):
    """The sign of a momentum, found by a search over programs (Chen et al., 2023: "Symbolic discovery of optimization
    algorithms").

        c ← β₁ m + (1 - β₁) g                           (g ← -gradient if maximize)
        p ← p - lr · (sign(c) + weight_decay · p)
        m ← β₂ m + (1 - β₂) g

    Every element moves by lr (and decay), so lr wants to be three to ten times smaller than AdamW's, and weight_decay
    that much larger.

    Raises:
        OpError: lr or weight_decay is negative, or a β is not in [0, 1).

    >>> import tinytorch as tt
    >>> w = tt.tensor([3.0, -0.1], requires_grad=True)
    >>> opt = tt.optim.Lion([w], lr=0.5)
    >>> (w * w).sum().backward(); opt.step(); w
    tensor([2.5, 0.4], requires_grad=True)
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
                 weight_decay: float = 0.0, *, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def slots(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """m, under the name that it has in Adam."""
        return {"exp_avg": 0.0}

    def update(self, group: Group) -> None:
        """See the class."""
        (beta1, beta2), decay, lr = group["betas"], group["weight_decay"], group["lr"]
        keep = 1.0 - lr * decay if decay else None
        for p, g, state in self.gradients(group):
            m = state["exp_avg"]
            direction = ops.sign(m + (g - m) * (1 - beta1))
            m.add_((g - m) * (1 - beta2))
            if keep is not None:
                p.mul_(keep)
            p.sub_(direction * lr)
