"""What less memory costs in time: `tt.memory_curve(step, x, y)` compiles a function for several budgets and times each.

    curve = tt.memory_curve(step, x, y)             # a training step, or anything else that can be compiled
    curve.print()                                   # a line for each budget: bytes, seconds, launches
    curve.draw("memory.svg")                        # time against memory
    fast = tt.compile(step, memory=curve.at(1.1))   # the least memory for at most 1.1 times the time

Bytes are those of the plan: the arena of intermediates, which a program never exceeds. Times are measured in turns, on
copies of all that the function reads and writes: parameters and optimiser stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytorch.ir.errors import BudgetError, PassError
from tinytorch.look import units
from tinytorch.look.curves import tradeoff
from tinytorch.passes import Pipeline, Rematerialize

from .compile import Compiled, compile
from .entry import Entry

if TYPE_CHECKING:
    from rich.table import Table

BUDGETS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


@dataclass(frozen=True)
class MemoryPoint:
    """One budget: as it was asked for, the bytes of the plan that meets it, seconds of a call, launches."""

    budget: int | float
    nbytes: int
    seconds: float
    launches: int


@dataclass(frozen=True)
class MemoryCurve:
    """What `memory_curve` found, the biggest budget first."""

    name: str
    points: tuple[MemoryPoint, ...]

    def at(self, ratio: float) -> int:
        """The fewest bytes for which a call took at most `ratio` times the time of the first point."""
        return min(p.nbytes for p in self.points if p.seconds <= ratio * self.points[0].seconds)

    def __rich__(self) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(title=f"{self.name}: time against memory", box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for header in ("budget", "bytes", "of all", "a call", "times", "launches"):
            table.add_column(header, justify="right")
        first = self.points[0]
        for p in self.points:
            asked = units.percent(p.budget) if p.budget <= 1 else units.nbytes(p.budget)
            table.add_row(asked, units.nbytes(p.nbytes), units.percent(p.nbytes / max(first.nbytes, 1)),
                          units.seconds(p.seconds), f"{p.seconds / first.seconds:.2f}", str(p.launches))
        return table

    def print(self) -> None:
        """The table, in the terminal."""
        from rich.console import Console

        Console().print(self)

    def draw(self, path: str | Path) -> Path:
        """Time against memory, as a picture (`.png` or `.svg`)."""
        points = [(p.nbytes / 2**20, p.seconds * 1e3) for p in self.points]
        return tradeoff({self.name: points}, path, "time against memory", "MiB of intermediates", "ms a call")


def memory_curve(target: Callable[..., Any], *examples: Any, budgets: Sequence[int | float] = BUDGETS,
                 seconds: float = 0.3, **keywords: Any) -> MemoryCurve:
    """Compile a function for each budget, and measure.

    Args:
        target: a function, module, training step, or what `tt.compile` made of one.
        examples, keywords: arguments; only their types matter.
        budgets: bytes, or parts up to 1.0; one that cannot be met is left out, and ends the curve at the smallest that
            can be.
        seconds: how long to measure each; the least time of a call counts.
    Raises:
        PassError: a budget is neither a number of bytes nor a part.

    >>> import tinytorch as tt
    >>> curve = tt.memory_curve(lambda x: ((x @ x).tanh() @ x).sum(), tt.ones(8, 8), budgets=(1.0,), seconds=0.01)
    >>> len(curve.points), curve.points[0].nbytes > 0
    (1, True)
    """
    fast = target if isinstance(target, Compiled) else compile(target)
    entries: dict[int | float, Entry] = {}
    for budget in budgets:
        found, smallest = _prepared(fast, budget, examples, keywords)
        if found is None:
            budget = smallest
            found = entries.get(budget) or _prepared(fast, budget, examples, keywords)[0]
        if found is not None:
            entries[budget] = found
    calls = [_call(entry) for entry in entries.values()]
    best = [float("inf")] * len(calls)
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[number] = min(best[number], time.perf_counter() - start)
    points = (MemoryPoint(budget, entry.program.arena_bytes, least, len(entry.program.steps))
              for (budget, entry), least in zip(entries.items(), best, strict=True))
    return MemoryCurve(fast.__name__, tuple(sorted(points, key=lambda p: -p.nbytes)))


def _prepared(fast: Compiled, budget: int | float, examples: Sequence[Any],
              keywords: dict[str, Any]) -> tuple[Entry | None, int]:
    """A program within the budget; if there is none, the smallest there is one for."""
    steps = [step for step in fast.pipeline.passes if not isinstance(step, Rematerialize)]
    fresh = Compiled(fast.function, Pipeline(*steps, Rematerialize(budget)), fast.static, fast.threads)
    try:
        return fresh._prepare(examples, keywords), 0
    except PassError as error:
        if not isinstance(error.__cause__, BudgetError):
            raise
        return None, error.__cause__.smallest


def _call(entry: Entry) -> Callable[[], Any]:
    """The program on copies of its own; the first two calls are over."""
    from .explain import copies_of  # heavy: not at import

    entry.bound()  # what it needs prepared
    arrays = copies_of(entry)
    addresses = [array.__array_interface__["data"][0] for array in arrays]

    def call() -> Any:
        return entry.program.run(arrays, addresses)

    call()
    call()
    return call
