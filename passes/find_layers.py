"""Find layers in a graph: products of a value with a weight that is known, and the bias that is added to it.

    for layer in find_layers(graph): print(layer.key, layer.node.op, layer.weight.type)

A layer is a `conv2d`, `linear` or `matmul` whose weight depends on bound inputs alone. Its `key` is the name of the
biggest of those, without "_weight": "conv1", "layer1_0_conv2"; a second layer with the same weight is "conv1#2". Keys
depend on parameters, not on sizes, so what is chosen for a key holds for every batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinytorch.ir import Graph, Node, Value, ops

from .known import bound_sources, name_of

LAYERS = (ops.conv2d, ops.linear, ops.matmul)


@dataclass(frozen=True, eq=False)
class FoundLayer:
    """A product, with what is known of it.

    Attributes:
        key: its name.
        node: the `conv2d`, `linear` or `matmul`.
        plus: the addition of a bias that follows it, if one does; bias: what is added there, or inside.
    """

    key: str
    node: Node
    plus: Node | None
    bias: Value | None

    @property
    def x(self) -> Value:
        """What goes in."""
        return self.node.inputs[0]

    @property
    def weight(self) -> Value:
        """The weight, as the node reads it."""
        return self.node.inputs[1]

    @property
    def last(self) -> Node:
        """The node that gives the layer's result, bias and all."""
        return self.plus or self.node

    @property
    def output(self) -> Value:
        """The layer's result."""
        return self.last.output

    @property
    def is_convolution(self) -> bool:
        """Whether this is a `conv2d`."""
        return self.node.op is ops.conv2d

    @property
    def is_turned(self) -> bool:
        """Whether the weight has its outputs last, as in x @ w."""
        return self.node.op is ops.matmul and not self.node.attrs["transpose_y"]

    def natural(self, weight: np.ndarray) -> np.ndarray:
        """The weight with its outputs first: (out, channels / groups, kh, kw), or (out, in)."""
        return weight.T if self.is_turned else weight


def canonical(name: str) -> str:
    """The key of a layer, of a parameter or module's path, or of a name in a graph."""
    return name.replace(".", "_").strip("_").removesuffix("_weight") or name


def find_layers(graph: Graph) -> list[FoundLayer]:
    """The layers of `graph`, in order, each under a key of its own."""
    known = bound_sources(graph, graph.bound)
    found: list[FoundLayer] = []
    count: dict[str, int] = {}
    for node in graph.nodes:
        if not _is_layer(node, known):
            continue
        key = canonical(name_of(graph, known[node.inputs[1]]))
        count[key] = count.get(key, 0) + 1
        plus = _addition(graph, node, known)
        inner = node.inputs[2] if len(node.inputs) > 2 else None
        bias = inner if plus is None else next(v for v in plus.inputs if v is not node.output)
        found.append(FoundLayer(key if count[key] == 1 else f"{key}#{count[key]}", node, plus, bias))
    return found


def _is_layer(node: Node, known: Iterable[Value]) -> bool:
    if node.op not in LAYERS or node.inputs[1] not in known or node.inputs[0] in known:
        return False
    weight, *bias = node.inputs[1:]
    if any(v.dtype.name != "f32" for v in node.inputs) or any(v not in known for v in bias):
        return False
    return node.op is not ops.matmul or (len(weight.shape) == 2 and not node.attrs["transpose_x"])


def _addition(graph: Graph, node: Node, known: Iterable[Value]) -> Node | None:
    """The addition of a known bias, one number for each output, that alone reads what `node` makes."""
    y, users = node.output, graph.users[node.output]
    if len(users) != 1 or users[0].op is not ops.add or y in graph.outputs or len(node.inputs) > 2:
        return None
    others = [v for v in users[0].inputs if v is not y]
    axis = 1 if node.op is ops.conv2d else len(y.shape) - 1
    aligned = tuple(n if a == axis else 1 for a, n in enumerate(y.shape))
    if len(others) != 1 or others[0] not in known or others[0].dtype is not y.dtype:
        return None
    shape = (1,) * (len(y.shape) - len(others[0].shape)) + others[0].shape
    return users[0] if shape in (aligned, (1,) * len(aligned)) else None
