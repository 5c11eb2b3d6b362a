"""Tensors: reading, methods, indexing, creation, random numbers and files, against NumPy and SciPy."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from scipy import stats

import tinytorch as tt
from tinytorch.ir.errors import DTypeError, FormatError, GradientError, ShapeError, TracingError

X = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)


def same(actual: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Equal in shape, dtype and, within rounding, numbers."""
    assert actual.shape == expected.shape
    assert actual.numpy().dtype == expected.dtype
    np.testing.assert_allclose(actual.numpy(), expected, rtol=tolerance, atol=tolerance)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_dtypes_of_literals() -> None:
    literals = (1.0, 1, True, [[1, 2.0]], np.float64(3), np.zeros(2), tt.zeros(2, dtype="f64"))
    assert [tt.tensor(x).dtype for x in literals] == [tt.f32, tt.i64, tt.bool_, tt.f32, tt.f64, tt.f64, tt.f64]
    assert tt.tensor([1, 2], dtype="f16").dtype is tt.f16
    with pytest.raises(ShapeError, match="regular nesting"):
        tt.tensor([object()])
    with pytest.raises(DTypeError):
        tt.tensor(["a"])


def test_reading() -> None:
    x = tt.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert (x.shape, x.ndim, x.size, x.numel(), len(x)) == ((2, 2), 2, 4, 4, 2)
    assert x[1, 0].item() == 3.0 and float(x[0, 1]) == 2.0 and int(tt.tensor(7)) == 7 and [10, 20][tt.tensor(1)] == 20
    assert [row.tolist() for row in x] == x.tolist()
    assert np.asarray(x) is not None and np.shares_memory(x.numpy(), x.detach().numpy())
    assert repr(x) == "tensor([[1., 2.],\n        [3., 4.]])"
    assert repr(tt.tensor([1], dtype="i8")) == "tensor([1], dtype=i8)"
    with pytest.raises(TypeError, match="no axes"):
        len(tt.tensor(1.0))
    with pytest.raises(TypeError, match="no axes"):
        iter(tt.tensor(1.0))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)


def test_from_numpy_shares_memory_and_tensor_copies() -> None:
    array = np.zeros(3, np.float32)
    shared, copied = tt.from_numpy(array), tt.tensor(array)
    array[0] = 5
    assert shared.tolist() == [5, 0, 0] and copied.tolist() == [0, 0, 0]


# -- methods against NumPy ---------------------------------------------------------------------------------------------

