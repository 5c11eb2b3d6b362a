"""What a workload gives: rows of a measurement, what peers took, what was counted, and the target it must reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tinytorch.look import units

from . import peers
from .timing import Timing, interval
from .work import Launch, Work

Interval = tuple[float, float]
DISTURBED = 1.4  # how far two estimates of one ratio may lie apart


@dataclass(frozen=True)
class Target:
    """A bound on a figure: at least, or at most, so much."""

    bound: float
    unit: str = "×"  # "×", "%" ("percent": two digits more), "points", "s", "B", or "" for a count
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
    if unit == "B":
        return units.nbytes(figure)
    if unit == "%":
        return f"{100 * figure:.0f} %"
    if unit == "percent":
        return f"{100 * figure:.2f} %"
    if unit == "points":
        return f"{100 * figure:.2f} points"
    return f"{figure:.2f}×" if unit == "×" else f"{figure:,.0f}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: what was measured.
        figure: the number the target is about; None if it could not be had (a peer is absent, the workload failed).
        target: None for a row that only tells.
        ours: seconds of ours, where there is a time; peers: theirs by name, or why there are none.
        note: what else to know.
        interval: where the figure lies with 95 % confidence, where rounds tell (see `timing.interval`).
        first: seconds of the first call of each side, in which it may compile.
        work: what a call of ours does.
    """

    workload: str
    case: str
    figure: float | None
    target: Target | None = None
    ours: Timing | None = None
    peers: Mapping[str, Timing | str] = field(default_factory=dict)
    unit: str = "×"
    note: str = ""
    interval: Interval | None = None
    first: Mapping[str, float] = field(default_factory=dict)
    work: Work | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None where there is none, or no figure."""
        return None if self.target is None or self.figure is None else self.target.met(self.figure)

    @property
    def throughput(self) -> tuple[float, str] | None:
        """How many things a second, and what: images, tokens, FLOPs."""
        return self.work.throughput(self.ours.median) if self.work and self.ours else None

    @property
    def roofline(self) -> float | None:
        """The least time that the machine allows for each launch, all together, over the time of the call."""
        return self.work.limit / self.ours.median if self.work and self.ours and self.work.limit else None

    def data(self) -> dict[str, Any]:
        """Ready for JSON: times in seconds. `row_from` makes it a row again."""
        target = asdict(self.target) | {"text": str(self.target)} if self.target else None
        rate = self.throughput
        return {"workload": self.workload, "case": self.case, "figure": self.figure, "unit": self.unit,
                "interval": self.interval, "target": target, "reached": self.reached, "ours": _times(self.ours),
                "peers": {name: _times(timing) for name, timing in self.peers.items()}, "first": dict(self.first),
                "throughput": {"a second": rate[0], "of": rate[1]} if rate else None, "roofline": self.roofline,
                "work": asdict(self.work) if self.work else None, "note": self.note}


def row_from(data: Mapping[str, Any]) -> Row:
    """The row that `Row.data` gave these."""
    target, work, bounds = data["target"], data["work"], data["interval"]
    if work is not None:
        work = Work(**{**work, "slowest": tuple(Launch(**launch) for launch in work["slowest"])})
    return Row(data["workload"], data["case"], data["figure"],
               Target(target["bound"], target["unit"], target["at_most"]) if target else None, _timing(data["ours"]),
               {name: _timing(times) for name, times in data["peers"].items()}, data["unit"], data["note"],
               (bounds[0], bounds[1]) if bounds else None, data["first"], work)


def _times(timing: Timing | str | None) -> Any:
    if not isinstance(timing, Timing):
        return timing
    return {"median": timing.median, "quartiles": timing.quartiles, "least": min(timing.samples),
            "rounds": len(timing.samples), "samples": timing.samples}


def _timing(data: Any) -> Any:
    return Timing(tuple(data["samples"])) if isinstance(data, Mapping) else data


@dataclass(frozen=True)
class Settings:
    """How to run: threads of both sides, which peers, and whether a glance is enough."""

    threads: int
    peers: frozenset[str] = frozenset(peers.PEERS)
    quick: bool = False

    @property
    def seconds(self) -> float:
        """For one comparison."""
        return 0.3 if self.quick else 2.5

    @property
    def settle(self) -> float:
        """Pause before each turn, until the other side's threads sleep."""
        return 0.0 if self.threads == 1 else 0.01 if self.quick else 0.03

    @property
    def with_threads(self) -> str:
        """`1 thread`, `2 threads`: for the names of cases."""
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True)
class Workload:
    """A named measurement: `run(settings)` yields its rows. `group` is the heading that it stands under."""

    name: str
    about: str
    run: Callable[[Settings], Iterator[Row]]
    group: str = ""


def against(workload: str, case: str, found: Mapping[str, Timing], peer: str | Sequence[str], target: Target | None,
            note: str = "", first: Mapping[str, float] | None = None, work: Work | None = None) -> Row:
    """The row of "ours" against a peer, or the fastest of several; those that were not measured are told."""
    names = [peer] if isinstance(peer, str) else peer
    timed = {name: found[name] for name in names if name in found}
    best = min(timed.values(), key=lambda timing: timing.median, default=None)
    ratios = found["ours"].ratios(best) if best else []
    if best and (told := _disturbed(found["ours"], best)):
        note = f"{note}; {told}" if note else told
    absent = {name: "left out" if peers.installed(name) else "not installed" for name in names if name not in timed}
    return Row(workload, case, found["ours"].faster_than(best) if best else None, target, found["ours"],
               {**timed, **absent}, note=note, interval=interval(ratios) if ratios else None, first=first or {},
               work=work)


def _disturbed(ours: Timing, theirs: Timing) -> str:
    """A warning where the least times tell of another ratio than the medians do: a neighbour was at work."""
    median, least = ours.faster_than(theirs), min(theirs.samples) / min(ours.samples)
    return "" if 1 / DISTURBED < median / least < DISTURBED else f"disturbed: {least:.2f}× by the least times"
