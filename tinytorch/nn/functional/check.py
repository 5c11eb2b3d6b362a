"""Checks and reductions that several functions share."""

from __future__ import annotations

import numpy as np

from tinytorch.ir.errors import OpError
from tinytorch.tensor import Tensor


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean, the sum, or ("none") the losses themselves."""
    if reduction not in ("mean", "sum", "none"):
        raise OpError(f"reduction={reduction!r}: expected 'mean', 'sum' or 'none'")
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def check_range(what: str, numbers: Tensor, extent: int, of: str) -> None:
    """An IndexError that names the first number outside 0 … extent - 1, if the numbers are known."""
    array = numbers.payload
    if not isinstance(array, np.ndarray) or not array.size or array.dtype.kind not in "iu":
        return
    if array.min() < 0 or array.max() >= extent:
        wrong = array[(array < 0) | (array >= extent)].flat[0]
        raise IndexError(f"{what} {wrong} is not one of the {extent} {of} 0 … {extent - 1}")
