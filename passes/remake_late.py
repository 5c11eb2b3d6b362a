"""Let go of cheap values at the moment of most memory, and make them again when they are wanted later.

    RemakeLate()(Recompute()(Fuse()(graph)))

At the end of a forward pass all that its backward pass will read is alive. Some of it follows in a few operations from
other values that must live on anyway: the result of an activation from its operand, a normalised row from the row and
its scale. Where such a value is read before that moment and after it, the readers after it get a value of their own,
made by the kernel that reads it, or by one right before it. The numbers are the same, bit for bit. (The simplest case
of rematerialisation: nothing is made again whose operands would have to live longer.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinytorch.ir import Graph, Node, Value, ops
from tinytorch.ir.graph import substitute

from .fuse import style_of
from .plan_memory import Lives, alive_at
from .recompute import body_with, cheap_cone, numbered, parts_of
from .remove_dead import RemoveDead

NEAR = 16  # nodes by which an operand may have to live longer


@dataclass(frozen=True)
class RemakeLate:
    """Values made twice; graphs that need fewer than `least` bytes are left alone, and values of fewer than `small`."""

    least: int = 1 << 20
    small: int = 1 << 16

    def __call__(self, graph: Graph, /) -> Graph:
        lives = Lives(graph)
        moment, alive = _most_alive(lives)
        if sum(v.type.nbytes for v in alive) < self.least:
            return graph
        places = {node: number for number, node in enumerate(graph.nodes)}
        readers = {v: sorted(places[user] for user in graph.users[v]) for v in alive}
        kept = {v: lives.dies[v] + NEAR for v in alive if lives.dies[v] > moment} | _until_overwritten(graph, places)
        origin, needed = parts_of(graph), set[Value]()
        remade: dict[int, list[_Again]] = {}
        for value in sorted(alive, key=lambda v: lives.born[v], reverse=True):
            late = [number for number in readers[value] if number > moment]
            fits = value.type.nbytes >= self.small and value not in needed and value not in graph.outputs
            if not fits or not late or moment in (lives.born[value], *readers[value]) or any(
                    not user.op.kind.launches for user in graph.users[value]):
                continue
            cone = cheap_cone(value, {v for v, until in kept.items() if until >= late[-1] and v is not value}, origin)
            if cone is not None:
                made = {v for node in cone for v in node.outputs}
                needed |= {v for node in cone for v in node.inputs} - made
                kept.pop(value)
                remade.setdefault(late[0], []).append(_Again(value, cone, len(late) == 1))
        return _rewritten(graph, remade) if remade else graph


@dataclass(frozen=True)
class _Again:
    """A value that is made again by the operations of `cone`, for one reader or for several."""

    value: Value
    cone: dict[Node, None]
    once: bool


def _until_overwritten(graph: Graph, places: dict[Node, int]) -> dict[Value, int]:
    """Up to which node each input may be read: up to the one that overwrites it."""
    until = dict.fromkeys(graph.inputs, len(graph.nodes))
    for output, place in graph.donated.items():
        writer = graph.producer.get(graph.outputs[output])
        until[graph.inputs[place]] = places[writer] - 1 if writer is not None else -1
    return until


def _most_alive(lives: Lives) -> tuple[int, list[Value]]:
    """The number of the node at which most bytes of intermediates live, and those."""
    residents = lives.residents({})
    alive = alive_at(lives, residents)
    moment = max(range(len(alive)), key=alive.__getitem__, default=0)
    return moment, [v for v in residents if lives.born[v] <= moment <= lives.dies[v]]


def _rewritten(graph: Graph, remade: dict[int, list[_Again]]) -> Graph:
    nodes: list[Node] = []
    same: dict[Value, Value] = {}
    order = numbered(parts_of(graph))
    for number, node in enumerate(graph.nodes):
        for again in remade.get(number, ()):
            inner = _inside(node, again, order) if again.once else None
            if inner is None:
                kernel = _kernel(again, order)
                nodes += substitute([kernel], same)
                same[again.value] = kernel.output
            else:
                node = inner
        nodes += substitute([node], same)
    return RemoveDead()(graph.with_(nodes=tuple(nodes)))


def _inside(node: Node, again: _Again, order: dict[Node, int]) -> Node | None:
    """`node` making the value itself; None if that is no kernel."""
    if node.body is None or node.attrs["style"] == "contract":
        return None
    body = body_with(node.body, again.cone, order)
    if again.value in body.inputs or style_of(body) != node.attrs["style"]:
        return None
    return replace(node, inputs=body.inputs, attrs={**node.attrs, "body": body})


def _kernel(again: _Again, order: dict[Node, int]) -> Node:
    """A kernel that makes the value, under another name."""
    value, made = again.value, Value(again.value.type, again.value.hint)
    nodes = tuple(replace(n, outputs=tuple(made if v is value else v for v in n.outputs))
                  for n in sorted(again.cone, key=order.__getitem__))
    inside = {v for n in nodes for v in n.outputs}
    inputs = tuple(dict.fromkeys(v for n in nodes for v in n.inputs if v not in inside))
    body = Graph(f"remade_{value.hint}", inputs, nodes, (made,))
    return Node(ops.fused, inputs, {"body": body, "style": "pointwise"}, (made,), nodes[-1].source)
