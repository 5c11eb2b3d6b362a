"""Fill parameters with their first numbers, in place, from the default generator.

Each function overwrites its tensor and gives it back. They are meant for eager code: before the first step.

    >>> import tinytorch as tt
    >>> layer = tt.nn.Linear(3, 2)
    >>> tt.nn.init.ones_(layer.bias)
    tensor([1., 1.], requires_grad=True)
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.creation import rand, randn
from tinytorch.ir.errors import DTypeError, OpError, ShapeError
from tinytorch.tensor import Tensor

__all__ = [
    "calculate_gain", "constant_", "dirac_", "eye_", "fans", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
    "orthogonal_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """All `val`.

    >>> import tinytorch as tt
    >>> tt.nn.init.constant_(tt.zeros(2), 0.5)
    tensor([0.5, 0.5])
    """
    return tensor.copy_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """All 0.

    >>> import tinytorch as tt
    >>> tt.nn.init.zeros_(tt.ones(2))
    tensor([0., 0.])
    """
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """All 1.

    >>> import tinytorch as tt
    >>> tt.nn.init.ones_(tt.zeros(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform on [a, b).

    >>> import tinytorch as tt
    >>> x = tt.nn.init.uniform_(tt.zeros(1000), -1.0, 1.0)
    >>> bool((x >= -1).all() & (x < 1).all())
    True
    """
    _check_floats("uniform_", tensor)
    return tensor.copy_(rand(tensor.shape) * (b - a) + a)


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal with this mean and standard deviation.

    >>> import tinytorch as tt
    >>> round(tt.nn.init.normal_(tt.zeros(10000), std=0.02).std().item(), 3)
    0.02
    """
    _check_floats("normal_", tensor)
    return tensor.copy_(randn(tensor.shape) * std + mean)


def _check_floats(function: str, tensor: Tensor) -> None:
    if not tensor.dtype.is_float:
        raise DTypeError(f"{function} of {tensor.type}: integers cannot hold such numbers; expected floating point")


@no_grad()
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal with this mean and standard deviation, kept within [a, b] by drawing again what falls outside.

    Raises:
        OpError: a normal number falls into [a, b] less than once in a thousand times.

    >>> import tinytorch as tt
    >>> tt.nn.init.trunc_normal_(tt.zeros(1000), std=0.02, a=-0.04, b=0.04).abs().max() <= 0.04
    tensor(True)
    """
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2))) / 2 for bound in (a, b))
    if high - low < 1e-3:
        raise OpError(f"trunc_normal_(mean={mean}, std={std}, a={a}, b={b}): next to none of the normal numbers are "
                      "within [a, b]; move the bounds, or use uniform_")
    array = np.empty(tensor.shape, np.float32)
    outside = np.ones(tensor.shape, bool)
    while outside.any():
        array[outside] = randn(int(outside.sum())).numpy() * std + mean
        outside = (array < a) | (array > b)
    return tensor.copy_(array)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with variance gain² · 2 / (fan_in + fan_out) (Glorot and Bengio, 2010): for tanh and sigmoid.

    >>> import tinytorch as tt
    >>> tt.nn.init.xavier_uniform_(tt.zeros(3, 3)).abs().max() <= 1
    tensor(True)
    """
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with variance gain² · 2 / (fan_in + fan_out) (Glorot and Bengio, 2010).

    >>> import tinytorch as tt
    >>> round(tt.nn.init.xavier_normal_(tt.zeros(100, 100)).std().item(), 2)
    0.1
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform with variance gain² / fan (He et al., 2015): for relu and its kin, of slope `a` below 0.

    Raises:
        OpError: `mode` is neither "fan_in" nor "fan_out", or the nonlinearity is not known.

    >>> import tinytorch as tt
    >>> tt.nn.init.kaiming_uniform_(tt.zeros(4, 6)).abs().max() <= 1
    tensor(True)
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal with variance gain² / fan (He et al., 2015); as `kaiming_uniform_`.

    >>> import tinytorch as tt
    >>> round(tt.nn.init.kaiming_normal_(tt.zeros(100, 200)).std().item(), 2)
    0.1
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def orthogonal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """gain times an orthogonal matrix (out, in · …), uniform among them (Saxe et al., 2013).

    Its rows are orthonormal, or its columns if there are fewer of them.

    >>> import tinytorch as tt
    >>> w = tt.nn.init.orthogonal_(tt.zeros(2, 3))
    >>> bool(((w @ w.T - tt.eye(2)).abs() < 1e-5).all())
    True
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ of {tensor.type}: expected a weight (out, in, …) with at least two axes")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    q, r = np.linalg.qr(randn(max(rows, columns), min(rows, columns), dtype="f64").numpy())
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # the signs that make it uniform (Mezzadri, 2007)
    return _filled(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def eye_(tensor: Tensor) -> Tensor:
    """The identity: 1 on the diagonal of a matrix, 0 elsewhere.

    >>> import tinytorch as tt
    >>> tt.nn.init.eye_(tt.zeros(2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ of {tensor.type}: expected a matrix")
    return _filled(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight (out, in, …) with which it gives back its input, as far as there are channels.

    Raises:
        ShapeError: the weight has no window, or `groups` does not divide its first extent.

    >>> import tinytorch as tt
    >>> tt.nn.init.dirac_(tt.zeros(1, 1, 3)).tolist()
    [[[0.0, 1.0, 0.0]]]
    """
    if tensor.ndim not in (3, 4, 5) or tensor.shape[0] % groups:
        raise ShapeError(f"dirac_({tensor.type}, groups={groups}): expected a convolution's weight (out, in, …) "
                         "and groups that divide its first extent")
    array = np.zeros(tensor.shape)
    middle = tuple(n // 2 for n in tensor.shape[2:])
    out = tensor.shape[0] // groups
    for channel in range(min(out, tensor.shape[1])):
        for group in range(groups):
            array[(group * out + channel, channel, *middle)] = 1.0
    return _filled(tensor, array)


@no_grad()
def _filled(tensor: Tensor, array: np.ndarray) -> Tensor:
    return tensor.copy_(array)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much the layer before `nonlinearity` should scale to keep variances.

    Args:
        nonlinearity: "linear" (or the name of a convolution), "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
        param: leaky_relu's slope below 0, by default 0.01.
    Raises:
        OpError: another nonlinearity.

    >>> import tinytorch as tt
    >>> round(tt.nn.init.calculate_gain("tanh"), 3)
    1.667
    """
    slope = 0.01 if param is None else param
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
             "leaky_relu": math.sqrt(2 / (1 + slope * slope))}
    gains |= {f"conv{transpose}{n}d": 1.0 for n in (1, 2, 3) for transpose in ("", "_transpose")}
    if nonlinearity not in gains:
        raise OpError(f"nonlinearity={nonlinearity!r}: expected one of {', '.join(gains)}")
    return gains[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, …): how many numbers go into, and come from, one unit.

    Raises:
        ShapeError: the weight has fewer than two axes.

    >>> import tinytorch as tt
    >>> tt.nn.init.fans(tt.zeros(8, 4, 3, 3))
    (36, 72)
    """
    if tensor.ndim < 2:
        raise ShapeError(f"fan of {tensor.type}: expected a weight (out, in, …) with at least two axes")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise OpError(f"mode={mode!r}: expected 'fan_in' or 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode == "fan_out"])
