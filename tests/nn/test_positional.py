"""Positional encodings: the papers' formulas, gradients, offsets, and what rotary angles are for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from against_torch import near

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import ShapeError
from tinytorch.nn import functional as F

RNG = np.random.default_rng(6)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("features", [6, 7])
def test_sinusoidal_is_the_papers(features: int) -> None:
    x = floats(2, 9, features)
    added = nn.SinusoidalPositionalEncoding(features, max_len=9)(tt.tensor(x)).numpy() - x
    for t in range(9):
        for j in range(features):
            angle = t / 10000 ** (2 * (j // 2) / features)
            assert np.allclose(added[:, t, j], np.cos(angle) if j % 2 else np.sin(angle), atol=1e-6)


def test_learned_adds_its_rows_and_learns_them() -> None:
    position = nn.LearnedPositionalEmbedding(9, 4)
    x = floats(2, 5, 4)
    y = position(tt.tensor(x))
    near(y, x + position.weight.numpy()[:5])
    y.sum().backward()
    near(position.weight.grad, [[2.0] * 4] * 5 + [[0.0] * 4] * 4)
    assert list(position.state_dict()) == ["weight"] and 0.01 < position.weight.numpy().std() < 0.03


def test_dropout_is_of_training_only() -> None:
    position = nn.SinusoidalPositionalEncoding(4, dropout=0.5)
    x = tt.ones(1, 500, 4) * 3
    assert 0.4 < (position(x).numpy() == 0).mean() < 0.6
    assert (position.eval()(x).numpy() != 0).all()


# -- rotary ------------------------------------------------------------------------------------------------------------


def turned(x: np.ndarray, positions: np.ndarray, interleaved: bool) -> np.ndarray:
    """Pairs as complex numbers times e^(i · angle), in f64."""
    d = x.shape[-1]
    angles = np.outer(positions, 10000.0 ** (-np.arange(0, d, 2) / d))
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :d // 2], x[..., d // 2:])
    z = (a + 1j * b.astype(np.float64)) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], -1).reshape(x.shape) if interleaved else np.concatenate([z.real, z.imag], -1)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_multiplies_by_a_rotation(interleaved: bool) -> None:
    rope, x = nn.RotaryEmbedding(6, max_len=20, interleaved=interleaved), floats(2, 3, 9, 6)
    given = tt.tensor(x, requires_grad=True)
    y = rope(given, offset=4)
    near(y, turned(x, np.arange(4, 13), interleaved))
    weights = floats(*x.shape)
    (y * tt.tensor(weights)).sum().backward()
    near(given.grad, turned(weights, -np.arange(4, 13), interleaved))  # the gradient is turned back
    assert not rope.state_dict() and not list(rope.parameters())


def test_rotary_keeps_the_element_type() -> None:
    assert nn.RotaryEmbedding(4)(tt.zeros(3, 4).to("bf16")).dtype.name == "bf16"


def test_rotary_products_depend_on_distance_alone() -> None:
    rope = nn.RotaryEmbedding(8)
    q, k = (tt.tensor(np.repeat(floats(1, 8), 30, 0)) for _ in range(2))
    products = (rope(q) @ rope(k).T).numpy()
    for distance in (-7, 0, 3):
        near(np.diagonal(products, distance), np.full(30 - abs(distance), np.diagonal(products, distance)[0]), 1e-4)
    assert abs(products[0, 5] - products[5, 0]) > 1e-3


def test_pairings_differ_by_the_order_of_features() -> None:
    x = floats(5, 8)
    order = np.arange(8).reshape(4, 2).T.ravel()  # 0 2 4 6 1 3 5 7
    halves = nn.RotaryEmbedding(8)(tt.tensor(x[:, order]))
    near(halves, nn.RotaryEmbedding(8, interleaved=True)(tt.tensor(x)).numpy()[:, order])


@pytest.mark.parametrize("make", [
    lambda: nn.RotaryEmbedding(4, max_len=16), lambda: nn.SinusoidalPositionalEncoding(4, max_len=16),
    lambda: nn.LearnedPositionalEmbedding(16, 4)], ids=["rotary", "sinusoidal", "learned"])
def test_step_by_step_is_all_at_once(make: Callable[[], Any]) -> None:
    module, x = make(), tt.tensor(floats(2, 16, 4))
    expected = module(x).numpy()
    fast = tt.compile(lambda x, t: module(x, t))
    for t in range(16):
        near(module(x[:, t:t + 1], t).numpy(), expected[:, t:t + 1])
        near(module(x[:, t:t + 1], tt.tensor(t)).numpy(), expected[:, t:t + 1])
        near(fast(x[:, t:t + 1], tt.tensor(t)).numpy(), expected[:, t:t + 1])
    assert repr(fast).count("1 programs")
    near(tt.compile(module)(x), expected)
    near(tt.trace(module, x)(x.numpy()), expected)


@pytest.mark.parametrize(("act", "says"), [
    (lambda: nn.RotaryEmbedding(5), "even"),
    (lambda: nn.RotaryEmbedding(4)(tt.zeros(3, 6)), "4"),
    (lambda: nn.RotaryEmbedding(4, max_len=5)(tt.zeros(6, 4)), "positions 0 … 5 of a table that ends at 4"),
    (lambda: nn.RotaryEmbedding(4, max_len=5)(tt.zeros(2, 4), offset=4), "positions 4 … 5"),
    (lambda: nn.SinusoidalPositionalEncoding(4)(tt.zeros(4)), "time, 4"),
    (lambda: nn.LearnedPositionalEmbedding(3, 4)(tt.zeros(2, 4, 4)), "more positions"),
    (lambda: F.rotary(tt.zeros(2, 4), tt.zeros(2, 4), tt.zeros(2, 4)), "half as wide"),
    (lambda: F.rotary(tt.zeros(2, 3), tt.zeros(2, 1), tt.zeros(2, 1)), "even last extent"),
])
def test_errors_say_what_fits(act: Callable[[], Any], says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        act()


def test_a_traced_position_beyond_the_table_is_an_index_error() -> None:
    rope = nn.RotaryEmbedding(4, max_len=5)
    for run in (rope, tt.compile(lambda x, t: rope(x, t))):
        with pytest.raises(IndexError):
            run(tt.zeros(1, 4), tt.tensor(5))
