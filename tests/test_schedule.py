"""Waves: what shares one is independent, whatever runs first; early steps come first; there are as few as can be."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import program
from random_graphs import graphs
from realistic_graphs import mlp_step, transformer_block

import tinytorch as tt
from tinytorch.bench.models import NETWORKS, training_step
from tinytorch.ir import Cost, Graph, f32, i64, ops
from tinytorch.passes import PIPELINES, Pipeline, plan_memory
from tinytorch.passes.compare import _evaluate_somehow
from tinytorch.runtime import launch, pool, schedule
from tinytorch.runtime import program as program_module
from tinytorch.runtime.emit import emit_node
from tinytorch.runtime.frame import Frame, address_of
from tinytorch.runtime.launch import SCRATCH, Launch, ScratchStride
from tinytorch.runtime.program import Program
from tinytorch.runtime.schedule import Footprint, Touch, estimated_time, hazards, is_shared, waves

# -- any footprints ----------------------------------------------------------------------------------------------------

touches = st.builds(lambda block, start, size: Touch(("arena", block), start, start + size),
                    st.integers(0, 2), st.integers(0, 12), st.integers(0, 6))
several = st.lists(touches, max_size=3).map(tuple)
footprints = st.lists(st.builds(Footprint, several, several, st.floats(0, 1e6), st.integers(1, 9)), max_size=14)


def bytes_of(some: tuple[Touch, ...]) -> set[Any]:
    return {(t.block, byte) for t in some for byte in range(t.start, t.stop)}


def must_wait(later: Footprint, earlier: Footprint) -> bool:
    """By the definition, byte for byte."""
    return bool(bytes_of(earlier.writes) & bytes_of(later.reads + later.writes)
                or bytes_of(earlier.reads) & bytes_of(later.writes))


@settings(max_examples=200)
@given(footprints)
def test_hazards_are_those_of_the_definition(steps: list[Footprint]) -> None:
    expected = [[i for i in range(j) if must_wait(steps[j], steps[i])] for j in range(len(steps))]
    assert hazards(steps) == expected


@settings(max_examples=200)
@given(footprints, st.sets(st.integers(0, 13)))
def test_waves_keep_the_order_that_matters(steps: list[Footprint], early: set[int]) -> None:
    early = {n for n in early if n < len(steps)}
    first, others = waves(steps, early)
    found = first + others
    when = {step: wave for wave, members in enumerate(found) for step in members}
    assert sorted(when) == list(range(len(steps))) and all(found), "each step once, and no wave without any"
    pairs = [(i, j) for j in range(len(steps)) for i in range(j) if must_wait(steps[j], steps[i])]
    assert all(when[i] < when[j] for i, j in pairs)
    needed = set(early)
    for i, j in reversed(pairs):
        needed |= {i} if j in needed else set()
    assert {step for wave in first for step in wave} == needed, "nothing else goes before the early steps"
    for group in (needed, set(when) - needed):
        depth: dict[int, int] = {}
        for j in sorted(group):
            depth[j] = 1 + max((depth[i] for i, k in pairs if k == j and i in depth), default=0)
        assert max(depth.values(), default=0) == len(first if group is needed else others), "the longest chain"


def test_steps_whose_parts_take_longest_come_first() -> None:
    steps = [Footprint((), (), 30.0, 3), Footprint((), (), 20.0, 1), Footprint((), (), 90.0, 3)]
    assert waves(steps) == ([], [[2, 1, 0]])


def test_a_step_waits_for_the_last_wave_that_it_may_be_in() -> None:
    a, b, other = (Touch(("arena", 0), 8 * n, 8 * n + 8) for n in range(3))
    assert waves([Footprint((), (other,)), Footprint((), (a,)), Footprint((a,), (b,))]) == ([], [[1], [0, 2]])


def test_little_work_is_not_shared() -> None:
    assert estimated_time(Cost(flops=10**6)) > estimated_time(Cost(flops=10**3)) > 0
    assert not is_shared([Footprint((), (), 1e9, 1)]), "one part"
    assert not is_shared([Footprint((), (), 10.0, 4)] * 5)
    assert is_shared([Footprint((), (), 1e6, 2)]) and is_shared([Footprint((), (), 1e6, 1)] * 2)


# -- programs ----------------------------------------------------------------------------------------------------------


@contextmanager
def everything_shared() -> Iterator[pytest.MonkeyPatch]:
    """Steps are cut into as many parts as they can be, and the smallest wave is given to all threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "GRAIN", 1)
        patch.setattr(schedule, "WORTH_SHARING", 0)
        yield patch


def one_by_one(steps: list[Footprint], early: Any = ()) -> tuple[list[list[int]], list[list[int]]]:
    last = max(early, default=-1) + 1
    return [[n] for n in range(last)], [[n] for n in range(last, len(steps))]


def arguments(made: Program, given_: dict[Any, np.ndarray]) -> list[np.ndarray]:
    return [np.array((given_ | dict(made.graph.bound))[v], order="C") for v in made.graph.inputs]


