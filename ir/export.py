"""A graph as a networkx graph, and in Graphviz's DOT language."""

from __future__ import annotations

from typing import Any

import networkx

from .cost import node_cost
from .graph import Graph, Node, Value
from .op import Kind
from .text import literal

COLOURS = {
    Kind.SOURCE: "#eeeeee", Kind.POINTWISE: "#d7ecd9", Kind.REDUCE: "#fde4c4", Kind.VIEW: "#f4f4f4", Kind.CONTRACT: "#cfe2f7",
    Kind.INDEX: "#eadcf4", Kind.RANDOM: "#fbd9e3", Kind.COMPOSITE: "#fff6c9", Kind.FUSED: "#ffffff",
}


def to_networkx(graph: Graph) -> networkx.MultiDiGraph:
    """Nodes: inputs (`kind="input"`) and operations by number, with op, attrs, type, flops and bytes; edges: values, with name and type."""
    result = networkx.MultiDiGraph(name=graph.name)
    maker: dict[Value, Any] = {}
    for value in graph.inputs:
        maker[value] = name = graph.names[value]
        result.add_node(name, kind="input", type=str(value.type), bound=value in graph.bound)
    for number, node in enumerate(graph.nodes):
        cost = node_cost(node)
        result.add_node(number, kind=node.op.kind.value, op=node.op.name, attrs={k: str(v) for k, v in node.attrs.items()},
                        type=", ".join(str(v.type) for v in node.outputs), flops=cost.flops, bytes=cost.bytes, source=str(node.source or ""))
        for value in node.inputs:
            result.add_edge(maker[value], number, name=graph.names[value], type=str(value.type))
        maker |= dict.fromkeys(node.outputs, number)
    for place, value in enumerate(graph.outputs):
        result.add_node(f"return {place}", kind="output", type=str(value.type))
        result.add_edge(maker[value], f"return {place}", name=graph.names[value], type=str(value.type))
    return result


def to_dot(graph: Graph) -> str:
    """DOT text: operations as boxes coloured by kind, values as arrows with their types, fused groups as clusters."""
    lines = ['digraph "' + graph.name + '" {', '  rankdir=TB; bgcolor="transparent"; nodesep=0.25; ranksep=0.35;',
             '  node [shape=box style="rounded,filled" fontname="Helvetica" fontsize=11 color="#666666" margin="0.12,0.05"];',
             '  edge [fontname="Helvetica" fontsize=9 color="#888888" fontcolor="#555555" arrowsize=0.6];']
    ports: dict[Value, str] = {}
    for number, value in enumerate(graph.inputs):
        ports[value] = f"in{number}"
        fill = "#e3e3f3" if value in graph.bound else "#c9c9ee"
        lines.append(f'  in{number} [id="in{number}" label="{graph.names[value]}\\n{value.type}" shape=ellipse fillcolor="{fill}"];')
    for number, node in enumerate(graph.nodes):
        lines += _cluster(graph, node, number, ports) if node.body is not None else _box(node, f"n{number}", ports, "  ", graph.names)
    for number, value in enumerate(graph.outputs):
        lines.append(f'  out{number} [id="out{number}" label="return {number}" shape=ellipse fillcolor="#c9c9ee"];')
        lines.append(f'  {ports[value]} -> out{number} [label="{value.type}"];')
    return "\n".join((*lines, "}"))


def _box(node: Node, name: str, ports: dict[Value, str], indent: str, names: dict[Value, str]) -> list[str]:
    attrs = [f"{k}={literal(v)}" for k, v in node.attrs.items() if k != "body"]
    label = "\\n".join((node.op.name, *(_escape(a) for a in attrs)))
    tip = _escape(", ".join(f"{names[v]}: {v.type}" for v in node.outputs) + (f"  {node.source}" if node.source else ""))
    lines = [f'{indent}{name} [id="{name}" label="{label}" tooltip="{tip}" fillcolor="{COLOURS[node.op.kind]}"];']
    lines += [f'{indent}{ports[v]} -> {name} [label="{v.type}"];' for v in dict.fromkeys(node.inputs)]
    ports |= dict.fromkeys(node.outputs, name)
    return lines


def _cluster(graph: Graph, node: Node, number: int, ports: dict[Value, str]) -> list[str]:
    body = node.body
    assert body is not None
    inner = {inside: ports[outside] for inside, outside in zip(body.inputs, node.inputs, strict=True)}
    lines = [f'  subgraph "cluster_{number}" {{', f'    id="cluster_{number}"; label="{body.name}"; style="rounded,dashed"; color="#3b6ea5"; '
             'fontname="Helvetica"; fontsize=11; fontcolor="#3b6ea5"; bgcolor="#f6faff";']
    edges: list[str] = []
    for place, step in enumerate(body.nodes):
        for line in _box(step, f"n{number}_{place}", inner, "    ", body.names):
            (edges if " -> " in line else lines).append(line)
    lines.append("  }")
    ports |= {outside: inner[inside] for inside, outside in zip(body.outputs, node.outputs, strict=True)}
    return lines + edges


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')[:60]
