"""Check that a graph keeps the rules of the language: every type rule is run again.

    verify(graph)      returns the graph, or raises VerifyError, which shows the program around the fault
                       and the user's own line

A node is immutable, and so are its types: what a pass left as it was need not be typed again. `verify(graph, sound)`
skips the type rules of the nodes in the set `sound`, and adds those that it has run.
"""

from __future__ import annotations

from .errors import VerifyError
from .graph import Graph, Node, Value
from .op import as_tuple
from .types import TensorType


def verify(graph: Graph, sound: set[Node] | None = None) -> Graph:
    """`graph` itself if it is sound.

    Args:
        sound: nodes whose types are known to be right; those of `graph` are added.
    Raises:
        VerifyError: a value is used before it is made or made twice, a type is not what its op's rule gives, a bound
            array or a donated input does not fit, or a fused body is unsound.
    """
    known: set[Value] = set()
    sound = set() if sound is None else sound
    for value in graph.inputs:
        _define(graph, known, value, None)
        array = graph.bound.get(value)
        if array is not None and TensorType.of(array) != value.type:
            raise VerifyError(f"{graph.name}: input {graph.names[value]} is {value.type}, "
                              f"it is bound to an array of type {TensorType.of(array)}")
    for node in graph.nodes:
        _verify_node(graph, known, node, sound)
    for value in graph.outputs:
        if value not in known:
            raise VerifyError(f"{graph.name}: returns a value that nothing makes ({value.hint}: {value.type})")
    inputs = set(graph.inputs)
    if extra := [v.hint for v in graph.bound if v not in inputs]:
        raise VerifyError(f"{graph.name}: {extra} have bound values, but are not inputs")
    _verify_donations(graph)
    return graph


def _define(graph: Graph, known: set[Value], value: Value, node: Node | None) -> None:
    if any(not isinstance(n, int) or n < 0 for n in value.shape):
        raise VerifyError(f"{graph.name}: {value.hint}: {value.type}: extents are integers ≥ 0" + _around(graph, node))
    if value in known:
        raise VerifyError(f"{graph.name}: {value.hint}: {value.type} is made twice" + _around(graph, node))
    known.add(value)


def _verify_node(graph: Graph, known: set[Value], node: Node, sound: set[Node]) -> None:
    if not known.issuperset(node.inputs):
        value = next(v for v in node.inputs if v not in known)
        raise VerifyError(f"{graph.name}: {node.op} uses {value.hint}: {value.type} before it is made"
                          + _around(graph, node))
    if node not in sound:
        _verify_types(graph, node)
        if node.body is not None:
            verify(node.body, sound)
        sound.add(node)
    for value in node.outputs:
        _define(graph, known, value, node)


def _verify_types(graph: Graph, node: Node) -> None:
    try:
        found = as_tuple(node.op.infer(*(v.type for v in node.inputs), **node.attrs))
    except Exception as error:  # a type rule may stumble over whatever a broken graph holds
        raise VerifyError(f"{graph.name}: {node.op}: {error}" + _around(graph, node)) from None
    if found != tuple(v.type for v in node.outputs):
        raise VerifyError(f"{graph.name}: {node.op} gives {', '.join(map(str, found))}, the graph says "
                          f"{', '.join(str(v.type) for v in node.outputs)}" + _around(graph, node))


def _verify_donations(graph: Graph) -> None:
    for output, place in graph.donated.items():
        if not (0 <= output < len(graph.outputs) and 0 <= place < len(graph.inputs)):
            raise VerifyError(f"{graph.name}: output {output} overwrites input {place}, "
                              f"there are {len(graph.outputs)} and {len(graph.inputs)}")
        if graph.outputs[output].type != graph.inputs[place].type:
            raise VerifyError(f"{graph.name}: output {output} ({graph.outputs[output].type}) cannot overwrite input "
                              f"{graph.names[graph.inputs[place]]} ({graph.inputs[place].type})")
    if len(set(graph.donated.values())) != len(graph.donated):
        raise VerifyError(f"{graph.name}: two outputs overwrite one input: {dict(graph.donated)}")


def _around(graph: Graph, node: Node | None) -> str:
    """The nodes next to the fault, and the user's line."""
    if node is None:
        return ""
    at = graph.nodes.index(node)
    lines = []
    for number in range(max(at - 2, 0), min(at + 3, len(graph.nodes))):
        other = graph.nodes[number]
        operands = ", ".join(f"{v.hint}: {v.type}" for v in other.inputs)
        attrs = "".join(f", {k}={v!r:.40}" for k, v in other.attrs.items())
        lines.append(f"  {'>' if other is node else ' '} {other.op}({operands}{attrs})")
    where = f"\n  made by {node.source.file}:{node.source.line}: {node.source.text}" if node.source else ""
    return "\n" + "\n".join(lines) + where
