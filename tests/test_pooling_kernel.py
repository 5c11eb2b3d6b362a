"""Pooling kernels against loops over windows: shapes, borders, layouts, threads, instruction sets, plain Python.

Run as a script, it checks them on operands that end where readable memory ends, for the instruction set that the
environment names.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from again import OTHER_ISAS, run_again
from samples import max_unpooled, pooled_loop, sum_unpooled
from test_matmul_kernel import fenced

import tinytorch as tt
from tinytorch.ir import Node, TensorType, Value, ops
from tinytorch.ir.interp import make_node
from tinytorch.runtime import pool
from tinytorch.runtime.build import compile_kernels
from tinytorch.runtime.launch import Launch, Ref, Scratch
from tinytorch.runtime.pooling import POOLS

RNG = np.random.default_rng(4)
MEANING = {
    ops.pool_max: pooled_loop(np.max, -np.inf), ops.pool_sum: pooled_loop(np.sum, 0.0),
    ops.pool_max_grad: max_unpooled, ops.pool_sum_grad: sum_unpooled}
CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((3, 6, 8, 32), {"size": 2}),
    ((2, 7, 5, 33), {"size": 2}),  # the last row and column are in no window
    ((1, 4, 6, 7), {"size": (2, 3), "stride": (3, 4)}),  # elements between windows
    ((2, 7, 6, 17), {"size": 3, "stride": 2, "low": 1, "high": 1}),
    ((2, 5, 6, 64), {"size": 3, "stride": 1, "low": 1, "high": (1, 2)}),
    ((2, 7, 9, 19), {"size": 5, "stride": (1, 2), "low": 2, "high": 2}),  # too many elements for the text
    ((1, 9, 8, 5), {"size": (2, 3), "stride": 1, "low": (1, 2), "high": (2, 3), "dilation": (3, 2)}),
    ((1, 3, 4, 1), {"size": 1}),
    ((70, 1, 1, 3), {"size": 3, "low": 1, "high": 1}),  # nothing but borders
]


def operand(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Whole numbers, so that there are ties and sums are exact."""
    return RNG.integers(-4, 5, shape).astype(dtype)


def node_of(op: Any, arrays: list[np.ndarray], attrs: dict[str, Any]) -> Node:
    """The call as a node, its attributes in canonical form."""
    return make_node(op, tuple(Value(TensorType.of(a)) for a in arrays), op.prepare(*arrays, **attrs)[1])


