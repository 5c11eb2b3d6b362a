"""RemakeLate: less memory at the worst moment, the same numbers, nothing kept alive for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.ir import Builder, Graph, f32, ops
from tinytorch.passes import STANDARD, Pipeline, RemakeLate, plan_memory

WITHOUT = [step for step in STANDARD if not isinstance(step, RemakeLate)]


def trained(passes: Any, norm: bool) -> tuple[Any, list[np.ndarray]]:
    """The compiled Adam step of a network with cheap activations, and its parameters after three steps."""
    tt.manual_seed(0)
    layers: list[Any] = []
    for _ in range(3):
        layers += [tt.nn.LayerNorm(64)] * norm + [tt.nn.Linear(64, 256), tt.nn.GELU("tanh"), tt.nn.Linear(256, 64)]
    model = tt.nn.Sequential(*layers)
    optimiser = tt.optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any) -> Any:
        optimiser.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimiser.step()
        return loss

    fast = tt.compile(step, passes=passes)
    x = tt.tensor(np.random.default_rng(0).standard_normal((512, 64)).astype(np.float32))
    for _ in range(3):
        fast(x)
    return fast, [p.numpy().copy() for p in model.parameters()]


@pytest.mark.parametrize("norm", [False, True])
def test_results_of_activations_are_let_go_and_made_again(norm: bool) -> None:
    before, expected = trained(WITHOUT, norm)
    after, found = trained(STANDARD, norm)
    assert after.program.arena_bytes < 0.8 * before.program.arena_bytes
    assert len(after.program.steps) <= len(before.program.steps) + (6 if norm else 3)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters_are_still_updated_in_place() -> None:
    fast, _ = trained(STANDARD, True)
    assert not any(step.node is None for step in fast.program.steps), "a copy at the end"


def graph_of(write: Any) -> Graph:
    """A graph of x f32[512, 512] and w, whose value `a = x + 1` is read at the beginning and at the end."""
    build = Builder()
    x, w = build.input("x", f32[512, 512]), build.input("w", f32[512, 512])
    with build:
        results = write(x, w)
    return build.finish(results)


def test_what_would_keep_its_operand_alive_is_kept_itself() -> None:
    """sin x is gone when the last product comes: to make cos + 1 again of it would cost what it saves."""
    def write(x: Any, w: Any) -> list[Any]:
        y = ops.sin(x)
        a = y + 1.0
        b = ops.matmul(a, w)
        for _ in range(4):
            b = ops.matmul(b, w)
        return [ops.matmul(ops.cos(b), a)]

    graph = Pipeline(*WITHOUT)(graph_of(write))
    assert RemakeLate()(graph) is graph


def test_inputs_that_are_overwritten_are_not_read_later() -> None:
    """a = x + 1 is made again for the last product, unless x is overwritten before it."""
    def graph(overwritten_early: bool) -> Graph:
        build = Builder()
        x, w = build.input("x", f32[512, 512]), build.input("w", f32[512, 512])
        with build:
            a = x + 1.0
            b = ops.matmul(a, w)
            new = x + ops.matmul(b, w) if overwritten_early else None
            c = ops.matmul(ops.matmul(b, w), b)
            last = ops.matmul(ops.matmul(c, b), a)
            new = x + c if new is None else new
            results = [last, new]
        return build.finish(results, donated={1: x.payload})

    for early in (False, True):
        before = Pipeline(*WITHOUT)(graph(early))
        after = RemakeLate()(before)
        arrays = [np.random.default_rng(n).standard_normal((512, 512)).astype(np.float32) / 20 for n in (1, 2)]
        for a, b in zip(before(*arrays), after(*arrays), strict=True):
            np.testing.assert_array_equal(a, b)
        assert set(plan_memory(before).reuses.values()) <= set(plan_memory(after).reuses.values()) | set(
            plan_memory(after).offsets), "what was overwritten in place still is"


def test_small_graphs_are_left_alone() -> None:
    graph = Pipeline(*WITHOUT)(tt.trace(lambda x: (x.exp() * x).sum(), tt.zeros(8, 8)))
    assert RemakeLate()(graph) is graph
