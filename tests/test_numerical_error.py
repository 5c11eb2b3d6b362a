"""Rounding errors of compiled functions and their gradients, against float64: no greater than PyTorch's.

Both get the same f32 numbers; what is compared is the root mean square of the error over all elements. Convolutions
and attention have tests of their own (`test_convolution_kernel.py`, `test_attention_kernel.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinytorch as tt

SLACK = 1.1  # two roundings of the same quality differ by chance
FLOOR = 2.0**-24  # of the greatest number: half a unit in its last place

Case = tuple[str, Callable[[Any, Any], Any], tuple[tuple[int, ...], ...]]
CASES: list[Case] = [
    (f"matmul over {k}", lambda _, m: lambda x, w: x @ w, ((33, k), (k, 40))) for k in (64, 200, 784, 1500, 4096)]
CASES += [
    ("linear", lambda F, m: F.linear, ((64, 512), (96, 512))),
    ("one row times a matrix", lambda _, m: lambda x, w: x @ w, ((1, 1024), (1024, 300))),
    ("a matrix times a column", lambda _, m: lambda x, w: x @ w, ((300, 1024), (1024, 1))),
    ("sum of rows", lambda _, m: lambda x: x.sum(-1), ((64, 4000),)),
    ("sum of columns", lambda _, m: lambda x: x.sum(0), ((4000, 64),)),
    ("sum of all", lambda _, m: lambda x: x.sum(), ((500, 600),)),
    ("mean of pixels", lambda _, m: lambda x: x.mean((0, 2, 3)), ((8, 16, 20, 20),)),
    ("variance", lambda _, m: lambda x: x.var(-1), ((64, 3000),)),
    ("softmax", lambda F, m: lambda x: F.softmax(x * 5, -1), ((64, 1000),)),
    ("log softmax", lambda F, m: lambda x: F.log_softmax(x * 5, -1), ((64, 1000),)),
    ("layer norm", lambda F, m: lambda x: F.layer_norm(x, (768,)), ((64, 768),)),
    ("gelu by tanh", lambda F, m: lambda x: F.gelu(x, approximate="tanh"), ((64, 999),)),
    ("gelu", lambda F, m: F.gelu, ((64, 999),)),
    ("silu", lambda F, m: F.silu, ((64, 999),)),
    ("tanh", lambda _, m: lambda x: x.tanh(), ((64, 999),)),
    ("exp", lambda _, m: lambda x: x.exp(), ((64, 999),)),
    ("batch norm", lambda F, m: lambda x: F.batch_norm(x, m.zeros(8), m.ones(8), training=True), ((16, 8, 12, 12),)),
    ("average pool", lambda F, m: lambda x: F.avg_pool2d(x, 3, 2, 1), ((4, 8, 21, 21),)),
]


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


@pytest.mark.parametrize("case", CASES, ids=[name for name, _, _ in CASES])
def test_error_is_no_greater_than_torchs(case: Case, peer: Any) -> None:
    torch = peer("torch")
    name, make, shapes = case
    random = np.random.default_rng(len(name))
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]

    def theirs(dtype: Any) -> list[np.ndarray]:
        operands = [torch.tensor(a, dtype=dtype, requires_grad=True) for a in arrays]
        torch.set_default_dtype(dtype)
        try:
            y = make(torch.nn.functional, torch)(*operands)
        finally:
            torch.set_default_dtype(torch.float32)
        g = torch.tensor(np.random.default_rng(7).standard_normal(y.shape).astype(np.float32), dtype=dtype)
        return [t.detach().numpy() for t in (y, *torch.autograd.grad(y, operands, g))]

    def ours(g: Any, *operands: Any) -> Any:
        y = make(tt.nn.functional, tt)(*operands)
        (y * g).sum().backward()
        return y, *(operand.grad for operand in operands)

    exact = theirs(torch.float64)
    g = np.random.default_rng(7).standard_normal(exact[0].shape).astype(np.float32)
    found = tt.compile(ours)(tt.tensor(g), *(tt.tensor(a, requires_grad=True) for a in arrays))
    for what, mine, other, right in zip(["result", *"xw"], found, theirs(torch.float32), exact):
        error, bound = rms(mine.detach().numpy() - right), rms(other - right)
        least = FLOOR * np.abs(right).max()
        assert error <= max(SLACK * bound, least), f"{name}, {what}: {error:.2e}, torch {bound:.2e}"
