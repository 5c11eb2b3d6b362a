"""Compute now what does not depend on the inputs.

    FoldConstants()(graph)

Known are literals, `iota`, and bound inputs whose array nobody can write (parameters that may still be trained are
writeable, and so are left alone; mark frozen ones with `array.flags.writeable = False`). A known result of at most 16
elements becomes a literal; a bigger one becomes a bound input, but only if it takes no more memory than the bound
inputs it comes from: `broadcast_to(0, (4096, 4096))` stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from tinytorch.ir import Graph, Kind, Node, TensorType, Value, ops
from tinytorch.ir.interp import MAX_INLINE, constant_attrs

from .remove_dead import RemoveDead


@dataclass(frozen=True)
class FoldConstants:
    """Literals and bound arrays in place of nodes that depend on nothing else;
    `limit` is the most bytes of an array to look at."""

    limit: int = 1 << 20

    def __call__(self, graph: Graph, /) -> Graph:
        known = _Known(graph, self.limit)
        needed, folded = _needed(graph, known)
        if not folded:
            return graph
        nodes: list[Node] = []
        extra: dict[Value, np.ndarray] = {}
        for node in graph.nodes:
            if node.outputs[0] in folded:
                array = known.arrays[node.output]
                if array.size <= MAX_INLINE:
                    nodes.append(replace(node, op=ops.constant, inputs=(), attrs=constant_attrs(array)))
                else:
                    extra[node.output] = frozen(array)
            elif any(value in needed for value in node.outputs):
                nodes.append(node)
        return RemoveDead()(graph.with_(inputs=(*graph.inputs, *extra), nodes=tuple(nodes),
                                        bound={**graph.bound, **extra}))


def frozen(array: np.ndarray) -> np.ndarray:
    """A packed copy that cannot be written."""
    array = np.array(array, order="C")
    array.flags.writeable = False
    return array


def is_frozen(array: np.ndarray) -> bool:
    """Whether nobody can write the elements: neither this array nor one that it is a view of is writeable."""
    return not array.flags.writeable and (not isinstance(array.base, np.ndarray) or is_frozen(array.base))


@dataclass
class _Known:
    """The values that are known, with their arrays, and the bytes of the bound inputs each comes from."""

    graph: Graph
    limit: int
    arrays: dict[Value, np.ndarray] = field(default_factory=dict)
    sources: dict[Value, frozenset[Value]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        overwritten = {self.graph.inputs[place] for place in self.graph.donated.values()}
        for value, array in self.graph.bound.items():
            if is_frozen(array) and value not in overwritten and array.nbytes <= self.limit:
                self.arrays[value] = array
                self.sources[value] = frozenset((value,))
        with np.errstate(all="ignore"):
            for node in self.graph.nodes:
                self.learn(node)

    def learn(self, node: Node) -> None:
        """Evaluate `node` if all it reads is known, and it is small."""
        if len(node.outputs) != 1 or not self.arrays.keys() >= set(node.inputs) or node.output.type.nbytes > self.limit:
            return
        try:
            array = np.asarray(node.op.eval(*(self.arrays[v] for v in node.inputs), **node.attrs))
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return  # it fails when it runs, if it ever does
        if TensorType.of(array) == node.output.type:
            self.arrays[node.output] = array
            self.sources[node.output] = frozenset().union(*(self.sources.get(v, frozenset()) for v in node.inputs))

    def can_replace(self, node: Node) -> bool:
        """Whether the result of `node` is worth writing down."""
        if node.op.kind is Kind.SOURCE or node.outputs[0] not in self.arrays:
            return False
        if node.output.type.size <= MAX_INLINE:
            return True
        known = sum(v.type.nbytes for v in self.sources[node.output])
        return node.op.kind is not Kind.VIEW and node.output.type.nbytes <= known


def _needed(graph: Graph, known: _Known) -> tuple[set[Value], set[Value]]:
    """The values still to be computed, and those of them to be written down as constants."""
    needed: set[Value] = set(graph.outputs)
    folded: set[Value] = set()
    for node in reversed(graph.nodes):
        if needed.isdisjoint(node.outputs):
            continue
        if known.can_replace(node):
            folded.add(node.output)
        else:
            needed.update(node.inputs)
    return needed, folded
