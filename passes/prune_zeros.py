"""Pass over blocks of zeros: layers whose known weight has enough of them become `sparse_linear`.

    SkipZeroBlocks()(graph)
    nn.Rewritten(model, SkipZeroBlocks())

Linear layers, products with a known matrix, and 1 × 1 convolutions of stride 1 qualify. What counts is what a panel of
32 outputs can skip: elements along the depth that are zero for all of them, as `prune(structure="blocks")` and "N:M"
patterns leave them. Zeros scattered without a pattern gain nothing, and such layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tinytorch.ir import Graph, Node, Operand, Value, ops
from tinytorch.ir.ops.convolve import CHANNELS_FIRST, CHANNELS_LAST
from tinytorch.ir.ops.sparse import RUNS, density, pack_sparse

from .find_layers import FoundLayer, find_layers
from .fold_constants import frozen
from .known import evaluate_known
from .rewrite import By, Edit, Table, rewrite

A_RUN = 0.05  # what finding the place of a run costs, in steps along the depth
NAMES = ("blocks", "places", "starts")
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class SkipZeroBlocks:
    """No products with blocks of zeros, in layers in which at least the share `least` of a weight can be skipped.

    Attributes:
        weights: what was made of each layer, by its key (`find_layers`); None for those that stay.
    """

    least: float = 0.2
    weights: dict[str, Arrays | None] = field(default_factory=dict)

    def __call__(self, graph: Graph, /) -> Graph:
        sites: dict[Value, tuple[str, Arrays]] = {}
        for layer in find_layers(graph):
            if layer.key not in self.weights:
                self.weights[layer.key] = self._packed(graph, layer)
            if (arrays := self.weights[layer.key]) is not None:
                sites[layer.node.output] = layer.key, arrays
        rule = By("x Wᵀ = sparse_linear(x, blocks of W)", (ops.linear, ops.matmul, ops.conv2d),
                  partial(_written, sites=sites))
        return rewrite(graph, Table((rule,))) if sites else graph

    def _packed(self, graph: Graph, layer: FoundLayer) -> Arrays | None:
        """The blocks of a layer's weight, in runs of the length that is cheapest; None if it has too few zeros."""
        if layer.is_convolution and not _is_product(layer.node):
            return None
        weight = layer.natural(evaluate_known(graph, [layer.weight])[layer.weight])
        weight = np.asarray(weight).reshape(len(weight), -1)
        costs = {run: density(weight, run) * (1 + A_RUN / run) for run in RUNS if weight.shape[1] % run == 0}
        run = min(costs, key=lambda run: costs[run])
        if costs[run] > 1 - self.least or not weight.any():
            return None
        return dict(zip(NAMES, map(frozen, pack_sparse(weight, run)), strict=True))


def _is_product(node: Node) -> bool:
    """Whether a convolution looks at one pixel at a time."""
    attrs, kernel = node.attrs, node.inputs[1].shape[2:]
    return kernel == (1, 1) and attrs["stride"] == (1, 1) and attrs["padding"] == (0, 0) and attrs["groups"] == 1


def _written(node: Node, edit: Edit, sites: Mapping[Value, tuple[str, Arrays]]) -> Any:
    if node.output not in sites:
        return None
    key, arrays = sites[node.output]
    x, weight, *bias = map(Operand, node.inputs)
    operands = [edit.array(f"{key}_{name}", array) for name, array in arrays.items()]
    if node.op is ops.conv2d:
        y = ops.sparse_linear(ops.transpose(x, CHANNELS_LAST), *operands, outputs=weight.shape[0])
        return ops.transpose(y, CHANNELS_FIRST)
    y = ops.sparse_linear(x, *operands, outputs=node.output.shape[-1])
    return y + bias[0] if bias else y
