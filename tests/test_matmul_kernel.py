"""Matmul kernels against float64: shapes, layouts, batches, views, epilogues, threads, instruction sets, plain Python.

Run as a script, it checks the shapes on operands that end where readable memory ends, for the instruction set that the
environment names.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import mmap
import os
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from again import OTHER_ISAS, run_again

from tinytorch.runtime import pool
from tinytorch.runtime.build import compile_kernels
from tinytorch.runtime.matmul import SCRATCH_WORD, Epilogue, emit_matmul, first_word, plan_matmul, store_epilogue
from tinytorch.runtime.matmul_text import FIRST_WORD

SIZES = (1, 2, 7, 12, 13, 16, 31, 33, 64, 257)
LAYOUTS = list(itertools.product((False, True), repeat=2))
FENCE = 12345.0


def operand(shape: tuple[int, ...], transposed: bool = False, gap: int = 0, dtype: type = np.float32,
            seed: int = 0) -> np.ndarray:
    """Random matrices (..., rows, columns), with `gap` unused elements after each line, or lying transposed."""
    *batch, rows, columns = shape
    if transposed:
        rows, columns = columns, rows
    random, size = np.random.default_rng([seed, rows, columns]), (*batch, rows, columns + gap)
    whole = random.standard_normal(size) if np.dtype(dtype).kind == "f" else random.integers(-9, 9, size)
    view = whole.astype(dtype)[..., :columns]
    return view.swapaxes(-1, -2) if transposed else view


def run(a: np.ndarray, b: np.ndarray, flags: tuple[bool, bool], *, epilogue: Epilogue | None = None,
        extra: Sequence[int] = (), threads: int = 1, element: str = "f32", plain: bool = False) -> np.ndarray:
    """a @ b by our kernel; `flags` say which lies transposed. Checks that scratch ends where the plan says."""
    lda, ldb = (x.strides[-1 if transposed else -2] // x.itemsize for x, transposed in zip((a, b), flags))
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a_strides, b_strides = (batch_strides(x, batch) for x in (a, b))
    m, k, n = *a.shape[-2:], b.shape[-1]
    plan = plan_matmul(m, n, k, lda=lda, ldb=ldb, transpose_a=flags[0], transpose_b=flags[1], batch=batch,
                       a_strides=a_strides, b_strides=b_strides, element=element, threads=threads)
    out = np.full((*batch, m, n), FENCE, a.dtype)
    if epilogue is None:
        epilogue, extra = store_epilogue(element, len(batch)), (out.ctypes.data, n, m * n)
    [kernel] = compile_kernels([emit_matmul("matmul", plan.form, epilogue)])
    scratch = np.full(plan.scratch_bytes * threads + 128, 77, np.uint8)
    start = -scratch.ctypes.data % 64
    words = np.array([*plan.words, *extra], np.int64)
    assert len(plan.words) == first_word(plan.form)
    words[plan.a_word], words[plan.b_word] = a.ctypes.data, b.ctypes.data
    words[SCRATCH_WORD] = scratch.ctypes.data + start
    if plain:
        spec = importlib.util.spec_from_file_location("plain_kernel", kernel.path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.matmul(words.ctypes.data, 0, plan.extent, 0)
    else:
        table = np.array([kernel.address, words.ctypes.data, plan.extent, plan.chunks], np.int64)
        pool.run(table.ctypes.data, 1, threads)
    outside = np.concatenate([scratch[:start], scratch[start + plan.scratch_bytes * threads:]])
    assert (outside == 77).all(), "wrote outside its scratch"
    return out


def batch_strides(x: np.ndarray, batch: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(stride // x.itemsize for stride in np.broadcast_to(x, (*batch, *x.shape[-2:])).strides[:-2])


def assert_product(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Within the bound of a sum of k rounded products: k u |a| |b|, and some slack for one more rounding."""
    exact, scale = a.astype(float) @ b.astype(float), np.abs(a).astype(float) @ np.abs(b).astype(float)
    bound = (a.shape[-1] + 2) * np.finfo(out.dtype).eps / 2 * scale
    assert (np.abs(out - exact) <= bound).all(), f"off by {np.abs(out - exact).max()} for {a.shape} @ {b.shape}"


def shapes() -> list[tuple[int, int, int]]:
    """All pairs of sizes in each two of (m, k, n), the third varying along."""
    n = len(SIZES)
    return [(SIZES[i], SIZES[j], SIZES[(i + 3 * j) % n]) for i in range(n) for j in range(n)]


