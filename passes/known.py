"""What is known before a call: which values depend on bound inputs alone, on which of them, and their numbers.

    sources = bound_sources(graph, graph.bound)        # value -> the bound inputs that it is made of
    evaluate_known(graph, [weight])[weight]            # its numbers
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from tinytorch.ir import Graph, Value
from tinytorch.ir.graph import evaluate

from .remove_dead import RemoveDead

Sources = Mapping[Value, frozenset[Value]]


def bound_sources(graph: Graph, steady: Collection[Value]) -> Sources:
    """For each value that depends on `steady` bound inputs and literals alone, which of those inputs; none of them may
    be overwritten."""
    overwritten = {graph.inputs[place] for place in graph.donated.values()}
    found = {value: frozenset((value,)) for value in graph.inputs if value in steady and value not in overwritten}
    for node in graph.nodes:
        if all(value in found for value in node.inputs):
            found |= dict.fromkeys(node.outputs, frozenset[Value]().union(*(found[v] for v in node.inputs)))
    return found


def name_of(graph: Graph, sources: Collection[Value]) -> str:
    """What something is called that is made of `sources`: as the biggest of them, in axes and then in bytes. Names do
    not depend on the sizes of a call."""
    return graph.names[max(sources, key=lambda v: (len(v.shape), v.type.nbytes, graph.names[v]))]


def evaluate_known(graph: Graph, values: Iterable[Value]) -> dict[Value, np.ndarray]:
    """The numbers of values that depend on bound inputs alone."""
    wanted = tuple(dict.fromkeys(values))
    part = RemoveDead()(Graph(graph.name, tuple(graph.bound), graph.nodes, wanted, graph.bound))
    return dict(zip(wanted, map(np.asarray, evaluate(part, [part.bound[v] for v in part.inputs])), strict=True))
