"""`tt.compile`: eager, traced, compiled, and compiled with every pass off agree, on all the shapes a call can have."""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.frontends.tree import flatten
from tinytorch.ir import ops
from tinytorch.ir.errors import ShapeError, TracingError
from tinytorch.nn import functional as F
from tinytorch.runtime import build

Array = np.ndarray


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Random numbers, the same in every run."""
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


def plain(result: Any) -> list[Any]:
    """The leaves of a result, as arrays where they are tensors."""
    return [leaf.numpy() if isinstance(leaf, tt.Tensor) else leaf for leaf in flatten(result)[0]]


def agree(function: Callable[..., Any], *args: Any, tolerance: float = 2e-6, **kwargs: Any) -> Any:
    """Fail unless all ways of calling `function` give the same; gives the compiled function."""
    expected = function(*args, **kwargs)
    fast = tt.compile(function)
    for way in (fast, fast, tt.compile(function, pipeline="none"), tt.compile(function, threads=1)):
        found = way(*args, **kwargs)
        assert flatten(found)[1] == flatten(expected)[1], "another structure"
        for a, b in zip(plain(found), plain(expected), strict=True):
            if isinstance(b, str):
                assert a == b
                continue
            assert np.asarray(a).dtype == np.asarray(b).dtype and np.shape(a) == np.shape(b)
            np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), tolerance, tolerance)
    return fast


# -- what goes in and out ----------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A container of users' own."""

    left: Any
    right: Any


def test_nested_containers() -> None:
    def function(batch: dict[str, Any], pair: Pair) -> Any:
        x, (y, none) = batch["x"], batch["more"]
        assert none is None
        return {"sum": x + y, "rest": [Pair(pair.left * 2, (x, None)), "static", 3], "pair": pair}

    nested = {"x": tt.tensor(numbers(2, 3)), "more": (tt.tensor(numbers(3)), None)}
    agree(function, nested, Pair(tt.tensor(numbers(2)), tt.tensor([1, 2])))


def test_keywords_static_arguments_and_floats() -> None:
    def function(x: Any, *, scale: float = 1.0, times: int = 1, mode: str = "add") -> Any:
        for _ in range(times):
            x = x * scale + 1 if mode == "add" else x - scale
        return x

    x = tt.tensor(numbers(4))
    fast = agree(function, x, scale=0.5, times=3, mode="add")
    assert len(fast.entries) == 1
    for scale, times, mode, programs in (0.25, 3, "add", 1), (0.5, 1, "sub", 2):
        result, expected = (f(x, scale=scale, times=times, mode=mode).numpy() for f in (fast, function))
        np.testing.assert_allclose(result, expected, 1e-6)
        assert len(fast.entries) == programs, "a float is an input: another one needs no other program"


def test_static_arguments_by_name_and_position() -> None:
    def function(x: Any, power: float) -> Any:
        return x * 2 if power == 1.0 else x * x

    x = tt.tensor(numbers(3))
    for static in ([1], ["power"]):
        fast = tt.compile(function, static=static)
        np.testing.assert_array_equal(fast(x, 1.0).numpy(), (x * 2).numpy())
        np.testing.assert_array_equal(fast(x, 2.0).numpy(), (x * x).numpy())
    with pytest.raises(TracingError):
        tt.compile(function)(x, 1.0)


def test_unhashable_arguments_are_refused() -> None:
    with pytest.raises(TracingError, match="set"):
        tt.compile(lambda x, y: x)(tt.tensor([1.0]), {1, 2})


def test_modules_and_closures() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 2))
    scale = tt.tensor(numbers(2))
    agree(model, tt.tensor(numbers(5, 3)))
    fast = agree(lambda x: model(x) * scale, tt.tensor(numbers(5, 3)))
    with tt.no_grad():
        scale.copy_(scale * 3)
        model[0].weight.copy_(model[0].weight * 2)
    x = tt.tensor(numbers(5, 3))
    np.testing.assert_allclose(fast(x).numpy(), (model(x) * scale).numpy(), 1e-5, 1e-6)  # read anew at each call


