"""What integers would give, in f32: each layer rounds x and its weight, and can be switched off.

    graph = SimulateLayers(layers)(graph)            # one more input: f32 (layers,), 1 for those that round, else 0

`QuantizeLayers` runs on bytes; this computes the same numbers up to f32's own rounding, in one graph that serves for
every choice of layers. So a sensitivity report compiles one program, not one for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.ir import Graph, Operand, Value, bind, f32, ops

from .find_layers import FoundLayer, find_layers
from .fold_constants import frozen
from .quantize_layers import MIDDLE, IntegerLayer, LayerWriter


@dataclass(frozen=True, eq=False)
class SimulateLayers:
    """The layers that have a key in `layers`, rounded where their switch is not 0; switches are the last input, in the
    order of the graph."""

    layers: Mapping[str, IntegerLayer]

    def __call__(self, graph: Graph, /) -> Graph:
        found = [layer for layer in find_layers(graph) if layer.key in self.layers]
        return _Simulation(graph, found, self.layers).result()


class _Simulation(LayerWriter):
    def __init__(self, graph: Graph, found: list[FoundLayer], layers: Mapping[str, IntegerLayer]) -> None:
        super().__init__(graph, found, layers)
        self.switches = self.edit.input("switches", f32[max(len(found), 1)])
        self.place = {layer.key: number for number, layer in enumerate(found)}
        self.first = {layer.x: layer for layer in reversed(found)}  # whose switch counts for others that read x

    def read(self, value: Value) -> Value:
        if value not in self.grids or value in self.graph.inputs or value in self.graph.outputs:
            return self.same.get(value, value)
        return self._rounded(self.first[value]).payload

    def _chosen(self, found: FoundLayer, rounded: Any, exact: Any) -> Any:
        """`rounded` where the layer's switch is on."""
        place = self.place[found.key]
        switch = ops.reshape(ops.slice(self.switches, (place,), (1,)), ())
        return ops.where(switch > 0.0, rounded, exact)

    def _rounded(self, found: FoundLayer) -> Any:
        """x, on its grid where the layer's switch is on."""
        x, grid = Operand(self.same.get(found.x, found.x)), self.layers[found.key].grid
        if grid is not None:
            return self._chosen(found, ops.fake_quantize(x, grid.scale, grid.zero, 0, 255), x)
        q, scale = self.own_grid(found)
        return self._chosen(found, ops.reshape(ops.dequantize(q, scale, MIDDLE, axis=0), x.shape), x)

    def write_layer(self, found: FoundLayer) -> Any:
        layer, node = self.layers[found.key], found.node
        weight = layer.weight * layer.scale.reshape(-1, *(1,) * (layer.weight.ndim - 1))
        natural = frozen((weight.T if found.is_turned else weight).astype(np.float32))
        exact = Operand(self.same.get(found.weight, found.weight))
        w = self._chosen(found, self.edit.array(f"{found.key}_rounded", natural), exact)
        rest = [Operand(self.same.get(v, v)) for v in node.inputs[2:]]
        y = bind(node.op, self._rounded(found), w, *rest, **node.attrs)
        if found.plus is None:
            return y
        assert found.bias is not None
        return y + Operand(self.same.get(found.bias, found.bias))
