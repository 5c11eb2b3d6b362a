"""Rewrite a graph by equations: a rule is a row of two tiny functions, traced into patterns.

    RULES = (Rule("x + 0 = x", lambda x: x + 0.0, lambda x: x),
             Rule("√x² = |x|", lambda x: ops.sqrt(x * x), lambda x: abs(x), when=lambda x: x.dtype.is_float))
    graph = rewrite(graph, RULES)

`before` is traced once, on placeholders; it then matches operands of every shape and dtype, commutative ops in both
orders, and a number in it any constant whose elements all equal that number. `after` is run on what was matched, and
what it builds is rewritten in turn. A parameter named `c` stands for a truth value. What depends on attributes is a
function of the node instead: `By(text, ops, function)`.

The graph is written anew from top to bottom, and rules are tried as each node is written: operands are in their final
form by then, so one walk reaches the fixed point. Every rule must make the program smaller or simpler, or it would
never end.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tinytorch.ir import Builder, DType, Graph, Node, Op, Operand, Source, TensorType, Value, bool_, f32, ops
from tinytorch.ir.interp import make_node

from .remove_dead import RemoveDead

# -- patterns ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hole:
    """Matches any value; the same hole, the same value."""

    number: int


@dataclass(frozen=True, slots=True)
class Number:
    """Matches a constant all of whose elements equal `value`."""

    value: float


@dataclass(frozen=True, slots=True)
class Apply:
    """Matches a node of this op with these attributes, whose operands match."""

    op: Op
    operands: tuple[Pattern, ...]
    attrs: tuple[tuple[str, Any], ...]


Pattern = Hole | Number | Apply


def trace_pattern(function: Callable[..., Any]) -> Apply:
    """The pattern that `function` computes of its parameters."""
    build = Builder(sources=False)
    holes = [build.input(name, TensorType(bool_ if name == "c" else f32, ()))
             for name in inspect.signature(function).parameters]
    with build:
        result = function(*holes)
    producer = {value: node for node in build.nodes for value in node.outputs}
    numbers = {hole.payload: Hole(number) for number, hole in enumerate(holes)}

    def pattern(value: Value) -> Pattern:
        if value in numbers:
            return numbers[value]
        node = producer[value]
        if node.op is ops.constant:
            return Number(node.attrs["value"])
        return Apply(node.op, tuple(map(pattern, node.inputs)), tuple(node.attrs.items()))

    found = pattern(result.payload)
    assert isinstance(found, Apply), "a pattern is at least one operation"
    return found


def orders(pattern: Pattern) -> list[Pattern]:
    """`pattern` with the operands of its commutative ops in every order."""
    if not isinstance(pattern, Apply):
        return [pattern]
    found: list[Pattern] = []
    for operands in itertools.product(*map(orders, pattern.operands)):
        found.append(replace(pattern, operands=operands))
        if pattern.op.commutative:
            found.append(replace(pattern, operands=operands[::-1]))
    return list(dict.fromkeys(found))


# -- rules -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """`before = after`, for all operands that `when` (given their handles) lets pass."""

    text: str
    before: Callable[..., Any]
    after: Callable[..., Any]
    when: Callable[..., bool] | None = None

    @cached_property
    def patterns(self) -> list[Apply]:
        """What `before` looks like, in every order."""
        return [p for p in orders(trace_pattern(self.before)) if isinstance(p, Apply)]

    @property
    def roots(self) -> tuple[Op, ...]:
        """The ops that this rule may apply to."""
        return (self.patterns[0].op,)

    def apply(self, node: Node, edit: Edit) -> Any:
        """What replaces `node`, or None."""
        for pattern in self.patterns:
            found: dict[int, Value] = {}
            if _matches_node(pattern, node, edit, found):
                handles = [Operand(found[number]) for number in sorted(found)]
                return self.after(*handles) if self.when is None or self.when(*handles) else None
        return None


@dataclass(frozen=True)
class By:
    """A rule that is a function of the node (and of the graph being written): it gives a replacement, or None."""

    text: str
    roots: tuple[Op, ...]
    function: Callable[[Node, Edit], Any]

    def apply(self, node: Node, edit: Edit) -> Any:
        """What replaces `node`, or None."""
        return self.function(node, edit)


def _matches_node(pattern: Apply, node: Node, edit: Edit, found: dict[int, Value]) -> bool:
    return (node.op is pattern.op and all(node.attrs[k] == v for k, v in pattern.attrs)
            and all(_matches(p, v, edit, found) for p, v in zip(pattern.operands, node.inputs, strict=True)))


def _matches(pattern: Pattern, value: Value, edit: Edit, found: dict[int, Value]) -> bool:
    if isinstance(pattern, Hole):
        return found.setdefault(pattern.number, value) is value
    if isinstance(pattern, Number):
        return edit.scalars.get(value) == pattern.value
    node = edit.producer.get(value)
    return node is not None and _matches_node(pattern, node, edit, found)


# -- the walk ----------------------------------------------------------------------------------------------------------


class Table:
    """Rules, found by the op they begin with."""

    def __init__(self, rules: Iterable[Rule | By]) -> None:
        self.rules = tuple(rules)
        self.by_op: dict[Op, list[Rule | By]] = {}
        for rule in self.rules:
            for op in rule.roots:
                self.by_op.setdefault(op, []).append(rule)


class Edit(Builder):
    """A graph being rewritten: the builder that rules write into, and what they may ask."""

    def __init__(self, graph: Graph, table: Table) -> None:
        super().__init__(graph.name)
        self.table = table
        self.source: Source | None = None
        self.producer: dict[Value, Node] = {}  # of what has been written so far
        self.scalars: dict[Value, float] = {}  # values all of whose elements are this number
        self.changed = False
        self._arrays: dict[int, tuple[np.ndarray, Any]] = {}
        self.uses: dict[Value, int] = dict.fromkeys(graph.outputs, 1)
        for node in graph.nodes:
            for value in node.inputs:
                self.uses[value] = self.uses.get(value, 0) + 1

    def is_shared(self, value: Value) -> bool:
        """Whether several operands of the graph as it was given are this value."""
        return self.uses.get(value, 0) > 1

    def made_by(self, value: Value, *ops: Op) -> Node | None:
        """The node that made `value`, if its op is one of these."""
        node = self.producer.get(value)
        return node if node is not None and node.op in ops else None

    def array(self, name: str, array: np.ndarray) -> Any:
        """An array as a bound input, the same one each time."""
        if id(array) not in self._arrays:
            self._arrays[id(array)] = array, self.input(name, TensorType.of(array), bound=array)
        return self._arrays[id(array)][1]

    def written(self, graph: Graph, same: Mapping[Value, Value]) -> Graph:
        """`graph` as it has been written anew; `same` has what stands for values that were replaced."""
        return RemoveDead()(graph.with_(inputs=(*graph.inputs, *self.inputs), nodes=tuple(self.nodes),
                                        outputs=tuple(same.get(v, v) for v in graph.outputs),
                                        bound={**graph.bound, **self.bound}))

    def process(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        values = self.emit(op, tuple(o.payload if isinstance(o.payload, Value) else self.lift(o) for o in operands),
                           attrs)
        handles = tuple(map(Operand, values))
        return handles[0] if len(handles) == 1 else handles

    def emit(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any],
             source: Source | None = None) -> tuple[Value, ...]:
        return self.write(make_node(op, inputs, attrs, source or self.source))

    def write(self, node: Node) -> tuple[Value, ...]:
        """Write `node` down, or what the rules make of it; the values that stand for its results.
        What was in vain dies later."""
        for rule in self.table.by_op.get(node.op, ()):
            source = self.source
            self.source = node.source
            value = self._fitting(rule.apply(node, self), node.output.type)
            self.source = source
            if value is not None:
                self.changed = True
                return (value,)
        self.nodes.append(node)
        self.producer |= dict.fromkeys(node.outputs, node)
        if (number := self._scalar(node)) is not None:
            self.scalars[node.output] = number
        return node.outputs

    def _fitting(self, result: Any, type_: TensorType) -> Value | None:
        """The value of a replacement, repeated to the shape it must have; None if it has another dtype."""
        if result is None or result.dtype is not type_.dtype:
            return None
        if result.shape != type_.shape:
            result = ops.broadcast_to(result, type_.shape)
        return result.payload if isinstance(result.payload, Value) else self.lift(result)

    def _scalar(self, node: Node) -> float | None:
        if node.op is ops.constant:
            return _uniform(node.attrs["value"], node.attrs["dtype"])
        return self.scalars.get(node.inputs[0]) if node.op in (ops.broadcast_to, ops.reshape) else None


def _uniform(value: Any, dtype: DType) -> float | None:
    """The number that all elements of a constant are."""
    array = np.asarray(value, dtype.np).ravel()
    return as_number(array[0]) if array.size and (array == array[0]).all() else None


def as_number(element: Any) -> float:
    """A NumPy scalar of any of our dtypes as a Python number."""
    return float(element) if np.asarray(element).dtype.kind not in "iub" else int(element)


def rewrite(graph: Graph, table: Table) -> Graph:
    """`graph` with the rules applied until none fits; `graph` itself if none does."""
    edit = Edit(graph, table)
    same: dict[Value, Value] = {}
    with edit:
        for node in graph.nodes:
            if same and any(v in same for v in node.inputs):
                node = replace(node, inputs=tuple(same.get(v, v) for v in node.inputs))
            values = edit.write(node)
            if values is not node.outputs:
                same.update(zip(node.outputs, values, strict=True))
    return edit.written(graph, same) if edit.changed else graph
