"""Rows of measurements as a table in the terminal, as JSON, and as docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinytorch.look import units
from tinytorch.runtime import build, measure, pool

from . import peers
from .rows import Row, Settings, shown

if TYPE_CHECKING:
    from rich.table import Table

MARK = {True: "yes", False: "no", None: "–"}
HEADER = ("| measured | ours | others | figure | target | reached | |",
          "| --- | --- | --- | ---: | ---: | --- | --- |")


def cells(row: Row) -> tuple[str, str, str, str, str, str]:
    """Case, ours, peers, figure, target, reached."""
    theirs = "; ".join(f"{name} {timing}" for name, timing in row.peers.items())
    figure = shown(row.figure, row.unit) if row.figure is not None else "–"
    reached = MARK[row.reached] if row.target else ""
    return row.case, str(row.ours or ""), theirs, figure, str(row.target or ""), reached


def table(rows: Sequence[Row]) -> Table:
    """For the terminal: each row, its note under it."""
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
        case, ours, theirs, figure, target, reached = cells(row)
        times = "\n".join(filter(None, (f"ours {ours}" if ours else "", theirs.replace("; ", "\n"))))
        colour = {True: "green", False: "bold red", None: "yellow"}[row.reached] if row.target else ""
        what = Text(case).append(f"\n{row.note}" if row.note else "", "dim")
        made.add_row(what, Text(times, "dim"), Text(figure, colour), target, Text(reached, colour))
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
        "packages": {name: peers.version(name) for name in ("numpy", "numba", "torch", "jax", "threadpoolctl")},
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "date": time.strftime("%Y-%m-%d"), "quick": settings.quick,
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

Both sides run in one process and take turns, in a new order each round, with as many threads; before each turn there is
a pause until the other side's threads sleep, and an untimed call. A time is the median of the rounds with its
quartiles, a ratio the median of the rounds' ratios, so a neighbour's load slows both sides; above 1× ours is faster.
Threads: ours by `TINYTORCH_THREADS`, PyTorch's by `torch.set_num_threads`, NumPy's BLAS by threadpoolctl; JAX has no
such setting and takes the cores of the process. All sides compute the same numbers from the same start, which is
checked first. torch.compile compiles loss and optimiser. A load average well above zero before the run means
neighbours, whose threads hurt those most that wait by spinning.
{tables}
"""


def markdown(rows: Sequence[Row], settings: Settings, about: dict[str, str]) -> str:
    """docs/benchmarks.md."""
    found = environment(settings)
    peak, read = found["peak"], found["read"]
    packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in found["packages"].items())
    facts = {
        "processor": f"{found['processor']}, {found['cores']} cores for this process, "
                     f"{found['vector_bits']} bit vectors",
        "caches": ", ".join(found["caches"]) or "unknown",
        "f32 multiply-add peak, measured": f"{peak['one thread']} on one thread, {peak['all']} on all",
        "memory read, measured": f"{read['one thread']} on one thread, {read['all']} on all",
        "system": f"{found['platform']}, Python {found['python']}", "packages": packages,
        "threads": str(found["threads"]), "load average": f"{found['load']} at the end of the run",
        "date": found["date"],
    }
    lines: list[str] = []
    for name in dict.fromkeys(row.workload for row in rows):
        lines += ["", f"## {name}", "", f"{about[name][0].upper()}{about[name][1:]}.", "", *HEADER]
        lines += [f"| {' | '.join((*cells(row), row.note))} |" for row in rows if row.workload == name]
    machine = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    reached = summary(rows) + (" (a quick run)" if settings.quick else "")
    return PAGE.format(summary=reached, machine=machine, tables="\n".join(lines))
