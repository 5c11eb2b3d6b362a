"""Give every intermediate value its place in one arena, so that a program allocates nothing while it runs.

    plan = plan_memory(graph)
    plan.size                   bytes of the arena: the predicted peak of the intermediates
    plan.offsets[value]         where a value lies, 64-byte aligned
    plan.reuses[value]          the value whose memory it takes over in place (ask again for that one; maybe an input)

A value lives from the node that makes it to the last that reads it, itself or through a view. Two whose lives overlap
must not overlap in memory: intervals in time are packed greedily, the biggest first, each in the tightest gap
(Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020); if that exceeds the most that
lives at once, other orders are tried and the best is kept.

Not in the arena: graph inputs; constants (the runtime makes them once); graph outputs, which are fresh arrays. An
output that is a view, an input or a constant is copied at the end, so its root lives until then. An output that
overwrites an input (`graph.donated`) is written there directly if no one reads the old value afterwards:
`reuses[output] = input`. Otherwise it gets a place in the arena and is copied at the end.

In place means: the node computes element by element, and reads the dying operand at the very index it writes. Kernels
must load before they store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

from tinytorch.ir import Graph, Kind, MemoryPlan, Node, Value, ops
from tinytorch.ir.domain import find_domain
from tinytorch.ir.layout import Layout, layouts

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def plan_memory(graph: Graph, *, in_place: bool = True) -> MemoryPlan:
    """The places of `graph`'s intermediate values.

    With `in_place=False` none takes over the memory of another; donations stay.
    """
    lives = Lives(graph)
    reuses = lives.donations()
    owners = lives.residents(reuses)
    if in_place:
        reuses |= lives.takeovers(owners)
    buffers = [_Buffer(v, _aligned(v.type.nbytes), lives.born[v], lives.dies[v]) for v in owners if v not in reuses]
    by_value = {buffer.value: buffer for buffer in buffers}
    for value in owners:
        if value in reuses:  # the one it takes over comes earlier, and is resolved already
            by_value[value] = buffer = by_value[reuses[value]]
            buffer.last = max(buffer.last, lives.dies[value])
    size = place(buffers)
    return MemoryPlan({b.value: b.offset for b in buffers}, size, reuses)


def most_alive(graph: Graph, plan: MemoryPlan) -> int:
    """The most bytes that live at one time: no plan with these reuses can be smaller."""
    lives = Lives(graph)
    spans = {v: [lives.born[v], lives.dies[v]] for v in plan.offsets}
    for value in plan.reuses:
        owner = value
        while owner in plan.reuses:
            owner = plan.reuses[owner]
        if owner in spans:
            spans[owner][1] = max(spans[owner][1], lives.dies[value])
    return _peak((_aligned(v.type.nbytes), first, last) for v, (first, last) in spans.items())


def alive_at(lives: Lives, residents: Iterable[Value]) -> list[int]:
    """The bytes of `residents` that live while each node runs."""
    changes = [0] * (len(lives.graph.nodes) + 2)
    for value in residents:
        changes[lives.born[value]] += value.type.nbytes
        changes[lives.dies[value] + 1] -= value.type.nbytes
    return list(accumulate(changes))[:len(lives.graph.nodes)]


# -- who lives when ----------------------------------------------------------------------------------------------------


class Lives:
    """When each root is made and read for the last time, by node number; results live until after the last node."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.where = layouts(graph)
        self.born: dict[Value, int] = {}
        self.dies: dict[Value, int] = {}
        for number, node in enumerate(graph.nodes):
            if self.is_alias(node):
                continue
            self.dies |= dict.fromkeys((self.root(v) for v in node.inputs), number)
            self.born |= dict.fromkeys(node.outputs, number)
            self.dies |= dict.fromkeys(node.outputs, number)
        self.last_read = dict(self.dies)  # by nodes alone
        self.dies |= dict.fromkeys(map(self.root, graph.outputs), len(graph.nodes))

    def root(self, value: Value) -> Value:
        """The value that owns the memory."""
        return self.where[value].root

    def is_alias(self, node: Node) -> bool:
        """Whether a node only looks at memory in another way, and so never runs."""
        return node.op.kind is Kind.VIEW and self.root(node.output) is not node.output

    def donations(self) -> dict[Value, Value]:
        """Values that can be written straight into the input that they are to overwrite."""
        graph = self.graph
        kept = set(map(self.root, graph.outputs))  # inputs that are also given back must keep their old value
        found: dict[Value, Value] = {}
        for output, position in graph.donated.items():
            target, given = graph.inputs[position], graph.outputs[output]
            value = self.root(given)
            if value not in self.born or value in found or target in kept:
                continue
            if not _is_whole(self.where[given], value.type.size, given):
                continue
            node, last = graph.nodes[self.born[value]], self.last_read.get(target, -1)
            in_time = last < self.born[value] or (last == self.born[value] and self.same_index(node, value, target))
            if in_time and node.op.kind is not Kind.SOURCE:
                found[value] = target
        return found

    def residents(self, placed: dict[Value, Value]) -> list[Value]:
        """The values that need a place in the arena, in the order they are made."""
        graph = self.graph
        fresh = {v for number, v in enumerate(graph.outputs) if number not in graph.donated}
        return [v for v, number in self.born.items()
                if v not in fresh and v not in placed and graph.nodes[number].op.kind is not Kind.SOURCE]

    def takeovers(self, owners: list[Value]) -> dict[Value, Value]:
        """For each value that can be computed in place: the dying operand it replaces."""
        found: dict[Value, Value] = {}
        available = set(owners)
        for value in owners:
            node = self.graph.nodes[self.born[value]]
            for operand in node.inputs:
                root = self.root(operand)
                in_time = root in available and self.dies[root] == self.born[value] != self.born[root]
                if in_time and self.same_index(node, value, root):
                    available.discard(root)  # a place can be taken over once
                    found[value] = root
                    break
        return found

    def same_index(self, node: Node, out: Value, root: Value) -> bool:
        """Whether `node` reads the memory of `root` only at the index at which it writes `out`, packed alike."""
        if root.type.size != out.type.size or root.dtype is not out.dtype:
            return False
        if node.body is None and any(v.shape != out.shape for v in node.outputs):
            return False
        places = [place for place, v in enumerate(node.inputs) if self.root(v) is root]
        operands = [node.inputs[place] for place in places]
        alike = all(v.shape == out.shape and _is_whole(self.where[v], root.type.size, v) for v in operands)
        return alike and _is_elementwise(node, places, node.outputs.index(out))


