"""Gradient clipping: beside PyTorch's, with gradients that are absent, shared, zero or not finite, and in traces."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import optim
from tinytorch.ir.errors import GradientError, OpError, TracingError

Peer = Callable[[str], ModuleType]
INF, NAN = math.inf, math.nan
SHAPES = [(3, 4), (5,), (), (0,)]
GRADS: dict[str, list[Any]] = {
    "random": [np.random.default_rng(7).normal(size=shape).astype(np.float32) for shape in SHAPES],
    "small": [np.full(shape, 1e-3, np.float32) for shape in SHAPES],
    "zero": [np.zeros(shape, np.float32) for shape in SHAPES],
    "absent": [None, np.arange(5, dtype=np.float32), None, None],
    "none at all": [None] * 4,
    "nan": [np.ones((3, 4), np.float32), np.array([1, NAN, 1, 1, 1], np.float32), None, None],
    "infinite": [np.ones((3, 4), np.float32), np.array([1, -INF, 1, 1, 1], np.float32), None, None],
}
every_gradient = pytest.mark.parametrize("name", GRADS)


def mine(name: str, dtype: Any = np.float32) -> list[Any]:
    """Parameters with these gradients."""
    parameters = [tt.tensor(np.zeros(shape, dtype)).requires_grad_() for shape in SHAPES]
    for p, grad in zip(parameters, GRADS[name], strict=True):
        p.grad = None if grad is None else tt.tensor(grad.astype(dtype))
    return parameters


def theirs(torch: Any, name: str) -> list[Any]:
    """The same in PyTorch."""
    parameters = [torch.zeros(shape, requires_grad=True) for shape in SHAPES]
    for p, grad in zip(parameters, GRADS[name], strict=True):
        p.grad = None if grad is None else torch.tensor(grad)
    return parameters


def same_grads(ours: list[Any], others: list[Any]) -> None:
    """Equal gradients, within rounding."""
    for p, q in zip(ours, others, strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


@every_gradient
@pytest.mark.parametrize("order", [2.0, 1, 3.5, INF])
@pytest.mark.filterwarnings("ignore:invalid value")  # 0 · inf, as in PyTorch
def test_norms_are_pytorchs(name: str, order: float, peer: Peer) -> None:
    torch = peer("torch")
    for most in (0.5, 100.0, 0.0):
        ours, others = mine(name), theirs(torch, name)
        if order == INF:  # PyTorch has no greatest of nothing
            ours, others = ours[:3], others[:3]
        norm = optim.clip_grad_norm_((p for p in ours), most, order)
        expected = torch.nn.utils.clip_grad_norm_(others, most, order)
        np.testing.assert_allclose(norm.numpy(), expected.numpy(), rtol=1e-6)
        assert norm.shape == () and not norm.requires_grad
        same_grads(ours, others)


@every_gradient
def test_values_are_pytorchs(name: str, peer: Peer) -> None:
    torch = peer("torch")
    for most in (0.5, 0):
        ours, others = mine(name), theirs(torch, name)
        assert optim.clip_grad_value_(ours, most) is None
        if name != "none at all":  # of which PyTorch makes an obscure error
            torch.nn.utils.clip_grad_value_(others, most)
        same_grads(ours, others)


def test_one_tensor_may_stand_for_itself() -> None:
    p = mine("random")[1]
    norm = float(np.linalg.norm(p.grad.numpy()))
    assert optim.clip_grad_norm_(p, norm / 4).item() == pytest.approx(norm)
    assert np.linalg.norm(p.grad.numpy()) == pytest.approx(norm / 4, rel=1e-5)
    optim.clip_grad_value_(p, 1e-3)
    assert np.abs(p.grad.numpy()).max() == pytest.approx(1e-3)


def test_shared_gradients_are_clipped_once() -> None:
    a, b = (tt.ones(3, requires_grad=True) for _ in range(2))
    (a + b).sum().backward()
    assert optim.clip_grad_norm_([a, b], 1.0).item() == pytest.approx(math.sqrt(6))
    for p in (a, b):
        np.testing.assert_allclose(p.grad.numpy(), 1 / math.sqrt(6), rtol=1e-5)  # type: ignore[union-attr]


def test_element_types_stay_and_norms_do_not_overflow() -> None:
    for dtype, total in ((tt.f16, tt.f32), (tt.bf16, tt.f32), (tt.f64, tt.f64)):
        p = tt.zeros(4, dtype=dtype, requires_grad=True)
        p.grad = tt.full((4,), 3e4, dtype=dtype)
        norm = optim.clip_grad_norm_([p], 2.0)
        assert norm.dtype is total and norm.item() == pytest.approx(6e4, rel=5e-3)
        assert p.grad is not None and p.grad.dtype is dtype
        np.testing.assert_allclose(p.grad.numpy().astype("f8"), 1.0, rtol=5e-3)


@pytest.mark.parametrize("name", ["nan", "infinite"])
def test_a_norm_that_is_not_finite_may_be_an_error(name: str) -> None:
    parameters = mine(name)
    with pytest.raises(GradientError, match=r"of order 2.0 of the gradients is (nan|inf), no gradient was changed"):
        optim.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert (parameters[0].grad.numpy() == 1).all()
    assert optim.clip_grad_norm_(mine("random"), 1.0, error_if_nonfinite=True).item() > 0


def test_wrong_arguments_say_what_is_wrong() -> None:
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: optim.clip_grad_norm_(mine("random"), -1.0), "max_norm=-1.0"),
        (lambda: optim.clip_grad_norm_(mine("random"), NAN), "max_norm=nan"),
        (lambda: optim.clip_grad_norm_(mine("random"), 1.0, 0), "norm_type=0"),
        (lambda: optim.clip_grad_value_(mine("random"), -0.1), "clip_value=-0.1"),
    ]
    for call, words in cases:
        with pytest.raises(OpError, match=words):
            call()


# -- in traces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [
    lambda ps, most: optim.clip_grad_norm_(ps, most),
    lambda ps, most: optim.clip_grad_norm_(ps, most, INF),
    lambda ps, most: (optim.clip_grad_value_(ps, 0.3), optim.clip_grad_norm_(ps, 0.9))[1],
], ids=["norm", "greatest", "value"])
def test_a_compiled_step_clips_as_eager_code_does(clip: Callable[[Any, Any], Any]) -> None:
    x = tt.tensor(GRADS["random"][0])
    starts = [np.ones((4, 2), np.float32), np.ones(2, np.float32)]
    models = [[tt.tensor(start, requires_grad=True) for start in starts] for _ in range(2)]
    spare = tt.ones(2, requires_grad=True)  # never has a gradient
    opts = [optim.SGD(model, lr=0.3) for model in models]

    def steps(number: int) -> Callable[[Any, Any], Any]:
        model, opt = models[number], opts[number]

        def step(x: Any, most: Any) -> Any:
            opt.zero_grad()
            ((x @ model[0] + model[1]) ** 2).sum().backward()
            norm = clip([*model, spare], most)
            opt.step()
            return norm

        return step

    eager, fast = steps(0), tt.compile(steps(1))
    for most in (0.5, 0.25, 1e9):  # a float argument is an input
        assert fast(x, most).item() == pytest.approx(eager(x, tt.tensor(most)).item(), rel=1e-5)
        for p, q in zip(*models, strict=True):
            np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)
    assert sum(map(len, fast.entries.values())) == 1


def test_a_compiled_function_may_clip_and_nothing_else() -> None:
    a, b = (tt.ones(3, requires_grad=True) for _ in range(2))
    clip = tt.compile(lambda: optim.clip_grad_norm_([a, b], 1.0))
    (a + b * 2).sum().backward()
    before = a.grad
    norm = math.sqrt(15)
    assert clip().item() == pytest.approx(norm)
    for p, size in ((a, 1), (b, 2)):
        np.testing.assert_allclose(p.grad.numpy(), size / norm, rtol=1e-5)  # type: ignore[union-attr]
    assert before is not None and (before.numpy() == 1).all()


def test_numbers_are_not_known_in_a_trace() -> None:
    a = tt.ones(3, requires_grad=True)
    a.sum().backward()
    with pytest.raises(TracingError, match="return the norm and look at it outside"):
        tt.compile(lambda: optim.clip_grad_norm_([a], 1.0, error_if_nonfinite=True))()
