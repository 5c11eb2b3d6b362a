"""Depthwise convolution, compiled, against the meaning of its ops: borders, epilogues, both gradients, threads.

Run as a script, it checks the gradients for the instruction set that the environment names.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from again import OTHER_ISAS, run_again

import tinytorch as tt
from tinytorch.ir import Node, TensorType, Value, ops
from tinytorch.ir.interp import make_node
from tinytorch.ir.types import row_major_strides
from tinytorch.runtime.depthwise import emit_depthwise, is_depthwise, phases
from tinytorch.runtime.launch import Launch

RNG = np.random.default_rng(4)
CASES: list[tuple[tuple[int, ...], tuple[int, int], dict[str, Any]]] = [
    ((2, 6, 13, 32), (3, 3), {"low": (1, 0), "high": 1}),  # the last four pixels of a row end outside
    ((3, 7, 12, 19), (3, 3), {"stride": 2, "low": 1, "high": (1, 0)}),
    ((1, 8, 9, 65), (2, 5), {"stride": (1, 2), "low": (2, 3), "high": (0, 1), "dilation": (3, 1)}),
    ((2, 2, 2, 3), (5, 5), {"low": 2, "high": 2}),  # nothing but borders
    ((2, 5, 4, 16), (1, 1), {"stride": 2}),  # its gradient by x has outputs that no tap meets
    ((2, 9, 23, 21), (3, 4), {"stride": 2, "dilation": 2, "low": 2, "high": (2, 3)}),
    ((1, 3, 29, 70), (7, 7), {"low": 3, "high": 3}),
]
SPREAD: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 5, 7, 35), {"spread": 2, "low": 1, "high": (2, 1)}),
    ((1, 4, 6, 16), {"spread": (2, 1), "stride": (1, 2), "low": (2, 0), "high": 1, "dilation": (1, 2)}),
    ((1, 3, 9, 18), {"spread": (1, 4), "low": (-1, 3), "high": 2, "dilation": (1, 3)}),
]


def whole(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Whole numbers, so that sums are exact in any order."""
    return RNG.integers(-4, 5, shape).astype(dtype)


def check(case: tuple[tuple[int, ...], tuple[int, int], dict[str, Any]], dtype: Any = np.float32) -> None:
    """A convolution and its gradients, compiled, are what the ops mean."""
    shape, kernel, attrs = case
    attrs = attrs | {"groups": shape[3]}
    x, w = tt.tensor(whole(*shape, dtype=dtype)), tt.tensor(whole(*kernel, 1, shape[3], dtype=dtype))

    def gradients(x: Any, w: Any, g: Any) -> Any:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = tt.as_tensor(ops.convolve(x, w, **attrs))
        (y * g).sum().backward()
        return y, x.grad, w.grad

    g = tt.tensor(whole(*ops.convolve(x, w, **attrs).shape, dtype=dtype))
    for found, expected in zip(tt.compile(gradients)(x, w, g), gradients(x, w, g), strict=True):
        np.testing.assert_array_equal(found.numpy(), expected.numpy(), str(case))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_results_and_gradients(number: int) -> None:
    check(CASES[number])


def test_doubles() -> None:
    check(CASES[1], np.float64)


