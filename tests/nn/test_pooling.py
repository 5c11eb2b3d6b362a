"""Pooling beside PyTorch's: results and gradients with odd arguments; eager, traced and compiled."""

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
RNG = np.random.default_rng(6)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


LAYERS: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda m: m.MaxPool2d(2), (2, 3, 6, 8)),
    (lambda m: m.MaxPool2d(2), (3, 7, 5)),
    (lambda m: m.MaxPool2d(2), (0, 3, 6, 8)),
    (lambda m: m.MaxPool2d(1), (1, 1, 1, 1)),
    (lambda m: m.MaxPool2d(3, stride=2, padding=1), (2, 3, 6, 7)),
    (lambda m: m.MaxPool2d((3, 2), stride=(1, 3), padding=(1, 0)), (2, 3, 6, 8)),
    (lambda m: m.MaxPool2d((2, 3), stride=1, padding=(0, 1), dilation=(3, 2)), (2, 3, 6, 7)),
    (lambda m: m.MaxPool2d(3, stride=2, ceil_mode=True), (2, 3, 6, 7)),
    (lambda m: m.MaxPool2d(2, stride=3, padding=1, ceil_mode=True), (2, 3, 5, 6)),  # one window less than the formula
    (lambda m: m.MaxPool2d((2, 3), stride=(3, 2), padding=1, dilation=(2, 1), ceil_mode=True), (2, 3, 6, 8)),
    (lambda m: m.MaxPool2d(3, ceil_mode=True), (1, 1, 2, 2)),  # larger than the image
    (lambda m: m.MaxPool1d(2), (2, 3, 7)),
    (lambda m: m.MaxPool1d(3, stride=2, padding=1, dilation=2, ceil_mode=True), (3, 8)),
    (lambda m: m.AvgPool2d(2), (2, 3, 6, 8)),
    (lambda m: m.AvgPool2d((3, 2), stride=(2, 1), padding=(1, 0)), (3, 6, 7)),
    (lambda m: m.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), (2, 3, 6, 7)),
    (lambda m: m.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), (2, 3, 6, 8)),
    (lambda m: m.AvgPool2d((2, 3), stride=(3, 2), padding=1, ceil_mode=True, count_include_pad=False), (2, 3, 7, 6)),
    (lambda m: m.AvgPool2d(2, stride=3, ceil_mode=True), (2, 3, 4, 7)),
    (lambda m: m.AvgPool2d(3, padding=1, ceil_mode=True, divisor_override=5), (2, 3, 7, 7)),
    (lambda m: m.AvgPool2d(2), (0, 3, 6, 8)),
    (lambda m: m.AvgPool1d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), (2, 3, 8)),
    (lambda m: m.AvgPool1d(2), (3, 7)),
    *((lambda m, size=size: m.AdaptiveAvgPool2d(size), (2, 3, 6, 8)) for size in (1, (3, 2), (None, 3), 5, (7, 20))),
    (lambda m: m.AdaptiveAvgPool2d((2, 3)), (3, 5, 7)),
    (lambda m: m.AdaptiveAvgPool2d(3), (0, 3, 5, 7)),
    (lambda m: m.AdaptiveAvgPool1d(3), (2, 3, 8)),
    (lambda m: m.AdaptiveAvgPool1d(4), (3, 8)),
    *((lambda m, size=size: m.AdaptiveMaxPool2d(size), (2, 3, 6, 8)) for size in (1, (3, 2), (None, 3), 5, (7, 20))),
    (lambda m: m.AdaptiveMaxPool1d(3), (2, 3, 8)),
]


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_layers_are_pytorchs(number: int, peer: Peer) -> None:
    make, shape = LAYERS[number]
    check_module(make, [floats(*shape)], peer("torch"), compiled=False)


COMPILED: list[Callable[[Any, Any], Any]] = [
    lambda F, x: F.max_pool2d(x, 3, 2, 1, 1, True),
    lambda F, x: F.max_pool2d(x, 2, 1, 0, 2),
    lambda F, x: F.max_pool2d(x, 5, (2, 1), 2),
    lambda F, x: F.avg_pool2d(x, 3, 2, 1, True, False),
    lambda F, x: F.avg_pool2d(x, (3, 2), (1, 2), (1, 0), divisor_override=4),
    lambda F, x: F.adaptive_avg_pool2d(x, 1),
    lambda F, x: F.adaptive_avg_pool2d(x, (2, 5)),
    lambda F, x: F.adaptive_max_pool2d(x, (4, 3)),
    lambda F, x: F.max_pool1d(x.flatten(2), 3, 2, 1),
    lambda F, x: F.avg_pool1d(x[0].flatten(1), 3, 2, 1, False, False),
    lambda F, x: F.adaptive_avg_pool1d(x.flatten(2), 7),
    lambda F, x: F.adaptive_max_pool1d(x.flatten(2), 7),
]


@pytest.mark.parametrize("functions", [
    COMPILED[::3], pytest.param([f for n, f in enumerate(COMPILED) if n % 3], marks=pytest.mark.slow)], ids=len)
