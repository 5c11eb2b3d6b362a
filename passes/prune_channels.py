"""Remove channels, heads or neurons from a graph: bound arrays shrink, and every consumer follows.

    units = find_units(graph)                              # what can be removed, and what goes with it
    RemoveChannels({"conv1_weight": (0, (3, 5))})(graph)   # outputs 3 and 5 of that weight, and all that goes with them

`prune_rules` finds what goes together: output channels of a layer, norm parameters and statistics, the input channels
of all that reads them, the other branch of a residual sum. If what is removed was zero in all these arrays, the outputs
of the smaller graph are those of the greater one; so choose what is nearly zero, and train on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.ir import Graph, Node, Value, ops, verify
from tinytorch.ir.errors import PassError, listing
from tinytorch.ir.interp import make_node

from .prune_labels import axes_of
from .prune_rules import PRODUCERS, Spread
from .remove_dead import RemoveDead

KINDS = ("heads", "channels", "neurons")  # what is several of these is the first
CHANNELS = {ops.conv2d: (1, 1), ops.convolve: (3, 2)}  # where channels are in x, and in a weight of one group


@dataclass(frozen=True)
class Unit:
    """What can be removed, and only together.

    Attributes:
        parts: (value, axis, indices) of bound arrays.
        kind: "heads", "channels" or "neurons"; reason: why it has to stay, or None.
    """

    parts: tuple[tuple[Value, int, tuple[int, ...]], ...]
    kind: str
    reason: str | None


@dataclass(frozen=True)
class Family:
    """Units of the same arrays: the output channels of a layer.

    Attributes:
        units: in order.
        made_by: names of the weights whose products these are.
    """

    units: tuple[Unit, ...]
    made_by: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What its units are."""
        return self.units[0].kind

    @property
    def reason(self) -> str | None:
        """Why none of it can be removed; None if something can."""
        return None if any(unit.reason is None for unit in self.units) else self.units[0].reason


def find_units(graph: Graph, removable: Sequence[Value] | None = None) -> tuple[Family, ...]:
    """What layers of `graph` compute that could be removed, with what must go with it, or with the reason why not.

    Args:
        removable: the bound values that may shrink; by default all.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> from tinytorch.passes import find_units
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 10)).eval()
    >>> for family in find_units(tt.trace(model, tt.zeros(1, 3, 4, 4))):
    ...     print(family.made_by, len(family.units), family.kind, family.reason)
    ('_0_weight',) 8 channels None
    ('_3_weight',) 10 neurons it is output 0 of sequential
    """
    graph = RemoveDead()(graph)
    spread, parts = Spread().through(graph), dict[int, list[tuple[Value, int, tuple[int, ...]]]]()
    labels = spread.labels
    for value in graph.bound:
        for mark in spread.marks[value]:
            (axis,), roots = axes_of(mark), labels.roots(mark).ravel()
            if removable is not None and value not in removable:
                labels.lock(mark, f"{graph.names[value]} is no parameter or buffer of the model")
            order = np.argsort(roots, kind="stable")
            found, starts = np.unique(roots[order], return_index=True)
            for root, places in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
                parts.setdefault(root, []).append((value, axis, tuple(places.tolist())))
    makers = _makers(graph, spread)
    families: dict[Any, list[Unit]] = {}
    for root, members in sorted(parts.items()):
        kind = next((kind for kind in KINDS if kind in labels.tags.get(root, ())), None)
        if kind is not None and root in makers:
            key = tuple((value, axis) for value, axis, _ in members)
            families.setdefault(key, []).append(Unit(tuple(members), kind, labels.reasons.get(root)))
    return tuple(Family(tuple(units), tuple(sorted(makers[_root(spread, units[0])]))) for units in families.values())


def _root(spread: Spread, unit: Unit) -> int:
    value, axis, places = unit.parts[0]
    mark = next(mark for mark in spread.marks[value] if axes_of(mark) == (axis,))
    return spread.labels.find(int(mark.ravel()[places[0]]))


def _makers(graph: Graph, spread: Spread) -> dict[int, set[str]]:
    """For the first label of each set, the names of the weights in whose products it is an output."""
    found: dict[int, set[str]] = {}
    for node in graph.nodes:
        if node.op in PRODUCERS:
            outputs = _roots(spread, node.output)
            for value in _weights(graph, spread, node):
                for root in outputs & _roots(spread, value):
                    found.setdefault(root, set()).add(graph.names[value])
    return found


def _roots(spread: Spread, value: Value) -> set[int]:
    return {int(root) for mark in spread.marks[value] for root in spread.labels.roots(mark).ravel()}


