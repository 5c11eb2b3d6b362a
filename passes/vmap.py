"""Push a leading axis through a graph: what computes one sample then computes many.

    many = Vmap(size=64, mapped=(True, False))(graph)      # input 0 gets an axis of 64 in front, input 1 stays

Each op knows how, by the rule on its record (`ir/ops/leading.py`): elementwise ops broadcast, reductions and views
count their axes one further on, matrix products become stacks, what has a batch axis already takes both as one. A
composite without a rule is opened. What no mapped input reaches stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Builder, Graph, Node, TensorType, as_tuple, bind
from tinytorch.ir.cost import expansion
from tinytorch.ir.errors import OpError
from tinytorch.ir.ops.define import lift
from tinytorch.ir.ops.leading import spread


@dataclass(frozen=True)
class Vmap:
    """Graph → graph whose mapped inputs, and all outputs, have an axis of `size` in front.

    Args:
        size: how many samples; mapped: for each input whether it has the axis, or is the same for all.

    Raises:
        OpError: an op cannot be mapped (random numbers whose key depends on the sample), or inputs are overwritten.

    >>> from tinytorch.ir import Builder, f32, ops
    >>> build = Builder("norm")
    >>> with build: y = ops.sum(build.input("x", f32[3]) ** 2.0)
    >>> many = Vmap(8, (True,))(build.finish([y]))
    >>> str(many.inputs[0].type), str(many.outputs[0].type)
    ('f32[8, 3]', 'f32[8]')
    """

    size: int
    mapped: tuple[bool, ...]

    def __call__(self, graph: Graph) -> Graph:
        if graph.donated:
            raise OpError(f"vmap of {graph.name}: it overwrites tensors, which samples would do at the same time; "
                          "return new values instead")
        build = Builder(f"{graph.name}_mapped", sources=False)
        inputs = [build.input(graph.names[v], TensorType(v.dtype, (self.size, *v.shape)) if m else v.type,
                              graph.bound.get(v)) for v, m in zip(graph.inputs, self.mapped, strict=True)]
        with build:
            results, reached = push(graph, inputs, self.mapped, self.size)
            return build.finish(_spread_all(results, reached, self.size))


def push(graph: Graph, operands: Sequence[Any], mapped: Sequence[bool], size: int) -> tuple[list[Any], list[bool]]:
    """Run the nodes of `graph` through the door on operands with a leading axis, where they are mapped; the results,
    and which of them have it."""
    values: dict[Any, Any] = dict(zip(graph.inputs, operands, strict=True))
    reached: dict[Any, bool] = dict(zip(graph.inputs, mapped, strict=True))
    for node in graph.nodes:
        given, flags = [values[v] for v in node.inputs], [reached[v] for v in node.inputs]
        result = _push_node(node, given, flags, size) if any(flags) else bind(node.op, *given, **node.attrs)
        values |= zip(node.outputs, as_tuple(result), strict=True)
        reached |= dict.fromkeys(node.outputs, any(flags))
    return [values[v] for v in graph.outputs], [reached[v] for v in graph.outputs]


def _push_node(node: Node, operands: Sequence[Any], mapped: Sequence[bool], size: int) -> Any:
    op, attrs = node.op, node.attrs
    if node.body is not None:
        return _spread_all(*push(node.body, operands, mapped, size), size)
    found = None if op.vmap is None else op.vmap(op, size, mapped, *operands, **attrs)
    if found is not None:
        return found
    if op.expand is None:
        raise OpError(f"vmap: {op.name} ({op.doc}) cannot be mapped over its operands; compute it outside, and give "
                      "vmap the results")
    opened = expansion(op, tuple(v.type for v in node.inputs), attrs)
    arrays = [lift(opened.bound[v]) for v in opened.inputs[len(operands):]]  # that the expansion brings along
    results, reached = push(opened, [*operands, *arrays], [*mapped, *(False for _ in arrays)], size)
    whole = _spread_all(results, reached, size)
    return whole if len(whole) > 1 else whole[0]


def _spread_all(results: Sequence[Any], reached: Sequence[bool], size: int) -> tuple[Any, ...]:
    return tuple(spread(y, m, size) for y, m in zip(results, reached, strict=True))
