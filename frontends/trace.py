"""Turn a Python function of tensors into a graph by running it once on stand-ins.

Tensors and arrays among the arguments, however nested, become inputs; so do Python floats. Other Python values are
static: they are seen as they are, and a caller that compiles keeps one graph for each. Loops unroll; a branch on a
traced value is an error that shows the line.

A tensor that the function finds elsewhere (a parameter, a captured array) becomes a *bound* input that stays connected
to its owner. One that the function overwrites (`p.copy_(…)`) is donated: its new value is one more output that is
written in its place.
"""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.ir import Builder, Graph, Operand, TensorType, Value
from tinytorch.ir.errors import TracingError

from .tree import LEAF, Tree, flatten, paths, unflatten


class Tracer(Builder):
    """A Builder that keeps track of the tensors a function captures and overwrites."""

    def __init__(self, name: str, handle: type[Operand], names: Mapping[int, str]) -> None:
        super().__init__(name, handle)
        self.names = names
        self.captured: dict[int, tuple[Operand, Value]] = {}
        self.mutated: dict[int, Operand] = {}
        self.stand_ins: list[Operand] = []
        self.relied: list[tuple[Callable[[], Any], Any]] = []

    def rely(self, read: Callable[[], Any]) -> None:
        """What is traced from here on holds for as long as `read()` gives what it gives now: a caller that keeps the
        graph asks again before each use."""
        self.relied.append((read, read()))

    def capture(self, operand: Operand) -> Value:
        """An input for a tensor from outside; arrays without an owner become constants."""
        if not isinstance(operand, self.handle) or type(operand) is Operand:
            return super().capture(operand)
        name = self.names.get(id(operand), "captured").replace(".", "_")
        value: Value = self.input(name, operand.type, bound=operand.payload).payload
        self.captured[id(operand)] = (operand, value)
        return value

    def assign(self, target: Operand, source: Operand) -> None:
        """From here on `target` has the value of `source`."""
        value = source.payload if isinstance(source.payload, Value) else self.lift(source)
        if value.type != target.type:
            raise TracingError(f"cannot overwrite a tensor of type {target.type} with one of type {value.type}")
        if isinstance(target.payload, Value):
            target.payload = value
            return
        self.lift(target)
        self._lifted[id(target)] = (target, value)
        self.mutated[id(target)] = target


@dataclass(frozen=True)
class Trace:
    """A graph with what is needed to call it: how arguments go in, how results come out,
    and whom it reads and overwrites."""

    graph: Graph
    out_tree: Tree
    out_static: tuple[Any, ...]  # the leaves of the result that are not tensors; `TENSOR` where one is
    captured: tuple[Operand, ...]  # owners of the bound inputs, in order; `Owned` arrays have none
    mutated: tuple[Operand, ...]  # owners of the outputs after the results, in order
    extra: tuple[Any, ...]  # what `after` gave, in order, for the outputs after those
    needs_grad: tuple[bool, ...] = ()  # which results a gradient could flow back from
    relied: tuple[tuple[Callable[[], Any], Any], ...] = ()  # what must still give the same; see `Tracer.rely`

    def results(self, values: Sequence[Any]) -> Any:
        """The function's result, from the values of the first outputs."""
        tensors = iter(values)
        return unflatten(self.out_tree, [next(tensors) if leaf is TENSOR else leaf for leaf in self.out_static])


class _Tensor:
    def __repr__(self) -> str:
        return "TENSOR"


TENSOR = _Tensor()


def is_traceable(leaf: Any) -> bool:
    """Whether an argument's leaf becomes an input: tensors, arrays, NumPy numbers and Python floats."""
    return isinstance(leaf, (Operand, np.ndarray, np.generic)) or type(leaf) is float


def leaf_type(leaf: Any) -> TensorType:
    """The type of the input that stands for a leaf."""
    if isinstance(leaf, Operand):
        return leaf.type
    return TensorType.of(np.asarray(leaf, np.float32 if type(leaf) is float else None))


