"""Programs: what they compute on random graphs, their memory, their errors, other instruction sets, plain Python."""

import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from programs import program
from random_graphs import graphs
from realistic_graphs import mlp_step, transformer_block

import tinytorch.compile  # noqa: F401 (the package's own pipelines)
from tinytorch.ir import Graph, f32, i64, ops
from tinytorch.ir.errors import ShapeError
from tinytorch.passes import PIPELINES, PackOperands, Pipeline, plan_memory
from tinytorch.passes.compare import _evaluate_somehow, compare_results
from tinytorch.runtime import pool
from tinytorch.runtime.frame import _official_address, address_of
from tinytorch.runtime.program import IDLE_FRAMES, Program


def ready(graph: Graph, pipeline: str = "train", threads: int = 1, in_place: bool = True) -> Program:
    """The program of a graph."""
    lowered, _ = Pipeline(*PIPELINES[pipeline]).run(graph)
    return Program(lowered, plan_memory(lowered, in_place=in_place), threads)


def call(made: Program, graph: Graph, free: list[np.ndarray]) -> list[np.ndarray]:
    """Run on copies, since donated inputs are overwritten."""
    given = dict(zip(graph.free, free, strict=True)) | made.graph.bound
    return made([np.array(given[v], order="C") for v in made.graph.inputs])  # constants may have been folded


def check(graph: Graph, *ways: tuple[str, int, bool]) -> None:
    """Fail unless each way of compiling `graph` gives what it means."""
    arrays, expected = _evaluate_somehow(graph, np.random.default_rng(1))
    single = any(v.dtype is f32 for node in graph.nodes for v in node.outputs)
    if expected is None:
        return
    for pipeline, threads, in_place in ways:
        made = ready(graph, pipeline, threads, in_place)
        first = call(made, graph, arrays)
        compare_results(expected, first, graph, 2e-4 if single else None)
        for a, b in zip(first, call(made, graph, arrays), strict=True):
            np.testing.assert_array_equal(a, b, "another run gives other bits")


# -- meaning -----------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(graph=graphs(max_nodes=8))
def test_random_graphs(graph: Graph) -> None:
    check(graph, ("train", 1, True), ("train", 2, False))


@pytest.mark.slow
@settings(max_examples=250)
@given(graph=graphs(max_nodes=16))
def test_many_random_graphs(graph: Graph) -> None:
    check(graph, ("train", 1, True), ("train", 2, False), ("none", 2, True))


@settings(max_examples=15)
@given(graph=graphs(max_nodes=14, steps=("unary", "binary", "number", "reduce", "broadcast", "reshape", "compare",
                                         "choose")))
def test_random_loop_nests(graph: Graph) -> None:
    check(graph, ("train", 1, True), ("train", 1, False))


@pytest.mark.parametrize("graph", [mlp_step(16), transformer_block()], ids=lambda g: g.name)
def test_realistic_graphs(graph: Graph) -> None:
    check(graph, ("train", 1, True), ("train", 2, False))


# -- calling -----------------------------------------------------------------------------------------------------------


def lookup() -> Graph:
    """An update of `w` that comes before a position is checked, and another after."""
    def function(w: Any, v: Any, x: Any, at: Any) -> Any:
        new = w * 2
        return new, v + ops.sum(new), ops.take(x, at, 0)

    graph = program(function, f32[3], f32[3], f32[4, 2], i64[(2,)])
    return Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, graph.bound, {0: 0, 1: 1})


def test_wrong_arguments_are_refused() -> None:
    made = ready(program(lambda x, y: x + y, f32[2, 3], f32[(3,)]))
    x, y = np.zeros((2, 3), np.float32), np.zeros(3, np.float32)
    made([x, y])
    for wrong, message in (([x], "takes 2 arrays, got 1"), ([x.astype(np.float64), y], "got float64"),
                           ([y, y], r"got float32\[3\]"), ([np.asfortranarray(x), y], "strides"),
                           ([[1.0], y], "got list")):
        with pytest.raises(ShapeError, match=message):
            made(wrong)
    w = np.ones(3, np.float32)
    w.flags.writeable = False
    with pytest.raises(ShapeError, match="read-only"):
        ready(lookup())([w, y, np.zeros((4, 2), np.float32), np.zeros(2, np.int64)])


@pytest.mark.parametrize("pipeline", ["train", "none"])
def test_a_position_out_of_range_puts_donated_inputs_back(pipeline: str) -> None:
    made = ready(lookup(), pipeline)
    w, v, x = np.ones(3, np.float32), np.ones(3, np.float32), np.zeros((4, 2), np.float32)
    for _ in range(3):
        with pytest.raises(IndexError, match="take"):
            made([w, v, x, np.array([0, 4])])
        assert (w == 1).all() and (v == 1).all() and len(made._frames) == 1
    made([w, v, x, np.array([0, -4])])
    assert (w == 2).all() and (v == 7).all()


def test_a_call_that_fails_keeps_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ready(program(lambda x: x * 2, f32[(3,)]))
    x = np.ones(3, np.float32)
    made([x])
    [frame] = made._frames

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(frame, "parts", [interrupted])
    with pytest.raises(KeyboardInterrupt):
        made([x])
    monkeypatch.undo()
    assert made._frames == [frame]
    np.testing.assert_array_equal(made([x])[0], 2)


