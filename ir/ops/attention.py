"""Attention: `attention` over (…, time, head_dim), and the two primitives that it is made of.

    out = ops.attention(q, k, v, causal=True)                  # (…, heads, time, head_dim); fewer key heads are groups
    weights = ops.attention_weights(q, k, mask)

`attention` is `attend` with its axes turned: `attend` and its gradient work on (batch, time, heads, head_dim), where
models make queries and keys and want the result, so that the turns cancel. The runtime computes both whole, in O(time)
memory, where `native` says so. `attend` also gives log Σ exp of each query's scores, from which `attend_grad` gets the
weights back (Dao et al., "FlashAttention", 2022). Second order goes through the expansion.
"""

from __future__ import annotations

import math
from typing import Any

from ..dtypes import f32
from ..errors import ShapeError
from ..types import TensorType
from .contract import matmul
from .define import Prepared, attributes, composite, lift
from .leading import merged
from .pointwise import eq, exp, ge, log, where
from .reduce import max, sum
from .source import constant, iota
from .view import broadcast_to, reshape, transpose

__all__ = ["attend", "attend_grad", "attention", "attention_weights"]

HEADS_FIRST = (0, 2, 1, 3)  # (batch, time, heads, head_dim) ↔ (batch, heads, time, head_dim)
WHOLE = 16                  # a kernel's tiles want head_dim in multiples of it
FEW = 16                    # queries: for fewer, as in decoding, matrix-vector products are faster than a panel


def _masked(scores: Any, *mask: Any, causal: bool) -> Any:
    """Scores (…, queries, keys) where keys may be seen, -inf elsewhere; the last query may see the last key."""
    if mask:
        scores = where(mask[0], scores, -math.inf) if mask[0].dtype.kind == "b" else scores + mask[0]
    if causal:
        n, m = scores.shape[-2:]
        scores = where(ge(iota((n, m), 0) + (m - n), iota((n, m), 1)), scores, -math.inf)
    return scores


def _exponentials(scores: Any) -> tuple[Any, Any, Any]:
    """exp(scores - shift), its sum over keys and the shift; a row with every key masked has sum 1 and shift 0."""
    top = max(scores, -1, True) if scores.shape[-1] else sum(scores, -1, True)
    shift = where(eq(top, -math.inf), 0.0, top)
    e = exp(scores - shift)
    total = sum(e, -1, True)
    return e, where(eq(total, 0.0), 1.0, total), shift


# -- the weights alone -------------------------------------------------------------------------------------------------


def _weights_prepare(q: Any, k: Any, mask: Any = None, causal: bool = False, scale: float | None = None) -> Prepared:
    operands = tuple(lift(t) for t in (q, k, mask) if t is not None)
    scale = 1 / math.sqrt(operands[0].shape[-1]) if scale is None else scale
    return operands, {"causal": bool(causal), "scale": float(scale)}


def _attention_weights(q: Any, k: Any, *mask: Any, causal: bool, scale: float) -> Any:
    e, total, _ = _exponentials(_masked(matmul(q, k, False, True) * scale, *mask, causal=causal))
    return e / total


attention_weights = composite("attention_weights", _attention_weights, attributes(_weights_prepare),
                              "softmax(q kᵀ · scale + mask): how much each query looks at each key; "
                              "a boolean mask is true where a key may be seen")


# -- attention, time before heads --------------------------------------------------------------------------------------


def _attend_prepare(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False,
                    scale: float | None = None) -> Prepared:
    (q, k, *rest), attrs = _weights_prepare(q, k, mask, causal, scale)
    operands = (q, k, lift(v), *rest)
    reason = _refusal(*(t.type for t in operands))
    if reason:
        raise ShapeError(f"attend({', '.join(str(t.type) for t in operands)}): {reason}")
    return operands, attrs