METHODS: list[tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = [
    (lambda x: x.sum(), lambda a: a.sum()),
    (lambda x: x.sum(1), lambda a: a.sum(1)),
    (lambda x: x.sum((0, -1), keepdim=True), lambda a: a.sum((0, -1), keepdims=True)),
    (lambda x: x.mean(-1), lambda a: a.mean(-1)),
    (lambda x: x.var(1), lambda a: a.var(1, ddof=1)),
    (lambda x: x.var(1, unbiased=False), lambda a: a.var(1)),
    (lambda x: x.std(), lambda a: a.std(ddof=1)),
    (lambda x: x.prod(2), lambda a: a.prod(2)),
    (lambda x: x.max(), lambda a: a.max()),
    (lambda x: x.max(1).values, lambda a: a.max(1)),
    (lambda x: x.min(1, keepdim=True).indices, lambda a: a.argmin(1, keepdims=True)),
    (lambda x: x.amax((0, 1)), lambda a: a.max((0, 1))),
    (lambda x: x.amin(-1), lambda a: a.min(-1)),
    (lambda x: x.argmax(), lambda a: np.asarray(a.argmax())),
    (lambda x: x.argmin(0), lambda a: a.argmin(0)),
    (lambda x: x.cumsum(1), lambda a: a.cumsum(1)),
    (lambda x: (x > 1).any(0), lambda a: (a > 1).any(0)),
    (lambda x: (x > -1).all(), lambda a: np.asarray((a > -1).all())),
    (lambda x: x.clip(-0.5, 0.5), lambda a: a.clip(-0.5, 0.5)),
    (lambda x: x.clamp(min=0), lambda a: a.clip(0, None)),
    (lambda x: x.abs().sqrt(), lambda a: np.sqrt(np.abs(a))),
    (lambda x: x.exp().log(), lambda a: np.log(np.exp(a))),
    (lambda x: x.square().rsqrt(), lambda a: 1 / np.sqrt(a * a)),
    (lambda x: x.sin() + x.cos() - x.tanh(), lambda a: np.sin(a) + np.cos(a) - np.tanh(a)),
    (lambda x: x.sigmoid(), lambda a: 1 / (1 + np.exp(-a))),
    (lambda x: x.relu(), lambda a: np.maximum(a, 0)),
    (lambda x: x.abs().pow(1.5), lambda a: np.abs(a) ** np.float32(1.5)),
    (lambda x: x.softmax(1).sum(1), lambda a: np.ones((3, 5), np.float32)),
    (lambda x: x.log_softmax(0).exp().sum(0), lambda a: np.ones((4, 5), np.float32)),
    (lambda x: x.reshape(2, -1), lambda a: a.reshape(2, -1)),
    (lambda x: x.view((4, 15)), lambda a: a.reshape(4, 15)),
    (lambda x: x.flatten(1), lambda a: a.reshape(3, 20)),
    (lambda x: x.transpose(0, -1), lambda a: a.swapaxes(0, -1)),
    (lambda x: x.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1)),
    (lambda x: x.permute(2, 0, 1).contiguous(), lambda a: a.transpose(2, 0, 1)),
    (lambda x: x.T, lambda a: a.T),
    (lambda x: x[:, :1].expand(-1, 4, -1), lambda a: np.broadcast_to(a[:, :1], (3, 4, 5))),
    (lambda x: x.unsqueeze(-1), lambda a: a[..., None]),
    (lambda x: x.unsqueeze(1).squeeze(1), lambda a: a),
    (lambda x: x[:1, :, :1].squeeze(), lambda a: a[0, :, 0]),
    (lambda x: x @ x.transpose(1, 2), lambda a: a @ a.swapaxes(1, 2)),
    (lambda x: x @ x[0].T, lambda a: a @ a[0].T),
    (lambda x: x[0] @ x[0, 0], lambda a: a[0] @ a[0, 0]),
    (lambda x: x[0, :, 0] @ x[0], lambda a: a[0, :, 0] @ a[0]),
    (lambda x: x[0, 0] @ x[0, 0], lambda a: a[0, 0] @ a[0, 0]),
    (lambda x: x[0].numpy() @ x[0].T, lambda a: a[0] @ a[0].T),
    (lambda x: 1 - 2 / (x * x + 3) % 0.5, lambda a: 1 - 2 / (a * a + 3) % np.float32(0.5)),
    (lambda x: -x // 0.7 + abs(x), lambda a: -a // np.float32(0.7) + np.abs(a)),
    (lambda x: x.to("f64"), lambda a: a.astype(np.float64)),
    (lambda x: (x * 10).long(), lambda a: (a * 10).astype(np.int64)),
    (lambda x: x.double().float(), lambda a: a),
    (lambda x: x.bool(), lambda a: a.astype(bool)),
    (lambda x: ~(x > 0) & (x < 1) | (x == 0), lambda a: ~(a > 0) & (a < 1) | (a == 0)),
    (lambda x: x.zeros_like(), np.zeros_like),
    (lambda x: tt.where(x > 0, x, -x), np.abs),
    (lambda x: tt.cat([x, x], 1), lambda a: np.concatenate([a, a], 1)),
    (lambda x: tt.stack([x, x], 2), lambda a: np.stack([a, a], 2)),
    (lambda x: tt.tril(x, 1), lambda a: np.tril(a, 1)),
    (lambda x: tt.triu(x, -1), lambda a: np.triu(a, -1)),
    (lambda x: tt.maximum(x, 0.2) - tt.minimum(0.1, x),
     lambda a: np.maximum(a, np.float32(0.2)) - np.minimum(np.float32(0.1), a)),
]


@pytest.mark.parametrize("number", range(len(METHODS)))
def test_methods_are_numpys(number: int) -> None:
    ours, numpys = METHODS[number]
    same(ours(tt.tensor(X)), np.asarray(numpys(X)), 2e-6)


@pytest.mark.parametrize("number", [i for i, (f, _) in enumerate(METHODS) if "numpy" not in f.__code__.co_names])
def test_methods_trace(number: int) -> None:
    ours, numpys = METHODS[number]
    graph = tt.trace(ours, tt.tensor(X))
    same(tt.tensor(np.asarray(graph(X))), np.asarray(numpys(X)), 2e-6)


def test_wrong_calls_say_what_is_wrong() -> None:
    x = tt.tensor(X)
    for call, error, words in [
        (lambda: x.reshape(7, -1), ShapeError, "60 elements"),
        (lambda: x.squeeze(5), ShapeError, "no such axis"),
        (lambda: x @ tt.tensor(2.0), ShapeError, r"use \*"),
        (lambda: x @ tt.zeros(3, 3), ShapeError, "inner extents"),
        (lambda: x + tt.zeros(2), ShapeError, "do not broadcast"),
        (lambda: x.sum(3), ShapeError, "axis"),
        (lambda: x.sum("a"), ShapeError, "axis"),
        (lambda: tt.tensor([1]).requires_grad_(), GradientError, "floating"),
    ]:
        with pytest.raises(error, match=words):
            call()


# -- indexing ----------------------------------------------------------------------------------------------------------

ROWS, COLUMNS = np.array([2, 0, -1]), np.array([[0], [2]])
INDICES: list[Any] = [
    0, -1, (1, 2, 3), np.s_[1:], np.s_[::2], np.s_[::-1], np.s_[:, ::-2, 1:4], np.s_[-2:, 3:0:-1], np.s_[5:],
    np.s_[2:1], np.s_[...], np.s_[..., 0], np.s_[0, ..., 1], None, np.s_[:, None, 1], np.s_[None, ..., None],
    ROWS, [0, 2], np.s_[:, [1, 1, 0]], np.s_[..., ROWS], np.s_[COLUMNS, [1, 2]], np.s_[[0, 1], :, [2, 3]],
    np.s_[0, :, [2, 3]], np.s_[[0, 1], [2, 3]], np.s_[:, [0, 1], [2, 3]], np.s_[::-1, ROWS, 1:3], np.s_[ROWS, None],
    np.s_[[], :], X > 0, np.s_[np.array([True, False, True])], np.s_[:, np.array([True, False, True, True]), 0],
    np.s_[[True, False, True], [0, 1]], np.s_[X[..., 0] > 0], np.s_[np.int64(1)],
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=lambda index: re.sub(r"\s+", "", repr(index))[:50])
def test_indexing_is_numpys(index: Any) -> None:
    same(tt.tensor(X)[index], X[index])
    parts = index if isinstance(index, tuple) else (index,)
    same(tt.tensor(X)[tuple(tt.tensor(i) if isinstance(i, np.ndarray) else i for i in parts)], X[index])


@pytest.mark.parametrize("index", INDICES, ids=lambda index: re.sub(r"\s+", "", repr(index))[:50])
def test_assigning_is_numpys(index: Any) -> None:
    ours, numpys = tt.tensor(X), X.copy()
    memory = ours.numpy()
    ours[index] = 7
    numpys[index] = 7
    same(ours, numpys)
    value = np.arange(X[index].size, dtype=np.float32).reshape(X[index].shape)
    ours[index] = tt.tensor(value)
    numpys[index] = value
    same(ours, numpys)
    assert ours.numpy() is memory, "in place"


@pytest.mark.parametrize("index", INDICES, ids=lambda index: re.sub(r"\s+", "", repr(index))[:50])
def test_gradient_of_indexing_counts_visits(index: Any) -> None:
    x = tt.tensor(X, requires_grad=True)
    x[index].sum().backward()
    visits = np.zeros(X.shape, np.float32)
    np.add.at(visits, index, 1)
    assert x.grad is not None
    same(x.grad, visits)


def test_any_mixture_of_indices() -> None:
    rng = np.random.default_rng(1)
    parts = [lambda n: int(rng.integers(-n, n)), lambda n: rng.integers(-n, n, 2),
             lambda n: rng.integers(-n, n, (2, 1)),
             lambda n: slice(*rng.choice([None, -3, -1, 0, 1, 2, 9], 2), rng.choice([1, 2, -1, -2])),
             lambda n: np.arange(n) < 2, lambda n: slice(None)]  # fmt: skip
    for _ in range(400):
        index: list[Any] = [parts[rng.integers(len(parts))](n) for n in X.shape[:rng.integers(1, 4)]]
        if rng.random() < 0.3:
            index.insert(rng.integers(len(index) + 1), None)
        if rng.random() < 0.2 and len(index) < 3:
            index.append(...)
        same(tt.tensor(X)[tuple(index)], X[tuple(index)])


def test_wrong_indices() -> None:
    x = tt.tensor(X)
    for index, words in [(3, "out of bounds"), ((0, -5), "out of bounds"), ((0, 0, 0, 0), "4 indices"),
                         ((..., ...), "ellipsis"), ([0, 3], "out of bounds"), ("a", "cannot index"),
                         (1.5, "cannot index"), ([True, False], "mask of shape"),
                         (np.ones((3, 5), bool), "mask of shape"), (True, "single bool")]:  # fmt: skip
        with pytest.raises((IndexError, TypeError), match=words):
            x[index]
    with pytest.raises(ShapeError, match="broadcast"):
        x[0] = tt.zeros(3)


def test_traced_indices() -> None:
    graph = tt.trace(lambda x, i: x[i, 1:], tt.tensor(X), tt.tensor([0, 2]))
    np.testing.assert_array_equal(graph(X, np.array([1, -1])), X[[1, -1], 1:])
    with pytest.raises(TracingError, match=r"tt\.where"):
        tt.trace(lambda x: x[x > 0], tt.tensor(X))


# -- in place ----------------------------------------------------------------------------------------------------------


def test_in_place_methods_keep_the_memory() -> None:
    x = tt.ones(3)
    memory, version = x.numpy(), x.version
    x.add_(1).mul_(tt.tensor([1.0, 2.0, 3.0])).sub_(0.5)
    assert x.tolist() == [1.5, 3.5, 5.5] and x.numpy() is memory and x.version == version + 3
    assert x.zero_().tolist() == [0, 0, 0] and x.fill_(2).tolist() == [2, 2, 2]
    assert x.copy_(tt.tensor([1, 2, 3])).tolist() == [1, 2, 3] and x.dtype is tt.f32
    with pytest.raises(ShapeError):
        x.copy_(tt.zeros(4))
    with pytest.raises(GradientError, match="no_grad"):
        tt.ones(2, requires_grad=True).add_(1)


# -- creation ----------------------------------------------------------------------------------------------------------


def test_creation() -> None:
    same(tt.zeros(2, 3), np.zeros((2, 3), np.float32))
    same(tt.ones((2, 3), dtype="i32"), np.ones((2, 3), np.int32))
    same(tt.full((2,), 7), np.full(2, 7, np.int64))
    same(tt.full(2, 0.5, "f64"), np.full(2, 0.5))
    same(tt.arange(5), np.arange(5))
    same(tt.arange(1, 2, 0.25), np.arange(1, 2, 0.25, dtype=np.float32))
    same(tt.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype=np.float32))
    same(tt.eye(2, 3), np.eye(2, 3, dtype=np.float32))
    same(tt.zeros_like(tt.tensor(X)), np.zeros_like(X))
    same(tt.full_like(tt.tensor([1, 2]), 3), np.array([3, 3]))
    assert tt.zeros(2, requires_grad=True).requires_grad


