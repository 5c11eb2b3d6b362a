"""Quantised models in files: `save(small, path)` and `load(path, model)`, as safetensors, written atomically.

    tt.quant.save(small, "small.safetensors")                    # a quarter of the bytes
    small = tt.quant.load("small.safetensors", build())          # the program is the model's, the numbers are the file's

The file holds, for each layer, the weight as i8, a scale for each output and the bias as f32; what else the model reads
as it was; in its metadata, as JSON, the method, the grid of x and the measures of the report. Nothing is executed.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.ir.errors import FormatError, OpError, listing
from tinytorch.ir.serialize import read_tensors, write_tensors
from tinytorch.ir.text import identifier
from tinytorch.nn import Module
from tinytorch.passes.fold_constants import frozen
from tinytorch.passes.quantize_layers import Grid, IntegerLayer

from .plan import Plan, Row
from .quantized import Quantized

FORMAT = "tinytorch.quantized/1"
PARTS = ("weight", "scale", "bias")


def save(model: Quantized, path: str | Path) -> None:
    """Write a quantised model, replacing the file only when all is written.

    Raises:
        OpError: `model` is no quantised module; a quantised graph has `graph.save`.
    """
    if not isinstance(model, Quantized):
        raise OpError(f"quant.save({type(model).__name__}): expected what quantize gives for a module; "
                      "graphs have graph.save(path), other modules tt.save(module.state_dict(), path)")
    plan = model.plan
    tensors = {f"{key}:{part}": getattr(layer, part) for key, layer in plan.layers.items() for part in PARTS}
    tensors |= {name: array for name, array in _state(model.source).items() if _as_bound(name) in plan.kept}
    about = {"rows": [_as_list(row) for row in plan.rows], "kept": plan.kept,
             "grids": {key: layer.grid for key, layer in plan.layers.items()}}
    write_tensors(path, tensors, {"format": FORMAT, "plan": json.dumps(about, separators=(",", ":"))})


def load(path: str | Path, module: Module) -> Quantized:
    """The quantised model in a file.

    Args:
        module: the model that was quantised, or one made like it; its numbers do not matter, and it is left as it is.
    Raises:
        FormatError: the file is missing, damaged, of another kind, or has numbers that the module has no place for.
    """
    arrays, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise FormatError(f"{path}: not a quantised model (its format is {metadata.get('format')!r}, "
                          f"expected {FORMAT!r})")
    try:
        plan = _plan(json.loads(metadata["plan"]), arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: damaged, or written by another version: {error!r}") from None
    state = {name: array for name, array in arrays.items() if ":" not in name}
    if unknown := state.keys() - _state(module).keys():
        raise FormatError(f"{path}: holds {listing(unknown)}, which {type(module).__name__} does not have")
    own = copy.deepcopy(module)
    own.load_state_dict(state, strict=False)
    return Quantized(own, plan)


def _plan(about: Any, arrays: dict[str, np.ndarray]) -> Plan:
    layers = {key: IntegerLayer(*(frozen(arrays[f"{key}:{part}"]) for part in PARTS),
                                grid=None if grid is None else Grid(float(grid[0]), int(grid[1])))
              for key, grid in about["grids"].items()}
    rows = tuple(Row(*(np.nan if cell is None else cell for cell in row)) for row in about["rows"])
    return Plan(layers, {row.key: row.method for row in rows}, rows, tuple(about["kept"]))


def _as_list(row: Row) -> list[Any]:
    """The cells of a row, numbers to six digits, as JSON has them."""
    cells = (row.key, row.name, row.method, row.size, row.low, row.high, row.x_db, row.weight_db, row.why)
    return [None if cell != cell else float(f"{cell:.5g}") if isinstance(cell, float) else cell for cell in cells]


def _state(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()} if isinstance(module, Module) else {}


def _as_bound(path: str) -> str:
    """A parameter's name in a graph."""
    return identifier(path.replace(".", "_"))
