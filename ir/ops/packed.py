"""Linear layers whose weight is stored in 8 or 4 bits: `packed_linear(x, *pack(values, scale, 4), ...)`.

Element (n, k) of the weight stands for values[n, k] · scale[n, k // group] (+ offset[n, k // group]), with `values`
whole numbers of -128 … 127 or -8 … 7. x stays as it is: only memory is saved, which is what bounds a product of few
rows. `unpacked` gives the weight back, `packed_rows` some of its rows, as an embedding wants them.

How it lies, for the kernel of `runtime/packed.py` to read it from the first byte to the last: outputs in blocks of 32,
which become the lanes of vectors; of each block, step by step along the depth, a *word* of 4 bytes for each output. A
word holds 4 or 8 consecutive elements of one output, the first in its lowest bits.

    q       i8   (outputs / 32, words, 32, 4)     words = depth / 4 or depth / 8, rounded up; zeros fill up
    scale   bf16 (outputs / 32, groups, 32)       groups = depth / group, rounded up
    offset  bf16 likewise, or none
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ..dtypes import bf16, f32, i8, i64
from ..errors import DTypeError, OpError, ShapeError
from ..op import Kind
from ..types import TensorType
from .contract import matmul
from .define import Prepared, attributes, cast_to, composite, lift
from .index import take
from .pointwise import floor_div, in_range, left_shift, lt, mod, right_shift, where
from .source import iota
from .view import broadcast_to, concat, reshape, slice, transpose

__all__ = ["packed_linear", "packed_rows"]

BLOCK = 32  # outputs side by side
WORD = 32   # bits
LONGEST = 128  # the longest groups that the kernel takes, but for one as long as the depth


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers (outputs, depth) in the layout of `q`; what does not fit `bits` is an error of the caller."""
    outputs, depth = values.shape
    width = WORD // bits
    wide = np.zeros((-(-outputs // BLOCK) * BLOCK, -(-depth // width) * width), np.int8)
    wide[:outputs, :depth] = values
    if bits == 4:
        wide = (wide[:, ::2] & 15) | (wide[:, 1::2] << 4)
    return np.ascontiguousarray(wide.reshape(-1, BLOCK, wide.shape[1] // 4, 4).transpose(0, 2, 1, 3))


def pack_groups(numbers: np.ndarray) -> np.ndarray:
    """Scales or offsets (outputs, groups) in the layout of `scale`; they are rounded to bf16."""
    wide = np.zeros((-(-numbers.shape[0] // BLOCK) * BLOCK, numbers.shape[1]), ml_dtypes.bfloat16)
    wide[:numbers.shape[0]] = numbers
    return np.ascontiguousarray(wide.reshape(-1, BLOCK, numbers.shape[1]).transpose(0, 2, 1))


def check_packed(name: str, operands: tuple[Any, ...], bits: int, group: int, depth: int, outputs: int) -> None:
    """Whether `q`, `scale` and perhaps `offset` are a weight (outputs, depth)."""
    if bits not in (4, 8) or group < 1 or group % (WORD // bits):
        raise OpError(f"{name}(bits={bits}, group={group}): expected 4 or 8 bits, and groups of whole words, "
                      f"multiples of {WORD // bits if bits in (4, 8) else 8}")
    blocks = -(-outputs // BLOCK)
    types = i8[blocks, -(-depth * bits // WORD), BLOCK, 4], *(bf16[blocks, -(-depth // group), BLOCK],) * 2
    found = tuple(operand.type for operand in operands)
    if len(found) not in (2, 3) or found != types[:len(found)]:
        raise ShapeError(f"{name}: a weight ({outputs}, {depth}) of {bits} bits in groups of {group} is "
                         f"{', '.join(map(str, types[:2]))} and perhaps an offset like the scale, "
                         f"got {', '.join(map(str, found))}; make it with `pack` and `pack_groups`")


def unpacked(operands: tuple[Any, ...], bits: int, group: int, depth: int, outputs: int) -> Any:
    """The weight (outputs, depth) in f32 that `q`, `scale` and perhaps `offset` stand for."""
    q, *numbers = operands
    elements = _elements(transpose(q, (0, 2, 1, 3)), bits)  # (blocks, 32, depth)
    weight = _scaled(elements, [transpose(number, (0, 2, 1)) for number in numbers], group, depth)
    return slice(reshape(weight, (weight.shape[0] * BLOCK, depth)), (0, 0), (outputs, depth))


def _elements(q: Any, bits: int) -> Any:
    """The whole numbers (…, elements) in words (…, words, 4)."""
    if bits == 4:
        halves = right_shift(left_shift(q, 4), 4), right_shift(q, 4)  # each with its sign
        q = concat(*(reshape(half, (*half.shape, 1)) for half in halves), axis=-1)
    lead = q.shape[:-2] if bits == 8 else q.shape[:-3]
    return reshape(q, (*lead, -1))


def _scaled(elements: Any, numbers: Sequence[Any], group: int, depth: int) -> Any:
    """The first `depth` of elements (…, elements) times their scales (…, groups), plus their offsets."""
    lead = elements.shape[:-1]
    first = (0,) * elements.ndim

    def spread(number: Any) -> Any:
        wide = broadcast_to(reshape(cast_to(number, f32), (*number.shape, 1)), (*number.shape, group))
        return slice(reshape(wide, (*lead, number.shape[-1] * group)), first, (*lead, depth))

    scale, *offset = map(spread, numbers)
    scaled = cast_to(slice(elements, first, (*lead, depth)), f32) * scale
    return scaled + offset[0] if offset else scaled


# -- the product -------------------------------------------------------------------------------------------------------


def _linear_prepare(x: Any, q: Any, scale: Any, offset: Any = None, *, bits: int, group: int,
                    outputs: int) -> Prepared:
    x, *operands = (lift(operand) for operand in (x, q, scale, offset) if operand is not None)
    if x.ndim < 1 or not x.dtype.is_float:
        raise DTypeError(f"packed_linear of {x.type}: expected x (…, depth) of a floating type")
    check_packed("packed_linear", tuple(operands), int(bits), int(group), x.shape[-1], int(outputs))
    return (x, *operands), {"bits": int(bits), "group": int(group), "outputs": int(outputs)}


def _linear(x: Any, *operands: Any, bits: int, group: int, outputs: int) -> Any:
    weight = cast_to(unpacked(operands, bits, group, x.shape[-1], outputs), x.dtype)
    return reshape(matmul(_flat(x), weight, False, True), (*x.shape[:-1], outputs))


def _flat(x: Any) -> Any:
    return reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _linear_vjp(g: Any, out: Any, x: Any, *operands: Any, bits: int, group: int, outputs: int) -> tuple[Any, ...]:
    """By x alone: packed weights are not trained."""
    weight = cast_to(unpacked(operands, bits, group, x.shape[-1], outputs), x.dtype)
    return (reshape(matmul(_flat(g), weight), x.shape), *(None for _ in operands))


def _linear_native(x: TensorType, *operands: TensorType, bits: int, group: int, outputs: int) -> bool:
    depth = x.shape[-1]
    return x.dtype is f32 and 0 not in x.shape and depth % (WORD // bits) == 0 and (group <= LONGEST or group >= depth)


packed_linear = composite(
    "packed_linear", _linear, attributes(_linear_prepare),
    "x Wᵀ with W (outputs, depth) of 8 or 4 bits and a bf16 scale (and offset) for each group along the depth",
    vjp=_linear_vjp, kind=Kind.CONTRACT, native=_linear_native,
    flops=lambda out, x, *_, **__: 2 * out.size * x.shape[-1])


# -- some rows ---------------------------------------------------------------------------------------------------------


def _rows_prepare(indices: Any, q: Any, scale: Any, offset: Any = None, *, bits: int, group: int, outputs: int,
                  depth: int) -> Prepared:
    indices, *operands = (lift(operand) for operand in (indices, q, scale, offset) if operand is not None)
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"packed_rows: positions are {indices.type}, expected integers")
    check_packed("packed_rows", tuple(operands), int(bits), int(group), int(depth), int(outputs))
    return (cast_to(indices, i64), *operands), {"bits": int(bits), "group": int(group), "outputs": int(outputs),
                                                "depth": int(depth)}


def _rows(indices: Any, q: Any, *numbers: Any, bits: int, group: int, outputs: int, depth: int) -> Any:
    row = in_range(where(lt(indices, 0), indices + outputs, indices), outputs)
    found = _elements(_lane(q, row), bits)
    return _scaled(found, [_lane(number, row) for number in numbers], group, depth)


def _lane(packed: Any, row: Any) -> Any:
    """Row numbers (…,) of what lies as (blocks, steps, 32, …): (…, steps, …)."""
    blocks, steps, lanes, *rest = packed.shape
    first = reshape(floor_div(row, lanes) * (steps * lanes) + mod(row, lanes), (*row.shape, 1))
    places = first + iota((*(1,) * row.ndim, steps), row.ndim) * lanes
    return take(reshape(packed, (blocks * steps * lanes, *rest)), places, 0)


packed_rows = composite(
    "packed_rows", _rows, attributes(_rows_prepare),
    "rows (…, depth) in f32, at the given positions, of a weight as `packed_linear` takes it",
    vjp=lambda g, out, *operands, **attrs: (None,) * len(operands))
