"""Attention as a function."""

from __future__ import annotations

import math
from typing import Any

from tinytorch.ir import ops
from tinytorch.tensor import Tensor, as_tensor

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(query: Any, key: Any, value: Any, attn_mask: Any = None, is_causal: bool = False,
                                 scale: float | None = None) -> Tensor:
    """softmax(q kᵀ · scale + mask) v over (…, time, head_dim) (Vaswani et al., 2017); scale is 1 / √head_dim if None.

    Args:
        attn_mask: broadcastable to (…, queries, keys): boolean, true where a key may be seen, or numbers to add.
        is_causal: query i sees keys 0 … i.
    """
    query, key = as_tensor(query), as_tensor(key)
    n, m = query.shape[-2], key.shape[-2]
    if is_causal and n != m:  # the op aligns the last query with the last key, PyTorch the first with the first
        seen = ops.ge(ops.iota((n, m), 0), ops.iota((n, m), 1))
        attn_mask = (seen if attn_mask is None else seen & attn_mask if attn_mask.dtype.kind == "b"
                     else ops.where(seen, attn_mask, -math.inf))
        is_causal = False
    return as_tensor(ops.attention(query, key, value, attn_mask, is_causal, scale))
