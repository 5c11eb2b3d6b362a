"""Graphs, histories and kernels in the terminal: tables and trees for rich.

from rich import print
print(graph_table(graph))          a line a node: types, costs, your source lines
print(graph_tree(graph))           what is inside fused nodes and composites
print(history_table(history))      what each pass did to the counts
print(kernels_table(rows))         time and roofline of each kernel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinytorch.ir import Graph, Kind, Node, Value, graph_cost, node_cost
from tinytorch.ir.cost import expansion
from tinytorch.ir.drawing import is_scalar_constant, launches, scalar_text, short_attrs
from tinytorch.passes import History, Stage

from . import units

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

    from tinytorch.ir.page import KernelRow

COLOURS = {
    Kind.SOURCE: "dim",
    Kind.POINTWISE: "green",
    Kind.REDUCE: "yellow",
    Kind.VIEW: "dim",
    Kind.CONTRACT: "blue",
    Kind.INDEX: "magenta",
    Kind.RANDOM: "red",
    Kind.COMPOSITE: "bright_yellow",
    Kind.FUSED: "bold cyan",
}


def _table(title: str, columns: Mapping[str, Any]) -> Table:
    """An empty table; columns are given by name."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title,
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name, side in columns.items():
        narrow = side == "right" or name in ("name", "op", "pass", "kernel")
        table.add_column(name, justify=side, no_wrap=narrow)
    return table


def _text(words: str, style: str = "") -> Text:
    """Plain text: `f32[2, 3]` is not markup."""
    from rich.text import Text

    return Text(words, style=style)


def as_text(table: Any) -> str:
    """A table of rich as plain text, 110 columns wide at most."""
    from rich.console import Console

    console = Console(width=110, color_system=None, force_jupyter=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines())


# -- one graph ---------------------------------------------------------------------------------------------------------


def graph_table(graph: Graph) -> Table:
    """A line for each node, in order, and the sum of the costs."""
    cost = graph_cost(graph)
    left, right = (
        dict.fromkeys(("name", "op", "type", "attributes"), "left"),
        dict.fromkeys(("flops", "bytes"), "right"),
    )
    table = _table(_heading(graph), {**left, **right, "source": "left"})
    table.show_footer = True
    for node in graph.nodes:
        table.add_row(*_row(node, graph))
    footers = [
        "",
        f"{sum(map(launches, graph.nodes))} kernels",
        "",
        "",
        units.flops(cost.flops),
        units.nbytes(cost.bytes),
        "",
    ]
    for column, footer in zip(table.columns, footers, strict=True):
        column.footer = footer
    return table


def _heading(graph: Graph) -> str:
    from rich.markup import escape

    takes = ", ".join(f"{graph.names[v]}: {v.type}" for v in graph.free)
    return escape(f"{graph.name}({takes})" + (f"  and {len(graph.bound)} bound" if graph.bound else ""))


def _row(node: Node, graph: Graph) -> list[Text]:
    cost = node_cost(node)
    attrs = scalar_text(node) if is_scalar_constant(node) else short_attrs(node)
    return [
        _text(", ".join(graph.names[v] for v in node.outputs)),
        _text(_title(node), COLOURS[node.op.kind]),
        _text(", ".join(str(v.type) for v in node.outputs), "dim"),
        _text(attrs if len(attrs) <= 40 else attrs[:39] + "…", "dim"),
        _text(units.flops(cost.flops) if cost.flops else ""),
        _text(units.nbytes(cost.bytes) if cost.bytes else ""),
        _text(str(node.source or ""), "dim"),
    ]


def _title(node: Node) -> str:
    return f"{node.body.name} ({node.attrs.get('style', 'fused')})" if node.body is not None else node.op.name


def graph_tree(graph: Graph) -> Tree:
    """The nodes in order; under a fused node the operations it holds, under a composite those it stands for."""
    from rich.tree import Tree

    tree = Tree(_text(_heading(graph).replace("\\[", "["), "bold"), guide_style="dim")
    _grow(tree, graph, deep=True)
    tree.add(_text(f"return {', '.join(graph.names[v] for v in graph.outputs)}", "bold"))
    return tree


