"""`tt.quantize(model, images)`: the model on integers, four times smaller.

    small = tt.quantize(model, images)             # static: ranges of what goes into layers are observed
    small.report()                                 # a table: each layer, its range, the error in decibels
    fast = tt.compile(small)                       # a kernel a layer: bytes in, bytes out
    tt.quant.save(small, "small.safetensors")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.ir import Graph
from tinytorch.ir.errors import DataError, OpError, listing
from tinytorch.look.terminal import as_text
from tinytorch.nn import Module, Rewritten
from tinytorch.passes import FoldBatchNorm, Pipeline
from tinytorch.passes.find_layers import find_layers
from tinytorch.passes.quantize_layers import QuantizeLayers
from tinytorch.passes.quantize_moves import MoveGrids
from tinytorch.passes.quantize_weights import QuantizeWeights

from .calibrate import Batch, Seen, again, arity, batches, folded, observe, paths
from .plan import INTEGER, METHODS, WEIGHTS, Plan, check_bits, choose, make_plan
from .training import Prepared
from .weights import quantize_weights

if TYPE_CHECKING:
    from rich.table import Table


class Report:
    """What became of each layer; shows as a table.

    Attributes:
        rows: see `tinytorch.quant.plan.Row`.

    >>> import tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(8, 16), tt.nn.ReLU(), tt.nn.Linear(16, 4))
    >>> found = tt.quantize(model, tt.randn(50, 8), layers={"2": "f32"}).report()
    >>> [(row.name, row.method, row.size) for row in found.rows]
    [('0', 'static', 128), ('2', 'f32', 64)]
    """

    def __init__(self, plan: Plan) -> None:
        self.rows = plan.rows

    def __rich__(self) -> Table:
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE, pad_edge=False)
        for name in ("layer", "method", "weight", "range of x", "x", "weight ", "both"):
            table.add_column(name, justify="left" if name in ("layer", "method") else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row_cells(row))
        return table

    def __str__(self) -> str:
        return as_text(self)

    __repr__ = __str__


def row_cells(row: Any) -> tuple[str, ...]:
    """The cells of a line."""
    spans = "" if row.low != row.low else f"{row.low:.4g} … {row.high:.4g}"
    noise = ("" if db != db else f"{db:.1f} dB" for db in (row.x_db, row.weight_db, row.total_db))
    return (row.name, f"{row.method} ({row.why})" if row.why else row.method, f"{row.size:,}", spans, *noise)


class Quantized(Rewritten):
    """A model on integers; what `tt.quantize` gives.

    Args:
        plan: what was decided for each layer, or what decides it when the first graph is met.

    >>> import tinytorch as tt
    >>> small = tt.quantize(tt.nn.Linear(4, 2), tt.ones(1, 4))
    >>> [node.op.name for node in small.graph(tt.ones(3, 4)).nodes if node.op.name.startswith("qua")]
    ['quantize', 'quad_matmul']
    """

    def __init__(self, module: Callable[..., Any], plan: Plan | Later) -> None:
        super().__init__(module, *(passes_of(plan) if isinstance(plan, Plan) else (FoldBatchNorm(), plan)))
        self._given = plan

    @property
    def plan(self) -> Plan:
        """What was decided for each layer.

        Raises:
            OpError: nothing is decided before the first call, for which no data were given.
        """
        found = self._given if isinstance(self._given, Plan) else self._given.plan
        if found is None:
            raise OpError("this model has not been called yet: what it is made of is seen at its first call")
        return found

    def report(self) -> Report:
        """A table of layers: method, range, signal to noise."""
        return Report(self.plan)


class Later:
    """A pass that decides when it meets the first graph, and does the same from then on."""

    def __init__(self, decide: Callable[[Graph], Plan]) -> None:
        self.decide = decide
        self.plan: Plan | None = None

    def __call__(self, graph: Graph, /) -> Graph:
        self.plan = self.plan or self.decide(graph)
        return Pipeline(*passes_of(self.plan)[1:])(graph)


def passes_of(plan: Plan) -> tuple[Callable[[Graph], Graph], ...]:
    """The passes that carry out a plan."""
    weights = (QuantizeWeights(dict(plan.weights)),) if plan.weights else ()
    return (FoldBatchNorm(), QuantizeLayers(plan.layers), *weights, MoveGrids())


def quantize(target: Any, data: Any = None, *, method: str = "static", observer: str = "minmax",
             layers: Mapping[str, str] | None = None, symmetric: bool | None = None, weight_bits: int = 8,
             samples: int = 1024, **options: Any) -> Any:
    """A model or graph whose linear layers and convolutions compute on integers.

    Args:
        target: a module (its evaluation mode is taken; it is left as it is), or a graph; or what `quant.prepare` made
            and training has found ranges for.
        data: examples to observe, for static quantisation: an array with the examples along its first axis, or an
            iterable of batches, of which labels are left aside. Some hundred suffice.
        method: "static", one range for the inputs of each layer, known beforehand; "dynamic", one for each row or image
            from the numbers themselves; "int8" or "int4", weights alone, under f32 inputs (`quant.quantize_weights`).
        observer: "minmax", "percentile", "mse" or "entropy": how ranges follow from what was observed.
        layers: other choices for some layers, as {"conv1": "f32"}; by the path of the module, or the name in the graph.
        symmetric: ranges around 0: of inputs (by default they are not), or of "int8" and "int4" weights (they are).
        weight_bits: 2 to 8; with fewer than 8 the weights are i8 all the same, with fewer different numbers.
        samples: how many examples are looked at, at most.
        options: for "int8" and "int4" those of `quant.quantize_weights`: group, rounding, embeddings.
    Returns:
        A `Quantized`, an `nn.Rewritten`, for a module (of weights alone, a `SmallerWeights`); a graph for a graph.
    Raises:
        DataError: the data are missing, empty, or hold NaN or infinities.
        ShapeError, DTypeError: the model does not take them.
        OpError: there is nothing to quantise, or an option does not exist.

    >>> import numpy as np, tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(8, 16), tt.nn.ReLU(), tt.nn.Linear(16, 4))
    >>> x = np.random.default_rng(0).standard_normal((100, 8)).astype("f4")
    >>> small = tt.quantize(model, x)
    >>> bool((small(x) - model(x)).abs().max() < 0.05)
    True
    """
    if method in WEIGHTS and not set((layers or {}).values()) & set(INTEGER):
        around_zero = True if symmetric is None else symmetric
        return quantize_weights(target, WEIGHTS[method], symmetric=around_zero, data=data, layers=layers, **options)
    if options:
        raise OpError(f"quantize(method={method!r}): there is no option {listing(options)}")
    wanted: dict[str, Any] = {"method": method, "layers": layers, "symmetric": bool(symmetric),
                              "weight_bits": weight_bits}
    if data is None and type(target) is not Prepared and isinstance(target, Module) and not needs_data(method, layers):
        return Quantized(target, Later(partial(decide, names=paths(target), seen=lambda keys: {}, **wanted)))
    plan = plan_for(target, data, observer=observer, samples=samples, **wanted)
    if isinstance(target, Graph):
        return Pipeline(*passes_of(plan))(target)
    return Quantized(target.model if isinstance(target, Prepared) else target, plan)


def needs_data(method: str, layers: Mapping[str, str] | None) -> bool:
    """Whether any layer's range must be observed."""
    return method not in METHODS or method == "static" or "static" in (layers or {}).values()


