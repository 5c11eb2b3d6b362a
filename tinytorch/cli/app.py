"""The commands of `tito`, put together."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import bench, cache, demo, doctor, opt, profile, show

app = typer.Typer(
    name="tito", no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="[bold]tinytorch[/bold]: a small graph compiler for machine learning, to run and to look at.",
    epilog="Exit status: 0 all is well · 1 something failed · 2 the command was not understood.")
app.command("demo")(demo.demo)
app.command("show")(show.show)
app.command("profile")(profile.profile)
app.command("opt")(opt.opt)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(cache.app, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        import tinytorch

        typer.echo(f"tinytorch {tinytorch.__version__}")
        raise typer.Exit()


@app.callback()
def front(version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Print the version and stop.")] = False) -> None:
    """Options of `tito` itself."""


def failed(error: BaseException) -> None:
    """One panel that says what went wrong, on the error stream."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    hint = "TINYTORCH_DEBUG=1 shows where" if sys.stderr.isatty() else ""
    panel = Panel(Text(str(error)), title=type(error).__name__, title_align="left", border_style="red",
                  subtitle=hint or None)
    Console(stderr=True).print(panel)
