"""Fill parameters with their first numbers, in place, from the default generator.

Each function overwrites its tensor and gives it back.

    >>> import tinytorch as tt
    >>> layer = tt.nn.Linear(3, 2)
    >>> tt.nn.init.ones_(layer.bias)
    tensor([1., 1.], requires_grad=True)
"""

from __future__ import annotations

import math

from tinytorch.autograd import no_grad
from tinytorch.creation import rand, randn
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Tensor


@no_grad()
def constant_(tensor: Tensor, value: float) -> Tensor:
    """All `value`."""
    return tensor.copy_(value)


def zeros_(tensor: Tensor) -> Tensor:
    """All 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """All 1."""
    return constant_(tensor, 1.0)


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform on [a, b)."""
    return tensor.copy_(rand(tensor.shape) * (b - a) + a)


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal with this mean and standard deviation."""
    return tensor.copy_(randn(tensor.shape) * std + mean)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with variance gain² · 2 / (fan_in + fan_out) (Glorot and Bengio, 2010): for tanh and sigmoid."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with variance gain² · 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform with variance gain² / fan (He et al., 2015): for relu and its kin, of slope `a` below 0."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal with variance gain² / fan (He et al., 2015)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def calculate_gain(nonlinearity: str, a: float = 0.01) -> float:
    """By how much the layer before `nonlinearity` should scale to keep variances; `a` is leaky_relu's slope below 0."""
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2),
             "leaky_relu": math.sqrt(2 / (1 + a * a))}
    if nonlinearity not in gains:
        raise OpError(f"nonlinearity={nonlinearity!r}: expected one of {', '.join(gains)}")
    return gains[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, …): how many numbers go into, and come from, one unit."""
    if tensor.ndim < 2:
        raise ShapeError(f"fan of {tensor.type}: expected a weight (out, in, …) with at least two axes")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise OpError(f"mode={mode!r}: expected 'fan_in' or 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode == "fan_out"])
