"""Linear, Bilinear, Embedding, Dropout, padding, shapes beside PyTorch's; dropout compiled as eager; first numbers."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import check_module, near
from scipy import stats

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import OpError, ShapeError, TinyTorchError, TracingError
from tinytorch.nn import functional as F

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


ROWS: list[tuple[Callable[[Any], Any], list[np.ndarray]]] = [
    (lambda m: m.Linear(5, 3), [floats(4, 5)]),
    (lambda m: m.Linear(5, 3, bias=False), [floats(2, 4, 5)]),
    (lambda m: m.Linear(5, 3), [floats(5)]),
    (lambda m: m.Linear(5, 3), [floats(0, 5)]),
    (lambda m: m.Bilinear(5, 4, 3), [floats(6, 5), floats(6, 4)]),
    (lambda m: m.Bilinear(5, 4, 1, bias=False), [floats(2, 3, 5), floats(2, 3, 4)]),
    (lambda m: m.Bilinear(5, 4, 2), [floats(5), floats(4)]),
    (lambda m: m.Bilinear(5, 4, 2), [floats(0, 5), floats(0, 4)]),
    (lambda m: m.Embedding(6, 3), [np.array([[0, 5, 5], [1, 2, 0]])]),
    (lambda m: m.Embedding(6, 3, padding_idx=5), [np.array([[0, 5, 5], [1, 2, 0]])]),
    (lambda m: m.Embedding(6, 3, padding_idx=-6), [np.array([0, 0, 5])]),
    (lambda m: m.Embedding(6, 3, 2), [np.array(2)]),
    (lambda m: m.Dropout(0.0), [floats(3, 4)]),
    (lambda m: m.Dropout(1.0), [floats(3, 4)]),
    (lambda m: m.Dropout1d(1.0), [floats(3, 4, 5)]),
    (lambda m: m.Dropout2d(0.0), [floats(3, 4, 5, 6)]),
    (lambda m: m.Identity(3, bias=False), [floats(3)]),
    (lambda m: m.Flatten(), [floats(3, 4, 5)]),
    (lambda m: m.Flatten(0, 1), [floats(3, 4, 5)]),
    (lambda m: m.Unflatten(1, (2, 5)), [floats(3, 10, 4)]),
    (lambda m: m.Unflatten(-1, (2, -1, 1)), [floats(3, 10)]),
]


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_layers_are_pytorchs(number: int, peer: Peer) -> None:
    make, inputs = ROWS[number]
    check_module(make, inputs, peer("torch"), compiled=False)


FUNCTIONS: list[tuple[Callable[[Any, Any], Any], list[np.ndarray]]] = [
    (lambda F, t: F.normalize(t), [floats(4, 5)]),
    (lambda F, t: F.normalize(t, p=1, dim=0), [floats(4, 5)]),
    (lambda F, t: F.normalize(t, p=3, dim=-1, eps=0.1), [floats(2, 4, 5)]),
    (lambda F, t: F.normalize(t, p=float("inf")), [floats(2, 4, 5)]),
    (lambda F, t: F.normalize(t), [np.zeros((2, 3), np.float32)]),
    (lambda F, t: F.layer_norm(t, (4,), None, t[0]), [floats(3, 4)]),
    (lambda F, t: F.pad(t, (1, 2)), [floats(3, 4)]),
    (lambda F, t: F.pad(t, (1, 0, 2, 3), value=0.5), [floats(2, 3, 4)]),
    (lambda F, t: F.pad(t, (-1, 2, 1, -2)), [floats(3, 4)]),
    (lambda F, t: F.pad(t, (0, -4)), [floats(3, 4)]),
    (lambda F, t: F.pad(t, ()), [floats(3, 4)]),
    (lambda F, t: F.pad(t, (3, 1), "reflect"), [floats(3, 4)]),
    (lambda F, t: F.pad(t, (1, 2, 0, 1), mode="replicate"), [floats(2, 3, 4)]),
    (lambda F, t: F.pad(t, (4, 1, 1, 2), mode="circular"), [floats(1, 2, 3, 4)]),
    (lambda F, t: F.pad(t, (2, -1), mode="reflect"), [floats(3, 4)]),
    (lambda F, t: F.pad(t, (-2, 1), mode="replicate"), [floats(3, 4)]),
]


class Function(nn.Module):
    """A function as a module, for `check_module`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def forward(self, x: Any) -> Any:
        """The function of x."""
        return self.function(F, x)


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_functions_are_pytorchs(number: int, peer: Peer) -> None:
    torch = peer("torch")
    function, inputs = FUNCTIONS[number]

    class Theirs(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, x: Any) -> Any:
            return function(torch.nn.functional, x)

    check_module(lambda m: Function(function) if m is nn else Theirs(), inputs, torch, compiled=False, same_repr=False)


