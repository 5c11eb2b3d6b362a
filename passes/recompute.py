"""Compute a cheap value again where it is read, instead of writing it to memory for a later kernel.

A backward pass reads what the forward pass has computed: of `gelu(x)`, for instance, x, x², 1 + tanh(…) and more. Most
of it follows in a few operations from what the later kernel reads anyway. So a kernel drops an operand that it can
compute from its others, and kernels no longer write results that nobody reads. A random mask is a function of its key,
and is drawn again.

    Recompute()(Fuse()(graph))

The operations are the same, on the same numbers: so are the results, bit for bit. No operand is added but numbers
(a key), so nothing lives longer in memory than before.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from tinytorch.ir import Graph, Kind, Node, Value, ops
from tinytorch.ir.domain import is_loop_op

from .fuse import style_of
from .remove_dead import RemoveDead

MOST = 12  # operations that are computed again instead of one read: as in GELU, whose tanh is one of them
DEAR = ("div", "sqrt", "rsqrt", "mod", "floor_div", "pow")


@dataclass(frozen=True)
class Recompute:
    """Replace operands of fused kernels by the cheap operations that make them."""

    def __call__(self, graph: Graph, /) -> Graph:
        origin = parts_of(graph)
        visible = {*graph.inputs, *(v for node in graph.nodes for v in node.outputs)}
        numbers = {v for v in visible if v.type.size == 1}
        order = numbered(origin)
        nodes = tuple(_with_fewer_operands(node, origin, order, numbers) for node in graph.nodes)
        if nodes == graph.nodes:
            return graph
        return _without_unread_results(graph.with_(nodes=nodes))


def parts_of(graph: Graph) -> dict[Value, Node]:
    """Who makes each value, inside fused nodes too, in order."""
    origin: dict[Value, Node] = {}
    for node in graph.nodes:
        for part in (node,) if node.body is None else node.body.nodes:
            origin |= dict.fromkeys(part.outputs, part)
    return origin


def numbered(origin: dict[Value, Node]) -> dict[Node, int]:
    """The nodes of `parts_of` by their order."""
    return {node: number for number, node in enumerate(dict.fromkeys(origin.values()))}


def _with_fewer_operands(node: Node, origin: dict[Value, Node], order: dict[Node, int], numbers: set[Value]) -> Node:
    """`node`, computing operands from its others, and from numbers."""
    body = node.body
    if body is None:
        return node
    own = {v for n in body.nodes for v in n.outputs}
    kept, added = dict.fromkeys(body.inputs), dict[Node, None]()
    latest = sorted(body.inputs, key=lambda v: order[origin[v]] if v in origin else -1, reverse=True)
    for value in latest:
        cone = None if value in numbers else cheap_cone(value, (kept.keys() | own | numbers) - {value}, origin)
        if cone is None:
            continue
        trial = body_with(body, {**added, **cone}, order)
        if style_of(trial) == node.attrs["style"]:
            kept, added = dict.fromkeys(trial.inputs), {**added, **cone}
            own |= {v for n in cone for v in n.outputs}
    if not added:
        return node
    body = body_with(body, added, order)
    return replace(node, inputs=body.inputs, attrs={**node.attrs, "body": body})


def cheap_cone(value: Value, known: Container[Value], origin: dict[Value, Node]) -> dict[Node, None] | None:
    """The cheap operations that make `value` of known ones; None if there are none."""
    cone: dict[Node, None] = {}
    stack = [value]
    while stack:
        wanted = stack.pop()
        node = origin.get(wanted)
        if wanted in known or node in cone:
            continue
        if node is None or not _is_cheap(node):
            return None
        cone[node] = None
        stack += node.inputs
    return cone if sum(n.op.kind in (Kind.POINTWISE, Kind.RANDOM) for n in cone) in range(1, MOST + 1) else None


def _is_cheap(node: Node) -> bool:
    slow = node.op.name in DEAR or (node.op.transcendental and node.op is not ops.tanh)
    return not slow and node.op.kind is not Kind.REDUCE and "extent" not in node.attrs and is_loop_op(node)


def body_with(body: Graph, added: Iterable[Node], order: dict[Node, int]) -> Graph:
    """`body` with these nodes too, in order (a product stays the first), and the operands that are left."""
    nodes = sorted({*added, *body.nodes}, key=lambda n: (n.op.kind is not Kind.CONTRACT, order[n]))
    made = {v for n in nodes for v in n.outputs}
    inputs = dict.fromkeys(v for n in nodes for v in n.inputs if v not in made)
    return Graph(body.name, tuple(inputs), tuple(nodes), body.outputs)


def _without_unread_results(graph: Graph) -> Graph:
    """Kernels write only what somebody reads."""
    read = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.body is not None:
            outputs = tuple(v for v in node.outputs if v in read)
            if outputs and outputs != node.outputs:
                body = RemoveDead()(node.body.with_(outputs=outputs))
                used = {v for n in body.nodes for v in n.inputs}
                body = body.with_(inputs=tuple(v for v in body.inputs if v in used))
                node = replace(node, inputs=body.inputs, outputs=outputs, attrs={**node.attrs, "body": body})
        read.update(node.inputs)
        nodes.append(node)
    return RemoveDead()(graph.with_(nodes=tuple(reversed(nodes))))
