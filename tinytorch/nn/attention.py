"""Multi-head attention as a module, with PyTorch's arguments and keys, and with fewer key heads if wanted.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> attention = nn.MultiheadAttention(32, num_heads=4, batch_first=True)
    >>> x = tt.randn(2, 10, 32)                                   # (batch, time, features)
    >>> y, weights = attention(x, x, x)
    >>> y.shape, weights.shape
    ((2, 10, 32), (2, 10, 10))
"""

from __future__ import annotations

import math
from typing import Any

from tinytorch.creation import full, zeros
from tinytorch.functional import concat
from tinytorch.ir import ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Parameter, Tensor, as_tensor

from . import functional as F
from . import init
from .functional.attention import attention_weights
from .functional.check import check_probability
from .layers import Linear
from .module import Module

__all__ = ["MultiHeadAttention", "MultiheadAttention"]


class MultiheadAttention(Module):
    """softmax(q kᵀ / √head_dim) v in `num_heads` slices of the features, and a linear map (Vaswani et al., 2017).

    Args:
        embed_dim: features of queries and results, a multiple of `num_heads`.
        dropout: the probability with which a weight is dropped in training.
        bias: whether the linear maps have one.
        add_bias_kv: append a trained key and value to those given; add_zero_attn: append zeros.
        kdim, vdim: features of keys and values, if they are others.
        batch_first: whether batch or time is the first axis.
        num_kv_heads: that many heads of keys and values only, each for a group of query heads (grouped queries,
            Ainslie et al., 2023); PyTorch has no such argument.
    Attributes:
        in_proj_weight: (embed_dim + 2 · kv, embed_dim), the rows for queries, keys and values one below the other; kv
            is embed_dim, or num_kv_heads · head_dim. With `kdim` or `vdim`: q_proj_weight (embed_dim, embed_dim),
            k_proj_weight (kv, kdim), v_proj_weight (kv, vdim).
        in_proj_bias: (embed_dim + 2 · kv); out_proj: a Linear; bias_k, bias_v: (1, 1, kv) or None.
    Raises:
        OpError: `embed_dim` is no multiple of `num_heads`, or that none of `num_kv_heads`.
        ShapeError: when called with shapes that do not fit.

    >>> import tinytorch as tt
    >>> attention = tt.nn.MultiheadAttention(8, num_heads=4, num_kv_heads=2)
    >>> query, memory = tt.zeros(5, 3, 8), tt.zeros(7, 3, 8)      # (time, batch, features)
    >>> y, _ = attention(query, memory, memory, need_weights=False)
    >>> y.shape, attention.in_proj_weight.shape
    ((5, 3, 8), (16, 8))
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, dtype: Any = "f32", *,
                 num_kv_heads: int | None = None) -> None:
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_heads(f"{type(self).__name__}", embed_dim, num_heads, kv_heads)
        check_probability(f"{type(self).__name__}(dropout", dropout)
        self.embed_dim, self.num_heads, self.num_kv_heads, self.dropout = embed_dim, num_heads, kv_heads, dropout
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.head_dim, self.batch_first, self.add_zero_attn = embed_dim // num_heads, batch_first, add_zero_attn
        kv = kv_heads * self.head_dim
        self.sizes = embed_dim, kv, kv  # of projected queries, keys, values

        def weight(*shape: int) -> Parameter:
            parameter = Parameter(zeros(*shape, dtype=dtype))
            init.xavier_uniform_(parameter)
            return parameter

        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight: Parameter | None = weight(embed_dim + 2 * kv, embed_dim)
        else:
            self.in_proj_weight = None
            self.q_proj_weight = weight(embed_dim, embed_dim)
            self.k_proj_weight, self.v_proj_weight = weight(kv, self.kdim), weight(kv, self.vdim)
        self.in_proj_bias = Parameter(zeros(embed_dim + 2 * kv, dtype=dtype)) if bias else None
        self.bias_k = init.xavier_normal_(Parameter(zeros(1, 1, kv, dtype=dtype))) if add_bias_kv else None
        self.bias_v = init.xavier_normal_(Parameter(zeros(1, 1, kv, dtype=dtype))) if add_bias_kv else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(self, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True,
                attn_mask: Any = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """(result, weights), with `query` (batch, n, embed_dim), `key` and `value` (batch, m, …) if `batch_first`.

        Without it: (n, batch, …); without a batch: (n, …).

        Args:
            key_padding_mask: (batch, m): booleans, true where a key is NOT to be seen, or numbers to add.
            need_weights: also give the weights: (batch, n, m), or of each head (batch, heads, n, m) without
                `average_attn_weights`. Leave them out if you can: it is faster.
            attn_mask: (n, m) or (batch · heads, n, m): booleans, true where a key is NOT to be seen (other than in
                `F.scaled_dot_product_attention`; so it is in PyTorch), or numbers to add.
            is_causal: query i sees keys 0 … i only. PyTorch wants `attn_mask` too; here it may be left out.

        A query that sees no key gets weights of zero. (PyTorch gives nan when weights are needed.)
        """
        query, key, value = as_tensor(query), as_tensor(key), as_tensor(value)
        batched = query.ndim == 3
        self._check(query, key, value)
        q, k, v = (self._heads(t, n, batched) for t, n in
                   zip(self._project(query, key, value), (self.num_heads, *(self.num_kv_heads,) * 2), strict=True))
        mask = self._mask(attn_mask, key_padding_mask, q.shape[0], q.shape[2], k.shape[2])
        k, v, mask, is_causal = self._extend(k, v, mask, is_causal)
        p = self.dropout if self.training else 0.0
        if need_weights:
            y, weights = self._with_weights(q, k, v, mask, p, is_causal)
        else:
            y, weights = F.scaled_dot_product_attention(q, k, v, mask, p, is_causal, enable_gqa=True), None
        order = (0, 2, 1, 3) if self.batch_first or not batched else (2, 0, 1, 3)
        y = y.permute(*order)
        y = self.out_proj(y.reshape(*y.shape[:2], self.sizes[0]))
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
        return (y, weights) if batched else (y[0], None if weights is None else weights[0])

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values, in as few products as can be."""
        weight, bias, sizes = self.in_proj_weight, self.in_proj_bias, self.sizes
        if weight is not None and query is key is value:
            return split(F.linear(query, weight, bias), sizes)
        biases: list[Any] = [None] * 3 if bias is None else split(bias, sizes)
        if weight is None:
            weights: list[Any] = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        elif key is value:
            rest = None if bias is None else bias[sizes[0]:]
            return [F.linear(query, weight[:sizes[0]], biases[0]),
                    *split(F.linear(key, weight[sizes[0]:], rest), sizes[1:])]
        else:
            weights = split(weight, sizes, 0)
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]

    def _heads(self, x: Tensor, heads: int, batched: bool) -> Tensor:
        """(batch, heads, time, head_dim) of projected x, whatever its axes."""
        x = x if batched else x.unsqueeze(0)
        order = (0, 2, 1, 3) if self.batch_first or not batched else (1, 2, 0, 3)
        return x.reshape(*x.shape[:2], heads, self.head_dim).permute(*order)

    def _mask(self, attn_mask: Any, padding: Any, batch: int, n: int, m: int) -> Tensor | None:
        """Both masks as one that may be broadcast to (batch, heads, n, m): true where seen, or numbers to add."""
        masks: list[Tensor] = []
        if attn_mask is not None:
            mask = self._fitting("attn_mask", attn_mask, (n, m), (batch * self.num_heads, n, m))
            if mask.ndim == 3:
                mask = mask.reshape(batch, self.num_heads, *mask.shape[1:])
            masks.append(mask)
        if padding is not None:
            padding = self._fitting("key_padding_mask", padding, (batch, m), *([(m,)] if batch == 1 else []))
            masks.append(padding.reshape(batch, 1, 1, m))
        for mask in masks:
            if mask.dtype.kind not in "bf":
                raise OpError(f"{type(self).__name__}: a mask is {mask.type}, expected booleans (true: not to be seen) "
                              "or numbers to add; convert it with mask.bool()")
        if all(mask.dtype.kind == "b" for mask in masks):
            allowed = [~mask for mask in masks]
            return None if not masks else allowed[0] if len(masks) == 1 else allowed[0] & allowed[1]
        dtype = next(mask.dtype for mask in masks if mask.dtype.is_float)
        added = [as_tensor(ops.where(m, -math.inf, 0.0)).to(dtype) if m.dtype.kind == "b" else m for m in masks]
        return added[0] if len(added) == 1 else added[0] + added[1]

    def _fitting(self, name: str, given: Any, *shapes: tuple[int, ...]) -> Tensor:
        """A mask, if it is of one of the shapes."""
        mask = as_tensor(given)
        if mask.shape not in shapes:
            raise ShapeError(f"{type(self).__name__}: {name} is {mask.type}, expected one of shape "
                             f"{' or '.join(map(str, shapes))}")
        return mask

    def _extend(self, k: Tensor, v: Tensor, mask: Tensor | None,
                is_causal: bool) -> tuple[Tensor, Tensor, Tensor | None, bool]:
        """Keys and values with what `add_bias_kv` and `add_zero_attn` append, which every query may see."""
        extra = []
        if self.bias_k is not None and self.bias_v is not None:
            extra.append([b.reshape(1, self.num_kv_heads, 1, self.head_dim).expand(k.shape[0], -1, -1, -1)
                          for b in (self.bias_k, self.bias_v)])
        if self.add_zero_attn:
            extra.append([k[:, :, :1].zeros_like()] * 2)
        if not extra:
            return k, v, mask, is_causal
        if is_causal:
            raise OpError(f"{type(self).__name__}: is_causal with add_bias_kv or add_zero_attn: pass an attn_mask")
        if mask is not None:
            seen = full((*mask.shape[:-1], len(extra)), mask.dtype.kind == "b", mask.dtype)
            mask = concat([mask, seen], -1)
        return concat([k, *(pair[0] for pair in extra)], 2), concat([v, *(pair[1] for pair in extra)], 2), mask, False

    def _with_weights(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float,
                      is_causal: bool) -> tuple[Tensor, Tensor]:
        """The open form: keys are repeated for their groups, weights (batch, heads, n, m) kept."""
        group = self.num_heads // self.num_kv_heads
        if group > 1:
            k, v = (t.unsqueeze(2).expand(-1, -1, group, -1, -1).reshape(t.shape[0], self.num_heads, *t.shape[2:])
                    for t in (k, v))
        weights = F.dropout(attention_weights(q, k, mask, is_causal), p, self.training)
        return weights @ v, weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        axes = "(batch, time, …)" if self.batch_first else "(time, batch, …)"
        if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
            raise ShapeError(f"{type(self).__name__}(query {query.type}, key {key.type}, value {value.type}): expected "
                             f"{axes}, or (time, …), of all three")
        sizes = (self.embed_dim, self.kdim, self.vdim)
        if tuple(t.shape[-1] for t in (query, key, value)) != sizes or key.shape[:-1] != value.shape[:-1]:
            raise ShapeError(f"{type(self).__name__}(query {query.type}, key {key.type}, value {value.type}): expected "
                             f"last extents {sizes}, and as many keys as values")
        batch = 0 if self.batch_first else 1
        if query.ndim == 3 and query.shape[batch] != key.shape[batch]:
            raise ShapeError(f"{type(self).__name__}(query {query.type}, key {key.type}): the batches differ; expected "
                             f"{axes}, as batch_first={self.batch_first} says")


MultiHeadAttention = MultiheadAttention


def check_heads(who: str, embed_dim: int, num_heads: int, num_kv_heads: int) -> None:
    """An OpError, if features cannot be split evenly into heads, or query heads evenly into groups."""
    if num_heads < 1 or embed_dim % num_heads:
        raise OpError(f"{who}: {embed_dim} features do not split into {num_heads} heads; use a number "
                      "that divides them")
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        raise OpError(f"{who}: {num_heads} query heads do not split into {num_kv_heads} groups, one for each key head")


def split(x: Tensor, sizes: tuple[int, ...], dim: int = -1) -> list[Tensor]:
    """x cut along its first or last axis into parts of these sizes."""
    parts, at = [], 0
    for size in sizes:
        parts.append(x[..., at:at + size] if dim else x[at:at + size])
        at += size
    return parts