def launch_of(node: Node, arrays: list[np.ndarray], threads: int) -> Launch:
    [launch] = POOLS[node.op](node, [tuple(s // a.itemsize for s in a.strides) for a in arrays], threads)
    return launch


def run(op: Any, arrays: list[np.ndarray], attrs: dict[str, Any], threads: int = 1, plain: bool = False) -> np.ndarray:
    """The op by its kernel. Checks that scratch ends where the launch says."""
    node = node_of(op, arrays, attrs)
    launch = launch_of(node, arrays, threads)
    [kernel] = compile_kernels([launch.source])
    out = fenced(np.full(node.output.shape, np.nan, arrays[0].dtype), False)
    scratch = np.full(launch.scratch_bytes * threads + 64, 77, np.uint8)
    places = {"input": arrays, "output": [out]}

    def word(thing: Any) -> int:
        if isinstance(thing, Ref):
            return places[thing.place][thing.number].ctypes.data
        return scratch.ctypes.data if isinstance(thing, Scratch) else int(thing)

    words = np.array([*map(word, launch.words)], np.int64)
    if plain:
        spec = importlib.util.spec_from_file_location("plain_kernel", kernel.path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        getattr(module, launch.source.name)(words.ctypes.data, 0, launch.extent, 0)
    else:
        table = np.array([kernel.address, words.ctypes.data, launch.extent, launch.chunks], np.int64)
        pool.run(table.ctypes.data, 1, threads)
    assert (scratch[-64:] == 77).all(), "wrote outside its scratch"
    return out


def calls(shape: tuple[int, ...], attrs: dict[str, Any], dtype: Any = np.float32) -> list[tuple[Any, list[Any], Any]]:
    """All four ops on windows of one kind: (op, operands, attributes)."""
    x = operand(shape, dtype)
    out = MEANING[ops.pool_max](x, **attrs).astype(dtype)
    g = operand(out.shape, dtype)
    return [(ops.pool_max, [x], attrs), (ops.pool_sum, [x], attrs), (ops.pool_max_grad, [g, x, out], attrs),
            (ops.pool_sum_grad, [g], {"extent": shape[1:3]} | attrs)]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_windows(number: int) -> None:
    for op, arrays, attrs in calls(*CASES[number]):
        np.testing.assert_array_equal(run(op, arrays, attrs), MEANING[op](*arrays, **attrs), str(op))


def test_doubles() -> None:
    for shape, kind in CASES[3:5]:
        for op, arrays, attrs in calls(shape, kind, np.float64):
            np.testing.assert_array_equal(run(op, arrays, attrs), MEANING[op](*arrays, **attrs), str(op))


def test_any_strides_but_of_the_channels() -> None:
    def apart(x: np.ndarray) -> np.ndarray:
        """The same numbers: rows backwards in memory, columns before rows, gaps between pixels and images."""
        wide = np.full((len(x), x.shape[2], 2 * x.shape[1], x.shape[3] + 3), 9, x.dtype)
        view = wide.transpose(0, 2, 1, 3)[:, ::-2, :, :-3]
        view[...] = x
        return view

    for shape, kind in (CASES[1], CASES[4]):
        for op, arrays, attrs in calls(shape, kind):
            spread = [apart(a) for a in arrays]
            np.testing.assert_array_equal(run(op, spread, attrs), MEANING[op](*arrays, **attrs), str(op))


def test_what_is_not_a_number_wins_and_the_first_gets_the_gradient() -> None:
    x = np.full((1, 2, 8, 16), 1, np.float32)
    nan, inf = np.nan, np.inf
    x[0, :, :, 3] = [[nan, 2, -inf, -inf, inf, 0, 1, nan], [nan, 3, -inf, -inf, 9, 0, nan, 2]]
    out = run(ops.pool_max, [x], {"size": 2})
    np.testing.assert_array_equal(out[0, 0, :, 3], [nan, -inf, inf, nan])
    grad = run(ops.pool_max_grad, [np.ones_like(out), x, out], {"size": 2})
    assert grad[0, :, :, 3].tolist() == [[1, 0, 1, 0, 1, 0, 0, 1], [0] * 8]
    assert grad[0, :, :, 0].tolist() == [[1, 0] * 4, [0] * 8]


def test_any_element_is_more_than_padding_and_a_window_without_one_gives_nothing() -> None:
    x, edges = np.full((1, 1, 2, 1), -np.inf, np.float32), {"size": 2, "stride": 1, "low": 2, "high": 1}
    for engine in (run, lambda op, arrays, attrs: op(*arrays, **attrs).payload):
        out = engine(ops.pool_max, [x], edges)
        assert out.shape == (1, 3, 4, 1) and (out == -np.inf).all()
        grad = engine(ops.pool_max_grad, [np.ones_like(out), x, out], edges)
        assert grad.ravel().tolist() == [4, 2]  # of 12 windows, 2 rows × 3 columns hold an element
        assert not engine(ops.pool_sum, [np.ones_like(x)], edges)[:, 0].any()


def test_threads_change_no_bit() -> None:
    for op, arrays, attrs in calls((24, 16, 17, 40), {"size": 3, "stride": 2, "low": 1, "high": 1}):
        arrays = [a * np.float32(0.1) for a in arrays]
        assert launch_of(node_of(op, arrays, attrs), arrays, 4).chunks > 4
        first = run(op, arrays, attrs)
        for threads in (2, 4):
            assert run(op, arrays, attrs, threads).tobytes() == first.tobytes()


def test_text_knows_no_sizes() -> None:
    def texts(*shapes: tuple[int, ...]) -> list[list[str]]:
        kind = {"size": 3, "stride": 2, "low": 1, "high": 1}
        return [[launch_of(node_of(op, arrays, attrs), arrays, 2).source.text for op, arrays, attrs in calls(s, kind)]
                for s in shapes]

    first, second = texts((1, 5, 6, 7), (3, 9, 8, 64))
    assert first == second


def test_pooling_between_channels_last_ops_copies_nothing() -> None:
    x = tt.tensor(operand((2, 8, 8, 16)), requires_grad=True)

    @tt.compile
    def step(scale: Any) -> Any:
        y = tt.as_tensor(ops.pool_sum(ops.pool_max(x * scale, 2), 2))
        (y * y).sum().backward()
        return y, x.grad

    step(tt.ones(16))
    found = [node.op for node in step.graph.nodes]
    assert {ops.pool_max, ops.pool_sum, ops.pool_max_grad, ops.pool_sum_grad} <= {*found}
    assert not {ops.detach, ops.pad, ops.fold} & {*found} and len(found) <= 8, found


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_instruction_sets(isa: str) -> None:
    run_again(__file__, {"TINYTORCH_ISA": isa})


def test_fenced_memory() -> None:
    run_again(__file__, {})


def test_plain_python() -> None:
    run_again(__file__, {"NUMBA_DISABLE_JIT": "1"}, "plain")


def main() -> None:
    for shape, kind in ([((1, 3, 4, 2), {"size": 2, "stride": 1, "low": 1})] if "plain" in sys.argv else CASES[1:7:2]):
        for op, arrays, attrs in calls(shape, kind):
            out = run(op, [fenced(a, False) for a in arrays], attrs, plain="plain" in sys.argv)
            np.testing.assert_array_equal(out, MEANING[op](*arrays, **attrs), str(op))


if __name__ == "__main__":
    main()
