"""Attention as a function: any leading axes, masks, causal order, shared keys, dropout.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> query = key = value = tt.randn(2, 4, 10, 16)              # (batch, heads, time, head_dim)
    >>> F.scaled_dot_product_attention(query, key, value, is_causal=True).shape
    (2, 4, 10, 16)
"""

from __future__ import annotations

import math
from typing import Any

from tinytorch.ir import ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.ir.types import broadcast_shapes
from tinytorch.tensor import Tensor, as_tensor

from .check import as_floats, check_probability
from .layers import dropout

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, *, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """softmax(q kᵀ · scale + mask) v (Vaswani et al., 2017).

    Args:
        query, key, value: (…, n, d), (…, m, d) and (…, m, e) give (…, n, e); leading axes broadcast.
        attn_mask: broadcastable to (…, n, m): boolean, true where a key may be seen, or numbers to add.
        dropout_p: the probability with which each weight is dropped; always applied, so pass 0 in evaluation.
        is_causal: query i sees keys 0 … i only; with a mask, what both allow.
        scale: 1 / √d if None.
        enable_gqa: the query may have more heads (axis -3) than key and value, a multiple of theirs; each key head
            serves that many query heads in a row (Ainslie et al., "GQA", 2023). No key is repeated in memory.
    Raises:
        ShapeError: the shapes do not fit.

    A query that may see no key gives zeros, and zero gradients (PyTorch: zeros or nan, by backend and version).
    Compiled f32 calls without dropout, with 16 queries or more and head dims in multiples of 16, are one kernel forward
    and one backward, in memory that grows with n, not n · m (Dao et al., "FlashAttention", 2022).

    >>> import tinytorch as tt
    >>> q = k = tt.tensor([[1.0], [1.0]])
    >>> v = tt.tensor([[0.0], [4.0]])
    >>> tt.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    tensor([[0.],
            [2.]])
    """
    query, key, value = (as_floats("scaled_dot_product_attention", t) for t in (query, key, value))
    mask = None if attn_mask is None else as_tensor(attn_mask)
    _check(query, key, value, mask, enable_gqa)
    check_probability("scaled_dot_product_attention(dropout_p", dropout_p)
    heads = query.shape[:-2]
    grouped = enable_gqa and query.shape[-3:-2] != key.shape[-3:-2]
    # The op takes groups as they are; with weights to drop, or axes before the heads that broadcast, they are an axis.
    split = grouped and (dropout_p > 0 or not query.shape[:-3] == key.shape[:-3] == value.shape[:-3])
    if grouped:
        _check_groups(query, key, value)
    if split:
        query, key, value, mask = _grouped(query, key, value, mask)
    mask, is_causal = _from_the_start(query, key, mask, is_causal)
    if dropout_p:
        weights = dropout(attention_weights(query, key, mask, is_causal, scale), dropout_p)
        y = as_tensor(ops.matmul(weights, value))
    else:
        y = as_tensor(ops.attention(query, key, value, mask, is_causal, scale))
    return y.reshape(*heads, *y.shape[-2:]) if split else y


def attention_weights(query: Any, key: Any, mask: Any = None, is_causal: bool = False,
                      scale: float | None = None) -> Tensor:
    """softmax(q kᵀ · scale + mask) alone: (…, n, m), for those who look at the weights or drop some of them.

    Arguments as those of `scaled_dot_product_attention`; rows that see no key are zeros.
    """
    query, key = as_tensor(query), as_tensor(key)
    mask, is_causal = _from_the_start(query, key, mask, is_causal)
    return as_tensor(ops.attention_weights(query, key, mask, is_causal, scale))


def _from_the_start(query: Tensor, key: Tensor, mask: Any, is_causal: bool) -> tuple[Any, bool]:
    """Mask and causal flag for the ops, which let the last query see the last key: here query i sees keys 0 … i."""
    n, m = query.shape[-2], key.shape[-2]
    if not is_causal or n == m:
        return mask, is_causal
    seen = ops.ge(ops.iota((n, m), 0), ops.iota((n, m), 1))
    if mask is None:
        return seen, False
    return seen & mask if mask.dtype.kind == "b" else ops.where(seen, mask, -math.inf), False


def _check_groups(query: Tensor, key: Tensor, value: Tensor) -> None:
    heads, kv, kv2 = (t.shape[-3] if t.ndim > 2 else 0 for t in (query, key, value))
    if not kv or heads % kv or kv2 != kv:
        raise ShapeError(f"scaled_dot_product_attention(query {query.type}, key {key.type}, value {value.type}, "
                         "enable_gqa=True): axis -3 holds heads; those of key and value must be as many, and divide "
                         f"the query's {heads}")


def _grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Any, Any, Any, Any]:
    """Query heads in groups (…, key heads, group, n, d), and keys that broadcast over the group."""
    kv = key.shape[-3]
    if mask is not None and mask.ndim > 2:
        mask = mask.unsqueeze(-3) if mask.shape[-3] == 1 else _split(mask, kv)
    return _split(query, kv), key.unsqueeze(-3), value.unsqueeze(-3), mask


def _split(x: Tensor, kv: int) -> Tensor:
    return x.reshape(*x.shape[:-3], kv, x.shape[-3] // kv, *x.shape[-2:])


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, enable_gqa: bool) -> None:
    shown = f"scaled_dot_product_attention(query {query.type}, key {key.type}, value {value.type})"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(f"{shown}: expected (…, time, head_dim) each")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ShapeError(f"{shown}: query and key must agree in their last extent, key and value in the one before")
    lead = query.shape[:-2]
    if not enable_gqa:
        try:
            lead = broadcast_shapes(lead, key.shape[:-2])
            broadcast_shapes(lead, value.shape[:-2])
        except ShapeError:
            raise ShapeError(f"{shown}: the axes before the last two do not broadcast") from None
    if mask is None:
        return
    scores = (*lead, query.shape[-2], key.shape[-2])
    if mask.dtype.kind not in "bf":
        raise OpError(f"{shown}: the mask is {mask.type}, expected booleans (true: may be seen) or numbers to add; "
                      "convert it with mask.bool()")
    try:
        fits = broadcast_shapes(mask.shape, scores) == scores
    except ShapeError:
        fits = False
    if not fits:
        raise ShapeError(f"{shown}: the mask {mask.type} does not broadcast to (…, queries, keys) = {scores}")
