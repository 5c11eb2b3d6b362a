"""The emitter of loop nests: styles, stages, addressing, updates in place, rounding; and what its kernels depend on."""

import re
from typing import Any

import numpy as np
import pytest
from programs import program

from tinytorch.ir import Graph, TensorType, bf16, evaluate, f16, f32, ops
from tinytorch.ir.errors import CompileError
from tinytorch.ir.types import row_major_strides
from tinytorch.runtime import pool
from tinytorch.runtime.build import compile_kernels
from tinytorch.runtime.launch import SCRATCH, Launch, Ref
from tinytorch.runtime.loops import emit_loops

Array = np.ndarray


def run(launch: Launch, inputs: list[Array], outputs: list[Array]) -> None:
    """Run one launch on these arrays."""
    scratch = np.zeros(launch.scratch_bytes * 2 + 64, np.uint8)
    places = {"input": inputs, "output": outputs}
    words = []
    for word in launch.words:
        if isinstance(word, Ref):
            array = places[word.place][word.number]
            words.append(array.__array_interface__["data"][0] + word.elements * array.itemsize)
        else:
            words.append(scratch.ctypes.data if word is SCRATCH else int(word))
    table = np.array(words, np.int64)
    [kernel] = compile_kernels([launch.source])
    step = np.array([kernel.address, table.ctypes.data, launch.extent, launch.chunks], np.int64)
    pool.run(step.ctypes.data, 1, 1)


def check(body: Graph, *arrays: Array, aliases: dict[int, int] | None = None, threads: int = 1,
          exact: bool = False) -> Launch:
    """Fail unless the kernel of `body` computes what it means, on arrays as they lie; gives the launch."""
    aliases = aliases or {}
    with np.errstate(all="ignore"):
        expected = evaluate(body, arrays)
    inputs = [a.copy() if i in aliases.values() else a for i, a in enumerate(arrays)]
    strides = [tuple(s // a.itemsize for s in a.strides) for a in inputs]
    outputs = [inputs[aliases[i]] if i in aliases else np.empty(v.shape, v.dtype.np)
               for i, v in enumerate(body.outputs)]
    launch = emit_loops(body, strides, aliases, threads)
    run(launch, inputs, outputs)
    tolerance = 0.0 if exact else 2e-6
    for found, want in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found.astype(np.float64), want.astype(np.float64), tolerance, tolerance)
    return launch


def loops(launch: Launch) -> int:
    """How many loops a kernel has."""
    return len(re.findall(r"^ +for ", launch.source.text, re.MULTILINE))


def numbers(*shape: int, seed: int = 0) -> Array:
    """Random numbers."""
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(np.float32)


def types(*arrays: Array) -> list[TensorType]:
    """The types of arrays."""
    return [TensorType.of(a) for a in arrays]


# -- styles ------------------------------------------------------------------------------------------------------------


def test_points_that_lie_in_one_line_are_one_loop() -> None:
    x, y = numbers(3, 4, 5), numbers(3, 4, 5, seed=1)
    launch = check(program(lambda x, y: x * y + x, *types(x, y)), x, y, exact=True)
    assert launch.extent == 60 and loops(launch) == 1 and launch.source.name == "points_mul_add"


@pytest.mark.parametrize(("x", "y", "most"), [
    (numbers(3, 4, 5), numbers(5), 2), (numbers(3, 4, 5), numbers(4, 1), 2), (numbers(3, 4, 5), numbers(3, 1, 1), 2),
    (numbers(3, 4, 5), numbers(), 1), (numbers(5, 4).T, numbers(4, 5), 2), (numbers(4, 10)[:, ::2], numbers(4, 5), 2),
    (numbers(4, 5)[::-1, ::-1], numbers(4, 5), 2), (np.broadcast_to(numbers(1, 5), (4, 5)), numbers(4, 1), 2),
])  # fmt: skip
def test_points_with_strides(x: Array, y: Array, most: int) -> None:
    launch = check(program(lambda x, y: x - y * 2, *types(x, y)), x, y, exact=True)
    assert loops(launch) <= most


@pytest.mark.parametrize("dtype", [
    np.float32, np.int64, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (np.float64, np.int32))])
@pytest.mark.parametrize(("shape", "axes"), [
    ((64, 64), (1, 0)), ((70, 65), (1, 0)), ((9, 257), (1, 0)), ((3, 40, 70), (0, 2, 1)), ((9, 40, 70), (2, 1, 0)),
    ((2, 8, 9, 130), (0, 3, 1, 2)), ((2, 20, 9, 10), (3, 1, 0, 2)),
])  # fmt: skip
def test_operands_that_lie_the_other_way_round_are_turned_in_tiles(shape: Any, axes: Any, dtype: Any) -> None:
    x = (numbers(*shape) * 100).astype(dtype).transpose(axes)
    y = (numbers(*x.shape, seed=1) * 100).astype(dtype)
    launch = check(program(lambda x, y: x - y, *types(x, y)), x, y, exact=True)
    assert launch.source.name == "tiles_sub" and launch.scratch_bytes == 64 * 64 * x.itemsize
    assert check(program(lambda x: ops.detach(x), *types(x)), x, exact=True).source.name == "tiles_detach"


