"""Activations beside PyTorch's: results and gradients, at kinks and for large numbers too; compiled as eager."""

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import check_module, near

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn import functional as F

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(3)

# Where an activation has a kink, or e to the power of it overflows, and random numbers between.
POINTS = np.array([-200, -6, -3, -1, -0.5, 0, 0.5, 1, 1.5, 3, 6, 15, 25, 200], np.float32)
NUMBERS = np.concatenate([POINTS, 3 * RNG.standard_normal(22).astype(np.float32)]).reshape(2, 3, 6)

ELEMENTWISE: list[Callable[[Any], Any]] = [
    lambda m: m.ReLU(),
    lambda m: m.ReLU(inplace=True),
    lambda m: m.ReLU6(),
    lambda m: m.LeakyReLU(0.2),
    lambda m: m.LeakyReLU(),
    lambda m: m.ELU(),
    lambda m: m.ELU(alpha=0.3),
    lambda m: m.GELU(),
    lambda m: m.GELU("tanh"),
    lambda m: m.SiLU(),
    lambda m: m.Mish(),
    lambda m: m.Softplus(),
    lambda m: m.Softplus(2.0, threshold=3.0),
    lambda m: m.Sigmoid(),
    lambda m: m.Tanh(),
    lambda m: m.Hardtanh(),
    lambda m: m.Hardtanh(-0.5, 3.0),
    lambda m: m.Hardsigmoid(),
    lambda m: m.Hardswish(),
    lambda m: m.PReLU(),
    lambda m: m.PReLU(3, init=0.1),
]
ROWS: list[tuple[Callable[[Any], Any], np.ndarray]] = [
    *((make, NUMBERS) for make in ELEMENTWISE),
    (lambda m: m.PReLU(3), NUMBERS[0].T),
    (lambda m: m.Softmax(dim=1), NUMBERS),
    (lambda m: m.Softmax(-1), NUMBERS),
    (lambda m: m.LogSoftmax(dim=0), NUMBERS),
    (lambda m: m.LogSoftmax(dim=-1), NUMBERS[:, :, 0]),
    (lambda m: m.Hardswish(), NUMBERS[:0]),  # an empty batch
    (lambda m: m.ELU(), np.float32(-1)),
]


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_activations_are_pytorchs(number: int, peer: Peer) -> None:
    torch = peer("torch")
    make, x = ROWS[number]

    def fresh(m: Any) -> Any:  # PyTorch would overwrite a leaf
        module = make(m)
        if getattr(module, "inplace", False) and m is torch.nn:
            module.forward = lambda x: torch.nn.functional.relu(x)
        return module

    check_module(fresh, [x], torch, compiled=False)


def test_compiled_as_eager_with_gradients() -> None:
    modules = [make(nn) for make in ELEMENTWISE] + [nn.Softmax(1), nn.LogSoftmax(-1)]

    def both(x: Any) -> Any:
        results = [module(x) for module in modules]
        total: Any = sum((y.square() * 0.1).sum() for y in results)
        total.backward()
        return results, x.grad

    eager, compiled = (run(tt.tensor(NUMBERS / 8, requires_grad=True)) for run in (both, tt.compile(both)))
    for actual, expected in zip([*compiled[0], compiled[1]], [*eager[0], eager[1]], strict=True):
        near(actual, expected)


def test_special_numbers_are_pytorchs(peer: Peer) -> None:
    torch = peer("torch")
    x = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    for make in ELEMENTWISE[:-1]:
        with np.errstate(invalid="ignore"):
            y, expected = make(nn)(tt.tensor(x)).numpy(), make(torch.nn)(torch.tensor(x)).detach().numpy()
        defined = ~np.isnan(expected)
        assert np.isnan(y[0])
        near(y[defined], expected[defined])  # where ∞ · 0 comes in, either may be nan


def test_softmax_without_dim_guesses_as_pytorch_does(peer: Peer) -> None:
    torch = peer("torch")
    for function in ("softmax", "log_softmax"):
        for x in (NUMBERS, NUMBERS[0], NUMBERS[0, 0], NUMBERS[None]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = getattr(torch.nn.functional, function)(torch.tensor(x))
            with pytest.warns(UserWarning, match="name the axis"):
                near(getattr(F, function)(tt.tensor(x)), expected)
    assert repr(nn.Softmax()) == repr(torch.nn.Softmax())
    assert F.softmax(tt.ones(2), 0, dtype="f64").dtype is tt.f64


def test_inplace_leaves_the_input_alone() -> None:
    x = tt.tensor([-1.0, 2.0])
    for module in (nn.ReLU(True), nn.ELU(inplace=True), nn.Hardtanh(inplace=True), nn.SiLU(inplace=True)):
        module(x)
    F.relu(x, inplace=True)
    assert x.tolist() == [-1.0, 2.0]
    assert repr(nn.ELU(inplace=True)) == "ELU(alpha=1.0, inplace=True)"


def test_wrong_calls_say_what_is_wrong() -> None:
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: F.gelu(tt.zeros(2), "fast"), OpError, "'none' or 'tanh'"),
        (lambda: nn.PReLU(3)(tt.zeros(2, 4)), ShapeError, "one for each channel"),
        (lambda: nn.PReLU(3)(tt.zeros(3)), ShapeError, "one for each channel"),
        (lambda: nn.Hardtanh(1.0, 1.0), OpError, "min_val < max_val"),
        (lambda: F.hardtanh(tt.zeros(2), 2.0, 1.0), OpError, "min_val ≤ max_val"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()
