"""Recurrent layers: PyTorch's results, states and gradients; compiled as eager; they learn to remember."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import check_module, near

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn import functional as F
from tinytorch.nn.recurrent import unbind

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


X, ONE = floats(5, 2, 3), floats(2, 3)
LAYERS: list[tuple[Callable[[Any], Any], np.ndarray]] = [
    (lambda m: m.RNN(3, 4), X),
    (lambda m: m.RNN(3, 4, 2, "relu", False, True), X),
    (lambda m: m.RNN(3, 4, bidirectional=True, num_layers=2), X[:, 0]),
    (lambda m: m.LSTM(3, 4), X),
    (lambda m: m.LSTM(3, 4, 2, batch_first=True, bidirectional=True), X),
    (lambda m: m.LSTM(3, 4, bias=False), X[:1]),
    (lambda m: m.LSTM(3, 4, 2, proj_size=2, bidirectional=True), X),
    (lambda m: m.LSTM(3, 4, batch_first=True), X[:, 0]),
    (lambda m: m.GRU(3, 4), X),
    (lambda m: m.GRU(3, 4, 3, bias=False, batch_first=True), X),
    (lambda m: m.GRU(3, 1, 2, bidirectional=True), X),
    (lambda m: m.RNNCell(3, 4), ONE),
    (lambda m: m.RNNCell(3, 4, bias=False, nonlinearity="relu"), ONE[0]),
    (lambda m: m.LSTMCell(3, 4), ONE),
    (lambda m: m.LSTMCell(3, 4, bias=False), ONE[0]),
    (lambda m: m.GRUCell(3, 4), ONE),
    (lambda m: m.GRU(3, 4, 2, dropout=0.5).eval(), X),
]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_layers_are_pytorchs(number: int, peer: Peer) -> None:
    make, x = LAYERS[number]
    torch = peer("torch")
    torch.manual_seed(0)
    check_module(make, [x], torch, train=make(nn).training, compiled=False, tolerance=5e-5)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_states_to_begin_with_are_pytorchs(name: str, peer: Peer) -> None:
    torch = peer("torch")
    torch.manual_seed(0)
    ours, theirs = (getattr(lib, name)(3, 4, 2, bidirectional=True) for lib in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    for batch in ((), (2,)):
        x, states = floats(5, *batch, 3), [floats(4, *batch, 4) for _ in range(1 + (name == "LSTM"))]
        h, t = [tt.tensor(s, requires_grad=True) for s in states], [torch.tensor(s, requires_grad=True) for s in states]
        y, last = ours(tt.tensor(x), tuple(h) if name == "LSTM" else h[0])
        expected, last_expected = theirs(torch.tensor(x), tuple(t) if name == "LSTM" else t[0])
        near(y, expected)
        near(last[-1] if name == "LSTM" else last, last_expected[-1] if name == "LSTM" else last_expected)
        y.square().sum().backward()
        expected.square().sum().backward()
        for a, b in zip(h, t, strict=True):
            near(a.grad, b.grad, 1e-4)


def test_cells_are_steps_of_the_layers() -> None:
    for name in ("RNN", "LSTM", "GRU"):
        layer, cell = getattr(nn, name)(3, 4), getattr(nn, name + "Cell")(3, 4)
        cell.load_state_dict({key.removesuffix("_l0"): value for key, value in layer.state_dict().items()})
        state = None
        for step, expected in zip(tt.tensor(X), layer(tt.tensor(X))[0], strict=True):
            state = cell(step, state)
            near(state[0] if name == "LSTM" else state, expected)


def test_cells_as_functions_are_pytorchs(peer: Peer) -> None:
    torch = peer("torch")
    for name, gates in (("rnn_tanh_cell", 1), ("rnn_relu_cell", 1), ("gru_cell", 3), ("lstm_cell", 4)):
        arrays = [floats(2, 3), floats(2, 4), floats(4 * gates, 3), floats(4 * gates, 4)]
        biases = [floats(4 * gates), floats(4 * gates)]
        c = floats(2, 4)
        for extra in ([], biases):
            x, h, *rest = [tt.tensor(a) for a in arrays + extra]
            tx, th, *trest = [torch.tensor(a) for a in arrays + extra]
            lstm = name == "lstm_cell"
            y = getattr(F, name)(x, (h, tt.tensor(c)) if lstm else h, *rest)
            expected = getattr(torch, name)(tx, (th, torch.tensor(c)) if lstm else th, *trest)
            for a, b in zip(y if lstm else [y], expected if lstm else [expected], strict=True):
                near(a, b)


@pytest.mark.parametrize("make", [
    lambda: [nn.GRU(3, 4, 2, dropout=0.5)],
    pytest.param(lambda: [nn.LSTM(3, 4, 2, dropout=0.5), nn.GRU(4, 4), nn.RNN(4, 4)], marks=pytest.mark.slow),
], ids=["one", "all three"])
def test_a_training_step_compiled_is_eager(make: Callable[[], list[nn.Module]]) -> None:
    """All layers in one step, with dropout between layers."""

    def train(compiled: bool) -> tuple[list[float], list[np.ndarray]]:
        tt.manual_seed(0)
        model = nn.ModuleList(make())
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            for layer in model:
                x, _ = layer(x)
            loss = x.square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = tt.compile(step) if compiled else step
        losses = [run(tt.tensor(X)).item() for _ in range(3)]
        return losses, [p.detach().numpy() for p in model.parameters()]

    (losses, parameters), (expected_losses, expected) = train(True), train(False)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for p, q in zip(parameters, expected, strict=True):
        near(p, q)


def test_dropout_between_layers_is_of_training_only() -> None:
    layer = nn.GRU(3, 8, 2, dropout=0.5)
    one, two = layer(tt.tensor(X))[0].numpy(), layer(tt.tensor(X))[0].numpy()
    assert not np.allclose(one, two)
    layer.eval()
    near(layer(tt.tensor(X))[0], layer(tt.tensor(X))[0])
    last = nn.GRU(3, 8, dropout=0.5)  # not after the last layer
    near(last(tt.tensor(X))[0], last(tt.tensor(X))[0])


def test_an_lstm_learns_to_remember_the_first_symbol(rng: np.random.Generator) -> None:
    tt.manual_seed(0)
    lstm, head = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 1)
    optimizer = optim.Adam([*lstm.parameters(), *head.parameters()], lr=0.05)
    x = np.sign(rng.standard_normal((32, 5, 2))).astype(np.float32)
    target = x[:, 0, :1]

    @tt.compile
    def step(x: Any, target: Any) -> Any:
        optimizer.zero_grad()
        _, (h, _) = lstm(x)
        loss = (head(h[-1]) - target).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x, target).item() for _ in range(150)]
    assert losses[0] > 0.8 and losses[-1] < 0.05, losses[::10]


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_unbind_gives_each_part_and_its_gradient(dim: int, n: int) -> None:
    shape = (n, 3) if dim == 0 else (3, n)
    x = tt.tensor(floats(*shape), requires_grad=True)
    found = unbind(x, dim)
    for k, part in enumerate(found):
        near(part, np.take(x.detach().numpy(), k, dim))
    sum(part.sum() * k for k, part in enumerate(found)).backward()
    near(x.grad, np.broadcast_to(np.arange(n)[:, None] if dim == 0 else np.arange(n), shape))


@pytest.mark.parametrize(("act", "says"), [
    (lambda: nn.RNN(3, 4, nonlinearity="gelu"), "'tanh' or 'relu'"),
    (lambda: nn.RNNCell(3, 4, nonlinearity="gelu"), "'tanh' or 'relu'"),
    (lambda: nn.GRU(3, 0), "≥ 1"),
    (lambda: nn.GRU(3, 4, dropout=2.0), "probability"),
    (lambda: nn.LSTM(3, 4, proj_size=4), "proj_size < hidden_size"),
    (lambda: nn.LSTM(3, 4)(tt.zeros(5, 2, 4)), r"\(time, batch, 3\)"),
    (lambda: nn.GRU(3, 4, batch_first=True)(tt.zeros(5, 2, 4)), r"\(batch, time, 3\)"),
    (lambda: nn.RNN(3, 4)(tt.zeros(0, 2, 3)), "at least one time"),
    (lambda: nn.RNN(3, 4)(tt.zeros(3)), "time"),
    (lambda: nn.RNN(3, 4)(tt.zeros(5, 2, 3), tt.zeros(1, 3, 4)), r"expected \[\(1, 2, 4\)\]"),
    (lambda: nn.LSTM(3, 4)(tt.zeros(5, 2, 3), (tt.zeros(1, 2, 4),)), r"\(1, 2, 4\), \(1, 2, 4\)"),
    (lambda: nn.GRUCell(3, 4)(tt.zeros(2, 4)), r"\(batch, 3\)"),
    (lambda: nn.LSTMCell(3, 4)(tt.zeros(2, 3), (tt.zeros(2, 4), tt.zeros(2, 5))), r"2 × \(batch, 4\)"),
])
def test_errors_say_what_fits(act: Callable[[], Any], says: str) -> None:
    with pytest.raises((OpError, ShapeError), match=says):
        act()
