"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tinytorch.functional import maximum, sqrt
from tinytorch.ir import ops

from .optimizer import Group, Optimizer


class Adam(Optimizer):
    """Steps scaled by running means of the gradient and of its square (Kingma and Ba, 2015).

        g ← g + weight_decay · p                        (g ← -gradient + … if maximize)
        m ← m + (1 - β₁)(g - m),   v ← β₂ v + (1 - β₂) g²
        p ← p - lr · m̂ / (√v̂ + eps),   m̂ = m / (1 - β₁ᵗ),   v̂ = v / (1 - β₂ᵗ)

    With `amsgrad`, v̂ has the greatest v so far in place of v (Reddi, Kale and Kumar, 2018). All parameters of a group
    share the step count t.

    Raises:
        OpError: lr, eps or weight_decay is negative, or a β is not in [0, 1).

    >>> import tinytorch as tt
    >>> model = tt.nn.Linear(2, 1)
    >>> opt = tt.optim.Adam(model.parameters(), lr=1e-3)
    >>> model(tt.ones(4, 2)).sum().backward(); opt.step(); opt.zero_grad()
    >>> opt.lr = opt.lr / 10; opt.lr
    0.0001
    """

    decoupled = False

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, *,
                 maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "amsgrad": amsgrad, "maximize": maximize})

    def slots(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """m and v, and the greatest v, under PyTorch's names."""
        return dict.fromkeys(("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[:2 + options["amsgrad"]], 0.0)

    def update(self, group: Group) -> None:
        """See the class. What does not depend on the element is worked out once, in 0-d tensors:

        lr · m̂ / (√v̂ + eps) = size · m / (√v + eps'),   size = lr · √(1 - β₂ᵗ) / (1 - β₁ᵗ),   eps' = eps · √(1 - β₂ᵗ)
        """
        (beta1, beta2), decay, lr = group["betas"], group["weight_decay"], group["lr"]
        root = sqrt(_one_minus_power(beta2, group["step"]))
        size, eps = lr * root / _one_minus_power(beta1, group["step"]), root * group["eps"]
        keep = 1.0 - lr * decay if self.decoupled and decay else None
        for p, g, state in self.gradients(group, 0.0 if self.decoupled else decay):
            m, v = state["exp_avg"], state["exp_avg_sq"]
            m.add_((g - m) * (1 - beta1))
            v.mul_(beta2).add_(g * g * (1 - beta2))
            if group["amsgrad"]:
                v = state["max_exp_avg_sq"].copy_(maximum(state["max_exp_avg_sq"], v))
            if keep is not None:
                p.mul_(keep)
            p.sub_(m / (sqrt(v) + eps) * size)


def _one_minus_power(beta: float, step: Any) -> Any:
    """1 - βᵗ, without the cancellation that would cost half of f32's digits while t is small."""
    return -ops.expm1(step * math.log(beta)) if beta else 1.0


class AdamW(Adam):
    """Adam whose weight decay shrinks parameters directly, p ← (1 - lr · weight_decay) p, instead of by way of g
    (Loshchilov and Hutter, 2019).

    >>> import tinytorch as tt
    >>> opt = tt.optim.AdamW(tt.nn.Linear(2, 1).parameters(), lr=1e-3, weight_decay=0.1)
    """

    decoupled = True

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.01, amsgrad: bool = False, *,
                 maximize: bool = False) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
