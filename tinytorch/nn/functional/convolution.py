"""Convolutions as functions."""

from __future__ import annotations

from typing import Any

from tinytorch.ir import ops
from tinytorch.tensor import Tensor, as_tensor

__all__ = ["conv2d"]


def conv2d(x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
    """Correlate x (batch, channels, height, width) with weight (out, channels / groups, kh, kw), plus bias (out)."""
    y = as_tensor(ops.conv2d(x, weight, stride, padding, dilation, groups))
    return y if bias is None else y + as_tensor(bias).reshape(-1, 1, 1)
