"""Fit a program into a memory budget: compute values again instead of keeping them.

    Rematerialize(0.5)(graph)           # half the memory that the plan of this graph needs
    Rematerialize(200 << 20)(graph)     # 200 MiB

The backward pass of a training step reads what the forward pass has made long before. Here some of it is let go, and
made again right before it is read (Griewank, 1992; Chen et al., "Training deep nets with sublinear memory cost", 2016).
This is the last pass: nodes are kernels, their order stands, and so does the plan of memory, so that what is counted is
what will be used, and nothing after it can undo it. A copy runs the very kernel of the original, and so all numbers are
the same, bit for bit.

Which values, is found by walks (`passes/eviction.py`) with several limits and scores, each the better for what the one
before has found out; what there is room to keep after all is kept. The cheapest whose plan fits is taken. Where
that is not enough, updates of parameters run as soon as they can, in small graphs too, which `OrderNodes` leaves alone.

    >>> from tinytorch.ir import Builder, f32, ops
    >>> from tinytorch.passes import plan_memory
    >>> build = Builder()
    >>> with build:
    ...     kept = [build.input("x", f32[1024])]
    ...     for _ in range(8): kept.append(ops.tanh(kept[-1]))
    ...     total = kept.pop()
    ...     while kept: total = total * kept.pop()
    >>> graph = build.finish([total])
    >>> plan_memory(graph).size, plan_memory(Rematerialize(0.5)(graph)).size
    (32768, 16384)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from tinytorch.ir import Graph, Node, Value
from tinytorch.ir.errors import BudgetError, PassError

from .eviction import Facts, Move, Walk, can_write_less, peak, with_fewer, without_unread
from .order_nodes import SLACK, Demand
from .plan_memory import plan_memory
from .remove_dead import RemoveDead

LIMITS = (1.15, 1.0, 0.9, 0.75)  # of the budget, for walks: hints keep more alive, or less, than is needed
SCORES = ((1.0, 1.0), (1.0, 0.5), (1.0, 2.0))  # how much bytes count, and how much time
ROUNDS = 3  # walks that learn from one another
TIGHT = (0.5, 0.35, 0.25, 0.18, 0.12, 0.0)  # of all: where to look for the smallest budget
BEST = 6  # of the ways that fit: those that are looked at closely
TRIES = 3  # to name a smaller budget
MANY = 1000  # nodes: of more, fewer walks are tried
MARGINS = (1.0, 0.97, 0.93, 0.88)  # of the budget: plans have gaps


@dataclass(frozen=True)
class Rematerialize:
    """Compute again what does not fit; a graph that fits is left alone.

    Args:
        budget: bytes of intermediates (`plan_memory(graph).size`), or, as a float up to 1, the part of what the plan
            of the given graph needs.
    Raises:
        BudgetError: no way was found to need so little; it names the smallest budget that can be met.
        PassError: the budget is no number of bytes.
    """

    budget: int | float

    def __call__(self, graph: Graph, /) -> Graph:
        graph = RemoveDead()(graph)
        whole = plan_memory(graph).size
        budget = bytes_of(self.budget, whole)
        if whole <= budget:
            return graph
        smallest = whole
        for each in dict.fromkeys((graph, with_updates_early(graph))):
            facts = Facts(each)
            found = _fitted(facts, budget)
            if found is not None:
                return found
            smallest = _smallest(facts, smallest)
        raise BudgetError(f"Rematerialize({self.budget}): the intermediates of {graph.name} need {whole:,} bytes, and "
                          f"{smallest:,} with all computed again that can be; {budget:,} are not enough. The smallest "
                          f"budget that can be met is {smallest}", smallest)


def with_updates_early(graph: Graph) -> Graph:
    """Nodes that need next to no memory, such as those that overwrite parameters, run as soon as they can."""
    demand = Demand(graph)
    waits = list(map(len, demand.before))
    done = [False] * len(waits)
    order: list[int] = []

    def run(first: int) -> None:
        stack = [first]
        while stack:
            number = stack.pop()
            done[number] = True
            order.append(number)
            for follower in demand.after[number]:
                waits[follower] -= 1
                if not waits[follower] and demand.takes[follower] <= SLACK:
                    stack.append(follower)

    numbers = range(len(waits))
    for number in (*(n for n in numbers if not waits[n] and demand.takes[n] <= SLACK), *numbers):
        if not done[number]:
            run(number)
    return graph if order == sorted(order) else graph.with_(nodes=tuple(graph.nodes[number] for number in order))


def _smallest(facts: Facts, known: int) -> int:
    """A budget that can be met, as small as a few tries find, or the `known` one."""
    found = min((plan_memory(rebuilt(facts, moves)).size for moves in _tight(facts)), default=known)
    if found >= known:
        return known
    impossible = facts.least - 1
    for _ in range(TRIES):
        between = (found + impossible) // 2
        graph = _fitted(facts, between)
        found, impossible = (found, between) if graph is None else (plan_memory(graph).size, impossible)
    return found


def _fitted(facts: Facts, budget: int) -> Graph | None:
    """The graph within the budget, if a way is found."""
    if budget < facts.least:
        return None
    for moves in chain(_promising(facts, budget), _tight(facts)):
        if peak(facts, moves) <= budget:
            found = rebuilt(facts, moves)
            if plan_memory(found).size <= budget:
                return found
    return None


def bytes_of(budget: int | float, whole: int) -> int:
    """A budget in bytes, where `whole` is all that could be needed.

    Raises:
        PassError: it is neither a number of bytes nor a part.
    """
    is_number = isinstance(budget, (int, float)) and not isinstance(budget, bool)
    if not is_number or not budget > 0:
        raise PassError(f"Rematerialize(budget={budget!r}): expected a number of bytes > 0, or a part such as 0.5")
    return int(budget * whole) if isinstance(budget, float) and budget <= 1 else int(budget)


def _promising(facts: Facts, budget: int) -> Iterator[list[Move]]:
    """Ways that should fit, the cheapest first, and then ways with some room to spare."""
    many = len(facts.runs) > MANY
    limits, scores = (LIMITS[1:], SCORES[:1]) if many else (LIMITS, SCORES)
    found = (without_unread(facts, walk.moves) for part in limits for walk in _walks(facts, int(part * budget), scores))
    ways = sorted(dict.fromkeys(map(tuple, found)), key=facts.extra_time)
    peaks = [peak(facts, moves) for moves in ways]
    for margin in MARGINS:
        aim = int(margin * budget)
        fitting = islice((moves for moves, most in zip(ways, peaks, strict=True) if most <= aim), BEST)
        yield from sorted((with_fewer(facts, moves, aim) for moves in fitting), key=facts.extra_time)[:2]


def _tight(facts: Facts) -> Iterator[list[Move]]:
    """Ways that need as little as possible, whatever they cost; not all of them need less than the one before."""
    whole = sum(facts.size.values())
    for part in TIGHT:
        for walk in _walks(facts, int(part * whole), SCORES[:1]):
            yield without_unread(facts, walk.moves)


def _walks(facts: Facts, limit: int, scores: Iterable[tuple[float, float]]) -> Iterator[Walk]:
    for bytes_count, gap_counts in scores:
        hints: dict[Value, list[int]] = {}
        for _ in range(ROUNDS):
            walk = Walk(facts, limit, bytes_count, gap_counts, hints)
            if not walk.moves:
                break  # given up
            hints = {value: sorted(readers) for value, readers in walk.reread.items()}
            yield walk


def rebuilt(facts: Facts, moves: Sequence[Move]) -> Graph:
    """The graph in which nodes run as `moves` say; kernels write only what somebody reads."""
    graph, lives = facts.graph, facts.lives
    nodes: list[Node] = []
    latest: dict[Value, Value] = {}
    seen: dict[Value, tuple[Value, Value]] = {}  # a view, of what, and what it is now

    def now(value: Value) -> Value:
        node = graph.producer.get(value)
        if node is None or not lives.is_alias(node):
            return latest.get(value, value)
        base = now(node.inputs[0])
        if value not in seen or seen[value][0] is not base:
            view = node if base is node.inputs[0] else _copy(node, (base,), node.outputs)
            nodes.append(view)
            seen[value] = base, view.output
        return seen[value][1]

    for move in moves:
        node = graph.nodes[move.number]
        inputs = tuple(map(now, node.inputs))
        copy = _copy(node, inputs, node.outputs if move.again is not None else ())
        nodes.append(copy)
        latest |= {old: new for old, new in zip(node.outputs, copy.outputs, strict=True)
                   if move.again is None or old in move.again}
    outputs = tuple(map(now, graph.outputs))
    return _without_unread_results(graph.with_(nodes=tuple(nodes), outputs=outputs))


def _copy(node: Node, inputs: tuple[Value, ...], fresh: Iterable[Value]) -> Node:
    """`node` with other operands, and results of its own in place of those in `fresh`."""
    fresh = set(fresh)
    outputs = tuple(Value(v.type, v.hint) if v in fresh else v for v in node.outputs)
    return replace(node, inputs=inputs, outputs=outputs)


def _without_unread_results(graph: Graph) -> Graph:
    """Kernels write only what somebody reads."""
    read = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        places = [place for place, v in enumerate(node.outputs) if v in read]
        if 0 < len(places) < len(node.outputs) and can_write_less(node):
            node = _narrowed(node, places)
        if places:
            read.update(node.inputs)
        nodes.append(node)
    return RemoveDead()(graph.with_(nodes=tuple(reversed(nodes))))


def _narrowed(node: Node, places: Sequence[int]) -> Node:
    """A kernel with these results alone, and the operands that they need."""
    assert node.body is not None
    body = RemoveDead()(node.body.with_(outputs=tuple(node.body.outputs[place] for place in places)))
    used = {v for inner in body.nodes for v in inner.inputs}
    kept = [place for place, v in enumerate(body.inputs) if v in used]
    body = body.with_(inputs=tuple(body.inputs[place] for place in kept))
    return replace(node, inputs=tuple(node.inputs[place] for place in kept),
                   outputs=tuple(node.outputs[place] for place in places), attrs={**node.attrs, "body": body})