def test_compiled_results_and_gradients_are_pytorchs(functions: list[Callable[[Any, Any], Any]], peer: Peer) -> None:
    torch = peer("torch")
    x = floats(2, 3, 6, 8)
    given, theirs = tt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)

    @tt.compile
    def step() -> Any:
        results = [f(F, given) for f in functions]
        sum((y * y).sum() for y in results).backward()
        return results, given.grad

    results, grad = step()
    expected = [f(torch.nn.functional, theirs) for f in functions]
    sum((y * y).sum() for y in expected).backward()
    for y, e in zip(results, expected, strict=True):
        near(y, e)
    near(grad, theirs.grad, 1e-4)


@pytest.mark.parametrize("pool", [
    lambda F, x: F.max_pool2d(x, 3),
    lambda F, x: F.max_pool2d(x, 3, 2, 1, 1, True),
    lambda F, x: F.max_pool2d(x, 2, 1, 0, 2),
    lambda F, x: F.adaptive_max_pool2d(x, 2),
    lambda F, x: F.adaptive_max_pool2d(x, (5, 4)),
])  # fmt: skip
def test_the_first_of_equals_gets_the_gradient(pool: Callable[[Any, Any], Any], peer: Peer) -> None:
    torch = peer("torch")
    x = RNG.integers(0, 2, (1, 2, 8, 6)).astype(np.float32)
    given, theirs = tt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    pool(F, given).sum().backward()
    pool(torch.nn.functional, theirs).sum().backward()
    near(given.grad, theirs.grad)


def test_what_is_not_a_number_stays_in_its_window(peer: Peer) -> None:
    torch = peer("torch")
    x = np.arange(30, dtype=np.float32).reshape(1, 1, 5, 6)
    x[0, 0, 1, 1], x[0, 0, 3, 4], x[0, 0, 4, 0] = np.nan, np.inf, -np.inf
    for name, args in [("max_pool2d", (2, 1)), ("max_pool2d", (3, 2, 1, 1, True)), ("avg_pool2d", (2,)),
                       ("adaptive_avg_pool2d", ((2, 4),)), ("adaptive_max_pool2d", ((2, 4),))]:  # fmt: skip
        near(getattr(F, name)(tt.tensor(x), *args), getattr(torch.nn.functional, name)(torch.tensor(x), *args))


def test_element_types_are_kept() -> None:
    for dtype in (tt.f64, tt.f16, tt.bf16):
        x = tt.ones(1, 2, 5, 5, dtype=dtype, requires_grad=True)
        results = [F.max_pool2d(x, 2, ceil_mode=True), F.avg_pool2d(x, 3, 2, 1, False, False),
                   F.avg_pool2d(x, 2, divisor_override=3), F.adaptive_avg_pool2d(x, 3), F.adaptive_max_pool2d(x, 3)]
        for y in results:
            assert y.dtype is dtype
            y.sum().backward()
        assert x.grad.dtype is dtype


def test_wrong_calls_say_what_is_wrong() -> None:
    image = tt.zeros(2, 3, 5, 6)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: nn.MaxPool2d(2)(tt.zeros(5, 6)), ShapeError, r"max_pool2d of f32\[5, 6\]: expected \(batch, channels"),
        (lambda: F.max_pool2d(tt.zeros(5), 2), ShapeError, r"expected \(batch, channels"),
        (lambda: nn.AvgPool1d(2)(image), ShapeError, r"expected \(batch, channels, length\)"),
        (lambda: nn.MaxPool2d(6)(image), ShapeError, "a window reaches 6 elements, x with its padding has 5"),
        (lambda: nn.MaxPool2d(3, dilation=3)(image), ShapeError, "reaches 7 elements"),
        (lambda: nn.AvgPool2d(6)(image), ShapeError, "reaches 6 elements"),
        (lambda: nn.MaxPool2d(2, padding=2)(image), ShapeError, "more than half of a window"),
        (lambda: nn.AvgPool2d(2, padding=2)(image), ShapeError, "more than half of a window"),
        (lambda: nn.MaxPool2d(0)(image), ShapeError, "kernel_size=0.*at least 1"),
        (lambda: nn.MaxPool2d(2, stride=0)(image), ShapeError, "stride=0.*at least 1"),
        (lambda: nn.MaxPool2d((2, 2, 2))(image), ShapeError, "expected one number, or 2"),
        (lambda: nn.MaxPool2d(2, return_indices=True), OpError, "return_indices=True"),
        (lambda: F.max_pool1d(tt.zeros(1, 4), 2, return_indices=True), OpError, "return_indices=True"),
        (lambda: nn.AdaptiveMaxPool1d(2, return_indices=True), OpError, "return_indices=True"),
        (lambda: F.adaptive_max_pool2d(image, 2, return_indices=True), OpError, "return_indices=True"),
        (lambda: nn.AvgPool2d(2, divisor_override=0)(image), OpError, "divided by 0"),
        (lambda: nn.AdaptiveAvgPool2d(0)(image), ShapeError, "output_size=.*at least 1"),
        (lambda: nn.AdaptiveAvgPool2d((1, 2, 3))(image), ShapeError, "expected one number, or 2"),
        (lambda: nn.AdaptiveAvgPool2d(1)(tt.zeros(2, 3, 0, 6)), ShapeError, "no elements to pool"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()
