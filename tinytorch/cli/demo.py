"""`tito demo`: real digits, one model, every stage of the compiler to look at, and a race of eager against compiled."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from tinytorch.bench.timing import busy
from tinytorch.compile import trace
from tinytorch.data import mnist
from tinytorch.ir import Graph
from tinytorch.look import terminal, units
from tinytorch.runtime import build

from .demo_program import write_program
from .race import BATCH, Digits, Runner, accuracy, make_runner, race

if TYPE_CHECKING:
    from rich.console import Console

ACCURACY = 0.9  # of the test digits, at least
AGREEMENT = 0.02  # of the losses of both sides, step by step, at most; rounding grows over hundreds of steps
FASTEST = 0.1
EPOCHS = {False: 6, True: 2}  # of the small set, of the full one


@dataclass(frozen=True)
class Outcome:
    """What a demo found."""

    train: int
    test: int
    graph: Graph
    eager: Runner
    compiled: Runner
    accuracies: tuple[float, float]
    kernels_compiled: int

    @property
    def difference(self) -> float:
        """The greatest difference of the losses of the two sides."""
        return float(np.max(np.abs(np.subtract(self.eager.losses, self.compiled.losses))))

    @property
    def speedup(self) -> float:
        """How many times faster a compiled step is, by the fastest tenth of the steps: the least disturbed ones."""
        return self.eager.per_step(FASTEST) / self.compiled.per_step(FASTEST)

    def problems(self) -> list[str]:
        """What is not as it must be: the reason why a demo fails."""
        found = []
        if not self.difference <= AGREEMENT:  # nan is a problem too
            found.append(f"the losses differ by {self.difference:.3g}, more than {AGREEMENT}")
        for name, right in zip(("eager", "compiled"), self.accuracies, strict=True):
            if not right >= ACCURACY:
                found.append(f"{name}: {100 * right:.1f} % of the test digits are right, "
                             f"expected at least {100 * ACCURACY:.0f} %: more --epochs?")
        return found


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the report.")] = Path("tinytorch-demo"),
    epochs: Annotated[int | None, typer.Option(
        min=1, help="Times through the digits [dim](default: 6, with --full 2)[/dim].")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights and of the order of the digits.")] = 0,
    full: Annotated[bool, typer.Option(
        "--full", help="The full 60,000 digits, where they are found (see TINYTORCH_DATA).")] = False,
) -> None:
    """Train an MLP on real MNIST digits, eager and compiled, and look at every stage of the compiler.

    Exit status 1 if the two do not learn the same, or not enough.
    """
    from rich.console import Console

    began = time.perf_counter()
    console = Console()
    digits: tuple[Digits, Digits] = mnist("train", small=not full), mnist("test", small=not full)
    _show_digits(console, digits)
    program = write_program(out)
    graph = _show_graph(console, program)
    outcome = _train(console, program, graph, digits, epochs or EPOCHS[full], seed)
    _show_outcome(console, outcome)
    _save(console, outcome, out)
    problems = outcome.problems()
    for problem in problems:
        console.print(f"[bold red]{problem}[/]")
    console.print(f"\n[dim]{units.seconds(time.perf_counter() - began)} in all[/]", highlight=False)
    raise typer.Exit(1 if problems else 0)


def _heading(console: Console, number: int, title: str) -> None:
    console.print()
    console.rule(f"[bold cyan]{number}[/]  [bold]{title}", align="left", style="cyan")
    console.print()


def _show_digits(console: Console, digits: tuple[Digits, Digits]) -> None:
    from rich.text import Text

    (images, labels), (_, test) = digits
    _heading(console, 1, "Real digits")
    shown = [int(np.flatnonzero(labels == digit)[0]) for digit in (3, 1, 4, 5, 9)]
    for line in zip(*(_drawn(images[i]) for i in shown), strict=True):
        console.print(Text("  ".join(line)), no_wrap=True, overflow="crop")
    console.print(f"MNIST: {len(labels):,} digits to learn from, {len(test):,} to be tested with", highlight=False)


def _drawn(image: np.ndarray) -> list[str]:
    """A digit in half blocks, 14 columns by 7 lines."""
    dark = image.reshape(14, 2, 14, 2).mean((1, 3)) > 90
    pairs = zip(dark[::2], dark[1::2], strict=True)
    return ["".join(" ▀▄█"[up + 2 * down] for up, down in zip(*pair, strict=True)) for pair in pairs]


def _show_graph(console: Console, program: ModuleType) -> Graph:
    from rich.padding import Padding
    from rich.syntax import Syntax

    _heading(console, 2, "The model, traced")
    console.print(f"from {program.__file__}:\n", highlight=False, soft_wrap=True)
    graph = trace(*program.example())
    text = _tight(str(graph), console.width - 4)
    code = Syntax(text, "python", theme="ansi_dark", background_color="default", word_wrap=True)
    console.print(Padding(code, (0, 0, 1, 2)))
    console.print(terminal.graph_table(graph))
    return graph


def _tight(text: str, width: int) -> str:
    """The text of a graph with its comments close to the code, and without the source lines where they do not fit."""
    parts = [line.partition("  # ") for line in text.strip().splitlines()]
    column = max(len(code.rstrip()) for code, mark, _ in parts if mark)
    fits = all(column + len(mark + comment.strip()) <= width for _, mark, comment in parts)
    lines = []
    for code, mark, comment in parts:
        said = comment.strip() if fits else comment.strip().partition("  ")[0]
        lines.append(f"{code.rstrip():<{column}}{mark}{said}" if mark else code)
    return "\n".join(lines)


def _train(console: Console, program: ModuleType, graph: Graph, digits: tuple[Digits, Digits], epochs: int,
           seed: int) -> Outcome:
    train, test = digits
    eager, compiled = (make_runner(name, program, train, epochs, seed) for name in ("eager", "compiled"))
    _heading(console, 3, "The training step, compiled")
    console.print("forward, backward and Adam in one graph; what each pass did to it:\n")
    before = build.stats().compiled
    with console.status("tracing, optimising, compiling kernels"):
        compiled.run(0.0)  # the first step compiles
    built = build.stats().compiled - before
    step = compiled.fast
    console.print(terminal.history_table(step.history, peak=True))
    parts = ", ".join(f"{name} {units.seconds(seconds)}" for name, seconds in step.seconds.items())
    told = f"{built} kernels compiled" + ("" if built else ": all were in the cache")
    console.print(f"first step {units.seconds(compiled.first)}: {parts}; {told}", highlight=False)
    _heading(console, 4, "Eager and compiled, side by side")
    _race(console, eager, compiled, epochs * (len(train[1]) // BATCH))
    accuracies = accuracy(eager.model, test), accuracy(compiled.model, test)
    return Outcome(len(train[1]), len(test[1]), graph, eager, compiled, accuracies, built)


def _race(console: Console, eager: Runner, compiled: Runner, steps: int) -> None:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<9}"), BarColumn(34), TextColumn("{task.completed:>5}/{task.total} steps"),
               TextColumn("loss {task.fields[loss]:.4f}"), TextColumn("{task.fields[clock]}"))
    with Progress(*columns, console=console) as progress:
        tasks = {r.name: progress.add_task(r.name, total=steps, loss=float("nan"), clock="") for r in (eager, compiled)}

        def tell(runner: Runner) -> None:
            loss = float(np.mean(runner.losses[-20:]))
            progress.update(tasks[runner.name], completed=len(runner.losses), loss=loss,
                            clock=units.seconds(runner.rest))

        race([eager, compiled], tell)


def _show_outcome(console: Console, outcome: Outcome) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    _heading(console, 5, "The outcome")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", "the steps", "median", "fastest tenth", "last loss", "digits right"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for runner, right in zip((outcome.eager, outcome.compiled), outcome.accuracies, strict=True):
        times = map(units.seconds, (runner.rest, runner.per_step(), runner.per_step(FASTEST)))
        table.add_row(runner.name, *times, f"{np.mean(runner.losses[-20:]):.4f}", f"{100 * right:.1f} %")
    console.print(table)
    console.print(f"a compiled step is [bold green]{outcome.speedup:.1f} times[/] as fast as an eager one "
                  "(fastest tenth of each);\n"
                  f"the losses of the {len(outcome.eager.losses)} steps differ by at most {outcome.difference:.1g}",
                  highlight=False)
    if warning := busy():
        console.print(f"[yellow]{warning}[/]", highlight=False)


def _save(console: Console, outcome: Outcome, out: Path) -> None:
    from .demo_report import save

    _heading(console, 6, "Every kernel of the step, and where to read on")
    why = outcome.compiled.fast.explain()
    console.print(why)
    with console.status("drawing"):
        files = save(outcome, why, out)
    console.print()
    for what, path in files.items():
        console.print(f"[bold]{what:12}[/] {path}", highlight=False, soft_wrap=True)
