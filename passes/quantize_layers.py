"""Run layers on bytes: `linear`, `conv2d` and products with a known weight become integer products.

    QuantizeLayers({"conv1": IntegerLayer(weight, scale, bias, Grid(0.02, 0)), …})(graph)

Of x ≈ (q - z) · s, with q of one byte, and of a weight w ≈ v · t, with a t for each output,

    Σ x w + b  ≈  (Σ q v + c) · s t        c = round(b / s t) - z Σ v      the offset, one i32 for each output

where Σ q v is exact (`quad_matmul`, `quad_convolve`) and c is known beforehand. Outside an image stands z, which means
0. What several layers read is quantised once, and who reads it besides, as a residual sum does, reads the bytes too.
The results are f32; `MoveGrids` then carries bytes through pools and views, and has one multiplication where there were
two.

A layer without a grid for x gets one at each call, from the numbers that come: one for each row of a matrix, and for
each image (dynamic quantisation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tinytorch.ir import Evaluate, Graph, Node, Operand, Value, ops
from tinytorch.ir.errors import OpError, ShapeError, listing
from tinytorch.ir.ops.convolve import CHANNELS_FIRST, CHANNELS_LAST
from tinytorch.ir.ops.integer import quads

from .find_layers import FoundLayer, find_layers
from .fold_constants import frozen
from .rewrite import Edit, Table

MIDDLE = 128  # the zero point of grids that are made when numbers come
LEAST_SCALE = 2.0 ** -100  # of a row of zeros


class Grid(NamedTuple):
    """The numbers (q - zero) · scale, q = 0 … 255."""

    scale: float
    zero: int


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """What a layer needs to run on bytes.

    Attributes:
        weight: i8, (out, channels / groups, kh, kw) or (out, in); scale: f32 (out,), of its rows.
        bias: f32 (out,).
        grid: where x lies; None for one that is made of the numbers that come.
    """

    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    grid: Grid | None = None

    @cached_property
    def packed(self) -> np.ndarray:
        """The weight as the kernel reads it."""
        axes = (2, 3, 1, 0) if self.weight.ndim == 4 else (1, 0)
        with Evaluate():
            return frozen(quads(Operand(self.weight.transpose(axes))).payload)

    @cached_property
    def offset(self) -> np.ndarray:
        """What is added to the sum of products: i32 (out,)."""
        total = self.weight.reshape(len(self.weight), -1).sum(1, dtype=np.int64)
        shift = -total * (MIDDLE if self.grid is None else self.grid.zero)
        if self.grid is not None:
            shift += np.rint(self.bias / self.step.astype(np.float64)).astype(np.int64)
        return frozen(np.clip(shift, -(1 << 31), (1 << 31) - 1).astype(np.int32))

    @cached_property
    def step(self) -> np.ndarray:
        """What one unit of the sum stands for: f32 (out,); without a grid, in units of x's scale."""
        return frozen((self.scale * np.float32(1 if self.grid is None else self.grid.scale)).astype(np.float32))

    @cached_property
    def shift(self) -> np.ndarray:
        """The bias, as an array that cannot be written."""
        return frozen(self.bias)


@dataclass(frozen=True, eq=False)
class QuantizeLayers:
    """The layers that have a key in `layers`, on bytes; what the graph has besides stays as it is."""

    layers: Mapping[str, IntegerLayer]

    def __call__(self, graph: Graph, /) -> Graph:
        found = [layer for layer in find_layers(graph) if layer.key in self.layers]
        if missing := self.layers.keys() - {layer.key for layer in found}:
            raise OpError(f"{graph.name} has no layer {listing(missing)}; was this made for another model?")
        for layer in found:
            _check_shape(layer, self.layers[layer.key])
        return LayerWriter(graph, found, self.layers).result() if found else graph


def _check_shape(found: FoundLayer, layer: IntegerLayer) -> None:
    shape = found.weight.shape
    natural = shape[::-1] if found.is_turned else shape
    if natural != layer.weight.shape:
        raise ShapeError(f"{found.key} has a weight {natural}, its integers are {layer.weight.shape}; "
                         "were they made for another model?")