@pytest.mark.parametrize(("ta", "tb"), LAYOUTS)
def test_shapes_and_layouts(ta: bool, tb: bool) -> None:
    for m, k, n in shapes():
        a, b = operand((m, k), ta), operand((k, n), tb, seed=1)
        assert_product(run(a, b, (ta, tb)), a, b)


@pytest.mark.parametrize(("ta", "tb"), LAYOUTS)
@pytest.mark.parametrize(("m", "k", "n"), [(40, 1500, 70), (1100, 1040, 9), (3, 1100, 5), (70, 130, 300)])
def test_blocking(m: int, k: int, n: int, ta: bool, tb: bool) -> None:
    a, b = operand((m, k), ta, gap=3), operand((k, n), tb, gap=5, seed=1)
    assert_product(run(a, b, (ta, tb)), a, b)


@pytest.mark.parametrize(("ta", "tb"), LAYOUTS)
def test_views_with_gaps(ta: bool, tb: bool) -> None:
    for m, k, n in [(1, 33, 64), (33, 7, 64), (64, 64, 10), (257, 16, 1), (2, 40, 50)]:
        a, b = operand((m, k), ta, gap=7), operand((k, n), tb, gap=1, seed=1)
        assert_product(run(a, b, (ta, tb)), a, b)


@pytest.mark.parametrize(("left", "right"), [((5,), (5,)), ((3,), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1, 3), (4, 1))])
@pytest.mark.parametrize("threads", [1, 2])
def test_batches_broadcast(left: tuple[int, ...], right: tuple[int, ...], threads: int) -> None:
    for (m, k, n), tb in [((9, 12, 40), False), ((33, 20, 70), False)]:
        a, b = operand((*left, m, k), gap=2), operand((*right, k, n), tb, seed=1)
        assert_product(run(a, b, (False, tb), threads=threads), a, b)


def test_nothing_to_sum_gives_zero_and_nothing_to_compute_gives_nothing() -> None:
    for ta, tb in LAYOUTS:
        for m, n in [(1, 1), (9, 70), (1, 40)]:
            out = run(np.empty((m, 0), np.float32), np.empty((0, n), np.float32), (ta, tb))
            np.testing.assert_array_equal(out, np.zeros((m, n)))
    assert run(np.empty((0, 3), np.float32), operand((3, 4)), (False, False)).shape == (0, 4)
    for m, n, batch in [(0, 4, (2,)), (3, 0, (1,)), (3, 4, (0,))]:
        assert plan_matmul(m, n, 5, lda=5, ldb=4, batch=batch, a_strides=(0,), b_strides=(0,)).extent == 0


def bias_relu(at: int) -> Epilogue:
    return Epilogue(
        (f"bias0 = pointer(args, {at})", f"out0 = pointer(args, {at + 1})", f"out0_ld = integer(args, {at + 2})"),
        ("out0_row = i * out0_ld",),
        ("store_f32(out0, out0_row + j, maximum(acc + load_f32(bias0, j, 0), f32(0)), 1)",))


def residual_and_square(at: int) -> Epilogue:
    """x += a @ b in place, and its square to a second output."""
    return Epilogue(
        (f"x0 = pointer(args, {at})", f"out1 = pointer(args, {at + 1})", f"ld0 = integer(args, {at + 2})"),
        ("row0 = i * ld0",),
        ("sum0 = acc + load_f32(x0, row0 + j, 0)",
         "store_f32(x0, row0 + j, sum0, 0)",
         "store_f32(out1, row0 + j, sum0 * sum0, 1)"))