def test_a_parameter_keeps_its_shape() -> None:
    assert [tt.Parameter(tt.zeros(shape)).shape for shape in ((), (1,), (2, 3))] == [(), (1,), (2, 3)]


# -- random numbers ----------------------------------------------------------------------------------------------------

MASK = 2**64 - 1


def splitmix64(state: int, count: int) -> list[int]:
    """The generator of Steele, Lea and Flood as published, one number at a time in plain integers."""
    found = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        found.append(z ^ (z >> 31))
    return found


def test_splitmix64_is_the_published_one() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_known_answers() -> None:
    generator = tt.manual_seed(42)
    key = int(generator.state.item()) & MASK
    assert tt.rand(5).tolist() == [(z >> 40) * 2.0**-24 for z in splitmix64(key, 5)]
    key = int(generator.state.item()) & MASK
    assert tt.rand(2, 2, dtype="f64").flatten().tolist() == [(z >> 11) * 2.0**-53 for z in splitmix64(key, 4)]


def test_seeds() -> None:
    def draw(seed: int) -> list[Any]:
        tt.manual_seed(seed)
        return [tt.rand(3).tolist(), tt.randn(3).tolist(), tt.randint(0, 10, (3,)).tolist(), tt.randperm(5).tolist()]

    assert draw(1) == draw(1) and draw(1) != draw(2)
    assert draw(-5) == draw(-5) and len({tuple(draw(seed)[0]) for seed in range(50)}) == 50
    assert tt.rand(3).tolist() != tt.rand(3).tolist()


