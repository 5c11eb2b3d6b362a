"""Linear layers whose weights have blocks of zeros: `sparse_linear` reads, and multiplies by, the other blocks alone.

A weight (outputs, depth) is cut into panels of 32 outputs. Of each panel, runs of neighbouring elements along the depth
are kept that are not all zero: `blocks` (runs, run, 32) holds them, panel after panel, and `places` (runs) where along
the depth each begins. Panel p has the runs from `starts[p]` up to `starts[p + 1]`. All runs are of one length; of 1, if
zeros are scattered. `pack_sparse` makes the three.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import f32, i64
from ..errors import DTypeError, ShapeError
from ..op import Kind
from ..types import TensorType
from .contract import matmul
from .define import Prepared, attributes, composite, lift
from .index import scatter_add
from .pointwise import cast, ge
from .reduce import sum
from .source import iota
from .view import broadcast_to, reshape, slice, transpose

__all__ = ["sparse_linear"]

PANEL = 32  # outputs side by side
RUNS = (1, 2, 4, 8)  # lengths of runs


def pack_sparse(weight: np.ndarray, run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`blocks`, `places` and `starts` of a weight (outputs, depth) whose depth is a multiple of `run`."""
    outputs, depth = weight.shape
    panels = -(-outputs // PANEL)
    wide = np.zeros((panels * PANEL, depth), np.float32)
    wide[:outputs] = weight
    parts = wide.reshape(panels, PANEL, depth // run, run).transpose(0, 2, 3, 1)  # (panels, depth / run, run, 32)
    kept = parts.any((2, 3))
    starts = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int64)
    return np.ascontiguousarray(parts[kept]), np.nonzero(kept)[1].astype(np.int64) * run, starts


def density(weight: np.ndarray, run: int) -> float:
    """The share of a weight's elements that `pack_sparse` keeps."""
    outputs, depth = weight.shape
    zero = np.add.reduceat(weight != 0, np.arange(0, outputs, PANEL), 0).reshape(-1, depth // run, run).any(2)
    return float(zero.mean())


def unpacked(blocks: Any, places: Any, starts: Any, depth: int, outputs: int) -> Any:
    """The weight (outputs, depth) that they stand for."""
    runs, run, _ = blocks.shape
    panels = starts.shape[0] - 1
    begun = ge(iota((runs, panels), axis=0), broadcast_to(reshape(slice(starts, (1,), (panels,)), (1, panels)),
                                                          (runs, panels)))
    rows = reshape(sum(cast(begun, i64), 1) * depth + places, (runs, 1)) + iota((runs, run), axis=1)
    empty = broadcast_to(lift(0.0, blocks.dtype), (panels * depth, PANEL))
    wide = scatter_add(empty, reshape(rows, (runs * run,)), reshape(blocks, (runs * run, PANEL)), 0)
    turned = transpose(reshape(wide, (panels, depth, PANEL)), (0, 2, 1))
    return slice(reshape(turned, (panels * PANEL, depth)), (0, 0), (outputs, depth))


def _prepare(x: Any, blocks: Any, places: Any, starts: Any, *, outputs: int) -> Prepared:
    x, blocks, places, starts = map(lift, (x, blocks, places, starts))
    if x.ndim < 1 or not x.dtype.is_float or blocks.dtype is not x.dtype:
        raise DTypeError(f"sparse_linear({x.type}, blocks {blocks.type}): expected x (…, depth) of a floating type, "
                         "and blocks of the same")
    runs, panels = places.shape[0] if places.ndim else 0, -(-int(outputs) // PANEL)
    if blocks.ndim != 3 or blocks.shape[::2] != (runs, PANEL) or places.type != i64[runs] or (
            starts.type != i64[panels + 1]):
        raise ShapeError(f"sparse_linear({x.type}, {blocks.type}, {places.type}, {starts.type}, outputs={outputs}): "
                         f"expected blocks (runs, run, {PANEL}), places i64[runs] and starts i64[{panels + 1}]; make "
                         "them with `pack_sparse`")
    return (x, blocks, places, starts), {"outputs": int(outputs)}


def _linear(x: Any, blocks: Any, places: Any, starts: Any, *, outputs: int) -> Any:
    depth = x.shape[-1]
    weight = unpacked(blocks, places, starts, depth, outputs)
    flat = reshape(x, (math.prod(x.shape[:-1]), depth))
    return reshape(matmul(flat, weight, False, True), (*x.shape[:-1], outputs))


def _native(x: TensorType, blocks: TensorType, *rest: TensorType, outputs: int) -> bool:
    return x.dtype is f32 and 0 not in x.shape and 0 not in blocks.shape and blocks.shape[1] in RUNS


sparse_linear = composite(
    "sparse_linear", _linear, attributes(_prepare),
    "x Wᵀ with W (outputs, depth) given by those of its blocks that are not zero", kind=Kind.CONTRACT,
    flops=lambda out, x, blocks, *_, **__: 2 * out.size * blocks.size // (-(-max(out.shape[-1], 1) // PANEL) * PANEL),
    native=_native)
