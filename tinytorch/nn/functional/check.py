"""Checks and reductions that several functions share."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.ir import ops
from tinytorch.ir.errors import DTypeError, OpError, ShapeError
from tinytorch.tensor import Tensor, as_tensor


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean, the sum, or ("none") the losses themselves."""
    if reduction not in ("mean", "sum", "none"):
        raise OpError(f"reduction={reduction!r}: expected 'mean', 'sum' or 'none'")
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def as_floats(function: str, x: Any) -> Tensor:
    """x as a tensor; a DTypeError unless it is of floating point numbers: by NumPy's rules integers would make f64."""
    x = as_tensor(x)
    if not x.dtype.is_float:
        raise DTypeError(f"{function} of {x.type}: expected floating point numbers; convert them, as in x.float()")
    return x


def check_probability(call: str, p: float) -> None:
    """An OpError, if p is no probability; `call` ends in the name of the argument."""
    if not 0 <= p <= 1:
        raise OpError(f"{call}={p}): expected a probability, from 0 to 1")


def check_range(what: str, numbers: Tensor, extent: int, of: str) -> Tensor:
    """`numbers`, sure to be in 0 … extent - 1: an IndexError names the first that is not; compiled code raises one."""
    if numbers.dtype.kind not in "iu":
        raise DTypeError(f"{what} of {numbers.type}: expected integers; convert them, as in x.long()")
    array = numbers.payload
    if not isinstance(array, np.ndarray):
        return as_tensor(ops.in_range(numbers, extent))
    if array.size and (array.min() < 0 or array.max() >= extent):
        wrong = array[(array < 0) | (array >= extent)].flat[0]
        raise IndexError(f"{what} {wrong} is not one of the {extent} {of} 0 … {extent - 1}")
    return numbers


def same_shape(function: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors; a ShapeError unless they are of one shape: (batch, 1) by (batch) would compare all with all."""
    x, y = as_tensor(x), as_tensor(y)
    if x.shape != y.shape:
        raise ShapeError(f"{function}({x.type}, {y.type}): the shapes must be the same; reshape one of them")
    return x, y
