"""The loops of a kernel: those of its domain, merged where every operand walks two as one, and each operand's element.

There are four styles of walking a nest:

    points     nothing is folded. A work item is a point of the outer loops, and walks the innermost (two of them if
               there are many); if all is one loop, an item is an element
    tiles      nothing is folded, and some operand lies the other way round: what is innermost for the result has steps
               there, and another loop does not. An item is a tile of these two loops; such operands are turned, a tile
               at a time, in scratch memory that stays in the first-level cache
    rows       what is folded is innermost. An item walks its row, once for each stage
    columns    what is folded lies further out. An item is a block of 32 to 512 columns, and walks down, with a scratch
               row for each fold
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinytorch.ir import Graph, Kind, Value
from tinytorch.ir.domain import Domain
from tinytorch.ir.errors import CompileError
from tinytorch.ir.types import row_major_strides

from .launch import ArgumentTable, Ref

COLUMN_BLOCKS = (512, 256, 128, 64, 32)  # columns that one work item folds at a time: the most that leave ENOUGH items
ENOUGH = 8
TILE = 64  # elements along each side of a tile
TURNED_SIZES = (4, 8)  # bytes of the elements that can be turned
LEAST_TURNED = 8  # shorter loops are not worth a tile
SCRATCH_SCOPE = 48  # scopes from here on are those of scratch rows
MOST_PLACES = SCRATCH_SCOPE

Key = Value | tuple[str, Value]


@dataclass(eq=False)
class Place:
    """Something with an element for each point of the domain: an operand, a result, a scratch row, or a counter."""

    name: str
    strides: list[int]  # elements, for each merged loop; 0 where it does not vary
    scope: int = 0


class Nest:
    """The merged loops of `body`, how they are walked, and the places that are read and written.

    Attributes:
        extents: of the merged loops, from the outermost to the innermost.
        reduced, items: numbers of the loops that are folded, and of those that a work item is a point of.
        walk: numbers of the loops that an item walks (in style "columns" besides `column`).
        places: by value for inputs, by ("out", value) for results, by ("count", value) for counters.
    """

    def __init__(self, body: Graph, domain: Domain, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int],
                 out_strides: tuple[int, ...] | None) -> None:
        self.body, self.domain = body, domain
        if len(body.inputs) + len(body.outputs) > MOST_PLACES:
            raise CompileError(f"{body.name}: more than {MOST_PLACES} operands and results in one kernel")
        places = self._places(strides, out_strides)
        runs = _merge(domain, [strides for _, strides in places.values()])
        self.extents = [math.prod(domain.extents[loop] for loop in run) for run in runs]
        self.run_of = {loop: k for k, run in enumerate(runs) for loop in run}
        self.places = {key: Place(name, [strides[run[-1]] for run in runs]) for key, (name, strides) in places.items()}
        for number, value in enumerate(body.inputs):
            self.places[value].scope = number
        for number, value in enumerate(body.outputs):
            self.places["out", value].scope = len(body.inputs) + number
            if number in aliases:
                self.places["out", value] = self.places[body.inputs[aliases[number]]]
        self._choose_style(runs)

    def _places(self, strides: Sequence[tuple[int, ...]],
                out_strides: tuple[int, ...] | None) -> dict[Key, tuple[str, list[int]]]:
        """Name, and strides by unmerged loop."""
        found: dict[Key, tuple[str, list[int]]] = {}
        for number, (value, axes) in enumerate(zip(self.body.inputs, strides, strict=True)):
            found[value] = (f"x{number}", self._by_loop(value, axes))
        for number, value in enumerate(self.body.outputs):
            found["out", value] = (f"y{number}", self._by_loop(value, out_strides or row_major_strides(value.shape)))
        for number, node in enumerate(self.body.nodes):
            value = node.output
            if node.op.name == "iota":
                counted = tuple(int(a == node.attrs["axis"]) for a in range(len(value.shape)))
                found["count", value] = (f"n{number}", self._by_loop(value, counted))
            elif node.op.kind is Kind.RANDOM:
                found["count", value] = (f"n{number}", self._by_loop(value, row_major_strides(value.shape)))
        return found

    def _by_loop(self, value: Value, axes: Sequence[int]) -> list[int]:
        strides = [0] * len(self.domain.extents)
        for loop, stride in zip(self.domain.loops[value], axes, strict=True):
            if loop is not None:
                strides[loop] = stride
        return strides

    def _choose_style(self, runs: list[list[int]]) -> None:
        count = len(runs)
        self.reduced = [k for k in range(count) if runs[k][0] in self.domain.reduced]
        kept = [k for k in range(count) if k not in self.reduced]
        self.style = "points" if not self.reduced else "rows" if self.reduced[-1] == count - 1 else "columns"
        self.column = kept[-1] if self.style == "columns" else None
        self.flat = self.style == "points" and count <= 1
        self.turned = self._turned_loop(kept[-1]) if self.style == "points" and count > 1 else None
        if self.turned is not None:
            self.style = "tiles"
            self.walk = [self.turned, kept[-1]]
            self.items = [k for k in kept if k not in self.walk]
        elif self.style == "points":
            inner = 2 if count >= 4 else 1  # a deep nest is a copy of many short rows: finding each costs more than it
            self.items, self.walk = (kept[:-inner], kept[-inner:])
        else:
            self.items, self.walk = [k for k in kept if k != self.column], self.reduced
        self.innermost = self.column if self.column is not None else self.walk[-1] if self.walk else None
        rows = math.prod(self.extents[k] for k in self.items)
        self.column_block = column_block(rows, self.extents[self.column]) if self.column is not None else 0

    def _turned_loop(self, last: int) -> int | None:
        """The loop that operands lie along which have steps along the last one; None if there is none."""
        loops = [k for k in range(last) if self.extents[k] >= LEAST_TURNED <= self.extents[last]]
        return next((k for k in loops if any(self._lies_along(v, k, last) for v in self.body.inputs)), None)

    def _lies_along(self, value: Value, loop: int, last: int) -> bool:
        place = self.places[value]
        written = any(place is self.places["out", v] for v in self.body.outputs)
        steps = place.strides[loop] == 1 and place.strides[last] > 1
        return steps and not written and value.dtype.itemsize in TURNED_SIZES

    def turned_inputs(self) -> list[Value]:
        """The operands that are turned in scratch memory."""
        if self.turned is None:
            return []
        return [v for v in self.body.inputs if self._lies_along(v, self.turned, self.walk[-1])]

    # -- where ---------------------------------------------------------------------------------------------------------

    def level(self, value: Value) -> str:
        """Where in the nest a value is computed: "item" (once for each), "column" (for each of a block), or "inner"."""
        runs = {self.run_of[loop] for loop in self.domain.of(value)}
        if self.column is not None:
            return "inner" if runs & set(self.reduced) else "column"
        return "item" if runs <= set(self.items) else "inner"

    def is_uniform(self, value: Value) -> bool:
        """Whether a value is one number for the whole domain."""
        return not self.domain.of(value)

    def index(self, place: Place, level: str) -> str:
        """The element of `place` at the current point, as the lines of a level know it."""
        if level == "top":
            return "0"
        terms = [f"{place.name}_at"] * any(place.strides[k] for k in self.items)
        if level == "inner":
            for k in self.walk:
                terms += self._term(place, k, self.counter(k))
        if level != "item" and self.column is not None:
            terms += self._term(place, self.column, "(first + j)")
        return " + ".join(terms) or "0"

    def counter(self, k: int) -> str:
        """The name of the index of a loop that an item walks."""
        return "i" if self.style in ("points", "tiles") and k == self.innermost else f"r{k}"

    def span(self, k: int) -> str:
        """What the counter of a loop that an item walks runs over."""
        return f"range(first{k}, end{k})" if self.style == "tiles" else f"range(n_{k})"

    def _term(self, place: Place, k: int, index: str) -> list[str]:
        stride = place.strides[k]
        if stride == 0:
            return []
        return [index] if stride == 1 and k == self.innermost else [f"{index} * {place.name}_s{k}"]

    def scratch_strides(self) -> tuple[list[int], int]:
        """Strides and length of a row of scratch memory: the folded part of the domain, or the columns of a block."""
        strides = [0] * len(self.extents)
        if self.column is not None:
            return strides, self.column_block
        length = 1
        for k in reversed(self.reduced):
            strides[k], length = length, length * self.extents[k]
        return strides, length

    # -- text ----------------------------------------------------------------------------------------------------------

    def unpack(self, table: ArgumentTable) -> None:
        """Read addresses, extents and strides from the table."""
        for number in range(len(self.body.inputs)):
            table.pointer(f"x{number}", Ref("input", number))
        for number, value in enumerate(self.body.outputs):
            if self.places["out", value].name == f"y{number}":
                table.pointer(f"y{number}", Ref("output", number))
        for k, extent in enumerate(self.extents):
            if not self.flat:
                table.integer(f"n_{k}", extent)
        if self.column is not None:
            table.integer("block", self.column_block)
        for place in dict.fromkeys(self.places.values()):
            self.unpack_strides(place, table)

    def unpack_strides(self, place: Place, table: ArgumentTable) -> None:
        """Read the strides of one place, where they are not 0, or 1 along the innermost loop."""
        for k, stride in enumerate(place.strides):
            if stride != 0 and not (k == self.innermost and stride == 1):
                table.integer(f"{place.name}_s{k}", stride)

    def decode(self) -> list[str]:
        """From the number of the work item to the index of each of its loops, and the offsets there."""
        lines, rest = [], "item"
        if self.column is not None:
            lines = [f"blocks = (n_{self.column} + block - 1) // block", "first = item % blocks * block",
                     f"width = min(block, n_{self.column} - first)", "row = item // blocks"]
            rest = "row"
        if self.style == "tiles":
            lines = _decode_tile(*self.walk)
            rest = "row"
        for k in reversed(self.items):
            outermost = k == self.items[0]
            lines.append(f"k{k} = {rest}" if outermost else f"k{k} = {rest} % n_{k}")
            if not outermost:
                lines.append(f"rest{k} = {rest} // n_{k}")
                rest = f"rest{k}"
        for place in dict.fromkeys(self.places.values()):
            terms = [f"k{k} * {place.name}_s{k}" for k in self.items if place.strides[k]]
            if terms:
                lines.append(f"{place.name}_at = {' + '.join(terms)}")
        return lines

    def work_items(self) -> int:
        """How many work items there are."""
        if self.flat:
            return math.prod(self.extents)
        items = math.prod(self.extents[k] for k in self.items)
        if self.style == "tiles":
            return items * math.prod(-(-self.extents[k] // TILE) for k in self.walk)
        return items * -(-self.extents[self.column] // self.column_block) if self.column is not None else items


def column_block(rows: int, columns: int) -> int:
    """How many columns a work item takes where there are so many of them, so many times."""
    return next((n for n in COLUMN_BLOCKS if rows * -(-columns // n) >= ENOUGH), COLUMN_BLOCKS[-1])


def _decode_tile(a: int, b: int) -> list[str]:
    return [f"across = (n_{b} + {TILE - 1}) // {TILE}", f"down = (n_{a} + {TILE - 1}) // {TILE}",
            f"first{b} = item % across * {TILE}", f"end{b} = min(first{b} + {TILE}, n_{b})",
            f"first{a} = item // across % down * {TILE}", f"end{a} = min(first{a} + {TILE}, n_{a})",
            "row = item // across // down"]


def _merge(domain: Domain, strides: Sequence[Sequence[int]]) -> list[list[int]]:
    """Neighbouring loops that every place walks as one."""
    runs: list[list[int]] = []
    for loop, extent in enumerate(domain.extents):
        before = loop - 1
        same = runs and (before in domain.reduced) == (loop in domain.reduced)
        if same and all(s[before] == s[loop] * extent for s in strides):
            runs[-1].append(loop)
        else:
            runs.append([loop])
    return runs
