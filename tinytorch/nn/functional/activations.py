"""Activations as functions of tensors of any shape.

They are written with ops that fuse, so that a chain of them is one kernel. At kinks (relu at 0, hardtanh at its bounds)
gradients are PyTorch's. `inplace` is taken for PyTorch's sake and changes nothing: where a result stands is the
compiler's business, and x keeps its numbers.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> F.leaky_relu(tt.tensor([-1.0, 2.0]), 0.1)
    tensor([-0.1,  2. ])
"""

from __future__ import annotations

import warnings
from typing import Any

from tinytorch.ir import ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Tensor, as_tensor

__all__ = [
    "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_softmax", "mish", "prelu", "relu",
    "relu6", "sigmoid", "silu", "softmax", "softplus", "tanh",
]


def relu(x: Any, inplace: bool = False) -> Tensor:
    """max(x, 0).

    >>> import tinytorch as tt
    >>> tt.nn.functional.relu(tt.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return as_tensor(ops.relu(as_tensor(x)))


def relu6(x: Any, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6) (Howard et al., 2017).

    >>> import tinytorch as tt
    >>> tt.nn.functional.relu6(tt.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """
    return hardtanh(x, 0.0, 6.0)


def leaky_relu(x: Any, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, negative_slope · x elsewhere (Maas et al., 2013).

    >>> import tinytorch as tt
    >>> tt.nn.functional.leaky_relu(tt.tensor([-1.0, 2.0]))
    tensor([-0.01,  2.  ])
    """
    return as_tensor(ops.leaky_relu(as_tensor(x), negative_slope))


def prelu(x: Any, weight: Any) -> Tensor:
    """x where positive, weight · x elsewhere (He et al., 2015).

    Args:
        weight: (1), or one number for each channel, axis 1 of x.
    Raises:
        ShapeError: there are neither one nor as many weights as channels.

    >>> import tinytorch as tt
    >>> tt.nn.functional.prelu(tt.tensor([[-1.0, -1.0]]), tt.tensor([0.5, 2.0]))
    tensor([[-0.5, -2. ]])
    """
    x, weight = as_tensor(x), as_tensor(weight)
    if weight.size != 1 and (weight.ndim != 1 or x.shape[1:2] != weight.shape):
        raise ShapeError(f"prelu({x.type}, weight {weight.type}): expected one weight, or one for each channel, axis 1")
    slope = weight.reshape(()) if weight.size == 1 else weight.reshape(-1, *(1 for _ in x.shape[2:]))
    return as_tensor(ops.where(x > 0, x, slope * x))


def elu(x: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, alpha · (eˣ - 1) elsewhere (Clevert et al., 2015).

    >>> import tinytorch as tt
    >>> tt.nn.functional.elu(tt.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.    ])
    """
    x = as_tensor(x)
    below = ops.where(x > 0, 0.0, x)  # so that eˣ overflows in neither the result nor the gradient
    return as_tensor(ops.where(x > 0, x, alpha * ops.expm1(below)))


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x Φ(x), exact or, with approximate="tanh", by tanh (Hendrycks and Gimpel, 2016).

    Raises:
        OpError: `approximate` is neither "none" nor "tanh".

    >>> import tinytorch as tt
    >>> tt.nn.functional.gelu(tt.tensor([-1.0, 2.0]))
    tensor([-0.1587,  1.9545])
    """
    return as_tensor(ops.gelu(as_tensor(x), approximate))


def silu(x: Any, inplace: bool = False) -> Tensor:
    """x · sigmoid(x), also known as swish (Elfwing et al., 2017).

    >>> import tinytorch as tt
    >>> tt.nn.functional.silu(tt.tensor([-1.0, 2.0]))
    tensor([-0.2689,  1.7616])
    """
    return as_tensor(ops.silu(as_tensor(x)))


def mish(x: Any, inplace: bool = False) -> Tensor:
    """x · tanh(softplus(x)) (Misra, 2019).

    >>> import tinytorch as tt
    >>> tt.nn.functional.mish(tt.tensor([-1.0, 2.0]))
    tensor([-0.3034,  1.944 ])
    """
    x = as_tensor(x)
    return as_tensor(x * ops.tanh(ops.softplus(x)))


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta · x)) / beta, a smooth relu; x itself where beta · x > threshold.

    >>> import tinytorch as tt
    >>> tt.nn.functional.softplus(tt.tensor([-1.0, 30.0]))
    tensor([ 0.3133, 30.    ])
    """
    x = as_tensor(x)
    scaled = x * beta
    return as_tensor(ops.where(scaled > threshold, x, ops.softplus(scaled) / beta))


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + e⁻ˣ).

    >>> import tinytorch as tt
    >>> tt.nn.functional.sigmoid(tt.tensor([0.0, 2.0]))
    tensor([0.5   , 0.8808])
    """
    return as_tensor(ops.sigmoid(as_tensor(x)))


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent.

    >>> import tinytorch as tt
    >>> tt.nn.functional.tanh(tt.tensor([0.0, 2.0]))
    tensor([0.   , 0.964])
    """
    return as_tensor(ops.tanh(as_tensor(x)))


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x kept within [min_val, max_val]; unlike `clip`, no gradient flows at the bounds.

    Raises:
        OpError: min_val is greater than max_val.

    >>> import tinytorch as tt
    >>> tt.nn.functional.hardtanh(tt.tensor([-3.0, 0.5, 3.0]))
    tensor([-1. ,  0.5,  1. ])
    """
    if min_val > max_val:
        raise OpError(f"hardtanh(min_val={min_val}, max_val={max_val}): expected min_val ≤ max_val")
    x = as_tensor(x)
    return as_tensor(ops.where(x <= min_val, min_val, ops.where(x >= max_val, max_val, x)))


def hardsigmoid(x: Any, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6, a sigmoid of straight lines (Howard et al., 2019).

    >>> import tinytorch as tt
    >>> tt.nn.functional.hardsigmoid(tt.tensor([-4.0, 0.0, 1.5]))
    tensor([0.  , 0.5 , 0.75])
    """
    return relu6(as_tensor(x) + 3.0) / 6.0


