"""How ops that move elements, and those along one axis, treat time; and what all rules share.

    time_rules.RULES[ops.reshape] is reshape              # Flow, Node -> Fact

Axes of time may move, merge with others and come apart again. What takes parts of them, pads them or goes along them is
refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from tinytorch.ir import Node, Value, ops

from .time_axis import BATCH, KEYS, ROWS, Factor, Lay, joined, labels, plain, regroup
from .time_flow import AS_ROWS, FREE, Fact, Flow, Meeting


def refuse_along(flow: Flow, node: Node, value: Value, axes: Iterable[int], what: str) -> None:
    """Refuse a node that does something along axes that have to do with time, or with other sequences."""
    fact = flow.facts.get(value)
    for axis in axes if fact is not None else ():
        for label in labels((fact.lay[axis],)):  # type: ignore[union-attr]
            of = {BATCH: "the sequences of the batch", ROWS: "time", KEYS: "the time of keys"}[label]
            raise flow.refusal(node, f"it {what} {of}; expected each row to depend on its own token, and on others by "
                               "masked attention only")


def by_rows(flow: Flow, node: Node, lay: Lay, fill: float | None = None) -> Fact:
    """The fact of a result whose node reads one operand's rows."""
    flow.meetings[node] = Meeting(tuple(AS_ROWS if v in flow.facts else FREE for v in node.inputs))
    return Fact(lay, fill)


def fact_of(flow: Flow, node: Node, number: int = 0) -> Fact:
    """The fact of an operand; one that no token has made has axes all the same."""
    value = node.inputs[number]
    return flow.facts.get(value) or Fact(plain(value.shape))


def check_masked(flow: Flow, node: Node, fill: float | None, neutral: float | None) -> None:
    """Refuse a fold over keys, unless it is neutral what stands at later ones."""
    if neutral is None or fill != neutral:
        there = "unknown numbers" if fill is None else f"{fill:g}"
        raise flow.refusal(node, "a row looks at later tokens, for keys are not masked: where a key is later than the "
                           f"row there are {there}, expected {neutral}; mask scores there by -inf, before softmax")


def reshape(flow: Flow, node: Node) -> Fact:
    """Axes merge and split, time as a whole."""
    fact = fact_of(flow, node)
    lay = regroup(fact.lay, node.attrs["shape"])
    if lay is None:
        raise flow.refusal(node, f"reshaped to {node.attrs['shape']}, time is cut into pieces")
    return by_rows(flow, node, lay, fact.fill)


def transpose(flow: Flow, node: Node) -> Fact:
    """Axes in another order."""
    fact = fact_of(flow, node)
    return by_rows(flow, node, tuple(fact.lay[a] for a in node.attrs["axes"]), fact.fill)


def broadcast_to(flow: Flow, node: Node) -> Fact:
    """New axes, of which nothing is known."""
    fact, shape = fact_of(flow, node), node.attrs["shape"]
    lay = ((),) * (len(shape) - len(fact.lay)) + fact.lay
    lay = tuple(axis or joined((Factor(n),)) for axis, n in zip(lay, shape, strict=True))
    return by_rows(flow, node, lay, fact.fill)


def slice(flow: Flow, node: Node) -> Fact:
    """Parts of axes that have nothing to do with time."""
    fact, value, size = fact_of(flow, node), node.inputs[0], node.attrs["size"]
    cut = [a for a, (n, m, step) in enumerate(zip(value.shape, size, node.attrs["step"], strict=True))
           if n != m or (step != 1 and n > 1)]
    refuse_along(flow, node, value, cut, "takes a part of")
    return by_rows(flow, node, _resized(fact.lay, cut, size), fact.fill)


def pad(flow: Flow, node: Node) -> Fact:
    """More at the ends of axes that have nothing to do with time."""
    value, shape = node.inputs[0], node.output.shape
    wider = [a for a, (n, m) in enumerate(zip(value.shape, shape, strict=True)) if n != m]
    refuse_along(flow, node, value, wider, "pads")
    return by_rows(flow, node, _resized(fact_of(flow, node).lay, wider, shape))


def _resized(lay: Lay, changed: Collection[int], shape: Sequence[int]) -> Lay:
    """A lay in which some axes have other extents."""
    return tuple(joined((Factor(shape[a]),)) if a in changed else axis for a, axis in enumerate(lay))


def windows(flow: Flow, node: Node) -> Fact:
    """Windows over axes that have nothing to do with time."""
    refuse_along(flow, node, node.inputs[0], node.attrs["axes"], "slides windows over")
    lay, shape = fact_of(flow, node).lay, node.output.shape
    return by_rows(flow, node, _resized(lay, node.attrs["axes"], shape) + plain(shape[len(lay):]))


def along(flow: Flow, node: Node) -> Fact:
    """Something along one axis, which must not be time: concat, cumsum, take_along, argmax."""
    axis, rank = node.attrs["axis"], len(node.inputs[0].shape)
    if (extreme := _extreme(flow, node, axis)) is not None:
        return extreme
    for value in node.inputs:
        refuse_along(flow, node, value, (axis,), f"does {node.op} along")
    apart = [tuple(a if a != axis else rank + n for a in range(rank)) for n in range(len(node.inputs))]
    axes = flow.meet(node, apart, 0)
    out = node.output.shape
    lay = [axes.get(a, ()) for a in range(rank)]
    if len(out) == rank:
        lay[axis] = joined((Factor(out[axis]),))
    else:
        del lay[axis]
    return Fact(tuple(lay))


def _extreme(flow: Flow, node: Node, axis: int) -> Fact | None:
    """The fact of where the greatest of masked keys is, or of what is there: what `x.max(dim)` is made of."""
    fact, neutral = fact_of(flow, node), {ops.argmax: -np.inf, ops.argmin: np.inf}
    where = flow.producer.get(node.inputs[1]) if node.op is ops.take_along else node
    if labels((fact.lay[axis],)) != {KEYS} or where is None or where.op not in neutral:
        return None
    if where.inputs[0] is not node.inputs[0] or where.attrs["axis"] != axis:
        return None
    check_masked(flow, where, fact.fill, neutral[where.op])
    kept = len(node.output.shape) == len(fact.lay)
    return by_rows(flow, node, (*fact.lay[:axis], *(((),) if kept else ()), *fact.lay[axis + 1:]))


def take(flow: Flow, node: Node) -> Fact:
    """Rows of a table by tokens, or places along an axis that has nothing to do with time."""
    (x, indices), axis = node.inputs, node.attrs["axis"]
    if x in flow.facts and indices in flow.facts:
        raise flow.refusal(node, "both the table and the positions depend on tokens")
    refuse_along(flow, node, x, (axis,), "takes elements along")
    lay = fact_of(flow, node).lay
    return by_rows(flow, node, (*lay[:axis], *fact_of(flow, node, 1).lay, *lay[axis + 1:]))