def _weights(graph: Graph, spread: Spread, node: Node) -> set[Value]:
    """The bound arrays that the weights of a node are made of."""
    found, todo = set[Value](), [value for value in node.inputs[:2] if value in spread.known]
    while todo:
        value = todo.pop()
        if value in graph.bound:
            found.add(value)
        elif value in graph.producer:
            todo += graph.producer[value].inputs
    return found


@dataclass(frozen=True)
class RemoveChannels:
    """A smaller graph: without some outputs of weights, and without all that must go with them.

    Args:
        removed: name of a bound value -> (axis, indices).

    Raises (when called):
        PassError: there is no such value, axis or index; something must stay (the message says why); an axis would be
            left empty.
    """

    removed: Mapping[str, tuple[int, Sequence[int]]]

    def __call__(self, graph: Graph, /) -> Graph:
        graph = RemoveDead()(graph)
        spread = Spread().through(graph)
        gone = self._roots(graph, spread)
        keeps = {value: _kept(spread, value, gone, graph) for value in spread.marks}
        bound = {value: np.ascontiguousarray(array[np.ix_(*keeps[value])]) for value, array in graph.bound.items()}
        same: dict[Value, Value] = {}
        for value in graph.inputs:
            shape = bound[value].shape if value in bound else value.shape
            same[value] = value if shape == value.shape else Value(type(value.type)(value.dtype, shape), value.hint)
        nodes = [_smaller(node, same, keeps) for node in graph.nodes]
        return verify(graph.with_(inputs=tuple(same[v] for v in graph.inputs), nodes=tuple(nodes),
                                  outputs=tuple(same[v] for v in graph.outputs),
                                  bound={same[value]: array for value, array in bound.items()}))

    def _roots(self, graph: Graph, spread: Spread) -> set[int]:
        names = {graph.names[value]: value for value in graph.bound}
        gone: set[int] = set()
        for name, (axis, places) in self.removed.items():
            if name not in names:
                raise PassError(f"RemoveChannels: {graph.name} has no bound value {name!r}; it has {listing(names)}")
            mark = next((m for m in spread.marks[names[name]] if axes_of(m) == (axis,)), None)
            if mark is None or not all(0 <= place < mark.size for place in places):
                raise PassError(f"RemoveChannels: {name}: {names[name].type} has no elements {list(places)!r:.60} on "
                                f"axis {axis}, or only one there")
            for place in places:
                root = spread.labels.find(int(mark.ravel()[place]))
                if root in spread.labels.reasons:
                    raise PassError(f"RemoveChannels: element {place} of axis {axis} of {name} must stay: "
                                    f"{spread.labels.reasons[root]}")
                gone.add(root)
        return gone


def _kept(spread: Spread, value: Value, gone: set[int], graph: Graph) -> list[np.ndarray]:
    """For each axis of a value, whether its elements stay."""
    keep = [np.ones(extent, bool) for extent in value.shape]
    for mark in spread.marks[value]:
        roots = spread.labels.roots(mark)
        for root in gone.intersection(np.unique(roots).tolist()):
            inside = roots == root
            for axis in axes_of(mark):
                others = tuple(a for a in range(mark.ndim) if a != axis)
                if (inside.all(others) == inside.any(others)).all():
                    keep[axis] &= ~inside.any(others)
                    break
    if value.type.size and not all(k.any() for k in keep):
        name = graph.names.get(value, value.hint)
        raise PassError(f"RemoveChannels: nothing of {name}: {value.type} would be left; remove less")
    return keep


def _smaller(node: Node, same: dict[Value, Value], keeps: Mapping[Value, list[np.ndarray]]) -> Node:
    inputs, attrs = tuple(same[v] for v in node.inputs), dict(node.attrs)
    shapes = [tuple(int(k.sum()) for k in keeps[value]) for value in node.outputs]
    if node.op is ops.slice:
        before = keeps[node.inputs[0]]
        attrs["start"] = tuple(int(k[:first].sum()) for k, first in zip(before, attrs["start"], strict=True))
        attrs["size"] = shapes[0]
    elif "shape" in attrs and node.inputs:
        attrs["shape"] = shapes[0]
    if node.op in CHANNELS:
        of_x, of_weight = CHANNELS[node.op]
        attrs["groups"] = inputs[0].shape[of_x] // inputs[1].shape[of_weight]
    if inputs == node.inputs and attrs == node.attrs:
        made = node
    else:
        made = make_node(node.op, inputs, attrs, node.source)
    if [v.shape for v in made.outputs] != shapes:
        raise PassError(f"RemoveChannels: {node.op} would give {made.output.type}, expected {shapes[0]}")
    same.update(zip(node.outputs, made.outputs, strict=True))
    return made
