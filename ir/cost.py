"""What a graph costs: floating point operations, transcendental calls, bytes read and written.

FLOPs count every addition, multiplication, division, comparison or selection of one element as one (a fused
multiply-add as two), and a transcendental call as `transcendentals`, not as FLOPs. Bytes are those that cross a
kernel's border: views cost none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .graph import Graph, Node
from .interp import Builder
from .op import Kind, Op, as_tuple
from .types import TensorType


@dataclass(frozen=True, slots=True)
class Cost:
    """Counts; add them with `+`."""

    flops: int = 0
    transcendentals: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.transcendentals + other.transcendentals,
                    self.bytes_read + other.bytes_read, self.bytes_written + other.bytes_written)

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """FLOPs for each byte moved: what the roofline is drawn over."""
        return self.flops / self.bytes if self.bytes else 0.0


def node_cost(node: Node) -> Cost:
    """The cost of one node, run on its own as one kernel."""
    if not node.op.kind.launches:
        return Cost()
    flops, transcendentals = _work(node)
    return Cost(flops, transcendentals, sum(v.type.nbytes for v in dict.fromkeys(node.inputs)),
                sum(v.type.nbytes for v in node.outputs))


def graph_cost(graph: Graph) -> Cost:
    """The sum over the nodes."""
    return sum(map(node_cost, graph.nodes), Cost())


def parameter_bytes(graph: Graph) -> int:
    """Bytes of the arrays that the graph is bound to and its nodes read; what several inputs share counts once."""
    read = {value for node in graph.nodes for value in node.inputs}
    arrays = {(array.__array_interface__["data"][0], array.nbytes): array.nbytes
              for value, array in graph.bound.items() if value in read}
    return sum(arrays.values())


def _work(node: Node) -> tuple[int, int]:
    if node.body is not None:
        pairs = [_work(inner) for inner in node.body.nodes]
        return sum(f for f, _ in pairs), sum(t for _, t in pairs)
    types = tuple(v.type for v in node.inputs)
    if node.op.kind is Kind.COMPOSITE:
        return _expansion_work(node.op, types, tuple(node.attrs.items()))
    flops = node.op.flops(node.output.type, *types, **node.attrs)
    return (0, node.output.type.size) if node.op.transcendental else (flops, 0)


@lru_cache(maxsize=1024)
def _expansion_work(op: Op, types: tuple[TensorType, ...], attrs: tuple[tuple[str, Any], ...]) -> tuple[int, int]:
    pairs = [_work(inner) for inner in expansion(op, types, dict(attrs)).nodes]
    return sum(f for f, _ in pairs), sum(t for _, t in pairs)


def expansion(op: Op, types: tuple[TensorType, ...], attrs: Mapping[str, Any]) -> Graph:
    """What `op` is in simpler ops, as a graph."""
    assert op.expand is not None
    build = Builder(op.name, sources=False)
    with build:
        return build.finish(as_tuple(op.expand(*(build.input("x", t) for t in types), **attrs)))
