"""Contractions: matrix products, and convolution in terms of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import Kind, Op
from ..types import Shape, TensorType, broadcast_shapes
from .define import Prepared, attributes, composite, lift
from .pointwise import add
from .view import pad, reshape, transpose, windows

__all__ = ["conv2d", "matmul"]


def _matmul(x: Any, y: Any, transpose_x: bool = False, transpose_y: bool = False) -> Prepared:
    x, y = lift(x), lift(y)
    if x.ndim < 2 or y.ndim < 2:
        raise ShapeError(f"matmul({x.type}, {y.type}): expected matrices or stacks of them; `x @ y` also takes vectors")
    (x, y), _ = add.prepare(x, y)
    return (x, y), {"transpose_x": bool(transpose_x), "transpose_y": bool(transpose_y)}


def matrix_extents(x: TensorType, y: TensorType, transpose_x: bool, transpose_y: bool) -> tuple[int, int, int, int]:
    """(m, k, k of the right operand, n) of a product."""
    m, k = x.shape[-2:][::-1] if transpose_x else x.shape[-2:]
    k2, n = y.shape[-2:][::-1] if transpose_y else y.shape[-2:]
    return m, k, k2, n


def _matmul_infer(x: TensorType, y: TensorType, *, transpose_x: bool, transpose_y: bool) -> TensorType:
    m, k, k2, n = matrix_extents(x, y, transpose_x, transpose_y)
    if k != k2:
        turned = f" (transpose_x={transpose_x}, transpose_y={transpose_y})" if transpose_x or transpose_y else ""
        raise ShapeError(f"matmul({x}, {y}){turned}: the inner extents are {k} and {k2}, they must be equal; "
                         "if one operand lies the other way round, transpose it")
    if x.dtype is not y.dtype:
        raise DTypeError(f"matmul({x}, {y}): element types must agree; insert a cast")
    return TensorType(x.dtype, (*broadcast_shapes(x.shape[:-2], y.shape[:-2]), m, n))


def _matmul_eval(x: np.ndarray, y: np.ndarray, *, transpose_x: bool, transpose_y: bool) -> np.ndarray:
    found = np.matmul(x.swapaxes(-1, -2) if transpose_x else x, y.swapaxes(-1, -2) if transpose_y else y)
    return found.astype(x.dtype, copy=False)  # NumPy leaves a product of bf16 in f32


def _matmul_vjp(g: Any, out: Any, x: Any, y: Any, *, transpose_x: bool, transpose_y: bool) -> tuple[Any, Any]:
    gx = gy = None
    if not x.is_constant:
        gx = matmul(y, g, transpose_y, True) if transpose_x else matmul(g, y, False, not transpose_y)
    if not y.is_constant:
        gy = matmul(g, x, True, transpose_x) if transpose_y else matmul(x, g, not transpose_x, False)
    return gx, gy


def _matmul_flops(out: TensorType, x: TensorType, y: TensorType, *, transpose_x: bool, transpose_y: bool) -> int:
    _, k, _, _ = matrix_extents(x, y, transpose_x, transpose_y)
    return out.size * 2 * k  # k products, k sums


matmul = Op(
    name="matmul", kind=Kind.CONTRACT,
    doc="matrix product over the last two axes, each operand transposed if asked; leading axes broadcast",
    prepare=attributes(_matmul), infer=_matmul_infer, eval=_matmul_eval, vjp=_matmul_vjp, flops=_matmul_flops)


def pair(n: int | Sequence[int]) -> tuple[int, int]:
    """One number for both axes, or one for each."""
    found = (n, n) if isinstance(n, (int, np.integer)) else tuple(n)
    if len(found) != 2:
        raise ShapeError(f"expected one number or two, got {n!r}")
    return int(found[0]), int(found[1])


def _conv2d(x: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Prepared:
    x, weight = lift(x), lift(weight)
    if x.ndim != 4 or weight.ndim != 4:
        raise ShapeError(f"conv2d({x.type}, {weight.type}): expected (batch, channels, height, width) "
                         "and (out, channels / groups, kh, kw)")
    if groups < 1 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(f"conv2d({x.type}, {weight.type}, groups={groups}): "
                         f"the input has {x.shape[1]} channels, the weight is for {weight.shape[1]} × {groups} groups, "
                         f"and its {weight.shape[0]} outputs must divide by the groups")
    (x, weight), _ = add.prepare(x, weight)
    attrs = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": int(groups)}
    return (x, weight), attrs


def _conv2d_expand(x: Any, weight: Any, *, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Any:
    batch = x.shape[0]
    out, inner, kh, kw = weight.shape
    if any(padding):
        x = pad(x, (0, 0, *padding), (0, 0, *padding))
    view = windows(x, axes=(2, 3), size=(kh, kw), step=stride, dilation=dilation)  # (batch, channels, oh, ow, kh, kw)
    oh, ow = view.shape[2:4]
    columns = transpose(view, (0, 1, 4, 5, 2, 3))  # rows of pixels stay rows, so that copying is fast
    columns = reshape(columns, (batch, groups, inner * kh * kw, oh * ow))
    rows = reshape(weight, (1, groups, out // groups, inner * kh * kw))
    return reshape(matmul(rows, columns), (batch, out, oh, ow))


def _conv2d_flops(out: TensorType, x: TensorType, weight: TensorType, **_: Any) -> int:
    return out.size * 2 * math.prod(weight.shape[1:])


conv2d = composite(
    "conv2d", _conv2d_expand, attributes(_conv2d),
    "correlation of (batch, channels, height, width) with (out, channels / groups, kh, kw)",
    kind=Kind.CONTRACT, flops=_conv2d_flops)
