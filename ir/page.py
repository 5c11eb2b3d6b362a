"""One HTML file to read a graph in: pictures to pan and zoom, nodes with types, costs and lines, stages of passes.

    page([stage, …], "my model")      the text of the page; a stage has `.name`, `.graph` and `.seconds`
    graph.to_html("g.html")           the same, written to a file
    graph.show()                      SVG and HTML in a folder, opened where there is somebody to look

The file needs nothing else: no network, no other files. Its data is JSON inside it, its looks and its script are in
`templates/page.html`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from .cost import graph_cost, node_cost, parameter_bytes
from .difference import compare
from .drawing import launches, printable, short_attrs
from .export import PALETTE
from .files import write_atomically
from .graph import Graph, Node, Value
from .picture import fitting_drawing, picture_css, to_svg
from .text import HEADER, literal, to_text


class Stage(Protocol):
    """What a page shows a step of: `passes.Stage` is one."""

    @property
    def name(self) -> str:
        """What made the graph."""

    @property
    def graph(self) -> Graph:
        """The graph as it was then."""

    @property
    def seconds(self) -> float:
        """The time it took to make."""


@dataclass(frozen=True)
class KernelRow:
    """What is known of one kernel of a compiled program.

    Attributes:
        name: the kernel's name.
        nodes: the operations it holds, in words: "matmul, add, relu".
        flops: floating point operations of one call, transcendental calls not counted.
        bytes: read and written by one call.
        seconds: median time of one call, if measured.
        roofline: fraction of what the machine could reach at this intensity, 0 to 1, if measured.
        source: the text of the kernel.
    """

    name: str
    nodes: str
    flops: int
    bytes: int
    seconds: float | None = None
    roofline: float | None = None
    source: str = ""


@dataclass(frozen=True)
class _Single:
    name: str
    graph: Graph
    seconds: float = 0.0


def stages_of(graph: Graph, history: Sequence[Stage] | None) -> Sequence[Stage]:
    """`history`, or `graph` as the only stage."""
    return history or [_Single(graph.name, graph)]


def page(stages: Sequence[Stage], title: str, kernels: Sequence[KernelRow] | None = None) -> str:
    """The page as text.

    Args:
        stages: what to step through, the last is shown first: a pipeline's history, or any objects with `.name`,
            `.graph` and `.seconds`.
        title: the heading.
        kernels: rows for the table of kernels, if there is to be one.
    """
    graphs: dict[int, Graph] = {id(stage.graph): stage.graph for stage in stages}
    order = {key: number for number, key in enumerate(graphs)}
    data = {
        "stages": [
            {"name": stage.name, "seconds": stage.seconds, "graph": order[id(stage.graph)], **_marks(last, stage)}
            for last, stage in zip([stages[0], *stages], stages, strict=False)
        ],
        "graphs": [graph_data(graph) for graph in graphs.values()],
        "kernels": [asdict(row) for row in kernels or ()],
    }
    parts = {
        "title": escape(printable(title)),
        "css": picture_css() + _swatches(),
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(title|css|data)\}\}", lambda match: parts[match[1]], _template())


def _marks(last: Stage, stage: Stage) -> dict[str, Any]:
    """Ids of what a stage added and changed in its graph, and of what it took out of the one before."""
    if stage.graph is last.graph:
        return {}
    found = compare(last.graph, stage.graph)
    return {"new": [f"n{number}" for number in found.new], "gone": [f"n{number}" for number in found.gone],
            "changed": {f"n{number}": was for number, was in found.changed.items()}}


def write_page(path: str | Path | None, stages: Sequence[Stage], title: str,
               kernels: Sequence[KernelRow] | None = None) -> str:
    """`page(stages, title, kernels)`; with a `path` also written there, its folder made if need be."""
    text = page(stages, title, kernels)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), text.encode())
    return text


@cache
def _template() -> str:
    return files(__package__).joinpath("templates/page.html").read_text(encoding="utf-8")


def _swatches() -> str:
    light = "".join(f".k-{kind}{{--fill:{fill};--edge:{edge}}}" for kind, (fill, edge, _) in PALETTE.items())
    dark = "".join(f".k-{kind}{{--fill:{fill}}}" for kind, (_, _, fill) in PALETTE.items())
    return f"{light}@media (prefers-color-scheme:dark){{{dark}}}"


def graph_data(graph: Graph) -> dict[str, Any]:
    """All that the page says about one graph, ready for JSON; ids are those of the picture."""
    drawing = fitting_drawing(graph)
    cost = graph_cost(graph)
    makers = {value: f"in{number}" for number, value in enumerate(graph.inputs)}
    makers |= {value: f"n{number}" for number, node in enumerate(graph.nodes) for value in node.outputs}
    nodes = []
    for number, node in enumerate(graph.nodes):
        nodes.append(_node_data(node, f"n{number}", graph, makers, None))
        nodes += _inside(node, f"n{number}")
    return {
        "svg": to_svg(graph),
        "text": to_text(graph),
        "nodes": nodes,
        "ports": {
            box.id: [box.kind, box.title, box.tip] for box in drawing.boxes if box.kind in ("input", "bound", "output")
        },
        "edges": [[arrow.tail, arrow.head, arrow.tip] for arrow in drawing.arrows],
        "totals": {
            "nodes": len(graph.nodes),
            "kernels": sum(map(launches, graph.nodes)),
            "flops": cost.flops,
            "transcendentals": cost.transcendentals,
            "bytes": cost.bytes,
            "parameters": parameter_bytes(graph),
        },
    }


def _inside(node: Node, name: str) -> list[dict[str, Any]]:
    """The nodes within a fused node."""
    body = node.body
    if body is None:
        return []
    makers = {value: f"{name}_{number}" for number, step in enumerate(body.nodes) for value in step.outputs}
    return [_node_data(step, f"{name}_{number}", body, makers, name) for number, step in enumerate(body.nodes)]


def _node_data(node: Node, name: str, graph: Graph, makers: dict[Value, str], group: str | None) -> dict[str, Any]:
    cost = node_cost(node)
    source = node.source
    return {
        "id": name,
        "kind": node.op.kind.value,
        "op": node.op.name,
        "doc": node.op.doc,
        "group": group,
        "short": short_attrs(node),
        "outs": [[graph.names[v], str(v.type)] for v in node.outputs],
        "ins": [[graph.names[v], str(v.type), makers.get(v)] for v in node.inputs],
        "attrs": [[key, literal(value)] for key, value in node.attrs.items() if key != "body"],
        "flops": cost.flops,
        "transcendentals": cost.transcendentals,
        "read": cost.bytes_read,
        "written": cost.bytes_written,
        "launches": launches(node),
        "source": [str(source), source.function, source.text] if source else None,
        "body": to_text(node.body).removeprefix(HEADER).strip() if node.body else None,
        "title": node.body.name if node.body else node.op.name,
    }
