"""Quantised models in files: `save(small, path)` and `load(path, model)`, as safetensors, written atomically.

    tt.quant.save(small, "small.safetensors")                    # a quarter of the bytes
    small = tt.quant.load("small.safetensors", build())          # build() has the program, the file has the numbers

The file holds, for each layer, the weight as i8, a scale for each output and the bias as f32 (of weights alone: values
of 8 or 4 bits, scales and offsets of groups as bf16); what else the model reads as it was; in its metadata, as JSON,
the method, the grid of x and the measures of the report. Nothing is executed.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tinytorch.ir.errors import FormatError, OpError, listing
from tinytorch.ir.serialize import read_tensors, write_tensors
from tinytorch.ir.text import identifier
from tinytorch.nn import Module
from tinytorch.passes.fold_constants import frozen
from tinytorch.passes.quantize_layers import Grid, IntegerLayer
from tinytorch.passes.quantize_weights import PackedWeight, QuantizeWeights

from .plan import Plan, Row
from .quantized import Quantized
from .weights import SmallerWeights

FORMAT = "tinytorch.quantized/1"
PARTS = ("weight", "scale", "bias")


def save(model: Quantized | SmallerWeights, path: str | Path) -> None:
    """Write a quantised model, replacing the file only when all is written.

    Raises:
        OpError: `model` is no quantised module, or one of weights alone that has not been called yet, for those are
            made when they are met; a quantised graph has `graph.save`.

    >>> import tempfile, tinytorch as tt
    >>> from tinytorch import quant
    >>> model, x = tt.nn.Linear(64, 64), tt.randn(20, 64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     quant.save(tt.quantize(model, x), f"{folder}/small")
    ...     again = quant.load(f"{folder}/small", tt.nn.Linear(64, 64))
    >>> bool((again(x) - model(x)).abs().max() < 0.05)
    True
    """
    if not isinstance(model, (Quantized, SmallerWeights)):
        raise OpError(f"quant.save({type(model).__name__}): expected what quantize gives for a module; "
                      "graphs have graph.save(path), other modules tt.save(module.state_dict(), path)")
    plan = model.plan if isinstance(model, Quantized) else _plan_of_weights(model)
    tensors = {f"{key}:{part}": getattr(layer, part) for key, layer in plan.layers.items() for part in PARTS}
    for key, weight in plan.weights.items():
        tensors |= {f"{key}:{part}": array for part, array in _parts(weight).items()}
    tensors |= {name: array for name, array in _state(model.source).items() if _as_bound(name) in plan.kept}
    grids = {key: layer.grid for key, layer in plan.layers.items()}
    weights = {key: [*weight.values.shape, weight.bits, weight.group] for key, weight in plan.weights.items()}
    about = {"rows": [_as_list(row) for row in plan.rows], "kept": plan.kept, "grids": grids, "weights": weights,
             "alone": isinstance(model, SmallerWeights)}
    write_tensors(path, tensors, {"format": FORMAT, "plan": json.dumps(about, separators=(",", ":"))})


def _plan_of_weights(model: SmallerWeights) -> Plan:
    weights = {key: weight for key, weight in model.weights.items() if weight is not None}
    if not weights:
        raise OpError("quant.save: this model has not been called yet; its weights are packed when they are first met")
    state = _state(model.source)
    kept = tuple(_as_bound(name) for name, array in state.items() if any(array.strides) or not array.ndim)
    return Plan({}, weights, {}, (), kept)


def _parts(weight: PackedWeight) -> dict[str, np.ndarray]:
    """The arrays of a weight of few bits, two of four bits in a byte."""
    values = weight.values.reshape(-1)
    if weight.bits == 4:
        pairs = np.pad(values + 8, (0, values.size % 2)).astype(np.uint8)
        values = pairs[::2] | pairs[1::2] << 4
    offset = {} if weight.offset is None else {"offset": _narrow(weight.offset)}
    return {"values": values, "scale": _narrow(weight.scale), **offset}


def _narrow(scale: np.ndarray) -> np.ndarray:
    return scale.astype(ml_dtypes.bfloat16)  # as the kernel reads it


def _weight(arrays: dict[str, np.ndarray], key: str, about: list[int]) -> PackedWeight:
    outputs, depth, bits, group = about
    values = arrays[f"{key}:values"]
    if bits == 4:
        values = np.stack([values & 15, values >> 4], -1).reshape(-1)[:outputs * depth].astype(np.int8) - np.int8(8)
    scale, offset = (arrays[name].astype(np.float32) if (name := f"{key}:{part}") in arrays else None
                     for part in ("scale", "offset"))
    if scale is None:
        raise KeyError(f"{key}:scale")
    return PackedWeight(values.reshape(outputs, depth), scale, offset, bits, group)


def load(path: str | Path, module: Module) -> Quantized | SmallerWeights:
    """The quantised model in a file.

    Args:
        module: the model that was quantised, or one made like it; its numbers do not matter, and it is left as it is.
    Raises:
        FormatError: the file is missing, damaged, of another kind, or has numbers that the module has no place for.

    >>> import tempfile, tinytorch as tt
    >>> from tinytorch import quant
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     quant.save(tt.quantize(tt.nn.Linear(3, 2), tt.randn(20, 3)), f"{folder}/small")
    ...     quant.load(f"{folder}/small", tt.nn.Linear(3, 2))(tt.ones(5, 3)).shape
    (5, 2)
    """
    arrays, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise FormatError(f"{path}: not a quantised model (its format is {metadata.get('format')!r}, "
                          f"expected {FORMAT!r})")
    try:
        about = json.loads(metadata["plan"])
        plan = _plan(about, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: damaged, or written by another version: {error!r}") from None
    state = {name: array for name, array in arrays.items() if ":" not in name}
    if unknown := state.keys() - _state(module).keys():
        raise FormatError(f"{path}: holds {listing(unknown)}, which {type(module).__name__} does not have")
    own = copy.deepcopy(module)
    own.load_state_dict(state, strict=False)
    return SmallerWeights(own, QuantizeWeights(dict(plan.weights))) if about["alone"] else Quantized(own, plan)


def _plan(about: Any, arrays: dict[str, np.ndarray]) -> Plan:
    layers: dict[str, IntegerLayer] = {}
    for key, grid in about["grids"].items():
        weight, scale, bias = (frozen(arrays[f"{key}:{part}"]) for part in PARTS)
        layers[key] = IntegerLayer(weight, scale, bias, None if grid is None else Grid(float(grid[0]), int(grid[1])))
    cells: list[list[Any]] = [[np.nan if cell is None else cell for cell in row] for row in about["rows"]]
    rows = tuple(Row(*row) for row in cells)
    weights = {key: _weight(arrays, key, sizes) for key, sizes in about["weights"].items()}
    return Plan(layers, weights, {row.key: row.method for row in rows}, rows, tuple(about["kept"]))


def _as_list(row: Row) -> list[Any]:
    """The cells of a row, numbers to six digits, as JSON has them."""
    cells = (row.key, row.name, row.method, row.size, row.low, row.high, row.x_db, row.weight_db, row.why)
    return [None if cell != cell else float(f"{cell:.5g}") if isinstance(cell, float) else cell for cell in cells]


def _state(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()} if isinstance(module, Module) else {}


def _as_bound(path: str) -> str:
    """A parameter's name in a graph."""
    return identifier(path.replace(".", "_"))