def test_two_operands_are_turned_beside_one_that_is_not_and_one_that_is_repeated() -> None:
    x, y = numbers(100, 70).T, numbers(100, 70, seed=1).T
    row, column = numbers(100), numbers(70, 1)
    launch = check(program(lambda x, y, r, c: x * y + r - c, *types(x, y, row, column)), x, y, row, column, exact=True)
    assert launch.source.name.startswith("tiles") and launch.source.text.count("turn4(") == 2


@pytest.mark.parametrize("x", [
    numbers(7, 100).T, numbers(100, 7).T, numbers(100, 40).T.astype(np.float16),  # short, short, of two bytes
    numbers(4, 100, 6).transpose(2, 1, 0), numbers(20, 20)[::-1].T, np.broadcast_to(numbers(20), (30, 20)).T])
def test_what_is_not_turned(x: Array) -> None:
    assert not check(program(lambda x: x * 2, *types(x)), x, exact=True).source.name.startswith("tiles")


def test_an_operand_that_is_overwritten_is_not_turned() -> None:
    x, y = numbers(20, 30).T, numbers(20, 30, seed=1).T
    expected = x + y
    launch = emit_loops(program(lambda x, y: x + y, *types(x, y)), [(1, 30), (1, 30)], {0: 0}, 1, (1, 30))
    assert launch.source.text.count("turn4(") == 1
    run(launch, [x, y], [x])
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(("rows", "columns", "items"), [(5, 5000, 10), (5, 700, 11), (5, 130, 5), (5, 20, 1)])
def test_blocks_of_columns_leave_work_for_several_threads(rows: int, columns: int, items: int) -> None:
    x = numbers(rows, columns)
    assert check(program(lambda x: ops.sum(x, 0), *types(x)), x).extent == items


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 31])
def test_columns_take_several_rows_at_a_time(rows: int) -> None:
    x = numbers(rows, 3, 40)
    check(program(lambda x: (ops.sum(x, (0, 1)), ops.max(x * 2, (0, 1)), x + 1), *types(x)), x)
    k = np.arange(rows * 6, dtype=np.int64).reshape(rows, 6).astype(np.int8)
    check(program(lambda x: (ops.sum(x, 0), ops.prod(x, 0)), *types(k)), k, exact=True)


@pytest.mark.parametrize(("axis", "style"), [((1,), "rows"), ((0,), "columns"), ((0, 1), "rows")])
@pytest.mark.parametrize("op", [ops.sum, ops.max, ops.min, ops.prod])
def test_reductions(axis: tuple[int, ...], style: str, op: Any) -> None:
    x = numbers(7, 600)
    launch = check(program(lambda x: op(x * 0.1 + 1.0, axis), *types(x)), x)
    assert launch.source.name.startswith(style)


def test_several_reductions_and_what_follows() -> None:
    x, y = numbers(6, 33), numbers(6, 1)

    def function(x: Any, y: Any) -> Any:
        shifted = x - ops.max(x, 1, True)
        total = ops.sum(ops.exp(shifted), 1, True)
        return shifted - ops.log(total), ops.sum(x * x, 1), total + y, ops.exp(shifted) / total

    check(program(function, *types(x, y)), x, y)


def test_columns_and_what_follows() -> None:
    x, y = numbers(9, 3, 520), numbers(3, 520)

    def function(x: Any, y: Any) -> Any:
        mean = ops.sum(x, 0) / 9
        centred = x - mean
        return ops.sum(centred * centred, 0), centred * 2, mean + y, y * 3

    check(program(function, *types(x, y)), x, y)


def test_a_row_that_is_folded_over_two_loops() -> None:
    x = numbers(4, 6, 10)[:, :, ::2]
    function = lambda x: (ops.sum(ops.exp(ops.tanh(x)) - ops.max(ops.exp(ops.tanh(x)), (1, 2), True), (1, 2)),)
    check(program(function, *types(x)), x)


def test_empty_domains() -> None:
    x = numbers(0, 3)
    assert check(program(lambda x: x * 2, *types(x)), x).extent == 0
    check(program(lambda x: ops.sum(x, 0), *types(x)), x)
    check(program(lambda x: ops.sum(x, 1), *types(x)), x)
    check(program(lambda x: ops.sum(x * 2), *types(x)), x)


