"""A graph as Python text, and back.

`to_text` prints a function that can be pasted into a file, run, and traced again to the same graph. `from_text` reads such text as data,
by Python's own parser, and executes nothing.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .dtypes import ALL, DType, as_dtype
from .errors import FormatError, TinyTorchError
from .graph import Graph, Node, Value
from .op import lookup, registry
from .types import TensorType

HEADER = "from tinytorch.ir.ops import *\n"
_RESERVED = {d.name for d in ALL} | {"bool_", "inf", "nan", "donates", "body", "style"}


def assign_names(graph: Graph) -> dict[Value, str]:
    """A distinct name for each value; results are numbered, so that no name hides an op."""
    names: dict[Value, str] = {}
    taken = set(registry) | _RESERVED | set(keyword.kwlist)
    counts: dict[str, int] = {}
    for value in (*graph.inputs, *(v for node in graph.nodes for v in node.outputs)):
        base = re.sub(r"\W", "_", value.hint) or "v"
        base = f"_{base}" if base[0].isdigit() else base
        name = base
        while name in taken:
            counts[base] = counts.get(base, 0) + 1
            name = f"{base}_{counts[base]}"
        taken.add(name)
        names[value] = name
    return names


def literal(value: Any) -> str:
    """An attribute as Python source that `from_text` reads back."""
    if isinstance(value, DType):
        return repr(value.name)
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _call(node: Node, names: Mapping[Value, str], bodies: Mapping[int, str]) -> str:
    operands = [names[v] for v in node.inputs]
    attrs = [f"{k}={bodies[id(v)] if isinstance(v, Graph) else literal(v)}" for k, v in node.attrs.items()]
    return f"{node.op.name}({', '.join(operands + attrs)})"


def _signature(graph: Graph) -> str:
    parts = []
    for number, value in enumerate(graph.inputs):
        if value in graph.bound and (number == 0 or graph.inputs[number - 1] not in graph.bound):
            parts.append("*")
        parts.append(f"{graph.names[value]}: {value.type}")
    return ", ".join(parts)


def _function(graph: Graph, name: str, bodies: Mapping[int, str], sources: bool) -> list[str]:
    names = graph.names
    lines = []
    if graph.donated:
        places = ", ".join(f"{names[graph.inputs[i]]}={o}" for o, i in sorted(graph.donated.items()))
        lines.append(f"@donates({places})")
    lines.append(f"def {name}({_signature(graph)}):")
    for node in graph.nodes:
        left = ", ".join(names[v] for v in node.outputs) + ("," if len(node.outputs) == 1 and node.body else "")
        code = f"    {left} = {_call(node, names, bodies)}"
        types = ", ".join(str(v.type) for v in node.outputs)
        lines.append(f"{code:<78}  # {types}" + (f"  {node.source}" if node.source and sources else ""))
    lines.append(f"    return {', '.join(names[v] for v in graph.outputs) or '()'}")
    return lines


def to_text(graph: Graph, sources: bool = True) -> str:
    """The graph as a Python function, with types (and the user's lines) in the margin; the bodies of fused nodes stand before it."""
    bodies: dict[int, str] = {}
    parts = [HEADER]
    taken = {graph.name} | set(registry)
    for node in graph.nodes:
        body = node.body
        if body is None or id(body) in bodies:
            continue
        name, number = body.name, 1
        while name in taken:
            number += 1
            name = f"{body.name}_{number}"
        taken.add(name)
        bodies[id(body)] = name
        parts.append("\n".join(_function(body, name, {}, sources)) + "\n")
    parts.append("\n".join(_function(graph, graph.name, bodies, sources)))
    return "\n".join(parts)


# -- reading -----------------------------------------------------------------------------------------------------------


def from_text(text: str, bound: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph that `text` shows.

    Args:
        text: what `to_text` wrote, perhaps edited.
        bound: arrays for the parameters after `*`, by name; those left out become free inputs.
    Raises:
        FormatError: the text is not such a program; the message names the line.
    """
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        raise FormatError(f"line {error.lineno}: not Python: {error.msg}") from None
    functions: dict[str, Graph] = {}
    graph = None
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef):
            graph = _Reader(functions, bound or {}).function(statement)
            functions[statement.name] = graph
        elif not isinstance(statement, (ast.Import, ast.ImportFrom)):
            raise FormatError(f"line {statement.lineno}: expected a function, found {ast.unparse(statement):.60}")
    if graph is None:
        raise FormatError("there is no function in this text")
    return graph


class _Reader:
    def __init__(self, functions: Mapping[str, Graph], bound: Mapping[str, np.ndarray]) -> None:
        self.functions = functions
        self.bound = bound
        self.values: dict[str, Value] = {}

    def function(self, tree: ast.FunctionDef) -> Graph:
        inputs = [self.parameter(a) for a in tree.args.args]
        extra = [self.parameter(a) for a in tree.args.kwonlyargs]
        bound = {v: self.bound[v.hint] for v in extra if v.hint in self.bound}
        nodes = [self.assignment(s) for s in tree.body if isinstance(s, ast.Assign)]
        other = [s for s in tree.body if not isinstance(s, ast.Assign)]
        if len(other) != 1 or not isinstance(other[0], ast.Return) or other[0].value is None:
            raise FormatError(f"line {tree.lineno}: {tree.name} must be assignments and one return at the end")
        result = other[0].value
        outputs = [self.value(e) for e in (result.elts if isinstance(result, ast.Tuple) else [result])]
        order = (*inputs, *extra)
        donated = {}
        for decorator in tree.decorator_list:
            if isinstance(decorator, ast.Call):
                donated |= {ast.literal_eval(k.value): order.index(self.values[str(k.arg)]) for k in decorator.keywords}
        return Graph(tree.name, order, tuple(nodes), tuple(outputs), bound, dict(sorted(donated.items())))

    def parameter(self, argument: ast.arg) -> Value:
        note = argument.annotation
        if not (isinstance(note, ast.Subscript) and isinstance(note.value, ast.Name)):
            raise FormatError(f"line {argument.lineno}: parameter {argument.arg} needs a type such as f32[2, 3]")
        shape = ast.literal_eval(note.slice)
        value = Value(TensorType(as_dtype(note.value.id), shape if isinstance(shape, tuple) else (shape,)), argument.arg)
        self.values[argument.arg] = value
        return value

    def value(self, tree: ast.expr) -> Value:
        if not isinstance(tree, ast.Name) or tree.id not in self.values:
            raise FormatError(f"line {tree.lineno}: {ast.unparse(tree)} is not a value defined above")
        return self.values[tree.id]

    def attribute(self, tree: ast.expr) -> Any:
        if isinstance(tree, ast.Name) and tree.id in self.functions:
            return self.functions[tree.id]
        return _literal(tree)

    def assignment(self, tree: ast.Assign) -> Node:
        call, target = tree.value, tree.targets[0]
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise FormatError(f"line {tree.lineno}: expected `name = op(values, attribute=…)`, found {ast.unparse(tree):.60}")
        op = lookup(call.func.id)
        inputs = tuple(self.value(a) for a in call.args)
        attrs = {str(k.arg): self.attribute(k.value) for k in call.keywords}
        attrs = {k: as_dtype(v) if k == "dtype" else v for k, v in attrs.items()}
        try:
            types = op.infer(*(v.type for v in inputs), **attrs)
        except (TinyTorchError, TypeError) as error:
            raise FormatError(f"line {tree.lineno}: {ast.unparse(tree):.100}: {error}") from None
        types = types if isinstance(types, tuple) else (types,)
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        if len(targets) != len(types):
            raise FormatError(f"line {tree.lineno}: {op} gives {len(types)} values, {len(targets)} names are assigned")
        outputs = []
        for name, type_ in zip(targets, types, strict=True):
            outputs.append(Value(type_, ast.unparse(name)))
            self.values[ast.unparse(name)] = outputs[-1]
        return Node(op, inputs, attrs, tuple(outputs))


def _literal(tree: ast.expr) -> Any:
    """A literal, in which `inf` and `nan` are numbers too."""
    if isinstance(tree, ast.Name) and tree.id in ("inf", "nan"):
        return math.inf if tree.id == "inf" else math.nan
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_literal(tree.operand)
    if isinstance(tree, ast.Tuple):
        return tuple(map(_literal, tree.elts))
    try:
        return ast.literal_eval(tree)
    except ValueError:
        raise FormatError(f"line {tree.lineno}: {ast.unparse(tree)} is not a literal or a function defined above") from None
