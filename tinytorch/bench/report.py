"""Rows of measurements as a table in the terminal, as JSON, and as docs/benchmarks.md; as a web page: `page`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinytorch.look import units
from tinytorch.runtime import build, measure, pool

from . import peers
from .rows import Row, Settings, shown
from .work import rate

if TYPE_CHECKING:
    from rich.table import Table

MARK = {True: "yes", False: "no", None: "–"}
HEADER = ("| measured | ours | others | figure | target | reached | |",
          "| --- | --- | --- | ---: | ---: | --- | --- |")


def cells(row: Row) -> tuple[str, str, str, str, str, str]:
    """Case, ours, peers, figure, target, reached."""
    theirs = "; ".join(f"{name} {timing}" for name, timing in row.peers.items())
    reached = MARK[row.reached] if row.target else ""
    return row.case, str(row.ours or ""), theirs, figure(row), str(row.target or ""), reached


def figure(row: Row) -> str:
    """The figure with its confidence interval."""
    if row.figure is None:
        return "–"
    if row.interval is None:
        return shown(row.figure, row.unit)
    low, high = (shown(bound, row.unit).rstrip(" %×") for bound in row.interval)
    return f"{shown(row.figure, row.unit)} ({low} – {high})"


def remark(row: Row) -> str:
    """The note, the throughput, how near the roofline it is, launches, and bytes planned beside operands."""
    parts = [row.note, rate(row.throughput) if row.throughput else "",
             f"{units.percent(row.roofline)} of the roofline" if row.roofline else ""]
    if row.work:
        launches = f"{row.work.launches} launch{'es' if row.work.launches != 1 else ''}"
        parts.append(f"{launches}, {units.nbytes(row.work.arena + row.work.scratch)} planned")
    return "; ".join(part for part in parts if part)


def table(rows: Sequence[Row]) -> Table:
    """For the terminal: each row, its note under it, and under the figure where it lies with 95 % confidence."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    made.add_column("measured", ratio=3)
    made.add_column("times: median (quartiles)", ratio=3)
    for name in ("figure", "target", "reached"):
        made.add_column(name, justify="right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or before.workload != row.workload:
            made.add_section()
        case, ours, theirs, number, target, reached = cells(row)
        times = "\n".join(filter(None, (f"ours {ours}" if ours else "", theirs.replace("; ", "\n"))))
        colour = {True: "green", False: "bold red", None: "yellow"}[row.reached] if row.target else ""
        number, _, within = number.partition(" (")
        what = Text(case).append(f"\n{remark(row)}" if remark(row) else "", "dim")
        found = Text(number, colour).append(f"\n{within.rstrip(')')}" if within else "", "dim")
        made.add_row(what, Text(times, "dim"), found, target, Text(reached, colour))
    return made


def summary(rows: Sequence[Row]) -> str:
    """How many targets are reached."""
    with_target = [row for row in rows if row.target]
    unknown = sum(row.reached is None for row in with_target)
    text = f"{sum(row.reached is True for row in with_target)} of {len(with_target)} targets reached"
    return f"{text}, {unknown} not measured" if unknown else text


def environment(settings: Settings) -> dict[str, Any]:
    """What the figures depend on."""
    machine = measure.machine()
    return {
        "processor": machine.cpu, "cores": pool.available_cores(), "threads": settings.threads,
        "vector_bits": build.vector_bits(), "caches": [units.nbytes(size) for size in machine.caches],
        "peak": {"one thread": units.rate(machine.gflops_one * 1e9), "all": units.rate(machine.gflops * 1e9)},
        "read": {"one thread": units.bandwidth(machine.read_gbytes_one * 1e9),
                 "all": units.bandwidth(machine.read_gbytes * 1e9)},
        "platform": platform.platform(), "python": platform.python_version(),
        "packages": {name: peers.version(name) for name in peers.PACKAGES},
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "date": time.strftime("%Y-%m-%d"), "quick": settings.quick,
    }


def facts(found: Mapping[str, Any]) -> dict[str, str]:
    """The environment as people read it."""
    peak, read = found["peak"], found["read"]
    packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in found["packages"].items())
    return {
        "processor": f"{found['processor']}, {found['cores']} cores for this process, "
                     f"{found['vector_bits']} bit vectors",
        "caches": ", ".join(found["caches"]) or "unknown",
        "f32 multiply-add peak, measured": f"{peak['one thread']} on one thread, {peak['all']} on all",
        "memory read, measured": f"{read['one thread']} on one thread, {read['all']} on all",
        "system": f"{found['platform']}, Python {found['python']}", "packages": packages,
        "threads": str(found["threads"]), "load average": f"{found['load']} at the end of the run",
        "date": found["date"],
    }


def to_json(rows: Sequence[Row], settings: Settings) -> str:
    """Environment and rows."""
    return json.dumps({"environment": environment(settings), "rows": [row.data() for row in rows]}, indent=1)


PAGE = """\
# Benchmarks

Written by `tito bench --write`; do not edit. {summary}.

## The machine

| | |
| --- | --- |
{machine}

## How it is measured

{method}
{tables}
"""
METHOD = """\
All sides run in one process and take turns, in a new order each round, with as many threads; before each turn there is
a pause until the other side's threads sleep, and an untimed call. A time is the median of the rounds with its
quartiles, a ratio the median of the rounds' ratios, so a neighbour's load slows both sides; in brackets stands where
that median lies with 95 % confidence, by order statistics. Above 1× ours is faster. Against several peers means against
the fastest of them. Threads: ours by `TINYTORCH_THREADS`, PyTorch's by `torch.set_num_threads`, ONNX Runtime's by its
session, NumPy's BLAS by threadpoolctl; JAX has no such setting and takes the cores of the process. All sides compute
the same numbers from the same weights, which is checked first. torch.compile compiles loss and optimiser. The share of
the roofline (Williams et al., 2009) is the least time that the measured peak and bandwidth allow for each launch, all
together, over the time of the call. FLOPs of convolutions are those of the direct method, so Winograd's may pass the
peak. A load average well above zero before the run means neighbours, whose threads hurt those most that wait by
spinning."""


def markdown(rows: Sequence[Row], settings: Settings, about: dict[str, str]) -> str:
    """docs/benchmarks.md."""
    lines: list[str] = []
    for name in dict.fromkeys(row.workload for row in rows):
        lines += ["", f"## {name}", "", f"{about[name][0].upper()}{about[name][1:]}.", "", *HEADER]
        lines += [f"| {' | '.join((*cells(row), remark(row)))} |" for row in rows if row.workload == name]
    machine = "\n".join(f"| {key} | {value} |" for key, value in facts(environment(settings)).items())
    reached = summary(rows) + (" (a quick run)" if settings.quick else "")
    return PAGE.format(summary=reached, machine=machine, method=METHOD, tables="\n".join(lines))