def _grow(tree: Tree, graph: Graph, deep: bool) -> None:
    numbers = {node.output: scalar_text(node) for node in graph.nodes if is_scalar_constant(node)}
    for node in graph.nodes:
        if is_scalar_constant(node) and node.output not in graph.outputs:
            continue
        branch = tree.add(_leaf(node, graph, numbers))
        inside = _inside(node) if deep else None
        if inside is not None:
            _grow(branch, inside, deep=node.body is not None)


def _inside(node: Node) -> Graph | None:
    if node.body is not None:
        return node.body
    return (
        expansion(node.op, tuple(v.type for v in node.inputs), node.attrs) if node.op.kind is Kind.COMPOSITE else None
    )


def _leaf(node: Node, graph: Graph, numbers: dict[Value, str]) -> Text:
    operands = ", ".join(numbers.get(v, graph.names[v]) for v in node.inputs)
    attrs = short_attrs(node)
    text = _text(f"{', '.join(graph.names[v] for v in node.outputs)} = ").append(
        node.body.name if node.body is not None else node.op.name, COLOURS[node.op.kind]
    )
    text.append(f"({operands})" + (f" {attrs}" if attrs else ""))
    return text.append(
        "  " + ", ".join(str(v.type) for v in node.outputs) + (f"  {node.source}" if node.source else ""), "dim"
    )


# -- what passes did ---------------------------------------------------------------------------------------------------


def history_table(history: Sequence[Stage], peak: bool = True) -> Table:
    """A line for each pass: nodes, kernels, FLOPs, bytes, peak memory of the intermediates, milliseconds.

    What fell is green, what rose is red; the last line sums up.

    Args:
        history: a pipeline's history, or any stages.
        peak: whether to plan memory for each stage, for the column "peak".
    """
    shown: dict[str, Callable[[float], str]] = {
        "nodes": str,
        "kernels": str,
        "flops": units.flops,
        "bytes": units.nbytes,
    }
    shown |= {"peak": units.nbytes} if peak else {}
    rows = History(history).table(peak=peak)
    table = _table("", {"pass": "left", **dict.fromkeys(shown, "right"), "ms": "right"})
    for before, row in zip([rows[0], *rows], rows, strict=False):
        cells = [_changed(getattr(before, key), getattr(row, key), show) for key, show in shown.items()]
        table.add_row(_text(row.name), *cells, _text(f"{row.seconds * 1e3:.1f}" if row is not rows[0] else ""))
    if len(rows) > 2:
        table.add_section()
        totals = [units.change(getattr(rows[0], key), getattr(rows[-1], key)) or "=" for key in shown]
        table.add_row(
            *(_text(cell, "bold") for cell in ("all together", *totals, f"{sum(r.seconds for r in rows) * 1e3:.1f}"))
        )
    return table


def _changed(before: Any, after: Any, show: Callable[[float], str]) -> Text:
    if after == before:
        return _text(f"{show(after)}  ")
    return _text(f"{show(after)} ↓", "bold green") if after < before else _text(f"{show(after)} ↑", "bold red")


# -- kernels -----------------------------------------------------------------------------------------------------------


def kernels_table(rows: Sequence[KernelRow]) -> Table:
    """A line for each kernel: what it holds, its time and rates, and its part of the roofline; slowest first."""
    numbers = ("time", "share", "flops", "bytes", "rate", "bandwidth", "roofline")
    table = _table("", {"kernel": "left", "holds": "left", **dict.fromkeys(numbers, "right")})
    whole = sum(row.seconds or 0.0 for row in rows)
    for row in sorted(rows, key=lambda row: -(row.seconds or 0.0)):
        time, share, rate, bandwidth = _speeds(row, whole)
        cells = (time, share, units.flops(row.flops), units.nbytes(row.bytes), rate, bandwidth, _roofline(row.roofline))
        table.add_row(_text(row.name), _text(row.nodes, "dim"), *cells)
    return table


def _speeds(row: KernelRow, whole: float) -> tuple[str, str, str, str]:
    """Time, share of the whole, FLOPs and bytes a second."""
    if not row.seconds:
        return "–", "–", "–", "–"
    rates = units.rate(row.flops / row.seconds), units.bandwidth(row.bytes / row.seconds)
    return units.seconds(row.seconds), units.percent(row.seconds / whole), *rates


def _roofline(fraction: float | None) -> Text:
    if fraction is None:
        return _text("–")
    return _text(units.percent(fraction), "green" if fraction >= 0.6 else "yellow" if fraction >= 0.3 else "red")
