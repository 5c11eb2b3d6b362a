"""What one call of a compiled function does: `count(fast)` gives launches, kernels, FLOPs, bytes and planned memory.

These are the same in every run, so tests assert them. `inspect(fast)` also measures, launch by launch, and gives the
least time that the roofline of this machine allows (see `tinytorch.explain`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinytorch.compile import Compiled
from tinytorch.ir import graph_cost
from tinytorch.look import units

SLOWEST = 5  # launches that are told of


@dataclass(frozen=True)
class Launch:
    """One launch: a point in the roofline picture."""

    name: str
    flops: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Work:
    """What one call does.

    Attributes:
        launches, kernels: of the program; kernels that run twice count once.
        flops: and bytes that are read and written, of the graph that runs; copies at its end not counted.
        arena: bytes planned for intermediates; scratch: of the threads.
        items, unit: what throughput counts: images, tokens, or FLOP (all of them if `items` is 0).
        limit: seconds that the roofline allows at least, all launches together; None where it was not measured.
        slowest: the launches that take longest.
    """

    launches: int
    kernels: int
    flops: int
    bytes: int
    arena: int
    scratch: int
    items: int = 0
    unit: str = "FLOP"
    limit: float | None = None
    slowest: tuple[Launch, ...] = ()

    def throughput(self, seconds: float) -> tuple[float, str]:
        """How many a second, and what."""
        return (self.items or self.flops) / seconds, self.unit

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else 0.0


def rate(throughput: tuple[float, str]) -> str:
    """`12,345 images/s`, `5.4 G elements/s`, `98.9 GFLOP/s`."""
    number, unit = throughput
    if unit == "FLOP":
        return units.rate(number)
    return f"{number:,.0f} {unit}/s" if number < 1e6 else f"{units.count(number)} {unit}/s"


def count(fast: Compiled, items: int = 0, unit: str = "FLOP") -> Work:
    """The counts of the latest kind of call; nothing is run."""
    program = fast.program
    cost = graph_cost(fast.graph)
    return Work(len(program.steps), len(fast.kernels), cost.flops, cost.bytes, program.arena_bytes,
                program.scratch_bytes, items, unit)


def inspect(fast: Compiled, items: int = 0, unit: str = "FLOP", repeats: int = 5) -> Work:
    """`count`, and each launch measured on copies."""
    why = fast.explain(repeats)
    limits = [row.limit for row in why.rows]
    known = [limit for limit in limits if limit is not None]
    launches = [Launch(", ".join(row.ops), row.cost.flops, row.cost.bytes, row.seconds) for row in why.rows]
    slowest = sorted(launches, key=lambda launch: -launch.seconds)[:SLOWEST]
    return replace(count(fast, items, unit), limit=sum(known) if len(known) == len(limits) else None,
                   slowest=tuple(slowest))
