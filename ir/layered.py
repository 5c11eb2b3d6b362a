"""A picture without Graphviz: boxes in layers, drawn as SVG.

Plainer than Graphviz's, but it needs nothing, takes time in proportion to the size of the graph, and carries the same
ids and classes, so the HTML page works with it too. It serves where Graphviz is absent, or a graph is too large for it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from html import escape

from .drawing import Arrow, Box, Drawing
from .export import PALETTE, thickness

GAP_X, GAP_Y, HEIGHT, CHARACTER = 18.0, 46.0, 40.0, 6.1


@dataclass(frozen=True, slots=True)
class _Spot:
    x: float  # the middle
    y: float  # the top
    width: float


def layered_svg(drawing: Drawing, note: str = "") -> str:
    """SVG of `drawing`; `note` is written over it."""
    rows = _rows(drawing)
    spots = _spots(rows)
    width = max((s.x + s.width / 2 for s in spots.values()), default=0.0) + GAP_X
    height = len(rows) * (HEIGHT + GAP_Y) + GAP_X
    top = 26.0 if note else 0.0
    parts = [
        f'<svg width="{width:.0f}" height="{height + top:.0f}" viewBox="0 {-top:.0f} {width:.0f} {height + top:.0f}" '
        'xmlns="http://www.w3.org/2000/svg">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6"'
        ' markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0,0 8,4 0,8z" fill="#8a94a3"/></marker></defs>',
    ]
    if note:
        parts.append(f'<text class="note" x="{GAP_X}" y="-8" font-size="11" fill="#8a5a00">{escape(note)}</text>')
    parts += [_edge(number, arrow, spots) for number, arrow in enumerate(drawing.arrows)]
    parts += [_node(box, spots[box.id]) for box in drawing.boxes]
    return "\n".join((*parts, "</svg>"))


def _rows(drawing: Drawing) -> list[list[Box]]:
    """The boxes by layer; within a layer each box stands near the boxes it reads from."""
    into: dict[str, list[str]] = defaultdict(list)
    out: dict[str, list[str]] = defaultdict(list)
    for arrow in drawing.arrows:
        into[arrow.head].append(arrow.tail)
        out[arrow.tail].append(arrow.head)
    rank: dict[str, int] = {}
    for box in drawing.boxes:
        rank[box.id] = 1 + max((rank[tail] for tail in into[box.id]), default=-1)
    for box in drawing.boxes:  # inputs stand next to their first use
        if box.kind in ("input", "bound") and out[box.id]:
            rank[box.id] = min(rank[head] for head in out[box.id]) - 1
    rows: list[list[Box]] = [[] for _ in range(1 + max(rank.values(), default=-1))]
    for box in drawing.boxes:
        rows[rank[box.id]].append(box)
    place: dict[str, float] = {}
    for row in rows:
        centre = {box.id: _mean([place[tail] for tail in into[box.id]]) for box in row}
        row.sort(key=lambda box: centre[box.id])
        place |= {box.id: (number + 0.5) / len(row) for number, box in enumerate(row)}
    return rows


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.5


def _spots(rows: list[list[Box]]) -> dict[str, _Spot]:
    widths = {
        box.id: 18 + CHARACTER * max(len(box.title + box.detail), *(len(line) for line in box.lines), 4)
        for row in rows
        for box in row
    }
    full = max((sum(widths[box.id] + GAP_X for box in row) for row in rows), default=0.0) + GAP_X
    spots = {}
    for number, row in enumerate(rows):
        x = GAP_X / 2 + (full - sum(widths[box.id] + GAP_X for box in row)) / 2
        for box in row:
            spots[box.id] = _Spot(x + widths[box.id] / 2, GAP_X + number * (HEIGHT + GAP_Y), widths[box.id])
            x += widths[box.id] + GAP_X
    return spots


def _edge(number: int, arrow: Arrow, spots: dict[str, _Spot]) -> str:
    a, b = spots[arrow.tail], spots[arrow.head]
    y, bend = a.y + HEIGHT, GAP_Y * 0.6
    path = f"M{a.x:.0f},{y:.0f}C{a.x:.0f},{y + bend:.0f} {b.x:.0f},{b.y - bend:.0f} {b.x:.0f},{b.y:.0f}"
    return (
        f'<g id="e{number}" class="edge"><title>{escape(arrow.tip)}</title><path fill="none" stroke="#8a94a3" '
        f'stroke-width="{thickness(arrow.type):.2g}" marker-end="url(#tip)" d="{path}"/></g>'
    )


def _node(box: Box, spot: _Spot) -> str:
    fill, border, _ = PALETTE[box.kind]
    x, y = f"{spot.x:.0f}", spot.y
    return (
        f'<g id="{box.id}" class="node {box.kind}"><title>{escape(box.tip)}</title>'
        f'<rect x="{spot.x - spot.width / 2:.0f}" y="{y:.0f}" width="{spot.width:.0f}" height="{HEIGHT:.0f}" rx="7" '
        f'fill="{fill}" stroke="{border}"/>{box_text(box.title, box.detail, x, f"{y + 17:.0f}")}'
        f"{small_text(box.lines[0] if box.lines else '', x, f'{y + 31:.0f}')}</g>"
    )


def box_text(title: str, detail: str, x: str, y: str) -> str:
    """The first line of a box."""
    rest = f'<tspan font-size="10" fill="#566173">{escape(detail)}</tspan>' if detail else ""
    bold = f'<tspan font-weight="bold">{escape(title)}</tspan>'
    return f'<text text-anchor="middle" x="{x}" y="{y}" font-size="10.5">{bold}{rest}</text>\n'


def small_text(line: str, x: str, y: str) -> str:
    """Another line of a box."""
    return f'<text text-anchor="middle" x="{x}" y="{y}" font-size="9" fill="#566173">{escape(line)}</text>\n'
