"""Activations as modules, to put between layers."""

from __future__ import annotations

from typing import Any

from tinytorch.tensor import Tensor

from . import functional as F
from .module import Module

__all__ = ["GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ReLU(Module):
    """max(x, 0).

    >>> import tinytorch as tt
    >>> tt.nn.ReLU()(tt.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.relu(x)


class LeakyReLU(Module):
    """x where positive, negative_slope · x elsewhere (Maas et al., 2013)."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"negative_slope={self.negative_slope}"


class GELU(Module):
    """x Φ(x), exact or, with approximate="tanh", by tanh (Hendrycks and Gimpel, 2016)."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x · sigmoid(x)."""

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.silu(x)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ)."""

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.tanh(x)


class Softplus(Module):
    """log(1 + exp(beta · x)) / beta, a smooth relu."""

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.softplus(x, self.beta)

    def extra_repr(self) -> str:
        """What it is smoothed with."""
        return f"beta={self.beta}"


class Softmax(Module):
    """eˣ / Σeˣ along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """log of softmax along `dim`."""

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.log_softmax(x, self.dim)
