"""Compute equal things once (common subexpression elimination): nodes with the same op, operands, attributes are one.

Operands of commutative ops may come in either order. Random numbers are functions of their key, so they merge as well.
Bound inputs that are the same memory become one too; those that are overwritten stay apart. What is left without
readers is for `RemoveDead`.

    MergeCommon()(graph)
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from tinytorch.ir import Graph, Node, Value


@dataclass(frozen=True)
class MergeCommon:
    """One node for each distinct computation, the first."""

    def __call__(self, graph: Graph, /) -> Graph:
        same = _same_inputs(graph)
        first: dict[Hashable, Node] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            inputs = tuple(same.get(v, v) for v in node.inputs)
            if inputs != node.inputs:
                node = replace(node, inputs=inputs)
            known = first.setdefault(key(node), node)
            if known is node:
                nodes.append(node)
            else:
                same.update(zip(node.outputs, known.outputs, strict=True))
        if not same:
            return graph
        return graph.with_(nodes=tuple(nodes), outputs=tuple(same.get(v, v) for v in graph.outputs))


def key(node: Node) -> Hashable:
    """Equal for nodes that compute the same."""
    inputs: tuple[int, ...] = tuple(map(id, node.inputs))
    if node.op.commutative:
        inputs = tuple(sorted(inputs))
    return node.op.name, inputs, tuple((name, freeze(value)) for name, value in sorted(node.attrs.items()))


def freeze(value: Any) -> Hashable:
    """An attribute as a key: 0.0 and -0.0 differ, nan equals itself, 1 and 1.0 and True differ,
    graphs are compared by identity."""
    if isinstance(value, tuple):
        return tuple(map(freeze, value))
    if isinstance(value, float):
        return float, value.hex()
    if isinstance(value, bool):
        return bool, value
    return id(value) if isinstance(value, Graph) else value


def _same_inputs(graph: Graph) -> dict[Value, Value]:
    """Bound inputs that are the memory of an earlier one, to that one."""
    overwritten = {graph.inputs[place] for place in graph.donated.values()}
    first: dict[Hashable, Value] = {}
    same: dict[Value, Value] = {}
    for value, array in graph.bound.items():
        if value in overwritten:
            continue
        known = first.setdefault((array.ctypes.data, array.dtype.str, array.shape, array.strides), value)
        if known is not value and array.size:
            same[value] = known
    return same