def test_counters_and_random_numbers_inside_a_nest() -> None:
    x = numbers(4, 6).T
    graph = program(lambda x: x + ops.cast(ops.iota((6, 4), 1) * ops.iota((6, 4), 0), f32), *types(x))
    check(graph, x, exact=True)
    key = np.array(5)
    check(program(lambda x, k: x * ops.random_uniform(k, (6, 4), f32), *types(x, key)), x, key, exact=True)


def test_ops_that_share_no_nest_are_refused() -> None:
    body = program(lambda x: ops.transpose(x) * ops.sum(x, 0), f32[3, 3])
    with pytest.raises(CompileError, match="one loop nest"):
        emit_loops(body, [(3, 1)], {}, 1)


# -- in place ----------------------------------------------------------------------------------------------------------


def test_an_operand_that_is_overwritten_is_read_first() -> None:
    """The first result overwrites x, which the second still needs, and which the first does not even read."""
    x, y = numbers(40), numbers(40, seed=1)
    check(program(lambda x, y: (y * 2, x + 1, x * y), *types(x, y)), x, y, aliases={0: 0}, exact=True)
    check(program(lambda x, y: (x + y, x - y), *types(x, y)), x, y, aliases={0: 1, 1: 0}, exact=True)


def test_columns_that_are_overwritten_are_read_first() -> None:
    """`b` is overwritten with a column's result, and a later loop over the whole domain reads it."""
    x, b = numbers(5, 700), numbers(700)
    check(program(lambda x, b: (b - ops.sum(x, 0), x * ops.sum(x, 0) + b), *types(x, b)), x, b, aliases={0: 1})
    check(program(lambda x, b: (b - ops.sum(x, 0) * 0.5,), *types(x, b)), x, b, aliases={0: 1})


def test_rows_that_are_overwritten_are_read_first() -> None:
    x, b = numbers(70, 5), numbers(70)
    check(program(lambda x, b: (b - ops.sum(x, 1), x + ops.reshape(b, (70, 1))), *types(x, b)), x, b, aliases={0: 1})


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [f16, bf16])
def test_storage_types_are_rounded_after_each_op(dtype: Any) -> None:
    x, y = (numbers(500, seed=s).astype(dtype.np) for s in (0, 1))
    check(program(lambda x, y: ((x * y + x) - x * 3.1) / (ops.abs(y) + 0.1), *types(x, y)), x, y, exact=True)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [f16, bf16])
def test_storage_types_are_summed_in_f32(dtype: Any, axis: int) -> None:
    x = np.full((3000, 2) if axis == 0 else (2, 3000), 1.0, dtype.np)
    check(program(lambda x: ops.sum(x, axis) * 2 - 1, *types(x)), x, exact=True)


def test_nothing_is_reassociated_but_folds() -> None:
    big, small = np.full(64, 3e38, np.float32), numbers(64)
    check(program(lambda x, y: (y + x) - x, *types(big, small)), big, small, exact=True)
    x, y = numbers(64), numbers(64, seed=1)
    check(program(lambda x, y: x * y - x * y, *types(x, y)), x, y, exact=True)  # a fused multiply-add would not give 0
    tiny = np.full(64, 1e-45, np.float32)
    check(program(lambda x, y: x / y, *types(numbers(4, 64), tiny[:1])), numbers(4, 64), tiny[:1], exact=True)


def test_booleans_and_small_integers_wrap_as_in_numpy() -> None:
    a, b = np.arange(-128, 128, dtype=np.int64).astype(np.int8), np.arange(256).astype(np.int8)
    check(program(lambda a, b: (a + b, a * b, -a, ops.abs(a), ops.maximum(a, b)), *types(a, b)), a, b, exact=True)
    p, q = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    function = lambda p, q: (p + q, p * q, ops.maximum(p, q), ops.minimum(p, q), ops.max(p), ops.min(q))
    check(program(function, *types(p, q)), p, q, exact=True)


# -- what kernels depend on --------------------------------------------------------------------------------------------


def test_the_text_does_not_depend_on_sizes_or_constants() -> None:
    def kernel(rows: int, cols: int, number: float) -> str:
        body = program(lambda x: ops.sum(ops.exp(x * number), 1), f32[rows, cols])
        return emit_loops(body, [row_major_strides((rows, cols))], {}, 2).source.text

    assert kernel(3, 5, 0.3) == kernel(400, 900, 0.7)


def test_work_is_cut_by_size_alone() -> None:
    body = program(lambda x: ops.exp(x), f32[1000, 1000])
    assert emit_loops(body, [(1000, 1)], {}, 1).chunks == 1 < emit_loops(body, [(1000, 1)], {}, 2).chunks
    small = program(lambda x: ops.exp(x), f32[8, 8])
    assert emit_loops(small, [(8, 1)], {}, 2).chunks == 1
