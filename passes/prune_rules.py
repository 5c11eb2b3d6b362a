"""How removing elements spreads through a graph: a rule for each kind of op, on the marks of `prune_labels`.

    found = Spread().through(graph)            # marks of every value, and the labels they are made of
    found.labels.reasons                       # what has to stay, and why

Each bound array begins with a mark for each of its axes, inputs of the caller have none. Then every node is passed
once: pointwise ops unite what they compute element by element, a contraction unites what it sums over (if one side is a
weight: then what is removed contributed nothing but a product with a removed weight), folds keep all they fold. An op
without a rule is opened, if it is composite; else all that it reads has to stay, and the reason names its line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinytorch.ir import Graph, Kind, Node, Value, ops
from tinytorch.ir.cost import expansion
from tinytorch.ir.types import Shape

from .prune_labels import Labels, Mark, Marks, axes_of


@dataclass(frozen=True)
class Part:
    """What a slice takes of an axis: elements start, start + step, …; the mark of those, and that of the whole axis."""

    start: int
    size: int
    step: int
    mark: Mark
    whole: Mark
    where: str


@dataclass
class Spread:
    """The marks of each value of a graph."""

    labels: Labels = field(default_factory=Labels)
    marks: dict[Value, Marks] = field(default_factory=dict)
    known: set[Value] = field(default_factory=set)  # what depends on bound arrays alone: weights
    parts: dict[tuple[Value, int], list[Part]] = field(default_factory=dict)

    def through(self, graph: Graph) -> Spread:
        """Pass all nodes (which must all count: see `RemoveDead`), and go on until every set of labels can be cut
        out of every tensor; gives itself."""
        for value in graph.inputs:
            self.marks[value] = self.fresh(value.shape) if value in graph.bound else []
            if value in graph.bound:
                self.known.add(value)
        self._pass(graph.nodes)
        for number, value in enumerate(graph.outputs):
            for mark in self.marks[value]:
                self.labels.lock(mark, f"it is output {number} of {graph.name}")
        self._check_parts()
        many = [mark for marks in self.marks.values() for mark in marks if len(axes_of(mark)) > 1]
        changed = True
        while changed:
            changed = sum(self.labels.straighten(mark) for mark in many) > 0
        return self

    def fresh(self, shape: Shape, axes: Sequence[int] | None = None) -> Marks:
        """A mark for each axis (of `axes`) that has several elements."""
        return [self.labels.fresh(extent).reshape([-1 if a == axis else 1 for a in range(len(shape))])
                for axis, extent in enumerate(shape) if extent > 1 and (axes is None or axis in axes)]

    def _pass(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if self.known.issuperset(node.inputs):
                self.known.update(node.outputs)
            rule = RULES.get(node.op) or KINDS.get(node.op.kind)
            if node.op.expand is not None:
                self._open(node)
            elif rule is not None:
                self.marks[node.output] = rule(self, node)
            else:
                self._keep_all(node)
            if node.op in PRODUCERS:
                self.labels.tag(self.marks[node.output], PRODUCERS[node.op])

    def _open(self, node: Node) -> None:
        """The marks of a composite op are those of what it is made of."""
        inside = expansion(node.op, tuple(v.type for v in node.inputs), node.attrs)
        self.marks |= {value: [] for value in inside.bound}
        for number, (inner, value) in enumerate(zip(inside.free, node.inputs, strict=True)):
            self.marks[inner] = self._but_kernel_places(node, number)
            if value in self.known:
                self.known.add(inner)
        self._pass([replace(inner, source=node.source) for inner in inside.nodes])
        self.marks |= {outer: self.marks[inner] for outer, inner in zip(node.outputs, inside.outputs, strict=True)}

    def _but_kernel_places(self, node: Node, number: int) -> Marks:
        """The marks of an operand; height and width of a kernel stay."""
        marks = self.marks[node.inputs[number]]
        if node.op is not ops.convolve or number == 0:
            return marks
        places = [mark for mark in marks if set(axes_of(mark)) & {0, 1}]
        for mark in places:
            self.labels.lock(mark, f"it is a place of the kernel of {place(node)}")
        return [mark for mark in marks if not any(mark is other for other in places)]

    def _keep_all(self, node: Node) -> None:
        for value in node.inputs:
            for mark in self.marks[value]:
                self.labels.lock(mark, f"there is no rule for {place(node)}")
        self.marks.update((value, []) for value in node.outputs)

    def aligned(self, node: Node, rank: int) -> list[tuple[Marks, Shape]]:
        """Marks and shape of each operand, with axes of extent 1 in front."""
        def front(shape: Shape) -> Shape:
            return (1,) * (rank - len(shape)) + shape

        return [([m.reshape(front(m.shape)) for m in self.marks[v]], front(v.shape)) for v in node.inputs]

    def _check_parts(self) -> None:
        """Parts that together are a whole axis lose the same, if they are equal (chunks); of others all must stay."""
        for (value, axis), parts in self.parts.items():
            places = sorted({(part.start, part.size) for part in parts})
            ends = [0, *(start + size for start, size in places)]
            is_whole = [start for start, _ in places] == ends[:-1] and ends[-1] == value.shape[axis]
            if not is_whole or any(part.step != 1 for part in parts):
                for part in parts:
                    self.labels.lock(part.whole, f"{part.where} takes a part of it")
            elif len({size for _, size in places}) == 1:
                for part in parts[1:]:
                    self.labels.unite(part.mark, parts[0].mark)


def place(node: Node) -> str:
    """An op and the user's line."""
    return f"{node.op.name} in `{node.source.text}` ({node.source})" if node.source else node.op.name


