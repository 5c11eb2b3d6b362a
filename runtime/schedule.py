"""Which steps of a program may run side by side: `waves(steps)` puts them into groups that are started one by one.

    first, others = waves(footprints, early)
    others                          # [[0], [2, 1], [3]]: step 0; then 2 and 1, in any order or at once; then 3

A *footprint* says which bytes a step reads and writes, and about how long it takes. Of two steps that touch the same
byte, one of them writing, the later has to wait for the earlier; steps that are free of that, directly and through
others, may share a *wave*, which the pool runs as one launch (`pool.py`). So the updates of all parameters are one
launch, a product that gives a weight's gradient runs beside others, and what only one thread can do runs beside what
many can.

There are as few waves as the longest chain of steps is long. A step whose result is not needed soon waits for the last
wave that it may be in: the more steps share a wave, the better its work divides. Memory that is used again orders steps
too, so this is done with the places that a plan has given. In a wave, steps whose parts take longest come first
(Graham, "Bounds on multiprocessing timing anomalies", 1969): short parts then fill up what is left.

Times are estimated from counts alone, never measured, so a program is the same on every run.

    >>> from tinytorch.runtime.schedule import Footprint, Touch, waves
    >>> x, y = Touch(("input", 0), 0, 8), Touch(("arena", 0), 0, 8)
    >>> waves([Footprint((x,), (y,)), Footprint((x,), ()), Footprint((y,), ())])
    ([], [[0], [1, 2]])
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinytorch.ir import Cost

NS_PER_FLOP, NS_PER_TRANSCENDENTAL, NS_PER_BYTE = 0.005, 0.5, 0.025  # of one thread, about, with data in caches
WORTH_SHARING = 4_000  # nanoseconds of work below which a second thread, awake, brings no more than meeting it costs
WORTH_WAKING = 100_000  # nanoseconds of work to be shared below which a thread that sleeps comes too late to help


@dataclass(frozen=True, slots=True)
class Touch:
    """Bytes `start` to `stop` of a block of memory: the arena, an input, a result, …"""

    block: tuple[str, int]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a step reads and writes, how long one thread needs for it (nanoseconds), and into how many parts it is cut.

    A step reads a byte before it writes it, so both may be the same.
    """

    reads: tuple[Touch, ...]
    writes: tuple[Touch, ...]
    time: float = 0.0
    chunks: int = 1


def estimated_time(cost: Cost) -> float:
    """Nanoseconds that one thread may need, from what is to be done alone."""
    return NS_PER_FLOP * cost.flops + NS_PER_TRANSCENDENTAL * cost.transcendentals + NS_PER_BYTE * cost.bytes


def is_shared(steps: Iterable[Footprint]) -> bool:
    """Whether a wave of these steps is worth a second thread."""
    found = list(steps)
    return sum(step.chunks for step in found) > 1 and sum(step.time for step in found) >= WORTH_SHARING


Waves = list[list[int]]


def waves(steps: Sequence[Footprint], early: Collection[int] = ()) -> tuple[Waves, Waves]:
    """The numbers of the steps in groups: any order within a group, and one group after the other, means the same.

    Args:
        steps: in an order that is right.
        early: steps that must run before all others, but for those that they have to wait for.
    Returns:
        The waves of the early steps and of those they wait for; the waves of all others, which come after.
    """
    before = hazards(steps)
    wanted = _with_all_before(early, before)
    rest = [step for step in range(len(steps)) if step not in wanted]
    return _levels(sorted(wanted), before, steps), _levels(rest, before, steps)


def hazards(steps: Sequence[Footprint]) -> list[list[int]]:
    """For each step the earlier ones that it must wait for: it reads what they write, or writes what they touch."""
    blocks: dict[tuple[str, int], int] = {}
    for step in steps:
        for touch in (*step.reads, *step.writes):
            blocks[touch.block] = max(blocks.get(touch.block, 0), touch.stop)
    base, end = {}, 0  # all blocks in one line of addresses
    for block, size in blocks.items():
        base[block], end = end, end + size
    rows = [(number, base[t.block] + t.start, base[t.block] + t.stop, writes)
            for number, step in enumerate(steps)
            for writes, touches in ((False, step.reads), (True, step.writes)) for t in touches if t.start < t.stop]
    table = np.array(rows, np.int64).reshape(-1, 4)
    owner, start, stop, writes = table.T
    found: list[set[int]] = [set() for _ in steps]
    for at, (number, first, last, write) in enumerate(rows):
        clash = (start[:at] < last) & (stop[:at] > first)
        if not write:
            clash &= writes[:at] != 0
        found[number].update(owner[:at][clash].tolist())
    return [sorted(others - {number}) for number, others in enumerate(found)]


def _with_all_before(some: Collection[int], before: Sequence[Sequence[int]]) -> set[int]:
    """These steps, those that they wait for, those that these wait for, and so on."""
    found: set[int] = set()
    waiting = list(some)
    while waiting:
        step = waiting.pop()
        if step not in found:
            found.add(step)
            waiting += before[step]
    return found


def _levels(chosen: Sequence[int], before: Sequence[Sequence[int]], steps: Sequence[Footprint]) -> Waves:
    """The chosen steps, each in the last wave that leaves the number of waves as small as it can be."""
    height = dict.fromkeys(chosen, 0)  # how many waves must come after a step
    for step in reversed(chosen):
        for other in before[step]:
            if other in height:
                height[other] = max(height[other], height[step] + 1)
    found: list[list[int]] = [[] for _ in range(max(height.values(), default=-1) + 1)]
    for step in chosen:
        found[-1 - height[step]].append(step)
    for wave in found:
        wave.sort(key=lambda number: -steps[number].time / steps[number].chunks)  # stable: else as they came
    return found
