"""Attention's kernels against float64: shapes, groups, masks, views, threads, instruction sets, memory, plain Python.

Run as a script, it checks some shapes on operands that end where readable memory ends, for the instruction set that the
environment names.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from again import OTHER_SETTINGS, run_again

import tinytorch as tt
from tinytorch.ir import Builder, Graph, Op, Recorder, TensorType, ops
from tinytorch.passes import PIPELINES, ExpandComposites, Pipeline, plan_memory
from tinytorch.passes.autodiff import reverse
from tinytorch.runtime.program import Program

Array = np.ndarray


class Case(NamedTuple):
    """One call: heads of queries and of keys, head_dim of queries and of values, "bool" or "f32" for a mask."""

    batch: int
    heads: int
    key_heads: int
    n: int
    m: int
    d: int
    e: int
    causal: bool = False
    mask: str = ""
    mask_shape: tuple[int, ...] = ()


CASES = [
    Case(1, 1, 1, 32, 32, 16, 16),
    Case(2, 4, 4, 64, 64, 32, 32, True),
    Case(1, 8, 2, 37, 201, 64, 32, True),
    Case(2, 2, 1, 70, 45, 48, 16, True),                     # the first queries see nothing
    Case(1, 2, 2, 129, 300, 64, 64),
    Case(1, 1, 1, 17, 5, 16, 16, True),
    Case(3, 1, 1, 23, 1, 16, 48),
    Case(1, 3, 3, 150, 150, 80, 112, True),
    Case(2, 2, 2, 50, 60, 32, 32, True, "bool", (2, 1, 50, 60)),
    Case(2, 4, 2, 50, 61, 32, 32, False, "f32", (1, 4, 50, 61)),
    Case(2, 2, 2, 33, 35, 32, 64, False, "bool", (2, 1, 1, 35)),
    Case(2, 2, 1, 40, 33, 32, 16, False, "f32", (33,)),
    Case(1, 2, 2, 34, 36, 32, 32, False, "bool", (34, 1)),     # whole queries see nothing
]


def operands(case: Case, size: float = 1.0) -> list[Array]:
    """q, k, v, the mask if there is one, and the cotangent of the result."""
    random = np.random.default_rng(list(case[:7]))
    q, k, v, g = (random.standard_normal(shape).astype(np.float32) for shape in (
        (case.batch, case.heads, case.n, case.d), (case.batch, case.key_heads, case.m, case.d),
        (case.batch, case.key_heads, case.m, case.e), (case.batch, case.heads, case.n, case.e)))
    masks = {"": [], "bool": [random.random(case.mask_shape) < 0.6],
             "f32": [random.standard_normal(case.mask_shape).astype(np.float32)]}
    return [size * q, size * k, v, *masks[case.mask], g]


def definition(case: Case, arrays: list[Array]) -> list[Array]:
    """The result and the cotangents of q, k and v in float64, from the formulas."""
    q, k, v, *mask, g = (a if a.dtype == bool else a.astype(np.float64) for a in arrays)
    group = case.heads // case.key_heads
    k, v = k.repeat(group, 1), v.repeat(group, 1)
    scores = q @ k.swapaxes(-1, -2) / case.d ** 0.5
    if mask:
        scores = np.where(mask[0], scores, -np.inf) if mask[0].dtype == bool else scores + mask[0]
    if case.causal:
        scores = np.where(np.tri(case.n, case.m, case.m - case.n, dtype=bool), scores, -np.inf)
    top = scores.max(-1, keepdims=True)
    e = np.exp(scores - np.where(np.isinf(top), 0, top))
    p = e / np.maximum(e.sum(-1, keepdims=True), 1e-300)
    out, dp = p @ v, g @ v.swapaxes(-1, -2)
    ds = p * (dp - (g * out).sum(-1, keepdims=True)) / case.d ** 0.5
    dk, dv = ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ g
    return [out, ds @ k, *(x.reshape(case.batch, case.key_heads, group, case.m, -1).sum(2) for x in (dk, dv))]


def traced(arrays: list[Array], **attrs: Any) -> Graph:
    """Attention and its gradients, as a graph of q, k, v, the mask, and the cotangent."""
    build = Builder("attention")
    given = [build.input("x", TensorType.of(a)) for a in arrays]
    with build, Recorder() as tape:
        y = ops.attention(*given[:-1], **attrs)
        made = {id(out): record for record in tape.records for out in record.outputs}
        found = reverse([y], given[-1:], lambda handle: made.get(id(handle)))
    return build.finish([y, *(found[id(x)] for x in given[:3])])


def compiled(graph: Graph, threads: int = 1) -> Program:
    lowered = Pipeline(*PIPELINES["train"])(graph)
    return Program(lowered, plan_memory(lowered), threads)


def launches(program: Program) -> list[str]:
    """The kernels of a program in order, without the copies of results that are views."""
    return [step.kernel.name for step in program.steps if step.node is not None]


def launched(graph: Graph) -> Iterator[Op]:
    """The ops of a graph, those of its fused nodes among them."""
    for node in graph.nodes:
        yield from launched(node.body) if node.body else [node.op]


def check(case: Case, arrays: list[Array], bound: float = 2e-6) -> None:
    program = compiled(traced(arrays, causal=case.causal))
    assert [name for name in launches(program) if "attend" in name] == ["attend", "attend_grad"]
    for number, (found, exact) in enumerate(zip(program(arrays), definition(case, arrays), strict=True)):
        error = np.abs(found - exact).max()
        assert error <= bound * max(np.abs(exact).max(), 2), f"result {number} of {case} is off by {error}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_its_definition(case: Case) -> None:
    check(case, operands(case))


def test_scale_and_large_scores() -> None:
    case = Case(1, 2, 2, 40, 300, 32, 32)
    arrays = operands(case, 5.0)
    check(case, arrays, 2e-5)  # scores of up to 200 carry errors of 1e-5, and so do their exponentials
    half = compiled(traced(arrays, scale=0.5 / case.d ** 0.5))(arrays)
    exact = definition(case, [0.5 * arrays[0], *arrays[1:]])
    np.testing.assert_allclose(half[0], exact[0], atol=2e-5)
    np.testing.assert_allclose(half[1], 0.5 * exact[1], atol=2e-4)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    case = Case(1, 2, 2, 34, 36, 32, 32, False, "bool", (34, 1))
    arrays = operands(case)
    blind = ~arrays[3][:, 0]
    assert blind.any()
    out, dq, _, _ = compiled(traced(arrays))(arrays)
    assert not out[:, :, blind].any() and not dq[:, :, blind].any() and out[:, :, ~blind].all()


def test_nan_stays_with_its_query() -> None:
    case = Case(1, 1, 1, 40, 40, 16, 16)
    arrays = operands(case)
    arrays[0][0, 0, 7, 3] = np.nan
    out = compiled(traced(arrays))(arrays)[0]
    assert np.isnan(out[0, 0, 7]).all() and not np.isnan(np.delete(out, 7, 2)).any()


def test_heads_of_one_product_are_read_and_written_where_they_lie() -> None:
    batch, time, heads, d = 2, 40, 4, 16

    def layer(x: Any) -> Any:
        whole = ops.reshape(x, (batch, time, 3, heads, d))
        q, k, v = (ops.transpose(ops.reshape(ops.slice(whole, (0, 0, i, 0, 0), (batch, time, 1, heads, d)),
                                             (batch, time, heads, d)), (0, 2, 1, 3)) for i in range(3))
        y = ops.attention(q, k, v, causal=True)
        return ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (batch, time, heads * d))

    build = Builder("layer")
    x = build.input("x", TensorType(tt.f32, (batch, time, 3 * heads * d)))
    with build:
        y = layer(x)
    program = compiled(build.finish([y]))
    assert launches(program) == ["attend"]
    array = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    q, k, v = array.reshape(batch, time, 3, heads, d).transpose(2, 0, 3, 1, 4)
    exact = definition(Case(batch, heads, heads, time, time, d, d, True), [q, k, v, np.zeros_like(q)])[0]
    np.testing.assert_allclose(program([array])[0], exact.swapaxes(1, 2).reshape(y.shape), atol=2e-6)


@pytest.mark.parametrize("case", [
    Case(2, 4, 4, 70, 70, 32, 32, True), Case(1, 2, 1, 150, 150, 64, 64, True), Case(1, 3, 3, 130, 170, 64, 32),
    Case(1, 1, 1, 300, 300, 64, 64, False, "f32", (300, 300))], ids=str)
def test_threads_and_repetition_change_no_bit(case: Case) -> None:
    arrays = operands(case)
    graph = traced(arrays, causal=case.causal)
    first = compiled(graph)(arrays)
    for threads in (1, 2, 4):
        program = compiled(graph, threads)
        for _ in range(2):
            program([*arrays[:-1], -arrays[-1]])  # leaves other numbers wherever one might be forgotten
            for found, expected in zip(program(arrays), first, strict=True):
                assert found.tobytes() == expected.tobytes(), f"{threads} threads"


def test_few_heads_are_cut_for_many_threads() -> None:
    case = Case(1, 2, 1, 150, 150, 64, 64, True)
    graph = traced(operands(case), causal=True)
    assert launches(compiled(graph, 1)).count("attend_grad") == 1
    program = compiled(graph, 4)
    assert launches(program).count("attend_grad") == 2
    assert all(step.launch.extent >= 4 for step in program.steps if step.kernel.name == "attend_grad")


def test_memory_is_linear_in_time() -> None:
    def memory(time: int) -> int:
        arrays = [np.empty((1, 2, time, 64), np.float32)] * 4
        program = compiled(traced(arrays, causal=True))
        return program.arena_bytes + program.scratch_bytes

    small, large = memory(1024), memory(2048)
    assert large <= 2 * small
    assert large < 2 * 2048 * (4 * 64 + 8) * 4 + (1 << 18)  # result, cotangents, two numbers a query; scratch


def test_opens_on_demand_and_where_no_kernel_fits() -> None:
    arrays = operands(Case(1, 4, 2, 20, 20, 16, 16))
    once = ExpandComposites(only=("attention",))(traced(arrays))
    assert next(node.op for node in once.nodes if node.op.kind.launches) is ops.attend
    whole = ExpandComposites(only=("attention", "attend", "attend_grad"))(traced(arrays))
    assert {ops.matmul, ops.exp, ops.log} <= {node.op for node in whole.nodes}
    short, double = operands(Case(1, 1, 1, 20, 20, 20, 16)), [a.astype(np.float64) for a in arrays]
    for others in (short, double, operands(Case(1, 2, 2, 15, 20, 16, 16))):
        names = [op.name for op in launched(Pipeline(*PIPELINES["train"])(traced(others)))]
        assert not any("attend" in name for name in names) and names.count("matmul") == 6


def test_tape_takes_both_results() -> None:
    random = np.random.default_rng(1)
    q, k, v = (tt.tensor(random.standard_normal((1, 3, 2, 4)), requires_grad=True) for _ in range(3))

    def total(q: Any, weight: float) -> Any:
        out, lse = ops.attend(q, k, v, causal=True)
        return (out * out).sum() * weight + (lse * lse).sum()

    direction = random.standard_normal(q.shape)
    for weight in (0.0, 1.0):  # without and with the first result
        [first] = tt.grad(lambda q, w=weight: total(q, w), argnums=(0,))(q)
        plus, minus = (total(tt.tensor(q.numpy() + s * 1e-6 * direction), weight).item() for s in (1, -1))
        np.testing.assert_allclose((first.numpy() * direction).sum(), (plus - minus) / 2e-6, rtol=1e-6)


def rms(x: Array) -> float:
    return float(np.sqrt(np.square(x).mean()))


@pytest.mark.peers
@pytest.mark.parametrize("case", [
    Case(1, 8, 8, 128, 128, 64, 64), Case(1, 2, 2, 700, 700, 64, 64, True), Case(2, 4, 4, 64, 64, 32, 32, True)],
    ids=str)
def test_error_is_no_worse_than_torchs(case: Case) -> None:
    torch = pytest.importorskip("torch")
    arrays = operands(case)
    q, k, v, g = map(torch.tensor, arrays)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    y = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=case.causal)
    theirs = [y.detach(), *torch.autograd.grad(y, leaves, g)]
    ours = compiled(traced(arrays, causal=case.causal))(arrays)
    for mine, other, exact in zip(ours, theirs, definition(case, arrays), strict=True):
        assert rms(mine - exact) <= 1.02 * rms(other.numpy() - exact)


@pytest.mark.parametrize("settings", OTHER_SETTINGS, ids=str)
def test_instruction_sets_and_fenced_memory(settings: dict[str, str]) -> None:
    run_again(__file__, settings)


def fenced(x: Array) -> Array:
    """The same elements, the last of them just before memory that cannot be read."""
    page = mmap.PAGESIZE
    room = -(-x.nbytes // page) * page
    memory = mmap.mmap(-1, room + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + room), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(memory, x.dtype, x.size, room - x.nbytes).reshape(x.shape)
    copy[...] = x
    return copy


def main() -> None:
    plain = "NUMBA_DISABLE_JIT" in os.environ
    for case in [Case(1, 2, 1, 17, 6, 16, 16, True)] if plain else [CASES[i] for i in (2, 3, 8)]:
        check(case, [fenced(a) for a in operands(case)])


if __name__ == "__main__":
    main()
