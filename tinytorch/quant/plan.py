"""What to do with each layer: from ranges and choices to `IntegerLayer`s, and how well they suit the numbers.

A weight w gets one scale for each output, max |w| / 127, and integers -127 … 127 (fewer for fewer bits); x gets a grid
of 256 numbers that covers the range that was observed, and 0 exactly. A scale is never 0 or subnormal: outputs whose
weights are all 0 have one that suits their bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinytorch.ir import Graph
from tinytorch.ir.errors import DataError, OpError, listing
from tinytorch.passes.find_layers import FoundLayer, canonical, find_layers
from tinytorch.passes.fold_constants import frozen
from tinytorch.passes.known import evaluate_known
from tinytorch.passes.quantize_layers import MIDDLE, Grid, IntegerLayer, QuantizeLayers
from tinytorch.passes.quantize_weights import PackedWeight, QuantizeWeights

from .calibrate import Seen
from .weights import Options, round_weight

INTEGER = ("static", "dynamic")
WEIGHTS = {"int8": 8, "int4": 4}  # for weights alone: their bits
METHODS = (*INTEGER, *WEIGHTS, "f32")
LEAST_RANGE = 2.0 ** -100  # of a grid; numbers that are all smaller count as 0


@dataclass(frozen=True)
class Row:
    """A line of a report.

    Attributes:
        key, name: of the layer, in graphs and for users; method: "static", "dynamic", … or "f32".
        size: numbers of its weight.
        low, high: the range of x that its grid covers, nan if it has none.
        x_db, weight_db: signal to noise after rounding x and the weight, in decibels: 10 lg Σx² / Σ(x - x̂)²; nan where
            that was not measured.
        why: for a layer that stays as it is, the reason.
    """

    key: str
    name: str
    method: str
    size: int
    low: float = np.nan
    high: float = np.nan
    x_db: float = np.nan
    weight_db: float = np.nan
    why: str = ""

    @property
    def total_db(self) -> float:
        """Signal to noise of the layer's products, as far as the two errors are independent."""
        return float(-10 * np.log10(10 ** (-self.x_db / 10) + 10 ** (-self.weight_db / 10)))


@dataclass(frozen=True)
class Plan:
    """What `quantize` decided.

    Attributes:
        layers, weights: for the passes, by key; chosen: the method of every layer; rows: for the report.
        kept: names of bound inputs that are read as they are.
    """

    layers: Mapping[str, IntegerLayer]
    weights: Mapping[str, PackedWeight]
    chosen: Mapping[str, str]
    rows: tuple[Row, ...]
    kept: tuple[str, ...]


def choose(found: list[FoundLayer], method: str, given: Mapping[str, str] | None) -> dict[str, str]:
    """The method of each layer, by key.

    Raises:
        OpError: an unknown method, or a name that no layer has.
    """
    wanted = {canonical(name): choice for name, choice in (given or {}).items()}
    if bad := {choice for choice in (method, *wanted.values()) if choice not in METHODS}:
        raise OpError(f"quantize: {listing(bad)} is no method; expected one of {', '.join(METHODS)}")
    keys = [layer.key for layer in found]
    if unknown := wanted.keys() - set(keys):
        raise OpError(f"quantize(layers=…): there is no layer {listing(unknown)}; there are {listing(keys, 40)}")
    return {layer.key: wanted.get(layer.key) or ("f32" if reason(layer) else method) for layer in found}


def reason(layer: FoundLayer) -> str:
    """Why a layer is not quantised unless somebody asks for it."""
    if layer.is_convolution and layer.node.attrs["groups"] > 1 and layer.weight.shape[1] % 4:
        return "few channels a group: nothing to gain"
    return ""


def make_grid(low: float, high: float, symmetric: bool = False) -> Grid:
    """256 numbers that cover low … high, and 0: `symmetric` has 0 in the middle, or, where no number is below 0, at
    the bottom."""
    low, high = min(low, 0.0), max(high, 0.0)
    if not high - low > LEAST_RANGE:
        return Grid(1.0, 0)
    if symmetric:
        zero = MIDDLE if low < 0 else 0
        return Grid(float(np.float32(max(-low, high) / (255 - zero))), zero)
    scale = np.float32((high - low) / 255)
    return Grid(float(scale), round(-low / float(scale)))


def check_bits(bits: int) -> None:
    """Refuse what no byte holds."""
    if bits not in range(2, 9):
        raise OpError(f"weight_bits={bits}: expected 2 to 8")


def greatest(bits: int) -> int:
    """The greatest integer of a weight."""
    return int(2 ** (bits - 1) - 1)


