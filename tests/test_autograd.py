"""Eager gradients: what is recorded, when it may be used again, hooks, overwriting, functions that give gradients."""

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.ir.errors import GradientError
from tinytorch.nn import functional as F


def leaf(*numbers: float) -> tt.Tensor:
    """A tensor to differentiate by."""
    return tt.tensor(list(numbers), "f32", requires_grad=True)


def near(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal numbers, within rounding."""
    np.testing.assert_allclose(np.asarray(actual.numpy()), expected, rtol=tolerance, atol=tolerance)


# -- backward ----------------------------------------------------------------------------------------------------------


def test_gradients_accumulate() -> None:
    x = leaf(1, 2)
    (x * x).sum().backward()
    near(x.grad, [2, 4])
    (x * 3).sum().backward()
    near(x.grad, [5, 7])
    y = x * 2
    (y * y + y).sum().backward()  # y is used twice
    near(x.grad, [5 + 8 + 2, 7 + 16 + 2])


def test_broadcast_operands_get_sums() -> None:
    x, b, s = tt.ones(2, 3, requires_grad=True), leaf(1, 2, 3), tt.tensor(2.0, requires_grad=True)
    ((x + b) * s).sum().backward()
    assert (x.grad.shape, b.grad.shape, s.grad.shape) == ((2, 3), (3,), ())
    near(b.grad, [4, 4, 4])
    near(s.grad, 18)


def test_dtypes_of_gradients_are_the_tensors() -> None:
    x, y = tt.tensor([1.0], "f64", requires_grad=True), tt.tensor([2.0], requires_grad=True)
    (x * y * tt.tensor([3])).sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (tt.f64, tt.f32)


def test_a_leaf_itself() -> None:
    x = tt.tensor(3.0, requires_grad=True)
    x.backward()
    near(x.grad, 1)


def test_a_gradient_to_start_from() -> None:
    x = leaf(1, 2)
    (x * x).backward(tt.tensor([1.0, 10.0]))
    near(x.grad, [2, 40])
    with pytest.raises(GradientError, match="shapes must agree"):
        (x * x).backward(tt.ones(3))
    with pytest.raises(GradientError, match="one number"):
        (x * x).backward()


def test_nothing_recorded() -> None:
    with pytest.raises(GradientError, match="nothing recorded"):
        tt.ones(1).backward()
    with tt.no_grad():
        y = leaf(1).sum()
    with pytest.raises(GradientError, match="nothing recorded"):
        y.backward()
    assert not (tt.tensor([1, 2]) + (leaf(1, 2) > 0)).requires_grad


def test_second_backward() -> None:
    x = leaf(1, 2)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    near(x.grad, [4, 8])
    with pytest.raises(GradientError, match="retain_graph=True"):
        y.backward()


def test_a_deep_chain_does_not_recurse() -> None:
    x = y = tt.tensor(1.0, requires_grad=True)
    for _ in range(5000):
        y = y + 1e-3
    y.backward()
    near(x.grad, 1)


def test_second_order_by_create_graph() -> None:
    x = leaf(1, 2)
    (x**3).sum().backward(create_graph=True)
    first = x.grad
    x.grad = None
    (first * first).sum().backward()  # d (3x²)² = 36 x³
    near(x.grad, [36, 36 * 8])


def test_inputs_that_need_none_get_none() -> None:
    x, w, b = tt.rand(4, 3), tt.rand(2, 3, requires_grad=True), leaf(0, 0)
    F.linear(x, w, b).sum().backward()
    (x @ w.T).sum().backward()
    assert x.grad is None
    near(w.grad, np.tile(2 * x.numpy().sum(0), (2, 1)))


# -- recording or not --------------------------------------------------------------------------------------------------


def test_no_grad_nests_and_decorates() -> None:
    x = leaf(1)
    with tt.no_grad():
        assert not (x * 2).requires_grad and not tt.is_grad_enabled()
        with tt.enable_grad():
            assert (x * 2).requires_grad
            with tt.no_grad():
                assert not tt.is_grad_enabled()
        assert not tt.is_grad_enabled()
    assert tt.is_grad_enabled()

    @tt.no_grad()
    def countdown(n: int) -> bool:
        """Doc."""
        return bool(countdown(n - 1) if n else (x * 2).requires_grad)

    assert countdown(3) is False and countdown.__doc__ == "Doc." and tt.is_grad_enabled()
    with pytest.raises(KeyError), tt.no_grad():
        raise KeyError
    assert tt.is_grad_enabled()


def test_recording_is_each_threads_own() -> None:
    seen = []
    switch = tt.no_grad()
    with switch:
        thread = threading.Thread(target=lambda: seen.append(tt.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_differentiate_side_by_side() -> None:
    results: list[float] = []

    def work(n: int) -> None:
        x = tt.tensor(float(n), requires_grad=True)
        for _ in range(50):
            x.grad = None
            (x * x).backward()
        results.append(x.grad.item() - 2 * n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0.0] * 4


def test_detach_stops_the_gradient() -> None:
    x = leaf(2)
    (x * (x * x).detach()).sum().backward()
    near(x.grad, [4])
    assert x.is_leaf and not (x * 2).is_leaf and not x.detach().requires_grad
    assert np.shares_memory(x.detach().numpy(), x.numpy())


def test_clone_copies_and_passes_gradients() -> None:
    x = leaf(2, 3)
    y = x.clone()
    assert not np.shares_memory(x.numpy(), y.numpy())
    (y * y).sum().backward()
    near(x.grad, [4, 6])
    assert tt.tensor([True]).clone().dtype is tt.bool_


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_hooks_see_replace_and_leave() -> None:
    x = leaf(1, 2)
    seen: list[Any] = []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.tolist()))
    remove = y.register_hook(lambda g: g * 10)
    (y * y).sum().backward(retain_graph=True)
    assert seen == [[4, 8]]
    near(x.grad, [80, 160])
    remove()
    x.grad = None
    (y * 3).sum().backward()
    near(x.grad, [6, 6])


def test_a_hook_sees_the_complete_gradient_once() -> None:
    x = leaf(1)
    calls: list[Any] = []
    x.register_hook(lambda g: calls.append(g.tolist()))
    (x * 2 + x * 3).sum().backward()
    assert calls == [[5]]
    near(x.grad, [5])


def test_a_hook_on_a_leaf_replaces() -> None:
    x = leaf(1)
    x.register_hook(lambda g: g * 0)
    x.sum().backward()
    near(x.grad, [0])
    with pytest.raises(GradientError, match="does not require"):
        tt.ones(1).register_hook(lambda g: g)


def test_retain_grad_keeps_what_lies_between() -> None:
    x = leaf(1, 2)
    y = (x * 3).retain_grad()
    (y * y).sum().backward()
    near(y.grad, [6, 12])
    near(x.grad, [18, 36])
    z = x * 3
    z.sum().backward()
    assert z.grad is None


# -- overwriting -------------------------------------------------------------------------------------------------------


def test_overwritten_numbers_that_are_needed() -> None:
    w, x = leaf(1, 2), tt.tensor([3.0, 4.0])
    loss = (w * w * x).sum()
    with tt.no_grad():
        w.copy_(w - 0.1)
    with pytest.raises(GradientError, match="overwritten in place"):
        loss.backward()


def test_an_overwritten_input_is_noticed_too() -> None:
    w, x = leaf(1, 2), tt.tensor([3.0, 4.0])
    loss = (w * x).sum()
    x.add_(1)
    with pytest.raises(GradientError, match=r"f32\[2\].*overwritten"):
        loss.backward()


def test_overwritten_numbers_that_are_not_needed() -> None:
    w, x = leaf(1, 2), tt.tensor([3.0, 4.0])
    loss = (w + x).sum() + (w * 2).sum()
    with tt.no_grad():
        w.zero_()
    x.zero_()
    loss.backward()
    near(w.grad, [3, 3])


def test_a_step_between_forward_and_backward() -> None:
    model = tt.nn.Sequential(tt.nn.Linear(3, 4), tt.nn.Tanh(), tt.nn.Linear(4, 1))
    opt = tt.optim.SGD(model.parameters(), lr=0.1)
    x = tt.rand(5, 3)
    model(x).sum().backward()
    late = model(x).sum()
    opt.step()
    with pytest.raises(GradientError, match="overwritten in place"):
        late.backward()
    model(x).sum().backward()  # a fresh forward is fine


def test_second_order_notices_overwriting() -> None:
    x, scale, c = leaf(1, 2), tt.tensor(5.0, requires_grad=True), tt.tensor([3.0, 4.0])
    ((x * c).sum() * scale).backward(create_graph=True)
    c.add_(1)
    with pytest.raises(GradientError, match="overwritten"):
        x.grad.sum().backward()  # scale · c, made while backward ran


# -- functions that give gradients -------------------------------------------------------------------------------------


def test_grad_of_nested_containers() -> None:
    def loss(params: dict[str, Any], scale: float) -> tt.Tensor:
        return (params["w"] * params["rest"][0]).sum() * scale

    params: dict[str, Any] = {"w": tt.tensor([1.0, 2.0]), "rest": (tt.tensor([3.0, 4.0]), [tt.tensor(5.0)])}
    found = tt.grad(loss)(params, 2.0)
    near(found["w"], [6, 8])
    near(found["rest"][0], [2, 4])
    near(found["rest"][1][0], 0)
    assert params["w"].grad is None and not params["w"].requires_grad


def test_argnums_and_aux() -> None:
    def f(x: tt.Tensor, y: tt.Tensor) -> Any:
        return (x * y).sum(), {"twice": x * 2}

    x, y = tt.tensor([1.0]), tt.tensor([5.0])
    (value, aux), (gx, gy) = tt.value_and_grad(f, argnums=(0, 1), has_aux=True)(x, y)
    near(value, 5)
    near(aux["twice"], [2])
    near(gx, [5])
    near(gy, [1])
    near(tt.grad(lambda x, y: f(x, y)[0], argnums=1)(x, y), [1])
    gradient, aux = tt.grad(f, has_aux=True)(x, y)
    near(gradient, [5])


class Point(NamedTuple):
    """A container of one's own."""

    x: Any
    y: Any


def test_grad_keeps_the_container() -> None:
    found = tt.grad(lambda p: p.x * p.y)(Point(tt.tensor(2.0), tt.tensor(3.0)))
    assert isinstance(found, Point) and (found.x.item(), found.y.item()) == (3, 2)


ANALYTIC: list[tuple[Callable[[Any], Any], list[Callable[[float], float]]]] = [
    (lambda x: x**4, [lambda x: 4 * x**3, lambda x: 12 * x**2, lambda x: 24 * x]),
    (lambda x: x.exp(), [math.exp] * 3),
    (lambda x: x.sin(), [math.cos, lambda x: -math.sin(x), lambda x: -math.cos(x)]),
    (lambda x: x.log(), [lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3]),
    (lambda x: 1 / x, [lambda x: -1 / x**2, lambda x: 2 / x**3, lambda x: -6 / x**4]),
    (lambda x: x * x.detach(), [lambda x: x, lambda x: 0, lambda x: 0]),
]


@pytest.mark.parametrize("number", range(len(ANALYTIC)))
def test_gradients_of_gradients(number: int) -> None:
    function, derivatives = ANALYTIC[number]
    for derivative in derivatives:
        function = tt.grad(function)
        near(function(tt.tensor(0.7, "f64")), derivative(0.7), 1e-9)


def test_grad_inside_backward_and_the_other_way_round() -> None:
    x = tt.tensor(2.0, requires_grad=True)
    tt.grad(lambda t: t**3)(x).backward()  # d 3x²
    near(x.grad, 12)

    def by_tape(t: tt.Tensor) -> tt.Tensor:
        inner = t.detach().requires_grad_()
        (inner**3).backward()
        return inner.grad * t

    near(tt.grad(by_tape)(tt.tensor(2.0)), 12)


def test_a_hessian() -> None:
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    gradient = tt.grad(lambda x: (x @ tt.tensor(a) @ x) * 0.5)
    rows = [tt.grad(lambda x, i=i: gradient(x)[i])(tt.tensor([0.3, 0.4], "f64")) for i in range(2)]
    near(tt.stack(rows), a)


def test_grad_of_what_cannot_be() -> None:
    for function, x, words in [(lambda x: x * 2, tt.ones(2), "one floating point number"),
                               (lambda x: 3.0, tt.ones(2), "it returned float"),
                               (lambda x: x.sum(), tt.tensor([1]), "only floating point")]:  # fmt: skip
        with pytest.raises(GradientError, match=words):
            tt.grad(function)(x)
    near(tt.grad(lambda x: tt.tensor(1.0, requires_grad=True) * 2)(tt.ones(2)), [0, 0])


def test_gradients_trace() -> None:
    def gradient(x: tt.Tensor) -> Any:
        return tt.grad(lambda t: (t.tanh() ** 2).sum())(x)

    x = np.linspace(-1, 1, 5, dtype=np.float32)
    graph = tt.trace(gradient, tt.tensor(x))
    t = np.tanh(x)
    np.testing.assert_allclose(graph(x), 2 * t * (1 - t * t), rtol=1e-5, atol=1e-6)


def test_grad_of_a_grad_that_closes_over_the_outer_variable() -> None:
    x, w = tt.tensor([2.0, 3.0]), tt.tensor([5.0, 7.0])
    mixed = tt.grad(lambda x: tt.grad(lambda w: (x * w * w).sum())(w).sum())
    np.testing.assert_array_equal(mixed(x), 2 * w.numpy())
    np.testing.assert_array_equal(tt.compile(mixed)(x), 2 * w.numpy())
    third = tt.grad(lambda x: tt.grad(lambda y: tt.grad(lambda z: (x * y * z * z).sum())(w).sum())(w).sum())
    np.testing.assert_array_equal(third(x), 2 * w.numpy())
