"""What variants of a model cost and how good they are: sizes counted, speed measured in turns, answers compared.

    found = measure({"before": model, "after": smaller}, subject, seconds=2.0)
    found["after"].timing.faster_than(found["before"].timing)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch import zoo
from tinytorch.autograd import no_grad
from tinytorch.bench.timing import Timing, paired
from tinytorch.bench.work import Work, count
from tinytorch.compile import Compiled, compile, trace
from tinytorch.ir import Graph
from tinytorch.nn import Rewritten
from tinytorch.passes import History, Size, Stage, size_of
from tinytorch.passes.autodiff import inline
from tinytorch.tensor import Tensor

from .opt_specs import Given, Step
from .opt_subject import Subject


@dataclass(frozen=True)
class Measured:
    """What is known of a variant.

    Attributes:
        size: of its graph; work: of one call of the compiled program; timing: of such calls.
        score: on the test data, if there are any.
        difference: of its results from those of the first variant on one batch: the root of the mean square, as a
            fraction of theirs.
    """

    size: Size
    work: Work
    timing: Timing
    score: zoo.Score | None
    difference: float


def measure(variants: Mapping[str, Any], subject: Subject, seconds: float, threads: int | None = None,
            samples: int | None = None) -> dict[str, Measured]:
    """Each variant, the first being what the others are compared with; all take turns.

    Args:
        variants: modules or graphs, by name.
        seconds: how long to measure speed, all together.
        threads: of the programs; samples: of the test data, at most (all of them by default).
    """
    programs = {name: compiled(target, threads) for name, target in variants.items()}
    with no_grad():
        results = {name: _array(program(*subject.examples)) for name, program in programs.items()}
        calls = {name: _call(program, subject.examples) for name, program in programs.items()}
        timings = paired(calls, seconds)
    first = next(iter(results.values()))
    return {name: Measured(size_of(graph_of(variants[name], subject.examples)), count(program), timings[name],
                           _score(program, subject, samples), _difference(first, results[name]))
            for name, program in programs.items()}


def compiled(target: Any, threads: int | None = None) -> Compiled:
    """A module, or a graph, as a compiled function of tensors."""
    function = _replayed(target) if isinstance(target, Graph) else target
    made: Compiled = compile(function, pipeline="infer", threads=threads)
    return made


def _replayed(graph: Graph) -> Callable[..., Any]:
    bound = {value: Tensor(array) for value, array in graph.bound.items()}

    def run(*given: Any) -> Any:
        operands = iter(given)
        results = inline(graph, [bound[v] if v in bound else next(operands) for v in graph.inputs])
        return results[0] if len(results) == 1 else tuple(results)

    return run


def graph_of(target: Any, examples: Sequence[Any]) -> Graph:
    """What a variant computes for such arguments."""
    if isinstance(target, Graph):
        return target
    return target.graph(*examples) if isinstance(target, Rewritten) else trace(target, *examples)


def apply(steps: Sequence[Step], subject: Subject) -> tuple[Any, History]:
    """The subject after all steps, and the graph after each pass on the way; what the subject was, first."""
    target: Any = subject.target
    stages = [Stage(subject.name, graph_of(target, subject.examples), 0.0)]
    for step in steps:
        target = step(target, Given(subject.examples, subject.given.calibration, subject.given.tune))
        if isinstance(target, Rewritten):
            stages += target.history(*subject.examples)[1:]
        else:
            stages.append(Stage(step.text, graph_of(target, subject.examples), 0.0))
    return target, History(stages)


def _call(program: Compiled, examples: Sequence[Any]) -> Callable[[], object]:
    return lambda: program(*examples)


def _array(result: Any) -> np.ndarray:
    """The first of the results."""
    array: np.ndarray = (result[0] if isinstance(result, (tuple, list)) else result).numpy()
    return array.astype(np.float64)


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if found.shape != expected.shape:
        return math.nan
    return math.sqrt(np.mean((found - expected) ** 2) / (np.mean(expected**2) or 1.0))


def _score(program: Compiled, subject: Subject, samples: int | None) -> zoo.Score | None:
    """How good a program is on the test data, in batches of the one size that it was made for."""
    if subject.test is None:
        return None
    inputs, targets = (array[:samples] for array in subject.test)

    def forward(x: Tensor) -> Tensor:
        short = subject.batch - len(x)
        if not short:
            return program(x)
        filled = np.concatenate([x.numpy(), np.repeat(x.numpy()[:1], short, axis=0)])
        return program(Tensor(filled))[: len(x)]

    return zoo.score(forward, inputs, targets, subject.batch)
