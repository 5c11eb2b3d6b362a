"""Random numbers as a pure function of a key: the same key and shape give the same numbers, eager or compiled, on any
thread.

Element i of a tensor is SplitMix64's output function of `key + (i + 1)·γ` (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", 2014): a counter through a bijective hash.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype
from ..errors import DTypeError
from ..op import Kind, Op
from ..types import Shape, TensorType
from .define import Prepared, attributes, cast_to, lift

__all__ = ["random_uniform"]

_GAMMA, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _prepare(key: Any, shape: Any, dtype: Any = "f32") -> Prepared:
    key = lift(key)
    if key.shape != () or key.dtype.kind not in "iu" or as_dtype(dtype).name not in ("f32", "f64"):
        raise DTypeError(f"random_uniform(key: {key.type}, dtype={dtype}): expected one integer as key, and f32 or f64")
    return (cast_to(key, as_dtype(np.int64)),), {"shape": tuple(int(n) for n in shape), "dtype": as_dtype(dtype)}


def hash_counter(key: np.ndarray, count: int) -> np.ndarray:
    """The first `count` 64-bit outputs for `key`."""
    with np.errstate(over="ignore"):
        z = key.astype(np.uint64) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
        return z ^ (z >> np.uint64(31))


def _eval(key: np.ndarray, *, shape: Shape, dtype: DType) -> np.ndarray:
    bits = 24 if dtype.name == "f32" else 53
    z = hash_counter(key, math.prod(shape)) >> np.uint64(64 - bits)
    return (z.astype(dtype.np) * dtype.np.type(2.0**-bits)).reshape(shape)


random_uniform = Op(
    name="random_uniform", kind=Kind.RANDOM, doc="uniform on [0, 1), from a key (one i64)",
    prepare=attributes(_prepare), eval=_eval,
    infer=lambda key, *, shape, dtype: TensorType(dtype, shape), scalar="uniform_{T}({0}, {flat_index})",
    flops=lambda out, *_, **__: out.size, vjp=lambda g, out, key, *, shape, dtype: (None,))
