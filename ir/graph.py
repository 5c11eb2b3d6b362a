"""Graphs: immutable programs of typed values, in an order in which they can be run.

    graph.inputs    what the program takes; those in `graph.bound` (parameters, large constants) have a value already
    graph.nodes     operations, each after the ones it uses
    graph.outputs   what it gives back
    graph.donated   output number -> input number: the result overwrites that input (a training step updates in place)
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import DType
from .errors import ShapeError
from .op import Op, as_tuple
from .types import Shape, TensorType

if TYPE_CHECKING:
    import networkx

    from .page import Stage


@dataclass(frozen=True, slots=True)
class Source:
    """The user's line that made a value."""

    file: str
    line: int
    function: str

    @property
    def text(self) -> str:
        """The line itself, if its file can still be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One tensor of a graph. Its identity is the object; `hint` is the name it would like."""

    type: TensorType
    hint: str = "v"

    @property
    def shape(self) -> Shape:
        """Extents of the axes."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation: an op applied to values, giving values."""

    op: Op
    inputs: tuple[Value, ...]
    attrs: Mapping[str, Any]
    outputs: tuple[Value, ...]
    source: Source | None = None

    @property
    def output(self) -> Value:
        """The result of a node that has one."""
        return self.outputs[0]

    @property
    def body(self) -> Graph | None:
        """The graph inside a fused node."""
        return self.attrs.get("body")


