"""What each kernel of a compiled function holds and costs, measured: `fast.explain()`.

    fast = tt.compile(model); fast(x)
    why = fast.explain()
    why.print()                                     # a table, slowest kernel first
    why.rows[0].ops, why.rows[0].seconds            # the same as data
    why.to_html("why.html")                         # with the graph, its history and each kernel's source

Each launch is timed by the clock of the loop that runs programs, over repeated calls on *copies* of everything the
program reads: parameters, optimiser state and the random generator stay as they are. Launches that else run side by
side, in one *wave*, are timed one by one, so a call may take less than all of them together. The distance from the
roofline (Williams, Waterman, Patterson, 2009) is the least time that this machine's arithmetic peak and memory
bandwidth allow, over the time it took. What fits into the second-level caches is held against their bandwidth, all else
against that of memory, so a kernel whose operands lie in a third-level cache can pass 100 %.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.ir import Cost, Node, node_cost
from tinytorch.ir.drawing import is_scalar_constant
from tinytorch.ir.page import KernelRow, write_page
from tinytorch.look import terminal, units
from tinytorch.passes import History

from .tensor import Tensor

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from tinytorch.runtime.measure import Machine

    from .compile import Compiled
    from .entry import Entry

WARM_UP = 3
NARROW = ((110, ("holds", "bytes", "bandwidth")), (138, ("holds",)))  # columns to leave out where a line is shorter


@dataclass(frozen=True)
class LaunchRow:
    """One launch of a program.

    Attributes:
        kernel, path, source: the kernel's name, its file, its text.
        ops: the operations it holds, in order; lines: the user's lines they come from.
        cost: FLOPs, transcendentals and bytes; a node of several launches is shared among them by their time.
        chunks: into how many parts it is cut for threads.
        wave: the number of the group of launches that are started together, from 0.
        seconds: median time of the launch; limit: the least that the machine's roofline allows, if it was measured.
    """

    kernel: str
    path: Path
    source: str
    ops: tuple[str, ...]
    lines: tuple[str, ...]
    cost: Cost
    chunks: int
    wave: int
    seconds: float
    limit: float | None

    @property
    def gflops(self) -> float:
        """10⁹ floating point operations a second."""
        return self.cost.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """10⁹ bytes a second."""
        return self.cost.bytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def roofline(self) -> float | None:
        """The fraction of what the machine could reach, if it was measured."""
        return None if self.limit is None or not self.seconds else self.limit / self.seconds

    def row(self) -> KernelRow:
        """As tables and pages show it."""
        return KernelRow(self.kernel, ", ".join(self.ops), self.cost.flops, self.cost.bytes, self.seconds,
                         self.roofline, self.source)


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; print it, or look at `rows`, one for each launch in the order in which they run.

    Attributes:
        call: median seconds of a whole call of the program, from Python.
        machine: the limits it is compared with; None where kernels are run as Python.
        prepared: what is computed only when parameters change (`Compiled.preparation`).
    """

    name: str
    rows: tuple[LaunchRow, ...]
    call: float
    threads: int
    repeats: int
    machine: Machine | None
    history: History
    prepared: str = ""

    @property
    def seconds(self) -> float:
        """All launches together, one after the other."""
        return sum(row.seconds for row in self.rows)

    @property
    def waves(self) -> int:
        """In how many groups the launches are started."""
        return len({row.wave for row in self.rows})

    @property
    def cost(self) -> Cost:
        """All launches together."""
        return sum((row.cost for row in self.rows), Cost())

    def kernel_rows(self) -> list[KernelRow]:
        """The rows for `look.terminal.kernels_table` and `ir.page.page`."""
        return [row.row() for row in self.rows]

    def summary(self) -> str:
        """What a call costs, what is prepared for it, and what the machine could do: a line each."""
        cost, rate = self.cost, units.rate(self.cost.flops / self.seconds if self.seconds else 0.0)
        text = (f"{self.name}: {len(self.rows)} launches of {len({row.path for row in self.rows})} kernels in "
                f"{_plural(self.waves, 'wave')}: {units.seconds(self.seconds)} one by one, a call "
                f"{units.seconds(self.call)}; {units.flops(cost.flops)}, "
                f"{units.count(cost.transcendentals)} transcendentals, {units.nbytes(cost.bytes)}; {rate}")
        text += f"\nnot in a call: {self.prepared}" if self.prepared else ""
        if self.machine is None:
            return f"{text}\nno roofline: kernels are not compiled"
        (peak, cache), (_, memory) = (_limits(self.machine, self.threads, size) for size in (0, 1 << 62))
        return (f"{text}\nroofline of this machine, {_plural(self.threads, 'thread')}: {units.rate(peak)}, "
                f"{units.bandwidth(memory)} from memory, {units.bandwidth(cache)} from the second-level cache; "
                f"medians of {_plural(self.repeats, 'call')}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.table import Table
        from rich.text import Text

        dropped = next((names for width, names in NARROW if options.max_width < width), ())
        length = min(max(options.max_width - 54, 12), 34)
        table = terminal.kernels_table([replace(row, name=_shorten(row.name, length)) for row in self.kernel_rows()])
        kept = Table(*(column for column in table.columns if column.header not in dropped), box=table.box,
                     header_style=table.header_style, pad_edge=False, padding=table.padding)
        kept.rows = table.rows
        yield kept
        yield Text(self.summary(), style="dim")

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=160, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def print(self) -> None:
        """The table, in the terminal."""
        from rich.console import Console

        Console().print(self)

    def to_html(self, path: str | Path | None = None) -> str:
        """A page to step through the stages of the graph, with the kernels and their source; also written to `path`."""
        return write_page(path, self.history, self.name, self.kernel_rows())


def explain(compiled: Compiled, repeats: int = 20) -> Explanation:
    """Measure the program of the latest kind of call of a compiled function, launch by launch.

    Args:
        repeats: how many calls to take medians over.
    Raises:
        TracingError: the function has not been called yet.
        ValueError: `repeats` is less than 1.
    """
    if repeats < 1:
        raise ValueError(f"explain(repeats={repeats}): expected at least 1 call to measure")
    program, entry = compiled.program, compiled._entry()
    times, call = _measure(program, copies_of(entry), repeats)
    machine = _machine()
    of_node: dict[Node | None, float] = {}
    for step, seconds in zip(program.steps, times, strict=True):
        of_node[step.node] = of_node.get(step.node, 0.0) + seconds
    wave_of = [number for number, wave in enumerate(program.waves) for _ in wave]
    rows = []
    for step, seconds, wave in zip(program.steps, times, wave_of, strict=True):
        share = seconds / of_node[step.node] if of_node[step.node] else 1.0
        cost = _scaled(node_cost(step.node), share) if step.node else Cost()
        limit = _least_seconds(cost, machine, program.threads)
        inside = _inside(step.node)
        names = tuple(n.op.name for n in inside) or ("copy",)
        lines = tuple(dict.fromkeys(f"{n.source}  {n.source.text}".rstrip() for n in inside if n.source))
        rows.append(LaunchRow(step.kernel.name, step.kernel.path, step.launch.source.text, names, lines, cost,
                              step.launch.chunks, wave, seconds, limit))
    return Explanation(compiled.__name__, tuple(rows), call, program.threads, repeats, machine, entry.history,
                       entry.preparation.summary() if entry.preparation is not None else "")


def copies_of(entry: Entry) -> list[np.ndarray]:
    """Arrays to run the program on: copies of what it is bound to, and made-up numbers for what callers give."""
    graph, random = entry.program.graph, np.random.default_rng(0)
    count = len(entry.args)
    arrays = []
    for value in graph.inputs[:count]:
        numbers = random.standard_normal(value.shape) if value.dtype.is_float else np.zeros(value.shape)
        arrays.append(np.ascontiguousarray(numbers, value.dtype.np))
    for value, owner in zip(graph.inputs[count:], entry.owners, strict=True):
        thing = getattr(owner.owner, "grad", None) if hasattr(owner, "owner") else owner
        payload = thing.payload if isinstance(thing, Tensor) else thing
        arrays.append(np.zeros(value.shape, value.dtype.np) if payload is None else np.array(payload, order="C"))
    return arrays


def _measure(program: Any, arrays: list[np.ndarray], repeats: int) -> tuple[list[float], float]:
    """Median seconds of each step, and of the whole call without the clocks."""
    addresses = [a.__array_interface__["data"][0] for a in arrays]
    table = np.zeros((repeats, max(len(program.steps), 1)), np.int64)
    for _ in range(WARM_UP):
        program.run(arrays, addresses)
    calls = []
    for row in table:
        program.run(arrays, addresses, row.ctypes.data)
        start = time.perf_counter()
        program.run(arrays, addresses)
        calls.append(time.perf_counter() - start)
    medians = np.median(table, axis=0)[:len(program.steps)] * 1e-9
    return medians.tolist(), statistics.median(calls)


def _machine() -> Machine | None:
    from tinytorch.runtime import build, measure

    return None if build.interpreted() else measure.machine()


def _limits(m: Machine, threads: int, nbytes: int) -> tuple[float, float]:
    """FLOPs and bytes a second that so many threads can reach: the best measured, of caches for what fits into them."""
    peak, memory, cache = m.gflops_one, max(m.read_gbytes_one, m.copy_gbytes_one), m.cache_gbytes_one
    if threads > 1:
        peak, memory, cache = max(peak, m.gflops), max(memory, m.read_gbytes, m.copy_gbytes), max(cache, m.cache_gbytes)
    fits = nbytes <= threads * m.caches[1] if len(m.caches) > 1 else nbytes == 0  # where `cache_gbytes` was measured
    return peak * 1e9, (max(memory, cache) if fits else memory) * 1e9


def _least_seconds(cost: Cost, machine: Machine | None, threads: int) -> float | None:
    """max(FLOPs / peak, bytes / bandwidth)."""
    if machine is None:
        return None
    peak, memory = _limits(machine, threads, cost.bytes)
    return max(cost.flops / peak, cost.bytes / memory)


def _scaled(cost: Cost, share: float) -> Cost:
    if share == 1.0:
        return cost
    counts = (cost.flops, cost.transcendentals, cost.bytes_read, cost.bytes_written)
    return Cost(*(round(count * share) for count in counts))


def _inside(node: Node | None) -> tuple[Node, ...]:
    """The operations of a launch; numbers that stand in the code of others left out."""
    if node is None:
        return ()
    return tuple(n for n in node.body.nodes if not is_scalar_constant(n)) if node.body is not None else (node,)


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= length else name[:length - 1] + "…"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")
