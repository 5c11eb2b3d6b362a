"""Contractions of bytes against sums in 64 bits, and of bf16 against float64: shapes, borders, extremes, epilogues,
layouts, threads, instruction sets, plain Python.

Operands end where readable memory ends. Run as a script, it checks some of them for the instruction set that the
environment names.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from again import OTHER_ISAS, run_again
from grouped import grouped_matrix, grouped_windows
from test_matmul_kernel import fenced

import tinytorch as tt
from tinytorch import passes
from tinytorch.ir import Node, Operand, TensorType, Value, ops
from tinytorch.ir.interp import make_node
from tinytorch.runtime import pool
from tinytorch.runtime.build import compile_kernels
from tinytorch.runtime.contract import emit_contraction
from tinytorch.runtime.launch import Launch, Ref, Scratch

RNG = np.random.default_rng(2)
MATRICES = [(1, 4, 1), (1, 64, 10), (1, 36, 300), (3, 4, 5), (13, 72, 16), (33, 144, 33), (8, 4100, 70), (2, 1024, 3)]
# (shape of x, columns, attributes)
IMAGES: list[tuple[tuple[int, ...], int, dict[str, Any]]] = [
    ((2, 8, 8, 16), 16, {"size": 3, "low": 1, "high": 1, "fill": 7}),
    ((1, 9, 7, 32), 33, {"size": 3, "stride": 2, "low": 1, "high": 1, "fill": 255}),
    ((3, 6, 5, 3), 10, {"size": 3, "low": 1, "high": 1, "fill": 128}),
    ((1, 12, 11, 3), 20, {"size": 7, "stride": 2, "low": 3, "high": 3, "fill": 3}),
    ((2, 6, 9, 1), 6, {"size": (5, 2), "stride": (1, 3), "low": (2, 0), "high": (1, 2)}),
    ((2, 7, 6, 8), 5, {"size": (3, 2), "dilation": (2, 1), "low": (1, 0), "high": (2, 0), "fill": 9}),
    ((1, 7, 9, 8), 20, {"size": (2, 3), "dilation": (1, 3), "groups": 2, "low": 2, "high": 1, "fill": 9}),
    ((2, 5, 6, 4), 40, {"size": 1, "stride": 2}),
    ((2, 6, 5, 4), 7, {"size": 2, "low": -1, "high": (0, -2)}),
    ((300, 1, 1, 12), 3, {"size": 3, "low": 1, "high": 1, "fill": 1}),  # nothing but borders
    ((1, 40, 70, 64), 4, {"size": 3, "low": 1, "high": 1, "fill": 2}),  # in bands
]


def weight_of(natural: np.ndarray, each: int) -> np.ndarray:
    """`quads` or `pairs` of it, as an array."""
    return fenced((ops.quads if each == 4 else ops.pairs)(natural).payload, False)


def numbers(shape: tuple[int, ...], each: int, signed: bool) -> np.ndarray:
    """Bytes to both ends of their range, or bf16."""
    if each == 2:
        return RNG.standard_normal(shape).astype(ml_dtypes.bfloat16)
    return RNG.integers(*((-128, 128) if signed else (0, 256)), shape).astype("i1" if signed else "u1")


def matrices(shape: tuple[int, int, int], each: int = 4) -> tuple[Any, list[np.ndarray], dict[str, Any]]:
    m, k, n = shape
    return (ops.quad_matmul if each == 4 else ops.pair_matmul,
            [fenced(numbers((m, k), each, False), False), weight_of(numbers((k, n), each, True), each)], {})


def images(x: tuple[int, ...], columns: int, attrs: dict[str, Any],
           each: int = 4) -> tuple[Any, list[np.ndarray], dict[str, Any]]:
    size = attrs["size"] if isinstance(attrs["size"], tuple) else (attrs["size"],) * 2
    natural = numbers((*size, x[3] // attrs.get("groups", 1), columns), each, True)
    return (ops.quad_convolve if each == 4 else ops.pair_convolve,
            [fenced(numbers(x, each, False), False), weight_of(natural, each)], attrs | {"size": size})


def node_of(op: Any, arrays: list[np.ndarray], attrs: dict[str, Any]) -> Node:
    """The call as a node, its attributes in canonical form."""
    return make_node(op, tuple(Value(TensorType.of(a)) for a in arrays), op.prepare(*arrays, **attrs)[1])


def launch_of(node: Node, arrays: list[np.ndarray], threads: int) -> Launch:
    assert node.op.native(*(v.type for v in node.inputs), **node.attrs)
    return emit_contraction(node, [tuple(s // a.itemsize for s in a.strides) for a in arrays], {}, threads)


def run(op: Any, arrays: list[np.ndarray], attrs: dict[str, Any], threads: int = 1, plain: bool = False) -> np.ndarray:
    """The op by its kernel. Checks that scratch ends where the launch says."""
    node = node_of(op, arrays, attrs)
    launch = launch_of(node, arrays, threads)
    [kernel] = compile_kernels([launch.source])
    out = fenced(np.full(node.output.shape, 77, node.output.dtype.np), False)
    scratch = np.full(launch.scratch_bytes * threads + 128, 77, np.uint8)
    start = -scratch.ctypes.data % 64
    places = {"input": arrays, "output": [out]}

    def word(thing: Any) -> int:
        if isinstance(thing, Ref):
            return places[thing.place][thing.number].ctypes.data
        return scratch.ctypes.data + start if isinstance(thing, Scratch) else int(thing)

    words = np.array([*map(word, launch.words)], np.int64)
    if plain:
        spec = importlib.util.spec_from_file_location("plain_kernel", kernel.path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        getattr(module, launch.source.name)(words.ctypes.data, 0, launch.extent, 0)
    else:
        table = np.array([kernel.address, words.ctypes.data, launch.extent, launch.chunks], np.int64)
        pool.run(table.ctypes.data, 1, threads)
    assert (scratch[start + launch.scratch_bytes * threads:] == 77).all(), "wrote outside its scratch"
    return out


def check(out: np.ndarray, op: Any, arrays: list[np.ndarray], attrs: dict[str, Any]) -> None:
    """Bytes exactly; bf16 within the bound of a sum of k products in f32, k u |x| |w|, rounded twice a pair."""
    meaning: Callable[..., np.ndarray] = grouped_windows if attrs else grouped_matrix
    exact = meaning(*arrays, **attrs)
    if out.dtype == np.int32:
        np.testing.assert_array_equal(out, exact, f"{op}, {attrs}")
        return
    scale = meaning(*map(np.abs, arrays), **attrs)
    bound = (arrays[1].shape[0] * 2 + 2) * 2.0**-24 * scale
    assert (np.abs(out - exact) <= bound).all(), f"{op}, {attrs}: off by {np.abs(out - exact).max()}"


def test_matrices() -> None:
    for call in [*map(matrices, MATRICES), *(matrices(shape, 2) for shape in MATRICES[1:6:2])]:
        check(run(*call), *call)


def test_images() -> None:
    for case in IMAGES:
        call = images(*case)
        check(run(*call), *call)
    for case in IMAGES[3:8]:
        call = images(case[0], case[1], {**case[2], "fill": 0}, 2)
        check(run(*call), *call)


@pytest.mark.parametrize(("x", "w"), [(255, -128), (255, 127)])
def test_nothing_saturates(x: int, w: int) -> None:
    arrays = [np.full((3, 20000), x, np.uint8), weight_of(np.full((20000, 20), w, np.int8), 4)]
    assert (run(ops.quad_matmul, arrays, {}) == 20000 * x * w).all()


def test_rows_with_gaps() -> None:
    op, (x, w), _ = matrices(MATRICES[4])
    wide = np.zeros((x.shape[0], 2, x.shape[1] + 12), np.uint8)
    wide[:, 1, : x.shape[1]] = x
    check(run(op, [wide[:, 1, : x.shape[1]], w], {}), op, [x, w], {})
    op, (x, w), attrs = images(*IMAGES[0])
    turned = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]  # images and lines backwards in memory
    check(run(op, [turned, w], attrs), op, [x, w], attrs)


def test_threads_change_no_bit() -> None:
    calls = [images((1, 64, 33, 16), 16, {"size": 3, "low": 1, "high": 1}), matrices((300, 64, 70)),
             images((1, 40, 33, 16), 16, {"size": 3, "low": 1, "high": 1}, 2), matrices((300, 128, 70), 2)]
    for op, arrays, attrs in calls:
        assert launch_of(node_of(op, arrays, attrs), arrays, 4).chunks >= 4
        first = run(op, arrays, attrs)
        for threads in (2, 4):
            assert run(op, arrays, attrs, threads).tobytes() == first.tobytes()


def test_text_knows_no_sizes() -> None:
    kind = {"size": 3, "low": 1, "high": 1, "fill": 3}
    calls = [images((1, 8, 8, 16), 16, kind), images((9, 14, 15, 3), 16, kind | {"fill": 5, "size": 5})]
    first, second = (launch_of(node_of(*call), call[1], 2).source.text for call in calls)
    assert first == second


def requantised(x: Any, weight: Any, bias: Any, scale: Any, rest: Any) -> Any:
    """A layer of a network in bytes: convolution, bias, scale of each channel, something added, ReLU, rounding."""
    y = ops.quad_convolve(x, weight, (3, 3), low=1, high=1, fill=3)
    z = ops.add(ops.mul(ops.cast(ops.add(y, bias), "f32"), scale), ops.mul(ops.sub(ops.cast(rest, "f32"), 10.0), 0.5))
    return ops.cast(ops.clip(ops.add(ops.round(ops.maximum(z, 0.0)), 4.0), 0.0, 255.0), "u8")


def test_a_layer_is_one_kernel_that_writes_bytes() -> None:
    _, (x, weight), _ = images((2, 9, 8, 16), 32, {"size": 3})
    bias, scale = RNG.integers(-999, 999, 32).astype(np.int32), (RNG.random(32) * 1e-3).astype(np.float32)
    arrays = [x, weight, bias, scale, RNG.integers(0, 256, (2, 9, 8, 32)).astype(np.uint8)]
    layer = tt.compile(requantised)
    found = layer(*map(tt.tensor, arrays)).numpy()
    np.testing.assert_array_equal(found, requantised(*map(Operand, arrays)).payload)
    assert len(set(found.ravel().tolist())) > 50
    assert [node.op.name for node in layer.graph.nodes] == ["fused"]


def test_a_stack_of_rows_is_one_product_with_its_epilogue() -> None:
    x, weight = numbers((2, 3, 5, 8), 4, False), weight_of(numbers((8, 6), 4, True), 4)
    bias = RNG.standard_normal(6).astype(np.float32)
    call: Callable[..., Any] = lambda x, w, b: ops.maximum(ops.add(ops.cast(ops.quad_matmul(x, w), "f32"), b), 0.0)
    compiled = tt.compile(call)
    np.testing.assert_array_equal(compiled(*map(tt.tensor, (x, weight, bias))).numpy(),
                                  np.maximum(grouped_matrix(x, weight).astype(np.float32) + bias, 0))
    assert [node.op.name for node in compiled.graph.nodes] == ["fused"]


def test_weights_are_laid_out_by_ops() -> None:
    natural = numbers((7, 5), 4, True)
    lying = weight_of(natural, 4)
    assert lying.shape == (2, 5, 4) and not lying[1, :, 3].any()
    np.testing.assert_array_equal(lying.swapaxes(1, 2).reshape(8, 5)[:7], natural)
    filters = weight_of(numbers((3, 3, 3, 5), 4, True), 4)
    assert filters.shape == (9, 5, 4) and not filters[2::3, :, 1:].any(), "each row of a kernel is filled up by itself"
    with pytest.raises(tt.errors.ShapeError, match="expected a matrix"):
        ops.quads(natural[0])


def test_what_has_no_kernel_is_opened() -> None:
    call = images((2, 5, 6, 6), 6, {"size": 3, "groups": 6, "low": 1, "high": 1, "fill": 9})  # depthwise
    op, arrays, attrs = call
    graph = tt.trace(lambda x, w: op(x, w, **attrs), *map(tt.tensor, arrays))
    opened, _ = passes.Pipeline(passes.ExpandComposites()).run(graph)
    assert op not in {node.op for node in opened.nodes}
    check(tt.compile(lambda x, w: op(x, w, **attrs))(*map(tt.tensor, arrays)).numpy(), *call)


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_instruction_sets(isa: str) -> None:
    run_again(__file__, {"TINYTORCH_ISA": isa})


def test_plain_python() -> None:
    run_again(__file__, {"NUMBA_DISABLE_JIT": "1"}, "plain")


def main() -> None:
    if plain := "plain" in sys.argv:
        calls = [matrices((3, 8, 5)), matrices((5, 8, 3), 2), images((1, 3, 4, 3), 3, {"size": 3, "low": 1, "high": 1}),
                 images((1, 3, 4, 4), 2, {"size": 2, "low": 1, "groups": 1, "dilation": 2, "fill": 3})]
    else:
        calls = [*map(matrices, MATRICES[2:6]), matrices(MATRICES[5], 2),
                 *(images(*case) for case in (*IMAGES[:3], IMAGES[6]))]
    for op, arrays, attrs in calls:
        check(run(op, arrays, attrs, plain=plain), op, arrays, attrs)


if __name__ == "__main__":
    main()
