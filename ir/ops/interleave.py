"""`pack_pairs`: a matrix rounded to bf16 and laid out for `pair_matmul`, in one walk.

    y = ops.pair_matmul(x, ops.pack_pairs(w))       # w f32 (depth, columns); as ops.pairs(ops.cast(w, "bf16"))

What a training step multiplies by is new in each step, so laying it out must cost less than the product saves.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import bf16, f32
from ..errors import DTypeError, ShapeError
from ..types import TensorType
from .define import Prepared, attributes, cast_to, composite, lift
from .integer import pairs

__all__ = ["pack_pairs"]


def _prepare(x: Any) -> Prepared:
    x = lift(x)
    if x.ndim != 2:
        raise ShapeError(f"pack_pairs({x.type}): expected a matrix (depth, columns)")
    if not x.dtype.is_float:
        raise DTypeError(f"pack_pairs({x.type}): expected floats, which it rounds to bf16")
    return (x,), {}


def _is_native(x: TensorType) -> bool:
    return x.dtype is f32 and x.shape[0] % 2 == 0 and 0 not in x.shape


pack_pairs = composite(
    "pack_pairs", lambda x: pairs(cast_to(x, bf16)), attributes(_prepare),
    "a matrix (depth, columns) as bf16 (depth / 2, columns, 2), the weight of pair_matmul", native=_is_native)