def test_compiled_as_eager_with_gradients() -> None:
    x, y = tt.tensor(floats(2, 3, 4), requires_grad=True), tt.tensor(floats(2, 3, 5))
    layer, unflatten = nn.Bilinear(4, 5, 6), nn.Unflatten(1, (3, 1))

    def step(x: Any, y: Any) -> Any:
        z = F.normalize(unflatten(layer(x, y)), p=2, dim=-1)
        z = F.pad(F.pad(z, (1, -2), value=2.0), (2, 1), "reflect")
        (z * z * 0.5).sum().backward()
        return z, x.grad, layer.weight.grad

    expected = step(x, y)
    x.grad = None
    layer.zero_grad()
    for actual, e in zip(tt.compile(step)(x, y), expected, strict=True):
        near(actual, e)


def test_one_hot() -> None:
    near(F.one_hot(tt.tensor([[1], [0]]), 3), np.eye(3, dtype=np.int64)[[[1], [0]]])
    near(F.one_hot(tt.tensor([2, 0])), np.eye(3, dtype=np.int64)[[2, 0]])
    assert F.one_hot(tt.zeros(0, dtype="i64")).shape == (0, 0)
    with pytest.raises(TracingError, match="numbers are not known"):
        tt.trace(F.one_hot, tt.tensor([2, 0]))


def test_positions_out_of_range_are_errors_eager_and_compiled() -> None:
    table = tt.tensor(floats(5, 2))

    def both(i: Any) -> Any:
        return F.embedding(i, table, padding_idx=1), F.one_hot(i, 5)

    fast = tt.compile(both)
    for wrong in (5, -1):
        with pytest.raises(IndexError, match=f"index {wrong} is not one of the 5 rows"):
            both(tt.tensor([0, wrong]))
        with pytest.raises(IndexError, match="out of range"):
            fast(tt.tensor([0, wrong]))
    for actual, expected in zip(fast(tt.tensor([0, 1])), both(tt.tensor([0, 1])), strict=True):
        near(actual, expected)


def test_padding_begins_as_0_and_stays() -> None:
    layer = nn.Embedding(4, 2, padding_idx=-1)
    assert layer.padding_idx == 3 and layer.weight[3].tolist() == [0, 0] and (layer.weight[0] != 0).all()
    layer(tt.tensor([3, 0])).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]


def test_embedding_from_a_table() -> None:
    table = tt.tensor(floats(4, 2))
    layer = nn.Embedding.from_pretrained(table)
    near(layer(tt.tensor([3, 1])), table.numpy()[[3, 1]])
    layer.weight.copy_(0.0)
    assert not layer.weight.requires_grad and (table != 0).all(), "a copy"
    assert nn.Embedding.from_pretrained(table, freeze=False, padding_idx=0).weight.requires_grad


# -- dropout -----------------------------------------------------------------------------------------------------------


def test_dropout_thins_out_and_keeps_the_mean() -> None:
    layer, x = nn.Dropout(0.25), tt.ones(100, 100, requires_grad=True)
    y = layer(x)
    assert set(np.unique(y.numpy())) == {0.0, np.float32(1 / 0.75)}
    assert abs((y.numpy() == 0).mean() - 0.25) < 0.02 and abs(y.numpy().mean() - 1) < 0.02
    y.sum().backward()
    near(x.grad, y)  # the same elements
    assert (layer(x).numpy() != y.numpy()).any()
    assert layer.eval()(x) is x


