"""Walk through a graph with a limit on memory, letting go of values and making them again: what `Rematerialize` tries.

    facts = Facts(graph)
    moves = Walk(facts, limit=10 << 20).moves       # which node runs when; one that runs again says for which results
    peak(facts, moves)                              # the most bytes that are then alive
    with_fewer(facts, moves, budget)                # the same, keeping what there is room for after all

Nodes run in the order of the graph. Where the next one would have more than `limit` bytes alive, values are let go
first: of those that are read again, the one with the smallest

    time to make it again / (bytes · how long it is not read)

(Kirisame et al., "Dynamic tensor rematerialization", ICLR 2021, section 3; but here the future is known, so staleness
is the distance to the next reader, and the time is that of all that must be made again for it.) Right before its next
reader it is made again, by copies of the nodes that made it, from whatever is alive then. What those copies read is
known after one walk; a second one keeps it, as long as there is room.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tinytorch.ir import Graph, Node, Value, node_cost

from .plan_memory import ALIGNMENT, Lives

# Nanoseconds on a processor of today: only their ratios matter.
NS_PER_FLOP, NS_PER_TRANSCENDENTAL, NS_PER_BYTE = 0.01, 0.2, 0.1
MOST_EXTRA = 4.0  # who would want that
SMALL = 1 << 10  # bytes: a new value of an input that waits so long in memory of its own costs next to nothing

Uses = Mapping[Value, Sequence[int]]


class Facts:
    """What a walk must know of a graph; nodes are named by their numbers, values by the one that owns the memory."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lives = lives = Lives(graph)
        donations = lives.donations()
        managed = lives.residents(donations)
        self.size = {v: -(-v.type.nbytes // ALIGNMENT) * ALIGNMENT for v in managed}
        self.made = {v: lives.born[v] for v in managed}
        self.takeovers = lives.takeovers(managed)
        self.runs = [number for number, node in enumerate(graph.nodes) if not lives.is_alias(node)]
        self.reads: dict[int, list[Value]] = {}
        self.makes: dict[int, list[Value]] = {}
        self.uses: dict[Value, list[int]] = {v: [] for v in managed}
        for number in self.runs:
            node = graph.nodes[number]
            self.reads[number] = [v for v in dict.fromkeys(map(lives.root, node.inputs)) if v in self.size]
            self.makes[number] = [v for v in node.outputs if v in self.size]
            for value in self.reads[number]:
                self.uses[value].append(number)
        for value in map(lives.root, graph.outputs):
            if value in self.size:
                self.uses[value].append(len(graph.nodes))
        self.until = self._until({target: lives.born[v] for v, target in donations.items()
                                  if target.type.nbytes > SMALL})

    def _until(self, overwritten: Mapping[Value, int]) -> dict[Value, int]:
        """Up to which node each value can be made again: up to the one that overwrites an input it is made of. A small
        input, such as the key of a random mask, is overwritten at the end if somebody reads it late."""
        until: dict[Value, int] = {}
        for node in self.graph.nodes:
            last = min((until.get(v, overwritten.get(v, len(self.graph.nodes))) for v in node.inputs),
                       default=len(self.graph.nodes))
            until |= dict.fromkeys(node.outputs, last)
        return until

    @cached_property
    def time(self) -> dict[int, float]:
        """Nanoseconds that each node may need."""
        costs = {number: node_cost(self.graph.nodes[number]) for number in self.runs}
        return {number: NS_PER_FLOP * cost.flops + NS_PER_TRANSCENDENTAL * cost.transcendentals
                + NS_PER_BYTE * cost.bytes for number, cost in costs.items()}

    @cached_property
    def whole_time(self) -> float:
        """Nanoseconds that the graph may need."""
        return sum(self.time.values())

    @cached_property
    def least(self) -> int:
        """Bytes without which some node cannot run, whatever else is let go."""
        graph, lives = self.graph, self.lives

        def takes(number: int, value: Value) -> int:
            in_place = any(lives.same_index(graph.nodes[number], value, root) for root in self.reads[number])
            return 0 if in_place else self.size[value]

        needs = (sum(map(self.size.__getitem__, self.reads[number]))
                 + max((takes(number, v) for v in self.makes[number]), default=0) for number in self.runs)
        return max(needs, default=0)

    def extra_time(self, moves: Iterable[Move]) -> float:
        """Nanoseconds of all that runs again."""
        return sum(self.time[move.number] for move in moves if move.again is not None)


@dataclass(frozen=True)
class Move:
    """Node `number` runs; with `again`, for these results alone."""

    number: int
    again: frozenset[Value] | None = None


class Walk:
    """One way through the graph.

    Args:
        limit: bytes that may be alive at once. A node that needs more by itself gets it.
        bytes_count, gap_counts: exponents of the bytes, and of the distance to the next reader, in the score.
        hints: readers beyond those of the graph.
    Attributes:
        moves: what runs, in order; nothing, if that would take `MOST_EXTRA` times as long as the graph, and more.
        extra: nanoseconds of what runs again.
        reread: who read what besides, as hints for another walk.
    """

    def __init__(self, facts: Facts, limit: int, bytes_count: float = 1.0, gap_counts: float = 1.0,
                 hints: Uses | None = None) -> None:
        self.facts, self.limit = facts, limit
        self.exponents = bytes_count, gap_counts
        self.uses = facts.uses if not hints else {
            v: sorted({*uses, *hints.get(v, ())}) for v, uses in facts.uses.items()}
        self.alive: dict[Value, None] = {}
        self.bytes = 0
        self.moves: list[Move] = []
        self.extra = 0.0
        self.reread: dict[Value, set[int]] = {}
        for number in facts.runs:
            self._run(number)
            if self.extra > MOST_EXTRA * facts.whole_time:
                self.moves = []
                break

    def _run(self, now: int) -> None:
        facts = self.facts
        again = self._closure([v for v in facts.reads[now] if v not in self.alive])
        locks: dict[Value, int] = {}
        for number in (*again, now):
            for value in facts.reads[number]:
                locks[value] = locks.get(value, 0) + 1
        for number in again:
            wanted = [v for v in facts.makes[number] if v not in self.alive and (v in locks or self._next(v, now))]
            self._room(wanted, now, locks)
            self.moves.append(Move(number, frozenset(wanted)))
            self.extra += facts.time[number]
            for value in facts.reads[number]:
                self.reread.setdefault(value, set()).add(now)
            self._done(number, wanted, now, locks)
        made = facts.makes[now]
        dying = {v for v in facts.reads[now] if self._next(v, now + 1) is None}
        self._room([v for v in made if facts.takeovers.get(v) not in dying], now, locks)
        self.moves.append(Move(now))
        self._done(now, made, now + 1, locks)

    def _done(self, number: int, made: Iterable[Value], now: int, locks: dict[Value, int]) -> None:
        """Node `number` has run: its results live, and what nobody will read does not."""
        for value in made:
            self.alive[value] = None
            self.bytes += self.facts.size[value]
        for value in self.facts.reads[number]:
            locks[value] -= 1
        for value in (*self.facts.reads[number], *made):
            if value in self.alive and not locks.get(value) and self._next(value, now) is None:
                self._free(value)

    def _free(self, value: Value) -> None:
        del self.alive[value]
        self.bytes -= self.facts.size[value]

    def _next(self, value: Value, now: int) -> int | None:
        """The first reader from `now` on."""
        uses = self.uses[value]
        place = bisect_left(uses, now)
        return uses[place] if place < len(uses) else None

    def _closure(self, values: Iterable[Value]) -> list[int]:
        """The nodes that make these of what else is alive, in order."""
        found: set[int] = set()
        stack = list(values)
        while stack:
            number = self.facts.made[stack.pop()]
            if number not in found:
                found.add(number)
                stack += [v for v in self.facts.reads[number] if v not in self.alive]
        return sorted(found)

    def _room(self, values: Iterable[Value], now: int, locks: Mapping[Value, int]) -> None:
        """Let go of others until these fit, or nothing else can go."""
        wanted = sum(self.facts.size[v] for v in values)
        while self.bytes + wanted > self.limit:
            scores = [(score, number, v) for number, v in enumerate(self.alive)
                      if not locks.get(v) and (score := self._score(v, now)) is not None]
            if not scores:
                return
            self._free(min(scores, key=lambda item: item[:2])[2])

    def _score(self, value: Value, now: int) -> float | None:
        """What it costs to let go of a value now, for what it brings; None if that is nothing, or it cannot be made
        again in time."""
        facts, following = self.facts, self._next(value, now)
        if not facts.size[value]:
            return None
        if following is None:
            return 0.0
        uses = facts.uses[value]
        place = bisect_left(uses, now)
        if place < len(uses) and uses[place] > min(facts.until[value], len(facts.graph.nodes) - 1):
            return None
        time = sum(facts.time[number] for number in self._closure([value]))
        bytes_count, gap_counts = self.exponents
        return time / (facts.size[value] ** bytes_count * (following - now + 1) ** gap_counts)


def can_write_less(node: Node) -> bool:
    """Whether a kernel may leave out results that nobody reads, and give the others bit for bit: where elements are on
    their own. In one that folds, the order of a sum might be another."""
    return node.body is not None and node.attrs["style"] != "reduce"


def peak(facts: Facts, moves: Sequence[Move]) -> int:
    """The most bytes alive at one time: what no plan can do without."""
    live: dict[Value, None] = {v: None for v, uses in facts.uses.items() if uses[-1:] == [len(facts.graph.nodes)]}
    total = sum(facts.size[v] for v in live)
    most = 0
    for move in reversed(moves):
        if move.again is not None and live.keys().isdisjoint(move.again):
            continue  # nobody reads it
        made = facts.makes[move.number] if move.again is None else move.again
        reads = facts.reads[move.number]
        taken = {facts.takeovers.get(v) for v in made}
        passing = 0 if can_write_less(facts.graph.nodes[move.number]) else sum(
            facts.size[v] for v in made if v not in live)
        before = [v for v in reads if v not in live]
        handed = sum(facts.size[v] for v in before if v in taken)
        total += sum(facts.size[v] for v in before)
        most = max(most, total + passing - handed)
        live.update(dict.fromkeys(before))
        for value in made:
            if value in live:
                del live[value]
                total -= facts.size[value]
    return most


def with_fewer(facts: Facts, moves: Sequence[Move], budget: int) -> list[Move]:
    """`moves` without those that make again what there is room to keep, the costliest tried first."""
    kept = list(moves)
    places = sorted((n for n, m in enumerate(moves) if m.again is not None), key=lambda n: -facts.time[moves[n].number])
    left_out: set[int] = set()
    for place in places:
        trial = [m for n, m in enumerate(moves) if n != place and n not in left_out]
        if peak(facts, trial) <= budget:
            left_out.add(place)
            kept = trial
    return without_unread(facts, kept)


def without_unread(facts: Facts, moves: Sequence[Move]) -> list[Move]:
    """`moves` without those that make again what nobody reads before it is let go."""
    wanted = {v for v, uses in facts.uses.items() if uses[-1:] == [len(facts.graph.nodes)]}
    kept: list[Move] = []
    for move in reversed(moves):
        if move.again is not None:
            read = move.again & wanted
            if not read:
                continue
            wanted -= read
            move = replace(move, again=read)
        wanted.update(facts.reads[move.number])
        kept.append(move)
    return kept[::-1]
