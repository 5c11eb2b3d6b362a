"""The loops in which a kernel folds: rows and columns part by part, so that sums are chains of few terms.

The error of a sum grows with the number of terms that are added one after the other. So `PART` terms of a row, or
`PART_ROWS` rows of columns, are folded on their own, and what they give is joined in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROWS, SHORT = 8, 8  # rows that a fold of columns takes at a time if the text of a step has no more than so many lines
PART, PART_ROWS = 512, 128

Loop = tuple[str, str]  # the name of its counter, and of its extent


def fold_rows(loops: Sequence[Loop], begin: list[str], step: list[str], join: list[str]) -> list[str]:
    """`step` within these loops, the innermost one in parts, around each of which `begin` and `join` stand."""
    *outer, (counter, extent) = loops
    lines = [f"for part in range(0, {extent}, {PART}):",
             *indent([*begin, f"for {counter} in range(part, min(part + {PART}, {extent})):", *indent(step), *join])]
    return within(outer, lines)


@dataclass(frozen=True)
class ColumnFold:
    """The lines of a fold, for one column of a block.

    Attributes:
        begin: before a part of the rows; join: after it.
        load, store: what the part is so far, around a step.
        afresh, add: around several steps at a time, which are folded on their own.
    """

    begin: list[str]
    load: list[str]
    afresh: list[str]
    add: list[str]
    store: list[str]
    join: list[str]


def fold_columns(loops: Sequence[Loop], step: list[str], fold: ColumnFold) -> list[str]:
    """`step` within these loops and those over the columns of a block; short steps take several rows at a time."""
    *outer, (row, extent) = loops
    one = columns([*fold.load, *step, *fold.store])
    lines = [f"for {row} in range(part, stop):", *indent(one)]
    if len(step) <= SHORT:
        several = [line for k in range(ROWS) for line in (f"{row} = first_row + {k}", *step)]
        lines = [f"for first_row in range(part, stop - {ROWS - 1}, {ROWS}):",
                 *indent(columns([*fold.afresh, *several, *fold.add, *fold.store])),
                 f"for {row} in range(stop - (stop - part) % {ROWS}, stop):", *indent(one)]
    parts = [f"for part in range(0, {extent}, {PART_ROWS}):",
             *indent([f"stop = min(part + {PART_ROWS}, {extent})", *columns(fold.begin), *lines,
                      *columns(fold.join)])]
    return within(outer, parts)


def within(loops: Sequence[Loop], lines: list[str]) -> list[str]:
    """These lines inside loops."""
    for counter, extent in reversed(loops):
        lines = [f"for {counter} in range({extent}):", *indent(lines)]
    return lines


def columns(lines: list[str]) -> list[str]:
    """These lines for each column of a block."""
    return ["for j in range(width):", *indent(lines)] if lines else []


def indent(lines: Sequence[str]) -> list[str]:
    """One level deeper."""
    return ["    " + line for line in lines]
