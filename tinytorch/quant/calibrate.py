"""Run a model on examples and note in which range the inputs of its layers lie.

    found = observe(model, images, observer="percentile")
    found["conv1"].low, found["conv1"].high

The graph that is observed is the one that will be quantised: batch norms are folded into the layers before them. It
runs compiled, a batch at a time, and gives what goes into each layer as further results.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.compile import compile
from tinytorch.ir import Graph, Value
from tinytorch.ir.errors import DataError, DTypeError, OpError, ShapeError, listing
from tinytorch.nn import Module, Rewritten
from tinytorch.passes import FoldBatchNorm
from tinytorch.passes.autodiff import inline
from tinytorch.passes.find_layers import FoundLayer, canonical, find_layers
from tinytorch.tensor import Tensor, as_tensor
from tinytorch.text.progress import bar

from .observers import OBSERVERS, MinMax

BATCH = 64
KEPT = 1 << 14  # numbers of a layer's input that are kept, to tell how well a grid suits them
Batch = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Seen:
    """What went into a layer: the range that was chosen, and some of the numbers."""

    low: float
    high: float
    sample: np.ndarray


def batches(data: Any, count: int) -> Iterator[Batch]:
    """The batches of `examples`, without their labels."""
    return (batch for batch, _ in examples(data, count))


def examples(data: Any, count: int) -> Iterator[tuple[Batch, np.ndarray | None]]:
    """Batches of `count` inputs each, and their labels, if there are some: of an array (the examples along its first
    axis), or what an iterable gives, (x, labels) say.

    Raises:
        DataError: there are none, or they are something else.
    """
    if data is None:
        raise DataError("quantize(method='static') needs data: some hundred examples, as an array whose first axis "
                        "counts them or as batches, whose ranges are observed; or method='dynamic', which needs none")
    if isinstance(data, (Tensor, np.ndarray)):
        array = as_tensor(data).numpy()
        if array.ndim == 0:
            raise ShapeError("data is a single number; expected examples along the first axis")
        data = (array[at:at + BATCH] for at in range(0, len(array), BATCH))
    elif not isinstance(data, Iterable) or isinstance(data, (str, bytes, Mapping)):
        raise DataError(f"data is a {type(data).__name__}: expected an array of examples, or an iterable of batches")
    empty = True
    for item in data:
        parts = item if isinstance(item, (tuple, list)) else (item,)
        if len(parts) < count:
            raise DataError(f"a batch of the data has {len(parts)} parts, the model takes {count} inputs")
        batch = tuple(np.asarray(as_tensor(part).numpy()) for part in parts[:count])
        if batch[0].size == 0:
            continue
        if wrong := [array.dtype for array in batch if array.dtype.kind == "f" and array.dtype != np.float32]:
            raise DTypeError(f"the data are {wrong[0]}: quantised models compute in float32; convert them first")
        empty = False
        yield batch, np.asarray(as_tensor(parts[count]).numpy()) if len(parts) > count else None
    if empty:
        raise DataError("the data are empty: expected some hundred examples like those that the model will see")


def arity(target: Any) -> int:
    """How many inputs a model or graph must be given."""
    if isinstance(target, Graph):
        return len(target.free)
    function = target.forward if isinstance(target, Module) else target
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds and p.default is p.empty]
    return max(len(needed), 1)


def folded(target: Any) -> Callable[..., Graph]:
    """The graph of a model for given inputs, with batch norms folded; of a graph, itself."""
    if isinstance(target, Graph):
        graph = FoldBatchNorm()(target)
        return lambda *inputs: graph
    return Rewritten(target, FoldBatchNorm()).graph


def observe(target: Any, data: Any, observer: str = "minmax", samples: int = 1024) -> dict[str, Seen]:
    """What goes into each layer, for the first `samples` examples of the data.

    Raises:
        DataError: there are no data, or they hold NaN or infinities, or what the model makes of them does.
        ShapeError, DTypeError: the model does not take them.
    """
    if observer not in OBSERVERS:
        raise OpError(f"observer={observer!r}: expected one of {listing(OBSERVERS)}")
    graph_of, watched = folded(target), Watched(OBSERVERS[observer])
    given = batches(data, arity(target))
    first = next(given)
    done = 0
    with bar("Observing", _total(data, len(first[0]), samples)) as advance:
        for batch in itertools.chain([first], given):
            check(batch)
            watched.run(graph_of, batch)
            advance(len(batch[0]))
            done += len(batch[0])
            if done >= samples:
                break
    return watched.result()


def _total(data: Any, batch: int, samples: int) -> int | None:
    """How many examples will be looked at, if that can be known."""
    if isinstance(data, (Tensor, np.ndarray)):
        return min(len(data), samples)
    return min(batch * len(data), samples) if hasattr(data, "__len__") else None


def again(data: Any, samples: int) -> Any:
    """Data that can be gone through twice: of an iterator, a list of its first batches."""
    if not isinstance(data, Iterator):
        return data
    kept: list[Any] = []
    for item in data:
        kept.append(item)
        samples -= len(item[0] if isinstance(item, (tuple, list)) else item)
        if samples <= 0:
            break
    return kept


def check(batch: Batch) -> None:
    """Refuse numbers that say nothing of a range."""
    for array in batch:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = tuple(int(n) for n in np.argwhere(~np.isfinite(array))[0])
            raise DataError(f"the data hold {array[where]} at {where} of a batch {array.shape}: a range cannot be "
                            "observed of it; leave such examples out")


class Watched:
    """Observers of the inputs of layers, by key."""

    def __init__(self, observer: Callable[[], MinMax]) -> None:
        self.observer = observer
        self.observers: dict[str, MinMax] = {}
        self.samples: dict[str, np.ndarray] = {}
        self._runs: dict[tuple[tuple[int, ...], ...], tuple[Callable[..., Any], list[FoundLayer], list[Value]]] = {}

    def run(self, graph_of: Callable[..., Graph], batch: Batch) -> None:
        """Look at what goes into the layers for one batch."""
        shapes = tuple(array.shape for array in batch)
        if shapes not in self._runs:
            graph = graph_of(*batch)
            _check_types(graph, batch)
            layers = find_layers(graph)
            if not layers:
                raise OpError(f"{graph.name} has nothing to quantise: no linear layer, convolution or product whose "
                              "weight is known")
            points = list(dict.fromkeys(layer.x for layer in layers))
            self._runs[shapes] = runner(graph.with_(outputs=tuple(points), donated={})), layers, points
        run, layers, points = self._runs[shapes]
        arrays = dict(zip(points, run(*batch), strict=True))
        for layer in layers:
            self._look(layer.key, arrays[layer.x].numpy())

    def _look(self, key: str, array: np.ndarray) -> None:
        watch = self.observers.setdefault(key, self.observer())
        watch.look(array)
        if not np.isfinite(watch.low + watch.high):
            raise DataError(f"what goes into {key} holds NaN or infinities: the model overflows on these data")
        if key not in self.samples:
            self.samples[key] = array.reshape(-1)[::-(-array.size // KEPT) or 1].copy()

    def result(self) -> dict[str, Seen]:
        """What was seen."""
        return {key: Seen(*watch.range(), self.samples[key]) for key, watch in self.observers.items()}


def _check_types(graph: Graph, batch: Batch) -> None:
    for value, array in zip(graph.free, batch, strict=True):
        if value.shape != array.shape:
            raise ShapeError(f"the data are {array.shape}, input {graph.names[value]} of {graph.name} is {value.type}")
        if value.dtype.np != array.dtype:
            raise DTypeError(f"the data are {array.dtype}, input {graph.names[value]} of {graph.name} is {value.type}")


def runner(graph: Graph) -> Callable[..., Sequence[Tensor]]:
    """`graph`, compiled: a function of arrays that gives the list of its results."""
    bound = {value: Tensor(array) for value, array in graph.bound.items()}

    def run(*given: Any) -> list[Any]:
        operands = iter(given)
        return inline(graph, [bound[v] if v in bound else next(operands) for v in graph.inputs])

    return compile(run, pipeline="infer")


def paths(target: Any) -> dict[str, str]:
    """The paths of a model's layers by their keys."""
    names = [name for name, _ in target.named_parameters()] if isinstance(target, Module) else []
    return {canonical(name): name.removesuffix(".weight") for name in names}
