"""`tito profile`: what a call costs, node by node, and with --run what each kernel takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinytorch.compile import compile
from tinytorch.profile import profile as count

from .target import TargetArgument, load_callable


def profile(
    target: TargetArgument,
    run: Annotated[bool, typer.Option(
        "--run", help="Also run it, and time each kernel against the machine's roofline.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the page to read all of it in to this HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers as JSON, and nothing else.")] = False,
) -> None:
    """Parameters, FLOPs, bytes and peak memory of a function, module or training step."""
    if target.endswith(".ttg"):
        raise typer.BadParameter("a graph file has no function to compile; try tito show", param_hint="TARGET")
    function, examples = load_callable(target)
    report = count(function, *examples)
    if as_json:
        typer.echo(report.to_json())
    else:
        report.print()
    if run:
        fast = compile(function)
        fast(*examples)
        fast.explain().print()
    if out is not None:
        report.to_html(out)
        typer.echo(f"page     {out.resolve()}", err=as_json)
