"""How each kind of op treats time: the rules by which `Flow` follows it.

    flow = follow(graph)                # see time_flow.py

A rule gives the fact of the result of a node of which some operand depends on tokens, refuses the graph, or gives None,
which opens the op. Kinds have rules, and ops that are unlike others of their kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinytorch.ir import Evaluate, Graph, Kind, Node, Op, Operand, Value, bind, ops
from tinytorch.ir.errors import PassError

from .merge_common import MergeCommon
from .remove_dead import RemoveDead
from .time_axis import BATCH, KEYS, ROWS, Axis, Factor, Lay, gathered, joined, labels
from .time_flow import PROBES, Fact, Flow, Rule, opened
from .time_views import (
    along,
    broadcast_to,
    by_rows,
    check_masked,
    fact_of,
    pad,
    refuse_along,
    reshape,
    slice,
    take,
    transpose,
    windows,
)

LOW = -1e4  # added to a score, exp makes nothing of it (as long as scores stay within thousands)


def follow(graph: Graph, merge: bool = True) -> Flow:
    """The analysis of a decoder: one free input, tokens (batch, time) of integers.

    Args:
        merge: first make one of nodes that do the same.
    Raises:
        PassError: the graph takes something else, or a result does not depend on earlier tokens alone, row by row.
    """
    tokens = graph.free
    if len(tokens) != 1 or len(tokens[0].shape) != 2 or tokens[0].dtype.kind not in "iu" or tokens[0].shape[1] < 2:
        shown = ", ".join(f"{graph.names[v]}: {v.type}" for v in tokens)
        raise PassError(f"no cache can be inserted into {graph.name}({shown}): expected a graph of one input, tokens "
                        "(batch, time) of integers, with the parameters bound and time the capacity, 2 or more")
    if graph.donated:
        raise PassError(f"no cache can be inserted into {graph.name}: it overwrites tensors; expected a graph that "
                        "only computes, as in evaluation mode")
    graph = RemoveDead()(MergeCommon()(graph) if merge else graph)
    batch, capacity = tokens[0].shape
    flow = Flow(graph, capacity, RULES)
    flow.facts[tokens[0]] = Fact((joined((Factor(batch, BATCH),)), (Factor(capacity, ROWS),)))
    flow.see_all(graph.nodes, graph.outputs)
    flow.arrays.clear()  # masks of capacity times capacity
    for number, value in enumerate(graph.outputs):
        fact = flow.facts.get(flow.same.get(value, value))
        if fact is None or KEYS in labels(fact.lay):
            reason = "does not depend on tokens" if fact is None else "has an axis for the time of keys"
            raise PassError(f"no cache can be inserted into {graph.name}: result {number} ({value.type}) {reason}; "
                            "expected logits (batch, time, vocabulary)")
    return flow


def check_numbers(one: Flow, other: Flow) -> None:
    """Of one decoder at two lengths, the first the smaller: that both do the same, with the same numbers.

    Raises:
        PassError: a number follows from the length, as in `x.sum(1) / time`; then no cache gives what a shorter
            sequence would.
    """
    nodes = list(_numbered(one))
    for a, b in itertools.zip_longest(nodes, _numbered(other)):
        if a is None or b is None or a.op is not b.op:
            raise one.refusal(a or b, f"at {one.capacity} tokens the model does something else than at "
                              f"{other.capacity}")
        if a.op is ops.constant and a.attrs["value"] != b.attrs["value"]:
            user = next((node for node in nodes if a.output in node.inputs), a)
            raise one.refusal(user, f"a number follows from the length: {a.attrs['value']} at {one.capacity} tokens, "
                              f"{b.attrs['value']} at {other.capacity}; expected none but positions to count")
        known = [v not in one.facts and (v in one.producer or v in one.graph.bound) for v in a.inputs]
        for value, longer, is_known in zip(a.inputs, b.inputs, known, strict=True):
            if is_known and not all(known) and value.shape != longer.shape:
                _check_table(one, a, one.numbers(value), other.numbers(longer))


def _check_table(flow: Flow, node: Node, table: np.ndarray, longer: np.ndarray) -> None:
    """That the table for more tokens begins with the same numbers, but for rounding."""
    first = longer[tuple(np.s_[:n] for n in table.shape)]
    if first.shape != table.shape or not np.allclose(first.astype("f8"), table.astype("f8"), 1e-4, 1e-6, True):
        raise flow.refusal(node, f"numbers of a table {list(table.shape)} follow from the length: that of "
                           f"{list(longer.shape)} does not begin with the same; expected one that is read by position")


def _numbered(flow: Flow) -> Iterable[Node]:
    """The nodes, without literal arrays, which are nodes only while they are short; of ops over keys, whose number is
    the capacity, all pieces."""
    for node in flow.nodes:
        over_keys = any(KEYS in labels(flow.facts[v].lay) for v in node.inputs if v in flow.facts)
        pieces = opened(node) if over_keys else (node,)
        yield from (piece for piece in pieces if piece.op is not ops.constant or piece.attrs["shape"] == ())


# -- element by element ------------------------------------------------------------------------------------------------


def _right(node: Node, rank: int) -> list[tuple[int, ...]]:
    """The common axes of operands that broadcast."""
    return [tuple(range(rank - len(v.shape), rank)) for v in node.inputs]


def pointwise(flow: Flow, node: Node) -> Fact:
    """Elements of one place meet; a mask may make those of later keys one number."""
    rank = len(node.output.shape)
    places = _right(node, rank)
    axes = flow.meet(node, places, rank)
    lay = tuple(axes.get(n, ()) for n in range(rank))
    if KEYS not in labels(lay):
        return Fact(lay)
    fill = _fill(flow, node, places, axes)
    low = fill is not None and -np.inf < fill <= LOW
    alone = (Factor(flow.capacity, KEYS),) in lay
    if node.output.dtype.is_float and alone and (low or (fill is None and _adds_low(flow, node, places, axes))):
        flow.guarded.add(node.output)
        fill = -np.inf
    return Fact(lay, fill)


def _fill(flow: Flow, node: Node, places: Sequence[tuple[int, ...]], axes: Mapping[int, Axis]) -> float | None:
    """What the op makes at later keys, if that is one number whatever the unknown operands are.

    Unknown ones are tried with several finite numbers; the ops are so simple that what is the same for these, such as
    -inf - x, 0 · x, where(False, x, 0), is the same for all.
    """
    known: list[float | None] = []
    for value, to in zip(node.inputs, places, strict=True):
        if value in flow.facts:
            known.append(flow.facts[value].fill)
        else:
            known.append(flow.later(value, to, axes)[0])
    with np.errstate(all="ignore"):
        found = {_number(node.op.eval(*(np.asarray(probe[n] if k is None else k).astype(v.dtype.np)
                                        for n, (k, v) in enumerate(zip(known, node.inputs, strict=True))),
                                      **node.attrs)) for probe in PROBES}
    only = found.pop()
    return None if found or only != only else only


def _number(array: np.ndarray) -> float:
    return float(np.asarray(array).reshape(()))


def _adds_low(flow: Flow, node: Node, places: Sequence[tuple[int, ...]], axes: Mapping[int, Axis]) -> bool:
    """Whether a mask is added that is low at all later keys."""
    return node.op is ops.add and any(
        flow.later(v, to, axes)[1] <= LOW for v, to in zip(node.inputs, places, strict=True) if v not in flow.facts)


def reduce(flow: Flow, node: Node) -> Fact:
    """A fold: over keys only where later ones add nothing."""
    fact, axis = fact_of(flow, node), node.attrs["axis"]
    folded = labels(fact.lay[a] for a in axis)
    if folded == {KEYS}:
        check_masked(flow, node, fact.fill, node.op.identity if node.op.identity is not None else
                      {"max": -np.inf, "min": np.inf}.get(node.op.name))
    elif folded:
        refuse_along(flow, node, node.inputs[0], axis, f"takes the {node.op} over")
    lay = [() if a in axis else factors for a, factors in enumerate(fact.lay)]
    kept = tuple(f for a, f in enumerate(lay) if node.attrs["keepdims"] or a not in axis)
    extreme = node.op in (ops.max, ops.min)
    return by_rows(flow, node, kept, fact.fill if KEYS in labels(kept) and (extreme or fact.fill == 0) else None)


# -- products ----------------------------------------------------------------------------------------------------------


def matmul(flow: Flow, node: Node) -> Fact:
    """Rows times weights, queries times keys, or weights of attention times values."""
    x, y = node.inputs
    rank = len(node.output.shape)
    m, n, k = rank - 2, rank - 1, rank
    sides = ((k, m) if node.attrs["transpose_x"] else (m, k), (n, k) if node.attrs["transpose_y"] else (k, n))
    places = [(*range(rank - len(v.shape), rank - 2), *last) for v, last in zip((x, y), sides, strict=True)]
    axes = flow.meet(node, places, rank - 2, contracted=k)
    lay = tuple(axes.get(place, ()) for place in range(rank))
    summed = labels((axes.get(k, ()),))
    if summed == {KEYS}:
        fills = [_fill_of(flow, v, to, axes) for v, to in zip(node.inputs, places, strict=True)]
        if 0 not in fills:
            check_masked(flow, node, next((f for f in fills if f is not None), None), 0)
    elif summed:
        raise flow.refusal(node, f"it sums over {'the batch' if BATCH in summed else 'all of time'}, later tokens too; "
                           "expected features, or weights that are 0 for later keys")
    return Fact(lay)


def _fill_of(flow: Flow, value: Value, to: tuple[int, ...], axes: Mapping[int, Axis]) -> float | None:
    """What an operand of a product is at later keys."""
    if value in flow.facts:
        return flow.facts[value].fill
    if not any(n != 1 and labels((axes.get(place, ()),)) & {ROWS} for n, place in zip(value.shape, to, strict=True)):
        return None
    return flow.later(value, to, axes)[0]


def attend(flow: Flow, node: Node) -> Fact | None:
    """Causal attention, maybe of a window, reads the caches; any other is opened."""
    q, k, v = node.inputs[:3]
    if not all(t in flow.facts for t in (q, k, v)) or node.outputs[1] in flow.read:
        return None
    batch, time = _tokens_lay(flow)
    if any((fact := flow.facts[t]).lay[:2] != (batch, time) or labels(fact.lay[2:]) for t in (q, k, v)):
        return None
    if len(node.inputs) == 3 and not node.attrs["causal"]:
        raise flow.refusal(node, "a row looks at later tokens: this attention has no mask; expected causal=True, or a "
                           "mask that is False (or -inf) wherever a key is later than the query")
    band = _band(flow, node)
    if band is None:
        return None
    for value in (k, v):
        flow.heads[value] = _heads(flow, value)
        flow.cached[flow.heads[value][0]] = None
    flow.bands[node] = None if band == flow.capacity else band
    return Fact(flow.facts[q].lay[:3] + flow.facts[v].lay[3:])


def _heads(flow: Flow, value: Value) -> tuple[Value, int]:
    """What keys or values (batch, time, heads, width) repeat, each head for a group of queries, and how many heads it
    has; the value itself, if it repeats nothing."""
    origin, (_, _, heads, width) = flow.origin(value), value.shape
    if origin is value:
        return value, heads
    views: list[Node] = []
    while (source := views[-1].inputs[0] if views else value) is not origin:
        views.append(flow.producer[source])
    lay = flow.facts[origin].lay
    with Evaluate():
        x: Any = Operand(np.arange(origin.type.size, dtype=np.int32).reshape(origin.shape))
        each = gathered(x, lay, {}).payload
        for view in reversed(views):
            x = bind(view.op, x, **view.attrs)
    groups = each[0, 0].size // width
    fits = groups and each[0, 0].size % width == 0 and heads % groups == 0
    repeats = fits and (np.repeat(each.reshape(*each.shape[:2], groups, width), heads // groups, 2) == x.payload).all()
    return (origin, groups) if repeats else (value, heads)


def _tokens_lay(flow: Flow) -> Lay:
    """How tokens lie."""
    return flow.facts[flow.graph.free[0]].lay


def _band(flow: Flow, node: Node) -> int | None:
    """How many keys up to its own a query sees, if that is all there is to the mask."""
    if len(node.inputs) == 3:
        return flow.capacity
    own = np.arange(flow.capacity)
    distance = own[:, None] - own
    seen = distance >= 0 if node.attrs["causal"] else np.ones(distance.shape, bool)
    for mask in node.inputs[3:]:
        if mask in flow.facts:
            return None
        array = flow.numbers(mask)
        if array.dtype != bool and not ((array == 0) | (array <= LOW)).all():
            return None
        seen = seen & (array if array.dtype == bool else array == 0)
    width = int(np.atleast_2d(seen)[(0,) * (seen.ndim - 2)][-1].sum())
    return width if width and (seen == ((distance >= 0) & (distance < width))).all() else None


RULES: dict[Op | Kind, Rule] = {
    Kind.POINTWISE: pointwise, Kind.REDUCE: reduce, ops.reshape: reshape, ops.transpose: transpose,
    ops.broadcast_to: broadcast_to, ops.slice: slice, ops.pad: pad, ops.windows: windows, ops.concat: along,
    ops.cumsum: along, ops.argmax: along, ops.argmin: along, ops.take_along: along, ops.take: take, ops.matmul: matmul,
    ops.attend: attend,
}
