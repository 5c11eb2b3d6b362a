"""Activations as modules, to put between layers: `nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))`.

Each is the function of `tinytorch.nn.functional` with its options kept. As there, `inplace` changes nothing.

    >>> import tinytorch as tt
    >>> tt.nn.ELU(alpha=2.0)
    ELU(alpha=2.0)
"""

from __future__ import annotations

from typing import Any

from tinytorch.creation import full
from tinytorch.ir.errors import OpError
from tinytorch.tensor import Parameter, Tensor

from . import functional as F
from .module import Module

__all__ = [
    "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSoftmax", "Mish", "PReLU", "ReLU", "ReLU6",
    "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh",
]


class _Elementwise(Module):
    """Takes `inplace`, and shows it if it is set."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return "inplace=True" if self.inplace else ""

    def _shown(self, options: str) -> str:
        return f"{options}, inplace=True" if self.inplace else options


class ReLU(_Elementwise):
    """max(x, 0).

    >>> import tinytorch as tt
    >>> tt.nn.ReLU()(tt.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.relu(x)


class ReLU6(_Elementwise):
    """min(max(x, 0), 6) (Howard et al., 2017).

    >>> import tinytorch as tt
    >>> tt.nn.ReLU6()(tt.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.relu6(x)


class LeakyReLU(_Elementwise):
    """x where positive, negative_slope · x elsewhere (Maas et al., 2013).

    >>> import tinytorch as tt
    >>> tt.nn.LeakyReLU(0.5)(tt.tensor([-1.0, 2.0]))
    tensor([-0.5,  2. ])
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return self._shown(f"negative_slope={self.negative_slope}")


class PReLU(Module):
    """x where positive, weight · x elsewhere, with slopes that are learned (He et al., 2015).

    Attributes:
        weight: (num_parameters), begins as `init`: one slope for all, or one for each channel (axis 1).
    Raises:
        ShapeError: when called with an x that has another number of channels.

    >>> import tinytorch as tt
    >>> tt.nn.PReLU()(tt.tensor([-1.0, 2.0])).tolist()
    [-0.25, 2.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype: Any = "f32") -> None:
        self.num_parameters = num_parameters
        self.weight = Parameter(full(num_parameters, init, dtype))

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"num_parameters={self.num_parameters}"


class ELU(_Elementwise):
    """x where positive, alpha · (eˣ - 1) elsewhere (Clevert et al., 2015).

    >>> import tinytorch as tt
    >>> tt.nn.ELU()(tt.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.    ])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return self._shown(f"alpha={self.alpha}")


class GELU(Module):
    """x Φ(x), exact or, with approximate="tanh", by tanh (Hendrycks and Gimpel, 2016).

    >>> import tinytorch as tt
    >>> tt.nn.GELU("tanh")(tt.tensor([-1.0, 2.0]))
    tensor([-0.1588,  1.9546])
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"approximate={self.approximate!r}"


class SiLU(_Elementwise):
    """x · sigmoid(x), also known as swish (Elfwing et al., 2017).

    >>> import tinytorch as tt
    >>> tt.nn.SiLU()(tt.tensor([-1.0, 2.0]))
    tensor([-0.2689,  1.7616])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.silu(x)


class Mish(_Elementwise):
    """x · tanh(softplus(x)) (Misra, 2019).

    >>> import tinytorch as tt
    >>> tt.nn.Mish()(tt.tensor([-1.0, 2.0]))
    tensor([-0.3034,  1.944 ])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.mish(x)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ).

    >>> import tinytorch as tt
    >>> tt.nn.Sigmoid()(tt.tensor([0.0, 2.0]))
    tensor([0.5   , 0.8808])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent.

    >>> import tinytorch as tt
    >>> tt.nn.Tanh()(tt.tensor([0.0, 2.0]))
    tensor([0.   , 0.964])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.tanh(x)


class Softplus(Module):
    """log(1 + exp(beta · x)) / beta, a smooth relu; x itself where beta · x > threshold.

    >>> import tinytorch as tt
    >>> tt.nn.Softplus()(tt.tensor([-1.0, 30.0]))
    tensor([ 0.3133, 30.    ])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardtanh(_Elementwise):
    """x kept within [min_val, max_val].

    Raises:
        OpError: min_val is not less than max_val.

    >>> import tinytorch as tt
    >>> tt.nn.Hardtanh(-2.0, 2.0)(tt.tensor([-3.0, 0.5, 3.0]))
    tensor([-2. ,  0.5,  2. ])
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        if not min_val < max_val:
            raise OpError(f"Hardtanh(min_val={min_val}, max_val={max_val}): expected min_val < max_val")
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return self._shown(f"min_val={self.min_val}, max_val={self.max_val}")


class Hardsigmoid(_Elementwise):
    """relu6(x + 3) / 6, a sigmoid of straight lines (Howard et al., 2019).

    >>> import tinytorch as tt
    >>> tt.nn.Hardsigmoid()(tt.tensor([-4.0, 0.0, 1.5]))
    tensor([0.  , 0.5 , 0.75])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.hardsigmoid(x)


class Hardswish(_Elementwise):
    """x · relu6(x + 3) / 6, a silu of straight lines (Howard et al., 2019).

    >>> import tinytorch as tt
    >>> tt.nn.Hardswish()(tt.tensor([0.0, 1.5]))
    tensor([0.   , 1.125])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.hardswish(x)


class Softmax(Module):
    """eˣ / Σeˣ along `dim`; name it: None warns and guesses, see `functional.softmax`.

    >>> import tinytorch as tt
    >>> tt.nn.Softmax(dim=-1)(tt.tensor([[0.0, 0.0], [0.0, 1000.0]]))
    tensor([[0.5, 0.5],
            [0. , 1. ]])
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """log of softmax along `dim`, exact where softmax would be 0.

    >>> import tinytorch as tt
    >>> tt.nn.LogSoftmax(dim=0)(tt.tensor([0.0, 1000.0]))
    tensor([-1000.,     0.])
    """

    def forward(self, x: Any) -> Tensor:
        """The formula above."""
        return F.log_softmax(x, self.dim)
