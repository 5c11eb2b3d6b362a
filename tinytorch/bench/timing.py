"""Time calls against each other, fairly: `paired({"ours": f, "theirs": g})`.

They take turns within one process, in a new order each round, so that a busy neighbour slows all of them; a figure is a
median with its quartiles, a ratio the median of the rounds' ratios with a confidence interval. Threads of one side may
spin for a while after their work is done: `settle` is the pause before each turn, after which the call runs once
untimed.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinytorch.look import units

BUSY = 0.75  # load of a core from which on times mean less
TURN = 2e-3  # seconds that a turn should last at least
ROUNDS = 9, 151  # at least, at most


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, once for each round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the rounds were faster."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the rounds were faster than the first, a quarter slower than the second."""
        if len(self.samples) < 2:
            return self.samples[0], self.samples[0]
        first, _, third = statistics.quantiles(self.samples, n=4, method="inclusive")
        return first, third

    def faster_than(self, other: Timing) -> float:
        """How many times faster than `other`: the median over the rounds."""
        return statistics.median(self.ratios(other))

    def ratios(self, other: Timing) -> list[float]:
        """How many times faster than `other`, round by round."""
        return [theirs / ours for ours, theirs in zip(self.samples, other.samples, strict=True)]

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{units.seconds(self.median)} ({units.seconds(low)} – {units.seconds(high)})"


def interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Where the median of what was sampled lies, with at least this confidence: two of the samples.

    No assumption about how they are distributed: the number of samples below the median is binomial, so the k-th from
    each end enclose it with probability 1 - 2 P(B(n, 1/2) < k) (Conover, "Practical nonparametric statistics", 3.2).
    Fewer than six samples allow no more than the whole range, at less confidence.
    """
    ordered, count = sorted(samples), len(samples)
    rank, below = 0, 0  # P(B < rank) = below / 2^count
    while 2 * (below + math.comb(count, rank)) <= (1 - confidence) * 2**count:
        below += math.comb(count, rank)
        rank += 1
    place = max(rank, 1) - 1
    return ordered[place], ordered[count - 1 - place]


def seconds_of(call: Callable[[], object], times: int = 1) -> float:
    """Mean seconds of a call over `times` in a row."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def paired(calls: Mapping[str, Callable[[], object]], seconds: float = 2.0, settle: float = 0.0,
           rounds: int | None = None) -> dict[str, Timing]:
    """Time these calls, turn by turn, each called at least twice before.

    Args:
        calls: what to time, by name.
        seconds: about how long to measure all together; `rounds` fixes the number of rounds instead.
        settle: seconds to wait before each turn.
    """
    times = {}
    for name, call in calls.items():
        seconds_of(call)
        times[name] = max(1, math.ceil(TURN / max(seconds_of(call), 1e-7)))
    turns = {name: seconds_of(call, times[name]) * times[name] + settle for name, call in calls.items()}
    count = rounds or min(max(int(seconds / sum(turns.values())), ROUNDS[0]), ROUNDS[1])
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(count):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            if settle:
                time.sleep(settle)
                calls[name]()
            found[name].append(seconds_of(calls[name], times[name]))
    return {name: Timing(tuple(samples)) for name, samples in found.items()}


def busy() -> str:
    """A sentence if other programs keep this machine busy, else nothing."""
    from tinytorch.runtime.pool import available_cores

    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, available_cores()
    if load <= BUSY * cores:
        return ""
    return (f"this machine is busy (load {load:.1f} on {cores} cores): times vary, most where threads wait for each "
            "other, as those of NumPy and PyTorch do")