@pytest.mark.parametrize(("layer", "shape", "axes"), [
    (nn.Dropout1d(0.3), (40, 50, 7), (2,)),
    (nn.Dropout1d(0.3), (2000, 7), (1,)),
    (nn.Dropout2d(0.3), (40, 50, 3, 2), (2, 3)),
    (nn.Dropout2d(0.3), (40, 50, 3), (2,)),
])  # fmt: skip
def test_dropout_of_channels(layer: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = tt.ones(shape, requires_grad=True)
    y = layer(x)
    channels = y.numpy().min(axes)
    assert (channels == y.numpy().max(axes)).all(), "all of a channel, or nothing"
    assert np.unique(channels).tolist() == [0.0, np.float32(1 / 0.7)]
    assert abs((channels == 0).mean() - 0.3) < 0.04
    y.sum().backward()
    near(x.grad, y)
    assert layer.eval()(x) is x
    layer.train()


def test_compiled_dropout_draws_what_eager_would() -> None:
    x, layers = tt.ones(5, 6, 7), [nn.Dropout(0.5), nn.Dropout1d(0.5), nn.Dropout2d(0.3)]

    def both(x: Any) -> Any:
        return [layer(x) for layer in layers]

    tt.manual_seed(5)
    eager = [[y.tolist() for y in both(x)] for _ in range(3)]
    tt.manual_seed(5)
    fast = tt.compile(both)
    assert [[y.tolist() for y in fast(x)] for _ in range(3)] == eager and eager[0] != eager[1]


# -- types, wrong calls ------------------------------------------------------------------------------------------------


def test_layers_of_other_dtypes() -> None:
    for dtype in (tt.f64, tt.f16, tt.bf16):
        layer, table = nn.Linear(3, 2, dtype=dtype), nn.Embedding(3, 2, 0, dtype=dtype)
        y = nn.ReLU()(nn.Dropout2d(0.5)(layer(tt.ones(4, 3, dtype=dtype))) + table(tt.tensor([0, 1, 2, 2])))
        y.sum().backward()
        assert y.dtype is dtype and layer.weight.grad.dtype is dtype and table.weight.grad.dtype is dtype


def test_wrong_calls_say_what_is_wrong() -> None:
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: F.embedding(tt.tensor([10]), tt.zeros(10, 2)), IndexError, "index 10 .*10 rows"),
        (lambda: nn.Embedding(4, 2, padding_idx=4), IndexError, "padding_idx=4 is not one of the 4 rows"),
        (lambda: nn.Embedding.from_pretrained(tt.zeros(4)), ShapeError, "expected a table"),
        (lambda: F.one_hot(tt.tensor([3]), 3), IndexError, "label 3"),
        (lambda: nn.Linear(3, 2)(tt.zeros(2, 4)), ShapeError, "last extent"),
        (lambda: nn.Bilinear(3, 2, 4)(tt.zeros(5, 3), tt.zeros(5, 3)), ShapeError, "expected x1"),
        (lambda: nn.Bilinear(3, 2, 4)(tt.zeros(5, 3), tt.zeros(2)), ShapeError, "expected x1"),
        (lambda: nn.Dropout(1.5), OpError, "Dropout.*probability"),
        (lambda: nn.Dropout2d(-0.5), OpError, "Dropout2d.*probability"),
        (lambda: F.dropout(tt.zeros(2), 1.5), OpError, "probability"),
        (lambda: nn.Dropout1d()(tt.zeros(2)), ShapeError, "batch, channels, length"),
        (lambda: nn.Dropout2d()(tt.zeros(2)), ShapeError, "batch, channels, height"),
        (lambda: nn.Unflatten(2, (1, 1))(tt.zeros(2, 3)), ShapeError, "no such axis"),
        (lambda: nn.Unflatten(1, (2, 2))(tt.zeros(2, 3)), ShapeError, "does not split into"),
        (lambda: nn.Unflatten(1, (2, -1))(tt.zeros(2, 3)), ShapeError, "does not split into"),
        (lambda: F.pad(tt.zeros(2, 3), (1,)), ShapeError, "before, after"),
        (lambda: F.pad(tt.zeros(3), (1, 1, 1, 1)), ShapeError, "before, after"),
        (lambda: F.pad(tt.zeros(3), (-2, -2)), ShapeError, "more is cut off"),
        (lambda: F.pad(tt.zeros(3), (3, 0), "reflect"), ShapeError, "expected 2 at most"),
        (lambda: F.pad(tt.zeros(3), (4, 0), "circular"), ShapeError, "expected 3 at most"),
        (lambda: F.pad(tt.zeros(0), (1, 0), "replicate"), ShapeError, "expected 0 at most"),
        (lambda: F.pad(tt.zeros(3), (1, 1), "mirror"), OpError, "'reflect'"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()


# -- first numbers -----------------------------------------------------------------------------------------------------


def test_first_numbers_are_distributed_as_pytorchs() -> None:
    uniform = stats.uniform(-0.05, 0.1).cdf
    for parameter in (nn.Linear(400, 50).weight, nn.Linear(400, 500).bias, nn.Bilinear(400, 2, 5).weight):
        assert stats.kstest(parameter.numpy().ravel(), uniform).pvalue > 1e-3
    assert stats.kstest(nn.Embedding(100, 50).weight.numpy().ravel(), "norm").pvalue > 1e-3
    tt.manual_seed(1)
    first = nn.Linear(3, 3).weight.tolist()
    assert nn.Linear(3, 3).weight.tolist() != first
    tt.manual_seed(1)
    assert nn.Linear(3, 3).weight.tolist() == first


def test_init_functions() -> None:
    def std(fill: Callable[[Any], Any], *shape: int) -> float:
        p = nn.Parameter(tt.zeros(shape))
        assert fill(p) is p and p.requires_grad and p.creator is None
        return float(p.numpy().std())

    init = nn.init
    for fill, expected in [
        (init.xavier_uniform_, math.sqrt(2 / 500)),
        (lambda p: init.xavier_normal_(p, gain=3), 3 * math.sqrt(2 / 500)),
        (lambda p: init.kaiming_uniform_(p, nonlinearity="relu"), math.sqrt(2 / 200)),
        (lambda p: init.kaiming_normal_(p, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 300)),
        (lambda p: init.kaiming_uniform_(p, a=math.sqrt(5)), math.sqrt(1 / 3 / 200)),
        (lambda p: init.uniform_(p, -3, 3), math.sqrt(3)),
        (lambda p: init.normal_(p, 5, 2), 2),
        (lambda p: init.trunc_normal_(p, 1, 2, -3, 5), 2 * stats.truncnorm(-2, 2).std()),
        (lambda p: init.constant_(p, 4), 0),
    ]:
        assert std(fill, 300, 200) == pytest.approx(expected, rel=0.02)
    assert init.fans(tt.zeros(8, 4, 3, 3)) == (36, 72)


def test_truncated_normal_has_its_distribution() -> None:
    x = nn.init.trunc_normal_(tt.zeros(100, 60), 0.5, 0.2, 0.4, 2.0).numpy()
    assert x.min() >= 0.4 and stats.kstest(x.ravel(), stats.truncnorm(-0.5, 7.5, 0.5, 0.2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (6, 2, 2, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    w = nn.init.orthogonal_(tt.zeros(shape), gain=2).numpy().reshape(shape[0], -1).astype(np.float64)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)
    signs = [np.sign(nn.init.orthogonal_(tt.zeros(2, 2)).numpy()[0, 0]) for _ in range(40)]
    assert 8 < signs.count(1.0) < 32, "uniform: neither sign is preferred"


def test_fixed_init_is_pytorchs(peer: Peer) -> None:
    torch = peer("torch")
    near(nn.init.eye_(tt.zeros(3, 4)), torch.nn.init.eye_(torch.zeros(3, 4)))
    for shape, groups in (((4, 2, 3), 1), ((4, 2, 3, 4), 2), ((2, 4, 3, 3), 1)):
        near(nn.init.dirac_(tt.ones(shape), groups), torch.nn.init.dirac_(torch.ones(shape), groups))
    for name in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert nn.init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)


def test_wrong_init_says_what_is_wrong() -> None:
    wrong: list[Callable[[], Any]] = [
        lambda: nn.init.xavier_uniform_(tt.zeros(3)), lambda: nn.init.kaiming_uniform_(tt.zeros(3, 3), mode="in"),
        lambda: nn.init.calculate_gain("sine"), lambda: nn.init.orthogonal_(tt.zeros(3)),
        lambda: nn.init.eye_(tt.zeros(3)), lambda: nn.init.dirac_(tt.zeros(3, 3)),
        lambda: nn.init.dirac_(tt.zeros(3, 3, 1), 2), lambda: nn.init.trunc_normal_(tt.zeros(3), a=5.0, b=6.0),
    ]  # fmt: skip
    for call in wrong:
        with pytest.raises(TinyTorchError):
            call()