def test_distributions() -> None:
    uniform, normal = tt.rand(20000).numpy(), tt.randn(20000).numpy()
    assert 0 <= uniform.min() and uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert abs(stats.pearsonr(normal[:-1], normal[1:]).statistic) < 0.03
    counts = np.bincount(tt.randint(-2, 5, (7000,)).numpy() + 2, minlength=7)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert sorted(tt.randperm(100).tolist()) == list(range(100))
    firsts = [tt.rand(1).item() for _ in range(2000)]  # across draws as within one
    assert stats.kstest(firsts, "uniform").pvalue > 1e-3


# -- files -------------------------------------------------------------------------------------------------------------


def test_files_round_trip(tmp_path: Path) -> None:
    thing = {"w": tt.tensor(X), "list": [tt.tensor([1, 2], dtype="i8"), (tt.tensor(True), None)], "lr": 0.1,
             "name": "a", 3: tt.full((2,), 1.5, "bf16"), "empty": tt.zeros(0, 2)}  # fmt: skip
    tt.save(thing, tmp_path / "a.safetensors")
    found = tt.load(tmp_path / "a.safetensors")
    assert list(found) == sorted(thing, key=lambda key: (str(type(key)), key))
    assert (found["lr"], found["name"]) == (0.1, "a")
    same(found["w"], X)
    assert found["list"][0].dtype is tt.i8 and found["list"][1][0].item() is True and found["list"][1][1] is None
    assert found[3].dtype is tt.bf16 and found[3].tolist() == [1.5, 1.5] and found["empty"].shape == (0, 2)


