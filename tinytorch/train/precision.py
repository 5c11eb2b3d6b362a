"""Train in half precision without losing small gradients: a loss scale that finds itself.

    Trainer(model, optimizer, loss, precision="bf16")       # range of f32: nothing else is needed
    Trainer(model, optimizer, loss, precision="f16")        # with a GradScaler

    scaler = GradScaler()                                   # in a step of one's own, eager or compiled
    scaler.scale(loss).backward()
    scaler.step(optimizer)                                  # does nothing if a gradient is not finite
    scaler.update()

f16 has nothing between 0 and 6·10⁻⁸, where many gradients lie. A loss that is S times as big gives gradients S times as
big, to be divided by S in f32. S doubles after so many good steps, and is halved when a gradient overflows, which costs
that one step (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2). All of it happens inside the
program of a compiled step.

    >>> import tinytorch as tt
    >>> w = tt.tensor([1.0], requires_grad=True)
    >>> opt, scaler = tt.optim.SGD([w], lr=0.5), GradScaler(init_scale=8.0)
    >>> scaler.scale((w * float("inf")).sum()).backward()
    >>> scaler.step(opt); scaler.update(); w, scaler.get_scale()
    (tensor([1.], requires_grad=True), 4.0)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.functional import maximum, where
from tinytorch.ir.errors import GradientError, OpError
from tinytorch.optim import Optimizer
from tinytorch.tensor import Tensor, tensor

from .step import Guard, is_finite, parameters_of


class GradScaler:
    """Scales losses, and gradients back; the defaults and the methods are those of `torch.amp.GradScaler`.

    Args:
        init_scale: S at first. Powers of two lose no digit.
        growth_factor: what S is multiplied by after `growth_interval` good steps in a row.
        backoff_factor: what it is multiplied by after a step that is not.
    Raises:
        OpError: options that make no sense.

    >>> scaler = GradScaler(init_scale=4.0)
    >>> import tinytorch as tt
    >>> scaler.scale(tt.tensor(3.0)), scaler.get_scale()
    (tensor(12.), 4.0)
    """

    def __init__(self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000) -> None:
        if not (0 < init_scale < math.inf and growth_factor > 1 and 0 < backoff_factor < 1 and growth_interval >= 1):
            raise OpError(f"GradScaler(init_scale={init_scale}, growth_factor={growth_factor}, "
                          f"backoff_factor={backoff_factor}, growth_interval={growth_interval}): expected a scale > 0, "
                          "a growth > 1, a backoff between 0 and 1, and an interval of 1 step or more")
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval
        self.factor = tensor(init_scale)
        self.good_steps = Tensor(np.array(0, np.int32))
        self._unscaled: dict[int, Tensor] = {}  # by the optimiser's id: whether its gradients are finite

    def scale(self, loss: Tensor) -> Tensor:
        """S · loss, f32 or longer."""
        return loss * self.factor

    def unscale_(self, optimizer: Optimizer) -> Tensor:
        """Divide the gradients by S, to clip them for instance; gives whether all are finite, 0-d bool.

        Raises:
            GradientError: that was done already since the last `update`.
        """
        if id(optimizer) in self._unscaled:
            raise GradientError("GradScaler.unscale_: the gradients of this optimiser were unscaled before; expected "
                                "one unscale_, then step and update")
        with no_grad():
            inverse = 1.0 / self.factor
            found = [p for p in parameters_of(optimizer) if p.grad is not None]
            for p in found:
                p.grad = p.grad * inverse if p.grad is not None else None
            most = [p.grad.abs().max() for p in found if p.grad is not None and p.grad.numel()]
            finite = is_finite(reduce(maximum, most)) if most else Tensor(np.array(True))
        self._unscaled[id(optimizer)] = finite
        return finite

    def step(self, optimizer: Optimizer) -> None:
        """`optimizer.step()`, if all gradients are finite; else parameters and the optimiser's state stay as they
        are."""
        finite = self._unscaled.get(id(optimizer))
        finite = self.unscale_(optimizer) if finite is None else finite
        guard = Guard([], lambda: _moved_by(optimizer))
        before = guard.before()
        if not guard.stops(finite, before):
            optimizer.step()
        guard.settle(finite, before)

    def update(self) -> None:
        """Find the next S, from whether the gradients that were unscaled since the last time are finite.

        Raises:
            GradientError: there were none.
        """
        if not self._unscaled:
            raise GradientError("GradScaler.update: no gradients were unscaled since the last update; call step "
                                "(or unscale_) before")
        with no_grad():
            finite = reduce(lambda a, b: a & b, self._unscaled.values())
            grown = self.good_steps + 1 >= self.growth_interval
            bigger = self.factor * where(grown, self.growth_factor, 1.0)
            bigger = where(bigger < math.inf, bigger, self.factor)
            self.factor.copy_(where(finite, bigger, self.factor * self.backoff_factor))
            self.good_steps.copy_(where(finite & ~grown, self.good_steps + 1, 0).to("i32"))
        self._unscaled.clear()

    def get_scale(self) -> float:
        """S, as a Python number."""
        return float(self.factor.item())

    def state_dict(self) -> dict[str, Any]:
        """The scale, and how many steps were good since it changed; tensors share memory with it."""
        return {"scale": self.factor.detach(), "good_steps": self.good_steps.detach()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        with no_grad():
            self.factor.copy_(state["scale"])
            self.good_steps.copy_(state["good_steps"])


def _moved_by(optimizer: Optimizer) -> Iterator[Tensor]:
    yield from parameters_of(optimizer)
    yield from (state for _, state in optimizer.named_state())
