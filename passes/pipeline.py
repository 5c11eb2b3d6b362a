"""Run passes one after the other, and keep every stage to look at.

    pipeline = Pipeline(ExpandComposites(), Simplify(), MergeCommon(), RemoveDead())
    graph = pipeline(graph)                   # a pipeline is a pass
    graph, history = pipeline.run(graph)      # history[2].graph is the graph after the second pass

A pass is a function from graph to graph, written as a frozen dataclass whose fields are its options. What every pass
must hold is checked here and nowhere else: `TINYTORCH_VERIFY=1` (the default) reruns all type rules after each pass,
`2` also evaluates the old and the new graph on random inputs and compares. An error names the pass and shows the graph.

    >>> from tinytorch.ir import Builder, f32
    >>> build = Builder()
    >>> with build: y = build.input("x", f32[2]) * 1.0
    >>> len(Pipeline(lambda graph: graph).run(build.finish([y]))[1])
    2
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tinytorch.ir import Graph, Node, config, verify
from tinytorch.ir.errors import PassError

from .compare import check_same_meaning, excerpt, same_signature
from .sizes import Size, size_of


class Pass(Protocol):
    """Anything that takes a graph and gives one back."""

    def __call__(self, graph: Graph, /) -> Graph: ...


@dataclass(frozen=True)
class Stage:
    """The graph as one pass left it, and the time that took."""

    name: str
    graph: Graph
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Row(Size):
    """What a stage amounts to, and the seconds that its pass took."""

    name: str
    seconds: float


class History(tuple[Stage, ...]):
    """The stages of one run, first the graph that was given."""

    __slots__ = ()

    def table(self, peak: bool = False) -> list[Row]:
        """One row a stage; `peak` also plans memory for each."""
        return [Row(name=stage.name, seconds=stage.seconds, **vars(size_of(stage.graph, peak))) for stage in self]

    @property
    def seconds(self) -> float:
        """The time of all passes together."""
        return sum(stage.seconds for stage in self)

    def __repr__(self) -> str:
        return f"<History {' → '.join(f'{stage.name} ({len(stage.graph.nodes)})' for stage in self)}>"


class Pipeline:
    """Passes in a row; itself a pass. Pipelines inside are opened, so that each pass has a stage of its own."""

    __slots__ = ("passes",)

    def __init__(self, *passes: Pass) -> None:
        self.passes: tuple[Pass, ...] = tuple(_flat(passes))

    def __call__(self, graph: Graph, /) -> Graph:
        return self.run(graph)[0]

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.passes))})"

    def run(self, graph: Graph) -> tuple[Graph, History]:
        """The result, and every stage on the way.

        Raises:
            VerifyError: the graph that was given is not sound.
            PassError: a pass failed, gave an unsound graph, or (with TINYTORCH_VERIFY=2) changed a result.
        """
        level = config.verify_level()
        sound: set[Node] = set()
        if level:
            verify(graph, sound)
        stages = [Stage("given", graph, 0.0)]
        for step in self.passes:
            stages.append(_step(step, stages[-1].graph, level, sound))
        return stages[-1].graph, History(stages)


def _flat(passes: Iterable[Pass]) -> Iterable[Pass]:
    for step in passes:
        if isinstance(step, Pipeline):
            yield from step.passes
        else:
            yield step


def name_of(step: Pass) -> str:
    """What a pass is called: its class, or the function's name."""
    return getattr(step, "__name__", type(step).__name__)


def apply(step: Pass, graph: Graph) -> Graph:
    """`step(graph)`, any error turned into a PassError that names the pass."""
    try:
        result = step(graph)
        if not isinstance(result, Graph):
            raise PassError(f"a pass gives a Graph, this one gave {result!r:.80}")
        return result
    except Exception as error:
        raise PassError(
            f"{name_of(step)} failed on {graph!r}: {type(error).__name__}: {error}\n{excerpt(graph)}") from error


def _step(step: Pass, before: Graph, level: int, sound: set[Node]) -> Stage:
    began = time.perf_counter()
    after = apply(step, before)
    stage = Stage(name_of(step), after, time.perf_counter() - began)
    _tell(stage, before)
    if level >= 1:
        _check(stage, before, level, sound)
    return stage


def _check(stage: Stage, before: Graph, level: int, sound: set[Node]) -> None:
    if stage.graph is before:
        return
    try:
        verify(stage.graph, sound)
        if level >= 2 and same_signature(before, stage.graph):
            check_same_meaning(before, stage.graph, np.random.default_rng(0))
    except Exception as error:
        raise PassError(f"{stage.name} broke the graph: {error}\nbefore {stage.name}:\n{excerpt(before)}") from error


def _tell(stage: Stage, before: Graph) -> None:
    level = config.debug()
    if level >= 1:
        print(f"tinytorch: {stage.name:<18} {stage.seconds * 1e3:8.2f} ms  {len(before.nodes):4} → "
              f"{len(stage.graph.nodes)} nodes", file=sys.stderr)
    if level >= 3 and stage.graph is not before:
        print(stage.graph, file=sys.stderr)