def in_any_order(made: Program, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """What comes out when the steps of each wave run one after the other, shuffled."""
    frame, addresses = Frame(made), list(map(address_of, arrays))
    fresh = [np.empty(made.graph.outputs[i].shape, made.graph.outputs[i].dtype.np) for i in made.fresh]
    frame.point_to(addresses, list(map(address_of, fresh)))
    for wave in made.waves:
        for row in random.Random(0).sample(wave, len(wave)):
            pool.run(frame.table_address + pool.ROW * row, 1, 1)
    return list(map([*fresh, *arrays].__getitem__, made._results))


def same_bits(graph: Graph, threads: tuple[int, ...]) -> None:
    """Fail unless waves give what the steps give one by one, in any order within a wave, and on so many threads."""
    arrays, expected = _evaluate_somehow(graph, np.random.default_rng(1))
    if expected is None:
        return
    lowered, _ = Pipeline(*PIPELINES["train"]).run(graph)
    plan, given_ = plan_memory(lowered), dict(zip(graph.free, arrays, strict=True))
    with everything_shared() as patch:
        with patch.context() as inner:
            inner.setattr(program_module, "waves", one_by_one)
            plain = Program(lowered, plan, 1)
        wanted = [r.tobytes() for r in plain(arguments(plain, given_))]
        for count in threads:
            made = Program(lowered, plan, count)
            assert len(made.waves) <= len(plain.waves) == len(made.steps)
            for run in (made, made, lambda a, made=made: in_any_order(made, a)):
                assert [r.tobytes() for r in run(arguments(made, given_))] == wanted, f"{count} threads"


@settings(max_examples=6)
@given(graph=graphs(max_nodes=12))
def test_random_graphs(graph: Graph) -> None:
    same_bits(graph, (1, 2, 64))


@pytest.mark.slow
@settings(max_examples=200)
@given(graph=graphs(max_nodes=24))
def test_many_random_graphs(graph: Graph) -> None:
    same_bits(graph, (1, 2, 4, 64))


@pytest.mark.parametrize("graph", [mlp_step(16), transformer_block()], ids=lambda g: g.name)
def test_realistic_graphs(graph: Graph) -> None:
    same_bits(graph, (1, 2, 4, 64))


def test_all_that_use_scratch_memory_agree_where_it_lies() -> None:
    lowered, _ = Pipeline(*PIPELINES["train"]).run(mlp_step(64))
    made = Program(lowered, plan_memory(lowered), 2)
    sizes = {step.launch.scratch_bytes for step in made.steps}
    assert len(sizes) > 2, "different needs"
    for step, start in zip(made.steps, made.starts, strict=True):
        strides = [start + at for at, word in enumerate(step.launch.words) if isinstance(word, ScratchStride)]
        assert len(strides) == (SCRATCH in step.launch.words)
        assert all(made.template[at] * made.threads == made.scratch_bytes for at in strides)
    assert made.scratch_bytes >= 2 * max(sizes)


def test_a_kernel_that_lays_out_scratch_memory_itself_runs_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def emit(*given_: Any) -> list[Launch]:
        return [replace(made, words=tuple(int(w) if isinstance(w, ScratchStride) else w for w in made.words))
                for made in emit_node(*given_)]

    monkeypatch.setattr(program_module, "emit_node", emit)
    lowered, _ = Pipeline(*PIPELINES["train"]).run(mlp_step(64))
    made = Program(lowered, plan_memory(lowered), 2)
    counts = [sum(SCRATCH in made.steps[n].launch.words for n in wave) for wave in made.waves]
    assert sum(counts) > 3 and max(counts) == 1


def adam_step() -> Any:
    return training_step(NETWORKS["mlp"].make())


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_waves_of_an_adam_step(threads: int) -> None:
    fast = tt.compile(adam_step(), threads=threads)
    batch = tt.tensor(np.zeros((64, 784), np.float32)), tt.tensor(np.zeros(64, np.int64))
    fast(*batch)
    made = fast.program
    assert len(made.steps) <= 16 and len(made.waves) <= 8
    updates = [n for n, step in enumerate(made.steps) if "sqrt" in str(step.launch.source.text)]
    assert len(set(updates) & set(made.waves[-1])) == 6, "all parameters are updated at once"
    shared = [wave for wave in made.waves if made.shares[wave[0]] >> 32]
    assert bool(shared) is (threads > 1) and len(shared) < len(made.waves), "small steps stay on one thread"
    why, report = fast.explain(1), tt.profile(fast, *batch)
    assert [row.wave for row in why.rows] == [wave for wave, steps in enumerate(made.waves) for _ in steps]
    assert why.waves == report.waves == len(made.waves) and f"in {why.waves} waves" in why.summary()


# -- positions that are checked ----------------------------------------------------------------------------------------


def donating(function: Any, *types: Any) -> Program:
    graph = program(function, *types)
    graph = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, graph.bound, {0: 0})
    lowered, _ = Pipeline(*PIPELINES["none"]).run(graph)
    return Program(lowered, plan_memory(lowered), 2)


def test_what_a_check_need_not_wait_for_comes_after_it() -> None:
    made = donating(lambda w, x, at: (w * 2, ops.take(x, at, 0)), f32[3], f32[4, 2], i64[(2,)])
    assert len(made.parts) == 2 and made._endangered == []
    w, x = np.ones(3, np.float32), np.zeros((4, 2), np.float32)
    with pytest.raises(IndexError, match="take"):
        made([w, x, np.array([0, 4])])
    assert (w == 1).all()


def test_what_a_check_waits_for_is_put_back() -> None:
    def function(w: Any, x: Any) -> Any:
        new = w * 2
        return new, ops.take(x, ops.cast(new, i64), 0)

    made = donating(function, f32[3], f32[4, 2])
    assert made._endangered == [0]
    w, x = np.array([0, 1, 2], np.float32), np.zeros((4, 2), np.float32)
    with pytest.raises(IndexError, match="take"):
        made([w, x])
    np.testing.assert_array_equal(w, [0, 1, 2])
    w[2] = 1
    made([w, x])
    np.testing.assert_array_equal(w, [0, 2, 2])