def test_compiled_inside_compiled() -> None:
    inner = tt.compile(lambda x: x.exp() * 2)
    agree(lambda x: inner(x) + inner(x * 0.5), tt.tensor(numbers(3)))


def test_results_that_are_inputs_views_constants_and_repeated() -> None:
    constant = np.array([1.0, 2.0], np.float32)

    def function(x: Any) -> Any:
        y = x * 2
        return x, x.reshape(6), x.T, y, y, y.T, x[1:, ::2], tt.tensor(constant), y[0], x.sum() * 0 + 1.5

    x = tt.tensor(numbers(2, 3))
    results = agree(function, x)(x)
    for i, a in enumerate(results):
        assert not np.shares_memory(a.numpy(), x.numpy()), f"result {i} is the argument's memory"
        assert a.numpy().flags.c_contiguous and a.numpy().flags.writeable
        for b in results[i + 1:]:
            assert not np.shares_memory(a.numpy(), b.numpy())


@pytest.mark.parametrize("view", [
    lambda a: a[::-1], lambda a: a.T.copy().T, lambda a: np.repeat(a, 2, 1)[:, ::2],
    lambda a: np.broadcast_to(a[:1], a.shape), lambda a: _frozen(a), lambda a: _unaligned(a)])  # fmt: skip
def test_arguments_of_any_layout(view: Callable[[Array], Array]) -> None:
    array = view(numbers(4, 6))
    before = array.copy()
    agree(lambda x: (x @ x.T, x.sum(0), x * 2), tt.Tensor(array), tolerance=1e-5)
    np.testing.assert_array_equal(array, before)


def _frozen(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


def _unaligned(array: Array) -> Array:
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    view = raw.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def test_empty_and_zero_dimensional() -> None:
    agree(lambda x: (x + 1, x.sum(), x.sum(0), x.reshape(0, 6), x @ tt.ones(3, 2)), tt.tensor(numbers(0, 3)))
    agree(lambda x: (x + 1, x.exp(), x.reshape(1, 1), x.sum()), tt.tensor(1.5))
    agree(lambda x, y: x @ y, tt.tensor(numbers(3, 0)), tt.tensor(numbers(0, 2)))


def test_the_same_tensor_twice() -> None:
    x = tt.tensor(numbers(3, 3))
    agree(lambda a, b: a @ b + a * b, x, x, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [
    "f16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bf16", "f64"))])
def test_models_of_other_floats(dtype: str) -> None:
    w, b = (tt.tensor(numbers(*s)).to(dtype) for s in ((8, 5), (8,)))
    tolerance = {"f16": 4e-3, "bf16": 3e-2, "f64": 1e-12}[dtype]
    agree(lambda x: F.softmax(F.relu(x @ w.T + b), -1), tt.tensor(numbers(4, 5)).to(dtype), tolerance=tolerance)
    agree(lambda x: F.layer_norm(x, (8,)), tt.tensor(numbers(4, 8)).to(dtype), tolerance=tolerance)


def test_half_precision_is_rounded_as_eager_rounds_it() -> None:
    x = tt.tensor(numbers(1000) * 100).to("f16")
    function = lambda x: ((x + 0.1) * 3 - x) * 7 + x
    np.testing.assert_array_equal(tt.compile(function)(x).numpy(), function(x).numpy())


def test_integers_and_booleans() -> None:
    x = tt.tensor(np.array([[1, -2, 3], [250, 7, 0]]))
    agree(lambda x: (x * 3 // 2, x % 7, x.sum(1), x > 2, (x > 2) & (x < 100), x.to("u8") + 9, x.max(1), x.argmax(1),
                     -x), x)


# -- state -------------------------------------------------------------------------------------------------------------