def test_idle_frames_are_few() -> None:
    made = ready(program(lambda x: x * 2, f32[(3,)]))
    made([np.ones(3, np.float32)])
    taken = made._frames.pop()
    made._frames += [taken] * IDLE_FRAMES
    made._frames.append(taken)
    made([np.ones(3, np.float32)])
    made([np.ones(3, np.float32)])
    assert len(made._frames) <= IDLE_FRAMES + 1


def test_times_of_steps() -> None:
    for graph in (mlp_step(16), lookup()):
        made = ready(graph)
        times = np.zeros(len(made.steps), np.int64)
        arrays = [np.array(graph.bound[v]) if v in graph.bound else np.zeros(v.shape, v.dtype.np) for v in graph.inputs]
        made.run(arrays, list(map(address_of, arrays)), times.ctypes.data)
        assert (times > 0).all()


def test_addresses() -> None:
    block = np.zeros((3, 4, 5))
    for array in (block, block[1:, ::2], block.T, np.array(3.0), np.zeros(0), np.frombuffer(b"12345678", np.int8)):
        assert address_of(array) == _official_address(array)


def test_inputs_that_are_swapped() -> None:
    graph = program(lambda a, b: (b, a), f32[(3,)], f32[(3,)])
    graph = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, graph.bound, {0: 0, 1: 1})
    lowered = PackOperands()(graph)
    a, b = np.zeros(3, np.float32), np.ones(3, np.float32)
    Program(lowered, plan_memory(lowered), 1)([a, b])
    assert (a == 1).all() and (b == 0).all()


def test_an_operand_that_a_later_stage_reads_is_not_overwritten() -> None:
    def function(h: Any, z: Any) -> Any:
        new = h * 2
        return new, (new + h) * z - ops.sum(z, 1, True)

    graph = program(function, f32[8, 16], f32[8, 16])
    graph = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, graph.bound, {0: 0})
    assert len(ready(graph).graph.nodes) == 1
    check(graph, ("train", 1, True), ("train", 1, False))


def test_a_product_does_not_overwrite_its_operand() -> None:
    graph = program(lambda x, w: ops.cumsum(ops.relu(ops.cumsum(x, 0) @ w), 0), f32[16, 16], f32[16, 16])
    check(graph, ("train", 1, True))


def test_a_result_that_is_returned_and_donated_does_not_overwrite_its_operand() -> None:
    graph = program(lambda x: (ops.take(x, np.arange(4)[::-1].copy(), 0),) * 2, f32[(4,)])
    graph = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, graph.bound, {0: 0})
    x = np.arange(4, dtype=np.float32)
    for result in ready(graph)([x]):
        np.testing.assert_array_equal(result, [3, 2, 1, 0])
    np.testing.assert_array_equal(x, [3, 2, 1, 0])


def test_an_old_value_is_returned_before_it_is_overwritten() -> None:
    graph = program(lambda a, x: (a + x, a, ops.transpose(a)), f32[2, 2], f32[2, 2])
    graph = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, graph.bound, {0: 0})
    a, x = np.arange(4, dtype=np.float32).reshape(2, 2), np.ones((2, 2), np.float32)
    old = a.copy()
    new, same, turned = ready(graph)([a, x])
    assert new is a
    np.testing.assert_array_equal(a, old + 1)
    np.testing.assert_array_equal(same, old)
    np.testing.assert_array_equal(turned, old.T)


# -- other machines ----------------------------------------------------------------------------------------------------

MODEL = """
    import numpy as np
    import tinytorch as tt
    from tinytorch.nn import functional as F
    from tinytorch.runtime.build import interpreted, isa, vector_bits
    rng = np.random.default_rng(0)
    x, w, b = (tt.Tensor(rng.standard_normal(s).astype(np.float32)) for s in ((9, 37), (19, 37), (19,)))
    image, kernel = (tt.Tensor(rng.standard_normal(s).astype(np.float32)) for s in ((2, 3, 7, 7), (4, 3, 3, 3)))
    def f(x):
        y = F.relu(F.linear(x, w, b))
        return F.softmax(y, -1), F.layer_norm(y, (19,)), y.sum(0), x.to("f16").exp(), x.to("bf16") * 3
    def g(image):
        return F.conv2d(image, kernel, padding=1)
    pairs = [(f, x)] if interpreted() else [(f, x), (g, image)]
    for function, argument in pairs:
        expected, found = function(argument), tt.compile(function)(argument)
        for a, e in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, expected))):
            a, e = (np.asarray(t.numpy(), np.float32) for t in (a, e))
            np.testing.assert_allclose(a, e, 2e-2 if e.size == x.numel() else 1e-4, 1e-5)
    print(isa(), vector_bits())
"""


def elsewhere(**settings_: str) -> str:
    """What the model above prints in a process with these settings."""
    import os

    run = subprocess.run([sys.executable, "-c", textwrap.dedent(MODEL)], capture_output=True, text=True,
                         env=os.environ | settings_, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.strip()


@pytest.mark.parametrize(("isa", "bits"), [
    ("avx2", 256), pytest.param("generic", 128, marks=pytest.mark.slow)])
def test_other_instruction_sets(isa: str, bits: int) -> None:
    from tinytorch.runtime import build

    if build.isa() == "native" and build.vector_bits() < bits:
        pytest.skip(f"this processor has no {isa}")
    assert elsewhere(TINYTORCH_ISA=isa) in (f"{isa} {bits}", f"native {bits}")


def test_kernels_run_as_plain_python() -> None:
    assert elsewhere(NUMBA_DISABLE_JIT="1")


def test_threads_are_those_that_were_set() -> None:
    graph = lookup()
    assert Program(graph, plan_memory(graph)).threads == pool.get_num_threads()