def plan_for(target: Any, data: Any, *, method: str, observer: str, layers: Mapping[str, str] | None = None,
             symmetric: bool = False, weight_bits: int = 8, samples: int = 1024) -> Plan:
    """What `quantize` decides."""
    if not isinstance(target, (Graph, Module)):
        raise OpError(f"quantize({type(target).__name__}): expected a module or a graph; tt.trace makes one of a "
                      "function")
    check_bits(weight_bits)
    data = again(data, samples)
    learned = target.seen() if isinstance(target, Prepared) else {}
    if isinstance(target, Prepared):
        target, weight_bits, first = target.model, target.weight_bits, _example(target, data)
    elif isinstance(target, Graph) and data is None:
        first = ()
    else:
        first = next(batches(data, arity(target)))
    graph = folded(target)(*first)

    def seen(static: set[str]) -> Mapping[str, Seen]:
        return learned if static <= learned.keys() else {**observe(target, data, observer, samples), **learned}

    return decide(graph, paths(target), seen, method, layers, symmetric, weight_bits)


def decide(graph: Graph, names: Mapping[str, str], seen: Callable[[set[str]], Mapping[str, Seen]], method: str,
           layers: Mapping[str, str] | None, symmetric: bool, weight_bits: int) -> Plan:
    """The plan for a graph whose batch norms are folded; `seen` gives the ranges, if any layer is static."""
    check_bits(weight_bits)
    chosen = choose(found := find_layers(graph), method, layers)
    if not any(choice != "f32" for choice in chosen.values()):
        raise OpError(f"quantize({graph.name}): there is nothing to quantise: no linear layer, convolution or product "
                      "whose weight is known" + (", but for those that stay f32" if found else ""))
    static = {key for key, choice in chosen.items() if choice == "static"}
    ranges = seen(static) if static else {}
    return make_plan(graph, chosen, ranges, names, symmetric, weight_bits)


def _example(ready: Prepared, data: Any) -> Batch:
    """Inputs of the types that a prepared model takes."""
    if data is not None:
        return next(batches(data, arity(ready.model)))
    if not ready.inputs:
        raise DataError("this prepared model has not been called yet: train it first, or give data to observe")
    return tuple(np.zeros(type_.shape, type_.dtype.np) for type_ in ready.inputs)
