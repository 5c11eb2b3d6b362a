"""A graph as a networkx graph, and in Graphviz's DOT language.

graph.to_networkx()        to ask questions: longest paths, cuts, subgraphs
graph.to_dot()             to draw with your own Graphviz; `graph.to_svg()` needs none
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import networkx

from .cost import node_cost
from .drawing import Arrow, Box, Drawing, Group, draw
from .graph import Graph, Value
from .types import TensorType

# What each kind of box looks like: fill, border, and the fill on a dark page.
PALETTE = {
    "input": ("#dfe3fb", "#7f89d9", "#343a6b"),
    "bound": ("#f1f2fa", "#bcc2e2", "#2a2d45"),
    "output": ("#c7cef9", "#5f6bd0", "#424b94"),
    "pointwise": ("#dff2e2", "#85bd90", "#25472d"),
    "reduce": ("#fde8cd", "#dfa95c", "#54401f"),
    "view": ("#f4f5f7", "#c6cbd4", "#30343c"),
    "contract": ("#d7e7fb", "#74a7e0", "#1f4068"),
    "index": ("#ebe1f8", "#b093d8", "#412f5c"),
    "random": ("#fbe0e9", "#dc90ac", "#5a2b3d"),
    "composite": ("#fff4cb", "#d8c162", "#4b431d"),
    "source": ("#f4f5f7", "#c6cbd4", "#30343c"),
    "fused": ("#f3f8ff", "#5b8fc9", "#16283d"),
}


def to_networkx(graph: Graph) -> networkx.MultiDiGraph:
    """Nodes: inputs (`kind="input"`) and operations by number, with op, attrs, type, flops and bytes.

    Edges: values, with name and type.
    """
    result = networkx.MultiDiGraph(name=graph.name)
    maker: dict[Value, Any] = {}
    for value in graph.inputs:
        maker[value] = name = graph.names[value]
        result.add_node(name, kind="input", type=str(value.type), bound=value in graph.bound)
    for number, node in enumerate(graph.nodes):
        cost = node_cost(node)
        result.add_node(
            number,
            kind=node.op.kind.value,
            op=node.op.name,
            attrs={k: str(v) for k, v in node.attrs.items()},
            type=", ".join(str(v.type) for v in node.outputs),
            flops=cost.flops,
            bytes=cost.bytes,
            source=str(node.source or ""),
        )
        for value in node.inputs:
            result.add_edge(maker[value], number, name=graph.names[value], type=str(value.type))
        maker |= dict.fromkeys(node.outputs, number)
    for place, value in enumerate(graph.outputs):
        result.add_node(f"return {place}", kind="output", type=str(value.type))
        result.add_edge(maker[value], f"return {place}", name=graph.names[value], type=str(value.type))
    return result


def to_dot(graph: Graph, expand: bool = True) -> str:
    """DOT text: boxes coloured by kind, arrows as thick as their values are big, fused nodes as clusters.

    Without `expand` fused nodes are drawn closed.
    """
    return dot_of(draw(graph, expand))


def dot_of(drawing: Drawing, tips: bool = True) -> str:
    """A drawing in DOT; without `tips` Graphviz makes no link elements around the boxes."""
    hurry = (
        " nslimit=1; nslimit1=1; mclimit=0.3;" if len(drawing.boxes) > 150 else ""
    )  # bounds on the layout's iterations
    lines = [
        f"digraph {_quote(drawing.name)} {{",
        f'  rankdir=TB; bgcolor="transparent"; nodesep=0.22; ranksep=0.32; margin=0.05;{hurry}',
        '  node [shape=box style="rounded,filled" fontname="Helvetica" fontsize=10 fontcolor="#1b2330"'
        ' margin="0.15,0.06" height=0.3];',
        '  edge [color="#8a94a3" arrowsize=0.55];',
    ]
    lines += [_box(box, "  ", tips) for box in drawing.boxes if box.group is None]
    for group in drawing.groups:
        lines += _cluster(group, [box for box in drawing.boxes if box.group == group.id], tips)
    lines += [_arrow(number, arrow, tips) for number, arrow in enumerate(drawing.arrows)]
    return "\n".join((*lines, "}"))


def _box(box: Box, indent: str, tips: bool) -> str:
    fill, border, _ = PALETTE[box.kind]
    label = "\n".join((box.title + box.detail, *box.lines))
    tip = f" tooltip={_quote(box.tip)}" if tips else ""
    looks = f'class="{box.kind}" fillcolor="{fill}" color="{border}"'
    return f'{indent}{box.id} [id="{box.id}" label={_quote(label)} {looks}{tip}];'


def _cluster(group: Group, boxes: list[Box], tips: bool) -> Iterator[str]:
    fill, border, _ = PALETTE["fused"]
    tip = f" tooltip={_quote(group.tip)};" if tips else ""
    yield f"  subgraph cluster_{group.id} {{"
    yield (
        f'    id="{group.id}"; class="fused"; label={_quote(group.label)}; labeljust=l; margin=9; '
        f'style="rounded,filled,dashed"; fillcolor="{fill}"; color="{border}"; '
        f'fontname="Helvetica"; fontsize=10; fontcolor="#3c6ea8";{tip}'
    )
    yield from (_box(box, "    ", tips) for box in boxes)
    yield "  }"


def _arrow(number: int, arrow: Arrow, tips: bool) -> str:
    tip = f" edgetooltip={_quote(arrow.tip)}" if tips else ""
    return f'  {arrow.tail} -> {arrow.head} [id="e{number}" penwidth={thickness(arrow.type):.2g}{tip}];'


def thickness(type_: TensorType) -> float:
    """Line width of an arrow: 0.8 up to 1 KiB, one step more for each factor of ten."""
    return min(0.8 + 0.45 * max(math.log10(max(type_.nbytes, 1) / 1024), 0.0), 3.2)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
