"""Normalisation as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytorch.ir import ops
from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Tensor, as_tensor

__all__ = ["layer_norm"]


def layer_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / standard deviation over the last axes, times weight, plus bias (Ba et al., 2016).

    Raises:
        ShapeError: x does not end in `normalized_shape`.
    """
    x = as_tensor(x)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape):] != shape:
        raise ShapeError(f"layer_norm of {x.type}: expected a tensor whose shape ends in {shape}")
    axes = tuple(range(-len(shape), 0))
    y = ops.layer_norm(x, *([] if weight is None else [weight] if bias is None else [weight, bias]), axis=axes, eps=eps)
    return as_tensor(y + bias if weight is None and bias is not None else y)
