"""Gradients kept small before a step: `clip_grad_norm_` by their common length, `clip_grad_value_` one by one.

Both work on `.grad` of parameters, between `backward()` and `step()`, in eager code and inside a compiled step. They
give parameters new gradients rather than overwrite the old, which eager backward may have given to several.

    >>> import tinytorch as tt
    >>> w = tt.tensor([1.0, 1.0], requires_grad=True)
    >>> (w * tt.tensor([30.0, 40.0])).sum().backward()
    >>> tt.optim.clip_grad_norm_([w], max_norm=1.0), w.grad
    (tensor(50.), tensor([0.6, 0.8]))
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinytorch.autograd import no_grad
from tinytorch.functional import maximum, minimum, sqrt
from tinytorch.ir import current, dtypes, is_tracing
from tinytorch.ir.errors import GradientError, OpError, TracingError
from tinytorch.ir.interp import Builder
from tinytorch.tensor import Tensor, tensor


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: Any, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> Tensor:
    """Shrink all gradients by one factor, so that their common norm is at most `max_norm` (Pascanu, Mikolov and Bengio,
    2013).

        g ← g · min(1, max_norm / (‖g‖ + 1e-6)),   ‖g‖ = (Σ |gᵢ|ᵖ)^(1/p) over the elements of all gradients

    Args:
        parameters: one tensor or several, of any shapes; those without a gradient are passed over.
        max_norm: a number ≥ 0; a tensor if it is to be an input of a compiled step.
        norm_type: p, a number > 0; infinity for the greatest |gᵢ|.
        error_if_nonfinite: complain if the norm is nan or infinite (eager code only).
    Returns:
        The norm before, 0-d: f64 if a gradient is, f32 otherwise; 0 if there are no gradients.
    Raises:
        OpError: max_norm is negative, or norm_type not positive.
        GradientError: the norm is nan or infinite, and that is an error; no gradient was changed.
        TracingError: error_if_nonfinite inside a traced function, where the norm is not known.

    >>> import tinytorch as tt
    >>> w = tt.tensor([1.0, 1.0], requires_grad=True)
    >>> (w * tt.tensor([30.0, 40.0])).sum().backward()
    >>> tt.optim.clip_grad_norm_(w, 5.0), w.grad
    (tensor(50.), tensor([3., 4.]))
    """
    if not isinstance(max_norm, Tensor) and not max_norm >= 0:
        raise OpError(f"clip_grad_norm_(max_norm={max_norm}): expected a number ≥ 0")
    if not norm_type > 0:
        raise OpError(f"clip_grad_norm_(norm_type={norm_type}): expected a number > 0, such as 2 or float('inf')")
    if error_if_nonfinite and is_tracing():
        raise TracingError("clip_grad_norm_(error_if_nonfinite=True) inside a traced or compiled function: numbers are "
                           "not known while it is traced; return the norm and look at it outside")
    owners = _with_gradients(parameters)
    if not owners:
        return tensor(0.0)
    with no_grad():
        total = _norm([p.grad for p in owners], float(norm_type))
        if error_if_nonfinite and not math.isfinite(total.item()):
            raise GradientError(f"clip_grad_norm_: the norm of order {norm_type} of the gradients is {total.item()}, "
                                "no gradient was changed; look for a loss that is nan or infinite, or a learning rate "
                                "that is too large")
        factor = minimum(max_norm / (total + 1e-6), 1.0)
        for p in owners:
            _replace(p, p.grad * factor)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Keep each element of each gradient within [-clip_value, clip_value].

    Args:
        parameters: one tensor or several, of any shapes; those without a gradient are passed over.
        clip_value: a number ≥ 0.
    Raises:
        OpError: clip_value is negative.

    >>> import tinytorch as tt
    >>> w = tt.tensor([1.0, 1.0], requires_grad=True)
    >>> (w * tt.tensor([30.0, -0.5])).sum().backward()
    >>> tt.optim.clip_grad_value_(w, 2.0); w.grad
    tensor([ 2. , -0.5])
    """
    if not clip_value >= 0:
        raise OpError(f"clip_grad_value_(clip_value={clip_value}): expected a number ≥ 0")
    with no_grad():
        for p in _with_gradients(parameters):
            _replace(p, p.grad.clip(-float(clip_value), float(clip_value)))


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p for p in given if p.grad is not None]


def _norm(grads: list[Tensor], p: float) -> Tensor:
    """The norm of all elements, worked out in f32 at least."""
    wide = dtypes.f64 if any(g.dtype is dtypes.f64 for g in grads) else dtypes.f32
    parts = [_power_sum(g.to(wide), p) for g in grads]
    total = parts[0]
    for part in parts[1:]:
        total = maximum(total, part) if p == math.inf else total + part
    return sqrt(total) if p == 2 else total if p in (1, math.inf) else total ** (1 / p)


def _power_sum(g: Tensor, p: float) -> Tensor:
    """Σ |gᵢ|ᵖ, or max |gᵢ|."""
    if p == math.inf:
        return g.abs().amax() if g.size else g.sum()
    return (g * g if p == 2 else g.abs() if p == 1 else g.abs() ** p).sum()


def _replace(p: Tensor, grad: Tensor) -> None:
    interpreter = current()
    if isinstance(interpreter, Builder) and not p.is_traced:
        interpreter.lift(p)  # a trace gives gradients back to the tensors that it knows
    p.grad = grad.to(p.grad.dtype)  # type: ignore[union-attr]
