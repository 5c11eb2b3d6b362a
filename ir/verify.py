"""Check that a graph keeps the rules of the language: every type rule is run again.

    verify(graph)      returns the graph, or raises VerifyError, which shows the program around the fault
                       and the user's own line
"""

from __future__ import annotations

from .errors import VerifyError
from .graph import Graph, Node, Value
from .types import TensorType


def verify(graph: Graph) -> Graph:
    """`graph` itself if it is sound.

    Raises:
        VerifyError: a value is used before it is made or made twice, a type is not what its op's rule gives, a bound
            array or a donated input does not fit, or a fused body is unsound.
    """
    known: set[Value] = set()
    for value in graph.inputs:
        _define(graph, known, value, None)
        array = graph.bound.get(value)
        if array is not None and TensorType.of(array) != value.type:
            raise VerifyError(f"{graph.name}: input {graph.names[value]} is {value.type}, "
                              f"it is bound to an array of type {TensorType.of(array)}")
    for node in graph.nodes:
        _verify_node(graph, known, node)
    for value in graph.outputs:
        if value not in known:
            raise VerifyError(f"{graph.name}: returns a value that nothing makes ({value.hint}: {value.type})")
    if extra := [v.hint for v in graph.bound if v not in graph.inputs]:
        raise VerifyError(f"{graph.name}: {extra} have bound values, but are not inputs")
    _verify_donations(graph)
    return graph


def _define(graph: Graph, known: set[Value], value: Value, node: Node | None) -> None:
    if not all(isinstance(n, int) and n >= 0 for n in value.shape):
        raise VerifyError(f"{graph.name}: {value.hint}: {value.type}: extents are integers ≥ 0" + _around(graph, node))
    if value in known:
        raise VerifyError(f"{graph.name}: {value.hint}: {value.type} is made twice" + _around(graph, node))
    known.add(value)


def _verify_node(graph: Graph, known: set[Value], node: Node) -> None:
    for value in node.inputs:
        if value not in known:
            raise VerifyError(f"{graph.name}: {node.op} uses {value.hint}: {value.type} before it is made"
                              + _around(graph, node))
    try:
        types = node.op.infer(*(v.type for v in node.inputs), **node.attrs)
    except Exception as error:  # a type rule may stumble over whatever a broken graph holds
        raise VerifyError(f"{graph.name}: {node.op}: {error}" + _around(graph, node)) from None
    found = types if isinstance(types, tuple) else (types,)
    if found != tuple(v.type for v in node.outputs):
        raise VerifyError(f"{graph.name}: {node.op} gives {', '.join(map(str, found))}, the graph says "
                          f"{', '.join(str(v.type) for v in node.outputs)}" + _around(graph, node))
    if node.body is not None:
        verify(node.body)
    for value in node.outputs:
        _define(graph, known, value, node)


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
