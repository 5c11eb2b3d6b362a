"""Group nodes that run as one kernel: pointwise islands, reductions with what feeds and follows them, epilogues.

Nodes are visited by the size of their results, the biggest first, and from the last to the first. One whose results all
go to groups that can take it in joins them (two groups that share it become one), if the union still is one loop nest
(`tinytorch.ir.domain`), or one matrix product with a pointwise epilogue, and if no path leaves it and comes back.
Scalar literals, counters and views that only add or drop axes of extent 1 are copied into every group that reads them.

    pointwise   every result varies over all loops
    reduce      all reductions fold the same loops; a result varies over all loops, or over those that are kept
    contract    one matrix product or convolution first; then pointwise ops of its shape
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tinytorch.ir import Graph, Kind, Node, Value, ops
from tinytorch.ir.domain import Domain, find_domain, is_loop_op

from .remove_dead import RemoveDead

MOST_OPERANDS = 24  # of one kernel: pointers, strides and vector registers run out
MOST_NODES = 128  # of one kernel: its text is written, and compiled, in time that grows faster than they do
MOST_STAGES = 8  # walks over the domain in one kernel: each computes again what it needs of those before
PRODUCTS = (ops.matmul, ops.convolve, ops.filter_tiles, ops.packed_linear, ops.sparse_linear, ops.quad_matmul,
            ops.quad_convolve, ops.pair_matmul, ops.pair_convolve)
LEAST_COLUMNS = 32  # of one work item that folds columns
SERIAL_ROW = 1 << 14  # elements that one work item may walk more than once when there is nothing else to share out


@dataclass(eq=False)
class _Group:
    nodes: list[int]
    style: str | None = None  # None: not a kernel of ours


@dataclass(frozen=True)
class Fuse:
    """Make fused nodes. Switch kinds of fusion off to see what they bring."""

    pointwise: bool = True
    reductions: bool = True
    epilogues: bool = True

    def __call__(self, graph: Graph) -> Graph:
        return _Fusion(graph, self).result()


class _Fusion:
    def __init__(self, graph: Graph, options: Fuse) -> None:
        self.graph, self.options, self.nodes = graph, options, graph.nodes
        self.number = {node: i for i, node in enumerate(graph.nodes)}
        self.returned = set(graph.outputs)
        self.refused: set[tuple[int, ...]] = set()
        self.reach = self._reach()
        self.groups = [_Group([i], self._own_style(node)) for i, node in enumerate(graph.nodes)]
        candidates = [i for i, group in enumerate(self.groups) if group.style is not None]
        candidates.sort(key=lambda i: (max(v.type.size for v in self.nodes[i].outputs), i), reverse=True)
        for attempt in (self._try, self._try_some):
            while sum(attempt(i) for i in candidates):  # a join may make way for another
                pass
        for value in (*graph.inputs, *(v for node in graph.nodes for v in node.outputs)):
            self._join_siblings(value)

    def _own_style(self, node: Node) -> str | None:
        if node.op in PRODUCTS:
            return "contract" if self.options.epilogues and _has_tiles(node) else None
        if node.op.kind is Kind.REDUCE and is_loop_op(node):
            return "reduce" if self.options.reductions else None
        return "pointwise" if node.op.kind in (Kind.POINTWISE, Kind.RANDOM) and self.options.pointwise else None

    # -- joining -------------------------------------------------------------------------------------------------------

    def _try(self, i: int) -> bool:
        """Join node i's group with those that read node i; whether that changed anything."""
        takers, others = self._takers(self.nodes[i])
        return not others and self._join(i, takers)

    def _try_some(self, i: int) -> bool:
        """Join node i's group with one that reads node i, though others read it too: it is written for them."""
        takers, _ = self._takers(self.nodes[i])
        return any(self._join(i, [group]) for group in takers)

    def _join_siblings(self, value: Value) -> None:
        """Make one group of two that fold the same value, so that it is read once."""
        groups, _ = self._readers([value])
        folds = [group for group in groups if group.style == "reduce"]
        for first, second in pairwise(folds):
            first, second = self.groups[first.nodes[0]], self.groups[second.nodes[0]]
            self._join(first.nodes[0], [second])

    def _join(self, i: int, takers: list[_Group]) -> bool:
        """Make one group of node i's and these, if that can be; whether that changed anything."""
        mine = self.groups[i]
        union = sorted({*mine.nodes, *(n for group in takers for n in group.nodes)})
        key = tuple(union)
        if len(union) == len(mine.nodes):
            return False
        if len(union) > MOST_NODES or key in self.refused:
            return False
        style = style_of(self.body(union))
        if style is None or self._comes_back(union):
            self.refused.add(key)
            return False
        merged = _Group(union, style)
        self._unite_reach(union)
        for n in union:
            self.groups[n] = merged
        return True

    def _takers(self, node: Node) -> tuple[list[_Group], bool]:
        """The groups that read the node's results, through free views; and whether somebody else reads them too."""
        return self._readers(node.outputs)

    def _readers(self, values: Iterable[Value]) -> tuple[list[_Group], bool]:
        found: dict[_Group, None] = {}
        others = False
        stack = list(values)
        while stack:
            value = stack.pop()
            for user in self.graph.users[value]:
                group = self.groups[self.number[user]]
                if _is_free(user):
                    others |= user.output in self.returned
                    stack.append(user.output)
                elif group.style is None or user.op in PRODUCTS:
                    others = True
                else:
                    found[group] = None
        return list(found), others

    def _comes_back(self, union: list[int]) -> bool:
        """Whether a path leaves the union and enters it again (through whole groups, and views that others share)."""
        inside = self._with_prologue(set(union))
        reached = 0
        for n in union:
            reached |= self.reach[n]
        for n in inside:
            reached &= ~(1 << n)
        makers = (self._maker(v) for n in inside for v in self.nodes[n].inputs)
        return any(maker is not None and reached >> maker & 1 for maker in makers)

    def _reach(self) -> list[int]:
        """For each node the nodes that a path leads to, as bits of a number."""
        reach = [0] * len(self.nodes)
        for n in reversed(range(len(self.nodes))):
            for value in self.nodes[n].outputs:
                for user in self.graph.users[value]:
                    reach[n] |= 1 << self.number[user] | reach[self.number[user]]
        return reach

    def _unite_reach(self, union: list[int]) -> None:
        """Whoever gets to one of the union gets to all of it, and wherever one of them gets."""
        members = 0
        for n in union:
            members |= 1 << n
        total = members
        for n in union:
            total |= self.reach[n]
        self.reach = [r | total if r & members else r for r in self.reach]
        for n in union:
            self.reach[n] = total

    def _maker(self, value: Value) -> int | None:
        node = self.graph.producer.get(value)
        return None if node is None else self.number[node]

    # -- what a group is -----------------------------------------------------------------------------------------------

    def body(self, union: Iterable[int]) -> Graph:
        """The union with its free prologue, as a graph on the same values."""
        own = set(union)
        members = self._with_prologue(own)
        made = {v for n in members for v in self.nodes[n].outputs}
        inputs = dict.fromkeys(v for n in members for v in self.nodes[n].inputs if v not in made)
        outputs = dict.fromkeys(v for n in sorted(own) for v in self.nodes[n].outputs
                                if self._is_needed(v, own, set(members)))
        nodes = tuple(self.nodes[n] for n in members)
        if nodes[0].op not in PRODUCTS:
            nodes = (*(n for n in nodes if n.op in PRODUCTS), *(n for n in nodes if n.op not in PRODUCTS))
        return Graph(_body_name(nodes), tuple(inputs), nodes, tuple(outputs))

    def _with_prologue(self, own: set[int]) -> list[int]:
        """The members, and the literals, counters and free views that lead from one (or from nothing) to another."""
        members = set(own)

        def absorb(value: Value) -> bool:
            maker = self._maker(value)
            if maker is None:
                return False
            if maker in members:
                return True
            node = self.nodes[maker]
            if node.op.kind is Kind.SOURCE and is_loop_op(node):
                members.add(maker)
                return True
            if _is_free(node) and absorb(node.inputs[0]):
                members.add(maker)
                return True
            return False

        for n in own:
            if self.nodes[n].op not in PRODUCTS:
                for value in self.nodes[n].inputs:
                    absorb(value)
        return sorted(members)

    def _is_needed(self, value: Value, own: set[int], members: set[int]) -> bool:
        if value in self.returned:
            return True
        for user in self.graph.users[value]:
            n = self.number[user]
            if n not in members:
                return True
            if n not in own and self._is_needed(user.output, own, members):
                return True  # a view of it that somebody outside looks through
        return False

    # -- the new graph -------------------------------------------------------------------------------------------------

    def result(self) -> Graph:
        """The graph with a node for each group, in an order that lets updates happen in place."""
        groups = list({id(g): g for g in self.groups}.values())
        fused = {id(g): self._node(g) for g in groups}
        order = self._order(groups, with_updates=True) or self._order(groups, with_updates=False)
        assert order is not None, "groups form a cycle"
        return RemoveDead()(self.graph.with_(nodes=tuple(fused[id(g)] for g in order)))

    def _node(self, group: _Group) -> Node:
        if len(group.nodes) == 1:
            node = self.nodes[group.nodes[0]]
            makers = [self._maker(v) for v in node.inputs]
            literal = any(n is not None and self.nodes[n].op.kind is Kind.SOURCE for n in makers)
            if group.style is None or node.op in PRODUCTS or not literal:
                return node
        body = self.body(group.nodes)
        style = style_of(self.body(group.nodes)) if len(group.nodes) == 1 else group.style
        if style is None:
            return self.nodes[group.nodes[0]]
        source = next((self.nodes[n].source for n in group.nodes if self.nodes[n].source), None)
        return Node(ops.fused, body.inputs, {"body": body, "style": style}, body.outputs, source)

    def _order(self, groups: list[_Group], with_updates: bool) -> list[_Group] | None:
        after: dict[int, set[int]] = {id(g): set() for g in groups}
        before: dict[int, set[int]] = {id(g): set() for g in groups}

        def edge(first: _Group, second: _Group) -> None:
            if first is not second:
                after[id(first)].add(id(second))
                before[id(second)].add(id(first))

        for group in groups:
            for value in self.body(group.nodes).inputs:
                maker = self._maker(value)
                if maker is not None:
                    edge(self.groups[maker], group)
        for output, place in self.graph.donated.items() if with_updates else ():
            writer = self._maker(self.graph.outputs[output])
            for user in self.graph.users[self.graph.inputs[place]] if writer is not None else ():
                edge(self.groups[self.number[user]], self.groups[writer])  # type: ignore[index]
        by_id = {id(g): g for g in groups}
        ready = [(g.nodes[-1] if len(g.nodes) == 1 else g.nodes[0], id(g)) for g in groups if not before[id(g)]]
        heapq.heapify(ready)
        order = []
        while ready:
            _, key = heapq.heappop(ready)
            order.append(by_id[key])
            for follower in after[key]:
                before[follower].discard(key)
                if not before[follower]:
                    heapq.heappush(ready, (by_id[follower].nodes[0], follower))
        return order if len(order) == len(groups) else None