@pytest.mark.parametrize(("shape", "attrs"), SPREAD)
def test_spread(shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    x, w = tt.tensor(whole(*shape)), tt.tensor(whole(3, 3, 1, shape[3]))

    def convolve(x: Any, w: Any) -> Any:
        return ops.convolve(x, w, groups=shape[3], **attrs)

    fast = tt.compile(convolve)
    np.testing.assert_array_equal(fast(x, w).numpy(), tt.as_tensor(convolve(x, w)).numpy())
    assert is_depthwise(fast.graph.nodes[-1])


def test_phases() -> None:
    """Σ over the taps of a phase is Σ over all taps k whose element (o · stride + k · gap - low) / spread is whole."""
    for size, stride, low, gap, spread in product((1, 3, 4), (1, 2), (-1, 0, 2), (1, 2, 3), (1, 2, 3, 4)):
        if stride > 1 and spread > 1:
            continue
        for phase in phases(size, stride, low, gap, spread):
            for m in range(3):
                begin = (phase.spread * m + phase.first) * stride - low
                met = {k: (begin + k * gap) // spread for k in range(size) if (begin + k * gap) % spread == 0}
                places = (m * phase.step + phase.at + n * phase.hop for n in range(len(phase.taps)))
                assert dict(zip(phase.taps, places, strict=True)) == met


def node_of(shape: tuple[int, ...], outs: int, **attrs: Any) -> Node:
    """A `convolve` by 3 × 3 of images of this shape."""
    arrays = [np.zeros(shape, np.float32), np.zeros((3, 3, shape[3] // attrs["groups"], outs), np.float32)]
    values = tuple(Value(TensorType.of(a)) for a in arrays)
    return make_node(ops.convolve, values, ops.convolve.prepare(*arrays, **attrs)[1])


def test_text_and_chunks() -> None:
    """No extent is in the text; what takes a microsecond is one part, and what takes long gives work to all threads."""
    def launch(*shape: int) -> Launch:
        node = node_of(shape, shape[3], groups=shape[3], low=1, high=1)
        return emit_depthwise(node, [row_major_strides(v.shape) for v in node.inputs], {}, 2)

    small, big = launch(1, 4, 4, 512), launch(64, 32, 32, 32)
    assert small.source == big.source
    assert (small.chunks, big.chunks) == (1, 8)


def test_which_convolutions_are_meant() -> None:
    def meant(channels: int, outs: int, groups: int, **attrs: Any) -> bool:
        return is_depthwise(node_of((1, 8, 8, channels), outs, groups=groups, **attrs))

    assert meant(8, 8, 8) and meant(8, 8, 8, stride=2, dilation=2)
    assert meant(8, 8, 8, spread=2)
    assert not meant(8, 8, 1) and not meant(8, 16, 8) and not meant(8, 8, 4) and not meant(8, 8, 8, spread=3)


def test_epilogue_in_one_kernel() -> None:
    x, w = tt.tensor(whole(2, 6, 9, 33)), tt.tensor(whole(3, 3, 1, 33))
    bias, residual = tt.tensor(whole(33)), tt.tensor(whole(2, 6, 9, 33))

    def block(x: Any, w: Any, bias: Any, residual: Any) -> Any:
        y = tt.as_tensor(ops.convolve(x, w, low=1, high=1, groups=33))
        return (y + bias).relu() * 2 + residual

    fast = tt.compile(block)
    np.testing.assert_array_equal(fast(x, w, bias, residual).numpy(), block(x, w, bias, residual).numpy())
    assert [node.op.name for node in fast.graph.nodes] == ["fused"]


def test_epilogue_in_place() -> None:
    """A result over the operand that it is added to, four pixels at a time."""
    x, w, v = tt.tensor(whole(2, 6, 13, 50)), tt.tensor(whole(3, 3, 1, 50)), tt.tensor(whole(3, 3, 1, 50))

    def block(x: Any, w: Any, v: Any) -> Any:
        before = tt.as_tensor(ops.convolve(x, w, low=1, high=1, groups=50))
        mixed = tt.as_tensor(ops.convolve(x, v, low=1, high=1, groups=50)) - before
        return ops.convolve(mixed, v, low=1, high=1, groups=50)

    fast = tt.compile(block)
    np.testing.assert_array_equal(fast(x, w, v).numpy(), block(x, w, v).numpy())


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = (tt.tensor(RNG.standard_normal(s).astype(np.float32)) for s in ((8, 24, 24, 40), (3, 3, 1, 40)))

    def gradients(x: Any, w: Any) -> Any:
        w = w.detach().requires_grad_()
        y = tt.as_tensor(ops.convolve(x, w, low=1, high=1, groups=40))
        (y * y).sum().backward()
        return y, w.grad

    results = [tt.compile(gradients, threads=threads)(x, w) for threads in (1, 2, 4)]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_instruction_sets(isa: str) -> None:
    run_again(__file__, {"TINYTORCH_ISA": isa})


if __name__ == "__main__":
    for chosen in CASES[1:3]:
        check(chosen)
