"""Ops made of simpler ones. A pass can see them whole (`softmax`), or open them (`expand_composites`).

Each is a plain function of handles; one that is given a gradient has it because the general rule would be slower or
less exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype
from ..errors import OpError, ShapeError
from ..op import Op
from ..types import Shape, normalize_axes, normalize_axis
from .contract import matmul
from .define import Prepared, attributes, cast_to, composite, lift
from .pointwise import abs as absolute
from .pointwise import (
    add,
    cast,
    cos,
    div,
    eq,
    erf,
    exp,
    ge,
    gt,
    in_range,
    le,
    log,
    log1p,
    maximum,
    minimum,
    rsqrt,
    sigmoid,
    sqrt,
    tanh,
    where,
)
from .random import random_uniform
from .reduce import max, spread, sum
from .source import iota
from .view import broadcast_to, reshape

__all__ = [
    "batch_norm", "clip", "cross_entropy", "dropout", "gelu",
    "layer_norm", "leaky_relu", "linear", "log_softmax", "logaddexp", "logsumexp", "mean", "random_normal", "relu",
    "rms_norm", "silu", "softmax", "softplus", "var",
]


def _floating(x: Any) -> Any:
    """`x` as a floating point tensor, as NumPy would divide it."""
    return div.prepare(x, 1.0)[0][0]


def _count(shape: Shape, axis: Shape) -> int:
    return math.prod(shape[a] for a in axis)


# -- statistics --------------------------------------------------------------------------------------------------------


def _axes(x: Any, axis: Any = None, keepdims: bool = False) -> Prepared:
    x = _floating(lift(x))
    return (x,), {"axis": normalize_axes(axis, x.ndim), "keepdims": bool(keepdims)}


def _mean(x: Any, *, axis: Shape, keepdims: bool) -> Any:
    n = _count(x.shape, axis)
    return sum(x, axis, keepdims) / (n or math.nan)  # times 1 / n would round twice


def _mean_vjp(g: Any, out: Any, x: Any, *, axis: Shape, keepdims: bool) -> tuple[Any]:
    return (broadcast_to(spread(g * (1.0 / (_count(x.shape, axis) or 1)), x, axis), x.shape),)


mean: Op = composite("mean", _mean, attributes(_axes), "Σx / n over `axis` (all by default)", vjp=_mean_vjp)


def _var_prepare(x: Any, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Prepared:
    operands, attrs = _axes(x, axis, keepdims)
    return operands, attrs | {"ddof": int(ddof)}


def _var(x: Any, *, axis: Shape, keepdims: bool, ddof: int) -> Any:
    n = _count(x.shape, axis) - ddof
    d = x - mean(x, axis, True)
    return sum(d * d, axis, keepdims) / (n if n > 0 else math.nan)


var = composite("var", _var, attributes(_var_prepare), "Σ(x - mean)² / (n - ddof) over `axis`")


# -- activations -------------------------------------------------------------------------------------------------------


def _unary(x: Any) -> Prepared:
    return (_floating(lift(x)),), {}


relu = composite("relu", lambda x: maximum(x, 0), attributes(lambda x: ((lift(x),), {})), "max(x, 0)",
                 vjp=lambda g, out, x: (where(gt(out, 0), g, 0.0),), flops=lambda out, x: out.size)
leaky_relu = composite("leaky_relu", lambda x, *, slope: where(gt(x, 0), x, x * slope),
                       attributes(lambda x, slope=0.01: ((_floating(lift(x)),), {"slope": float(slope)})),
                       "x where positive, slope · x elsewhere")
silu = composite("silu", lambda x: x * sigmoid(x), attributes(_unary), "x · sigmoid(x)")
softplus = composite("softplus", lambda x: maximum(x, 0) + log1p(exp(-absolute(x))), attributes(_unary),
                     "log(1 + eˣ), never overflowing", vjp=lambda g, out, x: (g * sigmoid(x),))


def _gelu(x: Any, *, approximate: str) -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1.0 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


def _gelu_prepare(x: Any, approximate: str = "none") -> Prepared:
    if approximate not in ("none", "tanh"):
        raise OpError(f"gelu(approximate={approximate!r}): expected 'none' or 'tanh'")
    return (_floating(lift(x)),), {"approximate": approximate}


gelu = composite("gelu", _gelu, attributes(_gelu_prepare), "x Φ(x) (Hendrycks and Gimpel, 2016), exact or by tanh")


def _clip_prepare(x: Any, low: float | None = None, high: float | None = None) -> Prepared:
    for bound in (low, high):
        if not (bound is None or isinstance(bound, (int, float, np.number))):
            raise OpError(f"clip: a bound is {bound!r:.60}, expected a number or None; "
                          "use maximum and minimum for bounds that are tensors")
    return (lift(x),), {name: b.item() if isinstance(b, np.number) else b for name, b in (("low", low), ("high", high))}


def _clip(x: Any, *, low: float | None, high: float | None) -> Any:
    x = x if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)


def _clip_vjp(g: Any, out: Any, x: Any, *, low: float | None, high: float | None) -> tuple[Any]:
    inside = ge(x, -math.inf if low is None else low) & le(x, math.inf if high is None else high)
    return (where(inside, g, 0.0),)


clip = composite("clip", _clip, attributes(_clip_prepare), "x kept within [low, high]; None leaves a side open",
                 vjp=_clip_vjp)


# -- softmax and its family --------------------------------------------------------------------------------------------


def _axis(x: Any, axis: int = -1) -> Prepared:
    x = _floating(lift(x))
    return (x,), {"axis": normalize_axis(axis, x.ndim)}


def _top(x: Any, axis: int) -> Any:
    """The greatest along an axis, or anything where there is nothing."""
    return max(x, axis, True) if x.shape[axis] else sum(x, axis, True)


def _softmax(x: Any, *, axis: int) -> Any:
    e = exp(x - _top(x, axis))
    return e / sum(e, axis, True)


def _log_softmax(x: Any, *, axis: int) -> Any:
    s = x - _top(x, axis)
    return s - log(sum(exp(s), axis, True))


softmax = composite("softmax", _softmax, attributes(_axis), "eˣ / Σeˣ along `axis`, shifted so that nothing overflows",
                    vjp=lambda g, out, x, *, axis: (out * (g - sum(g * out, axis, True)),))
log_softmax = composite("log_softmax", _log_softmax, attributes(_axis), "log of softmax along `axis`",
                        vjp=lambda g, out, x, *, axis: (g - exp(out) * sum(g, axis, True),))


def _logsumexp(x: Any, *, axis: Shape, keepdims: bool) -> Any:
    top = max(x, axis, True)
    top = where(eq(absolute(top), math.inf), 0.0, top)  # rows of -inf give -inf, not nan
    total = log(sum(exp(x - top), axis, True)) + top
    return total if keepdims else reshape(total, tuple(n for a, n in enumerate(x.shape) if a not in axis))


logsumexp = composite("logsumexp", _logsumexp, attributes(_axes), "log Σeˣ over `axis`, never overflowing")


def _logaddexp(x: Any, y: Any) -> Any:
    return maximum(x, y) + where(eq(x, y), math.log(2), log1p(exp(-absolute(x - y))))  # two equal infinities too


logaddexp = composite("logaddexp", _logaddexp, attributes(lambda x, y: div.prepare(x, y)),
                      "log(eˣ + eʸ), never overflowing",
                      vjp=lambda g, out, x, y: (g * sigmoid(x - y), g * sigmoid(y - x)))


def _cross_entropy_prepare(logits: Any, labels: Any) -> Prepared:
    logits, labels = _floating(lift(logits)), lift(labels)
    if labels.dtype.kind not in "iu" or labels.shape != logits.shape[:-1]:
        raise ShapeError(f"cross_entropy({logits.type}, {labels.type}): expected logits (…, classes) and "
                         f"one integer label for each row, of shape {logits.shape[:-1]}")
    return (logits, cast_to(labels, as_dtype(np.int64))), {}


def _one_hot(labels: Any, classes: int) -> Any:
    labels = in_range(labels, classes)
    return eq(iota((*labels.shape, classes), axis=-1), reshape(labels, (*labels.shape, 1)))


def _cross_entropy(logits: Any, labels: Any) -> Any:
    s = logits - max(logits, -1, True)
    picked = sum(where(_one_hot(labels, logits.shape[-1]), s, 0.0), -1)
    return log(sum(exp(s), -1)) - picked


def _cross_entropy_vjp(g: Any, out: Any, logits: Any, labels: Any) -> tuple[Any, None]:
    e = exp(logits - max(logits, -1, True))
    p = e / reshape(sum(e, -1), (*labels.shape, 1))
    hot = cast(_one_hot(labels, logits.shape[-1]), logits.dtype)
    return (p - hot) * reshape(g, (*labels.shape, 1)), None


cross_entropy = composite("cross_entropy", _cross_entropy, attributes(_cross_entropy_prepare),
                          "-log softmax(logits)[label] of each row; the caller averages. "
                          "A label outside the classes is an IndexError", vjp=_cross_entropy_vjp)


# -- normalisation -----------------------------------------------------------------------------------------------------


def _norm_prepare(x: Any, *affine: Any, axis: Any = -1, eps: float = 1e-5) -> Prepared:
    x = _floating(lift(x))
    return (x, *map(lift, affine)), {"axis": normalize_axes(axis, x.ndim), "eps": float(eps)}


def _affine(y: Any, *affine: Any) -> Any:
    y = y * affine[0] if affine else y
    return add(y, affine[1]) if len(affine) > 1 else y


def _layer_norm(x: Any, *affine: Any, axis: Shape, eps: float) -> Any:
    d = x - mean(x, axis, True)
    return _affine(d * rsqrt(mean(d * d, axis, True) + eps), *affine)


def _rms_norm(x: Any, *affine: Any, axis: Shape, eps: float) -> Any:
    return _affine(x * rsqrt(mean(x * x, axis, True) + eps), *affine)


layer_norm = composite("layer_norm", _layer_norm, attributes(_norm_prepare),
                       "(x - mean) / √(var + eps) over `axis`, times weight, plus bias (Ba et al., 2016)")
rms_norm = composite("rms_norm", _rms_norm, attributes(_norm_prepare),
                     "x / √(mean x² + eps) over `axis`, times weight (Zhang and Sennrich, 2019)")


def _batch_norm_prepare(x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Prepared:
    return tuple(map(lift, (x, mean, var, weight, bias))), {"eps": float(eps)}


def _batch_norm(x: Any, mean: Any, var: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    along = (1, -1) + (1,) * (x.ndim - 2)  # channels are axis 1
    scale = weight * rsqrt(var + eps)
    return x * reshape(scale, along) + reshape(bias - mean * scale, along)


batch_norm = composite("batch_norm", _batch_norm, attributes(_batch_norm_prepare),
                       "normalise each channel (axis 1) by given statistics (Ioffe and Szegedy, 2015)")


# -- layers ------------------------------------------------------------------------------------------------------------


def _linear_prepare(x: Any, weight: Any, *bias: Any) -> Prepared:
    x, weight = lift(x), lift(weight)
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"linear({x.type}, weight {weight.type}): "
                         f"expected x (…, {weight.shape[-1] if weight.ndim else '?'}) for a weight (out, in); "
                         "the last extent of x must be the second of the weight")
    return (x, weight, *(lift(b) for b in bias if b is not None)), {}


def _linear(x: Any, weight: Any, *bias: Any) -> Any:
    flat = x if x.ndim == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    y = matmul(flat, weight, False, True)
    y = y + bias[0] if bias else y
    return y if x.ndim == 2 else reshape(y, (*x.shape[:-1], weight.shape[0]))


def _linear_vjp(g: Any, out: Any, x: Any, weight: Any, *bias: Any) -> tuple[Any, ...]:
    rows, g_rows = (t if t.ndim == 2 else reshape(t, (math.prod(t.shape[:-1]), t.shape[-1])) for t in (x, g))
    gx = None if x.is_constant else matmul(g_rows, weight)
    return gx if gx is None or x.ndim == 2 else reshape(gx, x.shape), matmul(g_rows, rows, True), *(g for _ in bias)


linear = composite("linear", _linear, attributes(_linear_prepare), "x Wᵀ + b, with W (out, in)", vjp=_linear_vjp,
                   vmap=lambda op, size, mapped, *operands: None if any(mapped[1:]) else op(*operands))


# -- randomness --------------------------------------------------------------------------------------------------------


def _dropout_prepare(x: Any, key: Any, p: float = 0.5) -> Prepared:
    if not 0 <= p <= 1:
        raise OpError(f"dropout(p={p}): expected a probability, 0 ≤ p ≤ 1")
    return (_floating(lift(x)), cast_to(lift(key), as_dtype(np.int64))), {"p": float(p)}


def _dropout(x: Any, key: Any, *, p: float) -> Any:
    keep = ge(random_uniform(key, x.shape), p)
    return where(keep, x * (1 / (1 - p) if p < 1 else 0.0), 0.0)


dropout = composite("dropout", _dropout, attributes(_dropout_prepare),
                    "zero each element with probability p, scale the rest by 1 / (1 - p)")


def _normal_prepare(key: Any, shape: Any, dtype: Any = "f32") -> Prepared:
    return random_uniform.prepare(key, shape, dtype)


def _random_normal(key: Any, *, shape: Shape, dtype: DType) -> Any:
    n = math.prod(shape)
    u, v = random_uniform(key, (n,), dtype), random_uniform(key ^ 0x5851F42D4C957F2D, (n,), dtype)
    return reshape(sqrt(-2.0 * log(1.0 - u)) * cos(v * (2 * math.pi)), shape)  # Box and Muller, 1958


random_normal = composite("random_normal", _random_normal, attributes(_normal_prepare),
                          "standard normal numbers, from a key (one i64)")
