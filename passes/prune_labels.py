"""Labels: which elements of the tensors of a graph can only be removed together.

    labels = Labels()
    rows = labels.fresh(8)                     # eight elements of an axis, each by itself
    labels.unite(rows[:4], rows[4:], None)     # element 0 goes with element 4, 1 with 5, …
    labels.lock(rows[0], "it is a class")      # 0 and 4 stay

What is known of a tensor is a list of *marks*. A mark is an array of labels that broadcasts to the tensor's shape, with
extent 1 along the axes on which it does not depend: an element goes when any of its marks does. The weight of a layer
has two, its outputs (o, 1) and its inputs (1, i); images (batch, channels, height, width) have (1, channels, 1, 1).
Views turn marks like numbers: a reshape that splits features into heads gives a mark over two axes. An axis of which no
mark depends stays as it is. The marks of a tensor depend on different axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

Mark = np.ndarray  # of labels
Marks = list[np.ndarray]


def axes_of(mark: Mark) -> tuple[int, ...]:
    """The axes on which a mark depends."""
    return tuple(axis for axis, extent in enumerate(mark.shape) if extent > 1)


@dataclass
class Labels:
    """Sets of labels that go together (a forest: Tarjan, 1975), why some of them must stay, and what is said of them.

    Attributes:
        reasons: for the first label of a set, why it cannot be removed.
        tags: for the first label of a set, what it is part of, such as "heads".
    """

    parents: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    tags: dict[int, set[str]] = field(default_factory=dict)

    def fresh(self, count: int) -> Mark:
        """So many new labels."""
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def find(self, label: int) -> int:
        """The first label of its set."""
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def roots(self, mark: Mark) -> Mark:
        """Each label of a mark replaced by the first of its set."""
        distinct, places = np.unique(mark, return_inverse=True)
        return np.array([self.find(int(label)) for label in distinct], np.int64)[places].reshape(mark.shape)

    def unite(self, a: Mark, b: Mark) -> None:
        """Element by element, after broadcasting: what goes with a goes with b."""
        for x, y in set(zip(*(side.ravel().tolist() for side in np.broadcast_arrays(a, b)), strict=True)):
            x, y = self.find(x), self.find(y)
            if x != y:
                self._join(min(x, y), max(x, y))

    def _join(self, first: int, second: int) -> None:
        self.parents[second] = first
        if second in self.reasons:
            self.reasons.setdefault(first, self.reasons.pop(second))
        if second in self.tags:
            self.tags.setdefault(first, set()).update(self.tags.pop(second))

    def lock(self, mark: Mark, reason: str) -> None:
        """These stay."""
        for label in np.unique(mark):
            self.reasons.setdefault(self.find(int(label)), reason)

    def tag(self, marks: Iterable[Mark], name: str) -> None:
        """Say what they are part of."""
        for mark in marks:
            for label in np.unique(mark):
                self.tags.setdefault(self.find(int(label)), set()).add(name)

    def tie(self, mark: Mark, keep: Sequence[int]) -> Mark:
        """A mark that depends on the axes `keep` only: along the others, all goes together or stays."""
        first = mark[tuple(np.s_[:] if axis in keep else np.s_[:1] for axis in range(mark.ndim))]
        if first.shape != mark.shape:
            self.unite(mark, first)
        return first

    def compress(self, mark: Mark) -> Mark:
        """The same mark, extent 1 along the axes on which it does not really depend."""
        for axis in axes_of(mark):
            first = mark.take([0], axis)
            if (mark == first).all():
                mark = first
        return mark

    def merge(self, operands: Sequence[tuple[Marks, Sequence[int]]], reason: str) -> Marks:
        """The marks of a tensor that is computed element by element from several (marks, shape) of its rank.

        What they have in common is united. Where one depends on an axis and another has elements there that cannot be
        removed, it stays, for that reason.
        """
        sides = [(list(marks), shape) for marks, shape in operands]
        while len(sides) > 1 and (wide := _overlapping(sides)):
            sides = [([self.tie(mark, axes_of(mark)[:1]) if axes_of(mark) in wide else mark for mark in marks], shape)
                     for marks, shape in sides]
        fixed, by_axes = _fixed(sides), dict[tuple[int, ...], Mark]()
        for mark in (mark for marks, _ in sides for mark in marks):
            axes = axes_of(mark)
            if fixed.intersection(axes):
                self.lock(mark, reason)
            self.unite(by_axes.setdefault(axes, mark), mark)
        return list(by_axes.values())

    def straighten(self, mark: Mark) -> bool:
        """Make all sets of a mark over several axes whole slabs along one of them, as only those can be cut out of a
        tensor; says whether any was not."""
        axes = axes_of(mark)
        if len(axes) < 2:
            return False
        roots = self.roots(mark)
        for root in np.unique(roots):
            inside = roots == root
            if root not in self.reasons and not any(_is_slab(inside, axis) for axis in axes):
                self.tie(mark, axes[:1])
                return True
        return False


def _fixed(sides: Sequence[tuple[Marks, Sequence[int]]]) -> set[int]:
    """The axes on which some operand has several elements that cannot be removed."""
    return {axis for marks, shape in sides for axis, extent in enumerate(shape)
            if extent > 1 and not any(mark.shape[axis] > 1 for mark in marks)}


def _overlapping(sides: Sequence[tuple[Marks, Sequence[int]]]) -> set[tuple[int, ...]]:
    """The several axes of marks that share some with others, but not all. Such a mark is tied to its outermost axis:
    of heads and their features, it is heads that go."""
    kinds, fixed = {axes_of(mark) for marks, _ in sides for mark in marks}, _fixed(sides)
    return {axes for axes in kinds if len(axes) > 1 and (
        fixed.intersection(axes) or any(other != axes and set(other) & set(axes) for other in kinds))}


def _is_slab(inside: np.ndarray, axis: int) -> bool:
    others = tuple(a for a in range(inside.ndim) if a != axis)
    return bool((inside.all(others) == inside.any(others)).all())
