"""Layers that walk along a sequence and keep a state: RNN, LSTM, GRU, and their single steps as cells.

The input's part of all sums is one matrix product for all times; then the walk goes step by step, unrolled, so a
compiled function is traced once for each length.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> lstm = nn.LSTM(3, 8, num_layers=2, batch_first=True)
    >>> y, (h, c) = lstm(tt.randn(5, 20, 3))                      # (batch, time, input)
    >>> y.shape, h.shape                                          # the last layer's states; each layer's last state
    ((5, 20, 8), (2, 5, 8))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinytorch.creation import zeros
from tinytorch.functional import concat, stack, tanh
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Parameter, Tensor, as_tensor

from . import functional as F
from . import init
from .functional.check import check_probability
from .functional.recurrent import gru_step, lstm_step
from .module import Module

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]

State = tuple[Tensor, ...]


class _Recurrent(Module):
    """What RNN, LSTM and GRU share: weights for each layer and direction, and the walk."""

    gates = 1
    proj_size = 0

    def _setup(self, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool, dropout: float,
               bidirectional: bool) -> None:
        who = type(self).__name__
        if min(input_size, hidden_size, num_layers) < 1:
            raise OpError(f"{who}(input_size={input_size}, hidden_size={hidden_size}, num_layers={num_layers}): "
                          "expected numbers ≥ 1")
        check_probability(f"{who}(dropout", dropout)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, float(dropout), bidirectional
        self.out_size = self.proj_size or hidden_size
        self.ways = ("", "_reverse") if bidirectional else ("",)
        rows = self.gates * hidden_size
        for layer in range(num_layers):
            width = self.out_size * len(self.ways) if layer else input_size
            for way in self.ways:
                _own_weights(self, f"_l{layer}{way}", rows, width, self.out_size, bias, 1 / math.sqrt(hidden_size))
                if self.proj_size:
                    _own(self, f"weight_hr_l{layer}{way}", (self.proj_size, hidden_size), 1 / math.sqrt(hidden_size))

    def _step(self, sums: Tensor, state: State, name: str) -> State:
        """The next state, from the input's part of the sums (batch, gates · hidden); its first tensor is the output."""
        raise NotImplementedError

    def _walk(self, x: Any, given: Sequence[Any] | None) -> tuple[Tensor, State]:
        """The last layer's outputs, and all last states, each (layers · directions, batch, size)."""
        x = as_tensor(x)
        batched = x.ndim == 3
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size or not x.shape[self._axis(batched)]:
            axes = "(batch, time" if self.batch_first else "(time, batch"
            raise ShapeError(f"{type(self).__name__}({x.type}): expected {axes}, {self.input_size}) or (time, "
                             f"{self.input_size}), of at least one time")
        if not batched:
            x = x.unsqueeze(self._axis(True) ^ 1)
        axis = self._axis(True)
        states = self._states(given, x.shape[axis ^ 1], batched)
        last: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for number, way in enumerate(self.ways):
                before = tuple(s[layer * len(self.ways) + number] for s in states)
                steps, state = self._scan(x, before, f"_l{layer}{way}", axis)
                outputs.append(stack(steps, axis))
                last.append(state)
            x = outputs[0] if len(outputs) == 1 else concat(outputs, -1)
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        finals = tuple(stack(parts) for parts in zip(*last, strict=True))
        if batched:
            return x, finals
        return x.squeeze(axis ^ 1), tuple(s.squeeze(1) for s in finals)

    def _scan(self, x: Tensor, state: State, name: str, axis: int) -> tuple[list[Tensor], State]:
        """One layer in one direction: its outputs in the order of time, and its last state."""
        sums = unbind(F.linear(x, getattr(self, "weight_ih" + name), self._input_bias(name)), axis)
        backwards = name.endswith("_reverse")
        outputs = []
        for s in reversed(sums) if backwards else sums:
            state = self._step(s, state, name)
            outputs.append(state[0])
        return outputs[::-1] if backwards else outputs, state

    def _input_bias(self, name: str) -> Any:
        """Both biases are added to the sums; once for all times is enough."""
        return getattr(self, "bias_ih" + name) + getattr(self, "bias_hh" + name) if self.bias else None

    def _states(self, given: Sequence[Any] | None, batch: int, batched: bool) -> State:
        """The states to begin with, zeros by default, with a batch axis."""
        count = self.num_layers * len(self.ways)
        shapes = [(count, batch, size) for size in self._sizes()]
        if given is None:
            return tuple(zeros(shape, dtype=self.weight_ih_l0.dtype) for shape in shapes)  # type: ignore[attr-defined]
        found = tuple(as_tensor(s) for s in given)
        expected = [s if batched else (s[0], s[2]) for s in shapes]
        if [s.shape for s in found] != expected:
            raise ShapeError(f"{type(self).__name__}: the state to begin with is of shapes {[s.shape for s in found]}, "
                             f"expected {expected}: (layers · directions, batch, size)")
        return found if batched else tuple(s.unsqueeze(1) for s in found)

    def _sizes(self) -> tuple[int, ...]:
        return (self.out_size,)

    def _axis(self, batched: bool) -> int:
        return int(self.batch_first and batched)

    def extra_repr(self) -> str:
        """As PyTorch prints it: what is not the default."""
        shown = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
                 "bidirectional": False}
        odd = (f", {name}={getattr(self, name)}" for name, usual in shown.items() if getattr(self, name) != usual)
        return f"{self.input_size}, {self.hidden_size}" + "".join(odd)


