"""Put nodes into an order in which less memory is alive at a time.

    OrderNodes()(graph)

A trace ends with the updates of all parameters, so all gradients, and what they are made of, live until then. Here
nodes keep their order, but for one that takes no more memory than it frees: it runs as soon as it can (a greedy case of
list scheduling for few registers; Goodman and Hsu, "Code scheduling and register allocation in large basic blocks",
1988). So a parameter is updated when its gradient is there. Where that does not lower the peak by a twentieth, the
graph stays as it is, and so does one so small that caches hold it: there, freedom to run steps side by side is worth
more.

What overwrites an input comes after all that reads the old value, wherever it did before.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from tinytorch.ir import Graph, Value

from .plan_memory import Lives

WORTH = 0.95  # of the peak: the least that another order must bring
SLACK = 1 << 12  # bytes: what takes no more is as good as free, and others may wait for it


@dataclass(frozen=True)
class OrderNodes:
    """An order that keeps less alive; graphs that need fewer than `least` bytes are left alone."""

    least: int = 1 << 20

    def __call__(self, graph: Graph, /) -> Graph:
        demand = Demand(graph)
        peak = demand.peak(range(len(graph.nodes)))
        if peak < self.least:
            return graph
        order = _order(demand)
        is_better = demand.peak(order) <= WORTH * peak
        return graph.with_(nodes=tuple(graph.nodes[i] for i in order)) if is_better else graph


class Demand:
    """What must come before what, and what each node takes and gives back."""

    def __init__(self, graph: Graph) -> None:
        lives = Lives(graph)
        donations = lives.donations()
        placed = set(lives.residents(donations))
        count = len(graph.nodes)
        self.takes = [sum(v.type.nbytes for v in node.outputs if v in placed) for node in graph.nodes]
        self.reads: list[list[Value]] = [[] for _ in range(count)]  # roots in the arena
        self.readers: dict[Value, set[int]] = {value: set() for value in placed}
        self.before: list[set[int]] = [set() for _ in range(count)]
        self.after: list[list[int]] = [[] for _ in range(count)]
        readers_of: dict[Value, list[int]] = {}  # of donated inputs
        targets, number = set(donations.values()), {node: i for i, node in enumerate(graph.nodes)}
        for i, node in enumerate(graph.nodes):
            self.before[i] = {number[maker] for v in node.inputs if (maker := graph.producer.get(v)) is not None}
            if lives.is_alias(node):
                continue
            for root in dict.fromkeys(map(lives.root, node.inputs)):
                if root in placed:
                    self.reads[i].append(root)
                    self.readers[root].add(i)
                elif root in targets:
                    readers_of.setdefault(root, []).append(i)
        for value, target in donations.items():
            self.before[lives.born[value]] |= set(readers_of.get(target, ())) - {lives.born[value]}
        for i, earlier in enumerate(self.before):
            for other in earlier:
                self.after[other].append(i)
        for value in map(lives.root, graph.outputs):
            if value in placed:
                self.readers[value].add(count)  # somebody who never runs
        self.born = {v: i for v, i in lives.born.items() if v in placed}

    def peak(self, order: Sequence[int]) -> int:
        """The most bytes alive at one time."""
        left = {value: len(readers) for value, readers in self.readers.items()}
        unread = [0] * len(order)
        for value, readers in self.readers.items():
            if not readers:
                unread[self.born[value]] += value.type.nbytes
        alive = most = 0
        for i in order:
            alive += self.takes[i]
            most = max(most, alive)
            alive -= unread[i]
            for root in self.reads[i]:
                left[root] -= 1
                alive -= 0 if left[root] else root.type.nbytes
        return most


def _order(demand: Demand) -> list[int]:
    """The numbers of all nodes in the new order."""
    waits = list(map(len, demand.before))
    left = {value: set(readers) for value, readers in demand.readers.items()}
    ready = [i for i, count in enumerate(waits) if not count]
    gains: list[tuple[int, int]] = []  # (bytes taken less bytes freed, number), of nodes that are ready
    order: list[int] = []
    done = [False] * len(waits)

    def consider(i: int) -> None:
        freed = sum(root.type.nbytes for root in demand.reads[i] if left[root] == {i})
        if demand.takes[i] <= freed + SLACK:
            heapq.heappush(gains, (demand.takes[i] - freed, i))

    for i in ready:
        consider(i)
    while gains or ready:
        i = heapq.heappop(gains)[1] if gains else heapq.heappop(ready)
        if done[i]:
            continue
        done[i] = True
        order.append(i)
        for root in demand.reads[i]:
            left[root].discard(i)
            if len(left[root]) == 1:  # whoever reads it last frees it
                last = min(left[root])
                if last < len(waits) and not waits[last]:
                    consider(last)
        for follower in demand.after[i]:
            waits[follower] -= 1
            if not waits[follower]:
                heapq.heappush(ready, follower)
                consider(follower)
    return order