def test_a_view_is_saved_as_it_looks(tmp_path: Path) -> None:
    tt.save(tt.tensor(X).T[::2], tmp_path / "a")
    same(tt.load(tmp_path / "a"), X.T[::2])


def test_files_of_others(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a.b": X}, tmp_path / "a.safetensors")
    same(tt.load(tmp_path / "a.safetensors")["a.b"], X)


def test_graphs_are_saved_too(tmp_path: Path) -> None:
    graph = tt.trace(lambda x: x * 2, tt.tensor(X))
    tt.save(graph, tmp_path / "g.ttg")
    assert str(tt.load(tmp_path / "g.ttg")) == str(graph)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    tt.save({"w": tt.tensor(X)}, path)
    whole = path.read_bytes()
    for text in (b"", b"hello", whole[:20], whole[:-7], b"\xff" * 8 + whole[8:],
                 whole.replace(b"tensors/1", b"tensors/9"),
                 whole.replace(b'\\"tensor\\"', b'\\"tonsor\\"')):  # fmt: skip
        path.write_bytes(text)
        if text == whole:
            continue
        try:
            found = tt.load(path)
        except FormatError as error:
            assert str(path) in str(error)
        else:
            assert b"tensors/9" in text, "only a file of another kind may be read as a plain one"
            same(found["w"], X)
    with pytest.raises(FormatError):
        tt.load(tmp_path / "nowhere")


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    tt.save({"w": tt.ones(2)}, path)
    for thing in ({"w": object()}, {(1, 2): tt.ones(1)}, lambda: 0):
        with pytest.raises(FormatError):
            tt.save(thing, path)
    assert tt.load(path)["w"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "no half-written file is left"


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    values = {float(i): tt.full((20000,), float(i)) for i in range(2)}
    tt.save(values[0.0], path)
    done = threading.Event()

    def write() -> None:
        for i in range(30):
            tt.save(values[float(i % 2)], path)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        array = tt.load(path).numpy()
        assert array.min() == array.max()
    writer.join()