class LayerWriter:
    """One walk over a graph, writing it anew with some layers in another way."""

    def __init__(self, graph: Graph, found: list[FoundLayer], layers: Mapping[str, IntegerLayer]) -> None:
        self.graph, self.layers = graph, layers
        self.edit = Edit(graph, Table(()))
        self.same: dict[Value, Value] = {}  # what stands for a value of the old graph
        self.bytes: dict[tuple[Value, Grid], Any] = {}  # what has been quantised
        self.found = {layer.last: layer for layer in found}
        self.inner = {layer.node for layer in found if layer.plus is not None}
        self.grids = {layer.x: grid for layer in found if (grid := layers[layer.key].grid) is not None}

    def result(self) -> Graph:
        """The new graph."""
        with self.edit:
            for node in self.graph.nodes:
                self._write(node)
        return self.edit.written(self.graph, self.same)

    def _write(self, node: Node) -> None:
        self.edit.source = node.source
        if node in self.found:
            self.same[node.output] = self.write_layer(self.found[node]).payload
        elif node not in self.inner:
            values = self.edit.emit(node.op, tuple(map(self.read, node.inputs)), node.attrs, node.source)
            self.same.update(zip(node.outputs, values, strict=True))

    def read(self, value: Value) -> Value:
        """What a reader that is no integer product reads: the bytes that others read, if there are some. The user's own
        inputs, and results, are in memory anyway."""
        if value not in self.grids or value in self.graph.inputs or value in self.graph.outputs:
            return self.same.get(value, value)
        grid = self.grids[value]
        return ops.dequantize(self._bytes(value, grid), grid.scale, grid.zero).payload

    def _bytes(self, value: Value, grid: Grid) -> Any:
        key = value, grid
        if key not in self.bytes:
            self.bytes[key] = ops.quantize(Operand(self.same.get(value, value)), grid.scale, grid.zero)
        return self.bytes[key]

    # -- layers --------------------------------------------------------------------------------------------------------

    def write_layer(self, found: FoundLayer) -> Any:
        layer = self.layers[found.key]
        scale: Any = None
        if layer.grid is None:
            q, scale = self.own_grid(found)
        else:
            q = self._bytes(found.x, layer.grid)
        weight, offset, step = (self.edit.array(f"{found.key}_{part}", getattr(layer, part))
                                for part in ("packed", "offset", "step"))
        total = self._product(found, q, weight, layer)  # channels last, or rows
        y = ops.cast(total + offset, "f32") * step
        if scale is not None:
            y = y * ops.reshape(scale, (-1, *(1,) * (y.ndim - 1))) + self.edit.array(f"{found.key}_shift", layer.shift)
        return ops.transpose(y, CHANNELS_FIRST) if found.is_convolution else ops.reshape(y, found.output.shape)

    def _product(self, found: FoundLayer, q: Any, weight: Any, layer: IntegerLayer) -> Any:
        if not found.is_convolution:
            return ops.quad_matmul(ops.reshape(q, (-1, q.shape[-1])), weight)
        attrs = found.node.attrs
        zero = MIDDLE if layer.grid is None else layer.grid.zero
        return ops.quad_convolve(ops.transpose(q, CHANNELS_LAST), weight, layer.weight.shape[2:], attrs["stride"],
                                 attrs["padding"], attrs["padding"], zero, attrs["dilation"], attrs["groups"])

    def own_grid(self, found: FoundLayer) -> tuple[Any, Any]:
        """x on grids of its own, one for each row or image, and their scales."""
        x = Operand(self.read(found.x))
        if not found.is_convolution:
            x = ops.reshape(x, (-1, x.shape[-1]))
        reach = ops.max(ops.abs(x), tuple(range(1, x.ndim)))
        scale = ops.maximum(reach * (1.0 / (255 - MIDDLE)), LEAST_SCALE)
        return ops.quantize(x, scale, MIDDLE, axis=0), scale
