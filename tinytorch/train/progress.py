"""Show how a run goes: a bar with loss, learning rate, samples a second and the time left; short lines elsewhere.

with show_progress(total=1000) as bar:
    bar.update(step, epoch, loss, lr, rate)       # as often as one likes: it draws only now and then
    bar.note("validation loss 0.31")              # a line that stays
"""

from __future__ import annotations

import sys
import time
from typing import Any, Self

from tinytorch.look import units


class Silent:
    """Shows nothing."""

    pause = float("inf")  # seconds between two drawings

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    @property
    def due(self) -> bool:
        """Whether it is time to draw again."""
        return time.perf_counter() >= self._next

    def update(self, step: int, epoch: int, loss: float, lr: float, rate: float) -> None:
        """Show where the run is: in its first epoch, `epoch` is 1; `rate` is in samples a second."""
        self._next = time.perf_counter() + self.pause
        self.draw(step, epoch, f"loss {loss:.4f}", f"lr {lr:.3g}", f"{units.count(rate)} samples/s")

    def draw(self, step: int, epoch: int, *words: str) -> None:
        """Draw it."""

    def note(self, text: str) -> None:
        """Say something that stays."""


class Lines(Silent):
    """A line now and then, for files and pipes."""

    pause = 10.0

    def __enter__(self) -> Self:
        self._next = time.perf_counter() + 1.0
        return self

    def draw(self, step: int, epoch: int, *words: str) -> None:
        """One line."""
        of = f"/{self.total}" if self.total else ""
        self.note("  ".join((f"step {step}{of}", f"epoch {epoch}", *words)))

    def note(self, text: str) -> None:
        """One line."""
        print(text, flush=True)


class Bar(Silent):
    """A bar that moves, for a terminal."""

    pause = 0.1

    def __init__(self, total: int | None, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(total)
        self.progress = Progress(TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(),
                                 TextColumn("{task.fields[words]}"), TimeRemainingColumn(), console=console)
        self.task = self.progress.add_task("training", total=total, words="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()

    def draw(self, step: int, epoch: int, *words: str) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=step, description=f"epoch {epoch}", words="  ".join(words))

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.progress.console.print(text, markup=False, highlight=False)


def show_progress(total: int | None, wanted: bool = True) -> Silent:
    """What fits the place where it is shown: a bar on a terminal, lines in a file, nothing if it is not wanted."""
    if not wanted:
        return Silent(total)
    from rich.console import Console

    console = Console(file=sys.stdout)
    return Bar(total, console) if console.is_terminal else Lines(total)