class RNN(_Recurrent):
    """h = tanh(W x + b + U h + c) at each time (Elman, 1990).

    Args:
        input_size, hidden_size: features of the input, of the state.
        num_layers: each layer but the first reads the states of the one before.
        nonlinearity: "tanh" or "relu".
        batch_first: (batch, time, input) in place of (time, batch, input).
        dropout: of what goes from layer to layer, in training.
        bidirectional: a second walk goes backwards; outputs of both stand side by side.
    Attributes:
        weight_ih_l0 (hidden, input), weight_hh_l0 (hidden, hidden), bias_ih_l0, bias_hh_l0 (hidden), and so on for
        l1, …, and l0_reverse, …: uniform on ±1 / √hidden_size.
    Raises:
        OpError: a size below 1, a dropout that is no probability, an unknown nonlinearity.
        ShapeError: when called with shapes that do not fit.

    >>> import tinytorch as tt
    >>> y, h = tt.nn.RNN(3, 4, bidirectional=True)(tt.zeros(7, 5, 3))
    >>> y.shape, h.shape
    ((7, 5, 8), (2, 5, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False) -> None:
        _check_nonlinearity("RNN", nonlinearity)
        self.nonlinearity = nonlinearity
        self._setup(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """(output (time, batch, directions · hidden), last states (layers · directions, batch, hidden))."""
        y, (h,) = self._walk(input, None if hx is None else (hx,))
        return y, h

    def _step(self, sums: Tensor, state: State, name: str) -> State:
        total = sums + F.linear(state[0], getattr(self, "weight_hh" + name))
        return (tanh(total) if self.nonlinearity == "tanh" else F.relu(total),)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), with forget gates (Gers et al., 2000).

    Arguments and attributes as those of `RNN`; weights hold the rows of the gates i, f, g, o one below the other.

    Args:
        proj_size: if not 0, the output is h mapped to so many features, by weight_hr_l0 (proj_size, hidden), …

    >>> import tinytorch as tt
    >>> y, (h, c) = tt.nn.LSTM(3, 4)(tt.zeros(7, 5, 3))
    >>> y.shape, h.shape, c.shape
    ((7, 5, 4), (1, 5, 4), (1, 5, 4))
    """

    gates = 4

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 proj_size: int = 0) -> None:
        if not 0 <= proj_size < hidden_size:
            raise OpError(f"LSTM(proj_size={proj_size}): expected 0 ≤ proj_size < hidden_size = {hidden_size}")
        self.proj_size = proj_size
        self._setup(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(output, (h, c)); states as those of `RNN`."""
        y, (h, c) = self._walk(input, hx)
        return y, (h, c)

    def _step(self, sums: Tensor, state: State, name: str) -> State:
        h, c = lstm_step(sums + F.linear(state[0], getattr(self, "weight_hh" + name)), state[1])
        return (F.linear(h, getattr(self, "weight_hr" + name)) if self.proj_size else h), c

    def _sizes(self) -> tuple[int, ...]:
        return self.out_size, self.hidden_size


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al., 2014).

    Arguments and attributes as those of `RNN`; weights hold the rows of the gates r, z, n one below the other.

    >>> import tinytorch as tt
    >>> y, h = tt.nn.GRU(3, 4, batch_first=True)(tt.zeros(5, 7, 3))
    >>> y.shape, h.shape
    ((5, 7, 4), (1, 5, 4))
    """

    gates = 3

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False) -> None:
        self._setup(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """(output, last states), as `RNN`."""
        y, (h,) = self._walk(input, None if hx is None else (hx,))
        return y, h

    def _input_bias(self, name: str) -> Any:
        return getattr(self, "bias_ih" + name) if self.bias else None

    def _step(self, sums: Tensor, state: State, name: str) -> State:
        h_bias = getattr(self, "bias_hh" + name) if self.bias else None
        return (gru_step(sums, F.linear(state[0], getattr(self, "weight_hh" + name), h_bias), state[0]),)


class _Cell(Module):
    """What the cells share: the weights of one step."""

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        _own_weights(self, "", self.gates * hidden_size, input_size, hidden_size, bias, 1 / math.sqrt(hidden_size))

    def _prepare(self, x: Any, given: Sequence[Any] | None, states: int = 1) -> tuple[Tensor, State]:
        """The input and the states to begin with, checked."""
        x = as_tensor(x)
        shape = (*x.shape[:-1], self.hidden_size)
        found = tuple(map(as_tensor, given)) if given is not None else (zeros(shape, dtype=x.dtype),) * states
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size or [s.shape for s in found] != [shape] * states:
            shown = ", ".join(str(s.type) for s in (x, *found))
            raise ShapeError(f"{type(self).__name__}({shown}): expected (batch, {self.input_size}) or "
                             f"({self.input_size}), and {states} × (batch, {self.hidden_size})")
        return x, found

    def _weights(self) -> tuple[Any, ...]:
        own = vars(self)
        return own["weight_ih"], own["weight_hh"], own["bias_ih"], own["bias_hh"]

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """One step of an `RNN`: x (batch, input) and h (batch, hidden) give the next h.

    >>> import tinytorch as tt
    >>> tt.nn.RNNCell(3, 4)(tt.zeros(5, 3)).shape
    (5, 4)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh") -> None:
        _check_nonlinearity("RNNCell", nonlinearity)
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """The next state."""
        x, (h,) = self._prepare(input, None if hx is None else (hx,))
        return (F.rnn_tanh_cell if self.nonlinearity == "tanh" else F.rnn_relu_cell)(x, h, *self._weights())

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class LSTMCell(_Cell):
    """One step of an `LSTM`: x (batch, input) and (h, c) give the next (h, c).

    >>> import tinytorch as tt
    >>> h, c = tt.nn.LSTMCell(3, 4)(tt.zeros(5, 3))
    >>> h.shape, c.shape
    ((5, 4), (5, 4))
    """

    gates = 4

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """The next states."""
        x, state = self._prepare(input, hx, 2)
        return F.lstm_cell(x, state, *self._weights())


class GRUCell(_Cell):
    """One step of a `GRU`: x (batch, input) and h (batch, hidden) give the next h.

    >>> import tinytorch as tt
    >>> tt.nn.GRUCell(3, 4)(tt.zeros(5, 3)).shape
    (5, 4)
    """

    gates = 3

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """The next state."""
        x, (h,) = self._prepare(input, None if hx is None else (hx,))
        return F.gru_cell(x, h, *self._weights())


def unbind(x: Tensor, dim: int) -> list[Tensor]:
    """The parts of x along `dim`, found by halving, so that gradients are put together in n log n moves and not n²."""
    n = x.shape[dim]
    if n == 1:
        return [x.squeeze(dim)]
    before = (slice(None),) * dim
    return unbind(x[(*before, slice(n // 2))], dim) + unbind(x[(*before, slice(n // 2, n))], dim)


def _own_weights(module: Module, name: str, rows: int, inputs: int, hidden: int, bias: bool, bound: float) -> None:
    _own(module, "weight_ih" + name, (rows, inputs), bound)
    _own(module, "weight_hh" + name, (rows, hidden), bound)
    for which in ("bias_ih", "bias_hh"):
        if bias:
            _own(module, which + name, (rows,), bound)
        else:
            setattr(module, which + name, None)


def _own(module: Module, name: str, shape: tuple[int, ...], bound: float) -> None:
    setattr(module, name, init.uniform_(Parameter(zeros(shape)), -bound, bound))


def _check_nonlinearity(who: str, nonlinearity: str) -> None:
    if nonlinearity not in ("tanh", "relu"):
        raise OpError(f"{who}(nonlinearity={nonlinearity!r}): expected 'tanh' or 'relu'")
