"""Tensors in files: `tt.save(obj, path)` and `tt.load(path)`, as safetensors, written atomically, never executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinytorch.frontends.tree import flatten
from tinytorch.ir import Graph
from tinytorch.ir.errors import FormatError
from tinytorch.ir.serialize import FORMAT as GRAPH_FORMAT
from tinytorch.ir.serialize import read_tensors, write_tensors

from .tensor import Tensor, as_tensor

FORMAT = "tinytorch.tensors/1"


def save(obj: Any, path: str | Path) -> None:
    """Write a graph, a tensor, or nested dictionaries, lists and tuples of tensors and plain values.

    Raises:
        FormatError: `obj` holds something that is neither.

    >>> import tempfile, tinytorch as tt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tt.save({"weight": tt.ones(2), "epoch": 3}, f"{folder}/run.safetensors")
    ...     tt.load(f"{folder}/run.safetensors")
    {'epoch': 3, 'weight': tensor([1., 1.])}
    """
    if isinstance(obj, Graph):
        obj.save(path)
        return
    leaves, _ = flatten(obj)
    tensors, shape = {}, _describe(obj, "")
    for name, leaf in zip(_names(shape), (x for x in leaves if _is_tensor(x)), strict=True):
        tensors[name] = as_tensor(leaf).numpy()
    write_tensors(path, tensors, {"format": FORMAT, "structure": json.dumps(shape)})


def load(path: str | Path) -> Any:
    """Read what `save` wrote; a safetensors file from elsewhere gives a dictionary of tensors.

    Raises:
        FormatError: the file is missing, damaged, or of another kind.

    >>> import tempfile, tinytorch as tt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tt.save([tt.zeros(2), "note"], f"{folder}/two.safetensors")
    ...     tt.load(f"{folder}/two.safetensors")
    [tensor([0., 0.]), 'note']
    """
    arrays, metadata = read_tensors(path)
    if metadata.get("format") == GRAPH_FORMAT:
        return Graph.load(path)
    if metadata.get("format") != FORMAT:
        return {name: Tensor(array) for name, array in arrays.items()}
    try:
        return _rebuild(json.loads(metadata["structure"]), arrays)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: damaged, or written by another version: {error!r}") from None


def _is_tensor(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _describe(obj: Any, prefix: str) -> Any:
    """The structure of `obj` as JSON: containers, plain values, and names of tensors."""
    if _is_tensor(obj):
        return {"tensor": prefix or "value"}
    if isinstance(obj, dict):
        if not all(isinstance(key, (str, int)) for key in obj):
            wrong = [key for key in obj if not isinstance(key, (str, int))][:3]
            raise FormatError(f"save: dictionary keys must be strings or integers, found {wrong}")
        order = sorted(obj, key=lambda key: (str(type(key)), key))
        return {"dict": [[key, _describe(obj[key], f"{prefix}.{key}" if prefix else str(key))] for key in order]}
    if isinstance(obj, (list, tuple)):
        parts = [_describe(x, f"{prefix}.{i}" if prefix else str(i)) for i, x in enumerate(obj)]
        return {type(obj).__name__ if type(obj) in (list, tuple) else "tuple": parts}
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return {"value": obj}
    raise FormatError(f"save: {prefix or 'the object'} is a {type(obj).__name__}; expected tensors, numbers, strings, "
                      "None, and dictionaries, lists and tuples of these (a module's state is module.state_dict())")


def _names(shape: Any) -> list[str]:
    ((kind, inner),) = shape.items()
    if kind == "tensor":
        return [inner]
    if kind == "dict":
        return [name for _, child in inner for name in _names(child)]
    return [name for child in inner for name in _names(child)] if kind in ("list", "tuple") else []


def _rebuild(shape: Any, arrays: dict[str, Any]) -> Any:
    ((kind, inner),) = shape.items()
    if kind == "tensor":
        return Tensor(arrays[inner])
    if kind == "dict":
        return {key: _rebuild(child, arrays) for key, child in inner}
    if kind == "value":
        return inner
    return (list if kind == "list" else tuple)(_rebuild(child, arrays) for child in inner)
