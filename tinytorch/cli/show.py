"""`tito show`: a graph as tree and table in the terminal, as picture and page in files."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tinytorch.ir.page import graph_data, page
from tinytorch.ir.picture import to_svg
from tinytorch.look import terminal
from tinytorch.passes import History, Stage

from .target import TargetArgument, load


def show(
    target: TargetArgument,
    out: Annotated[Path | None, typer.Option(
        help="Folder for the SVG and the HTML page [dim](default: a temporary one)[/dim].")] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Only the tree.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Only the graph as Python.")] = False,
    stage: Annotated[str, typer.Option(help="What the pass of this name left; 'last' is what runs.")] = "given",
    as_json: Annotated[bool, typer.Option("--json", help="Nodes, types and costs as JSON, and nothing else.")] = False,
) -> None:
    """Show a graph: tree, table, picture and a page to step through its passes.

    A target names what takes tensors, with EXAMPLES = (x, …) next to it, or a function that returns (callable, x, …).
    """
    found = load(target)
    history = found.history()
    chosen = _stage(history, stage)
    if as_json:
        data = {key: value for key, value in graph_data(chosen.graph).items() if key != "svg"}
        typer.echo(json.dumps({"name": found.name, "stage": chosen.name, **data}, indent=1))
        return
    if text:
        typer.echo(str(chosen.graph))
        return
    from rich.console import Console

    console = Console()
    console.print(terminal.graph_tree(chosen.graph))
    if tree:
        return
    console.print()
    console.print(terminal.graph_table(chosen.graph))
    console.print(f"[dim]stages: {_names(history)}  (--stage NAME)[/dim]", highlight=False)
    folder = out or Path(tempfile.mkdtemp(prefix="tinytorch-show-"))
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]", "_", found.name) or "graph"
    svg, html = folder / f"{name}.svg", folder / f"{name}.html"
    svg.write_text(to_svg(chosen.graph), encoding="utf-8")
    html.write_text(page(history, found.name), encoding="utf-8")
    for what, path in (("picture", svg), ("page", html)):
        console.print(f"{what:8} {path.resolve()}", markup=False, highlight=False, soft_wrap=True)


def _stage(history: History, name: str) -> Stage:
    if name == "last":
        return history[-1]
    found = [stage for stage in history if stage.name.lower() == name.lower()]
    if not found:
        raise typer.BadParameter(f"there is no stage {name!r}; there are {_names(history)}, last", param_hint="--stage")
    return found[-1]


def _names(history: History) -> str:
    return ", ".join(dict.fromkeys(stage.name for stage in history))