# -- element by element, and folds -------------------------------------------------------------------------------------


def _pointwise(spread: Spread, node: Node) -> Marks:
    operands = spread.aligned(node, len(node.output.shape))
    return spread.labels.merge(operands, f"{place(node)} pairs it with what stays")


def _reduce(spread: Spread, node: Node) -> Marks:
    axis, found = node.attrs["axis"], []
    gone = axis if isinstance(axis, tuple) else (axis,)
    for mark in spread.marks[node.inputs[0]]:
        rest = [a for a in axes_of(mark) if a not in gone]
        if len(rest) < len(axes_of(mark)) and not rest:
            spread.labels.lock(mark, f"{place(node)} needs all of it")
        elif rest:
            found.append(_without(spread.labels.tie(mark, rest), gone, node.attrs["keepdims"]))
    return found


def _without(mark: Mark, axes: Sequence[int], keepdims: bool = False) -> Mark:
    """A mark that does not depend on `axes`, without them."""
    return mark if keepdims else mark.reshape([n for axis, n in enumerate(mark.shape) if axis not in axes])


def _source(spread: Spread, node: Node) -> Marks:
    return []  # the same number everywhere, or different ones by place: it stays as it is


# -- views -------------------------------------------------------------------------------------------------------------


def blocks(before: Shape, after: Shape) -> list[tuple[range, range]]:
    """Which axes of a reshape become which: the finest pieces whose numbers of elements agree."""
    found, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        first, second, rows, columns = i, j, 1, 1
        while True:
            if rows <= columns and i < len(before):
                rows, i = rows * before[i], i + 1
            elif j < len(after):
                columns, j = columns * after[j], j + 1
            elif i < len(before):
                rows, i = rows * before[i], i + 1
            if rows == columns and (i > first or j > second):
                break
        found.append((range(first, i), range(second, j)))
    return found


def _reshape(spread: Spread, node: Node) -> Marks:
    x, shape = node.inputs[0], node.attrs["shape"]
    if 0 in shape:
        return []
    pieces, found = blocks(x.shape, shape), []
    for mark in _one_a_piece(spread, node, pieces):
        extents: list[int] = []
        middle: list[int] = []
        for old, new in pieces:
            depends = any(mark.shape[axis] > 1 for axis in old)
            middle += [x.shape[axis] if depends else 1 for axis in old]
            extents += [shape[axis] if depends else 1 for axis in new]
        whole = np.broadcast_to(mark, middle).reshape(extents)
        found.append(spread.labels.compress(whole))
    return [mark for mark in found if axes_of(mark)]


def _one_a_piece(spread: Spread, node: Node, pieces: Sequence[tuple[range, range]]) -> Marks:
    """The marks, but where several axes become others (elements of heads that stand for several queries, say) only the
    outermost."""
    found: Marks = []
    taken: set[int] = set()
    for mark in sorted(spread.marks[node.inputs[0]], key=axes_of):
        touched = {number for number, (old, _) in enumerate(pieces) if any(mark.shape[axis] > 1 for axis in old)}
        if touched & taken:
            spread.labels.lock(mark, f"{place(node)} mixes it with others")
        else:
            found.append(mark)
            taken |= touched
    return found


