"""`tito bench`: the project's figures against its targets and its peers, or your own function."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from tinytorch.bench import bench as compare
from tinytorch.bench import peers, report
from tinytorch.bench.rows import Row, Settings
from tinytorch.bench.timing import busy
from tinytorch.bench.workloads import WORKLOADS, run
from tinytorch.runtime import pool

from .target import load_callable

PAGE = Path("docs/benchmarks.md")
NAMES = "Workloads, by default all; or one [b]file.py:name[/b] of your own."
VS = "Peers, where they are installed: some of [b]torch,torch-compile,jax[/b], or none."


def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[WORKLOAD | TARGET]…", help=NAMES)] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Name the workloads, and stop.")] = False,
    vs: Annotated[str, typer.Option(help=VS)] = "torch,torch-compile,jax",
    quick: Annotated[bool, typer.Option(
        "--quick", help="A glance: fewer rounds and shapes, and no torch.compile.")] = False,
    json_file: Annotated[Path | None, typer.Option(
        "--json", metavar="FILE", help="Also write all to this file; - for standard output.")] = None,
    write: Annotated[bool, typer.Option("--write", help=f"Also write {PAGE}, in the root of the repository.")] = False,
) -> None:
    """Measure, in turns with the peers and with as many threads: medians, quartiles, ratios, and the targets."""
    if show_list:
        for workload in WORKLOADS.values():
            typer.echo(f"{workload.name:12} {workload.about}")
        return
    chosen = list(names or WORKLOADS)
    if len(chosen) == 1 and ":" in chosen[0]:
        function, examples = load_callable(chosen[0])
        result = compare(function, *examples)
        typer.echo(result.to_json() if json_file is not None and str(json_file) == "-" else str(result))
        if json_file is not None and str(json_file) != "-":
            json_file.write_text(result.to_json() + "\n")
        return
    _known(chosen, WORKLOADS, "WORKLOAD")
    rows, settings = _run(chosen, vs, quick)
    if json_file is not None:
        text = report.to_json(rows, settings) + "\n"
        typer.echo(text, nl=False) if str(json_file) == "-" else json_file.write_text(text)
    if write:
        if not PAGE.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {PAGE.parent} here; run it in the root of the repository",
                                     param_hint="--write")
        about = {workload.name: workload.about for workload in WORKLOADS.values()}
        PAGE.write_text(report.markdown(rows, settings, about), encoding="utf-8")
        typer.echo(f"written: {PAGE}", err=True)


def _known(names: list[str], known: Iterable[str], what: str) -> None:
    unknown = [name for name in names if name not in list(known)]
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}", param_hint=what)


def _run(names: list[str], vs: str, quick: bool) -> tuple[list[Row], Settings]:
    """Measure, telling on the error stream what goes on; the table at the end."""
    from rich.console import Console

    wanted = [peer for peer in vs.split(",") if peer not in ("", "none")]
    _known(wanted, peers.PEERS, "--vs")
    present = frozenset(peer for peer in wanted if peers.installed(peer) and not (quick and peer == "torch-compile"))
    settings = Settings(pool.get_num_threads(), present, quick)
    console = Console(stderr=True)
    rows: list[Row] = []
    with console.status("") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            status.update(f"{name}: {WORKLOADS[name].about}")
            rows += run([name], settings)
    console = Console()
    console.print(report.table(rows))
    console.print(report.summary(rows), highlight=False)
    console.print(f"[yellow]{busy()}[/]", highlight=False)
    return rows, settings
