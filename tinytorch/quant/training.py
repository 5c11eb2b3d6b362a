"""Train with rounding: `prepare(model)` computes as the quantised model will, and learns to live with it.

    ready = tt.quant.prepare(model, weight_bits=4)
    … train `ready` as any model: eagerly, with a Trainer, in a compiled step …
    small = tt.quantize(ready)                     # the ranges are those that training has found

In `linear` and `conv2d`, x is rounded to the grid of its layer and the weight to that of its outputs (`fake_quantize`);
gradients pass through as if there were no rounding (the straight-through estimator: Bengio et al., 2013; Jacob et al.,
2018). In training mode the ranges of x follow the batches, as a moving average; in evaluation mode they stay.

It is done at the door where all operations pass: the model's own code runs, whatever it is, and each product whose
weight is one of its parameters is given rounded operands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.ir import Op, Operand, TensorType, ops
from tinytorch.ir.errors import OpError
from tinytorch.ir.interp import Passing
from tinytorch.nn import Module
from tinytorch.passes.find_layers import canonical
from tinytorch.tensor import Tensor, as_tensor

from .calibrate import Seen
from .plan import check_bits, greatest

LAYERS = (ops.linear, ops.conv2d)
LEAST = 2.0 ** -40  # of a scale: a layer that sees only zeros divides by it


class Prepared(Module):
    """`model` with rounded layers; it shares the model's parameters, which training changes.

    Args:
        weight_bits: of the integers that weights become, 2 to 8; those that x becomes have 8.
        momentum: how much of a new batch's range goes into the average.
    Attributes:
        model: what was prepared.
        inputs: types of what the last call was given.

    >>> import tinytorch as tt
    >>> ready = tt.quant.prepare(tt.nn.Linear(2, 2))
    >>> _ = ready(tt.tensor([[-1.0, 3.0]]))
    >>> ready.seen()["weight"].low, ready.seen()["weight"].high
    (-1.0, 3.0)
    """

    def __init__(self, model: Module, weight_bits: int = 8, momentum: float = 0.1) -> None:
        check_bits(weight_bits)
        self.model, self.weight_bits, self.momentum = model, weight_bits, momentum
        self.inputs: tuple[TensorType, ...] = ()
        for name, parameter in model.named_parameters():
            if parameter.ndim in (2, 4):  # low, high, and whether anything has been seen
                self.register_buffer(f"range_{canonical(name)}", Tensor(np.zeros(3, np.float32)))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model computes of the arguments, with rounded layers."""
        self.inputs = tuple(as_tensor(x).type for x in args)
        with _Rounding(self):
            return self.model(*args, **kwargs)

    def seen(self) -> dict[str, Seen]:
        """The ranges that training has found, by layer."""
        found = {name.removeprefix("range_"): buffer.numpy() for name, buffer in self.named_buffers()
                 if name.startswith("range_")}
        return {key: Seen(float(low), float(high), np.zeros(0, np.float32))
                for key, (low, high, known) in found.items() if known}

    # -- rounding ------------------------------------------------------------------------------------------------------

    def round_input(self, x: Tensor, key: str) -> Any:
        """x on the grid of its layer, which in training mode follows it."""
        seen = getattr(self, f"range_{key}")
        low, high, known = seen[0], seen[1], seen[2]
        if self.training:
            with no_grad():
                share = known * self.momentum + (1.0 - known)  # all of the first batch
                data = x.detach()
                low = low + share * (ops.minimum(ops.min(data), 0.0) - low)
                high = high + share * (ops.maximum(ops.max(data), 0.0) - high)
                for place, number in enumerate((low, high, known * 0.0 + 1.0)):
                    seen = _with_number(seen, place, number)
                getattr(self, f"range_{key}").copy_(seen)
        scale = ops.maximum((high - low) * (1 / 255), LEAST)
        return ops.fake_quantize(x, scale, ops.round(-low / scale), 0, 255)

    def round_weight(self, weight: Tensor) -> Any:
        """The weight, each of its outputs on a grid of its own."""
        top = greatest(self.weight_bits)
        reach = ops.max(ops.abs(weight.detach()), tuple(range(1, weight.ndim)))
        return ops.fake_quantize(weight, ops.maximum(reach * (1 / top), LEAST), 0, -top, top, axis=0)


def _with_number(vector: Any, place: int, number: Any) -> Any:
    """`vector`, with another number at a place."""
    here = ops.eq(ops.iota(vector.shape, 0), place)
    return ops.where(here, number, vector)


class _Rounding(Passing):
    """Gives layers rounded operands."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        self.prepared = prepared
        self.keys = {id(p): canonical(name) for name, p in prepared.model.named_parameters() if p.ndim in (2, 4)}

    def process(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        if op in LAYERS and id(operands[1]) in self.keys and isinstance(operands[0], Operand):
            x, weight, *rest = operands
            with self.below:
                x = self.prepared.round_input(as_tensor(x), self.keys[id(weight)])
                operands = (x, self.prepared.round_weight(weight), *rest)
        return self.below.process(op, operands, attrs)


def prepare(model: Module, weight_bits: int = 8, momentum: float = 0.1) -> Prepared:
    """`model`, ready for quantisation-aware training; see `Prepared`. It shares the model's parameters.

    >>> import tinytorch as tt
    >>> ready = tt.quant.prepare(tt.nn.Linear(4, 2), weight_bits=4)
    >>> ready(tt.ones(3, 4)).sum().backward()                      # gradients as if there were no rounding
    >>> ready.model.weight.grad.shape
    (2, 4)
    """
    if not isinstance(model, Module):
        raise OpError(f"prepare({type(model).__name__}): expected a module")
    return Prepared(model, weight_bits, momentum)
