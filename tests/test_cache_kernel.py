"""Kernels on caches against float64: groups, windows, stored types, views, in place, threads, instruction sets.

Run as a script, it checks some shapes on operands that end where readable memory ends, for the instruction set that the
environment names.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import pytest
from again import OTHER_SETTINGS, run_again
from test_attention_kernel import compiled, fenced, launches

from tinytorch.ir import Builder, Graph, TensorType, ops

Array = np.ndarray


class Case(NamedTuple):
    """One call: heads of queries and of keys, head_dim of queries and of values, where sequences stand."""

    heads: int
    key_heads: int
    n: int
    capacity: int
    d: int
    e: int
    at: tuple[int, ...]
    window: int | None = None
    store: str = "f32"


CASES = [
    Case(4, 4, 1, 300, 32, 32, (0, 299, 130)),
    Case(9, 3, 1, 200, 64, 64, (150,)),
    Case(8, 4, 1, 70, 8, 8, (63, 64)),                    # heads narrower than a vector
    Case(2, 2, 5, 90, 16, 48, (0, 80), 7),
    Case(6, 2, 40, 150, 32, 32, (0, 100, 31)),            # panels
    Case(4, 1, 19, 100, 20, 12, (5, 70), 16),
    Case(9, 3, 1, 130, 64, 64, (120, 3), None, "i8"),
    Case(2, 1, 3, 80, 32, 16, (70, 0), 20, "i8"),
    Case(4, 2, 2, 100, 16, 16, (90, 64), None, "bf16"),
]


def operands(case: Case) -> list[Array]:
    """q, k, v, positions, and the scales of integers; nothing is known of what lies behind a sequence's end."""
    random, batch = np.random.default_rng(list(case[:6])), len(case.at)
    q = random.standard_normal((batch, case.n, case.heads, case.d)).astype(np.float32)
    k, v = (random.standard_normal((batch, case.capacity, case.key_heads, x)).astype(np.float32)
            for x in (case.d, case.e))
    scales: list[Array] = []
    if case.store == "i8":
        scales = [np.abs(t).max(-1) / 127 for t in (k, v)]
        k, v = (np.rint(t / s[..., None]).astype(np.int8) for t, s in zip((k, v), scales))
    elif case.store == "bf16":
        k, v = (np.asarray(ops.cast(t, "bf16").payload) for t in (k, v))
    for b, p in enumerate(case.at):
        for t in (k, v)[:2 * (case.store != "i8")] + tuple(scales)[:]:
            t[b, p + case.n:] = np.nan
    return [q, k, v, np.array(case.at), *scales]


def definition(case: Case, arrays: list[Array]) -> Array:
    """In float64, a query at a time."""
    q, k, v = (t.astype(np.float64) for t in arrays[:3])
    if len(arrays) > 4:
        k, v = k * arrays[4][..., None], v * arrays[5][..., None]
    out = np.empty((*q.shape[:3], case.e))
    for b, i, h in np.ndindex(*q.shape[:3]):
        own, g = case.at[b] + i, h * case.key_heads // case.heads
        seen = np.s_[max(0, own + 1 - (case.window or own + 1)):own + 1]
        scores = k[b, seen, g] @ q[b, i, h] / case.d ** 0.5
        e = np.exp(scores - scores.max())
        out[b, i, h] = e / e.sum() @ v[b, seen, g]
    return out


def traced(arrays: list[Array], **attrs: Any) -> Graph:
    """`attend_cached` as a graph of its operands."""
    build = Builder("attend")
    with build:
        y = ops.attend_cached(*(build.input("x", TensorType.of(a)) for a in arrays), **attrs)
    return build.finish([y])


def check(case: Case, arrays: list[Array], threads: int = 1) -> Array:
    program = compiled(traced(arrays, window=case.window), threads)
    assert launches(program) == ["attend_cached"]
    [found] = program(arrays)
    np.testing.assert_allclose(found, definition(case, arrays), atol=3e-6, err_msg=str(case))
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_its_definition_and_reads_no_key_behind_a_position(case: Case) -> None:
    arrays = operands(case)
    found = check(case, arrays)
    assert found.tobytes() == check(case, arrays, threads=4).tobytes()


