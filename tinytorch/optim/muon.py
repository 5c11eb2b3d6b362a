"""Muon, for the matrices of a network; `orthogonalized`, the iteration it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinytorch.functional import maximum, sqrt
from tinytorch.ir.errors import OpError
from tinytorch.tensor import Tensor

from .optimizer import Group, Optimizer

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of Jordan et al.: the steepest quintic at 0 that keeps (0, 1] near 1
ADJUSTMENTS = (None, "original", "match_rms_adamw")


class Muon(Optimizer):
    """Momentum that is made orthogonal before it moves a matrix (Jordan et al., 2024: "Muon: an optimizer for hidden
    layers in neural networks"), with the options of torch.optim.Muon.

        b ← momentum · b + (1 - momentum) · g
        u ← g + momentum · (b - g)  if nesterov, else  b
        p ← (1 - lr · weight_decay) p - lr · r · orthogonalized(u)

    r is √max(1, rows / columns), or with adjust_lr_fn="match_rms_adamw" 0.2 √max(rows, columns), for which learning
    rates that suit AdamW fit (Liu et al., 2025: "Muon is scalable for LLM training").

    It is for matrices only. Biases, gains, filters, and by custom embeddings and the last layer go to an AdamW of
    their own; call `step()` of both.

    The iteration runs in the element type of the parameter. PyTorch's runs in bf16, so that a step differs from ours
    by 1 to 3 % of its length; with that iteration in f32 they agree to rounding.

    Raises:
        OpError: a parameter is not a matrix, or an option makes no sense.

    >>> import tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(4, 8), tt.nn.ReLU(), tt.nn.Linear(8, 2))
    >>> muon = tt.optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=0.02)
    >>> adam = tt.optim.AdamW([p for p in model.parameters() if p.ndim != 2], lr=1e-3)
    >>> model(tt.ones(3, 4)).sum().backward(); muon.step(); adam.step()
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
                 nesterov: bool = True, ns_coefficients: tuple[float, float, float] = COEFFICIENTS, eps: float = 1e-7,
                 ns_steps: int = 5, adjust_lr_fn: str | None = None) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
                                  "ns_coefficients": tuple(ns_coefficients), "eps": eps, "ns_steps": ns_steps,
                                  "adjust_lr_fn": adjust_lr_fn})

    def check(self, options: Mapping[str, Any]) -> None:
        """See the class."""
        super().check(options)
        if options["adjust_lr_fn"] not in ADJUSTMENTS:
            raise OpError(f"Muon(adjust_lr_fn={options['adjust_lr_fn']!r}): expected one of {ADJUSTMENTS}")
        if len(options["ns_coefficients"]) != 3 or not 0 <= options["ns_steps"] < 100:
            raise OpError(f"Muon(ns_coefficients={options['ns_coefficients']}, ns_steps={options['ns_steps']}): "
                          "expected three numbers, and from 0 to 99 steps")

    def check_parameter(self, p: Any) -> None:
        """See the class."""
        super().check_parameter(p)
        if p.ndim != 2:
            raise OpError(f"Muon: expected matrices, got a parameter of type {p.type}; give it to optim.AdamW, and "
                          "Muon those of model.parameters() with p.ndim == 2")

    def slots(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """b, under PyTorch's name."""
        return {"momentum_buffer": 0.0}

    def update(self, group: Group) -> None:
        """See the class."""
        lr, momentum = group["lr"], group["momentum"]
        keep = 1.0 - lr * group["weight_decay"]
        for p, g, state in self.gradients(group):
            b = state["momentum_buffer"]
            b.add_((g - b) * (1 - momentum))
            u = orthogonalized(g + (b - g) * momentum if group["nesterov"] else b,
                               group["ns_coefficients"], group["ns_steps"], group["eps"])
            if group["weight_decay"]:
                p.mul_(keep)
            p.sub_(u * (lr * _ratio(p.shape, group["adjust_lr_fn"])))


def _ratio(shape: Sequence[int], adjustment: str | None) -> float:
    rows, columns = shape
    return 0.2 * math.sqrt(max(shape)) if adjustment == "match_rms_adamw" else math.sqrt(max(1, rows / columns))


def orthogonalized(matrix: Tensor, coefficients: Sequence[float] = COEFFICIENTS, steps: int = 5,
                   eps: float = 1e-7) -> Tensor:
    """About U Vᵀ, where U S Vᵀ is the singular value decomposition of a matrix: its singular values are all moved near
    1 (to between 0.68 and 1.13 by the coefficients of Muon), by Newton-Schulz iterations.

        X ← M / ‖M‖,   X ← a X + (b A + c A²) X,   A = X Xᵀ     (of tall matrices X A, with A = Xᵀ X, is the same)

    Args:
        matrix: (rows, columns), floating point.
        coefficients: a, b and c.
        eps: the least ‖M‖ to divide by.

    >>> import numpy as np
    >>> import tinytorch as tt
    >>> q = tt.optim.orthogonalized(tt.tensor([[3.0, 0.0, 0.0], [0.0, -2.0, 0.0]]))
    >>> np.linalg.svd(q.numpy(), compute_uv=False).round(1)
    array([1.1, 0.7], dtype=float32)
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix / maximum(sqrt((matrix * matrix).sum()), eps)
    for _ in range(steps):
        gram = x.T @ x if tall else x @ x.T
        polynomial = gram * b + (gram @ gram) * c
        x = x * a + (x @ polynomial if tall else polynomial @ x)
    return x