def trace(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, *,
          handle: type[Operand] = Operand,
          static: Sequence[str | int] = (), names: Mapping[int, str] | None = None, name: str | None = None,
          after: Callable[[Tracer], Sequence[tuple[Any, Operand]]] | None = None,
          bind_keyword_only: bool = False) -> Trace:
    """Run `function` once on stand-ins.

    Args:
        args, kwargs: examples; only types and static values matter.
        handle: the class of the stand-ins (`tt.Tensor`, so that users' methods work).
        static: positions or names of arguments that are to be seen as they are, whatever they are.
        names: names for captured tensors, by `id`.
        after: called when the function has returned; gives (key, handle) pairs to return as further outputs.
        bind_keyword_only: arrays for keyword-only parameters become bound inputs, as the text of a graph shows them.
    Raises:
        TracingError: the function branches on a traced value, or returns something that is not made of tensors and
        plain values.
    """
    tracer = Tracer(name or graph_name(function), handle, names or {})
    bound_args, bound_kwargs = _stand_ins(tracer, function, args, dict(sorted((kwargs or {}).items())),
                                          frozenset(static), bind_keyword_only)
    with tracer:
        leaves, out_tree = flatten(function(*bound_args, **bound_kwargs))
        handles = [leaf for leaf in leaves if isinstance(leaf, Operand)]
        extra = list(after(tracer)) if after else []
    mutated = list(tracer.mutated.values())
    outputs = [*handles, *mutated, *(h for _, h in extra)]
    donated = {len(handles) + i: tracer.captured[id(owner)][1] for i, owner in enumerate(mutated)}
    graph = tracer.finish([_current(tracer, o) for o in outputs], donated)
    owners = {value: owner for owner, value in tracer.captured.values()}
    captured = tuple(owners.get(v, Operand(graph.bound[v])) for v in graph.inputs if v in graph.bound)
    static_leaves = tuple(TENSOR if isinstance(leaf, Operand) else leaf for leaf in leaves)
    return Trace(graph, out_tree, static_leaves, captured, tuple(mutated), tuple(key for key, _ in extra),
                 tuple(_is_open(h) for h in handles), tuple(tracer.relied))


def _current(tracer: Tracer, operand: Operand) -> Operand:
    """The handle, or the latest value of a tensor from outside."""
    return operand if isinstance(operand.payload, Value) else Operand(tracer.lift(operand))


def _is_open(handle: Operand) -> bool:
    """Whether a gradient could still flow back from a result: it requires one, and no backward has used it up."""
    creator = getattr(handle, "creator", None)
    return bool(getattr(handle, "requires_grad", False)) and (creator is None or isinstance(creator, tuple))


def _stand_ins(tracer: Tracer, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any],
               static: frozenset[str | int], bind_keyword_only: bool) -> tuple[list[Any], dict[str, Any]]:
    labels = _parameters(function, len(args))
    only_keyword = _keyword_only(function) if bind_keyword_only else set()
    new_args = [arg if i in static or labels[i] in static else _stand_in(tracer, arg, labels[i], False)
                for i, arg in enumerate(args)]
    new_kwargs = {k: v if k in static else _stand_in(tracer, v, k, k in only_keyword and isinstance(v, np.ndarray))
                  for k, v in kwargs.items()}
    return new_args, new_kwargs


def _stand_in(tracer: Tracer, arg: Any, label: str, bound: bool) -> Any:
    leaves, tree = flatten(arg)
    places = [label] if tree is LEAF else [p if p.isidentifier() else f"{label}_{p}" for p in paths(tree, label)]
    inputs = []
    for leaf, place in zip(leaves, places, strict=True):
        if not is_traceable(leaf):
            inputs.append(leaf)
            continue
        handle = tracer.input(place, leaf_type(leaf), np.asarray(leaf) if bound else None)
        if getattr(leaf, "requires_grad", False):
            handle.requires_grad = True
        tracer.stand_ins.append(handle)
        inputs.append(handle)
    return unflatten(tree, inputs)


def _parameters(function: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = list(inspect.signature(getattr(function, "forward", function)).parameters.values())
    except (TypeError, ValueError):
        return [f"x{i}" for i in range(count)]
    found = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "x")
    return (found + [f"{rest}_{i}" for i in range(count)])[:count]


def _keyword_only(function: Callable[..., Any]) -> set[str]:
    try:
        return {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    except (TypeError, ValueError):
        return set()


def graph_name(function: Callable[..., Any]) -> str:
    """A Python identifier for the graph of a function or module."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "<lambda>":
        return "function"
    name = re.sub(r"\W", "_", name).strip("_").lower() or "graph"
    return f"{name}_" if keyword.iskeyword(name) else name