def test_updates_in_place() -> None:
    total, count = tt.zeros(3), tt.zeros((), dtype="i64")

    def step(x: Any) -> Any:
        total.add_(x)
        count.add_(1)
        return total * 2

    fast = tt.compile(step)
    memory = total.numpy()
    for n in range(1, 4):
        np.testing.assert_allclose(fast(tt.ones(3)).numpy(), 2.0 * n)
        assert count.item() == n and total.numpy() is memory
    np.testing.assert_allclose(memory, 3.0)


def test_an_update_that_reads_old_and_new() -> None:
    a, b = tt.tensor(numbers(4)), tt.tensor(numbers(4, seed=1))

    def swap(x: Any) -> Any:
        old = a * 1
        a.copy_(b + x)
        b.copy_(old)
        return a - b, old

    both = [(a.numpy().copy(), b.numpy().copy())] * 2
    expected = plain(swap(tt.ones(4)))
    updated = [a.numpy().copy(), b.numpy().copy()]
    a.numpy()[...], b.numpy()[...] = both[0]
    found = plain(tt.compile(swap)(tt.ones(4)))
    for x, y in zip([*found, a.numpy(), b.numpy()], [*expected, *updated], strict=True):
        np.testing.assert_allclose(x, y, 1e-6)


def test_an_argument_that_is_also_updated() -> None:
    weight = tt.tensor(numbers(64, 64))

    def step(x: Any) -> Any:
        weight.copy_(weight * 2 + x.sum())
        return x * 1

    before = weight.numpy().copy()
    result = tt.compile(step)(weight)
    np.testing.assert_array_equal(result.numpy(), before)
    np.testing.assert_allclose(weight.numpy(), before * 2 + before.sum(), 1e-5, 1e-4)


def test_overwritten_tensors_that_share_memory_are_refused() -> None:
    memory = numbers(6)
    a, b = tt.Tensor(memory[:4]), tt.Tensor(memory[2:])

    def step() -> Any:
        a.add_(1)
        b.add_(1)

    with pytest.raises(ShapeError, match="share memory"):
        tt.compile(step)()


def test_updates_of_strided_and_of_read_only_tensors() -> None:
    base = numbers(4, 6)
    state = tt.Tensor(base[:, ::2])
    step = tt.compile(lambda: state.copy_(state + 1))
    before = base.copy()
    step()
    np.testing.assert_array_equal(base[:, ::2], before[:, ::2] + 1)
    np.testing.assert_array_equal(base[:, 1::2], before[:, 1::2])
    frozen = tt.Tensor(_frozen(numbers(3)))
    with pytest.raises(ValueError, match="read-only"):
        tt.compile(lambda: frozen.copy_(frozen + 1))()


def test_a_tensor_from_outside_that_changes_its_type() -> None:
    scale = tt.tensor([2.0, 3.0])
    fast = tt.compile(lambda x: x * scale)
    fast(tt.tensor([1.0, 1.0]))
    scale.payload = np.array([5.0], np.float32)
    np.testing.assert_array_equal(fast(tt.tensor([1.0, 1.0])).numpy(), [5.0, 5.0])


