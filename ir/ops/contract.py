"""Contractions: matrix products; `convolve.py` has convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import Kind, Op
from ..types import TensorType, broadcast_shapes
from .define import Prepared, attributes, lift
from .leading import aligned
from .pointwise import add

__all__ = ["matmul"]


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
    prepare=attributes(_matmul), infer=_matmul_infer, eval=_matmul_eval, vjp=_matmul_vjp, flops=_matmul_flops,
    vmap=aligned)