def quantize_weight(weight: np.ndarray, bias: np.ndarray, x_scale: float,
                    bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(i8 of the weight's shape, f32 scales): outputs are its first axis; `bias` must fit an i32 at scale · x_scale."""
    top = greatest(bits)
    rows = np.asarray(weight, np.float64).reshape(len(weight), -1)
    reach, shift = np.abs(rows).max(1, initial=0), np.abs(bias).astype(np.float64)
    scale = np.where(reach > LEAST_RANGE, reach / top, np.where(shift > LEAST_RANGE, shift / x_scale / 2 ** 23, 1.0))
    scale = np.maximum(scale, shift / x_scale / 2 ** 30).astype(np.float32)
    q = np.clip(np.rint(rows / scale[:, None].astype(np.float64)), -top, top)
    return frozen(q.reshape(weight.shape).astype(np.int8)), frozen(scale)


def decibels(x: np.ndarray, approximate: np.ndarray) -> float:
    """10 lg Σx² / Σ(x - x̂)²; inf where nothing is lost."""
    noise = float(((x.astype(np.float64) - approximate) ** 2).sum())
    signal = float((x.astype(np.float64) ** 2).sum())
    return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else float("inf")


def on_grid(x: np.ndarray, grid: Grid) -> np.ndarray:
    """x, rounded to the numbers of a grid."""
    q = np.clip(np.rint(x * np.float32(1 / grid.scale)) + grid.zero, 0, 255)
    return np.asarray((q - grid.zero) * np.float32(grid.scale))


def make_plan(graph: Graph, chosen: Mapping[str, str], seen: Mapping[str, Seen], names: Mapping[str, str],
              symmetric: bool = False, weight_bits: int = 8) -> Plan:
    """Layers on integers for those that are chosen to be so.

    Args:
        graph: with batch norms folded; its weights are read.
        seen: what goes into each layer; needed for those that are "static".
        names: paths of layers by key, for people; those that have none are called by their key.
    Raises:
        DataError: a weight holds NaN or infinities; a layer was not reached by any example.
    """
    layers: dict[str, IntegerLayer] = {}
    weights: dict[str, PackedWeight] = {}
    rows: list[Row] = []
    for found in find_layers(graph):
        method, key, size = chosen[found.key], found.key, found.weight.type.size
        if method in INTEGER:
            layers[key] = layer = integer_layer(graph, found, seen.get(key), method, symmetric, weight_bits)
            rows.append(_row(graph, found, layer, names.get(key, key), method, seen.get(key)))
        elif method in WEIGHTS:
            weights[key] = packed = packed_weight(graph, found, WEIGHTS[method])
            rows.append(Row(key, names.get(key, key), method, size, weight_db=packed.decibels))
        else:
            rows.append(Row(key, names.get(key, key), method, size, why=reason(found)))
    after = QuantizeLayers(layers)(graph)
    after = QuantizeWeights(dict(weights))(after) if weights else after
    kept = tuple(graph.names[value] for value in after.bound if value in graph.bound)
    return Plan(layers, weights, dict(chosen), tuple(rows), kept)


def read_weight(graph: Graph, found: FoundLayer) -> tuple[np.ndarray, np.ndarray]:
    """The weight of a layer, outputs first, and its bias (zeros if it has none)."""
    values = [found.weight, *([found.bias] if found.bias is not None else [])]
    known = evaluate_known(graph, values)
    weight = found.natural(known[found.weight])
    bias = np.zeros(len(weight), np.float32)
    if found.bias is not None:
        bias = bias + known[found.bias].reshape(-1)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise DataError(f"the weight or bias of {found.key} holds NaN or infinities: train the model anew")
    return weight, bias


def integer_layer(graph: Graph, found: FoundLayer, seen: Seen | None, method: str, symmetric: bool = False,
                  bits: int = 8) -> IntegerLayer:
    """The layer on integers."""
    if method == "static" and seen is None:
        raise DataError(f"{found.key} was not reached by the data: its inputs have no range; "
                        f"choose layers={{{found.key!r}: 'dynamic'}}, or 'f32'")
    grid = make_grid(seen.low, seen.high, symmetric) if seen is not None and method == "static" else None
    weight, bias = read_weight(graph, found)
    q, scale = quantize_weight(weight, bias, grid.scale if grid is not None else 1.0, bits)
    return IntegerLayer(q, scale, frozen(bias), grid)


def packed_weight(graph: Graph, found: FoundLayer, bits: int) -> PackedWeight:
    """The weight of a linear layer in few bits, nearest rounding."""
    if found.is_convolution:
        raise OpError(f"quantize(layers=…): {found.key} is a convolution, 'int{bits}' is for linear layers; "
                      "choose 'static', 'dynamic' or 'f32'")
    weight, _ = read_weight(graph, found)
    rounding = Options(bits, None, True, "nearest", {}).rounding_of(found.key, weight.shape[1])
    assert rounding is not None
    return round_weight(weight, rounding)


def _row(graph: Graph, found: FoundLayer, layer: IntegerLayer, name: str, method: str, seen: Seen | None) -> Row:
    weight, _ = read_weight(graph, found)
    along = (-1, *(1,) * (weight.ndim - 1))
    weight_db = decibels(weight, layer.weight * layer.scale.reshape(along))
    if layer.grid is None or seen is None:
        return Row(found.key, name, method, weight.size, weight_db=weight_db)
    grid = layer.grid
    low, high = ((end - grid.zero) * grid.scale for end in (0, 255))
    x_db = decibels(seen.sample, on_grid(seen.sample, grid)) if seen.sample.size else np.nan
    return Row(found.key, name, method, weight.size, low, high, x_db, weight_db)
