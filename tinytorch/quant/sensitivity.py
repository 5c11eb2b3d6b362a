"""Which layer costs what: `sensitivity(model, data)` rounds one layer at a time, and all but one.

    found = tt.quant.sensitivity(model, loader, "accuracy")
    print(found)                                     # a line a layer
    found.rows                                       # the same as numbers, for a plot
    keep = found.keep(loss=0.1)                      # layers to leave in f32 so that no more is lost than this
    small = tt.quantize(model, images, layers=dict.fromkeys(keep, "f32"))

Rounding is simulated in f32, in one compiled program with a switch for each layer (`SimulateLayers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.ir import Graph
from tinytorch.ir.errors import DataError, OpError, listing
from tinytorch.look.terminal import as_text
from tinytorch.passes.find_layers import find_layers
from tinytorch.passes.quantize_layers import IntegerLayer
from tinytorch.passes.quantize_simulate import SimulateLayers
from tinytorch.text.progress import bar

from .calibrate import Batch, arity, check, examples, folded, runner
from .plan import decibels
from .quantized import plan_for

if TYPE_CHECKING:
    from rich.table import Table

Metric = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], float]


def _accuracy(y: np.ndarray, exact: np.ndarray, labels: np.ndarray | None) -> float:
    if labels is None:
        raise DataError("the metric 'accuracy' needs labels: give batches (x, labels)")
    return 100 * float((y.argmax(-1) == labels).mean())


METRICS: Mapping[str, Metric] = {
    "accuracy": _accuracy,
    "sqnr": lambda y, exact, labels: decibels(exact, y),
    "agreement": lambda y, exact, labels: 100 * float((y.argmax(-1) == exact.argmax(-1)).mean()),
}


@dataclass(frozen=True)
class Line:
    """What the metric says with only this layer rounded, and with all layers but this one."""

    key: str
    name: str
    alone: float
    without: float


@dataclass(frozen=True)
class Sensitivity:
    """What `sensitivity` found.

    Attributes:
        metric: its name; exact: its value with no layer rounded; rounded: with all.
        rows: one for each layer, in the order of the graph.

    >>> import tinytorch as tt
    >>> found = tt.quant.sensitivity(tt.nn.Linear(6, 6), tt.randn(30, 6))
    >>> found.exact, found.rounded == found.rows[0].alone, found.keep(1000)
    (inf, True, ['weight'])
    """

    metric: str
    exact: float
    rounded: float
    rows: tuple[Line, ...]
    _measure: Callable[[Sequence[bool]], float]

    def keep(self, loss: float) -> list[str]:
        """Layers to leave in f32 so that the metric is no more than `loss` below the exact model's (for "sqnr", no less
        than `loss`): greedily, the one first that gains most where it alone is left out.

        Raises:
            OpError: even without rounding anything it is not reached.
        """
        goal = loss if np.isinf(self.exact) else self.exact - loss
        order = sorted(range(len(self.rows)), key=lambda i: (-self.rows[i].without, self.rows[i].alone))
        on = [True] * len(self.rows)
        kept: list[str] = []
        value = self.rounded
        for place in order:
            if value >= goal:
                return kept
            on[place] = False
            kept.append(self.rows[place].name)
            value = self._measure(on)
        if value < goal:
            raise OpError(f"keep(loss={loss}): the exact model itself has {value:.4g}, which is less than {goal:.4g}")
        return kept

    def __rich__(self) -> Table:
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE, pad_edge=False, caption=f"{self.metric}: {self.exact:.4g} exact, {self.rounded:.4g} "
                                                          "with all layers rounded")
        for name in ("layer", "only this one", "all but this one"):
            table.add_column(name, justify="left" if name == "layer" else "right")
        for row in self.rows:
            table.add_row(row.name, f"{row.alone:.4g}", f"{row.without:.4g}")
        return table

    def __str__(self) -> str:
        return as_text(self)

    __repr__ = __str__


def sensitivity(model: Any, data: Any, metric: str | Metric = "sqnr", *, calibration: Any = None,
                method: str = "static", observer: str = "minmax", samples: int = 1024) -> Sensitivity:
    """What each layer costs when it is quantised.

    Args:
        model: a module or graph.
        data: what the metric is measured on: an array, batches, or batches (x, labels).
        metric: greater is better: "sqnr", signal to noise of the result in decibels; "accuracy", in percent, for which
            there must be labels; "agreement", in percent, how often the greatest result is that of the exact model; or
            a function of (results, exact results, labels or None), arrays, that gives a number.
        calibration: what ranges are observed on; by default the data.
        method, observer, samples: as those of `tt.quantize`; `samples` examples are measured.
    Raises:
        OpError, DataError, ShapeError: as `tt.quantize`.

    >>> import tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(8, 16), tt.nn.ReLU(), tt.nn.Linear(16, 4))
    >>> [row.name for row in tt.quant.sensitivity(model, tt.randn(50, 8)).rows]
    ['0', '2']
    """
    if isinstance(metric, str) and metric not in METRICS:
        raise OpError(f"metric={metric!r}: expected one of {listing(METRICS)}, or a function")
    given = _Given(data, arity(model), samples)
    plan = plan_for(model, given.batches if calibration is None else calibration, method=method, observer=observer,
                    samples=samples)
    trial = _Trial(model, plan.layers, given, METRICS[metric] if isinstance(metric, str) else metric)
    keys = trial.keys
    names = {row.key: row.name for row in plan.rows}
    lines = []
    with bar("Measuring layers", 2 * len(keys)) as advance:
        for number, key in enumerate(keys):
            alone, without = (trial([(i == number) is one for i in range(len(keys))]) for one in (True, False))
            lines.append(Line(key, names[key], alone, without))
            advance(2)
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
    return Sensitivity(name, trial([False] * len(keys)), trial([True] * len(keys)), tuple(lines), trial)


class _Given:
    """Batches, and the labels that came with them, kept: every choice of layers is measured on the same."""

    def __init__(self, data: Any, count: int, samples: int) -> None:
        self.batches: list[Batch] = []
        labels: list[np.ndarray] = []
        for batch, wanted in examples(data, count):
            check(batch)
            self.batches.append(batch)
            if wanted is not None:
                labels.append(wanted)
            if sum(len(batch[0]) for batch in self.batches) >= samples:
                break
        self.labels = np.concatenate(labels) if labels else None


class _Trial:
    """Measures a choice of layers to round."""

    def __init__(self, model: Any, layers: Mapping[str, IntegerLayer], given: _Given, metric: Metric) -> None:
        self.given, self.metric = given, metric
        graph_of = folded(model)
        self._runs: dict[tuple[int, ...], Callable[..., Any]] = {}
        for batch in given.batches:
            if batch[0].shape not in self._runs:
                graph: Graph = graph_of(*batch)
                self._runs[batch[0].shape] = runner(SimulateLayers(layers)(graph))
                self.keys = [layer.key for layer in find_layers(graph) if layer.key in layers]
        self.exact = self._results([False] * len(self.keys))

    def _results(self, on: Sequence[bool]) -> np.ndarray:
        switches = np.array(on, np.float32)
        return np.concatenate([self._runs[batch[0].shape](*batch, switches)[0].numpy() for batch in self.given.batches])

    def __call__(self, on: Sequence[bool]) -> float:
        return float(self.metric(self._results(on), self.exact, self.given.labels))
