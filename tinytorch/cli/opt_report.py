"""What `tito opt` found: a table in the terminal, JSON, and a page with the graph before, between and after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from tinytorch import zoo
from tinytorch.bench.timing import Timing, interval
from tinytorch.ir.files import write_atomically
from tinytorch.look import report, units
from tinytorch.passes import History, changes

from .opt_measure import Measured
from .opt_subject import Subject

if TYPE_CHECKING:
    from rich.table import Table


class Line(NamedTuple):
    """A figure before and after, what became of it, and whether that is good (> 0), bad (< 0) or neither."""

    name: str
    before: str
    after: str
    change: str
    good: float


def lines(before: Measured, after: Measured, subject: Subject) -> Iterator[Line]:
    """The figures that both have."""
    for name, show, pair in (
        ("parameters", units.nbytes, (before.size.parameters, after.size.parameters)),
        ("operations", units.flops, (before.size.flops, after.size.flops)),
        ("bytes moved", units.nbytes, (before.work.bytes, after.work.bytes)),
        ("peak memory", units.nbytes, (before.work.arena, after.work.arena)),
        ("launches", str, (before.work.launches, after.work.launches)),
    ):
        yield Line(name, show(pair[0]), show(pair[1]), _times(*pair), float(pair[0] - pair[1]))
    ratio, low, high = speedup(before, after)
    yield Line("time of a call", _time(before.timing), _time(after.timing), _faster(ratio, low, high),
               0.0 if low <= 1 <= high else ratio - 1)
    if before.score is not None and after.score is not None:
        yield from _scores(before.score, after.score, subject)
    yield Line("results differ by", "", units.percent(after.difference), "", 0.0)


def deliver(text: str, json_file: Path | None) -> bool:
    """Write JSON to its file, or to standard output for "-": then that has all, and nothing else is to be printed."""
    if str(json_file) == "-":
        typer.echo(text)
        return True
    if json_file is not None:
        write_atomically(json_file, f"{text}\n".encode())
    return False


def _scores(before: zoo.Score, after: zoo.Score, subject: Subject) -> Iterator[Line]:
    points = 100 * (after.accuracy - before.accuracy)
    yield Line("accuracy", f"{100 * before.accuracy:.2f} %", f"{100 * after.accuracy:.2f} %", f"{points:+.2f} points",
               points)
    if is_language(subject):
        part = after.perplexity / before.perplexity - 1
        yield Line("perplexity", f"{before.perplexity:.4f}", f"{after.perplexity:.4f}", f"{100 * part:+.2f} %", -part)


def is_language(subject: Subject) -> bool:
    """Whether each position of an input has an answer."""
    return subject.test is not None and subject.test[1].ndim > 1


def speedup(before: Measured, after: Measured) -> tuple[float, float, float]:
    """How many times faster: the median of the rounds' ratios, and where it lies with 95 % confidence."""
    return (after.timing.faster_than(before.timing), *interval(after.timing.ratios(before.timing)))


def _time(timing: Timing) -> str:
    low, high = (units.seconds(seconds).split() for seconds in timing.quartiles)
    return f"{units.seconds(timing.median)} ({low[0]}–{' '.join(high)})" if low[1] == high[1] else str(timing)


def _faster(ratio: float, low: float, high: float) -> str:
    if ratio >= 1:
        return f"{ratio:.2f}× faster ({low:.2f}–{high:.2f})"
    return f"{1 / ratio:.2f}× slower ({1 / high:.2f}–{1 / low:.2f})"


def _times(before: float, after: float) -> str:
    if not before or not after or 0.995 < after / before < 1.005:
        return units.change(before, after) or "="
    return f"{before / after:.2f}× less" if after < before else f"{after / before:.2f}× more"


def table(found: Sequence[Line], title: str) -> Table:
    """For the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", title_style="bold", header_style="bold",
                 pad_edge=False)
    made.add_column("", no_wrap=True)
    for name in ("before", "after", "change"):
        made.add_column(name, justify="right")
    for line in found:
        style = "green" if line.good > 0 else "red" if line.good < 0 else ""
        made.add_row(line.name, line.before, line.after, Text(line.change, style=style))
    return made


def as_json(subject: Subject, passes: str, variants: dict[str, Measured], history: History | None = None) -> str:
    """All figures; the ratio is of the first variant's times to each one's."""
    first = next(iter(variants.values()))
    found: dict[str, Any] = {"model": subject.name, "passes": passes, "batch": subject.batch,
                             "variants": {name: _figures(first, each) for name, each in variants.items()}}
    if history is not None:
        found["stages"] = [{"name": stage.name, "nodes": len(stage.graph.nodes),
                            "changes": changes(last.graph, stage.graph)} for last, stage in pairwise(history)]
    return json.dumps(found, indent=1)


def _figures(first: Measured, each: Measured) -> dict[str, Any]:
    ratio, low, high = speedup(first, each)
    quartiles = each.timing.quartiles
    score = {} if each.score is None else {**each.score._asdict(), "perplexity": each.score.perplexity}
    return {"parameter_bytes": each.size.parameters, "flops": each.size.flops, "nodes": each.size.nodes,
            "bytes_moved": each.work.bytes, "arena_bytes": each.work.arena, "launches": each.work.launches,
            "seconds": {"median": each.timing.median, "quartiles": quartiles, "rounds": len(each.timing.samples)},
            "speedup": {"median": ratio, "low": low, "high": high}, "difference": each.difference, **score}


def write_page(path: Path, title: str, found: Sequence[Line], history: History) -> Path:
    """The table and, stage by stage, the graph, with what each pass added, changed and took away."""
    rows = [(line.name, line.before, line.after, line.change) for line in found]
    whole = history[-1].graph.to_html(history=history)
    return report.report(path, title, [
        report.Section("Before and after", report.Table(("", "before", "after", "change"), rows)),
        report.Section("The graph", "Step through the passes with the arrow keys. Green is new, amber has changed, red "
                       "dashes go in the next step.", report.Page(whole, 900))])
