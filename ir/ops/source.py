"""Values out of nothing: literals and counting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype
from ..errors import OpError
from ..interp import nested_tuple
from ..op import Kind, Op
from ..types import TensorType, normalize_axis
from .define import Prepared, attributes

__all__ = ["constant", "iota"]


def _constant(value: Any, dtype: Any, shape: tuple[int, ...] = ()) -> Prepared:
    plain = value if isinstance(value, (bool, int, float)) else nested_tuple(np.asarray(value))
    return (), {"value": plain, "dtype": as_dtype(dtype), "shape": tuple(int(n) for n in shape)}


def _constant_eval(*, value: Any, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(value, dtype.np)
    if array.size != math.prod(shape):
        raise OpError(f"constant: {array.size} numbers do not fill shape {shape}")
    return array.reshape(shape)


def _constant_infer(*, value: Any, dtype: DType, shape: tuple[int, ...]) -> TensorType:
    return TensorType(dtype, _constant_eval(value=value, dtype=dtype, shape=shape).shape)


constant = Op(
    name="constant", kind=Kind.SOURCE, doc="The literal `value` (a number or nested tuples of numbers) as a tensor.",
    prepare=attributes(_constant), eval=_constant_eval, infer=_constant_infer)


def _iota(shape: Any, axis: int = 0, dtype: Any = "i64") -> Prepared:
    return (), {"shape": tuple(int(n) for n in shape), "axis": normalize_axis(axis, len(shape)),
                "dtype": as_dtype(dtype)}


def _iota_eval(*, shape: tuple[int, ...], axis: int, dtype: DType) -> np.ndarray:
    ramp = np.arange(shape[axis]).astype(dtype.np).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(ramp, shape)


iota = Op(
    name="iota", kind=Kind.SOURCE, doc="0, 1, 2, … along `axis`: each element is its own index there.",
    scalar="{cast}({index})",
    prepare=attributes(_iota), eval=_iota_eval, infer=lambda *, shape, axis, dtype: TensorType(dtype, shape))
