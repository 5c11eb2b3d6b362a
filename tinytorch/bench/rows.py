"""What a workload gives: rows of a measurement, what peers took, and the target it must reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinytorch.look import units

from . import peers
from .timing import Timing


@dataclass(frozen=True)
class Target:
    """A bound on a figure: at least, or at most, so much."""

    bound: float
    unit: str = "×"  # "×", "%", "s", or "" for a count
    at_most: bool = False

    def met(self, figure: float) -> bool:
        """Whether a figure reaches it."""
        return figure <= self.bound if self.at_most else figure >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {shown(self.bound, self.unit)}"


def shown(figure: float, unit: str) -> str:
    """A figure as people read it."""
    if unit == "s":
        return units.seconds(figure)
    if unit == "%":
        return f"{100 * figure:.0f} %"
    return f"{figure:.2f}×" if unit == "×" else f"{figure:,.0f}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: what was measured.
        figure: the number the target is about; None if it could not be had (a peer is absent).
        ours: seconds of ours, where there is a time; peers: theirs by name, or why there are none.
        target: None for a row that only tells.
        note: what else to know.
    """

    workload: str
    case: str
    figure: float | None
    target: Target | None = None
    ours: Timing | None = None
    peers: Mapping[str, Timing | str] = field(default_factory=dict)
    unit: str = "×"
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None where there is none, or no figure."""
        return None if self.target is None or self.figure is None else self.target.met(self.figure)

    def data(self) -> dict[str, Any]:
        """Ready for JSON: times in seconds."""
        return {"workload": self.workload, "case": self.case, "figure": self.figure, "unit": self.unit,
                "target": str(self.target) if self.target else None, "reached": self.reached, "ours": _times(self.ours),
                "peers": {name: _times(timing) for name, timing in self.peers.items()}, "note": self.note}


def _times(timing: Timing | str | None) -> Any:
    if not isinstance(timing, Timing):
        return timing
    return {"median": timing.median, "quartiles": timing.quartiles, "rounds": len(timing.samples)}


@dataclass(frozen=True)
class Settings:
    """How to run: threads of both sides, which peers, and whether a glance is enough."""

    threads: int
    peers: frozenset[str] = frozenset({"torch", "torch-compile", "jax"})
    quick: bool = False

    @property
    def seconds(self) -> float:
        """For one comparison."""
        return 0.3 if self.quick else 2.5

    @property
    def settle(self) -> float:
        """Pause before each turn, until the other side's threads sleep."""
        return 0.0 if self.threads == 1 else 0.01 if self.quick else 0.03


@dataclass(frozen=True)
class Workload:
    """A named measurement: `run(settings)` yields its rows."""

    name: str
    about: str
    run: Callable[[Settings], Iterator[Row]]


def against(workload: str, case: str, found: Mapping[str, Timing], peer: str, target: Target, note: str = "") -> Row:
    """The row of "ours" against one peer, which may not have been measured."""
    theirs = found.get(peer)
    absent = "left out" if peers.installed(peer) else "not installed"
    return Row(workload, case, found["ours"].faster_than(theirs) if theirs else None, target, found["ours"],
               {peer: theirs or absent}, note=note)
