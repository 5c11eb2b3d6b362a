"""The measurements as one web page that needs no network: `write_page("bench.html", rows, settings, groups)`.

Facts of the machine, the ratios against every peer as a picture, the roofline with what was measured under it, and a
table for each group of workloads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinytorch.look import curves, units
from tinytorch.look import report as look
from tinytorch.look.curves import Ratio
from tinytorch.runtime import measure

from . import report
from .rows import Row, Settings
from .timing import Timing, interval

HEADER = ("measured", "ours", "peers", "figure (95 %)", "target", "reached", "what else")
Place = tuple[float, float]  # FLOPs a byte, GFLOP/s
NETWORKS = ("Training steps", "Inference")  # the groups that come first, and are named under the roofline


def write_page(path: Path, rows: Sequence[Row], settings: Settings, groups: Mapping[str, str]) -> Path:
    """Write the page, whole or not at all; `groups` says under which heading the rows of a workload stand."""
    with tempfile.TemporaryDirectory(prefix="tinytorch-bench-", dir=path.resolve().parent) as folder:
        pictures = _pictures(Path(folder), rows, settings, groups)
        sections = [_front(rows, settings), *pictures]
        for group in dict.fromkeys(groups[row.workload] for row in rows):
            table = look.Table(HEADER, [_cells(row) for row in rows if groups[row.workload] == group])
            sections.append(look.Section(group, table))
        sections += _first_calls(rows, settings)
        sections.append(look.Section("How it is measured", report.METHOD.replace("\n", " ").replace("`", "")))
        made = look.report(Path(folder) / path.name, "tinytorch against its peers", sections)
        os.replace(made, path)
    return path.resolve()


def _front(rows: Sequence[Row], settings: Settings) -> look.Section:
    found = report.environment(settings)
    large = {"": report.summary(rows), "threads": str(settings.threads), "peak": found["peak"]["all"],
             "memory": found["read"]["all"]}
    machine = look.Table(("", ""), list(report.facts(found).items()))
    return look.Section("The machine", look.Facts(large), machine)


def _cells(row: Row) -> tuple[str, ...]:
    case, _, _, figure, target, reached = report.cells(row)
    times = {name: timing.median for name, timing in row.peers.items() if isinstance(timing, Timing)}
    theirs = ", ".join(f"{name} {units.seconds(time)}" for name, time in times.items())
    ours = units.seconds(row.ours.median) if row.ours else ""
    return case, ours, theirs, figure, target, reached, report.remark(row)


def _first_calls(rows: Sequence[Row], settings: Settings) -> list[look.Section]:
    """What tracing and compiling take, of all sides."""
    told = [row for row in rows if row.first]
    names = list(dict.fromkeys(name for row in told for name in row.first))
    cells = [(case_of(row, settings), *(units.seconds(row.first[name]) if name in row.first else "" for name in names))
             for row in told]
    return [look.Section("First calls", "With kernels of ours in the cache on disk, where they were compiled before.",
                         look.Table(("", *names), cells))] if told else []


def _pictures(folder: Path, rows: Sequence[Row], settings: Settings, groups: Mapping[str, str]) -> list[look.Section]:
    made = []
    for title, networks in (("Networks: how many times as fast as each peer", True),
                            ("Operators and others: how many times as fast as each peer", False)):
        chosen = [row for row in rows if (groups[row.workload] in NETWORKS) is networks]
        if found := ratios(chosen, settings):
            targets = {case_of(row, settings): row.target.bound for row in reversed(chosen)
                       if row.target and row.target.unit == "×" and not row.target.at_most}
            picture = curves.ratio_bars(found, folder / f"ratios_{networks}.svg", targets=targets)
            made.append(look.Section(title, look.Image(picture, (
                "Bars begin at 1×: to the right ours is faster. Thin lines: 95 % confidence. Black marks: the target, "
                "where there are several the one against the fastest of PyTorch, torch.compile and JAX."))))
    series, labels = points(rows, groups, settings)
    if any(series.values()):
        picture = curves.roofline(series, folder / "roofline.svg", *_limits(settings), labels=labels)
        made.append(look.Section("Under the roofline", look.Image(picture, (
            "Each large point is a workload: FLOPs over the bytes that its launches read and write, and FLOPs over "
            "the time of a call. Small points are its slowest launches. What lies in caches may pass the line of "
            "memory."))))
    return made


def _limits(settings: Settings) -> tuple[float, dict[str, float]]:
    """Peak GFLOP/s, and GB/s of memory and cache, of so many threads."""
    machine = measure.machine()
    one = settings.threads == 1
    read, copied = (machine.read_gbytes_one, machine.copy_gbytes_one) if one else (
        machine.read_gbytes, machine.copy_gbytes)
    return machine.gflops_one if one else machine.gflops, {
        "memory": max(read, copied), "second-level cache": machine.cache_gbytes_one if one else machine.cache_gbytes}


def case_of(row: Row, settings: Settings) -> str:
    """The case, without whom it is held against, and without the threads if they are those of the whole run."""
    return row.case.split(", against")[0].removesuffix(f", {settings.with_threads}")


def ratios(rows: Sequence[Row], settings: Settings) -> dict[str, dict[str, Ratio]]:
    """By case, how many times as fast ours is as each peer that was measured."""
    found: dict[str, dict[str, Ratio]] = {}
    for row in rows:
        for name, theirs in row.peers.items():
            if isinstance(theirs, Timing) and row.ours is not None:
                ratio = Ratio(row.ours.faster_than(theirs), *interval(row.ours.ratios(theirs)))
                found.setdefault(case_of(row, settings), {})[name] = ratio
    return found


def points(rows: Sequence[Row], groups: Mapping[str, str],
           settings: Settings) -> tuple[dict[str, list[Place]], dict[Place, str]]:
    """Places under the roofline: those of the slowest launches, then of the workloads by group; and names for some."""
    series: dict[str, list[Place]] = {"launches": []}
    labels = {}
    for row in rows:
        if row.work is None or row.ours is None or not row.work.slowest:
            continue  # without kernels that were looked at, it is about something else
        series["launches"] += [(launch.flops / launch.bytes, launch.flops / launch.seconds / 1e9)
                               for launch in row.work.slowest if launch.flops and launch.bytes and launch.seconds]
        if row.work.flops and row.work.bytes:
            place = row.work.intensity, row.work.flops / row.ours.median / 1e9
            series.setdefault(groups[row.workload], []).append(place)
            if groups[row.workload] in NETWORKS:
                labels[place] = case_of(row, settings)
    return series, labels
