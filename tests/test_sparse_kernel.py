"""Products with weights that have blocks of zeros against float64: runs, rows, epilogues, threads, instruction sets.

Run as a script, it checks values for the instruction set that the environment names.
"""

import sys
from typing import Any

import numpy as np
import pytest
from again import OTHER_ISAS, run_again

import tinytorch as tt
from tinytorch import passes
from tinytorch.ir import ops
from tinytorch.ir.ops.sparse import pack_sparse

RANDOM = np.random.default_rng(0)
FORMS = [(70, 88, 8), (33, 301, 1)]  # outputs, depth, run


def random(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype("f4")


def sparse(outputs: int, depth: int, run: int) -> np.ndarray:
    """A weight of which each panel of 32 outputs has other runs; the last one has none."""
    weight = random(outputs, depth)
    for panel in range(0, outputs, 32):
        weight[panel:panel + 32] *= (RANDOM.random(depth // run) < (0.4 if panel + 32 < outputs else 0)).repeat(run)
    return weight


def product(x: Any, weight: np.ndarray, run: int) -> Any:
    return tt.as_tensor(ops.sparse_linear(x, *map(tt.Tensor, pack_sparse(weight, run)), outputs=len(weight)))


def check_values(forms: list[tuple[int, int, int]], plain: bool = False) -> None:
    for *form, run in forms:
        weight = sparse(*form, run)
        fast = tt.compile(lambda x, weight=weight, run=run: product(x, weight, run))
        for rows in (1, 2) if plain else (1, 2, 8, 75):
            x = random(rows, form[1])
            bound = 3e-7 * form[1] ** 0.5 * (np.abs(x).astype(float) @ np.abs(weight).T)
            assert (np.abs(fast(tt.Tensor(x)).numpy() - x.astype(float) @ weight.T) <= bound).all(), (form, run, rows)
        assert [node.op.name for node in fast.graph.nodes] == ["sparse_linear"]


def test_values() -> None:
    check_values(FORMS)


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_instruction_sets(isa: str) -> None:
    run_again(__file__, {"TINYTORCH_ISA": isa})


def test_plain_python() -> None:
    run_again(__file__, {"NUMBA_DISABLE_JIT": "1"}, "plain")


def test_what_follows_is_done_in_the_same_launch_and_threads_change_no_bit() -> None:
    weight, x, bias = sparse(200, 512, 8), random(2, 70, 512), random(200)
    found = []
    for threads in (1, 2):
        fast = tt.compile(lambda x: (product(x, weight, 8) + tt.Tensor(bias)).relu() * 2.0, threads=threads)
        found.append(fast(tt.Tensor(x[:, 3:])).numpy())
        assert passes.launches(fast.graph) == 1
    assert found[0].tobytes() == found[1].tobytes()
    np.testing.assert_allclose(found[0], np.maximum(x[:, 3:] @ weight.T + bias, 0) * 2, rtol=1e-4, atol=1e-3)


def test_zeros_are_neither_read_nor_multiplied() -> None:
    weight = np.zeros((64, 64), "f4")
    weight[:32, 8:16] = 1
    assert [part.shape for part in pack_sparse(weight, 8)] == [(1, 8, 32), (1,), (3,)]
    x = random(2, 64)
    x[:, :8] = np.nan
    assert np.isfinite(tt.compile(lambda x: product(x, weight, 8))(tt.Tensor(x)).numpy()).all()


if __name__ == "__main__":
    check_values(FORMS[:1], "plain" in sys.argv)