@dataclass(frozen=True, eq=False)
class Graph:
    """A program. Make one with `tt.trace` or `Builder`; change one with a pass, which makes another.

    >>> import numpy as np
    >>> from tinytorch.ir import Builder, f32
    >>> build = Builder("double")
    >>> with build: y = build.input("x", f32[2]) * 2.0
    >>> graph = build.finish([y])
    >>> graph(np.ones(2, "f4"))                                   # the reference meaning
    array([2., 2.], dtype=float32)
    """

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    bound: Mapping[Value, np.ndarray] = field(default_factory=dict)
    donated: Mapping[int, int] = field(default_factory=dict)

    # -- reading -------------------------------------------------------------------------------------------------------

    @cached_property
    def producer(self) -> dict[Value, Node]:
        """The node that makes each value (inputs have none)."""
        return {value: node for node in self.nodes for value in node.outputs}

    @cached_property
    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order, each once."""
        users: dict[Value, list[Node]] = {value: [] for value in self.inputs}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                users[value].append(node)
            for value in node.outputs:
                users[value] = []
        return users

    @cached_property
    def names(self) -> dict[Value, str]:
        """A distinct Python name for each value, from the hints."""
        from .text import assign_names

        return assign_names(self)

    @property
    def free(self) -> tuple[Value, ...]:
        """The inputs that a caller must give: those without a bound value."""
        return tuple(value for value in self.inputs if value not in self.bound)

    def __str__(self) -> str:
        from .text import to_text

        return to_text(self)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.inputs)} inputs, {len(self.nodes)} nodes, {len(self.outputs)} outputs>"

    def same_as(self, other: Graph) -> bool:
        """Whether both print the same and are bound to the same values."""
        from .text import to_text

        if to_text(self, sources=False) != to_text(other, sources=False) or len(self.bound) != len(other.bound):
            return False
        pairs = zip(self.inputs, other.inputs, strict=True)
        return all((a in self.bound) == (b in other.bound)
                   and (a not in self.bound or _same_array(self.bound[a], other.bound[b])) for a, b in pairs)

    # -- running -------------------------------------------------------------------------------------------------------

    def __call__(self, *arrays: Any, **bound: Any) -> Any:
        """Reference evaluation with NumPy, one op at a time.

        Args:
            arrays: one for each free input, in order (or for each input, bound ones too).
            bound: other values for bound inputs, by name.
        Returns:
            One array, or a tuple of them if the graph has several outputs.
        """
        results = evaluate(self, self._feed(arrays, bound))
        return results[0] if len(results) == 1 else tuple(results)

    def _feed(self, arrays: Sequence[Any], bound: Mapping[str, Any]) -> list[np.ndarray]:
        targets = self.inputs if len(arrays) == len(self.inputs) else self.free
        if len(arrays) != len(targets):
            wanted = ", ".join(f"{self.names[v]}: {v.type}" for v in self.free)
            raise ShapeError(f"{self.name}({wanted}) was given {len(arrays)} arrays, expected {len(self.free)}")
        by_name = {name: value for value, name in self.names.items() if value in self.bound}
        if unknown := [name for name in bound if name not in by_name]:
            raise ShapeError(f"{self.name} has no bound inputs {unknown}; it has {list(by_name)}")
        given = {**self.bound, **dict(zip(targets, map(_as_array, arrays), strict=True))}
        given |= {by_name[name]: _as_array(array) for name, array in bound.items()}
        return [_fit(given[value], value, self.names[value]) for value in self.inputs]

    # -- making others -------------------------------------------------------------------------------------------------

    def with_(self, **changes: Any) -> Graph:
        """A copy with some fields changed."""
        return replace(self, **changes)

    # -- looking and keeping -------------------------------------------------------------------------------------------

    def to_networkx(self) -> networkx.MultiDiGraph:
        """The graph as a `networkx.MultiDiGraph`: nodes are operations and inputs, edges are values."""
        from .export import to_networkx

        return to_networkx(self)

    def to_dot(self) -> str:
        """The graph in Graphviz's DOT language, fused groups as clusters."""
        from .export import to_dot

        return to_dot(self)

    def to_svg(self) -> str:
        """A picture, as the text of a self-contained SVG file."""
        from .picture import to_svg

        return to_svg(self)

    def to_html(self, path: str | Path | None = None, history: Sequence[Stage] | None = None) -> str:
        """A self-contained page to read the graph in, and the stages that led to it;
        with `path`, also written there."""
        from .show import to_html

        return to_html(self, path, history)

    def show(self, path: str | Path | None = None) -> Path:
        """Write SVG and HTML into the folder `path` (a temporary one by default) and open the page where there is a
        display.

        In a notebook the page appears inline. Returns the path of the HTML file.
        """
        from .show import show

        return show(self, path)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """The program itself where IPython would print `repr`."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        from .show import repr_html

        return repr_html(self)

    def _repr_svg_(self) -> str | None:
        from .show import repr_svg

        return repr_svg(self)

    def save(self, path: str | Path) -> None:
        """Write the graph with its bound values: one safetensors file whose metadata holds the program as JSON."""
        from .serialize import save_graph

        save_graph(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Graph:
        """Read what `save` wrote; raises FormatError for anything else."""
        from .serialize import load_graph

        return load_graph(path)

    @classmethod
    def from_text(cls, text: str, bound: Mapping[str, np.ndarray] | None = None) -> Graph:
        """Read what `print(graph)` wrote, without executing it."""
        from .text import from_text

        return from_text(text, bound)


def evaluate(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run `graph` on one array per input, by the NumPy meaning of each op; values are dropped after their last use."""
    values: dict[Value, np.ndarray] = dict(zip(graph.inputs, arrays, strict=True))
    last = {value: node for node in graph.nodes for value in node.inputs}
    keep = set(graph.outputs)
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            results = as_tuple(node.op.eval(*(values[v] for v in node.inputs), **node.attrs))
            values.update(zip(node.outputs, results, strict=True))
            for value in set(node.inputs):
                if last[value] is node and value not in keep:
                    del values[value]
    return [values[value] for value in graph.outputs]


def substitute(nodes: Iterable[Node], mapping: dict[Value, Value]) -> list[Node]:
    """`nodes` with their inputs replaced as `mapping` says."""
    return [replace(n, inputs=tuple(mapping.get(v, v) for v in n.inputs)) if any(v in mapping for v in n.inputs) else n
            for n in nodes]


def _as_array(thing: Any) -> np.ndarray:
    return thing if isinstance(thing, np.ndarray) else np.asarray(thing.numpy() if hasattr(thing, "numpy") else thing)


def _fit(array: np.ndarray, value: Value, name: str) -> np.ndarray:
    if array.shape != value.shape:
        raise ShapeError(f"input {name} is {value.type}, the array given has shape {array.shape}")
    if array.dtype != value.dtype.np and np.can_cast(array.dtype, value.dtype.np, "same_kind"):
        return array.astype(value.dtype.np)
    if array.dtype != value.dtype.np:
        raise ShapeError(f"input {name} is {value.type}, the array given has dtype {array.dtype}; convert it first")
    return array


def _same_array(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
