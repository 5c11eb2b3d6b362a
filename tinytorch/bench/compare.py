"""`tt.bench(fn, *examples)`: eager against compiled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinytorch.compile import Compiled, compile
from tinytorch.look import units

from .timing import Timing, busy, paired


@dataclass(frozen=True)
class Result:
    """What `bench` measured.

    Attributes:
        eager, compiled: seconds of a call, round by round.
        first: seconds of the first compiled call, and `parts` of it: trace, passes, kernels.
        note: a warning, if the machine is busy.
        built: kernels that the first call had to compile; others were found on disk or in memory.
    """

    name: str
    eager: Timing
    compiled: Timing
    first: float
    parts: dict[str, float]
    launches: int
    built: int
    threads: int
    note: str = ""

    @property
    def speedup(self) -> float:
        """How many times faster than eager the compiled function is: the median over the rounds."""
        return self.compiled.faster_than(self.eager)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {units.seconds(seconds)}" for name, seconds in self.parts.items())
        return (f"{self.name}: eager {self.eager}, compiled {self.compiled}, {self.speedup:.1f} times as fast\n"
                f"first call {units.seconds(self.first)} ({parts}); {self.launches} launches, {self.built} kernels "
                f"compiled for it; {len(self.eager.samples)} rounds, {self.threads} threads"
                + (f"\n{self.note}" if self.note else ""))

    def to_json(self) -> str:
        """The figures as JSON text, all in seconds."""
        data: dict[str, Any] = {"name": self.name, "speedup": self.speedup, "first": self.first, "parts": self.parts,
                                "launches": self.launches, "built": self.built, "threads": self.threads}
        for name, timing in (("eager", self.eager), ("compiled", self.compiled)):
            data[name] = {"median": timing.median, "quartiles": timing.quartiles, "rounds": len(timing.samples)}
        return json.dumps(data, indent=1)

    def print(self) -> None:
        """A line for each way, in the terminal."""
        from rich.console import Console

        Console().print(str(self), markup=False, highlight=False, soft_wrap=True)


def bench(target: Callable[..., Any], *examples: Any, repeats: int | None = None, seconds: float = 1.0) -> Result:
    """Time a function eager and compiled, in turns. It is really called: a training step trains.

    Args:
        target: a function, module, training step, or what `tt.compile` made of one.
        examples: its arguments.
        repeats: rounds to measure; by default as many as fit into about `seconds`.

    >>> import tinytorch as tt
    >>> result = tt.bench(lambda x: (x * 2).exp().sum(), tt.ones(1000), repeats=3)
    >>> len(result.eager.samples), result.launches
    (3, 1)
    """
    from tinytorch.runtime import build

    given = target if isinstance(target, Compiled) else compile(target)
    fast = Compiled(given.function, given.pipeline, given.static, given.threads)
    before, start = build.stats(), time.perf_counter()
    fast(*examples)
    first = time.perf_counter() - start
    built = build.stats().compiled - before.compiled
    calls = {"eager": lambda: fast.function(*examples), "compiled": lambda: fast(*examples)}
    found = paired(calls, seconds, rounds=repeats)
    return Result(fast.__name__, found["eager"], found["compiled"], first, fast.seconds, len(fast.program.steps), built,
                  fast.program.threads, busy())
