"""The loop nest that a group of pointwise ops and reductions shares: fusion asks for it, the emitter fills it.

Each axis of each value belongs to a *loop* (axes of extent 1 to none). Two axes are the same loop if a pointwise op
walks them together; loops are ordered as the axes are. A loop that a reduction folds is *reduced*. `find_domain` gives
None where the group is no such nest.

    >>> from tinytorch.ir import Builder, f32, ops
    >>> build = Builder("softmax")
    >>> with build: y = ops.softmax.expand(build.input("x", f32[4, 8]), axis=1)
    >>> domain = find_domain(build.finish([y]))
    >>> domain.extents, domain.reduced
    ((4, 8), frozenset({1}))
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from .graph import Graph, Node, Value
from .op import Kind

Axis = tuple[Value, int]


@dataclass(frozen=True)
class Domain:
    """Loops from the outermost to the innermost; `loops[value]` names the loop of each axis of a value
    (None for extent 1)."""

    extents: tuple[int, ...]
    reduced: frozenset[int]
    loops: dict[Value, tuple[int | None, ...]]

    def of(self, value: Value) -> frozenset[int]:
        """The loops that a value varies over."""
        return frozenset(loop for loop in self.loops[value] if loop is not None)


def is_loop_op(node: Node) -> bool:
    """Whether a node can be part of a loop nest."""
    kind, name = node.op.kind, node.op.name
    if kind in (Kind.POINTWISE, Kind.REDUCE, Kind.RANDOM):
        return node.op.scalar is not None
    if name == "constant":
        return node.output.type.size == 1
    return name in ("iota", "broadcast_to") or (name == "reshape" and is_unit_reshape(node))


def is_unit_reshape(node: Node) -> bool:
    """Whether a reshape only adds or drops axes of extent 1."""
    return [n for n in node.inputs[0].shape if n != 1] == [n for n in node.output.shape if n != 1]


class _Union:
    def __init__(self) -> None:
        self.parent: dict[Axis, Axis] = {}

    def find(self, axis: Axis) -> Axis:
        root = axis
        while self.parent.setdefault(root, root) != root:
            root = self.parent[root]
        while self.parent[axis] != root:
            self.parent[axis], axis = root, self.parent[axis]
        return root

    def join(self, a: Axis, b: Axis) -> None:
        self.parent[self.find(a)] = self.find(b)


def find_domain(body: Graph) -> Domain | None:
    """The loop nest of `body`, or None if its axes do not line up in one (an axis would be walked twice,
    or in two orders), or some op is not of a kind that has one."""
    if not all(map(is_loop_op, body.nodes)):
        return None
    union = _Union()
    values = [*body.inputs, *(v for node in body.nodes for v in node.outputs)]
    folded = [axis for node in body.nodes for axis in _relate(union, node)]
    order = _order(union, values)
    if order is None:
        return None
    number = {root: n for n, root in enumerate(order)}
    loops = {v: tuple(None if n == 1 else number[union.find((v, a))] for a, n in enumerate(v.shape)) for v in values}
    extents = [1] * len(order)
    for value in values:
        for loop, extent in zip(loops[value], value.shape, strict=True):
            if loop is not None:
                if extents[loop] not in (1, extent):
                    return None
                extents[loop] = extent
    reduced = frozenset(number[union.find(axis)] for axis in folded if axis[0].shape[axis[1]] != 1)
    return Domain(tuple(extents), reduced, loops)


def _relate(union: _Union, node: Node) -> list[Axis]:
    """Join the axes that `node` walks together; gives those it folds."""
    out = node.outputs[0]
    if node.op.kind is Kind.REDUCE:
        axes = node.attrs["axis"]
        rest = [a for a in range(len(node.inputs[0].shape)) if a not in axes]
        places = rest if node.attrs["keepdims"] else range(len(rest))
        for axis, place in zip(rest, places, strict=True):
            union.join((node.inputs[0], axis), (out, place))
        return [(node.inputs[0], a) for a in axes]
    if node.op.name == "reshape":
        pairs = zip(*([(v, a) for a, n in enumerate(v.shape) if n != 1] for v in (node.inputs[0], out)), strict=True)
        for a, b in pairs:
            union.join(a, b)
        return []
    for value in node.inputs:
        if node.op.kind is Kind.RANDOM:
            break
        shift = len(out.shape) - len(value.shape)
        for axis, extent in enumerate(value.shape):
            if extent != 1:
                union.join((value, axis), (out, axis + shift))
    return []


def _order(union: _Union, values: list[Value]) -> list[Axis] | None:
    """The loops so that every value's axes come in order; None if that cannot be."""
    after: dict[Axis, set[Axis]] = {}
    for value in values:
        roots = [union.find((value, a)) for a, n in enumerate(value.shape) if n != 1]
        for root in roots:
            after.setdefault(root, set())
        for first, second in pairwise(roots):
            after[first].add(second)  # itself, where a value walks one loop along two axes: a circle too
    waiting = dict.fromkeys(after, 0)
    for followers in after.values():
        for root in followers:
            waiting[root] += 1
    order: list[Axis] = []
    ready = [root for root, count in waiting.items() if count == 0]
    while ready:
        root = ready.pop(0)
        order.append(root)
        for follower in after[root]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready.append(follower)
    return order if len(order) == len(after) else None
