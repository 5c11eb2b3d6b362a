"""What a compiled function needs of its parameters alone: computed at the first call, and again when one has changed.

    fast = tt.compile(model.eval())
    fast(x)
    fast.preparation                 # <preparation: 42 values, 1,091,240 bytes, made of 105 tensors in 62 launches; …>
    fast.preparation.graph           # the graph that makes them; `fast.graph` has them as bound inputs

The pass `HoistBound` cuts the graph in two; this file runs the first half, and `Watch` knows when it must. A parameter
that somebody may be writing into (through an array of `parameter.numpy()` that is still alive) is never trusted: then
the preparation runs at each call, as all of it would without the cut.

    >>> import tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(3, 4), tt.nn.BatchNorm1d(4)).eval()
    >>> fast, x = tt.compile(model), tt.ones(5, 3)
    >>> for _ in range(10): y = fast(x)
    >>> fast.preparation
    <preparation: 2 values, 64 bytes, made of 6 tensors in 2 launches; run once>
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytorch.ir import Graph, Value
from tinytorch.ir.text import to_text
from tinytorch.passes import History, Pipeline, Rematerialize, Stage, plan_memory
from tinytorch.passes.fold_constants import is_frozen
from tinytorch.passes.hoist_bound import HoistBound

from .tensor import Tensor
from .watch import Watch


class Preparation:
    """A program over parameters, and its results.

    Attributes:
        graph, history, program: as those of a `Compiled`.
        owners: for each input of the graph, the tensor (or an array that cannot be written) behind it.
        results: for each output, the tensor that holds it.
        runs: how often it has run.
    """

    def __init__(self, key: object, history: History, owners: Sequence[Tensor | np.ndarray],
                 threads: int | None) -> None:
        self.key, self.history, self.owners = key, history, owners
        self.graph = graph = history[-1].graph
        self.threads = threads
        self.program: Any = None
        self.tensors = [owner for owner in owners if isinstance(owner, Tensor)]
        self.results = [Tensor(np.empty(v.shape, v.dtype.np)) for v in graph.outputs]
        self.runs = 0
        self.readers: list[tuple[Graph, Sequence[Value]]] = []  # the graphs that are bound to the results, and where
        self._watch: Watch | None = None
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the results, which live as long as the program."""
        return sum(value.type.nbytes for value in self.graph.outputs)

    def build(self) -> None:
        """Make the program, if that has not been done."""
        from tinytorch.runtime.program import Program  # heavy: not at import

        if self.program is None:
            self.program = Program(self.graph, plan_memory(self.graph), self.threads)

    def summary(self) -> str:
        """A line: how much is prepared, of how many tensors."""
        times = {0: "not run yet", 1: "run once"}.get(self.runs, f"run {self.runs} times")
        return (f"{len(self.results)} values, {self.nbytes:,} bytes, made of {len(self.owners)} tensors "
                f"in {len(self.program.steps)} launches; {times}")

    def __repr__(self) -> str:
        return f"<preparation: {self.summary()}>"

    def read_with(self, others: Sequence[Any]) -> list[Any]:
        """What is read by the preparation and by the program after it, which has `others` as owners; each once."""
        made = set(map(id, self.results))
        return list({id(owner): owner for owner in (*self.owners, *others) if id(owner) not in made}.values())

    def serve(self, graphs: Sequence[Graph], values: Sequence[Value]) -> None:
        """Have these inputs of graphs bound to the results, from now on."""
        bound = {id(graph.bound): graph for graph in graphs}
        self.readers += [(graph, values) for graph in bound.values()]
        if self.runs:
            self._bind([tensor.payload for tensor in self.results])

    def refresh(self) -> None:
        """Have `results` be those of the tensors as they are now."""
        watch = self._watch
        if watch is not None and watch.holds():
            return
        with self._lock:
            if self._watch is None or not self._watch.holds():
                watch = Watch(self.tensors)  # before they are read: what changes meanwhile is seen at the next call
                arrays = self.program([np.asarray(owner.payload if isinstance(owner, Tensor) else owner, order="C")
                                       for owner in self.owners])
                self._publish(arrays)
                self._watch = watch

    def _publish(self, arrays: Sequence[np.ndarray]) -> None:
        for tensor, array in zip(self.results, arrays, strict=True):
            tensor.payload = array
        self._bind(arrays)
        self.runs += 1

    def _bind(self, arrays: Sequence[np.ndarray]) -> None:
        for graph, values in self.readers:  # `graph(x)` is to mean what the program does
            for value, array in zip(values, arrays, strict=True):
                if value in graph.bound:
                    graph.bound[value] = array  # type: ignore[index]


@dataclass(frozen=True)
class Lowered:
    """What passes made of a graph: the main graph, its stages, and what is prepared for which of its inputs."""

    graph: Graph
    history: History
    preparation: Preparation | None = None
    prepared: Mapping[Value, Tensor] = field(default_factory=dict)


def lower(pipeline: Pipeline, graph: Graph, owners: Mapping[Value, Any], threads: int | None,
          known: Iterable[Preparation]) -> Lowered:
    """Run the passes over `graph`, cut where they say so.

    Args:
        owners: what is behind bound inputs. Only tensors, and arrays that cannot be written, are prepared from.
        known: preparations that may serve again; those of two batch sizes are mostly the same.
    """
    cut = next((number for number, step in enumerate(pipeline.passes) if isinstance(step, HoistBound)), None)
    if cut is None or not graph.bound:
        return Lowered(*pipeline.run(graph))
    hoist: Any = pipeline.passes[cut]
    rest = Pipeline(*pipeline.passes[cut + 1:])
    before, front = Pipeline(*pipeline.passes[:cut]).run(graph)
    behind = {value: owners.get(value, array) for value, array in before.bound.items()}
    begin = time.perf_counter()
    first, main = hoist.split(before, {value for value, owner in behind.items() if _is_steady(owner)})
    stage = Stage("HoistBound", main, time.perf_counter() - begin)
    after, back = rest.run(main)
    history = History((*front, stage, *back[1:]))
    if first is None:
        return Lowered(after, history)
    read = [behind[value] for value in first.inputs]
    key = to_text(first, sources=False), tuple(map(id, read))
    preparation = next((preparation for preparation in known if preparation.key == key), None)
    if preparation is None:
        steps = (step for step in rest.passes if not isinstance(step, Rematerialize))  # a budget is one for calls
        preparation = Preparation(key, Pipeline(*steps).run(first)[1], read, threads)
    preparation.serve([step.graph for step in (stage, *back)], first.outputs)
    return Lowered(after, history, preparation, dict(zip(first.outputs, preparation.results, strict=True)))


def _is_steady(owner: Any) -> bool:
    return isinstance(owner, Tensor) or (isinstance(owner, np.ndarray) and is_frozen(owner))
