"""`tito opt`: a model through passes, and what that does to its size, its speed and its answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tinytorch import zoo
from tinytorch.bench.timing import busy
from tinytorch.runtime import pool

from . import opt_report, opt_sweep
from .opt_measure import apply, graph_of, measure
from .opt_specs import NAMED, OURS, parse
from .opt_subject import MODEL_HELP, Subject, subject

MODEL = MODEL_HELP.format(", ".join(zoo.CARDS))
PASSES = (f"Steps, separated by commas: [b]{', '.join(NAMED)}[/b], a pass of ours ({', '.join(OURS)}) or your own, "
          "[b]file.py:Name[/b]. Settings follow a colon: [b]quantize:static,observer=mse[/b], "
          "[b]prune:channels=0.5,tune,quantize[/b].")


def opt(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    passes: Annotated[str | None, typer.Option("--passes", "-p", help=PASSES)] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Many settings, and which of them nothing beats.")] = False,
    data: Annotated[Path | None, typer.Option(
        metavar="FILE.npz", help="Arrays inputs, targets, maybe calibration; a model of the zoo has its own.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All of MNIST, not the digits that ship.")] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Inputs of one call.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Of the test data, at most.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=pool.MAX_THREADS, help="Of the programs.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="How long to measure speed.")] = 2.0,
    json_file: Annotated[Path | None, typer.Option(
        "--json", metavar="FILE", help="Also write the figures; - for standard output, and nothing else.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page to look at.")] = None,
    picture: Annotated[Path | None, typer.Option(
        metavar="FILE", help="With --sweep: the picture, .svg or .png.")] = None,
    save: Annotated[Path | None, typer.Option(
        metavar="FILE.ttg", help="Also write the graph that is left, for calls of this batch.")] = None,
) -> None:
    """Optimise a model and measure what that did: size, operations, memory, speed in turns, accuracy."""
    if (passes is None) == (not sweep):
        raise typer.BadParameter("expected --passes STEPS or --sweep, one of them", param_hint="--passes")
    _check(json_file, html, picture, save, sweep)
    steps = parse(passes) if passes is not None else []
    found = subject(model, data, batch, full)
    if threads is not None:
        os.environ["TINYTORCH_THREADS"] = str(threads)
    if sweep:
        opt_sweep.run(found, seconds, samples, json_file, html, picture)
        return
    target, history = apply(steps, found)
    variants = measure({"before": found.target, "after": target}, found, seconds, threads, samples)
    lines = list(opt_report.lines(variants["before"], variants["after"], found))
    title = f"{model} · {passes} · batch {found.batch}"
    if not opt_report.deliver(opt_report.as_json(found, str(passes), variants, history), json_file):
        _print(title, lines, found, samples)
    if html is not None:
        typer.echo(f"page     {opt_report.write_page(html, title, lines, history)}", err=True)
    if save is not None:
        graph_of(target, found.examples).save(save)
        typer.echo(f"graph    {save.resolve()}", err=True)


def _check(json_file: Path | None, html: Path | None, picture: Path | None, save: Path | None, sweep: bool) -> None:
    """Refuse what cannot be written before anything is computed."""
    for option, path in (("--json", json_file), ("--html", html), ("--picture", picture), ("--save", save)):
        if path is not None and str(path) != "-" and not path.resolve().parent.is_dir():
            raise typer.BadParameter(f"there is no folder {path.parent}", param_hint=option)
    if picture is not None and (not sweep or picture.suffix not in (".svg", ".png")):
        raise typer.BadParameter("it goes with --sweep, and ends in .svg or .png", param_hint="--picture")
    if save is not None and (sweep or save.suffix != ".ttg"):
        raise typer.BadParameter("it goes with --passes, and ends in .ttg", param_hint="--save")


def _print(title: str, lines: list[opt_report.Line], found: Subject, samples: int | None) -> None:
    from rich.console import Console

    console = Console()
    console.print(opt_report.table(lines, title))
    if found.test is not None:
        console.print(f"[dim]accuracy on {len(found.test[0][:samples]):,} inputs that it has not learned from; "
                      "times are medians with quartiles, taken in turns[/dim]", highlight=False)
    if note := busy():
        console.print(f"[dim]{note}[/dim]", highlight=False)
