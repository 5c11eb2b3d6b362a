"""Products with weights of 8 and 4 bits against float64: forms, rows, epilogues, threads, instruction sets, Python.

Run as a script, it checks values for the instruction set that the environment names.
"""

import os
import sys
from typing import Any

import numpy as np
import pytest
from again import OTHER_ISAS, run_again

import tinytorch as tt
from tinytorch import passes
from tinytorch.ir import ops
from tinytorch.passes.quantize_weights import PackedWeight

RANDOM = np.random.default_rng(0)
# bits, outputs, depth, group, with an offset; the last group of the first is not full, those of the second are one
FORMS = [(4, 70, 88, 16, False), (8, 33, 300, 300, False), (4, 32, 256, 128, True), (8, 40, 24, 8, True)]
ROWS = (1, 2, 5, 8, 75)


def packed(bits: int, outputs: int, depth: int, group: int, offset: bool) -> PackedWeight:
    """A weight of all numbers that there are, with scales of both signs."""
    half, shape = 1 << (bits - 1), (outputs, -(-depth // group))
    return PackedWeight(RANDOM.integers(-half, half, (outputs, depth)).astype(np.int8),
                        RANDOM.standard_normal(shape).astype("f4") / half,
                        RANDOM.standard_normal(shape).astype("f4") if offset else None, bits, group)


def random(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype("f4")


def product(x: Any, weight: PackedWeight) -> Any:
    return ops.packed_linear(x, *map(tt.Tensor, weight.arrays.values()), **weight.attrs)


def check_values(plain: bool = False) -> None:
    for form in FORMS[::3] if plain or "TINYTORCH_ISA" in os.environ else FORMS:
        weight = packed(*form)
        whole = weight.dequantized().astype(float)
        fast = tt.compile(lambda x, weight=weight: product(x, weight))
        for rows in ROWS[:3] if plain else ROWS:
            x = random(rows, form[2])
            bound = 3e-7 * form[2] ** 0.5 * (np.abs(x).astype(float) @ np.abs(whole).T)
            assert (np.abs(fast(tt.Tensor(x)).numpy() - x.astype(float) @ whole.T) <= bound).all(), (form, rows)
        assert [node.op.name for node in fast.graph.nodes] == ["packed_linear"]


def test_values() -> None:
    check_values()


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_instruction_sets(isa: str) -> None:
    run_again(__file__, {"TINYTORCH_ISA": isa})


def test_plain_python() -> None:
    run_again(__file__, {"NUMBA_DISABLE_JIT": "1"}, "plain")


def test_rows_of_a_view_are_read_where_they_lie() -> None:
    weight = packed(*FORMS[0])
    wide = random(3, 4, 100)
    fast = tt.compile(lambda x: product(x[..., 5:93], weight) + product(x[:, -1, 5:93], weight)[:, None])
    wanted = wide[..., 5:93] @ weight.dequantized().T
    np.testing.assert_allclose(fast(tt.Tensor(wide)).numpy(), wanted + wanted[:, -1:], rtol=1e-4, atol=1e-4)
    assert not any(node.op is ops.detach for node in fast.graph.nodes)


def layer(x: Any, more: Any, weight: PackedWeight, bias: Any) -> Any:
    return ops.maximum(product(x, weight) + bias, 0.0) * 2.0 + more


@pytest.mark.parametrize("rows", [1, 9, 130])
def test_what_follows_is_done_in_the_same_launch_and_threads_change_no_bit(rows: int) -> None:
    weight = packed(4, 200, 512, 32, False)
    x, more, bias = random(1, rows, 512), random(1, rows, 200), random(200)
    once: bytes | None = None
    for threads in (1, 2, 4):
        fast = tt.compile(lambda x, more: layer(x, more, weight, tt.Tensor(bias)), threads=threads)
        found = fast(tt.Tensor(x), tt.Tensor(more)).numpy()
        assert passes.launches(fast.graph) == 1
        assert once is None or found.tobytes() == once
        once = found.tobytes()
    np.testing.assert_allclose(found, np.maximum(x @ weight.dequantized().T + bias, 0) * 2 + more, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("depth", "group"), [(10, 8), (512, 256)])
def test_what_the_kernel_does_not_take_is_opened_and_no_weight_is_kept_as_floats(depth: int, group: int) -> None:
    weight, x = packed(4, 4000, depth, group, False), random(2, depth)
    fast = tt.compile(lambda x: product(x, weight))
    np.testing.assert_allclose(fast(tt.Tensor(x)).numpy(), x @ weight.dequantized().T, rtol=1e-4, atol=1e-4)
    assert ops.packed_linear not in [node.op for node in fast.graph.nodes]
    floats = [value for value in fast.graph.bound if value.dtype.is_float and value.type.size >= 4000 * depth]
    assert depth < 512 or not floats


def test_infinities_and_nans_stay_in_their_rows() -> None:
    weight = packed(*FORMS[0])
    x = np.ones((3, 88), "f4")
    x[0, 3], x[2, 80] = np.inf, np.nan
    found = tt.compile(lambda x: product(x, weight))(tt.Tensor(x)).numpy()
    assert np.isfinite(found[1]).all() and np.isnan(found[2]).all()
    assert not np.isfinite(found[0]).any()


if __name__ == "__main__":
    check_values("plain" in sys.argv)
