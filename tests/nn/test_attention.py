"""Attention: PyTorch's results and gradients for every kind of mask, grouped heads, rows that see nothing, dropout."""

import math
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
from tinytorch.nn.functional.attention import attention_weights

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


def mask(*shape: int) -> np.ndarray:
    """Random booleans, of which the first along the last axis is true: no row is without a key."""
    found = RNG.random(shape) < 0.5
    found[..., 0] = True
    return found


def infinite(allowed: np.ndarray) -> np.ndarray:
    """0 where true, -∞ elsewhere."""
    return np.where(allowed, 0, -np.inf).astype(np.float32)


Q, K, V = floats(2, 4, 5, 8), floats(2, 4, 7, 8), floats(2, 4, 7, 6)
K2, V2 = floats(2, 2, 7, 8), floats(2, 2, 7, 6)
CASES: dict[str, tuple[list[np.ndarray], dict[str, Any]]] = {
    "plain": ([Q, K, V], {}),
    "two axes": ([Q[0, 0], K[0, 0], V[0, 0]], {}),
    "three axes": ([Q[0], K[0], V[0]], {"scale": 0.3}),
    "leading axes broadcast": ([Q, K[:1], V[:1]], {}),
    "causal": ([Q, K[:, :, :5], V[:, :, :5]], {"is_causal": True}),
    "causal, more keys": ([Q, K, V], {"is_causal": True}),
    "causal, more queries": ([K, Q, V[:, :, :5]], {"is_causal": True}),
    "mask of pairs": ([Q, K, V, mask(5, 7)], {}),
    "mask of keys": ([Q, K, V, mask(2, 1, 1, 7)], {}),
    "mask of heads": ([Q, K, V, mask(4, 5, 7)], {}),
    "numbers to add": ([Q, K, V, floats(5, 7)], {}),
    "numbers to add for each head": ([Q, K, V, floats(2, 4, 5, 7)], {"scale": 1.0}),
    "infinities to add": ([Q, K, V, infinite(mask(2, 1, 1, 7))], {}),
    "grouped": ([Q, K2, V2], {"enable_gqa": True}),
    "grouped, one key head": ([Q, K2[:, :1], V2[:, :1]], {"enable_gqa": True}),
    "grouped, one axis": ([Q[0], K2[0], V2[0]], {"enable_gqa": True}),
    "grouped, as many heads": ([Q, K, V], {"enable_gqa": True, "scale": 0.5}),
    "grouped and causal": ([Q, K2[:, :, :5], V2[:, :, :5]], {"enable_gqa": True, "is_causal": True}),
    "grouped, mask of pairs": ([Q, K2, V2, mask(5, 7)], {"enable_gqa": True}),
    "grouped, mask of keys": ([Q, K2, V2, mask(2, 1, 1, 7)], {"enable_gqa": True}),
    "grouped, mask of heads": ([Q, K2, V2, mask(2, 4, 5, 7)], {"enable_gqa": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_are_pytorchs(case: str, peer: Peer) -> None:
    torch = peer("torch")
    arrays, options = CASES[case]
    ours = [tt.tensor(a, requires_grad=a.dtype == np.float32) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=a.dtype == np.float32) for a in arrays]
    y = F.scaled_dot_product_attention(*ours, **options)
    expected = torch.nn.functional.scaled_dot_product_attention(*theirs, **options)
    near(y, expected)
    weights = floats(*y.shape)
    (y * tt.tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    for p, q in zip(ours, theirs, strict=True):
        if q.grad is not None:
            near(p.grad, q.grad, 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_traced_is_eager(case: str) -> None:
    arrays, options = CASES[case]
    inputs = [tt.tensor(a) for a in arrays]
    traced = tt.trace(lambda *x: F.scaled_dot_product_attention(*x, **options), *inputs)
    near(traced(*arrays), F.scaled_dot_product_attention(*inputs, **options))


@pytest.mark.parametrize("names", [
    ["numbers to add for each head", "grouped and causal"],  # few: kernels take time to make
    pytest.param(["causal, more keys", "grouped, mask of heads"], marks=pytest.mark.slow)], ids=" and ".join)
def test_compiled_is_eager(names: list[str]) -> None:
    cases = [CASES[name] for name in names]
    inputs = [[tt.tensor(a) for a in arrays] for arrays, _ in cases]

    def all_of_them(inputs: Any) -> Any:
        return [F.scaled_dot_product_attention(*x, **options) for x, (_, options) in zip(inputs, cases, strict=True)]

    for y, expected in zip(tt.compile(all_of_them)(inputs), all_of_them(inputs), strict=True):
        near(y, expected)


def test_grouped_keys_are_not_repeated() -> None:
    graph = tt.trace(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
                     *map(tt.tensor, (Q, K2, V2)))
    assert [node.op.name for node in graph.nodes if node.op.name != "reshape"] == ["attention"]


# -- rows that see nothing ---------------------------------------------------------------------------------------------

SEEN = np.array([[True, False, True], [False, False, False], [True, True, True]])


@pytest.mark.parametrize("allowed", [SEEN, infinite(SEEN)], ids=["booleans", "infinities"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dropout_p", [0.0, 1e-9])
def test_a_query_that_sees_no_key_gives_zeros(allowed: np.ndarray, is_causal: bool, dropout_p: float) -> None:
    q, k, v = (tt.tensor(floats(2, 3, 4), requires_grad=True) for _ in range(3))
    y = F.scaled_dot_product_attention(q, k, v, tt.tensor(allowed), dropout_p, is_causal)
    assert not y.numpy()[:, 1].any() and y.numpy()[:, [0, 2]].all()
    y.square().sum().backward()
    assert not q.grad.numpy()[:, 1].any() and q.grad.numpy()[:, 2].all()
    assert all(np.isfinite(t.grad.numpy()).all() for t in (q, k, v))
    if not is_causal:  # what is there is as if the row had not been
        near(y.numpy()[:, 2], F.scaled_dot_product_attention(q[:, 2:], k, v).numpy()[:, 0])


def test_mask_and_causal_order_both_hold() -> None:
    q, k, v = (tt.tensor(floats(3, 4)) for _ in range(3))
    both = tt.tensor(SEEN & np.tri(3, dtype=bool))
    expected = F.scaled_dot_product_attention(q, k, v, both)
    for allowed in (SEEN, infinite(SEEN)):
        near(F.scaled_dot_product_attention(q, k, v, tt.tensor(allowed), is_causal=True), expected)
        near(attention_weights(q, k, tt.tensor(allowed), True) @ v, expected)


# -- dropout -----------------------------------------------------------------------------------------------------------


def test_dropped_weights_are_the_same_eager_and_compiled() -> None:
    q, k, v = (tt.tensor(floats(2, 2, 6, 4)) for _ in range(3))

    def drop(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5, is_causal=True)

    fast = tt.compile(drop)
    tt.manual_seed(1)
    first, second = drop(q, k, v), drop(q, k, v)
    tt.manual_seed(1)
    near(fast(q, k, v), first)
    near(fast(q, k, v), second)
    assert not np.allclose(first.numpy(), second.numpy())


def test_dropout_keeps_the_mean() -> None:
    k = tt.zeros(10_000, 1)
    y = F.scaled_dot_product_attention(tt.zeros(1, 1), k, k + 1, dropout_p=0.25)
    assert abs(y.item() - 1) < 0.03 and y.item() != 1
    assert F.scaled_dot_product_attention(tt.zeros(1, 1), k, k + 1, dropout_p=1.0).item() == 0


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shapes", "options", "says"), [
    ([(5,), (5,), (5,)], {}, "time, head_dim"),
    ([(5, 4), (7, 3), (7, 3)], {}, "agree in their last extent"),
    ([(5, 4), (7, 4), (6, 4)], {}, "the one before"),
    ([(5, 4), (7, 4), (7, 4), (5, 6)], {}, "does not broadcast"),
    ([(5, 4), (7, 4), (7, 4), (3, 5, 7)], {}, "does not broadcast"),
    ([(4, 5, 4), (3, 7, 4), (3, 7, 4)], {"enable_gqa": True}, "divide the query's 4"),
    ([(4, 5, 4), (2, 7, 4), (4, 7, 4)], {"enable_gqa": True}, "as many"),
    ([(4, 5, 4), (7, 4), (7, 4)], {"enable_gqa": True}, "axis -3"),
    ([(5, 4), (7, 4), (7, 4)], {"dropout_p": 1.5}, "probability"),
])
def test_errors_say_what_fits(shapes: list[tuple[int, ...]], options: dict[str, Any], says: str) -> None:
    with pytest.raises((ShapeError, OpError), match=says):
        F.scaled_dot_product_attention(*map(tt.zeros, shapes), **options)


def test_a_mask_of_integers_is_an_error() -> None:
    with pytest.raises(OpError, match=r"mask.bool\(\)"):
        F.scaled_dot_product_attention(*[tt.zeros(3, 4)] * 3, attn_mask=tt.ones(3, 3, dtype="i64"))


# -- the module --------------------------------------------------------------------------------------------------------


def called(make: Callable[[Any], Any], call: Callable[..., Any]) -> Callable[[Any], Any]:
    """A maker of a module that calls another one in some way."""

    def wrap(lib: Any) -> Any:
        class Called(lib.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = make(lib)

            def forward(self, *inputs: Any) -> Any:
                return call(self.inner, *inputs)

        return Called()

    return wrap


X, Y, Z = floats(5, 3, 8), floats(7, 3, 8), floats(7, 3, 8)  # (time, batch, features)
PADDING = ~mask(3, 7)
MODULES: dict[str, tuple[Callable[[Any], Any], Callable[..., Any], list[np.ndarray]]] = {
    "self": (lambda m: m.MultiheadAttention(8, 2), lambda a, x: a(x, x, x), [X]),
    "self, no weights": (lambda m: m.MultiheadAttention(8, 2, batch_first=True),
                         lambda a, x: a(x, x, x, need_weights=False), [X]),
    "cross": (lambda m: m.MultiheadAttention(8, 2, batch_first=True), lambda a, x, y: a(x, y, y),
              [X.swapaxes(0, 1), Y.swapaxes(0, 1)]),
    "all different": (lambda m: m.MultiheadAttention(8, 2, bias=False), lambda a, *t: a(*t), [X, Y, Z]),
    "other widths": (lambda m: m.MultiheadAttention(8, 4, kdim=3, vdim=5),
                     lambda a, *t: a(*t, average_attn_weights=False), [X, floats(7, 3, 3), floats(7, 3, 5)]),
    "no batch": (lambda m: m.MultiheadAttention(8, 2, batch_first=True), lambda a, *t: a(*t),
                 [X[:, 0], Y[:, 0], Z[:, 0]]),
    "no batch, each head": (lambda m: m.MultiheadAttention(8, 2),
                            lambda a, *t: a(*t[:3], key_padding_mask=t[3], average_attn_weights=False),
                            [X[:, 0], Y[:, 0], Z[:, 0], PADDING[0]]),
    "padding": (lambda m: m.MultiheadAttention(8, 2), lambda a, *t: a(*t), [X, Y, Z, PADDING]),
    "mask of pairs": (lambda m: m.MultiheadAttention(8, 2), lambda a, *t: a(*t[:3], attn_mask=t[3], need_weights=False),
                      [X, Y, Z, ~mask(5, 7)]),
    "mask of heads and padding": (lambda m: m.MultiheadAttention(8, 2), lambda a, *t: a(*t[:4], True, t[4]),
                                  [X, Y, Z, PADDING, ~mask(6, 5, 7) & ~PADDING.repeat(2, 0)[:, None]]),
    "numbers and padding": (lambda m: m.MultiheadAttention(8, 2), lambda a, *t: a(*t[:4], False, t[4]),
                            [X, Y, Z, infinite(~PADDING), floats(5, 7)]),
    "more keys": (lambda m: m.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True),
                  lambda a, *t: a(*t[:4], True, t[4]), [X, Y, Z, PADDING, ~mask(5, 7)]),
    "more keys, no mask": (lambda m: m.MultiheadAttention(8, 2, add_zero_attn=True), lambda a, *t: a(*t), [X, Y, Z]),
}


@pytest.mark.parametrize("case", MODULES)
def test_the_module_is_pytorchs(case: str, peer: Peer) -> None:
    make, call, inputs = MODULES[case]
    torch = peer("torch")
    torch.manual_seed(0)
    check_module(called(make, call), inputs, torch, same_repr=False, compiled=False, tolerance=1e-4)


@pytest.mark.parametrize("names", [
    ["mask of heads and padding"], pytest.param(["self, no weights", "more keys"], marks=pytest.mark.slow)],
    ids=" and ".join)
def test_the_module_compiled_is_eager(names: list[str]) -> None:
    cases = [MODULES[name] for name in names]
    inputs = [[tt.tensor(x) for x in arrays] for _, _, arrays in cases]
    group = nn.ModuleList(called(make, call)(nn) for make, call, _ in cases)

    def run(inputs: Any) -> Any:
        return [y for module, x in zip(group, inputs, strict=True) for y in module(*x) if y is not None]

    for y, expected in zip(tt.compile(run)(inputs), run(inputs), strict=True):
        near(y, expected)


def test_it_begins_as_pytorchs() -> None:
    attention = nn.MultiheadAttention(64, 4)
    assert not attention.in_proj_bias.numpy().any() and not attention.out_proj.bias.numpy().any()
    bound = math.sqrt(6 / (64 + 3 * 64))
    weight = attention.in_proj_weight.numpy()
    assert bound * 0.99 < np.abs(weight).max() < bound
    assert nn.MultiHeadAttention is nn.MultiheadAttention


@pytest.mark.parametrize("need_weights", [False, True])
def test_grouped_heads_are_repeated_ones(need_weights: bool) -> None:
    few, many = nn.MultiheadAttention(8, 4, num_kv_heads=2), nn.MultiheadAttention(8, 4)
    assert few.in_proj_weight.shape == (8 + 4 + 4, 8) and few.in_proj_bias.shape == (16,)
    x = tt.tensor(X)
    state = {}
    for name in ("in_proj_weight", "in_proj_bias"):
        q, k, v = np.split(few.state_dict()[name].numpy(), [8, 12])
        state[name] = np.concatenate(
            [q, *(t.reshape(2, 1, 2, -1).repeat(2, 1).reshape(8, *t.shape[1:]) for t in (k, v))])
    many.load_state_dict({**few.state_dict(), **state})
    for a, b in zip(few(x, x, x, need_weights=need_weights), many(x, x, x), strict=True):
        assert a is None or near(a, b) is None


def test_masks_of_both_kinds_keep_the_element_type() -> None:
    attention, x = nn.MultiheadAttention(8, 2, dtype="f16"), tt.tensor(X).to("f16")
    y, weights = attention(x, x, x, tt.tensor(PADDING[:, :5]), True, tt.zeros(5, 5, dtype="f16"))
    assert y.dtype.name == weights.dtype.name == "f16"


def test_causal_needs_no_mask() -> None:
    attention, x = nn.MultiheadAttention(8, 2), tt.tensor(X)
    later = tt.tensor(~np.tri(5, dtype=bool))
    for a, b in zip(attention(x, x, x, is_causal=True), attention(x, x, x, attn_mask=later), strict=True):
        near(a, b)


def test_a_row_of_padding_gives_the_bias_alone() -> None:
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), tt.tensor(X)
    padding = tt.tensor(np.array([[True] * 3] + [[False, True, False]] * 4))
    for need_weights in (True, False):
        y, weights = attention(x, x, x, padding, need_weights)
        near(y.numpy()[0], np.broadcast_to(attention.out_proj.bias.numpy(), (3, 8)))
        assert weights is None or (not weights.numpy()[0].any() and not weights.numpy()[1:, :, 1].any())
    y.sum().backward()
    assert np.isfinite(attention.in_proj_weight.grad.numpy()).all()


def test_dropout_is_of_training_only() -> None:
    attention, x = nn.MultiheadAttention(8, 2, dropout=0.5), tt.tensor(X)
    fast = tt.compile(lambda x: attention(x, x, x))
    tt.manual_seed(3)
    y, weights = attention(x, x, x, average_attn_weights=False)
    assert 0.3 < (weights.numpy() == 0).mean() < 0.7
    tt.manual_seed(3)
    near(fast(x)[0], y)
    attention.eval()
    near(attention(x, x, x)[0], attention(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize(("act", "says"), [
    (lambda: nn.MultiheadAttention(10, 4), "10 features do not split into 4 heads"),
    (lambda: nn.MultiheadAttention(8, 4, num_kv_heads=3), "4 query heads do not split into 3"),
    (lambda: nn.MultiheadAttention(8, 2)(*[tt.zeros(8)] * 3), "time"),
    (lambda: nn.MultiheadAttention(8, 2)(tt.zeros(5, 3, 8), tt.zeros(7, 8), tt.zeros(7, 8)), "of all three"),
    (lambda: nn.MultiheadAttention(8, 2)(*[tt.zeros(5, 3, 7)] * 3), r"last extents \(8, 8, 8\)"),
    (lambda: nn.MultiheadAttention(8, 2)(tt.zeros(5, 3, 8), tt.zeros(5, 2, 8), tt.zeros(5, 2, 8)), "batches differ"),
    (lambda: nn.MultiheadAttention(8, 2)(*[tt.zeros(5, 3, 8)] * 3, tt.zeros(3, 5, dtype="i64")), r"mask.bool\(\)"),
    (lambda: nn.MultiheadAttention(8, 2)(*[tt.zeros(5, 3, 8)] * 3, attn_mask=tt.zeros(4, 4)), "attn_mask is"),
    (lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True)(*[tt.zeros(5, 3, 8)] * 3, is_causal=True), "attn_mask"),
])
def test_the_modules_errors_say_what_fits(act: Callable[[], Any], says: str) -> None:
    with pytest.raises((ShapeError, OpError), match=says):
        act()