def _transpose(spread: Spread, node: Node) -> Marks:
    return [mark.transpose(node.attrs["axes"]) for mark in spread.marks[node.inputs[0]]]


def _broadcast(spread: Spread, node: Node) -> Marks:
    """What is repeated can be repeated another number of times: new axes are free."""
    shape = node.attrs["shape"]
    (marks, before), = spread.aligned(node, len(shape))
    new = [axis for axis, (old, extent) in enumerate(zip(before, shape, strict=True)) if old != extent]
    return [*marks, *spread.fresh(shape, new)]


def _slice(spread: Spread, node: Node) -> Marks:
    x, (start, size, step) = node.inputs[0], (node.attrs[key] for key in ("start", "size", "step"))
    found = []
    for mark in spread.marks[x]:
        for axis in axes_of(mark):
            if (size[axis], step[axis]) == (x.shape[axis], 1) or mark.shape[axis] == 1:
                continue
            if axis != axes_of(mark)[0]:  # a part of each head: heads go
                mark = spread.labels.tie(mark, [a for a in axes_of(mark) if a != axis])
                continue
            part = mark.take(range(start[axis], start[axis] + size[axis] * step[axis], step[axis]), axis)
            if size[axis] > 1 or not axes_of(part):
                taken = Part(start[axis], size[axis], step[axis], part, mark, place(node))
                spread.parts.setdefault((x, axis), []).append(taken)
            mark = part
        if axes_of(mark):
            found.append(mark)
    return found


def _windows(spread: Spread, node: Node) -> Marks:
    axes, found = node.attrs["axes"], []
    for mark in spread.marks[node.inputs[0]]:
        if set(axes).intersection(axes_of(mark)):
            spread.labels.lock(mark, f"{place(node)} slides over it")
        else:
            found.append(mark.reshape(*mark.shape, *(1,) * len(axes)))
    return found


def _fold(spread: Spread, node: Node) -> Marks:
    axes, rank, found = node.attrs["axes"], len(node.attrs["shape"]), []
    for mark in spread.marks[node.inputs[0]]:
        if any(axis in axes or axis >= rank for axis in axes_of(mark)):
            spread.labels.lock(mark, f"{place(node)} slides over it")
        else:
            found.append(mark.reshape(mark.shape[:rank]))
    return found


# -- putting together --------------------------------------------------------------------------------------------------


def _concat(spread: Spread, node: Node) -> Marks:
    axis, reason = node.attrs["axis"], f"{place(node)} pairs it with what stays"
    along: list[Mark | None] = []
    others: list[tuple[Marks, Shape]] = []
    for value in node.inputs:
        marks = spread.marks[value]
        along.append(next((mark for mark in marks if mark.shape[axis] > 1), None))
        flat = tuple(1 if a == axis else n for a, n in enumerate(value.shape))
        others.append(([mark for mark in marks if mark.shape[axis] == 1], flat))
    if len({None if mark is None else tuple(a for a in axes_of(mark) if a != axis) for mark in along}) > 1:
        along = [None if mark is None else spread.labels.tie(mark, [axis]) for mark in along]
    joint = _joined(spread, node, along)
    merged = others if joint is None or len(axes_of(joint)) == 1 else [
        (marks, tuple(1 if a in axes_of(joint) else n for a, n in enumerate(shape))) for marks, shape in others]
    return [*spread.labels.merge(merged, reason), *([] if joint is None else [joint])]


def _joined(spread: Spread, node: Node, along: Sequence[Mark | None]) -> Mark | None:
    """The marks along the axis of a concatenation, one after the other; what has none stays."""
    if all(mark is None for mark in along):
        return None
    axis, parts = node.attrs["axis"], []
    rest = next(mark.shape for mark in along if mark is not None)
    for value, mark in zip(node.inputs, along, strict=True):
        if mark is None:
            count = value.shape[axis]
            mark = spread.labels.fresh(count).reshape([count if a == axis else 1 for a in range(len(rest))])
            spread.labels.lock(mark, f"{place(node)} joins it with what stays")
            mark = np.broadcast_to(mark, [count if a == axis else n for a, n in enumerate(rest)])
        parts.append(mark)
    return np.concatenate(parts, axis)


