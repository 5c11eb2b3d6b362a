"""Open ops that are made of simpler ones: softmax becomes max, sub, exp, sum and div.

`ExpandComposites()` opens all that the runtime has no kernel of its own for (`Op.native`), those inside others too;
`only` or `keep` choose by name, and what `only` names is opened in any case. The new nodes keep the user's line.

    ExpandComposites(keep=("layer_norm",))(graph)
    ExpandComposites(only=("softmax",))(graph)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinytorch.ir import Builder, Graph, Node, Op, Operand, Source, Value, as_tuple


@dataclass(frozen=True)
class ExpandComposites:
    """Expansions in place of ops; `only` names those to open (None: all that are not native),
    `keep` those to leave whole."""

    only: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        if not any(self.opens(node.op, node.inputs, node.attrs) for node in graph.nodes):
            return graph
        build = _Opening(self.opens)
        same: dict[Value, Value] = {}
        with build:
            for node in graph.nodes:
                build.add(node, same)
        return graph.with_(inputs=(*graph.inputs, *build.inputs), nodes=tuple(build.nodes),
                           bound={**graph.bound, **build.bound}, outputs=tuple(same.get(v, v) for v in graph.outputs))

    def opens(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
        """Whether this op is to be opened."""
        if op.expand is None or op.name in self.keep:
            return False
        if self.only is not None:
            return op.name in self.only
        return not op.native(*(operand.type for operand in operands), **attrs)


class _Opening(Builder):
    """A builder that writes the expansion of an op where the op itself was asked for."""

    def __init__(self, opens: Callable[[Op, Sequence[Any], Mapping[str, Any]], bool]) -> None:
        super().__init__(sources=False)
        self.opens = opens
        self.source: Source | None = None

    def add(self, node: Node, same: dict[Value, Value]) -> None:
        """Write `node` down, or its expansion; `same` maps the values replaced so far."""
        inputs = tuple(same.get(v, v) for v in node.inputs)
        if not self.opens(node.op, inputs, node.attrs):
            self.nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
            return
        self.source = node.source
        result = self.process(node.op, tuple(map(Operand, inputs)), node.attrs)
        same.update(zip(node.outputs, map(self.lift_value, as_tuple(result)), strict=True))

    def lift_value(self, operand: Operand) -> Value:
        """The value of a handle, which an expansion may have made out of numbers alone."""
        return operand.payload if isinstance(operand.payload, Value) else self.lift(operand)

    def process(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        if self.opens(op, operands, attrs):
            assert op.expand is not None
            return op.expand(*operands, **attrs)
        values = self.emit(op, tuple(map(self.lift_value, operands)), attrs)
        handles = tuple(map(Operand, values))
        return handles[0] if len(handles) == 1 else handles

    def emit(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any],
             source: Source | None = None) -> tuple[Value, ...]:
        return super().emit(op, inputs, attrs, source or self.source)
