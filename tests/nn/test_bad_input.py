"""What a user gets wrong most often: element types, sizes and options. Errors are ours, and say what to do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import DTypeError, OpError, ShapeError
from tinytorch.nn import functional as F

BILINEAR, CONV1D, LSTM = nn.Bilinear(6, 6, 2), nn.Conv1d(4, 2, 3), nn.LSTM(6, 2)
ATTENTION, GPT = nn.MultiheadAttention(6, 2), nn.GPT(nn.GPTConfig(5, 4, 1, 1, 4))
INTEGERS: dict[str, Callable[[Any], Any]] = {  # of x (2, 4, 6, 6), i64
    "linear": nn.Linear(6, 2),
    "bilinear": lambda x: BILINEAR(x, x),
    "conv1d": lambda x: CONV1D(x[..., 0]),
    "conv2d": nn.Conv2d(4, 2, 3),
    "conv_transpose2d": nn.ConvTranspose2d(4, 2, 3),
    "batch_norm": nn.BatchNorm2d(4),
    "layer_norm": nn.LayerNorm(6),
    "rms_norm": nn.RMSNorm(6),
    "group_norm": nn.GroupNorm(2, 4),
    "dropout": nn.Dropout(),
    "dropout2d": nn.Dropout2d(),
    "lstm": lambda x: LSTM(x[0]),
    "attention": lambda x: ATTENTION(*[x[0]] * 3),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "cross_entropy": lambda x: F.cross_entropy(x[0, 0], x[0, 0, :, 0]),
    "nll_loss": lambda x: F.nll_loss(x[0, 0], x[0, 0, :, 0]),
    "init": lambda x: nn.init.normal_(x),
}


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("trace", [False, True], ids=["eager", "traced"])
def test_integers_in_place_of_numbers_are_errors(name: str, trace: bool) -> None:
    """By NumPy's rules they would turn all that follows into f64."""
    x = tt.ones(2, 4, 6, 6, dtype="i64")
    with pytest.raises(DTypeError, match=r"i64.*(floating point|\.float\(\))"):
        tt.trace(INTEGERS[name], x) if trace else INTEGERS[name](x)


@pytest.mark.parametrize("function", [
    lambda x: F.embedding(x, tt.ones(3, 2)), lambda x: F.one_hot(x, 3), GPT,
])
def test_numbers_in_place_of_positions_are_errors(function: Callable[[Any], Any]) -> None:
    for run in (function, lambda x: tt.trace(function, x)):
        with pytest.raises(DTypeError, match="expected integers"):
            run(tt.ones(1, 2))


def test_lists_of_numbers_are_f32() -> None:
    """As `tt.tensor` makes them."""
    functions = [F.relu, F.leaky_relu, F.gelu, F.silu, F.sigmoid, F.tanh, F.elu, lambda x: nn.Linear(2, 2)(x)]
    assert {f([1.0, -2.0]).dtype for f in functions} == {tt.f32}


def test_labels_of_any_integer_type(rng: np.random.Generator) -> None:
    """Also of one that cannot hold ignore_index."""
    x, labels = tt.tensor(rng.standard_normal((3, 4)), "f32"), np.array([0, 3, 1])
    expected = F.cross_entropy(x, tt.tensor(labels)).item()
    for dtype in ("u8", "i8", "i32"):
        given = tt.tensor(labels, dtype)
        assert F.cross_entropy(x, given).item() == pytest.approx(expected)
        assert tt.trace(F.cross_entropy, x, given)(x.numpy(), given.numpy()) == pytest.approx(expected)


def seen(*shape: int) -> Any:
    """A mask that hides nothing."""
    return tt.zeros(*shape, dtype="bool")


X = tt.zeros(3, 2, 4)  # (time, batch, features)


@pytest.mark.parametrize(("act", "error", "says"), [
    (lambda: nn.Linear(-1, 2), ValueError, "negative"),
    (lambda: nn.Conv2d(-3, 1, 1), ValueError, "negative"),
    (lambda: nn.Conv2d(3, 1, 1.5), ShapeError, r"kernel_size=1.5: expected one number, or 2, each whole"),
    (lambda: nn.Conv2d(3, 1, (1, 1.5)), ShapeError, r"kernel_size=\(1, 1.5\)"),
    (lambda: F.max_pool1d(X, "a"), ShapeError, "kernel_size='a'"),
    (lambda: F.dropout(X, 2.0, training=False), OpError, r"dropout\(p=2.0\): expected a probability"),
    (lambda: F.dropout2d(X, -1.0), OpError, r"dropout2d\(p=-1.0\)"),
    (lambda: nn.MultiheadAttention(4, 2, dropout=2.0), OpError, r"MultiheadAttention\(dropout=2.0\)"),
    (lambda: nn.MultiheadAttention(4, 2)(X, X, X, attn_mask=seen(2, 2)), ShapeError, r"attn_mask.*\(3, 3\)"),
    (lambda: nn.MultiheadAttention(4, 2)(X, X, X, attn_mask=seen(3, 3, 3)), ShapeError, r"\(3, 3\) or \(4, 3, 3\)"),
    (lambda: nn.MultiheadAttention(4, 2)(X, X, X, seen(3, 2)), ShapeError, r"key_padding_mask.*\(2, 3\)"),
    (lambda: F.scaled_dot_product_attention(X, X, tt.zeros(2, 2, 4)), ShapeError, "attention.*do not broadcast"),
    (lambda: nn.Sequential(3), OpError, "expected modules, got int"),
])
def test_errors_name_what_is_wrong(act: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        act()


def test_pytorchs_keywords() -> None:
    layer = nn.Linear(2, 2)
    nn.init.constant_(tensor=layer.weight, val=3.0)
    layer.requires_grad_(requires_grad=False)
    layer.load_state_dict(state_dict=layer.state_dict())
    layer.register_parameter(name="scale", param=None)
    assert layer.apply(fn=lambda module: None).get_parameter(target="weight").sum().item() == 12.0


def test_cumulative_averages_are_exact_in_f64(rng: np.random.Generator) -> None:
    layer, batches = nn.BatchNorm1d(2, momentum=None).double(), rng.standard_normal((3, 5, 2))
    for batch in batches:
        layer(tt.tensor(batch))
    np.testing.assert_allclose(layer.running_mean.numpy(), batches.mean((0, 1)), rtol=1e-13)
