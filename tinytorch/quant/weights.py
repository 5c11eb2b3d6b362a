"""Weights of 8 or 4 bits under activations as they were: `quantize_weights(model, 4)`.

    small = quantize_weights(model, 4, group=32)                            # nothing but the model is needed
    small = quantize_weights(model, 4, rounding="gptq", data=windows)       # better, from some hundred examples
    small.report()

Each group of elements along the depth of an output gets a scale (and, unless `symmetric`, an offset). With
rounding="nearest" it is the largest element over 127, or for 4 bits the one of some scales around that for which
Σ(w - ŵ)² is least: a little clipping pays. "gptq" rounds with the same scales, see `gptq.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from tinytorch.ir import Graph, Value
from tinytorch.ir.errors import DataError, OpError, listing
from tinytorch.look.terminal import as_text
from tinytorch.nn import Module, Rewritten
from tinytorch.passes import FoldBatchNorm, Pipeline
from tinytorch.passes.find_layers import canonical
from tinytorch.passes.known import evaluate_known
from tinytorch.passes.quantize_weights import PackedWeight, QuantizeWeights, linear_layers

from .calibrate import arity, batches, check, folded, runner
from .gptq import Hessian, gptq_round

if TYPE_CHECKING:
    from rich.table import Table

METHODS = {"int8": 8, "int4": 4, "f32": 0}
ROUNDINGS = ("nearest", "gptq")
GROUP = {8: None, 4: 64}  # elements that share a scale; None: all of an output
NEAR = 1 << 16  # elements that stay in the cache while scales are tried
# For 4 bits, the largest element of a group falls on one of these (of -8 … 7), whichever makes the error least.
REACH = tuple(sign * (6.5 + 0.25 * step) for step in range(12) for sign in (1, -1))


@dataclass(frozen=True)
class Rounding:
    """How a weight is rounded."""

    bits: int
    group: int
    symmetric: bool

    def scales(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Scale and offset (outputs, groups) of each group of a weight (outputs, depth), as bf16 holds them."""
        outputs, depth = weight.shape
        count = -(-depth // self.group)
        found = []
        for rows in _blocks(outputs, depth):
            part = weight[rows]
            filled = np.pad(part, ((0, 0), (0, count * self.group - depth)), mode="edge")  # changes no extreme
            found.append(self._scales(filled.reshape(len(part), count, self.group).astype(np.float32)))
        scales, offsets = zip(*found, strict=True)
        return np.concatenate(scales), None if self.symmetric else np.concatenate(offsets)

    def _scales(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        if not self.symmetric:
            return self._affine(groups)
        place = np.abs(groups).argmax(-1)[..., None]
        extreme = np.take_along_axis(groups, place, -1)[..., 0]
        if self.bits == 8:
            return _bf16(np.abs(extreme) / 127), None
        best = _Best(groups)
        for reach in REACH:
            best.offer(_bf16(extreme / np.float32(reach)), None)
        return best.scale, None

    def _affine(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = groups.min(-1), groups.max(-1)
        steps, middle = 2 ** self.bits - 1, 2 ** (self.bits - 1)
        best = _Best(groups, self.bits)
        for shrink in (1.0,) if self.bits == 8 else np.linspace(0.7, 1.0, 7):
            scale = _bf16((high - low) * np.float32(shrink) / steps)
            best.offer(scale, _bf16((high + low) / 2 + scale * np.float32(middle - steps / 2)))
        assert best.offset is not None
        return best.scale, best.offset


class _Best:
    """Of several scales (and offsets) for groups (outputs, groups, elements), the one with the least squared error."""

    def __init__(self, groups: np.ndarray, bits: int = 4) -> None:
        self.groups, self.bits = groups, bits
        self.error = np.full(groups.shape[:-1], np.inf, np.float32)
        self.scale = np.zeros(groups.shape[:-1], np.float32)
        self.offset: np.ndarray | None = None

    def offer(self, scale: np.ndarray, offset: np.ndarray | None) -> None:
        """Take these where they are better."""
        if offset is None:
            numbers = self.groups * _inverse(scale)[..., None]
        else:
            numbers = self.groups - offset[..., None]
            numbers *= _inverse(scale)[..., None]
        np.rint(numbers, out=numbers)
        np.clip(numbers, -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1, out=numbers)
        numbers *= scale[..., None]
        if offset is not None:
            numbers += offset[..., None]
        numbers -= self.groups
        error = np.einsum("oge,oge->og", numbers, numbers)
        better = error < self.error
        self.error[better] = error[better]
        self.scale[better] = scale[better]
        if offset is not None:
            self.offset = offset.copy() if self.offset is None else self.offset
            self.offset[better] = offset[better]


def _bf16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale, and 0 for 0."""
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _nearest(x: np.ndarray, scale: np.ndarray, offset: np.ndarray | None, bits: int) -> np.ndarray:
    """Whole numbers q for which q · scale + offset is nearest to x."""
    ratio = (x if offset is None else x - offset) * _inverse(scale)
    return np.clip(np.rint(ratio), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int8)


def _stands_for(values: np.ndarray, scale: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    return values * scale if offset is None else values * scale + offset


def round_weight(weight: np.ndarray, rounding: Rounding, hessian: np.ndarray | None = None) -> PackedWeight:
    """A weight (outputs, depth), rounded: to the nearest numbers, or with a Hessian (depth, depth) as GPTQ does.

    Raises:
        DataError: the weight holds NaN or infinities; see also `gptq_round`.
    """
    if not np.isfinite(weight).all():
        raise DataError(f"a weight {weight.shape} holds NaN or infinities: train the model anew")
    scale, offset = rounding.scales(weight)
    values = np.empty(weight.shape, np.int8)

    def column(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        group = k // rounding.group
        along, shift = scale[:, group], None if offset is None else offset[:, group]
        found = _nearest(x.astype(np.float32), along, shift, rounding.bits)
        return found, _stands_for(found, along, shift)

    if hessian is not None:
        values = gptq_round(weight, hessian, column)
    place = np.arange(weight.shape[1]) // rounding.group
    noise = signal = 0.0
    for rows in _blocks(*weight.shape):
        part, wide, shift = weight[rows], scale[rows][:, place], None if offset is None else offset[rows][:, place]
        if hessian is None:
            values[rows] = _nearest(part, wide, shift, rounding.bits)
        noise += float(np.square(_stands_for(values[rows], wide, shift) - part).sum(dtype=np.float64))
        signal += float(np.square(part).sum(dtype=np.float64))
    decibels = float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else np.inf
    return PackedWeight(values, scale, offset, rounding.bits, rounding.group, decibels)


def _blocks(outputs: int, depth: int) -> list[slice]:
    """The outputs, some at a time: so few that their elements stay in the cache."""
    rows = max(1, NEAR // max(depth, 1))
    return [slice(at, at + rows) for at in range(0, outputs, rows)]


# -- models ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What `quantize_weights` was asked for: the makings of a packed weight."""

    bits: int
    group: int | None
    symmetric: bool
    rounding: str
    layers: Mapping[str, str]  # by key

    def rounding_of(self, key: str, depth: int) -> Rounding | None:
        """How the weight of this layer is rounded; None if it stays as it is."""
        bits = METHODS[self.layers[key]] if key in self.layers else self.bits
        if not bits:
            return None
        word = 32 // bits
        whole = -(-depth // word) * word
        group = self.group or GROUP[bits]
        return Rounding(bits, whole if group is None else min(group, whole), self.symmetric)

    def make(self, key: str, weight: np.ndarray) -> PackedWeight | None:
        """The nearest one."""
        rounding = self.rounding_of(key, weight.shape[1])
        return None if rounding is None else round_weight(weight, rounding)


def quantize_weights(target: Any, bits: int = 8, group: int | None = None, symmetric: bool = True,
                     rounding: str = "nearest", data: Any = None, layers: Mapping[str, str] | None = None,
                     embeddings: bool = False) -> Any:
    """A model or graph whose linear layers keep their weights in 8 or 4 bits; activations stay f32.

    Args:
        target: a module (its evaluation mode is taken; it is left as it is), or a graph.
        bits: 8 or 4.
        group: how many elements along the depth share a bf16 scale: a multiple of 8; None: 64 for 4 bits, all for 8.
        symmetric: without offsets; with them the grid of a group goes from its least to its greatest element.
        rounding: "nearest", or "gptq", which needs `data`.
        data: calibration examples for "gptq": an array with the examples along its first axis, or batches.
        layers: other choices for some layers, "int8", "int4" or "f32", by the path of the module or the name in the
            graph.
        embeddings: also tables that no linear layer reads. A table that one reads (tied) is stored once in any case.
    Returns:
        A `SmallerWeights`, an `nn.Rewritten`, for a module; a graph for a graph.
    Raises:
        OpError: an option that does not exist, a layer that does not exist.
        PassError: there is no linear layer (of a module: when it is called).
        DataError: "gptq" without data; data, weights or what goes into a layer hold NaN or infinities.

    >>> import tinytorch as tt
    >>> from tinytorch.quant.weights import quantize_weights
    >>> model = tt.nn.Sequential(tt.nn.Linear(64, 96), tt.nn.ReLU(), tt.nn.Linear(96, 32))
    >>> x = tt.randn(5, 64)
    >>> bool((quantize_weights(model, 8)(x) - model(x)).abs().max() < 0.05)
    True
    """
    options = _options(bits, group, symmetric, rounding, layers)
    _check_layers(target, options.layers)
    step = QuantizeWeights(make=options.make, embeddings=embeddings)
    if rounding == "gptq":
        _calibrate(target, data, options, step.weights)
    return Pipeline(FoldBatchNorm(), step)(target) if isinstance(target, Graph) else SmallerWeights(target, step)


class SmallerWeights(Rewritten):
    """A model whose linear layers keep their weights in 8 or 4 bits; what `quantize_weights` gives.

    >>> import tinytorch as tt
    >>> small = tt.quant.quantize_weights(tt.nn.Linear(64, 32), bits=4)
    >>> small(tt.ones(1, 64)).shape, small.report().before / small.report().after > 7
    ((1, 32), True)
    """

    def __init__(self, module: Callable[..., Any], step: QuantizeWeights) -> None:
        super().__init__(module, FoldBatchNorm(), step)
        self.weights = step.weights

    def report(self) -> WeightReport:
        """A table of the layers met so far: bits, bytes before and after, signal to noise."""
        return WeightReport({key: packed for key, packed in self.weights.items() if packed is not None})


@dataclass(frozen=True)
class WeightReport:
    """What became of each layer's weight; shows as a table."""

    weights: Mapping[str, PackedWeight]

    @property
    def before(self) -> int:
        """Bytes of the weights in f32."""
        return sum(4 * packed.values.size for packed in self.weights.values())

    @property
    def after(self) -> int:
        """Bytes of the packed weights, scales and all."""
        return sum(packed.nbytes for packed in self.weights.values())

    def __rich__(self) -> Table:
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE, pad_edge=False, show_footer=True)
        for name, total in (("layer", "all"), ("bits", ""), ("group", ""), ("bytes before", f"{self.before:,}"),
                            ("after", f"{self.after:,}"), ("signal to noise", "")):
            table.add_column(name, total, justify="left" if name == "layer" else "right", no_wrap=True)
        for key, packed in self.weights.items():
            bits = f"{packed.bits}" if packed.offset is None else f"{packed.bits} and offset"
            table.add_row(key, bits, str(packed.group), f"{4 * packed.values.size:,}", f"{packed.nbytes:,}",
                          f"{packed.decibels:.1f} dB")
        return table

    def __str__(self) -> str:
        return as_text(self)

    __repr__ = __str__


def _options(bits: int, group: int | None, symmetric: bool, rounding: str,
             layers: Mapping[str, str] | None) -> Options:
    if bits not in (8, 4):
        raise OpError(f"quantize_weights(bits={bits}): expected 8 or 4")
    if group is not None and (group < 8 or group % 8):
        raise OpError(f"quantize_weights(group={group}): expected a multiple of 8 elements, such as 32, 64 or 128; "
                      "None chooses")
    if rounding not in ROUNDINGS:
        raise OpError(f"quantize_weights(rounding={rounding!r}): expected one of {listing(ROUNDINGS)}")
    chosen = {canonical(name): method for name, method in (layers or {}).items()}
    if bad := set(chosen.values()) - METHODS.keys():
        raise OpError(f"quantize_weights(layers=…): {listing(bad)} is no method for weights alone; expected one of "
                      f"{listing(METHODS)}")
    return Options(bits, group, symmetric, rounding, chosen)


def _check_layers(target: Any, chosen: Mapping[str, str]) -> None:
    """Refuse what is neither a module nor a graph, and names that it does not have."""
    if isinstance(target, Graph):
        keys = {canonical(target.names[value]) for value in target.bound}
    elif isinstance(target, Module):
        keys = {canonical(name) for name, parameter in target.named_parameters() if parameter.ndim == 2}
    else:
        raise OpError(f"quantize_weights({type(target).__name__}): expected a module or a graph; tt.trace makes one of "
                      "a function")
    if unknown := chosen.keys() - keys:
        raise OpError(f"quantize_weights(layers=…): there is no layer {listing(unknown)}; "
                      f"there are {listing(keys, 40)}")


def _calibrate(target: Any, data: Any, options: Options, weights: dict[str, PackedWeight | None]) -> None:
    """Round each layer's weight for the inputs that it meets."""
    if data is None:
        raise DataError("quantize_weights(rounding='gptq') needs data: some hundred examples, as an array whose first "
                        "axis counts them or as batches; or rounding='nearest', which needs none")
    graph_of = folded(target)
    hessians: dict[str, Hessian] = {}
    runs: dict[Any, tuple[Any, dict[Value, list[str]]]] = {}
    for batch in batches(data, arity(target)):
        check(batch)
        shapes = tuple(array.shape for array in batch)
        if shapes not in runs:
            graph = graph_of(*batch)
            points: dict[Value, list[str]] = {}
            for layer in linear_layers(graph):
                points.setdefault(layer.x, []).append(layer.key)
            runs[shapes] = runner(graph.with_(outputs=tuple(points), donated={})), points
        run, points = runs[shapes]
        for x, (value, keys) in zip(run(*batch), points.items(), strict=True):
            shared = hessians.setdefault(keys[0], Hessian(value.shape[-1]))
            shared.add(x.numpy())
            hessians |= dict.fromkeys(keys, shared)
    for layer in linear_layers(graph):
        weight = layer.natural(evaluate_known(graph, [layer.weight])[layer.weight])
        rounding = options.rounding_of(layer.key, weight.shape[1])
        weights[layer.key] = None if rounding is None else round_weight(weight, rounding, hessians[layer.key].matrix)