def _has_tiles(product: Node) -> bool:
    """Integers are multiplied in tiles as quads only."""
    return product.output.dtype.is_float or product.op in (ops.quad_matmul, ops.quad_convolve)


def _is_free(node: Node) -> bool:
    """A view that a loop nest looks through."""
    return node.op.kind is Kind.VIEW and is_loop_op(node)


def style_of(body: Graph) -> str | None:
    """"pointwise", "reduce" or "contract", as what `body` can be one kernel; None if it cannot."""
    if len(body.inputs) + len(body.outputs) > MOST_OPERANDS:
        return None
    products = sum(n.op in PRODUCTS for n in body.nodes)
    if products:
        return "contract" if products == 1 and _is_epilogue(body) else None
    domain = find_domain(body)
    if domain is None:
        return None
    if not any(n.op.kind is Kind.REDUCE for n in body.nodes):
        return "pointwise" if _is_island(body, domain) else None
    return "reduce" if _is_reduction(body, domain) else None


def _is_island(body: Graph, domain: Domain) -> bool:
    every = frozenset(range(len(domain.extents)))
    if any(domain.of(v) != every for v in body.outputs):
        return False
    return not any(n.op.transcendental and domain.of(n.output) not in (every, frozenset()) for n in body.nodes)


def _is_reduction(body: Graph, domain: Domain) -> bool:
    every = frozenset(range(len(domain.extents)))
    kept = every - domain.reduced
    stage: dict[Value, int] = {}
    for node in body.nodes:
        deepest = max((stage.get(v, 0) for v in node.inputs), default=0)
        stage[node.output] = deepest
        if node.op.kind is Kind.REDUCE:
            x = node.inputs[0]
            folded = {domain.loops[x][a] for a in node.attrs["axis"]} - {None}
            if folded != domain.reduced or domain.of(x) != every:
                return False
            stage[node.output] = deepest + 1
        elif node.op.transcendental and domain.of(node.output) not in (every, kept, frozenset()):
            return False
    if max(stage.values(), default=0) > MOST_STAGES or any(domain.of(v) not in (every, kept) for v in body.outputs):
        return False
    whole = [v for v in body.outputs if domain.of(v) == every and every != kept]
    if not whole or math.prod(domain.extents) <= SERIAL_ROW:
        return True
    by_rows = bool(domain.reduced) and max(domain.reduced) == len(domain.extents) - 1
    if any(stage[v] > 0 for v in whole):
        return by_rows and bool(kept)
    items = math.prod(domain.extents[loop] for loop in kept) // (1 if by_rows else LEAST_COLUMNS)
    return items > 1  # else one thread alone would write what many can


