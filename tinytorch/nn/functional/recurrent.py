"""One step of a recurrent layer, as functions: what PyTorch calls `torch.lstm_cell`, and so on.

All take x (…, input), the state before, w_ih (gates · hidden, input), w_hh (gates · hidden, hidden) and biases
(gates · hidden) or None; the state is (…, hidden).

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> x, h = tt.zeros(5, 3), tt.zeros(5, 4)
    >>> F.gru_cell(x, h, tt.zeros(12, 3), tt.zeros(12, 4)).shape
    (5, 4)
"""

from __future__ import annotations

from typing import Any

from tinytorch.functional import sigmoid, tanh
from tinytorch.tensor import Tensor, as_tensor

from .activations import relu
from .layers import linear

__all__ = ["gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"]


def rnn_tanh_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """tanh(W x + b + U h + c): the next state (Elman, 1990).

    >>> import tinytorch as tt
    >>> tt.nn.functional.rnn_tanh_cell(tt.tensor([1.0]), tt.tensor([2.0]), tt.ones(1, 1), tt.tensor([[-0.5]]))
    tensor([0.])
    """
    return tanh(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def rnn_relu_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """relu(W x + b + U h + c): the next state.

    >>> import tinytorch as tt
    >>> tt.nn.functional.rnn_relu_cell(tt.tensor([1.0]), tt.tensor([2.0]), tt.ones(1, 1), tt.ones(1, 1))
    tensor([3.])
    """
    return relu(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> tuple[Tensor, Tensor]:
    """The next (h, c) of `hx` = (h, c): long short-term memory (Hochreiter and Schmidhuber, 1997).

    >>> import tinytorch as tt
    >>> state = tt.zeros(5, 4), tt.zeros(5, 4)
    >>> h, c = tt.nn.functional.lstm_cell(tt.zeros(5, 3), state, tt.zeros(16, 3), tt.zeros(16, 4))
    >>> h.shape, c.shape
    ((5, 4), (5, 4))
    """
    h, c = hx
    return lstm_step(linear(input, w_ih, b_ih) + linear(h, w_hh, b_hh), c)


def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """The next state of a gated recurrent unit (Cho et al., 2014, as PyTorch has it).

    >>> import tinytorch as tt
    >>> tt.nn.functional.gru_cell(tt.zeros(3), tt.tensor([8.0]), tt.zeros(3, 3), tt.zeros(3, 1))      # z = ½, n = 0
    tensor([4.])
    """
    return gru_step(linear(input, w_ih, b_ih), linear(hx, w_hh, b_hh), hx)


def lstm_step(gates: Tensor, c: Any) -> tuple[Tensor, Tensor]:
    """(h, c) from the sums (…, 4 · hidden) that go into the gates i, f, g, o, and the cell before."""
    i, f, g, o = parts(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gru_step(x_gates: Tensor, h_gates: Tensor, h: Any) -> Tensor:
    """h from the sums (…, 3 · hidden) over input and state that go into the gates r, z, n, and the state before."""
    (xr, xz, xn), (hr, hz, hn) = parts(x_gates, 3), parts(h_gates, 3)
    z, n = sigmoid(xz + hz), tanh(xn + sigmoid(xr + hr) * hn)
    return (1 - z) * n + z * as_tensor(h)


def parts(x: Tensor, count: int) -> list[Tensor]:
    """`count` equal parts of the last axis."""
    size = x.shape[-1] // count
    return [x[..., k * size:(k + 1) * size] for k in range(count)]