def test_random_numbers_are_those_of_eager_and_move_on() -> None:
    drop = nn.Dropout(0.5)
    x = tt.ones(64)
    tt.manual_seed(3)
    expected = [drop(x).numpy() for _ in range(3)]
    tt.manual_seed(3)
    fast = tt.compile(drop)
    found = [fast(x).numpy() for _ in range(3)]
    np.testing.assert_array_equal(found, expected)
    assert (found[0] != found[1]).any()
    drop.eval()
    np.testing.assert_array_equal(fast(x).numpy(), 1.0)


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_gradients_through_a_compiled_call() -> None:
    w = tt.tensor(numbers(3, 3), requires_grad=True)
    function = lambda x: ((x @ w).tanh() * x).sum()
    found = []
    for way in (function, tt.compile(function)):
        x = tt.tensor(numbers(2, 3), requires_grad=True)
        w.grad = None
        (way(x) * 3).backward()
        found.append((x.grad.numpy(), w.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize(("function", "shape"), [
    (lambda x: x * 2.0, (2, 3)),
    (lambda x: tt.maximum(x, 0.0) * tt.arange(3), (2, 3)),
    (lambda x: x * tt.nn.functional.dropout(tt.ones(2, 3), 0.5), (2, 3)),
    (lambda x: F.conv2d(x, tt.ones(16, 16, 3, 3), padding=1), (1, 16, 4, 4)),  # minimal filtering: constants beside
], ids=["literal", "counter", "random", "constants"])
def test_gradients_through_literals_and_constants(function: Callable[..., Any], shape: tuple[int, ...]) -> None:
    found = []
    for way in (function, tt.compile(function)):
        tt.manual_seed(0)
        x = tt.tensor(numbers(*shape), requires_grad=True)
        (way(x) ** 2).sum().backward()
        found.append(x.grad.numpy())
    np.testing.assert_allclose(*found, 1e-5, 1e-4)


def test_gradients_of_arguments_and_cotangents_of_any_layout() -> None:
    model = nn.Linear(3, 4)
    x = tt.tensor(numbers(3, 5), requires_grad=True)
    tt.compile(model)(x.T).sum().backward()  # a sum's cotangent is one number, repeated
    np.testing.assert_allclose(x.grad.numpy(), np.tile(model.weight.detach().numpy().sum(0)[:, None], 5), 1e-5)


def test_parameters_that_are_frozen_and_thawed_between_calls() -> None:
    model = nn.Linear(3, 4)
    fast, x = tt.compile(model), tt.ones(2, 3)
    for frozen in (("weight", "bias"), (), ("weight",), ("bias",), ()):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
            parameter.grad = None
        y = fast(x)
        assert y.requires_grad is (len(frozen) < 2)
        if y.requires_grad:
            y.sum().backward()
        assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == set(frozen)


def test_second_order_gradients_through_a_compiled_call() -> None:
    fast = tt.compile(lambda x: (x.exp() * x.sin()).sum())
    found = []
    for way in (lambda x: (x.exp() * x.sin()).sum(), fast):
        x = tt.tensor(numbers(4, dtype=np.float64), requires_grad=True)
        way(x).backward(create_graph=True)
        first, x.grad = x.grad, None
        (first * first).sum().backward()
        found.append((first.numpy(), x.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, 1e-9)


def test_compiled_gradient_functions() -> None:
    loss = lambda x: (x * x * x).sum()
    x = tt.tensor(numbers(5, dtype=np.float64))
    agree(tt.grad(loss), x, tolerance=1e-12)
    agree(tt.value_and_grad(loss), x, tolerance=1e-12)
    agree(tt.grad(lambda x: tt.grad(loss)(x).sum()), x, tolerance=1e-12)


# -- training steps ----------------------------------------------------------------------------------------------------


def mlp(seed: int = 0) -> Any:
    """784-128-64-10."""
    tt.manual_seed(seed)
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def training_step(model: Any, make: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """An ordinary eager step."""
    opt = make(model.parameters())

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    return step


def batch(size: int = 64, seed: int = 0) -> tuple[Any, Any]:
    """Images and labels."""
    return tt.tensor(numbers(size, 784, seed=seed)), tt.tensor(np.random.default_rng(seed).integers(0, 10, size))


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1), "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=1e-3)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_steps_are_those_of_eager(name: str) -> None:
    models = [mlp(), mlp()]
    steps = [training_step(model, OPTIMIZERS[name]) for model in models]
    steps[1] = tt.compile(steps[1])
    losses = np.array([[step(*batch(16, seed)).item() for step in steps] for seed in range(5)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], 2e-4)
    assert len(steps[1].entries) <= 1 and sum(map(len, steps[1].entries.values())) <= 2
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-2, 2e-4)


def launches(function: Callable[..., Any], *args: Any) -> int:
    """The number of kernels that one call launches."""
    fast = tt.compile(function)
    for _ in range(2):
        fast(*args)
    return len(fast.program.steps)


def test_number_of_launches() -> None:
    x, w, b = tt.tensor(numbers(64, 128)), tt.tensor(numbers(32, 128)), tt.tensor(numbers(32))
    labels = tt.tensor(np.arange(64) % 128)
    assert launches(lambda x: F.softmax(x, -1), x) == 1
    assert launches(lambda x: F.log_softmax(x, -1), x) == 1
    assert launches(lambda x: F.layer_norm(x, (128,)), x) == 1
    assert launches(lambda x: F.relu(F.linear(x, w, b)), x) == 1
    assert launches(lambda x: F.gelu(x * 2 + 1), x) == 1
    assert launches(lambda x: F.cross_entropy(x, labels), x) <= 2
    assert launches(training_step(mlp(), OPTIMIZERS["adam"]), *batch()) in range(12, 17)


def test_a_new_batch_size_compiles_nothing() -> None:
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    fast = tt.compile(training_step(model, OPTIMIZERS["adam"]))
    fast(*batch(64))
    before = build.stats().compiled
    for size in (48, 96, 100):
        fast(*batch(size))
    assert build.stats().compiled == before


# -- the same bits -----------------------------------------------------------------------------------------------------


def work(x: Any) -> Any:
    """Enough of everything to be cut into chunks."""
    y = F.gelu(x @ x.T, "tanh")
    return F.softmax(y, -1), F.layer_norm(x, (x.shape[-1],)), y.sum(0), (x * 1.7 + 0.3).exp().sum(), y * 0.5


def test_the_same_bits_whatever_the_number_of_threads() -> None:
    x = tt.tensor(numbers(300, 257))
    results = []
    for threads in (1, 2, 4):
        fast = tt.compile(work, threads=threads)
        results += [plain(fast(x)) for _ in range(3)]
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_several_python_threads_at_once() -> None:
    fast = tt.compile(work, threads=2)
    inputs = [tt.tensor(numbers(120, 64, seed=n)) for n in range(4)]
    expected = [plain(fast(x)) for x in inputs]
    wrong: list[Any] = []

    def call(n: int) -> None:
        for _ in range(25):
            found = plain(fast(inputs[n]))
            if not all(np.array_equal(a, b) for a, b in zip(found, expected[n], strict=True)):
                wrong.append(n)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_first_calls_from_several_threads_make_one_program() -> None:
    fast = tt.compile(lambda x: (x * 3).sum(1))
    x = tt.tensor(numbers(8, 8))
    threads = [threading.Thread(target=fast, args=(x,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(entries) for entries in fast.entries.values()] == [1]


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_error_while_tracing_leaves_all_as_it_was() -> None:
    model = nn.Linear(3, 2)
    opt = optim.SGD(model.parameters(), lr=0.1)

    def branches(x: Any) -> Any:
        loss = model(x).sum()
        loss.backward()
        opt.step()
        return loss if loss > 0 else -loss

    def mismatch(x: Any) -> Any:
        model(x).sum().backward()
        opt.step()
        return model(x) @ tt.ones(5, 5)

    before = [p.numpy().copy() for p in model.parameters()]
    for function, error in ((branches, TracingError), (mismatch, ShapeError)):
        with pytest.raises(error):
            tt.compile(function)(tt.tensor(numbers(4, 3)))
        assert all(p.grad is None for p in model.parameters())
        for p, old in zip(model.parameters(), before, strict=True):
            np.testing.assert_array_equal(p.numpy(), old)
    assert mismatch is not None and tt.tensor([1.0]).numpy() is not None  # the eager interpreter is back


def test_a_position_out_of_range_loses_nothing() -> None:
    table = nn.Embedding(10, 4)
    head = nn.Linear(4, 10)
    opt = optim.SGD([*table.parameters(), *head.parameters()], lr=0.5)

    def step(at: Any, labels: Any) -> Any:
        loss = F.cross_entropy(head(table(at)), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    fast = tt.compile(step)
    fine, wrong = tt.tensor([1, 2, 3]), tt.tensor([1, 10, 3])  # a wrong label picks nothing: see cross_entropy
    fast(fine, fine)
    fast(fine, fine)
    parameters = [*table.parameters(), *head.parameters()]
    before = [p.numpy().copy() for p in parameters]
    for _ in range(2):
        with pytest.raises(IndexError, match="out of range"):
            fast(wrong, fine)
        for p, old in zip(parameters, before, strict=True):
            np.testing.assert_array_equal(p.numpy(), old)
    assert fast(fine, fine).item() > 0
    assert any((p.numpy() != old).any() for p, old in zip(parameters, before, strict=True)), "it works again"


# -- memory ------------------------------------------------------------------------------------------------------------


MODELS: dict[str, Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    "mlp": lambda: (mlp(), (batch()[0],)),
    "step": lambda: (training_step(mlp(), OPTIMIZERS["adam"]), batch()),
    "work": lambda: (work, (tt.tensor(numbers(40, 24)),)),
    "branches": lambda: (lambda x: (x @ x.T) @ (x @ x.T).tanh() @ ((x @ x.T) @ x), (tt.tensor(numbers(24, 40)),)),
}


@pytest.mark.parametrize("pipeline", ["train", "none"])
@pytest.mark.parametrize("name", MODELS)
def test_predicted_peak_is_what_is_touched(name: str, pipeline: str) -> None:
    """Values begin at multiples of 64 bytes, so the highest byte written is up to 63 below the prediction."""
    function, args = MODELS[name]()
    fast = tt.compile(function, pipeline=pipeline)
    for _ in range(2):
        fast(*args)
    entry = fast.latest
    owned = [o.owner.grad if hasattr(o, "owner") else o for o in entry.owners]
    arrays = [np.array(a.payload if isinstance(a, tt.Tensor) else a) for a in (*args, *owned)]
    touched = fast.program.touched_bytes(arrays)
    assert fast.program.arena_bytes == fast.program.plan.size
    assert fast.program.plan.size - 64 < touched <= fast.program.plan.size


@pytest.mark.parametrize("label", [-1, 3, 1 << 40])
def test_a_wrong_label_is_an_error_and_changes_nothing(label: int) -> None:
    model = nn.Linear(4, 3)
    optimizer, loss_fn = optim.Adam(model.parameters(), lr=0.1), nn.CrossEntropyLoss()

    @tt.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, right = tt.rand(5, 4), tt.tensor([0, 1, 2, 0, 1])
    step(x, right)
    state = [*model.parameters(), *(tensor for _, tensor in optimizer.named_state())]
    before = [tensor.numpy().copy() for tensor in state]
    with pytest.raises(IndexError, match="label is out of range in in_range at test_compile.py"):
        step(x, tt.tensor([0, 1, label, 0, 1]))
    assert all((tensor.numpy() == old).all() for tensor, old in zip(state, before, strict=True))
    assert np.isfinite(step(x, right).item())


def test_a_wrong_label_is_an_error_in_eager_code() -> None:
    with pytest.raises(IndexError, match="3 is not from 0 to 2"):
        ops.cross_entropy(tt.rand(2, 3), tt.tensor([0, 3]))


class Experiment:
    """A user's own class around a model."""

    def __init__(self) -> None:
        self.parts = [nn.Dropout(1.0)]

    def method(self, x: Any) -> Any:
        return self.parts[0](x)


def test_modes_of_modules_that_are_seen_through_others() -> None:
    """Train or eval is noticed whether a module stands in a helper's closure, in an object, in a partial."""
    drop, experiment = nn.Dropout(1.0), Experiment()

    def helper(x: Any) -> Any:
        return drop(x)

    def inner() -> Any:
        return lambda x: experiment.method(x)

    ways = [lambda x: helper(x), functools.partial(lambda module, x: module(x), drop), experiment.method, inner()]
    for way in ways:
        fast = tt.compile(way)
        for mode in (True, False, True):
            drop.train(mode)
            experiment.parts[0].train(mode)
            assert fast(tt.ones(2)).tolist() == [1.0 - mode] * 2
