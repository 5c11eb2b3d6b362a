"""Drop what nobody uses: nodes whose results are not read, and bound inputs too.

Every op is pure, so a node without readers has no effect. Free inputs stay even if unused, for they are the signature;
so do inputs that an output overwrites.

    RemoveDead()(graph)
"""

from __future__ import annotations

from dataclasses import dataclass

from tinytorch.ir import Graph, Node, Value


@dataclass(frozen=True)
class RemoveDead:
    """The nodes and bound inputs that outputs depend on, and no others."""

    def __call__(self, graph: Graph, /) -> Graph:
        live = set(graph.outputs)
        nodes: list[Node] = []
        for node in reversed(graph.nodes):
            if any(value in live for value in node.outputs):
                live.update(node.inputs)
                nodes.append(node)
        inputs = _kept_inputs(graph, live)
        if len(nodes) == len(graph.nodes) and len(inputs) == len(graph.inputs):
            return graph
        places = {value: place for place, value in enumerate(inputs)}
        return graph.with_(inputs=inputs, nodes=tuple(reversed(nodes)),
                           bound={v: graph.bound[v] for v in inputs if v in graph.bound},
                           donated={output: places[graph.inputs[place]] for output, place in graph.donated.items()})


def _kept_inputs(graph: Graph, live: set[Value]) -> tuple[Value, ...]:
    needed = live | {graph.inputs[place] for place in graph.donated.values()}
    return tuple(value for value in graph.inputs if value in needed or value not in graph.bound)
