"""Store the weights of linear layers in 8 or 4 bits: `linear` and `matmul` with a known weight become `packed_linear`.

    QuantizeWeights({"blocks_0_mlp_up": packed, …})(graph)
    QuantizeWeights(make=lambda key, weight: round_to(weight, 4))(graph)       # made as layers are met, then kept

What goes through the layers stays as it is: only weights are smaller, and a product of few rows, which waits for them
to be read, is faster in that proportion. An embedding that reads the same weight as a layer (tied) reads the packed one
too, so the table is stored once; any other embedding only if its key is in `weights`.

Keys are those of `find_layers`: the name of the weight, dots as underscores, without "_weight".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from tinytorch.ir import Evaluate, Graph, Node, Operand, Value, ops
from tinytorch.ir.errors import OpError
from tinytorch.ir.ops.packed import pack, pack_groups, unpacked

from .find_layers import FoundLayer, canonical, find_layers
from .fold_constants import frozen
from .known import evaluate_known
from .rewrite import By, Edit, Table, rewrite


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight (outputs, depth) as `packed_linear` takes it.

    Attributes:
        values: whole numbers of -128 … 127 or -8 … 7, (outputs, depth).
        scale: of each group along the depth, (outputs, groups); offset: likewise, or None for 0. Rounded to bf16.
        bits: 8 or 4; group: elements that have a scale in common.
        decibels: 10 lg Σw² / Σ(w - ŵ)², how well it stands for what it was made of.
    """

    values: np.ndarray
    scale: np.ndarray
    offset: np.ndarray | None
    bits: int
    group: int
    decibels: float = np.inf

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """What the kernel reads, by name."""
        found = {"packed": pack(self.values, self.bits), "scale": pack_groups(self.scale)}
        if self.offset is not None:
            found["offset"] = pack_groups(self.offset)
        return {name: frozen(array) for name, array in found.items()}

    @property
    def attrs(self) -> dict[str, int]:
        """The attributes of `packed_linear`."""
        return {"bits": self.bits, "group": self.group, "outputs": len(self.values)}

    @property
    def nbytes(self) -> int:
        """Bytes of `arrays`."""
        return sum(array.nbytes for array in self.arrays.values())

    def dequantized(self) -> np.ndarray:
        """The weight that it stands for, f32 (outputs, depth)."""
        operands = tuple(map(Operand, self.arrays.values()))
        with Evaluate():
            weight: np.ndarray = unpacked(operands, self.bits, self.group, self.values.shape[1],
                                          len(self.values)).payload
        return weight


Make = Callable[[str, np.ndarray], PackedWeight | None]


@dataclass(frozen=True)
class QuantizeWeights:
    """The layers that have a key in `weights`, or for which `make(key, weight)` gives a packed weight, on that.

    What `make` gives is put into `weights`. With `embeddings`, it is asked for tables too that no layer reads.

    Raises:
        OpError: there is no linear layer, so nothing can be done.
    """

    weights: dict[str, PackedWeight | None] = field(default_factory=dict)
    make: Make | None = None
    embeddings: bool = False

    def __call__(self, graph: Graph, /) -> Graph:
        sites = self._sites(graph)
        if sites is None:
            raise OpError(f"{graph.name} has no linear layer, and no product with a known weight, that could be packed")
        rule = By("x Wᵀ = packed_linear(x, W)", (ops.linear, ops.matmul, ops.take), partial(_written, sites=sites))
        return rewrite(graph, Table((rule,)))

    def _sites(self, graph: Graph) -> dict[Value, tuple[str, PackedWeight]] | None:
        """By the value that a layer gives: its key and its packed weight. None: there is no layer."""
        sites: dict[Value, tuple[str, PackedWeight]] = {}
        tables: dict[Value, str] = {}  # the keys of weights that lie as tables of rows
        layers = linear_layers(graph)
        for layer in layers:
            key = tables.setdefault(layer.weight, layer.key) if _lies_by_rows(layer) else layer.key
            if (packed := self._packed(graph, key, layer.weight, layer.natural)) is not None:
                sites[layer.node.output] = key, packed
        takes = [node for node in graph.nodes if _is_embedding(graph, node)]
        for node in takes:
            table = node.inputs[0]
            key = tables.get(table, canonical(graph.names[table]))
            if self.embeddings and table not in tables:
                self._packed(graph, key, table, np.asarray)
            if (packed := self.weights.get(key)) is not None:
                sites[node.output] = key, packed
        return sites if layers or (takes and self.embeddings) else None

    def _packed(self, graph: Graph, key: str, weight: Value, natural: Callable[[Any], Any]) -> PackedWeight | None:
        if key not in self.weights and self.make is not None:
            self.weights[key] = self.make(key, natural(evaluate_known(graph, [weight])[weight]))
        return self.weights.get(key)


def linear_layers(graph: Graph) -> list[FoundLayer]:
    """The layers of `graph` that are products with a known matrix."""
    return [layer for layer in find_layers(graph) if not layer.is_convolution]


def _lies_by_rows(layer: FoundLayer) -> bool:
    """Whether an output's elements are a row of the weight, as of an embedding's table."""
    return layer.node.op is ops.linear or layer.node.attrs["transpose_y"]


def _is_embedding(graph: Graph, node: Node) -> bool:
    """Whether `node` takes rows of a known matrix."""
    if node.op is not ops.take or node.inputs[0] not in graph.bound:
        return False
    return node.attrs["axis"] == 0 and len(node.inputs[0].shape) == 2 and node.inputs[0].dtype.name == "f32"


def _written(node: Node, edit: Edit, sites: dict[Value, tuple[str, PackedWeight]]) -> Any:
    if node.output not in sites:
        return None
    key, packed = sites[node.output]
    operands = [edit.array(f"{key}_{name}", array) for name, array in packed.arrays.items()]
    if node.op is ops.take:
        return ops.packed_rows(Operand(node.inputs[1]), *operands, **packed.attrs, depth=packed.values.shape[1])
    x, _, *bias = map(Operand, node.inputs)
    y = ops.packed_linear(x, *operands, **packed.attrs)
    return y + bias[0] if bias else y