def _is_whole(layout: Layout, size: int, value: Value) -> bool:
    return layout.offset == 0 and value.type.size == size and layout.is_packed(value.shape)


def _is_elementwise(node: Node, places: Iterable[int], number: int) -> bool:
    """Whether nothing is read of the operands at `places`, once an element of result `number` is written, but what has
    another index."""
    if node.op.kind is Kind.POINTWISE:
        return True
    if node.op is ops.write_rows:
        return list(places) == [0]
    body = node.body
    if body is None:
        return False
    reached, alone = {body.inputs[place] for place in places}, True
    for inner in body.nodes:
        if not reached.isdisjoint(inner.inputs):
            alone &= inner.op.kind is Kind.POINTWISE
            reached.update(inner.outputs)
    if node.attrs["style"] != "reduce":
        return alone
    return (alone and _is_after_one_fold(body, places)) or _is_read_by_then(body, places, body.outputs[number])


def _is_after_one_fold(body: Graph, places: Iterable[int]) -> bool:
    """Whether these operands of a reduction are read only where its results are finished.

    They do not vary along what is folded, and there is one stage of folding (else a finished result might be read
    again).
    """
    domain = find_domain(body)
    if domain is None or any(domain.of(body.inputs[place]) & domain.reduced for place in places):
        return False
    folded: set[Value] = set()
    for inner in body.nodes:
        behind = not folded.isdisjoint(inner.inputs)
        if inner.op.kind is Kind.REDUCE and behind:
            return False
        if behind or inner.op.kind is Kind.REDUCE:
            folded.update(inner.outputs)
    return True


