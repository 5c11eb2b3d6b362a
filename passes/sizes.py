"""What a graph amounts to, and what a pass changed in it: the figures that every report of a pass shows.

    size_of(graph)                     # nodes, kernels, FLOPs, bytes moved, bytes of parameters
    size_of(graph, peak=True).peak     # also the arena that its intermediates need
    changes(before, after)             # {"batch_norm": -5, "add": 5}: operations that came and went

    >>> from tinytorch.ir import Builder, f32
    >>> build = Builder()
    >>> with build: y = build.input("x", f32[2]) * 3.0
    >>> size_of(build.finish([y])).flops
    2
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tinytorch.ir import Graph, Node, graph_cost
from tinytorch.ir.cost import parameter_bytes

from .plan_memory import plan_memory


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a graph amounts to.

    Attributes:
        nodes: of the graph; kernels: those that launch one (views and sources do not).
        flops, transcendentals: operations of one call.
        bytes: that the nodes read and write.
        parameters: bytes of the arrays that the graph is bound to and reads, each once.
        peak: of the arena that the memory planner needs, if it was asked.
    """

    nodes: int
    kernels: int
    flops: int
    transcendentals: int
    bytes: int
    parameters: int
    peak: int | None = None


def size_of(graph: Graph, peak: bool = False) -> Size:
    """The figures of a graph; `peak` also plans its memory."""
    cost = graph_cost(graph)
    return Size(nodes=len(graph.nodes), kernels=launches(graph), flops=cost.flops, bytes=cost.bytes,
                transcendentals=cost.transcendentals, parameters=parameter_bytes(graph),
                peak=plan_memory(graph).size if peak else None)


def launches(graph: Graph) -> int:
    """How many nodes run a kernel."""
    return sum(node.op.kind.launches for node in graph.nodes)


def changes(before: Graph, after: Graph) -> dict[str, int]:
    """How many operations of each name came (> 0) or went (< 0), also inside fused nodes."""
    found = Counter(_names(after.nodes))
    found.subtract(_names(before.nodes))
    return {name: count for name, count in sorted(found.items()) if count}


def _names(nodes: Iterable[Node]) -> Iterable[str]:
    for node in nodes:
        if node.body is not None:
            yield from _names(node.body.nodes)
        else:
            yield node.op.name
