"""A graph as Python text, and back.

`to_text` prints a function that can be pasted into a file, run, and traced again to the same graph. `from_text` reads
such text as data, by Python's own parser, and executes nothing.
"""

from __future__ import annotations

import ast
import keyword
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from .dtypes import ALL, DType, as_dtype
from .errors import FormatError, TinyTorchError
from .graph import Graph, Node, Value
from .op import as_tuple, lookup, registry
from .types import TensorType

HEADER = "from tinytorch.ir.ops import *\n"
_RESERVED = {d.name for d in ALL} | {"bool_", "inf", "nan", "donates", "body", "style"}


def assign_names(graph: Graph) -> dict[Value, str]:
    """A distinct name for each value; results are numbered, so that no name hides an op."""
    names: dict[Value, str] = {}
    taken = set(registry) | _RESERVED | set(keyword.kwlist)
    counts: dict[str, int] = {}
    for value in (*graph.inputs, *(v for node in graph.nodes for v in node.outputs)):
        base = identifier(value.hint) or "v"
        name = base
        while name in taken:
            counts[base] = counts.get(base, 0) + 1
            name = f"{base}_{counts[base]}"
        taken.add(name)
        names[value] = name
    return names


def identifier(text: str) -> str:
    """`text` with `_` for whatever cannot stand in a Python name."""
    name = "".join(c if f"_{c}".isidentifier() else "_" for c in unicodedata.normalize("NFKC", text))
    return f"_{name}" if name[:1].isdigit() else name


def _function_name(hint: str, taken: set[str]) -> str:
    """A name for a function that hides no op and no other function."""
    base, number = identifier(hint) or "graph", 1
    name = base
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


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
    parts = [f"{graph.names[value]}: {value.type}" for value in graph.inputs]
    first = next((number for number, value in enumerate(graph.inputs) if value in graph.bound), None)
    if first is not None:
        parts.insert(first, "*")
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
    """The graph as a Python function, with types (and the user's lines) in the margin;
    the bodies of fused nodes stand before it."""
    bodies: dict[int, str] = {}
    printed: dict[str, str] = {}
    parts = [HEADER]
    taken = set(registry) | _RESERVED | set(keyword.kwlist)
    own_name = _function_name(graph.name, taken)
    taken |= set(graph.names.values())
    for node in graph.nodes:
        body = node.body
        if body is None or id(body) in bodies:
            continue
        text = "\n".join(_function(body, body.name, {}, sources))
        if text not in printed:  # equal bodies are printed once
            printed[text] = _function_name(body.name, taken)
            parts.append("\n".join(_function(body, printed[text], {}, sources)) + "\n")
        bodies[id(body)] = printed[text]
    parts.append("\n".join(_function(graph, own_name, bodies, sources)))
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
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; brackets too deep
        raise FormatError(f"not Python: {error}") from None
    functions: dict[str, Graph] = {}
    graph = None
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef):
            graph = _read(statement, functions, bound or {})
            functions[statement.name] = graph
        elif not isinstance(statement, (ast.Import, ast.ImportFrom)):
            raise FormatError(f"line {statement.lineno}: expected a function, found {ast.unparse(statement):.60}")
    if graph is None:
        raise FormatError("there is no function in this text")
    return graph


def _read(tree: ast.FunctionDef, functions: Mapping[str, Graph], bound: Mapping[str, np.ndarray]) -> Graph:
    try:
        return _Reader(functions, bound).function(tree)
    except FormatError:
        raise
    except (TinyTorchError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"line {tree.lineno}: {tree.name} is not the text of a graph: {error}") from None


class _Reader:
    def __init__(self, functions: Mapping[str, Graph], bound: Mapping[str, np.ndarray]) -> None:
        self.functions = functions
        self.bound = bound
        self.values: dict[str, Value] = {}

    def function(self, tree: ast.FunctionDef) -> Graph:
        args = tree.args
        if args.posonlyargs or args.vararg or args.kwarg or args.defaults or any(args.kw_defaults):
            raise FormatError(f"line {tree.lineno}: {tree.name} must have plain parameters without defaults; "
                              "those after * are bound")
        inputs = [self.parameter(a) for a in tree.args.args]
        extra = [self.parameter(a) for a in tree.args.kwonlyargs]
        bound = {v: self.bound[v.hint] for v in extra if v.hint in self.bound}
        nodes = [self.assignment(s) for s in tree.body if isinstance(s, ast.Assign)]
        result = tree.body[-1].value if isinstance(tree.body[-1], ast.Return) else None
        if len(nodes) != len(tree.body) - 1 or result is None:
            raise FormatError(f"line {tree.lineno}: {tree.name} must be assignments and one return at the end")
        outputs = [self.value(e) for e in (result.elts if isinstance(result, ast.Tuple) else [result])]
        order = (*inputs, *extra)
        donated: dict[int, int] = {}
        for decorator in tree.decorator_list:
            if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "donates"):
                raise FormatError(f"line {decorator.lineno}: expected @donates(input=output), "
                                  f"found @{ast.unparse(decorator):.60}")
            donated |= {ast.literal_eval(k.value): order.index(self.values[str(k.arg)]) for k in decorator.keywords}
        return Graph(tree.name, order, tuple(nodes), tuple(outputs), bound, dict(sorted(donated.items())))

    def parameter(self, argument: ast.arg) -> Value:
        note = argument.annotation
        if not (isinstance(note, ast.Subscript) and isinstance(note.value, ast.Name)):
            raise FormatError(f"line {argument.lineno}: parameter {argument.arg} needs a type such as f32[2, 3]")
        try:
            shape = ast.literal_eval(note.slice)
            shape = shape if isinstance(shape, tuple) else (shape,)
            if not all(type(n) is int and n >= 0 for n in shape):
                raise FormatError("extents are integers ≥ 0")
            value = Value(TensorType(as_dtype(note.value.id), shape), argument.arg)
        except (TinyTorchError, ValueError) as error:
            raise FormatError(
                f"line {argument.lineno}: parameter {argument.arg}: {ast.unparse(note)}: {error}") from None
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
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and len(tree.targets) == 1
                and all(k.arg for k in call.keywords)):
            raise FormatError(f"line {tree.lineno}: expected `name = op(values, attribute=…)`, "
                              f"found {ast.unparse(tree):.60}")
        inputs = tuple(self.value(a) for a in call.args)
        attrs = {str(k.arg): self.attribute(k.value) for k in call.keywords}
        try:
            op = lookup(call.func.id)
            attrs = {k: as_dtype(v) if k == "dtype" else v for k, v in attrs.items()}
            types = as_tuple(op.infer(*(v.type for v in inputs), **attrs))
        except Exception as error:  # a type rule may stumble over whatever stands in the text
            raise FormatError(f"line {tree.lineno}: {ast.unparse(tree):.100}: {error}") from None
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
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise FormatError(
            f"line {tree.lineno}: {ast.unparse(tree):.60} is not a literal or a function defined above") from None
