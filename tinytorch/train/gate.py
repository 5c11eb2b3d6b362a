"""Say what a run must reach, and whether it did: `Gate`s in a `Report`, as a table, as one JSON row, as an exit code.

    >>> from tinytorch.train import Gate, Report
    >>> report = Report("xor", seed=0, seconds=1.5, gates=[
    ...     Gate("a line", 0.75, at_most=0.75), Gate("a hidden layer", 1.0, at_least=1.0)])
    >>> report.reached, report.exit_code
    (True, 0)
    >>> print(Gate("test accuracy", float("nan"), at_least=0.98))
    test accuracy: nan, wanted ≥ 0.98: missed

A gate is passed only by a number that is known to be good enough: NaN passes none.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytorch.ir.errors import OpError
from tinytorch.ir.files import write_atomically
from tinytorch.look import units

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class Gate:
    """One number and the bounds that it must keep.

    Args:
        name: what was measured, such as "test accuracy".
        value: the number; anything that `float` takes, so a tensor of one element too.
        at_least: the smallest value that passes.
        at_most: the greatest value that passes.
    Raises:
        OpError: there is no bound, a bound is NaN, or no value could keep both.

    >>> Gate("validation loss", 1.71, at_most=1.88).reached
    True
    """

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        for key in ("value", "at_least", "at_most"):  # a tensor or a NumPy number becomes a plain float
            if (number := getattr(self, key)) is not None:
                object.__setattr__(self, key, float(number))
        if self.at_least is None and self.at_most is None:
            raise OpError(f"Gate({self.name!r}): without at_least=… or at_most=… nothing can be missed")
        if any(bound is not None and math.isnan(bound) for bound in (self.at_least, self.at_most)):
            raise OpError(f"Gate({self.name!r}): a bound is NaN, which no value keeps")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise OpError(f"Gate({self.name!r}): no value is at least {self.at_least:g} and at most {self.at_most:g}")

    @property
    def reached(self) -> bool:
        """Whether the value keeps its bounds; never if it is NaN."""
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most) and not math.isnan(self.value)

    @property
    def wanted(self) -> str:
        """The bounds in words: `≥ 0.98`."""
        low = f"≥ {self.at_least:g}" if self.at_least is not None else ""
        high = f"≤ {self.at_most:g}" if self.at_most is not None else ""
        return " and ".join(filter(None, (low, high)))

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.6g}, wanted {self.wanted}: {'reached' if self.reached else 'missed'}"


@dataclass(frozen=True)
class Report:
    """What a run reached, in the form that all examples share.

    Args:
        name: the run, such as "lenet_1998/train_mlp"; also the name of its file.
        seed: what its random numbers began with.
        seconds: how long it took.
        gates: what it had to reach.
        figures: other numbers or words worth keeping, by name.

    >>> Report("mlp", seed=0, seconds=9.5, gates=[Gate("accuracy", 0.4, at_least=0.98)]).exit_code
    1
    """

    name: str
    seed: int | None
    seconds: float
    gates: Sequence[Gate] = ()
    figures: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether every gate is reached."""
        return all(gate.reached for gate in self.gates)

    @property
    def exit_code(self) -> int:
        """0 if every gate is reached, else 1: `raise SystemExit(report.print().exit_code)`."""
        return 0 if self.reached else 1

    def row(self) -> dict[str, Any]:
        """All of it as plain values for JSON; a number that is not finite becomes a string, since JSON has none."""
        gates = [{"name": gate.name, "value": _plain(gate.value), "at_least": _plain(gate.at_least),
                  "at_most": _plain(gate.at_most), "reached": gate.reached} for gate in self.gates]
        return {"name": self.name, "seed": self.seed, "seconds": round(float(self.seconds), 3),
                "reached": self.reached, "gates": gates,
                "figures": {key: _plain(value) for key, value in self.figures.items()}}

    def table(self) -> Table:
        """For the terminal: a line for each gate, then the figures."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        made = Table(title=Text(self._title()), box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for column, side in ("", "left"), ("value", "right"), ("wanted", "right"), ("", "left"):
            made.add_column(column, justify=side)  # type: ignore[arg-type]
        for gate in self.gates:
            verdict = Text("reached", "green") if gate.reached else Text("missed", "bold red")
            made.add_row(Text(gate.name), f"{gate.value:.5g}", gate.wanted, verdict)
        for name, value in self.figures.items():
            made.add_row(Text(name, "dim"), Text(f"{value:.5g}" if isinstance(value, float) else str(value), "dim"))
        return made

    def print(self, console: Console | None = None) -> Report:
        """Show the table on standard output, or on `console`; gives the report."""
        from rich.console import Console

        (console or Console()).print(self.table())
        return self

    def write(self, folder: str | Path) -> Path:
        """Write the row as one line of JSON to `folder/<name>.json`, whole or not at all, over an older one.

        Raises:
            OSError: the file cannot be written.
        """
        path = Path(folder) / (re.sub(r"[^\w.-]+", "-", self.name).strip("-.") + ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(self.row(), ensure_ascii=False, allow_nan=False) + "\n").encode())
        return path

    def _title(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.name}{seed}, {units.seconds(self.seconds)}"


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's integers
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else str(number)