def _refusal(q: TensorType, k: TensorType, v: TensorType, *mask: TensorType) -> str:
    """Why `attend` cannot take operands of these types; empty if it can."""
    if not len(q.shape) == len(k.shape) == len(v.shape) == 4:
        return "expected (batch, time, heads, head_dim) each"
    (batch, n, heads, head_dim), (_, m, key_heads, _) = q.shape, k.shape
    if k.shape != (batch, m, key_heads, head_dim) or v.shape[:3] != k.shape[:3]:
        return "batch and head_dim of queries and keys, and all but the last axis of keys and values, must agree"
    if not key_heads or heads % key_heads:
        return f"the {heads} heads of queries must be a multiple of the {key_heads} of keys"
    if not q.dtype.is_float or not q.dtype is k.dtype is v.dtype:
        return "expected one floating point type"
    return _mask_refusal((batch, heads, n, m), q, *mask)


def _mask_refusal(scores: tuple[int, ...], q: TensorType, *masks: TensorType) -> str:
    for mask in masks:
        fits = len(mask.shape) == 4 and all(a in (1, b) for a, b in zip(mask.shape, scores, strict=True))
        if not fits or mask.dtype.name not in ("bool", q.dtype.name):
            return f"the mask must be of booleans or {q.dtype}, and repeat to (batch, heads, queries, keys) = {scores}"
    return ""


def _native(q: TensorType, k: TensorType, v: TensorType, *mask: TensorType, scale: float, **_: Any) -> bool:
    """Whether a kernel is there and worth it; it takes the maximum before it scales, so the scale must be positive."""
    whole = q.shape[3] % WHOLE == 0 and v.shape[3] % WHOLE == 0
    return q.dtype is f32 and whole and scale > 0 and q.shape[1] >= FEW and min(*q.shape, *k.shape, *v.shape) > 0


