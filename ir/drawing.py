"""What a picture of a graph shows, before anything decides where on the paper it goes.

`draw(graph)` gives boxes (inputs, operations, outputs), arrows (values) and groups (fused nodes, with their operations
inside). DOT, the SVG fallback and the HTML page are all made from it, so ids, labels and tips agree. Ids: `in0`, `n3`,
`n3_1` (inside fused node 3), `out0`, `e7`.

To keep pictures readable, a scalar constant is not a box of its own: it stands in the label of the operation that uses
it, `mul(·, 2)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .graph import Graph, Node, Value
from .text import literal
from .types import TensorType

UNSHOWN = {
    "body",
    "style",
    "value",
    "shape",
    "dtype",
}  # attributes that the type or the rest of the picture tells already


@dataclass(frozen=True, slots=True)
class Box:
    """One thing to draw. `kind` is a kind of op, or "input", "bound" (an input with a value) or "output"."""

    id: str
    kind: str
    title: str
    detail: str  # follows the title: operands that are numbers, attributes
    lines: tuple[str, ...]
    tip: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """One use of a value."""

    tail: str
    head: str
    name: str
    type: TensorType

    @property
    def tip(self) -> str:
        """What to say about it."""
        return f"{self.name}: {self.type}, {self.type.nbytes:,} bytes"


@dataclass(frozen=True, slots=True)
class Group:
    """A fused node that is drawn as a frame around its operations."""

    id: str
    label: str
    tip: str


@dataclass
class Drawing:
    """Boxes in an order in which every arrow goes forward."""

    name: str
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)


@dataclass
class _Places:
    """Where the values of one graph come from: a box, or a number that is written into labels."""

    names: Mapping[Value, str]
    box: dict[Value, str] = field(default_factory=dict)
    number: dict[Value, str] = field(default_factory=dict)

    def link(self, here: Value, there: Value, other: _Places) -> None:
        """`here` is what `other` calls `there`."""
        for mine, theirs in ((self.box, other.box), (self.number, other.number)):
            if there in theirs:
                mine[here] = theirs[there]


def draw(graph: Graph, expand: bool = True) -> Drawing:
    """The picture of `graph`; `expand` says whether fused nodes show what is inside them."""
    drawing = Drawing(printable(graph.name))
    places = _Places(graph.names)
    donated = {place: output for output, place in graph.donated.items()}
    for number, value in enumerate(graph.inputs):
        kind = "bound" if value in graph.bound else "input"
        lines = (str(value.type), *(["donated"] if number in donated else []))
        tip = f"{_typed(value, graph.names)}{', has a value already' if kind == 'bound' else ''}" + (
            f", overwritten by result {donated[number]}" if number in donated else ""
        )
        drawing.boxes.append(Box(f"in{number}", kind, graph.names[value], "", lines, tip))
        places.box[value] = f"in{number}"
    _draw_nodes(drawing, graph, places, "n", None, expand)
    for number, value in enumerate(graph.outputs):
        _draw_output(drawing, graph, number, value, places)
    return drawing


def _draw_output(drawing: Drawing, graph: Graph, number: int, value: Value, places: _Places) -> None:
    name = f"out{number}"
    target = graph.donated.get(number)
    lines = [places.number.get(value, f"{graph.names[value]}: {value.type}")]
    if target is not None:
        lines.append(f"overwrites {graph.names[graph.inputs[target]]}")
    title = "return" if len(graph.outputs) == 1 else f"return {number}"
    drawing.boxes.append(Box(name, "output", title, "", tuple(lines), ", ".join(lines)))
    if value in places.box:
        drawing.arrows.append(Arrow(places.box[value], name, graph.names[value], value.type))


def _draw_nodes(drawing: Drawing, graph: Graph, places: _Places, prefix: str, group: str | None, expand: bool) -> None:
    for number, node in enumerate(graph.nodes):
        name = f"{prefix}{number}"
        if is_scalar_constant(node):
            places.number[node.output] = scalar_text(node)
        elif node.body is not None and expand:
            _draw_group(drawing, node, node.body, places, name)
        else:
            drawing.boxes.append(_box(node, name, places, group))
            drawing.arrows += [
                Arrow(places.box[v], name, places.names[v], v.type)
                for v in dict.fromkeys(node.inputs)
                if v in places.box
            ]
            places.box |= dict.fromkeys(node.outputs, name)


def _draw_group(drawing: Drawing, node: Node, body: Graph, places: _Places, name: str) -> None:
    outer = {inside: places.names[outside] for inside, outside in zip(body.outputs, node.outputs, strict=True)}
    inner = _Places({**body.names, **outer})
    for inside, outside in zip(body.inputs, node.inputs, strict=True):
        inner.link(inside, outside, places)
    drawing.groups.append(
        Group(name, f"{printable(body.name)} · {node.attrs.get('style', 'fused')}", tip(node, places.names))
    )
    _draw_nodes(drawing, body, inner, f"{name}_", name, False)
    for inside, outside in zip(body.outputs, node.outputs, strict=True):
        places.link(outside, inside, inner)


def _box(node: Node, name: str, places: _Places, group: str | None) -> Box:
    operands = [places.number.get(v, "·") for v in node.inputs]
    call = f"({', '.join(operands)})" if any(o != "·" for o in operands) else ""
    detail = _shorten(" ".join((call, short_attrs(node))).rstrip(), 40)
    if node.body is not None:
        detail = " " + _shorten(", ".join(n.op.name for n in node.body.nodes if not is_scalar_constant(n)), 60)
    lines = tuple(_typed(v, places.names) for v in node.outputs[:4])
    lines += (f"and {len(node.outputs) - 4} more",) if len(node.outputs) > 4 else ()
    if node.op.name == "constant":
        lines += (_shorten(literal(node.attrs["value"]), 32),)
    return Box(
        name,
        node.op.kind.value,
        printable(node.body.name) if node.body else node.op.name,
        detail,
        lines,
        tip(node, places.names),
        group,
    )


def tip(node: Node, names: Mapping[Value, str]) -> str:
    """What a node makes, from what, and the user's line."""
    attrs = [f"{k}={literal(v)}" for k, v in node.attrs.items() if k != "body"]
    call = _shorten(f"{node.op.name}({', '.join([names[v] for v in node.inputs] + attrs)})", 160)
    source = f"\n{node.source}  {node.source.text}" if node.source else ""
    return printable(f"{', '.join(_typed(v, names) for v in node.outputs)}\n{call}{source}")


def short_attrs(node: Node) -> str:
    """The attributes in a few characters, without those that the type of the result tells."""
    parts = []
    for key, value in node.attrs.items():
        if key in UNSHOWN or value is None or value is False:
            continue
        single = isinstance(value, tuple) and len(value) == 1
        parts.append(key if value is True else f"{key}={literal(value[0] if single else value)}")
    return " ".join(parts)


def is_scalar_constant(node: Node) -> bool:
    """Whether a node is one literal number."""
    return node.op.name == "constant" and node.output.type.size == 1


def scalar_text(node: Node) -> str:
    """The number of a scalar constant, in few digits."""
    value = node.attrs["value"]
    while isinstance(value, tuple):
        value = value[0]
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def launches(node: Node) -> bool:
    """Whether a node runs a kernel."""
    return node.op.kind.launches


def printable(text: str) -> str:
    """`text` without the characters that XML cannot hold."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def _typed(value: Value, names: Mapping[Value, str]) -> str:
    return f"{names[value]}: {value.type}"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