def hardswish(x: Any, inplace: bool = False) -> Tensor:
    """x · relu6(x + 3) / 6, a silu of straight lines (Howard et al., 2019).

    >>> import tinytorch as tt
    >>> tt.nn.functional.hardswish(tt.tensor([-4.0, 0.0, 1.5]))
    tensor([-0.   ,  0.   ,  1.125])
    """
    x = as_tensor(x)
    return x * hardsigmoid(x)


def softmax(x: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """eˣ / Σeˣ along `dim`.

    Args:
        dim: the axis; as in PyTorch, None warns and takes 0 of 0, 1 or 3 axes, 1 of others.
        dtype: to convert x to first.

    >>> import tinytorch as tt
    >>> tt.nn.functional.softmax(tt.tensor([[0.0, 0.0], [0.0, 1000.0]]), dim=-1)
    tensor([[0.5, 0.5],
            [0. , 1. ]])
    """
    x = as_tensor(x, dtype)
    return as_tensor(ops.softmax(x, _guessed("softmax", x) if dim is None else dim))


def log_softmax(x: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """log of softmax along `dim`, exact where softmax would be 0; arguments as `softmax`.

    >>> import tinytorch as tt
    >>> tt.nn.functional.log_softmax(tt.tensor([0.0, 1000.0]), dim=0)
    tensor([-1000.,     0.])
    """
    x = as_tensor(x, dtype)
    return as_tensor(ops.log_softmax(x, _guessed("log_softmax", x) if dim is None else dim))


def _guessed(name: str, x: Tensor) -> int:
    """The axis that PyTorch takes when none is named."""
    dim = 0 if x.ndim in (0, 1, 3) else 1
    warnings.warn(f"{name} of {x.type} without dim takes dim={dim}; name the axis", stacklevel=3)
    return dim
