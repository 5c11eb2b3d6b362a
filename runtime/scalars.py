"""Scalar functions that are neither Python operators nor transcendental: sign, floor_div, shifts, random numbers.

Each ends in the element type it is for (`sign_f32`), so that an op's kernel text can name it by its operand's type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .lowlevel import bool_, f32, f64, i8, i16, i32, i64, select, store_i64, u8

OPTIONS = {"error_model": "numpy", "forceinline": True, "nogil": True, "fastmath": False}  # else it is the caller's
FOLD_OPTIONS = {**OPTIONS, "fastmath": {"reassoc", "nsz"}}
CASTS = {"f32": f32, "f64": f64, "i8": i8, "u8": u8, "i16": i16, "i32": i32, "i64": i64}
WIDTH = {"i8": 8, "u8": 8, "i16": 16, "i32": 32, "i64": 64}


def _define(name: str) -> dict[str, Any]:
    """The functions for one element type."""
    cast = CASTS[name]
    zero, one = 0, 1

    @njit(**OPTIONS)
    def absolute(x: Any) -> Any:
        return cast(abs(x))

    @njit(**OPTIONS)
    def sign(x: Any) -> Any:
        return select(x != x, x, cast(select(x > cast(zero), 1, 0) - select(x < cast(zero), 1, 0)))

    @njit(**OPTIONS)
    def floor_div_float(x: Any, y: Any) -> Any:
        return cast(x // y)

    @njit(**OPTIONS)
    def mod_float(x: Any, y: Any) -> Any:
        return cast(x % y)

    @njit(**OPTIONS)
    def floor_div_int(x: Any, y: Any) -> Any:
        safe = select(y == cast(zero), cast(one), y)
        return select(y == cast(zero), cast(zero), cast(x // safe))

    @njit(**OPTIONS)
    def mod_int(x: Any, y: Any) -> Any:
        safe = select(y == cast(zero), cast(one), y)
        return select(y == cast(zero), cast(zero), cast(x % safe))

    found = {"absolute": absolute, "sign": sign}
    if name in WIDTH:
        found |= {"floor_div": floor_div_int, "mod": mod_int} | _shifts(cast, WIDTH[name])
    else:
        found |= {"floor_div": floor_div_float, "mod": mod_float}
    return found


def _shifts(cast: Any, width: int) -> dict[str, Any]:
    @njit(**OPTIONS)
    def shift_left(x: Any, y: Any) -> Any:
        inside = (y >= cast(0)) & (i64(y) < width)
        return select(inside, cast(i64(x) << select(inside, i64(y), i64(0))), cast(0))

    @njit(**OPTIONS)
    def shift_right(x: Any, y: Any) -> Any:
        inside = (y >= cast(0)) & (i64(y) < width)
        return cast(i64(x) >> select(inside, i64(y), i64(63)))  # past the width only the sign is left

    @njit(**OPTIONS)
    def invert(x: Any) -> Any:
        return cast(~x)

    @njit(**OPTIONS)
    def power(x: Any, y: Any) -> Any:
        result, base, left = i64(1), i64(x), i64(y)
        while left > 0:
            if left & 1:
                result = result * base
            base = base * base
            left >>= 1
        return cast(result)

    @njit(**OPTIONS)
    def whole(x: Any) -> Any:
        return x

    return {"pow": power, "floor": whole, "ceil": whole, "rint": whole,
            "shift_left": shift_left, "shift_right": shift_right, "invert": invert}


for _name in CASTS:
    for _function, _value in _define(_name).items():
        globals()[f"{_function}_{_name}"] = _value


@njit(**FOLD_OPTIONS)
def plus(total: Any, x: Any) -> Any:
    """total + x, as a step of a sum that may be taken in any order: only so can it be vectorised."""
    return total + x


@njit(**FOLD_OPTIONS)
def times(total: Any, x: Any) -> Any:
    """total · x, as a step of a product that may be taken in any order."""
    return total * x


@njit(**OPTIONS)
def truth(x: Any) -> Any:
    """Whether x is not 0."""
    return bool_(x)


@njit(**OPTIONS)
def negation(x: Any) -> Any:
    """Whether x is 0."""
    return bool_(x) == bool_(0)


@njit(**OPTIONS)
def itself(x: Any) -> Any:
    """x: what rounding and absolute value are on booleans."""
    return x


invert_bool = negation
absolute_bool = floor_bool = ceil_bool = rint_bool = itself
_G, _A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _40, _11 = (np.uint64(n) for n in (30, 27, 31, 40, 11))


@njit(**OPTIONS)
def hash_counter(key: Any, index: Any) -> Any:
    """SplitMix64's output number `index` for `key`, as in `tinytorch.ir.ops.random`."""
    z = np.uint64(key) + np.uint64(index + 1) * _G
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)


@njit(**OPTIONS)
def uniform_f32(key: Any, index: Any) -> Any:
    """A number on [0, 1) of 24 random bits."""
    return f32(i64(hash_counter(key, index) >> _40)) * f32(2.0**-24)


@njit(**OPTIONS)
def uniform_f64(key: Any, index: Any) -> Any:
    """A number on [0, 1) of 53 random bits."""
    return f64(i64(hash_counter(key, index) >> _11)) * f64(2.0**-53)


@njit(**OPTIONS)
def in_range(x: Any, extent: Any, status: Any) -> Any:
    """x; reports in `status` if it is not one of 0 … extent - 1."""
    if x < 0 or x >= extent:
        store_i64(status, 0, 1, 50)
    return x
