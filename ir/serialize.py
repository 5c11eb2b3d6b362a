"""Keep a graph in a file: one safetensors file whose metadata holds the program as JSON.
Nothing in it is ever executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .dtypes import ALL, DType, as_dtype
from .errors import FormatError
from .files import write_atomically
from .graph import Graph, Node, Source, Value
from .op import lookup
from .types import TensorType
from .verify import verify

FORMAT = "tinytorch.graph/1"
_ON_FILE = {d.name.upper(): d for d in ALL}  # safetensors writes F32, BF16, BOOL, …


def save_graph(graph: Graph, path: str | Path) -> None:
    """Write `graph` and its bound arrays to `path`, replacing the file only when all is written."""
    names = {value: f"{number}.{graph.names[value]}" for number, value in enumerate(graph.inputs)}
    text = json.dumps(to_json(graph), separators=(",", ":"))
    write_tensors(path, {names[v]: a for v, a in graph.bound.items()}, {"format": FORMAT, "graph": text})


def load_graph(path: str | Path) -> Graph:
    """Read what `save_graph` wrote.

    Raises:
        FormatError: the file is missing, truncated, of another kind, or holds an unsound program.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise FormatError(f"{path}: not a graph of tinytorch (its format is {metadata.get('format')!r}, "
                          f"expected {FORMAT!r})")
    try:
        graph = from_json(json.loads(metadata["graph"]))
        if any(int(name.split(".")[0]) not in range(len(graph.inputs)) for name in tensors):
            raise ValueError("a tensor belongs to no input")
        bound = {graph.inputs[int(name.split(".")[0])]: array for name, array in tensors.items()}
        return verify(graph.with_(bound=bound))
    except Exception as error:  # whatever stands in the file, the reader is told which file
        raise FormatError(f"{path}: damaged, or written by another version: {type(error).__name__}: {error}") from None


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray],
                  metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, written beside `path` and moved there when complete."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(a) if a.ndim else a for name, a in tensors.items()},
                   metadata=dict(metadata or {}))
    write_atomically(Path(path), content, durable=True)


def read_tensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a safetensors file; raises FormatError if it is not one."""
    from safetensors import SafetensorError, deserialize

    try:
        content = Path(path).read_bytes()
        parts: list[tuple[str, Any]] = deserialize(content)  # type: ignore[no-untyped-call]
        header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from None
    except (SafetensorError, ValueError) as error:
        raise FormatError(f"{path}: not a safetensors file, or damaged: {error}") from None
    arrays = {}
    for name, part in parts:
        dtype = _ON_FILE.get(part["dtype"])
        if dtype is None:
            raise FormatError(f"{path}: tensor {name} has dtype {part['dtype']}, which tinytorch does not have")
        arrays[name] = np.frombuffer(bytearray(part["data"]), dtype.np).reshape(part["shape"])
    return arrays, header.get("__metadata__", {})


# -- the program as JSON -----------------------------------------------------------------------------------------------


def to_json(graph: Graph) -> dict[str, Any]:
    """The program (without the bound arrays) as plain dictionaries, lists, strings and numbers."""
    numbers: dict[Value, int] = {}
    for value in (*graph.inputs, *(v for node in graph.nodes for v in node.outputs)):
        numbers[value] = len(numbers)
    return {
        "name": graph.name,
        "inputs": [[graph.names[v], v.type.dtype.name, list(v.shape)] for v in graph.inputs],
        "nodes": [{
            "op": node.op.name, "inputs": [numbers[v] for v in node.inputs],
            "attrs": {k: _encode(v) for k, v in node.attrs.items()},
            "outputs": [[graph.names[v], v.type.dtype.name, list(v.shape)] for v in node.outputs],
            **({"source": [node.source.file, node.source.line, node.source.function]} if node.source else {}),
        } for node in graph.nodes],
        "outputs": [numbers[v] for v in graph.outputs],
        "donated": sorted(map(list, graph.donated.items())),
    }


def from_json(data: Mapping[str, Any]) -> Graph:
    """The graph that `to_json` described; raises LookupError, TypeError or ValueError if it is not one."""
    values: list[Value] = []

    def find(number: int) -> Value:
        if number < 0:
            raise ValueError(f"there is no value {number}")
        return values[number]

    def value(entry: Any) -> Value:
        name, dtype, shape = entry
        values.append(Value(TensorType(as_dtype(dtype), tuple(map(int, shape))), str(name)))
        return values[-1]

    inputs = tuple(map(value, data["inputs"]))
    nodes = []
    for entry in data["nodes"]:
        operands = tuple(map(find, entry["inputs"]))
        file, line, function = entry.get("source", ("", 0, ""))
        source = Source(str(file), int(line), str(function)) if "source" in entry else None
        nodes.append(Node(lookup(entry["op"]), operands, {k: _decode(v) for k, v in entry["attrs"].items()},
                          tuple(map(value, entry["outputs"])), source))
    return Graph(str(data["name"]), inputs, tuple(nodes), tuple(map(find, data["outputs"])), {},
                 {int(o): int(i) for o, i in data["donated"]})


def _encode(value: Any) -> Any:
    if isinstance(value, DType):
        return {"dtype": value.name}
    if isinstance(value, Graph):
        return {"graph": to_json(value)}
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"float": repr(value)}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_decode, value))
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        return as_dtype(inner) if kind == "dtype" else from_json(inner) if kind == "graph" else float(inner)
    return value