def _is_read_by_then(body: Graph, places: Iterable[int], out: Value) -> bool:
    """Whether no stage of a reduction after the one that writes `out` reads these operands, all of the whole domain.

    A stage is a walk over the domain; what later stages need of an earlier one, they compute again.
    """
    domain = find_domain(body)
    reached = {body.inputs[place] for place in places}
    if domain is None or any(len(domain.of(v)) < len(domain.extents) for v in (out, *reached)):
        return False
    stages: dict[Value, int] = dict.fromkeys(body.inputs, 0)
    for inner in body.nodes:
        stage = max((stages[v] for v in inner.inputs), default=0)
        folds = inner.op.kind is Kind.REDUCE
        stages |= dict.fromkeys(inner.outputs, stage + folds)
        if not reached.isdisjoint(inner.inputs) and not folds:
            if inner.op.kind is not Kind.POINTWISE:
                return False
            reached.update(inner.outputs)
    walks = [stages[v] for v in reached]
    return max(walks) <= stages[out]


# -- packing -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Buffer:
    """A block of memory that is in use from node `first` to node `last`, both included."""

    value: Value
    size: int
    first: int
    last: int
    offset: int = 0


_ORDERS: tuple[Callable[[_Buffer], tuple[int, ...]], ...] = (
    lambda b: (-b.size, b.first),  # the biggest first
    lambda b: (-(b.last - b.first + 1) * b.size, b.first),  # the most bytes · time first
    lambda b: (b.first - b.last, -b.size),  # the longest lived first
    lambda b: (b.first, -b.size),  # as they are made
)


def place(buffers: list[_Buffer]) -> int:
    """Set the offsets of `buffers`; the size of the arena that holds them."""
    least = _peak((b.size, b.first, b.last) for b in buffers)
    best: tuple[int, list[int]] | None = None
    for order in _ORDERS:
        size = _place_in_order(sorted(buffers, key=order))
        if best is None or size < best[0]:
            best = size, [b.offset for b in buffers]
        if size == least:
            break
    assert best is not None
    for buffer, offset in zip(buffers, best[1], strict=True):
        buffer.offset = offset
    return best[0]


def _place_in_order(buffers: list[_Buffer]) -> int:
    placed: list[_Buffer] = []  # by offset
    size = 0
    for buffer in buffers:
        alive = [b for b in placed if b.first <= buffer.last and buffer.first <= b.last]
        buffer.offset = _tightest_gap(alive, buffer.size)
        size = max(size, buffer.offset + buffer.size)
        at = next((i for i, b in enumerate(placed) if b.offset > buffer.offset), len(placed))
        placed.insert(at, buffer)
    return size


def _tightest_gap(alive: list[_Buffer], size: int) -> int:
    """The offset of the smallest gap between `alive` (sorted by offset) that holds `size` bytes, or the end."""
    end, best, spare = 0, -1, -1
    for buffer in alive:
        gap = buffer.offset - end
        if gap >= size and (best < 0 or gap < spare):
            best, spare = end, gap
        end = max(end, buffer.offset + buffer.size)
    return best if best >= 0 else end


def _peak(spans: Iterable[tuple[int, int, int]]) -> int:
    changes: dict[int, int] = {}
    for size, first, last in spans:
        changes[first] = changes.get(first, 0) + size
        changes[last + 1] = changes.get(last + 1, 0) - size
    alive = most = 0
    for time in sorted(changes):
        alive += changes[time]
        most = max(most, alive)
    return most


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
