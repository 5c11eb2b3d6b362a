"""Follow time through a decoder: for each value, which axis the tokens lie along, and what it knows of later ones.

    flow = follow(graph)                  # of tokens (batch, time) -> logits (batch, time, vocabulary)
    flow.facts[value].lay                 # how a value lies (`time_axis`); values that no token reaches have no fact
    flow.cached                           # the values whose rows of earlier tokens are looked at: keys, values
    flow.bands                            # the attentions that see all keys up to their own, or a window of them

The invariant, shown node by node: row t of a value depends on tokens 0 … t only. What works on each row by itself keeps
it. Where rows meet rows of other times (a product of queries and keys, or a mask made of tokens), the value that is
looked at is *cached*, and of the result the elements with a key later than their row must become known: `fill` is the
one number that all of them are, whatever the tokens. Scores get one by a mask (-inf), exp makes it 0, and then a fold
or a product over the keys depends on earlier ones only. Masks are made of no token, so they are evaluated here, as they
are now. An op for which there is no rule is opened; where that does not help, the graph is refused, with the user's
line.

An op that works on rows alone, whatever it consists of, stays whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinytorch.ir import Builder, Graph, Kind, Node, Op, Operand, Value, as_tuple, ops
from tinytorch.ir.errors import PassError, TinyTorchError

from .fold_constants import frozen
from .time_axis import BATCH, KEYS, ROWS, Axis, Factor, Lay, home, joined, labels, renamed, shape_of

FREE, AS_ROWS, AS_KEYS, TABLE = "free", "rows", "keys", "table"  # how an operand is read
VIEWS = (ops.reshape, ops.transpose, ops.broadcast_to)
PROBES = tuple(itertools.product((2.37, -2.37), (1.9, -1.9), (8.1, -8.1)))  # no op by elements has more operands


@dataclass(frozen=True)
class Fact:
    """What is known of a value that depends on tokens: how it lies, and the number at keys later than its row."""

    lay: Lay
    fill: float | None = None


@dataclass(frozen=True)
class Meeting:
    """How the operands of a node come together.

    Attributes:
        uses: how each is read.
        places, axes: which of the common axes each axis of theirs is, and what those are.
        lead: so many of the common axes may be put in front of an operand's own, as by broadcasting.
    """

    uses: tuple[str, ...]
    places: tuple[tuple[int, ...], ...] = ()
    axes: Mapping[int, Axis] = field(default_factory=dict)
    lead: int = 0


Rule = Callable[["Flow", Node], Fact | None]  # None: open the op


@dataclass
class Flow:
    """The analysis, and what it found; see the head of this file."""

    graph: Graph
    capacity: int
    rules: Mapping[Op | Kind, Rule]
    facts: dict[Value, Fact] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)  # of the graph, some of them opened
    same: dict[Value, Value] = field(default_factory=dict)  # results of nodes that were opened
    bound: dict[Value, np.ndarray] = field(default_factory=dict)
    producer: dict[Value, Node] = field(default_factory=dict)
    meetings: dict[Node, Meeting] = field(default_factory=dict)
    cached: dict[Value, None] = field(default_factory=dict)
    guarded: set[Value] = field(default_factory=set)  # masked by numbers so low that exp makes them 0
    bands: dict[Node, int | None] = field(default_factory=dict)
    heads: dict[Value, tuple[Value, int]] = field(default_factory=dict)  # of keys: what they repeat, how many heads
    arrays: dict[Value, np.ndarray] = field(default_factory=dict)  # what `numbers` has evaluated
    tables: dict[Value, np.ndarray] = field(default_factory=dict)  # what `table` gave
    known: dict[Any, tuple[float | None, float]] = field(default_factory=dict)  # see `later`
    literal: dict[Value, bool] = field(default_factory=dict)
    read: set[Value] = field(default_factory=set)  # by the nodes that are being seen, or by who wants their results

    # -- the walk ------------------------------------------------------------------------------------------------------

    def see_all(self, nodes: Sequence[Node], results: Sequence[Value]) -> None:
        """Learn what there is to know of nodes that give these results."""
        self.read = {*results, *(v for node in nodes for v in node.inputs)}
        for node in nodes:
            self.see(node)

    def see(self, node: Node) -> None:
        """Learn what there is to know of the results of `node`."""
        if any(v in self.same for v in node.inputs):
            node = replace(node, inputs=tuple(self.same.get(v, v) for v in node.inputs))
        if not any(v in self.facts for v in node.inputs):
            self._keep(node)
            return
        rule = self.rules.get(node.op) or self.rules.get(node.op.kind)
        fact = rule(self, node) if rule else None
        if fact is not None:
            self.facts[node.output] = fact
            self._keep(node)
        elif node.op.expand is not None:
            self._open(node)
        else:
            raise self.refusal(node, "there is no rule for how this op treats time")

    def _keep(self, node: Node) -> None:
        self.nodes.append(node)
        self.producer |= dict.fromkeys(node.outputs, node)

    def _open(self, node: Node) -> None:
        """See the pieces of `node`; keep it whole if they work on rows alone."""
        pieces, results, bound = _expansion(node)
        self.bound |= bound
        inner = replace(self, nodes=[], meetings={}, cached={}, guarded=set(), bands={})
        inner.see_all(pieces, results)
        results = [inner.same.get(v, v) for v in results]
        if inner.is_by_rows and all(v in self.facts for v in results) and self._fits(node, results):
            self.facts |= {new: self.facts[old] for new, old in zip(node.outputs, results, strict=True)}
            self.meetings[node] = Meeting(tuple(AS_ROWS if v in self.facts else FREE for v in node.inputs))
            self._keep(node)
            return
        self.nodes += inner.nodes
        self.meetings |= inner.meetings
        self.cached |= inner.cached
        self.guarded |= inner.guarded
        self.bands |= inner.bands
        self.same |= dict(zip(node.outputs, results, strict=True))

    @property
    def is_by_rows(self) -> bool:
        """Whether nothing has met rows of another time so far, or something that depends on time."""
        read = {use for meeting in self.meetings.values() for use in meeting.uses}
        return not (self.cached or self.guarded or self.bands or read & {AS_KEYS, TABLE})

    def _fits(self, node: Node, results: Sequence[Value]) -> bool:
        """Whether the op takes fewer rows too, with the same attributes, and gives what it should."""
        types = [replace(v.type, shape=self.shape(v, 1)) if v in self.facts else v.type for v in node.inputs]
        try:
            found = as_tuple(node.op.infer(*types, **node.attrs))
        except TinyTorchError:
            return False
        return [t.shape for t in found] == [self.shape(v, 1) for v in results]

    def shape(self, value: Value, count: int) -> tuple[int, ...]:
        """The shape of a value of `count` rows a sequence."""
        return shape_of(self.facts[value].lay, {ROWS: count})

    # -- refusals ------------------------------------------------------------------------------------------------------

    def refusal(self, node: Node, reason: str) -> PassError:
        """The error that says which op of the user's is in the way, and why."""
        source = node.source
        line = f"\n    {source.file}:{source.line}, in {source.function}\n        {source.text}" if source else ""
        shown = ", ".join(f"{v.type}{self._described(v)}" for v in node.inputs)
        return PassError(f"no cache can be inserted: {node.op}({shown}): {reason}.{line}")

    def _described(self, value: Value) -> str:
        fact = self.facts.get(value)
        if fact is None:
            return ""
        axes = {name: home(fact.lay, name) for name in (ROWS, KEYS)}
        return "".join(f" with {'time' if name == ROWS else 'the time of keys'} in axis {axis}"
                       for name, axis in axes.items() if axis is not None)

    # -- where operands meet -------------------------------------------------------------------------------------------

    def meet(self, node: Node, places: Sequence[tuple[int, ...]], lead: int,
             contracted: int | None = None) -> Mapping[int, Axis]:
        """Unite the axes of operands; rows of another time than the result's are cached. Gives the common axes.

        Args:
            places, lead: see `Meeting`.
            contracted: the one that is summed over.
        Raises:
            PassError: factors of one common axis differ.
        """
        axes: dict[int, Axis] = {}
        rows = self._rows_of_result(node, places, contracted, axes)
        uses = [FREE] * len(node.inputs)
        for number, (value, to) in enumerate(zip(node.inputs, places, strict=True)):
            fact = self.facts.get(value)
            if fact is None:
                continue
            lay, at = fact.lay, home(fact.lay, ROWS)
            uses[number] = AS_ROWS
            if at is None or to[at] != rows:
                uses[number], lay = AS_KEYS, renamed(lay, ROWS, KEYS)
                self.cached[value] = None
            for axis, place in zip(lay, to, strict=True):
                if axis and axes.setdefault(place, axis) != axis:
                    raise self.refusal(node, "axes meet that do not belong together (the batch or time, and another)")
        for number, (value, to) in enumerate(zip(node.inputs, places, strict=True)):
            if value not in self.facts:
                wide = [place for n, place in zip(value.shape, to, strict=True) if n != 1]
                uses[number] = TABLE if any(f.label == ROWS for p in wide for f in axes.get(p, ())) else FREE
                for n, place in zip(value.shape, to, strict=True):
                    axes.setdefault(place, joined((Factor(n),))) if n != 1 else None
        named = [factor.label for axis in axes.values() for factor in axis if factor.label]
        if len(named) > len(set(named)):
            raise self.refusal(node, "it pairs sequences of the batch, or three times; expected queries and keys of "
                               "one sequence")
        self.meetings[node] = Meeting(tuple(uses), tuple(places), axes, lead)
        return axes

    def _rows_of_result(self, node: Node, places: Sequence[tuple[int, ...]], contracted: int | None,
                        axes: dict[int, Axis]) -> int:
        """The common axis that the rows of the result lie along: those of scores, or else the first."""
        found: list[int] = []
        for value, to in zip(node.inputs, places, strict=True):
            fact = self.facts.get(value)
            at = None if fact is None else home(fact.lay, ROWS)
            if fact is not None and at is not None:
                found.append(to[at])
                if KEYS in labels(fact.lay):
                    return to[at]
        rows = min(found)
        if rows == contracted:  # rows of numbers that no token has made: a fixed average of earlier tokens
            for value, to in zip(node.inputs, places, strict=True):
                others = [p for n, p in zip(value.shape, to, strict=True) if n == self.capacity and p != contracted]
                if value not in self.facts and others:
                    axes[others[0]] = (Factor(self.capacity, ROWS),)
                    return others[0]
        return rows

    def origin(self, value: Value) -> Value:
        """What `value` is a view of, where that is smaller (heads of keys that are repeated); or `value` itself."""
        smallest = value
        node = self.producer.get(value)
        while node is not None and node.op in VIEWS and node.inputs[0] in self.facts:
            source = node.inputs[0]
            if source.type.size < smallest.type.size:
                smallest = source
            node = self.producer.get(source)
        return smallest

    # -- numbers that no token has made --------------------------------------------------------------------------------

    def numbers(self, value: Value) -> np.ndarray:
        """The array of a value that no token reaches."""
        bound = self.graph.bound.get(value, self.bound.get(value))
        if bound is not None:
            return bound
        if value not in self.arrays:
            node = self.producer[value]
            with np.errstate(all="ignore"):
                results = as_tuple(node.op.eval(*map(self.numbers, node.inputs), **node.attrs))
            self.arrays |= {v: np.asarray(array) for v, array in zip(node.outputs, results, strict=True)}
        return self.arrays[value]

    def is_literal(self, value: Value) -> bool:
        """Whether a value is made of literals alone."""
        if value not in self.literal:
            node = self.producer.get(value)
            self.literal[value] = node is not None and all(map(self.is_literal, node.inputs))
        return self.literal[value]

    def table(self, value: Value) -> np.ndarray:
        """The array of a value that is made of literals: the same one each time, which nobody can write."""
        if value not in self.tables:
            self.tables[value] = frozen(self.numbers(value))
            self.arrays.clear()
        return self.tables[value]

    def later(self, value: Value, to: Sequence[int], axes: Mapping[int, Axis]) -> tuple[float | None, float]:
        """Of the elements of such a value where the key is later than the row: the number that all are, if they are one
        number, and the greatest."""
        key = (value, tuple(to), tuple(sorted(axes.items())))
        if key not in self.known:
            found = self._later(value, to, axes)
            first = found.flat[0]
            self.known[key] = float(first) if (found == first).all() else None, float(found.max())
        return self.known[key]

    def _later(self, value: Value, to: Sequence[int], axes: Mapping[int, Axis]) -> np.ndarray:
        """Those elements, (…, pairs)."""
        array = self.numbers(value)
        factors = split(value.shape, to, axes)
        array = array.reshape([factor.extent for factor in factors])
        names = [factor.label for factor in factors]
        for name in (ROWS, KEYS):
            if name in names:
                array = np.moveaxis(array, names.index(name), -1)
                names.remove(name)
            else:
                array = array[..., None]
        array = np.broadcast_to(array, (*array.shape[:-2], self.capacity, self.capacity))
        return array[(..., *np.triu_indices(self.capacity, 1))]


def split(shape: Sequence[int], to: Sequence[int], axes: Mapping[int, Axis]) -> list[Factor]:
    """The factors of an operand that no token reaches, where its axes meet the common ones."""
    found: list[Factor] = []
    for n, place in zip(shape, to, strict=True):
        axis = axes.get(place, ())
        found += [] if n == 1 else axis if labels((axis,)) & {BATCH, ROWS, KEYS} else [Factor(n)]
    return found


def opened(node: Node) -> Iterable[Node]:
    """The node, or all pieces that it consists of."""
    if node.op.expand is None:
        yield node
        return
    for piece in _expansion(node)[0]:
        yield from opened(piece)


def _expansion(node: Node) -> tuple[list[Node], list[Value], Mapping[Value, np.ndarray]]:
    """The pieces of a composite, in the user's line, its results, and the arrays that the pieces bind."""
    assert node.op.expand is not None
    build = Builder(sources=False)
    with build:
        handles = as_tuple(node.op.expand(*map(Operand, node.inputs), **node.attrs))
        values = [h.payload if isinstance(h.payload, Value) else build.lift(h) for h in handles]
    return [replace(piece, source=node.source) for piece in build.nodes], values, build.bound
