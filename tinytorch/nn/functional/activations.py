"""Activations as functions of tensors of any shape."""

from __future__ import annotations

from typing import Any

from tinytorch.functional import sigmoid, softmax, tanh
from tinytorch.ir import ops
from tinytorch.tensor import Tensor, as_tensor

__all__ = ["gelu", "leaky_relu", "log_softmax", "relu", "sigmoid", "silu", "softmax", "softplus", "tanh"]


def relu(x: Any) -> Tensor:
    """max(x, 0)."""
    return as_tensor(ops.relu(x))


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """x where positive, negative_slope · x elsewhere (Maas et al., 2013)."""
    return as_tensor(ops.leaky_relu(x, negative_slope))


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x Φ(x), exact or, with approximate="tanh", by tanh (Hendrycks and Gimpel, 2016)."""
    return as_tensor(ops.gelu(x, approximate))


def silu(x: Any) -> Tensor:
    """x · sigmoid(x)."""
    return as_tensor(ops.silu(x))


def softplus(x: Any, beta: float = 1.0) -> Tensor:
    """log(1 + exp(beta · x)) / beta, a smooth relu."""
    return as_tensor(ops.softplus(x) if beta == 1 else ops.softplus(as_tensor(x) * beta) / beta)


def log_softmax(x: Any, dim: int = -1) -> Tensor:
    """log of softmax along `dim`."""
    return as_tensor(ops.log_softmax(x, dim))