EPILOGUE_SHAPES = [(64, 784, 128), (33, 17, 45), (9, 64, 64), (1, 40, 130), (130, 40, 1), (40, 2000, 70)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tb", [False, True])
def test_epilogue_reads_a_bias(tb: bool, threads: int) -> None:
    for m, k, n in EPILOGUE_SHAPES:
        a, b, bias, out = operand((m, k)), operand((k, n), tb, seed=1), operand((1, n), seed=2)[0], unset(m, n)
        run(a, b, (False, tb), epilogue=bias_relu(FIRST_WORD), extra=(bias.ctypes.data, out.ctypes.data, n),
            threads=threads)
        np.testing.assert_allclose(out, np.maximum(a.astype(float) @ b + bias, 0), rtol=1e-5, atol=3e-6 * k ** 0.5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("ta", [False, True])
def test_epilogue_in_place_and_second_output_run_once_an_element(ta: bool, threads: int) -> None:
    for m, k, n in EPILOGUE_SHAPES:
        a, b, x, square = operand((m, k), ta), operand((k, n), seed=1), operand((m, n), seed=2), unset(m, n)
        expected = x + a.astype(float) @ b
        run(a, b, (ta, False), epilogue=residual_and_square(FIRST_WORD), extra=(x.ctypes.data, square.ctypes.data, n),
            threads=threads)
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=3e-6 * k ** 0.5)
        np.testing.assert_array_equal(square, x * x)


def unset(m: int, n: int) -> np.ndarray:
    return np.full((m, n), np.nan, np.float32)


@pytest.mark.parametrize(("m", "k", "n"), [(257, 300, 129), (64, 1500, 64), (1, 700, 900), (300, 64, 10)])
def test_threads_and_repetition_change_no_bit(m: int, k: int, n: int) -> None:
    for ta, tb in LAYOUTS:
        a, b = operand((m, k), ta), operand((k, n), tb, seed=1)
        first = run(a, b, (ta, tb))
        for threads in (1, 2, 4):
            assert run(a, b, (ta, tb), threads=threads).tobytes() == first.tobytes()


def test_two_threads_get_equal_shares() -> None:
    for m, k, n in [(64, 784, 128), (1024, 1024, 1024), (128, 64, 784), (1, 1024, 1024)]:
        plan = plan_matmul(m, n, k, lda=k, ldb=n, threads=2)
        assert plan.extent >= 2 and plan.extent % 2 == 0 and plan.chunks % 2 == 0
    assert plan_matmul(8, 8, 8, lda=8, ldb=8, threads=2).chunks == 1


@pytest.mark.parametrize("element", [
    "f64", "i8", *(pytest.param(element, marks=pytest.mark.slow) for element in ("i64", "i32", "f16"))])
def test_other_elements(element: str) -> None:
    dtype = np.dtype({"f": "float", "i": "int"}[element[0]] + element[1:]).type
    shapes = [(1, 7, 33), (40, 33, 70)] if element == "f64" else [(1, 7, 33), (9, 30, 20), (40, 33, 70), (30, 40, 1)]
    for (m, k, n), (ta, tb) in itertools.product(shapes, LAYOUTS[1:3]):
        a, b = operand((m, k), ta, dtype=dtype), operand((k, n), tb, dtype=dtype, seed=1)
        out = run(a, b, (ta, tb), element=element, threads=2)
        if dtype is np.float16:
            np.testing.assert_allclose(out, a.astype(float) @ b.astype(float), rtol=1e-3, atol=1e-2)
        elif element == "f64":
            np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)
        else:
            np.testing.assert_array_equal(out, a @ b)


def test_infinities_and_nans_stay_in_their_rows_and_columns() -> None:
    for m, k, n in [(33, 20, 45), (9, 33, 64), (1, 33, 40)]:
        for ta, tb in LAYOUTS:
            a, b = operand((m, k), ta), operand((k, n), tb, seed=1)
            a[-1, 3], b[5, n - 2] = np.inf, np.nan
            with np.errstate(invalid="ignore"):
                np.testing.assert_allclose(run(a, b, (ta, tb)), a @ b, rtol=1e-4, atol=1e-4)


def test_fenced_memory() -> None:
    run_again(__file__, {})


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_instruction_sets(isa: str) -> None:
    run_again(__file__, {"TINYTORCH_ISA": isa})


def test_plain_python() -> None:
    run_again(__file__, {"NUMBA_DISABLE_JIT": "1"}, "plain")


def fenced(x: np.ndarray, transposed: bool) -> np.ndarray:
    """The same elements, the last of them just before memory that cannot be read."""
    lying = np.ascontiguousarray(x.T if transposed else x)
    page = mmap.PAGESIZE
    room = -(-lying.nbytes // page) * page
    memory = mmap.mmap(-1, room + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + room), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(memory, lying.dtype, lying.size, room - lying.nbytes).reshape(lying.shape)
    copy[...] = lying
    return copy.T if transposed else copy


def main() -> None:
    plain = "plain" in sys.argv
    chosen = [(1, 7, 9), (9, 17, 33), (3, 20, 2), (20, 16, 1)] if plain else [*shapes(), (40, 1030, 33), (1, 1030, 70)]
    layouts = LAYOUTS[1:3] if "TINYTORCH_ISA" in os.environ else LAYOUTS
    for (m, k, n), (ta, tb) in itertools.product(chosen, layouts):
        a, b = fenced(operand((m, k)), ta), fenced(operand((k, n), seed=1), tb)
        assert_product(run(a, b, (ta, tb), plain=plain), a, b)


if __name__ == "__main__":
    main()
