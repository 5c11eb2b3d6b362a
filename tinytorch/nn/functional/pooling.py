"""Pooling as functions."""

from __future__ import annotations

from typing import Any

from tinytorch.ir import ops
from tinytorch.tensor import Tensor, as_tensor

__all__ = ["avg_pool2d", "max_pool2d"]


def max_pool2d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The greatest of each window of x (batch, channels, height, width); windows are `stride` (or their size) apart."""
    return as_tensor(ops.max_pool2d(x, kernel_size, stride, padding))


def avg_pool2d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The mean of each window, padding included."""
    return as_tensor(ops.avg_pool2d(x, kernel_size, stride, padding))
