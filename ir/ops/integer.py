"""Contractions of small numbers: bytes four at a time (*quads*), bf16 two at a time (*pairs*).

    quad_matmul, quad_convolve    u8 times i8, summed exactly in i32
    pair_matmul, pair_convolve    bf16 times bf16, summed in f32

Processors multiply four bytes of one operand by four of another and add the products to one i32 (VNNI); of bf16, two
to one f32. So the weight's elements that follow each other along the depth lie side by side in memory, in its last
axis; `quads` and `pairs` lay a natural weight out so:

    y = ops.quad_matmul(x, ops.quads(w))                      # u8 (…, M, K), i8 (K, N)       -> i32 (…, M, N)
    y = ops.quad_convolve(x, ops.quads(w), (3, 3), low=1, high=1)     # (N, H, W, C), (kh, kw, C, O) -> (N, OH, OW, O)

What a quantised image has outside is its zero point: `fill`. A depth that is no multiple of four is filled up with
zeros in the weight (other numbers there make results undefined): that of a matrix as a whole, that of a convolution
for each row of its kernel, kw · C bytes that lie side by side in the image too. So pictures of one or three channels
waste little.

Sums of bytes are exact below 2³¹, that is for depths up to 65,000. Sums in f32 round once for each product, in the
order of the kernel: off by K · 2⁻²⁴ · Σ |x · w| at most. Where the processor has an instruction for pairs, it takes
subnormal numbers as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..dtypes import DType, bf16, f32, f64, i8, i32, u8
from ..errors import DTypeError, ShapeError
from ..op import Kind, Op
from ..types import Shape, TensorType
from .contract import matmul
from .convolve import convolve
from .define import Prepared, attributes, cast_to, composite, lift, pair
from .view import pad, reshape, slice, transpose

__all__ = ["pair_convolve", "pair_matmul", "pairs", "quad_convolve", "quad_matmul", "quads"]

EXACT_DEPTH = 512  # 512 · 255 · 128 < 2²⁴: so many products of bytes add up in f32 without rounding, in any order


# -- weights -----------------------------------------------------------------------------------------------------------


def quads(weight: Any) -> Any:
    """The weight of `quad_matmul`, (⌈K / 4⌉, N, 4), of a matrix (K, N), or of `quad_convolve`,
    (kh · ⌈kw · C / 4⌉, O, 4), of filters (kh, kw, C, O): four elements along the depth side by side, zeros after the
    last. Raises ShapeError for other numbers of axes."""
    return _grouped(weight, 4)


def pairs(weight: Any) -> Any:
    """The weight of `pair_matmul` or `pair_convolve`: as `quads`, of two elements."""
    return _grouped(weight, 2)


def _grouped(weight: Any, each: int) -> Any:
    weight = lift(weight)
    if weight.ndim not in (2, 4):
        raise ShapeError(f"{'quads' if each == 4 else 'pairs'}({weight.type}): expected a matrix (depth, columns) or "
                         "filters (kh, kw, channels, out)")
    *taps, out = weight.shape
    rows = taps[0] if len(taps) > 1 else 1
    depth = math.prod(taps) // rows if rows else 0
    lines = reshape(weight, (rows, depth, out))
    if depth % each:
        lines = pad(lines, (0, 0, 0), (0, -depth % each, 0))
    groups = reshape(lines, (rows * _groups(depth, each), each, out))
    return transpose(groups, (0, 2, 1))


def _natural(weight: Any, rows: int, depth: int) -> Any:
    """(rows, depth, out) of (rows · ⌈depth / each⌉, out, each)."""
    _, out, each = weight.shape
    lines = reshape(transpose(weight, (0, 2, 1)), (rows, _groups(depth, each) * each, out))
    return slice(lines, (0, 0, 0), (rows, depth, out)) if depth % each else lines


def _groups(depth: int, each: int) -> int:
    return -(-depth // each)


# -- matrices ----------------------------------------------------------------------------------------------------------


def _operands(name: str, x: Any, weight: Any, each: int, dtypes: tuple[DType, DType]) -> tuple[Any, Any]:
    x, weight = lift(x), lift(weight)
    if (x.dtype, weight.dtype) != dtypes:
        raise DTypeError(f"{name}({x.type}, {weight.type}): expected {dtypes[0]} times {dtypes[1]}; "
                         f"{'quantise' if each == 4 else 'convert'} the operands first")
    if weight.ndim != 3 or weight.shape[2] != each:
        raise ShapeError(f"{name}({x.type}, {weight.type}): expected a weight (depth / {each}, columns, {each}), as "
                         f"`{'quads' if each == 4 else 'pairs'}` makes it")
    return x, weight


def _prepare_matmul(name: str, each: int, *dtypes: DType) -> Callable[..., Prepared]:
    def prepare(x: Any, weight: Any) -> Prepared:
        x, weight = _operands(name, x, weight, each, dtypes)  # type: ignore[arg-type]
        if x.ndim < 2 or _groups(x.shape[-1], each) != weight.shape[0]:
            raise ShapeError(f"{name}({x.type}, {weight.type}): expected (…, rows, depth) and "
                             f"(⌈depth / {each}⌉, columns, {each})")
        return (x, weight), {}

    return attributes(prepare)


def _matmul(x: Any, weight: Any) -> Any:
    count, columns, each = weight.shape
    if x.shape[-1] % each:
        filled = pad(x, (0,) * x.ndim, (*(0,) * (x.ndim - 1), -x.shape[-1] % each))
        return (quad_matmul if each == 4 else pair_matmul)(filled, weight)
    wide, natural = _wide(x, x.shape[-1]), reshape(transpose(weight, (0, 2, 1)), (count * each, columns))
    return cast_to(matmul(cast_to(x, wide), cast_to(natural, wide)), _sum_type(x))


def _wide(x: Any, depth: int) -> DType:
    """What the expansion computes in."""
    return f64 if x.dtype is u8 and depth > EXACT_DEPTH else f32


def _sum_type(x: Any) -> DType:
    return i32 if x.dtype is u8 else f32


def _is_matrix(x: TensorType, weight: TensorType) -> bool:
    return x.shape[-1] % weight.shape[2] == 0 and 0 not in x.shape and 0 not in weight.shape


def _matmul_flops(out: TensorType, x: TensorType, weight: TensorType) -> int:
    return out.size * 2 * weight.shape[0] * weight.shape[2]


def _define_matmul(name: str, each: int, *dtypes: DType) -> Op:
    return composite(
        name, _matmul, _prepare_matmul(name, each, *dtypes),
        f"matrix product of (…, rows, depth) with (depth / {each}, columns, {each})", kind=Kind.CONTRACT,
        flops=_matmul_flops, native=_is_matrix)


quad_matmul = _define_matmul("quad_matmul", 4, u8, i8)
pair_matmul = _define_matmul("pair_matmul", 2, bf16, bf16)


# -- images ------------------------------------------------------------------------------------------------------------


def _prepare_convolve(name: str, each: int, *dtypes: DType) -> Callable[..., Prepared]:
    def prepare(x: Any, weight: Any, size: Any, stride: Any = 1, low: Any = 0, high: Any = 0, fill: float = 0,
                dilation: Any = 1, groups: int = 1) -> Prepared:
        x, weight = _operands(name, x, weight, each, dtypes)  # type: ignore[arg-type]
        height, width = pair(size)
        if x.ndim != 4 or groups < 1 or x.shape[3] % groups or weight.shape[1] % groups or (
                height * _groups(width * x.shape[3] // groups, each) != weight.shape[0]):
            raise ShapeError(
                f"{name}({x.type}, {weight.type}, size={(height, width)}, groups={groups}): expected (batch, height, "
                f"width, channels) and (kh · ⌈kw · channels / groups / {each}⌉, out, {each})")
        if dtypes[0] is u8 and fill not in range(256):
            raise ShapeError(f"{name}(fill={fill}): expected a u8, the number that stands for 0")
        return (x, weight), {
            "size": (height, width), "stride": pair(stride), "low": pair(low), "high": pair(high), "fill": float(fill),
            "dilation": pair(dilation), "groups": int(groups)}

    return attributes(prepare)


def _convolve(x: Any, weight: Any, *, size: Shape, stride: Shape, low: Shape, high: Shape, fill: float, dilation: Shape,
              groups: int) -> Any:
    (kh, kw), inner = size, x.shape[3] // groups
    before, after = ((0, *(max(n, 0) for n in side), 0) for side in (low, high))
    if any(before) or any(after):
        x = pad(x, before, after, value=fill)
    wide = _wide(x, kh * kw * inner)
    natural = reshape(_natural(weight, kh, kw * inner), (kh, kw, inner, weight.shape[1]))
    cut = [tuple(min(n, 0) for n in side) for side in (low, high)]
    return cast_to(convolve(cast_to(x, wide), cast_to(natural, wide), stride, *cut, dilation, 1, groups), _sum_type(x))


def _is_native(x: TensorType, weight: TensorType, *, fill: float, dilation: Shape, groups: int, **_: Any) -> bool:
    if 0 in x.shape or 0 in weight.shape or (fill and x.dtype is not u8):
        return False
    return groups == dilation[1] == 1 or x.shape[3] // groups % weight.shape[2] == 0


def _convolve_flops(out: TensorType, x: TensorType, weight: TensorType, *, size: Shape, groups: int, **_: Any) -> int:
    return out.size * 2 * math.prod(size) * x.shape[3] // groups


def _define_convolve(name: str, each: int, *dtypes: DType) -> Op:
    return composite(
        name, _convolve, _prepare_convolve(name, each, *dtypes),
        "correlation of (batch, height, width, channels) with filters in groups of "
        f"{each} elements along each row of the kernel; outside of x stands `fill`", kind=Kind.CONTRACT,
        flops=_convolve_flops, native=_is_native)


quad_convolve = _define_convolve("quad_convolve", 4, u8, i8)
pair_convolve = _define_convolve("pair_convolve", 2, bf16, bf16)