def _pad(spread: Spread, node: Node) -> Marks:
    """What is put around stays."""
    found = []
    low, high, interior = (node.attrs[key] for key in ("low", "high", "interior"))
    for mark in spread.marks[node.inputs[0]]:
        moved = {axis for axis in axes_of(mark) if low[axis] or high[axis] or interior[axis]}
        if moved:
            around = spread.labels.fresh(1)
            spread.labels.lock(around, f"{place(node)} adds it")
            attrs = {key: [n if axis in moved else 0 for axis, n in enumerate(node.attrs[key])]
                     for key in ("low", "high", "interior")}
            mark = ops.pad.eval(mark, value=around[0], **attrs)
        found.append(mark)
    return found


def _take(spread: Spread, node: Node) -> Marks:
    x, indices = node.inputs
    axis, rank, found = node.attrs["axis"], len(indices.shape), []
    for mark in [*spread.marks[indices], *(m for m in spread.marks[x] if axes_of(m) == (axis,))]:
        spread.labels.lock(mark, f"{place(node)} looks places up in it")
    for mark in spread.marks[x]:
        rest = [a for a in axes_of(mark) if a != axis]
        if rest:
            mark = spread.labels.tie(mark, rest)
            found.append(mark.reshape(*mark.shape[:axis], *(1,) * rank, *mark.shape[axis + 1:]))
    return found


# -- contractions ------------------------------------------------------------------------------------------------------


def _matmul(spread: Spread, node: Node) -> Marks:
    """Both operands as (…, rows, columns, depth), one after the other: batch axes are paired, the depth is summed."""
    x, y = node.inputs
    rank, labels = len(node.output.shape), spread.labels
    (x_marks, x_shape), (y_marks, y_shape) = spread.aligned(node, rank)

    def joint(shape: Shape, turned: bool, missing: int) -> Shape:
        *batch, a, b = shape
        sides = [b, a] if turned else [a, b]  # x: (rows, depth); y: (columns, depth)
        return (*batch, *sides[:missing], 1, *sides[missing:])

    def wide(marks: Marks, turned: bool, missing: int) -> Marks:
        turn = [*range(rank - 2), *((rank - 1, rank - 2) if turned else (rank - 2, rank - 1))]
        return [np.expand_dims(mark.transpose(turn), rank - 2 + missing) for mark in marks]

    turn_x, turn_y = node.attrs["transpose_x"], not node.attrs["transpose_y"]
    sides = [(wide(x_marks, turn_x, 1), joint(x_shape, turn_x, 1)),
             (wide(y_marks, turn_y, 0), joint(y_shape, turn_y, 0))]
    kept = [_summed(spread, marks, rank) for marks, _ in sides]
    depth = [[mark for mark in marks if axes_of(mark) == (rank,)] for marks, _ in sides]
    if all(depth) and spread.known.intersection((x, y)):
        labels.unite(depth[0][0], depth[1][0])
    else:
        for mark in [*depth[0], *depth[1]]:
            labels.lock(mark, f"{place(node)} sums over it, and no weight can go with it")
    found = labels.merge([(marks, shape[:rank]) for marks, (_, shape) in zip(kept, sides, strict=True)],
                         f"{place(node)} pairs it with what stays")
    if not spread.known.intersection((x, y)):
        labels.tag([mark for marks in kept for mark in marks if set(axes_of(mark)) & set(range(rank - 2))], "heads")
    return found


def _summed(spread: Spread, marks: Marks, rank: int) -> Marks:
    """The marks that depend on more than the depth, without it: what goes, goes for the whole sum."""
    found = []
    for mark in marks:
        rest = [axis for axis in axes_of(mark) if axis != rank]
        if rest:
            found.append(spread.labels.tie(mark, rest).squeeze(rank))
    return found


Rule = Callable[[Spread, Node], Marks]
RULES: dict[Any, Rule] = {
    ops.reshape: _reshape, ops.transpose: _transpose, ops.broadcast_to: _broadcast, ops.slice: _slice,
    ops.windows: _windows, ops.fold: _fold, ops.concat: _concat, ops.pad: _pad, ops.take: _take, ops.matmul: _matmul,
}
KINDS: dict[Kind, Rule] = {Kind.POINTWISE: _pointwise, Kind.REDUCE: _reduce, Kind.SOURCE: _source}
PRODUCERS = {ops.conv2d: "channels", ops.convolve: "channels", ops.matmul: "neurons", ops.linear: "neurons"}
