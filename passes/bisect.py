"""Find the pass that changed a result.

    stage = find_culprit(pipeline, graph, (x, y))                    # on these inputs, against the graph as it was
    stage = find_culprit(pipeline, graph, is_wrong=lambda g: ...)    # or decide yourself
    print(stage.name, stage.graph)                                      # None: no pass did

Passes are run one after the other, and the graph is tried after each: a later pass may hide what an earlier one broke,
so the search is not by halves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytorch.ir import Graph
from tinytorch.ir.errors import PassError

from .compare import compare_results, random_inputs, results
from .pipeline import Pipeline, Stage, apply, name_of


def find_culprit(pipeline: Pipeline, graph: Graph, inputs: Sequence[np.ndarray] | None = None, *,
                 is_wrong: Callable[[Graph], bool] | None = None, tolerance: float | None = None) -> Stage | None:
    """The first stage of `pipeline` on `graph` whose graph is wrong; None if none is.

    Args:
        inputs: what to run on, one array for each free input; random numbers if None.
        is_wrong: decides instead of a comparison with `graph` on `inputs`.
        tolerance: allowed error relative to the greatest element of an output; None: a few roundings of its dtype.
    Raises:
        PassError: a pass failed, or the graph as given is wrong already.
    """
    wrong = is_wrong or _differs_from(graph, inputs, tolerance)
    if wrong(graph):
        raise PassError(f"{graph!r} is wrong before any pass ran")
    for step in pipeline.passes:
        began = time.perf_counter()
        graph = apply(step, graph)
        stage = Stage(name_of(step), graph, time.perf_counter() - began)
        if wrong(graph):
            return stage
    return None


def _differs_from(graph: Graph, inputs: Sequence[np.ndarray] | None,
                  tolerance: float | None) -> Callable[[Graph], bool]:
    arrays: list[Any] = list(inputs) if inputs is not None else random_inputs(graph, np.random.default_rng(0))
    expected = results(graph, arrays)

    def differs(other: Graph) -> bool:
        try:
            compare_results(expected, results(other, arrays), other, tolerance)
        except PassError:
            return True
        return False

    return differs