def test_sharp_scores_and_nan() -> None:
    case = Case(2, 2, 1, 200, 32, 32, (190,))
    arrays = operands(case)
    arrays[0][0, 0, 0] *= 40  # all weight on one key
    check(case, arrays)
    arrays[0][0, 0, 1, 3] = np.nan
    [out] = compiled(traced(arrays))(arrays)
    assert np.isnan(out[0, 0, 1]).all() and not np.isnan(out[0, 0, 0]).any()


def updating(cache: Array, rows: Array, *, donate: bool = True) -> Graph:
    """`write_rows` with its result in place of the cache, and a number that is read from it."""
    build = Builder("update")
    handles = [build.input("x", TensorType.of(a)) for a in (cache, rows, np.zeros(len(rows), np.int64))]
    with build:
        new = ops.write_rows(*handles)
        graph = build.finish([new, ops.sum(new)])
    return graph.with_(donated={0: 0}) if donate else graph


def test_rows_are_written_in_place_and_nothing_else_moves() -> None:
    random = np.random.default_rng(0)
    cache = random.standard_normal((2, 50, 3, 8)).astype(np.float32)
    rows = random.standard_normal((2, 2, 3, 8)).astype(np.float32)
    expected = cache.copy()
    expected[0, 7:9], expected[1, 48:50] = rows
    for donate in (True, False):
        program = compiled(updating(cache, rows, donate=donate))
        assert len(program.steps) == (3 if donate else 4)  # a check, rows, the sum; or a copy of the cache too
        given = cache.copy()
        new, total = program([given, rows, np.array([7, 48])])
        assert (new is given) == donate and (new == expected).all()
        np.testing.assert_allclose(total, expected.sum(), rtol=1e-4)
        assert donate or (given == cache).all()


@pytest.mark.parametrize("position", [49, -51, 2**40, -2**40])
def test_a_row_outside_is_refused_and_the_cache_is_whole(position: int) -> None:
    cache, rows = np.ones((2, 50, 3, 8), np.float32), np.zeros((2, 2, 3, 8), np.float32)
    for donate in (True, False):  # a copy is written before anybody has looked at the check: nothing outside of it
        program = compiled(updating(cache, rows, donate=donate))
        with pytest.raises(IndexError, match="out of range in write_rows"):
            program([cache, rows, np.array([0, position])])
        assert (cache == 1).all()


def test_rows_are_read_where_they_lie() -> None:
    build = Builder("split")
    whole, cache, at = (build.input("x", TensorType.of(a)) for a in (
        np.zeros((2, 1, 3, 4, 8), np.float32), np.zeros((2, 9, 4, 8), np.float32), np.zeros(2, np.int64)))
    with build:
        rows = ops.reshape(ops.slice(whole, (0, 0, 1, 0, 0), (2, 1, 1, 4, 8)), (2, 1, 4, 8))
        graph = build.finish([ops.write_rows(cache, rows, at)]).with_(donated={0: 1})
    program = compiled(graph)
    assert launches(program) == ["check_rows", "write_rows"]
    array = np.random.default_rng(0).standard_normal(whole.shape).astype(np.float32)
    [new] = program([array, np.zeros(cache.shape, np.float32), np.array([3, 8])])
    assert (new[0, 3] == array[0, 0, 1]).all() and (new[1, 8] == array[1, 0, 1]).all()
    assert np.count_nonzero(new) == 2 * 4 * 8


@pytest.mark.parametrize("settings", OTHER_SETTINGS, ids=str)
def test_instruction_sets_and_fenced_memory(settings: dict[str, str]) -> None:
    run_again(__file__, settings)


def main() -> None:
    plain = "NUMBA_DISABLE_JIT" in os.environ
    for case in [Case(2, 1, 2, 8, 4, 4, (6,), 3, "i8")] if plain else [CASES[i] for i in (1, 4, 7)]:
        check(case, [fenced(a) for a in operands(case)])


if __name__ == "__main__":
    main()