def _is_epilogue(body: Graph) -> bool:
    product = body.nodes[0]
    shape = product.output.shape
    if product.op not in PRODUCTS or any(v.shape != shape for v in body.outputs):
        return False
    if product.op is not ops.matmul and any(v.shape != shape and math.prod(v.shape[:-1]) != 1 for v in body.inputs
                                          if v not in product.inputs):
        return False  # a tile runs over the rows of images: what else it reads varies with all pixels, or with none
    for node in body.nodes[1:]:
        out = node.output
        if node.op.name == "iota" or node.op.kind not in (Kind.POINTWISE, Kind.SOURCE, Kind.VIEW):
            return False
        if out.shape != shape and out.type.size != 1:
            return False
        regroups = node.op.name == "reshape" and node.inputs[0].type.size != 1
        if node.op.kind is Kind.VIEW and (regroups or product.output in node.inputs):
            return False
    others = {v for node in body.nodes[1:] for v in (*node.inputs, *node.outputs)}
    return others.isdisjoint(product.inputs)  # what the product reads is neither made nor read again by what follows it


def _body_name(nodes: tuple[Node, ...]) -> str:
    names = [n.op.name for n in nodes if n.op.kind.launches]
    shown = names if len(names) <= 4 else [*names[:2], f"{len(names) - 3}_more", names[-1]]
    return "_".join(["fused", *shown])

