"""`tito bench`: the project's figures against its targets and its peers, or your own function."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tinytorch.bench import bench as compare
from tinytorch.bench import peers, report
from tinytorch.bench.compare import TargetFailed, peer_calls
from tinytorch.bench.journal import Journal
from tinytorch.bench.page import write_page
from tinytorch.bench.rows import Row, Settings
from tinytorch.bench.timing import busy
from tinytorch.bench.workloads import WORKLOADS, attempt
from tinytorch.ir import config
from tinytorch.ir.errors import TinyTorchError
from tinytorch.ir.files import write_atomically
from tinytorch.runtime import build, pool

from .target import load_module, with_examples

PAGE = Path("docs/benchmarks.md")
GROUPS = {workload.name: workload.group for workload in WORKLOADS.values()}
NAMES = "Workloads, by default all; or one [b]file.py:name[/b] of your own."
VS = ("Peers, some of [b]torch,torch-compile,jax,onnxruntime[/b], or none; by default those that are installed "
      "(with --quick without torch-compile, which takes minutes). For a function [b]f[/b] of your own, what stands "
      "beside it as [b]f_torch[/b] or [b]f_jax[/b]: called with the same arguments as its tensors, or, if it takes "
      "none, once, to return (callable, argument, …).")


@dataclass(frozen=True)
class Outputs:
    """Where results go besides the terminal."""

    json_file: Path | None
    html: Path | None
    write: bool

    def check(self) -> None:
        """Before minutes are spent on what cannot be written. Raises typer.BadParameter."""
        for option, path in (("--json", self.json_file), ("--html", self.html)):
            if path is not None and str(path) != "-" and not path.resolve().parent.is_dir():
                raise typer.BadParameter(f"there is no folder {path.parent}", param_hint=option)
        if self.write and not PAGE.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {PAGE.parent} here; run it in the root of the repository",
                                     param_hint="--write")

    def json(self, text: str) -> None:
        """To the file, or to standard output for `-`."""
        if str(self.json_file) == "-":
            typer.echo(text)
        elif self.json_file is not None:
            write_atomically(self.json_file, f"{text}\n".encode())

    def page(self, rows: list[Row], settings: Settings, groups: dict[str, str]) -> None:
        """The web page."""
        if self.html is not None:
            typer.echo(f"page     {write_page(self.html, rows, settings, groups)}", err=True)


def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[WORKLOAD | TARGET]…", help=NAMES)] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Name the workloads, and stop.")] = False,
    vs: Annotated[str | None, typer.Option(help=VS)] = None,
    threads: Annotated[int | None, typer.Option(
        min=1, max=pool.MAX_THREADS, help="Threads of all sides; by default TINYTORCH_THREADS or all cores.")] = None,
    quick: Annotated[bool, typer.Option(
        "--quick", help="A glance of some minutes: fewer rounds and shapes.")] = False,
    resume: Annotated[bool, typer.Option(
        "--resume", help="Take over what an interrupted run with the same options has finished.")] = False,
    json_file: Annotated[Path | None, typer.Option(
        "--json", metavar="FILE", help="Also write all to this file; - for standard output.")] = None,
    html: Annotated[Path | None, typer.Option(
        "--html", metavar="FILE", help="Also write a page with tables, ratios and the roofline as pictures.")] = None,
    write: Annotated[bool, typer.Option("--write", help=f"Also write {PAGE}, in the root of the repository.")] = False,
) -> None:
    """Measure, in turns with the peers and with as many threads: medians, ratios with confidence, and the targets."""
    if show_list:
        for workload in WORKLOADS.values():
            typer.echo(f"{workload.name:16} {workload.about}")
        return
    outputs = Outputs(json_file, html, write)
    outputs.check()
    if threads is not None:
        os.environ["TINYTORCH_THREADS"] = str(threads)  # of the processes that are started too
        pool.set_num_threads(threads)
    settings = Settings(pool.get_num_threads(), _peers(vs, quick), quick)
    chosen = list(names or WORKLOADS)
    if any(":" in name for name in chosen):
        if len(chosen) > 1:
            raise typer.BadParameter("name one function of your own, or workloads", param_hint="TARGET")
        _own(chosen[0], settings, outputs)
        return
    _known(chosen, WORKLOADS, "WORKLOAD")
    journal = Journal(build.kernel_dir(), chosen, settings, resume)
    failed = _run(chosen, settings, journal)
    rows = [row for name in chosen for row in failed.get(name) or journal.rows[name]]
    outputs.json(report.to_json(rows, settings))
    outputs.page(rows, settings, GROUPS)
    if write:
        about = {workload.name: workload.about for workload in WORKLOADS.values()}
        write_atomically(PAGE, report.markdown(rows, settings, about).encode())
        typer.echo(f"written: {PAGE}", err=True)
    if not failed:
        journal.close()
    raise typer.Exit(1 if failed else 0)


def _peers(vs: str | None, quick: bool) -> frozenset[str]:
    """Those that are wanted and installed; what is wanted by name and absent is told."""
    if vs is None:
        return frozenset(p for p in peers.PEERS if peers.installed(p) and not (quick and p == "torch-compile"))
    wanted = [name.strip() for name in vs.split(",") if name.strip() not in ("", "none")]
    _known(wanted, peers.PEERS, "--vs")
    for name in wanted:
        if not peers.installed(name):
            typer.echo(f"{name} is left out: it needs {', '.join(peers.missing(name))}, not installed here", err=True)
    return frozenset(filter(peers.installed, wanted))


def _known(names: list[str], known: Iterable[str], what: str) -> None:
    unknown = [name for name in names if name not in list(known)]
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}", param_hint=what)


def _own(text: str, settings: Settings, outputs: Outputs) -> None:
    """A function of the user's, against eager and what stands beside it."""
    module, name = load_module(text)
    function, examples = with_examples(getattr(module, name), getattr(module, "EXAMPLES", None), text)
    try:
        beside = peer_calls(vars(module), name, examples, settings.peers, settings.threads)
        result = compare(function, *examples, vs=beside)
    except TinyTorchError:
        raise
    except Exception as error:
        if config.debug():
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise TargetFailed(f"{text} raised {type(error).__name__}: {error}\nin {place.filename}:{place.lineno}  "
                           f"{place.line or ''}") from error
    if str(outputs.json_file) != "-":
        typer.echo(str(result))
    outputs.json(result.to_json())
    outputs.page(result.rows(), settings, {result.name: text})


def _run(names: list[str], settings: Settings, journal: Journal) -> dict[str, list[Row]]:
    """Measure what is not in the journal, with a bar on the error stream; the table at the end. Gives what failed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    failed: dict[str, list[Row]] = {}
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = progress.add_task("", total=len(names))
        try:
            for name in names:
                progress.update(task, description=f"{name}: {WORKLOADS[name].about}")
                if name not in journal.rows:
                    rows, ended = attempt(name, settings)
                    if ended:
                        journal.finish(name, rows)
                    else:
                        failed[name] = rows
                progress.advance(task)
        except KeyboardInterrupt:
            typer.echo(f"interrupted in {name}; tito bench --resume, with the same options, goes on there", err=True)
            raise
    rows = [row for name in names for row in failed.get(name) or journal.rows[name]]
    console = Console()
    console.print(report.table(rows))
    console.print(report.summary(rows), highlight=False)
    console.print(f"[yellow]{busy()}[/]", highlight=False)
    return failed
