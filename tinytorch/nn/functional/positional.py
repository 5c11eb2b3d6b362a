"""Positional encodings as functions."""

from __future__ import annotations

from typing import Any

from tinytorch.ir import ops
from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Tensor, as_tensor

__all__ = ["rotary"]


def rotary(x: Any, cos: Any, sin: Any, interleaved: bool = False) -> Tensor:
    """Turn each pair of features (a, b) by an angle: (a cos - b sin, b cos + a sin) (Su et al., "RoFormer", 2021).

    Args:
        x: (…, time, head_dim), head_dim even; the result is of its element type, whatever that of the tables.
        cos, sin: of the angles, broadcastable to (…, time, head_dim / 2); `nn.RotaryEmbedding` holds such tables.
        interleaved: whether pair i is features 2i and 2i + 1 (the paper, llama2.c) or i and i + head_dim / 2
            (Hugging Face's Llama).
    Raises:
        ShapeError: head_dim is odd, or the tables are of another width.

    >>> import tinytorch as tt
    >>> tt.nn.functional.rotary(tt.tensor([[1.0, 2.0]]), tt.tensor([[0.0]]), tt.tensor([[1.0]]))  # by 90°
    tensor([[-2.,  1.]])
    """
    x, cos, sin = as_tensor(x), as_tensor(cos), as_tensor(sin)
    half = x.shape[-1] // 2
    if x.shape[-1] % 2 or cos.shape[-1] != half or sin.shape[-1] != half:
        raise ShapeError(f"rotary({x.type}, cos {cos.type}, sin {sin.type}): features are turned in pairs; expected an "
                         "even last extent, and tables half as wide")
    # A pair lies along its own axis, so b, a is a, b read backwards: no element moves, all is one pointwise kernel.
    at = -1 if interleaved else -2
    pairs = x.reshape(*x.shape[:-1], half, 2) if interleaved else x.reshape(*x.shape[:-1], 2, half)
    swapped = pairs[..., ::-1] if interleaved else pairs[..., ::-1, :]
    sign = as_tensor(ops.iota((2,) if interleaved else (2, 1), 0, sin.dtype)) * 2 - 1  # -1 for a, 1 for b
    turned = pairs * cos.unsqueeze(at) + swapped * (sin.unsqueeze(at) * sign)
    return turned.reshape(x.shape).to(x.dtype)