def _grouped(x: Any, groups: int) -> Any:
    """(batch, time, heads, …) as (batch, groups, heads / groups, time, …)."""
    batch, time, heads, *rest = x.shape
    split = reshape(x, (batch, time, groups, heads // groups, *rest))
    return transpose(split, (0, 2, 3, 1, *range(4, split.ndim)))


def _ungrouped(x: Any) -> Any:
    """The way back."""
    batch, groups, each, time, *rest = x.shape
    return reshape(transpose(x, (0, 3, 1, 2, *range(4, x.ndim))), (batch, time, groups * each, *rest))


def _scores(q: Any, k: Any, *mask: Any, causal: bool, scale: float) -> Any:
    """(batch, groups, heads of a group, queries, keys) of operands with time before heads."""
    groups = k.shape[2]
    by_group = [reshape(t, (t.shape[0], *((groups, q.shape[2] // groups) if t.shape[1] > 1 else (1, 1)), *t.shape[2:]))
                for t in mask]
    return _masked(matmul(_grouped(q, groups), _grouped(k, groups), False, True) * scale, *by_group, causal=causal)


def _attend(q: Any, k: Any, v: Any, *mask: Any, causal: bool, scale: float) -> tuple[Any, Any]:
    e, total, shift = _exponentials(_scores(q, k, *mask, causal=causal, scale=scale))
    out = matmul(e / total, _grouped(v, k.shape[2]))
    lse = log(total) + shift
    return _ungrouped(out), _ungrouped(reshape(lse, lse.shape[:-1]))


def _slopes(g: Any, delta: Any, lse: Any, q: Any, k: Any, v: Any, *mask: Any, causal: bool,
            scale: float) -> tuple[Any, Any]:
    """The weights, and the cotangents of the scores, (batch, groups, heads of a group, queries, keys)."""
    groups = k.shape[2]
    column = (*_grouped(lse, groups).shape, 1)
    p = exp(_scores(q, k, *mask, causal=causal, scale=scale) - reshape(_grouped(lse, groups), column))
    return p, p * (matmul(_grouped(g, groups), _grouped(v, groups), False, True)
                   - reshape(_grouped(delta, groups), column))


def _attend_grad(g: Any, delta: Any, lse: Any, q: Any, k: Any, v: Any, *mask: Any, causal: bool,
                 scale: float) -> tuple[Any, Any, Any]:
    groups = k.shape[2]
    p, ds = _slopes(g, delta, lse, q, k, v, *mask, causal=causal, scale=scale)
    dq = matmul(ds, _grouped(k, groups)) * scale
    dk = sum(matmul(ds, _grouped(q, groups), True), 2, True) * scale
    dv = sum(matmul(p, _grouped(g, groups), True), 2, True)
    return _ungrouped(dq), _ungrouped(dk), _ungrouped(dv)


def _attend_grad_prepare(g: Any, delta: Any, lse: Any, q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False,
                         scale: float | None = None) -> Prepared:
    operands, attrs = _attend_prepare(q, k, v, mask, causal, scale)
    g, delta, lse = map(lift, (g, delta, lse))
    rows, last = operands[0].shape[:3], operands[2].shape[3:]
    if g.shape != (*rows, *last) or not rows == delta.shape == lse.shape:
        raise ShapeError(f"attend_grad({g.type}, {delta.type}, {lse.type}, {operands[0].type}, …): expected the "
                         f"cotangent of the result, {(*rows, *last)}, and one number a query and head twice, {rows}")
    return (g, delta, lse, *operands), attrs


attend_grad = composite(
    "attend_grad", _attend_grad, attributes(_attend_grad_prepare),
    "the cotangents of q, k and v from g, that of attend's result; delta is Σ g · out over the last axis",
    native=lambda g, delta, lse, *types, **attrs: _native(*types, **attrs), vmap=merged)


def _attend_vjp(grads: tuple[Any, Any], results: tuple[Any, Any], q: Any, k: Any, v: Any, *mask: Any,
                **attrs: Any) -> tuple[Any, ...]:
    (g, g_lse), (out, lse) = grads, results
    g = broadcast_to(constant(0.0, out.dtype), out.shape) if g is None else g
    delta = sum(g * out, -1)
    delta = delta if g_lse is None else delta - g_lse  # a score's part in log Σ exp is its weight
    given = (g, delta, lse, q, k, v, *mask)
    found = attend_grad(*given, **attrs)
    if not mask:
        return tuple(found)
    if not mask[0].dtype.is_float or mask[0].is_constant:
        return *found, None
    slopes = _slopes(*given, **attrs)[1]  # all of them: this cotangent is as big as the scores
    return *found, reshape(slopes, (slopes.shape[0], q.shape[2], *slopes.shape[-2:]))


attend = composite(
    "attend", _attend, attributes(_attend_prepare),
    "attention with time before heads, (batch, time, heads, head_dim), and log Σ exp of the scores, "
    "(batch, time, heads); the mask is (batch, heads, queries, keys)", vjp=_attend_vjp, native=_native, vmap=merged)


# -- attention ---------------------------------------------------------------------------------------------------------


def _attention_prepare(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False,
                       scale: float | None = None) -> Prepared:
    (q, k, *rest), attrs = _weights_prepare(q, k, mask, causal, scale)
    return (q, k, lift(v), *rest), attrs


def _attention(q: Any, k: Any, v: Any, *mask: Any, causal: bool, scale: float) -> Any:
    turned = _turned(q, k, v, *mask)
    if turned is None:
        return matmul(attention_weights(q, k, *mask, causal=causal, scale=scale), v)
    out, _ = attend(*turned, causal=causal, scale=scale)
    out = transpose(out, HEADS_FIRST)
    return reshape(out, (*q.shape[:-1], v.shape[-1]))


def _turned(q: Any, k: Any, v: Any, *mask: Any) -> tuple[Any, ...] | None:
    """The operands as `attend` takes them; None where axes before the heads broadcast, or the types are others."""
    if q.ndim < 2 or not q.ndim == k.ndim == v.ndim:
        return None
    if any(q.shape[:-3] != t.shape[:-3] for t in (k, v)) or (mask and (mask[0].ndim > 4 or q.ndim > 4)):
        return None
    flat = [reshape(t, (math.prod(t.shape[:-3]), *(1,) * (3 - t.ndim), *t.shape[-3:])) for t in (q, k, v)]
    masks = [reshape(t, (*(1,) * (4 - t.ndim), *t.shape)) for t in mask]
    found = (*(transpose(t, HEADS_FIRST) for t in flat), *masks)
    return None if _refusal(*(t.type for t in found)) else found


attention = composite("attention", _attention, attributes(_attention_prepare),
                      "softmax(q kᵀ · scale + mask) v over (…, time, head_dim); fewer heads (axis -3) of keys than of "
                      "queries serve groups; a boolean mask is true where a key may be seen (Vaswani et al., 2017)")
