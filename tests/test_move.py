"""What moves elements: results are NumPy's, for every type and shape, kernel count and number of threads."""

from typing import Any

import numpy as np
import pytest
from again import OTHER_SETTINGS, run_again

import tinytorch as tt
from tinytorch.ir import ops
from tinytorch.tensor import as_tensor

DTYPES = [np.float32, np.float64, np.float16, np.int64, np.int8, np.bool_]
SHAPES = [(5, 3), (70, 65), (5000,), (2, 9000), (3, 5, 200), (3, 70, 33), (2, 1, 3)]


def numbers(shape: Any, dtype: Any, seed: int = 0) -> np.ndarray:
    """Small whole numbers, so that many are equal."""
    return np.round(np.random.default_rng(seed).standard_normal(shape) * 3).astype(dtype)


def launches(fast: Any) -> int:
    """How many kernels a compiled function runs."""
    return len(fast.program.steps)


# -- where the greatest is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_of_equals_and_nan_before_all(op: str, dtype: Any) -> None:
    for shape in SHAPES:
        x = numbers(shape, dtype)
        for hole in (False, True) if x.dtype.kind == "f" else (False,):
            if hole:
                x.flat[:: max(1, x.size // 3)] = np.nan
            for axis in range(x.ndim):
                fast = tt.compile(lambda x, axis=axis: getattr(x, op)(axis))
                np.testing.assert_array_equal(fast(tt.tensor(x)).numpy(), getattr(np, op)(x, axis))


def test_infinities_and_zeros() -> None:
    for row in ([-np.inf, -np.inf], [np.inf, 1, np.inf], [0.0, -0.0], [-0.0, 0.0], [np.nan, np.inf, np.nan]):
        x = np.array(row, np.float32)
        assert int(tt.compile(lambda x: x.argmax(0))(tt.tensor(x)).item()) == int(np.argmax(x))
        assert int(tt.compile(lambda x: x.argmin(0))(tt.tensor(x)).item()) == int(np.argmin(x))


# -- running sums ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int8])
def test_running_sums(dtype: Any) -> None:
    for shape in SHAPES:
        x = numbers(shape, dtype)
        for axis in range(x.ndim):
            found = tt.compile(lambda x, axis=axis: x.cumsum(axis))(tt.tensor(x)).numpy()
            np.testing.assert_array_equal(found, tt.tensor(x).cumsum(axis).numpy())


# -- concat ------------------------------------------------------------------------------------------------------------

CONCATS = [
    ([(5, 3), (4, 3)], 0), ([(5, 3), (5, 7), (5, 1)], 1), ([(2, 5000), (2, 9001)], 1), ([(9000,), (5,)], 0),
    ([(300, 64), (300, 20)], 1), ([(2, 3, 4, 5), (2, 3, 7, 5)], 2), ([(2, 3, 1, 5, 2), (2, 3, 7, 5, 2)], 2),
    ([(3, 0), (3, 2), (3, 1)], 1), ([(1, 1), (1, 1)], 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_, np.float64])
def test_rows_are_put_together_by_one_kernel(dtype: Any) -> None:
    for shapes, axis in CONCATS:
        arrays = [numbers(shape, dtype, seed) for seed, shape in enumerate(shapes)]
        fast = tt.compile(lambda *a, axis=axis: tt.concat(a, axis))
        found = fast(*map(tt.tensor, arrays)).numpy()
        np.testing.assert_array_equal(found, np.concatenate(arrays, axis))
        assert launches(fast) == 1


def test_what_lies_the_other_way_round_is_put_together_too() -> None:
    for shapes, axis in CONCATS:
        arrays = [numbers(shape, np.float32, seed).T for seed, shape in enumerate(shapes)]
        axis = arrays[0].ndim - 1 - axis
        fast = tt.compile(lambda *a, axis=axis: tt.concat([as_tensor(ops.transpose(t)) for t in a], axis))
        found = fast(*(tt.tensor(np.ascontiguousarray(a.T)) for a in arrays)).numpy()
        np.testing.assert_array_equal(found, np.concatenate(arrays, axis))


@pytest.mark.parametrize(("axes", "axis"), [((2, 0, 1, 3), 2), ((2, 0, 1, 3), 0), ((1, 0, 2, 3), 1), ((2, 1, 0, 3), 3)])
def test_heads_are_put_together_as_they_lie(axes: Any, axis: int) -> None:
    arrays = [numbers((2, 3, 4, 5), np.float32, seed) for seed in range(3)]
    fast = tt.compile(lambda *a: tt.concat([as_tensor(ops.transpose(t, axes)) for t in a], axis), pipeline="none")
    found = fast(*map(tt.tensor, arrays)).numpy()
    np.testing.assert_array_equal(found, np.concatenate([a.transpose(axes) for a in arrays], axis))
    assert launches(fast) == 1


def test_the_gradient_of_a_split_is_one_concat() -> None:
    """q, k and v of one product, in heads: no zeros, no sums, and one kernel that copies."""
    w = tt.nn.Parameter(np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32))

    def step(x: Any) -> Any:
        y = x @ w.T
        q, k, v = (y[..., 8 * i:8 * i + 8].reshape(2, 6, 2, 4).transpose(1, 2) for i in range(3))
        ((q + 1.0).cumsum(2) * tt.exp(k) * v).sum().backward()
        return w.grad

    x = tt.tensor(np.random.default_rng(1).standard_normal((2, 6, 8)).astype(np.float32))
    fast = tt.compile(step)
    found = fast(x).numpy()
    names = [step.launch.source.name for step in fast.program.steps]
    assert names.count("copy_parts") == 1 and not any("constant" in name for name in names)
    assert not any(node.op is ops.pad for node in fast.latest.program.graph.nodes)
    w.grad = None
    np.testing.assert_allclose(found, step(x).numpy(), 1e-5, 1e-4)


# -- scattering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "width", "count"), [(65, 128, 300), (7, 200, 50), (30, 1, 100), (4, 65, 3)])
def test_scattered_rows_add_up_in_order(rows: int, width: int, count: int) -> None:
    random = np.random.default_rng(0)
    x, more = (random.standard_normal((n, width)).astype(np.float32) for n in (rows, count))
    positions = random.integers(-rows, rows, count)
    expected = x.copy()
    np.add.at(expected, positions, more)
    for threads in (1, 2, 4):
        fast = tt.compile(lambda x, i, y: as_tensor(ops.scatter_add(x, i, y, 0)), threads=threads)
        np.testing.assert_array_equal(fast(*map(tt.tensor, (x, positions, more))).numpy(), expected)
    positions[1] = rows
    with pytest.raises(IndexError, match="out of range"):
        fast(*map(tt.tensor, (x, positions, more)))


def test_scattering_divides_by_columns() -> None:
    fast = tt.compile(lambda i, y: as_tensor(ops.scatter_add(np.zeros((9, 640), np.float32), i, y, 0)), threads=2)
    fast(tt.tensor(np.arange(200) % 9), tt.tensor(np.ones((200, 640), np.float32)))
    assert [s.launch.extent for s in fast.program.steps if s.launch.source.name == "scatter_add"] == [10]


# -- other instruction sets --------------------------------------------------------------------------------------------


def check_all() -> None:
    """A small example of each kernel."""
    x = numbers((20, 9), np.float32)
    x[3, 4] = np.nan
    t = tt.tensor(x)
    for axis in (0, 1):
        np.testing.assert_array_equal(tt.compile(lambda x, a=axis: x.argmax(a))(t).numpy(), np.argmax(x, axis))
        np.testing.assert_array_equal(tt.compile(lambda x, a=axis: x.cumsum(a))(t).numpy(), np.cumsum(x, axis))
        both = tt.compile(lambda x, a=axis: tt.concat([x, x], a))(t).numpy()
        np.testing.assert_array_equal(both, np.concatenate([x, x], axis))
    np.testing.assert_array_equal(tt.compile(lambda x: x.T.contiguous() + 0.0)(t).numpy(), x.T)
    np.testing.assert_array_equal(tt.compile(lambda x: x[:3].sum(0))(t).numpy(), x[:3].sum(0))
    i = np.array([1, 1, 0])
    found = tt.compile(lambda x, i: as_tensor(ops.scatter_add(x[:2], i, x[:3], 0)))(t, tt.tensor(i)).numpy()
    expected = x[:2].copy()
    np.add.at(expected, i, x[:3])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("settings", OTHER_SETTINGS[1:], ids=str)
def test_other_instruction_sets(settings: dict[str, str]) -> None:
    run_again(__file__, settings)


if __name__ == "__main__":
    check_all()
