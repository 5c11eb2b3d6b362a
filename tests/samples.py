"""One entry for each op: operands that show what it does, its equal in PyTorch or NumPy, what it must refuse.

`ENTRIES[name]` holds the whole entry, `SAMPLES[name]` only its calls. `tests/test_ops.py` derives every test of an op
from its entry, and fails for an op that has none. A new op needs one entry here:

    "tanh": Entry(unary(), torch=lambda x: torch.tanh(x), bad=[...])

Operands come from `some` (floats without ties, kinks or zeros, so that differences are valid), `whole` (integers,
with ties) and the layouts `turned`, `spaced`, `backward`, `spread`, which hold the same numbers at other strides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
from grouped import grouped_matrix, grouped_windows

from tinytorch.ir import Builder, TensorType, ops
from tinytorch.ir.errors import DTypeError, OpError, ShapeError
from tinytorch.ir.graph import Graph
from tinytorch.ir.ops.packed import pack, pack_groups
from tinytorch.ir.ops.sparse import pack_sparse

try:
    import torch
except ImportError:
    torch = None

Array = np.ndarray
f16, f32, f64, bf16 = np.float16, np.float32, np.float64, ml_dtypes.bfloat16
i8, i16, i32, i64, u8 = np.int8, np.int16, np.int32, np.int64, np.uint8
FLOATS = (f32, f64, f16, bf16)
INTS = (i32, i64, i8, i16, u8)


@dataclass(frozen=True)
class Sample:
    """One call: `op(*args, **attrs)`.

    `smooth`: differentiable here, so that gradients are compared; `torch`: PyTorch agrees on these numbers too.
    """

    args: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    smooth: bool = True
    torch: bool = True

    def __str__(self) -> str:
        shown = [f"{a.dtype}{list(a.shape)}" if isinstance(a, Array) else repr(a) for a in self.args]
        return ",".join([*shown, *(f"{k}={v!r}" for k, v in self.attrs.items())])


@dataclass(frozen=True)
class Bad:
    """A call that must be refused, with an error of this class whose message matches."""

    args: tuple[Any, ...]
    error: type[Exception]
    message: str
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """All that tests need to know of an op.

    `torch` and `meaning` (NumPy) say again, independently, what the op does; a string says why there is no such equal.
    `grad`: the operands through which gradients flow (all floating ones by default).
    `counted`: why a counting run cannot find the predicted FLOPs; nothing if it must.
    `starts`: the kernel's accumulators start from the identity, NumPy's from the first element.
    """

    samples: list[Sample]
    torch: Callable[..., Any] | str = "no such function"
    meaning: Callable[..., Any] | None = None
    grad: tuple[int, ...] | None = None
    bad: list[Bad] = field(default_factory=list)
    counted: str = ""
    starts: bool = False


# -- operands ----------------------------------------------------------------------------------------------------------


def some(*shape: int, dtype: Any = f32, low: float = -2.0, high: float = 2.0, seed: int = 0) -> Array:
    """Distinct floats of [low, high), in no order, none of them 0 or an integer; equal in every run."""
    size = math.prod(shape)
    steps = np.random.default_rng([seed, *shape]).permutation(size) + 0.37 + 0.0937 * seed
    return (low + (high - low) * steps / max(size, 1)).reshape(shape).astype(dtype)


def whole(*shape: int, dtype: Any = i32, low: int = -5, high: int = 6, seed: int = 0) -> Array:
    """Integers of [low, high), of [max(low, 0), high) if unsigned; some of them are equal."""
    low = max(low, 0) if np.dtype(dtype).kind == "u" else low
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(dtype)


def flags(*shape: int, seed: int = 0) -> Array:
    """Booleans."""
    return np.random.default_rng([seed, *shape]).random(shape) < 0.5


def turned(array: Array) -> Array:
    """The same numbers, the first axis contiguous."""
    return np.asfortranarray(array)


def spaced(array: Array) -> Array:
    """The same numbers, with gaps between them."""
    wide = np.full(tuple(2 * n for n in array.shape), 7, array.dtype)
    wide[tuple(np.s_[::2] for _ in array.shape)] = array
    return wide[tuple(np.s_[::2] for _ in array.shape)]


def backward(array: Array) -> Array:
    """The same numbers at negative strides."""
    return np.flip(np.flip(array).copy())


def spread(array: Array) -> Array:
    """The first row for every row, at stride 0."""
    return np.broadcast_to(array[:1], array.shape)


LAYOUTS = (turned, spaced, backward, spread)


def special(dtype: Any = f32) -> Array:
    """Zeros, infinities, nan, a subnormal, the smallest normal, the largest numbers, ordinary ones."""
    limits = ml_dtypes.finfo(dtype)
    small, huge = float(limits.smallest_subnormal), float(limits.max)
    tiny = float(limits.tiny)
    values = [0.0, -0.0, math.inf, -math.inf, math.nan, small, -small, tiny, huge, -huge, 1, -1, 0.5, -2.5, 88, -104]
    return np.array(values, dtype)


def edges(*shapes: tuple[int, ...]) -> list[Sample]:
    """Special values in every combination: one call for f32, one for f64, one for f16."""
    n = len(shapes) or 1
    return [
        Sample(tuple(special(d).reshape([-1 if a == b else 1 for b in range(n)]) for a in range(n)), smooth=False)
        for d in (f32, f64, f16)
    ]


# -- calls that ops of a kind share ------------------------------------------------------------------------------------


def unary(
    low: float = -2.0,
    high: float = 2.0,
    dtypes: Sequence[Any] = FLOATS,
    ints: Sequence[Any] = (i32, u8),
    special_values: bool = True,
    **attrs: Any,
) -> list[Sample]:
    """Calls of a function of one tensor."""

    def of(*shape: int, dtype: Any = f32) -> Array:
        return some(*shape, dtype=dtype, low=low, high=high)

    arrays = (
        [of(2, 3, dtype=d) for d in dtypes]
        + [view(of(3, 4)) for view in LAYOUTS]
        + [of(), of(0, 3), of(37), of(2, 1, 3, 1)]
    )
    arrays += [whole(2, 3, dtype=d, low=math.ceil(low), high=math.ceil(high) + 1) for d in ints]
    found = [Sample((a,), attrs) for a in arrays]
    return found + ([Sample((special(d),), attrs, smooth=False) for d in (f32, f64, f16)] if special_values else [])


SHAPES = [
    ((2, 3), (2, 3)),
    ((4, 1, 3), (2, 1)),
    ((3,), (2, 3)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((), ()),
    ((0, 3), (1, 3)),
    ((1, 1), (3,)),
]
Range = tuple[float, float]


def binary(
    x: Range = (-2.0, 2.0),
    y: Range = (-2.0, 2.0),
    dtypes: Sequence[Any] = FLOATS,
    ints: Sequence[Any] = INTS,
    smooth: bool = True,
    scalars: bool = True,
    special_values: bool = True,
) -> list[Sample]:
    """Calls of a function of two tensors: broadcasts, element types, layouts, Python numbers, special values."""

    def left(*shape: int, dtype: Any = f32) -> Array:
        return some(*shape, dtype=dtype, low=x[0], high=x[1])

    def right(*shape: int, dtype: Any = f32) -> Array:
        return some(*shape, dtype=dtype, low=y[0], high=y[1], seed=1)

    def integers(dtype: Any, seed: int) -> Array:
        low = max(1, math.ceil(y[0])) if seed and y[0] > 0 else 0 if x[0] >= 0 else -5
        return whole(2, 4, dtype=dtype, low=low, seed=seed)

    pairs: list[tuple[Any, Any]] = [(left(*a), right(*b)) for a, b in SHAPES] if f32 in dtypes else []
    pairs += [(left(2, 3, dtype=d), right(2, 3, dtype=d)) for d in dtypes] + [
        (integers(d, 0), integers(d, 1)) for d in ints
    ]
    if f32 in dtypes:
        pairs += [(view(left(3, 4)), other(right(3, 4))) for view, other in zip(LAYOUTS, LAYOUTS[1:] + LAYOUTS[:1])]
        pairs += [
            (left(2, 3), right(2, 3, dtype=f64)),
            (left(2, 3, dtype=f16), right(2, 3, dtype=f32)),
            (integers(i32, 0), right(2, 4)),
            (left(2, 4), integers(i8, 1)),
            (left(2, 4, dtype=f16), right(2, 4, dtype=bf16)),
        ]
    if scalars:
        pairs += (
            [(left(2, 3), 2), (left(2, 3), 1.5), (1.5, right(2, 3)), (left(2, 3, dtype=f16), 0.5)]
            if f32 in dtypes
            else []
        )
        pairs += [(integers(i32, 0), 2), (2, integers(u8, 1))] if ints else []
    found = [Sample(p, smooth=smooth) for p in pairs]
    return found + (edges((), ()) if special_values else [])


def reduced(
    low: float = -2.0, high: float = 2.0, empty: bool = True, ints: Sequence[Any] = (i32, u8), **attrs: Any
) -> list[Sample]:
    """Calls of a reduction over one axis, several, all, or none."""

    def of(*shape: int, dtype: Any = f32) -> Array:
        return some(*shape, dtype=dtype, low=low, high=high)

    found = [
        Sample((of(2, 3, 4),), {"axis": axis, "keepdims": keep} | attrs)
        for axis, keep in product((None, 0, -1, (0, 2), (1, -1)), (False, True))
    ]
    found += [Sample((of(3, 4, dtype=d),), {"axis": 1} | attrs) for d in FLOATS] + [
        Sample((view(of(3, 4)),), {"axis": 0} | attrs) for view in LAYOUTS[:3]
    ]
    found += [Sample((a,), attrs) for a in (of(), of(1), of(37))] + [
        Sample((of(3, 0),), {"axis": 0} | attrs),
        Sample((of(3, 1, 2),), {"axis": 1} | attrs),
    ]
    found += [Sample((whole(2, 3, dtype=d),), {"axis": -1} | attrs) for d in ints]
    found += [
        Sample((np.full(s, 1.0, d),), {"axis": 0} | attrs, smooth=False) for d, s in ((bf16, (1000,)), (f16, (5000, 2)))
    ]  # narrow sums stall
    rows = np.array(
        [[1, math.nan, 3], [1, math.inf, 2], [-math.inf, 1, 2], [0, -0.0, 0], [-math.inf, -math.inf, -math.inf]], f32
    )
    found += [Sample((rows,), {"axis": -1} | attrs, smooth=False)]
    return found + ([Sample((of(0, 3),), {"axis": 0} | attrs), Sample((of(2, 0),), attrs)] if empty else [])


def rows(dtypes: Sequence[Any] = FLOATS, **attrs: Any) -> list[Sample]:
    """Calls of a function along one axis, such as softmax."""
    found = [Sample((some(2, 3, 4),), {"axis": axis} | attrs) for axis in (0, 1, -1)] + [
        Sample((some(3, 5, dtype=d),), attrs) for d in dtypes
    ]
    found += [Sample((view(some(3, 4)),), attrs) for view in LAYOUTS[:3]] + [
        Sample((some(1),), attrs),
        Sample((some(0, 3),), attrs),
        Sample((some(3, 1),), attrs),
    ]
    table = np.array(
        [[1000.0, 0.0, -1000.0], [3e38, 3e38, 1], [-math.inf, 0, 1], [math.nan, 0, 1], [1e-40, 0, -0.0]], f32
    )
    return [*found, Sample((table,), attrs, smooth=False)]


def along(numbers: Any, ndim: int, axis: int | None) -> Any:
    """Numbers as they vary along `axis` of something with so many axes."""
    shape = [-1 if axis is not None and a == axis % ndim else 1 for a in range(ndim)]
    return np.reshape(numbers, shape) if np.ndim(numbers) else numbers


def quantize_loop(x: Array, scale: Any, zero: Any = 0, dtype: Any = "u8", axis: int | None = None) -> Array:
    """quantize, rounding by hand."""
    wide = f64 if x.dtype == f64 else f32
    y = x.astype(wide) * (wide(1) / along(scale, x.ndim, axis)).astype(wide)
    places = np.rint(y) + along(zero, x.ndim, axis)
    kind = {"u8": u8, "i8": i8, "i16": i16}[dtype]
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    return np.minimum(np.maximum(places, least), most).astype(kind)


# -- the same again in plain NumPy -------------------------------------------------------------------------------------


def put_along_loop(x: Array, indices: Array, updates: Array, axis: int = -1) -> Array:
    """put_along, one element at a time."""
    out = x.copy()
    where = np.broadcast_to(indices, updates.shape)
    for place in np.ndindex(*updates.shape):
        target = list(place)
        target[axis] = where[place]
        out[tuple(target)] += updates[place]
    return out


def scatter_loop(x: Array, indices: Array, updates: Array, axis: int = 0) -> Array:
    """scatter_add, one part at a time."""
    out = np.moveaxis(x.copy(), axis, 0)
    parts = updates.reshape(updates.shape[:axis] + (indices.size,) + updates.shape[axis + indices.ndim :])
    for number, position in enumerate(indices.ravel()):
        out[position] += np.take(parts, number, axis)
    return np.moveaxis(out, 0, axis)


def pad_loop(
    x: Array, low: Sequence[int], high: Sequence[int], interior: Sequence[int] | None = None, value: float = 0.0
) -> Array:
    """pad, one element at a time."""
    gaps = interior or (0,) * x.ndim
    shape = [a + b + (n and n + (n - 1) * g) for n, a, b, g in zip(x.shape, low, high, gaps)]
    out = np.full(shape, value, x.dtype)
    for place in np.ndindex(*x.shape):
        out[tuple(a + p * (g + 1) for p, a, g in zip(place, low, gaps))] = x[place]
    return out


def windows_loop(
    x: Array, axes: Sequence[int], size: Sequence[int], step: Sequence[int], dilation: Sequence[int]
) -> Array:
    """windows, by NumPy's sliding windows and slices of them."""
    reach = [(n - 1) * d + 1 for n, d in zip(size, dilation)]
    every = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    steps = dict(zip((a % x.ndim for a in axes), step))
    return every[tuple(np.s_[:: steps.get(a, 1)] for a in range(x.ndim)) + tuple(np.s_[::d] for d in dilation)]


def fold_loop(x: Array, shape: Sequence[int], **attrs: Any) -> Array:
    """fold, by adding each element where its window came from."""
    places = windows_loop(np.arange(math.prod(shape)).reshape(shape), **attrs)
    out = np.zeros(math.prod(shape), x.dtype)
    for place, number in zip(places.ravel(), x.ravel()):
        out[place] += number
    return out.reshape(shape)


def slice_loop(x: Array, start: Sequence[int], size: Sequence[int], step: Sequence[int] | None = None) -> Array:
    """slice, by lists of positions."""
    for axis, (a, n, s) in enumerate(zip(start, size, step or (1,) * x.ndim)):
        x = np.take(x, [a + i * s for i in range(n)], axis)
    return x


def splitmix(key: int, count: int) -> list[int]:
    """The 64-bit numbers of SplitMix64, in Python integers."""
    found, mask = [], 2**64 - 1
    for i in range(1, count + 1):
        z = (int(key) + i * 0x9E3779B97F4A7C15) & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        found.append(z ^ (z >> 31))
    return found


def uniform(key: Array, shape: Sequence[int], dtype: str = "f32") -> Array:
    """random_uniform in Python integers."""
    bits = 24 if dtype == "f32" else 53
    return np.array([(z >> (64 - bits)) / 2**bits for z in splitmix(int(key), math.prod(shape))], f64).reshape(shape)


def normal(key: Array, shape: Sequence[int], dtype: str = "f32") -> Array:
    """random_normal by Box and Muller."""
    u, v = uniform(key, shape, dtype), uniform(np.int64(key) ^ np.int64(0x5851F42D4C957F2D), shape, dtype)
    return np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)


def drop(x: Array, key: Array, p: float = 0.5) -> Array:
    """dropout by the uniform numbers of its key."""
    return np.where(uniform(key, x.shape) >= p, x / (1 - p) if p < 1 else 0.0, 0.0)


def float_of(x: Any) -> Any:
    """A torch tensor as floating point, as NumPy would divide it."""
    return x if x.is_floating_point() else x.double()


def every_axis(x: Any) -> tuple[int, ...]:
    """The axes that torch wants in place of None."""
    return tuple(range(x.ndim))


def over(function: Callable[..., Any]) -> Callable[..., Any]:
    """A torch reduction that takes one axis or none, made to take several."""

    def reduce(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
        for a in sorted({a % x.ndim for a in axes}, reverse=True):
            x = function(x, a, keepdims)
        return x

    return reduce


def torch_attention(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False, scale: float | None = None) -> Any:
    """PyTorch's own attention; causal masks are aligned at the last query and the last key."""
    n, m = q.shape[-2], k.shape[-2]
    if causal:
        triangle = torch.ones(n, m, dtype=torch.bool).tril(m - n)
        mask = (
            triangle
            if mask is None
            else mask & triangle
            if mask.dtype == torch.bool
            else mask.masked_fill(~triangle, -math.inf)
        )
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)


def torch_attention_weights(q: Any, k: Any, *mask: Any, **attrs: Any) -> Any:
    """PyTorch's attention over values that are the identity."""
    return torch_attention(q, k, torch.eye(k.shape[-2], dtype=k.dtype).expand(*k.shape[:-1], -1), *mask, **attrs)


def torch_norm(x: Any, *affine: Any, axis: Any = -1, eps: float = 1e-5) -> Any:
    """Layer norm by torch's mean and variance (its layer_norm takes only last axes)."""
    y = (x - x.mean(axis, True)) / (x.var(axis, correction=0, keepdim=True) + eps).sqrt()
    return y * affine[0] + (affine[1] if len(affine) > 1 else 0.0) if affine else y


def torch_rms(x: Any, *affine: Any, axis: Any = -1, eps: float = 1e-5) -> Any:
    """RMS norm by torch's mean."""
    y = x / ((x * x).mean(axis, True) + eps).sqrt()
    return y * affine[0] if affine else y


def torch_batch_norm(x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """PyTorch's own; it gives the statistics no gradients, so those come from the formula."""
    if not mean.requires_grad:
        return torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
    return ((x.movedim(1, -1) - mean) / (var + eps).sqrt() * weight + bias).movedim(-1, 1)


def torch_cross_entropy(logits: Any, labels: Any) -> Any:
    """PyTorch's own, on rows."""
    flat = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1).long(), reduction="none"
    )
    return flat.reshape(labels.shape)


def torch_conv(x: Any, weight: Any, **attrs: Any) -> Any:
    """PyTorch's own."""
    return torch.nn.functional.conv2d(x, weight, None, **attrs)


def pooled(function: str) -> Callable[..., Any]:
    """PyTorch's own pooling."""
    return lambda x, size, stride=None, padding=0: getattr(torch.nn.functional, function)(x, size, stride, padding)


def pooled_loop(fold: Callable[..., Any], nothing: float) -> Callable[..., Array]:
    """Pooling of (batch, height, width, channels), one window at a time."""

    def pool(x: Array, size: Any, stride: Any = None, low: Any = 0, high: Any = 0, dilation: Any = 1) -> Array:
        wide = padded(x, low, high, nothing)
        places = window_places(wide.shape, size, stride, dilation)
        with np.errstate(invalid="ignore"):
            found = [[fold(wide[:, rows][:, :, columns], (1, 2)) for columns in places[1]] for rows in places[0]]
        return np.array(found).reshape(len(places[0]), len(places[1]), *x.shape[::3]).transpose(2, 0, 1, 3)

    return pool


def window_places(shape: Sequence[int], size: Any, stride: Any, dilation: Any) -> list[list[Array]]:
    """The rows of each window along the height, and its columns along the width."""
    size, stride, dilation = (np.broadcast_to(n, 2) for n in (size, size if stride is None else stride, dilation))
    return [
        [np.arange(at, at + d * k, d) for at in range(0, extent - d * (k - 1), s)]
        for extent, k, s, d in zip(shape[1:3], size, stride, dilation)
    ]


def padded(x: Array, low: Any, high: Any, value: float) -> Array:
    """x with more rows and columns."""
    (top, left), (bottom, right) = np.broadcast_to(low, 2), np.broadcast_to(high, 2)
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def unpooled(x: Array, g: Array, share: Callable[..., Array], low: Any = 0, high: Any = 0, **at: Any) -> Array:
    """The gradient of pooling: `share(g, window)` of each window, added up."""
    shape = x.shape
    wide, total = padded(x, low, high, -np.inf), padded(np.zeros(shape, g.dtype), low, high, 0)
    places = window_places(wide.shape, at["size"], at.get("stride"), at.get("dilation", 1))
    for i, rows in enumerate(places[0]):
        for j, columns in enumerate(places[1]):
            spot = (slice(None), rows[:, None], columns[None, :])
            total[spot] += share(g[:, i, j][:, None, None], wide[spot])
    (top, left) = np.broadcast_to(low, 2)
    return total[:, top : top + shape[1], left : left + shape[2]]


def max_unpooled(g: Array, x: Array, out: Array, **attrs: Any) -> Array:
    """g of each window at the first of its greatest elements."""

    def share(part: Array, window: Array) -> Array:
        flat = window.reshape(len(window), math.prod(window.shape[1:3]), window.shape[3])
        first = np.arange(flat.shape[1])[:, None] == flat.argmax(1)[:, None]
        return np.where(first.reshape(window.shape), part, 0)

    return unpooled(x, g, share, **attrs)


def sum_unpooled(g: Array, extent: Any, **attrs: Any) -> Array:
    """g repeated over each window."""
    x = np.zeros((len(g), *np.broadcast_to(extent, 2), g.shape[3]))
    return unpooled(x, g, lambda part, window: part, **attrs)


# -- longer lists of calls ---------------------------------------------------------------------------------------------


def matrices() -> list[Sample]:
    """Calls of matmul."""
    shapes = [
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 1)),
        ((2, 1, 2, 3), (3, 3, 4)),
        ((1, 1), (1, 1)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
        ((7, 33), (33, 5)),
        ((0, 2, 3), (3, 4)),
    ]
    found = [Sample((some(*a), some(*b, seed=1))) for a, b in shapes]
    found += [Sample((some(2, 3, dtype=d), some(3, 4, dtype=d, seed=1))) for d in FLOATS]
    found += [Sample((whole(2, 3, dtype=d), whole(3, 4, dtype=d, seed=1))) for d in (i32, u8)] + [
        Sample((some(2, 3), some(3, 4, dtype=f64)))
    ]
    found += [
        Sample((view(some(4, 3)), other(some(3, 4, seed=1)))) for view, other in zip(LAYOUTS, LAYOUTS[1:] + LAYOUTS[:1])
    ]
    found += [
        Sample(
            (some(*((3, 2) if a else (2, 3))), some(*((4, 3) if b else (3, 4)), seed=1)),
            {"transpose_x": a, "transpose_y": b},
        )
        for a, b in product((False, True), repeat=2)
    ]
    return [
        *found,
        Sample((some(2, 3, 2), some(4, 3, seed=1)), {"transpose_x": True, "transpose_y": True}),
        Sample(
            (np.array([[math.inf, 1.0], [math.nan, 0.0]], f32), np.array([[1.0, 0.0], [2.0, -math.inf]], f32)),
            smooth=False,
        ),
    ]


def convolutions() -> list[Sample]:
    """Calls of conv2d."""

    def call(x: tuple[int, ...], w: tuple[int, ...], dtype: Any = f32, **attrs: Any) -> Sample:
        return Sample((some(*x, dtype=dtype), some(*w, dtype=dtype, seed=1)), attrs)

    return [
        call((2, 3, 5, 6), (4, 3, 3, 2)),
        call((1, 2, 6, 5), (3, 2, 3, 3), stride=2, padding=1),
        call((1, 4, 5, 5), (6, 2, 2, 2), groups=2),
        call((2, 3, 4, 4), (3, 1, 3, 3), groups=3, padding=(1, 0)),
        call((1, 1, 7, 8), (2, 1, 2, 3), dilation=(2, 3), stride=(2, 1)),
        call((2, 3, 4, 4), (5, 3, 1, 1)),
        call((1, 2, 3, 3), (2, 2, 3, 3)),
        call((0, 2, 4, 4), (3, 2, 2, 2)),
        call((1, 2, 5, 4), (2, 2, 2, 2), f64),
        Sample((turned(some(2, 2, 5, 4)), spaced(some(3, 2, 2, 2, seed=1)))),
        Sample((backward(some(1, 2, 4, 4)), turned(some(3, 2, 2, 2, seed=1)))),
    ]


def channels_last_convolutions() -> list[Sample]:
    """Calls of convolve: strided, padded and cut, dilated, spread, in groups."""

    def call(x: tuple[int, ...], w: tuple[int, ...], dtype: Any = f32, **attrs: Any) -> Sample:
        return Sample((some(*x, dtype=dtype), some(*w, dtype=dtype, seed=1)), attrs)

    return [
        call((2, 5, 6, 3), (3, 2, 3, 4)),
        call((3, 4, 4, 2), (3, 3, 2, 5), low=1, high=1),
        call((1, 6, 5, 2), (3, 3, 2, 3), stride=2, low=(1, 0), high=(0, 1)),
        call((1, 5, 5, 4), (2, 2, 2, 6), groups=2),
        call((2, 4, 4, 3), (3, 3, 1, 3), groups=3, low=1, high=(1, 0)),
        call((1, 7, 8, 1), (2, 3, 1, 2), dilation=(2, 3), stride=(2, 1)),
        call((2, 3, 4, 2), (3, 2, 2, 3), spread=2, low=2, high=(2, 1)),
        call((1, 3, 2, 4), (3, 3, 2, 4), spread=(3, 1), low=(0, 2), high=1, groups=2, dilation=(2, 1)),
        call((2, 6, 5, 2), (2, 2, 2, 3), low=-1, high=(0, -2)),
        call((1, 4, 3, 2), (2, 2, 2, 2), stride=2, spread=3, low=1, high=1),
        call((2, 4, 4, 3), (1, 1, 3, 5)),
        call((2, 4, 5, 3), (1, 1, 3, 5), stride=2),
        call((0, 4, 4, 2), (2, 2, 2, 3)),
        call((1, 5, 4, 2), (2, 2, 2, 2), f64, low=1, high=1),
        Sample((turned(some(2, 5, 4, 2)), spaced(some(2, 2, 2, 3, seed=1)))),
    ]


def products_of_windows() -> list[Sample]:
    """Calls of window_products."""

    def call(x: tuple[int, ...], g: tuple[int, ...], dtype: Any = f32, **attrs: Any) -> Sample:
        return Sample((some(*x, dtype=dtype), some(*g, dtype=dtype, seed=1)), attrs)

    return [
        call((2, 5, 6, 3), (2, 3, 5, 4), size=(3, 2)),
        call((4, 4, 4, 2), (4, 4, 4, 5), size=3, low=1, parts=2),
        call((1, 6, 5, 2), (1, 3, 3, 3), size=3, stride=2, low=1),
        call((2, 5, 5, 4), (2, 4, 4, 6), size=2, groups=2),
        call((1, 7, 8, 1), (1, 3, 2, 2), size=(2, 3), dilation=(2, 3), stride=(2, 1)),
        call((2, 3, 2, 2), (2, 6, 5, 3), size=2, spread=2, low=1),
        call((2, 4, 4, 3), (2, 4, 4, 20), size=1),
        call((1, 5, 4, 2), (1, 4, 3, 2), f64, size=2),
        Sample((turned(some(2, 5, 4, 2)), spaced(some(2, 4, 3, 3, seed=1))), {"size": 2}),
    ]


PACKED = {"bits": 4, "group": 8, "outputs": 2}


def packed(bits: int, outputs: int, depth_: int, group: int, x: Array, offset: bool = False, smooth: bool = True,
           **attrs: Any) -> Sample:
    """A call with such a weight."""
    half, groups = 1 << (bits - 1), -(-depth_ // group)
    values = whole(outputs, depth_, dtype=i8, low=-half, high=half)
    numbers = [some(outputs, groups, low=-0.5, high=0.5, seed=n) for n in range(1 + offset)]
    return Sample((x, pack(values, bits), *map(pack_groups, numbers)),
                  {"bits": bits, "group": group, "outputs": outputs, **attrs}, smooth)


def unpacked_loop(q: Array, scale: Array, *offset: Array, bits: int, group: int, outputs: int, depth: int) -> Array:
    """The weight, element by element, out of the bits of its words."""
    words = np.ascontiguousarray(q).view(np.uint32)[..., 0]
    weight = np.zeros((outputs, depth))
    for n, k in product(range(outputs), range(depth)):
        block, lane, g = n // 32, n % 32, k // group
        element = int(words[block, k * bits // 32, lane]) >> k * bits % 32 & (1 << bits) - 1
        element -= (element >> bits - 1) << bits
        weight[n, k] = element * float(scale[block, g, lane]) + sum(float(o[block, g, lane]) for o in offset)
    return weight


def packed_linear_loop(x: Array, *weight: Array, **attrs: Any) -> Array:
    """x Wᵀ in float64."""
    with np.errstate(all="ignore"):
        return (x.astype(f64) @ unpacked_loop(*weight, **attrs, depth=x.shape[-1]).T).astype(x.dtype)


def packed_rows_loop(indices: Array, *weight: Array, **attrs: Any) -> Array:
    """Rows of the weight."""
    return unpacked_loop(*weight, **attrs)[indices].astype(f32)


def sparse(outputs: int, depth: int, run: int, x: Array, *, skipped: float = 0.5, smooth: bool = True) -> Sample:
    """A call with a weight of which runs are missing, differently in each panel of 32 outputs."""
    weight = some(outputs, depth)
    for panel in range(0, outputs, 32):
        weight[panel:panel + 32] *= (np.random.default_rng(panel).random(depth // run) >= skipped).repeat(run)
    blocks, places, starts = pack_sparse(weight, run)
    return Sample((x, blocks.astype(x.dtype), places, starts), {"outputs": outputs}, smooth)


def sparse_linear_loop(x: Array, blocks: Array, places: Array, starts: Array, *, outputs: int) -> Array:
    """x Wᵀ, output by output, in float64."""
    out, run = np.zeros((*x.shape[:-1], outputs)), np.arange(blocks.shape[1])
    with np.errstate(all="ignore"):
        for j in range(outputs):
            for u in range(starts[j // 32], starts[j // 32 + 1]):
                out[..., j] += x[..., places[u] + run].astype(f64) @ blocks[u, :, j % 32].astype(f64)
    return out.astype(x.dtype)


def filtered_tiles() -> list[Sample]:
    """Calls of filter_tiles: even and odd extents, padded unevenly; whole vectors of channels, for the kernel."""

    def call(x: tuple[int, ...], w: tuple[int, ...], dtype: Any = f32, **attrs: Any) -> Sample:
        return Sample((some(*x, dtype=dtype), some(*w, dtype=dtype, seed=1)), attrs)

    return [
        call((2, 4, 6, 2), (16, 2, 3)),
        call((1, 5, 4, 3), (16, 3, 2), low=1, high=(0, 1)),
        call((2, 5, 6, 16), (16, 16, 32), f64, low=1, high=1),
        call((1, 4, 4, 16), (16, 16, 16), f64, low=(1, 0)),
        Sample((turned(some(2, 5, 4, 2)), spaced(some(16, 2, 3, seed=1)))),
    ]


def bytes_and_pairs(*shape: int, each: int, seed: int = 0) -> Array:
    """Operands of contractions of quads, to both ends of their range (u8, or i8 for a weight), or of pairs (bf16)."""
    if each == 2:
        return some(*shape, dtype=bf16, seed=seed)
    low, high, dtype = (-128, 128, i8) if seed else (0, 256, u8)
    return whole(*shape, dtype=dtype, low=low, high=high, seed=seed)


def grouped_matrices(each: int) -> list[Sample]:
    """Calls of quad_matmul (each 4) or pair_matmul (2): stacks, depths that are no multiple, none."""

    def call(x: tuple[int, ...], columns: int) -> Sample:
        groups = -(-x[-1] // each)
        return Sample((bytes_and_pairs(*x, each=each), bytes_and_pairs(groups, columns, each, each=each, seed=1)))

    x, w = call((6, 8), 5).args
    return [call((3, 8), 5), call((2, 3, 7), 4), call((1, 520), 3), call((2, 4), 33), call((0, 4), 2), call((2, 0), 3),
            Sample((turned(x[:, :4]), spaced(w[: 4 // each]))), Sample((backward(x), w))]


def grouped_images(each: int) -> list[Sample]:
    """Calls of quad_convolve (each 4) or pair_convolve (2): padded with `fill` and cut, strided, dilated, in groups,
    with rows of the kernel that are no multiple."""

    def call(x: tuple[int, ...], size: tuple[int, int], out: int, **attrs: Any) -> Sample:
        depth = size[1] * x[3] // attrs.get("groups", 1)
        lines = bytes_and_pairs(size[0], -(-depth // each), out, each, each=each, seed=1)
        lines[:, -1, :, depth % each or each :] = 0
        weight = lines.reshape(-1, out, each)
        return Sample((bytes_and_pairs(*x, each=each), weight), {"size": size} | attrs)

    x, w = call((2, 4, 5, 4), (2, 2), 3).args
    return [
        call((2, 4, 5, 4), (3, 3), 6, low=1, high=1, fill=7),
        call((1, 5, 6, 8), (2, 3), 5, stride=2, low=(1, 0), high=(0, 1), fill=3),
        call((2, 5, 4, 3), (3, 3), 4, low=1, high=1, fill=9),
        call((1, 6, 7, 1), (3, 2), 17, stride=(1, 2), low=(0, 1)),
        call((1, 5, 6, 3), (2, 2), 3, low=-1, high=(0, -2)),
        call((1, 5, 5, 8), (2, 2), 6, groups=2, dilation=(1, 2), fill=1),
        call((1, 4, 4, 3), (3, 3), 3, groups=3, low=1, high=(1, 0)),
        call((2, 3, 4, 4), (1, 1), 5),
        call((0, 4, 4, 4), (2, 2), 3),
        Sample((turned(x), spaced(w)), {"size": (2, 2)}),
    ]


def torch_filtered(x: Any, weight: Any, low: Any = 0, high: Any = 0) -> Any:
    """The formula of Lavin and Gray, tile by tile."""
    (a, b), (c, d) = (n if isinstance(n, tuple) else (n, n) for n in (low, high))
    images = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (b, d, a, c))
    height, width = images.shape[2] - 2, images.shape[3] - 2
    images = torch.nn.functional.pad(images, (0, width % 2, 0, height % 2))
    tiles = images.unfold(2, 4, 2).unfold(3, 4, 2)  # (batch, channels, tall, wide, 4, 4)
    left = x.new_tensor([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    right = x.new_tensor([[1, 1, 1, 0], [0, 1, -1, -1]])
    spread = left @ tiles @ left.T
    products = torch.einsum("nctwij,ijco->notwij", spread, weight.reshape(4, 4, *weight.shape[1:]))
    y = (right @ products @ right.T).permute(0, 2, 4, 3, 5, 1)  # (batch, tall, 2, wide, 2, out)
    return y.reshape(y.shape[0], 2 * y.shape[1], 2 * y.shape[3], y.shape[5])[:, :height, :width]


def torch_channels_last(x: Any, weight: Any, stride: Any = 1, low: Any = 0, high: Any = 0, dilation: Any = 1,
                        spread: Any = 1, groups: int = 1) -> Any:
    """PyTorch's convolution of what is spread, padded and cut before."""
    (a, b), (c, d), (s, t) = (n if isinstance(n, tuple) else (n, n) for n in (low, high, spread))
    apart = x.new_zeros(x.shape[0], max((x.shape[1] - 1) * s + 1, 0), max((x.shape[2] - 1) * t + 1, 0), x.shape[3])
    apart[:, ::s, ::t] = x
    images = torch.nn.functional.pad(apart.permute(0, 3, 1, 2), (b, d, a, c))
    y = torch.nn.functional.conv2d(images, weight.permute(3, 2, 0, 1), None, stride, 0, dilation, groups)
    return y.permute(0, 2, 3, 1)


def torch_products(x: Any, g: Any, size: Any, stride: Any = 1, low: Any = 0, dilation: Any = 1, spread: Any = 1,
                   groups: int = 1, parts: int = 1) -> Any:
    """The gradient of PyTorch's convolution by a weight of ones, part by part."""
    size, stride, low, dilation, spread = (n if isinstance(n, tuple) else (n, n)
                                           for n in (size, stride, low, dilation, spread))
    high = tuple((p - 1) * s + (k - 1) * d - (m - 1) * t - n for m, t, p, s, k, d, n in zip(
        x.shape[1:3], spread, g.shape[1:3], stride, size, dilation, low))
    found = []
    with torch.enable_grad():
        for images, grads in zip(x.chunk(parts), g.chunk(parts)):
            weight = x.new_ones(*size, x.shape[3] // groups, g.shape[3]).requires_grad_()
            y = torch_channels_last(images, weight, stride, low, high, dilation, spread, groups)
            found.append(torch.autograd.grad(y, weight, grads, create_graph=True)[0])
    return torch.stack(found)


def attentions() -> list[Sample]:
    """Calls of attention."""

    def qkv(n: int, m: int, lead: tuple[int, ...] = (2,), dtype: Any = f32) -> tuple[Array, Array, Array]:
        return (
            some(*lead, n, 4, dtype=dtype),
            some(*lead, m, 4, dtype=dtype, seed=1),
            some(*lead, m, 3, dtype=dtype, seed=2),
        )

    seen = np.array([[True, False, True, True], [False, True, False, False], [True, True, True, True]])
    return [
        Sample(qkv(3, 4)),
        Sample(qkv(3, 3, (2, 2)), {"causal": True}),
        Sample(qkv(2, 4), {"causal": True}),
        Sample(qkv(3, 4, dtype=f64), {"scale": 0.3}),
        Sample((*qkv(3, 4), seen)),
        Sample((*qkv(3, 4), some(2, 3, 4, seed=3))),
        Sample(qkv(1, 1, ())),
        Sample((*qkv(4, 4), flags(2, 1, 4) | np.eye(4, dtype=bool)), {"causal": True}),
        Sample((*qkv(2, 3), np.zeros((2, 3), bool)), torch=False),
        Sample(tuple(map(turned, qkv(3, 4)))),
        Sample(qkv(4, 2), {"causal": True}, torch=False),
        Sample(qkv(2, 0), torch=False),
    ]


def attends() -> list[Sample]:
    """Calls of attend: time before heads, groups, every kind of mask."""

    def qkv(n: int, m: int, heads: int = 2, key_heads: int = 2, d: int = 4, dtype: Any = f32) -> tuple[Array, ...]:
        return (
            some(2, n, heads, d, dtype=dtype),
            some(2, m, key_heads, d, dtype=dtype, seed=1),
            some(2, m, key_heads, 3 * d // 4, dtype=dtype, seed=2),
        )

    seen = flags(2, 1, 3, 4) | np.eye(3, 4, dtype=bool)
    return [
        Sample(qkv(3, 4)),
        Sample(qkv(2, 4, 4, 2), {"causal": True}),
        Sample(qkv(3, 2, 3, 1), {"causal": True, "scale": 0.3}),
        Sample((*qkv(3, 4, 4, 2), seen)),
        Sample((*qkv(3, 4), some(1, 2, 3, 4, seed=3))),
        Sample((*qkv(2, 3), np.zeros((1, 1, 2, 3), bool))),
        Sample(qkv(3, 4, dtype=f64)),
        Sample((turned(some(1, 3, 2, 16)), spaced(some(1, 4, 1, 16, seed=1)), turned(some(1, 4, 1, 16, seed=2))),
               smooth=False),
        Sample((*qkv(3, 3, d=64)[:2], some(2, 3, 2, 16, seed=2)), {"causal": True}, smooth=False),
        Sample(qkv(0, 3)),
        Sample(qkv(2, 0)),
    ]


def attend_grads() -> list[Sample]:
    """The same calls, of the gradient; its first operands are what they are by definition."""

    def call(sample: Sample) -> Sample:
        q, _, v = sample.args[:3]
        g = some(*q.shape[:3], v.shape[3], dtype=q.dtype, seed=4)
        with np.errstate(all="ignore"):
            out, lse = ops.attend(*sample.args, **sample.attrs)
        given = (g, (g * out.payload).sum(-1), lse.payload, *sample.args)
        return replace(sample, args=given)

    return [call(sample) for sample in attends()]


def attend_in_numpy(q: Array, k: Array, v: Array, mask: Any = None, causal: bool = False,
                    scale: float | None = None) -> tuple[Array, Array]:
    """Attention and log Σ exp in f64, a head at a time."""
    (batch, n, heads, d), (m, key_heads) = q.shape, k.shape[1:3]
    out, lse = np.zeros((batch, n, heads, v.shape[3])), np.zeros((batch, n, heads))
    for b, h in product(range(batch), range(heads)):
        kh = h * key_heads // heads
        scores = q[b, :, h].astype(f64) @ k[b, :, kh].T * (d ** -0.5 if scale is None else scale)
        if mask is not None:
            own = np.broadcast_to(mask, (batch, heads, n, m))[b, h]
            scores = np.where(own, scores, -np.inf) if own.dtype == bool else scores + own
        if causal:
            scores = np.where(np.tri(n, m, m - n, dtype=bool), scores, -np.inf)
        for i in np.flatnonzero((scores > -np.inf).any(1)):
            lse[b, i, h] = np.logaddexp.reduce(scores[i])
            out[b, i, h] = np.exp(scores[i] - lse[b, i, h]) @ v[b, :, kh]
    return out, lse


def attend_grad_in_numpy(g: Array, delta: Array, lse: Array, q: Array, k: Array, v: Array, mask: Any = None,
                         causal: bool = False, scale: float | None = None) -> tuple[Array, ...]:
    """The chain rule in f64, an entry of the score matrices at a time."""
    (batch, n, heads, d), (m, key_heads) = q.shape, k.shape[1:3]
    factor = d ** -0.5 if scale is None else scale
    dq, dk, dv = (np.zeros(t.shape) for t in (q, k, v))
    seen = np.ones((batch, heads, n, m), bool) if mask is None else np.broadcast_to(mask, (batch, heads, n, m))
    for b, h, i, j in product(range(batch), range(heads), range(n), range(m)):
        if (causal and j > i + m - n) or (seen.dtype == bool and not seen[b, h, i, j]):
            continue
        kh = h * key_heads // heads
        added = 0.0 if seen.dtype == bool else float(seen[b, h, i, j])
        p = np.exp(float(q[b, i, h].astype(f64) @ k[b, j, kh]) * factor + added - lse[b, i, h])
        slope = p * (float(g[b, i, h].astype(f64) @ v[b, j, kh]) - delta[b, i, h]) * factor
        dq[b, i, h] += slope * k[b, j, kh]
        dk[b, j, kh] += slope * q[b, i, h]
        dv[b, j, kh] += p * g[b, i, h]
    return dq, dk, dv


def write_rows_loop(cache: Array, rows: Array, positions: Array) -> Array:
    """write_rows, one row at a time."""
    out = cache.copy()
    for b, i in np.ndindex(*rows.shape[:2]):
        out[b, int(positions[b]) + i] = rows[b, i]
    return out


def attend_cacheds() -> list[Sample]:
    """Calls of attend_cached: few queries and more, groups, windows, caches that store less."""

    def call(n: int, capacity: int, at: Any, heads: int = 2, key_heads: int = 2, d: int = 4, dtype: Any = f32,
             **attrs: Any) -> Sample:
        k, v = (some(2, capacity, key_heads, e, dtype=dtype, seed=s) for e, s in ((d, 1), (d + 4, 2)))
        return Sample((some(2, n, heads, d, dtype=dtype), k, v, np.array(at)), attrs)

    bytes_, scales = (whole(2, 6, 1, 4, dtype=i8, low=-9, high=9, seed=s) for s in (1, 2)), some(2, 6, 1, low=0.1)
    stored = (some(2, 5, 1, 4, dtype=f16, seed=s) for s in (1, 2))
    return [
        call(1, 5, [2, 4]),
        call(3, 7, [0, 4], 4, 2, scale=0.3),
        call(2, 9, [6, 0], window=3),
        call(1, 6, [5, 0], d=3),
        call(2, 5, [1, 3], dtype=f64),
        call(17, 20, [0, 3], 1, 1),
        call(0, 4, [1, 1]),
        Sample((some(2, 2, 3, 4), *bytes_, np.array([1, 4]), scales, scales), smooth=False),
        Sample((some(2, 1, 2, 4), *stored, np.array([4, 0])), smooth=False),
    ]


def attend_cached_loop(q: Array, k: Array, v: Array, positions: Array, *scales: Array, scale: float | None = None,
                       window: int | None = None) -> Array:
    """attend_cached in f64, a query at a time."""
    k, v = (t.astype(f64) * (s[..., None] if len(scales) else 1) for t, s in zip((k, v), scales or (0, 0)))
    out = np.zeros((*q.shape[:3], v.shape[3]))
    for b, i, h in np.ndindex(*q.shape[:3]):
        own, kh = int(positions[b]) + i, h * k.shape[2] // q.shape[2]
        seen = np.s_[max(0, own + 1 - (window or own + 1)):own + 1]
        e = np.exp(k[b, seen, kh] @ q[b, i, h] * (q.shape[3] ** -0.5 if scale is None else scale))
        out[b, i, h] = e / e.sum() @ v[b, seen, kh]
    return out


def attentions_without_values() -> list[Sample]:
    """The same calls, of attention_weights."""
    return [replace(sample, args=(*sample.args[:2], *sample.args[3:])) for sample in attentions()]


def pools() -> list[Sample]:
    """Calls of the pooling ops."""
    return [
        Sample((some(2, 3, 6, 4),), {"size": 2}),
        Sample((some(1, 2, 7, 5),), {"size": 3, "stride": 2, "padding": 1}),
        Sample((some(1, 1, 4, 6),), {"size": (2, 3)}),
        Sample((some(1, 2, 5, 5, dtype=f64),), {"size": (3, 2), "stride": (1, 2)}),
        Sample((turned(some(2, 2, 4, 4)),), {"size": 2}),
        Sample((spaced(some(1, 2, 4, 4)),), {"size": 2, "stride": 1}),
        Sample((some(0, 2, 4, 4),), {"size": 2}),
        Sample((some(1, 1, 3, 3),), {"size": 1}),
    ]


LAST_POOLS: list[tuple[tuple[int, ...], dict[str, Any]]] = [  # of (batch, height, width, channels)
    ((2, 4, 6, 3), {"size": 2}),
    ((2, 5, 7, 2), {"size": 3, "stride": 2, "low": 1, "high": 1}),
    ((1, 4, 5, 2), {"size": (3, 2), "stride": (1, 3), "low": (1, 0), "high": (2, 1)}),
    ((1, 7, 6, 1), {"size": (2, 3), "stride": 1, "dilation": (3, 2)}),
    ((1, 8, 7, 1), {"size": (8, 5), "stride": (1, 2), "low": (2, 1)}),
    ((1, 40, 2, 1), {"size": (34, 1), "stride": (3, 1)}),
    ((0, 4, 4, 2), {"size": 2}),
    ((2, 4, 4, 0), {"size": 2}),
]


def last_pools() -> list[Sample]:
    """Calls of pooling, channels last."""
    found = [Sample((some(*shape),), attrs) for shape, attrs in LAST_POOLS]
    found += [Sample((some(1, 4, 4, 2, dtype=d),), {"size": 2}) for d in FLOATS]
    found += [Sample((view(some(3, 4, 4, 5)),), {"size": (2, 3), "stride": 1}) for view in LAYOUTS]
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -np.inf, 1.0, -0.0, 2.0], f32).reshape(1, 2, 4, 1)
    return [*found, Sample((special,), {"size": 2, "stride": 1}, smooth=False)]


def last_unpools(loop: Callable[..., Array]) -> list[Sample]:
    """The same calls with a gradient of each result before the operand, and the result after it."""
    found = []
    for sample in last_pools():
        [x] = sample.args
        out = loop(x, **sample.attrs).astype(x.dtype)
        found.append(replace(sample, args=(some(*out.shape, seed=3).astype(x.dtype), x, out)))
    return found


def norms(*more: int) -> list[Sample]:
    """Calls of a norm with 0, 1, … operands of its last axis."""

    def affine(*shape: int) -> list[tuple[Array, ...]]:
        return [tuple(some(*shape, low=0.5, high=1.5, seed=s) for s in range(1, n + 1)) for n in more]

    found = [Sample((some(3, 5), *rest)) for rest in affine(5)] + [
        Sample((some(2, 3, 4), *rest), {"axis": (1, 2), "eps": 1e-3}) for rest in affine(3, 4)
    ]
    found += [Sample((some(3, 5, dtype=d),)) for d in FLOATS] + [
        Sample((some(4, 3),), {"axis": 0}),
        Sample((some(0, 3),)),
    ]
    return (
        found
        + [Sample((view(some(3, 4)),)) for view in LAYOUTS[:3]]
        + [Sample((np.zeros((2, 3), f32),), smooth=False), Sample((whole(2, 3),), torch=False)]
    )


def batch_norms() -> list[Sample]:
    """Calls of batch_norm."""

    def call(*shape: int, dtype: Any = f32, **attrs: Any) -> Sample:
        n = shape[1]
        return Sample(
            (
                some(*shape, dtype=dtype),
                some(n, dtype=dtype, seed=1),
                some(n, dtype=dtype, low=0.5, seed=2),
                some(n, dtype=dtype, seed=3),
                some(n, dtype=dtype, seed=4),
            ),
            attrs,
        )

    return [call(4, 3), call(2, 3, 4, 2), call(2, 3, 2, dtype=f64, eps=1e-3), call(0, 3), call(2, 1, 3)]


def takes() -> list[Sample]:
    """Calls of take."""
    x = some(4, 3)
    return [
        Sample((x, np.array([0, 3, 3, -1]))),
        Sample((x, np.array([[2, 0], [1, -3]])), {"axis": 1}),
        Sample((x, np.array(2, i32))),
        Sample((x, np.array([], i64))),
        Sample((some(2, 3, 4), np.array([[1], [0]], u8)), {"axis": -2}),
        Sample((turned(x), np.array([1, 1], i8))),
        Sample((whole(5), np.array([4, 0]))),
        Sample((some(4, 2, dtype=f64), np.array([3, 0, 1]))),
        Sample((x, spaced(np.array([0, 2, 1])))),
        Sample((flags(4), [1, 0])),
    ]


def scatters() -> list[Sample]:
    """Calls of scatter_add."""
    x = some(4, 3)
    return [
        Sample((x, np.array([0, 3, 3, -1]), some(4, 3, seed=1))),
        Sample((x, np.array([[2, 0], [2, -3]]), some(4, 2, 2, seed=1)), {"axis": 1}),
        Sample((x, np.array(2), some(3, seed=1))),
        Sample((x, np.array([], i64), some(0, 3))),
        Sample((turned(x), np.array([1, 1]), spaced(some(2, 3, seed=1)))),
        Sample((whole(4), np.array([0, 0, 2]), whole(3, seed=1))),
        Sample((some(2, 3, 4), np.array([1, 1], i32), some(2, 2, 4, seed=1)), {"axis": -2}),
    ]


def alongs() -> list[tuple[Array, Array, dict[str, Any]]]:
    """Operands of take_along and put_along."""
    return [
        (some(3, 4), np.array([[0, 3], [-1, 1], [2, 2]]), {}),
        (some(3, 4), np.array([[0, 2, 1, -3]]), {"axis": 0}),
        (some(3, 4), np.array([[1], [0], [3]], i32), {}),
        (some(2, 3, 4), np.array([[[0], [2]], [[1], [1]]]), {"axis": 1}),
        (some(5, dtype=f64), np.array([4, 4, 0]), {}),
        (turned(some(3, 4)), np.array([[3, 0]]), {"axis": -1}),
        (some(2, 3), np.zeros((2, 0), i64), {"axis": 1}),
        (whole(3, 4), np.array([[0], [1], [-1]], i8), {}),
    ]


def along_shape(x: Array, indices: Array, axis: int = -1) -> tuple[int, ...]:
    """The shape of take_along's result."""
    axis %= x.ndim
    return (*x.shape[:axis], indices.shape[axis], *x.shape[axis + 1 :])


def slices() -> list[Sample]:
    """Calls of slice."""

    def call(shape: tuple[int, ...], *attrs: tuple[int, ...], dtype: Any = f32) -> Sample:
        return Sample((some(*shape, dtype=dtype),), dict(zip(("start", "size", "step"), attrs)))

    return [
        call((5, 6), (1, 2), (3, 2)),
        call((5, 6), (0, 5), (3, 3), (2, -2)),
        call((7,), (6,), (7,), (-1,)),
        call((4, 3), (0, 0), (4, 3)),
        call((4, 3), (2, 0), (0, 3)),
        call((), (), ()),
        call((6,), (5,), (2,), (-4,), dtype=f64),
        call((5, 1), (4, 0), (1, 1), (-3, -1)),
        call((0, 2), (0, 1), (0, 1)),
        call((4,), (3,), (0,), (-1,)),
        Sample((turned(some(4, 5)),), {"start": (1, 0), "size": (2, 3), "step": (2, 2)}),
        Sample((backward(some(4, 5)),), {"start": (3, 0), "size": (2, 5), "step": (-1, 1)}),
        Sample((flags(4),), {"start": (1,), "size": (2,)}),
        call((8,), (1,), (3,), (3,)),
    ]


def pads() -> list[Sample]:
    """Calls of pad."""

    def call(shape: tuple[int, ...], low: Any, high: Any, dtype: Any = f32, **attrs: Any) -> Sample:
        return Sample((some(*shape, dtype=dtype),), {"low": low, "high": high} | attrs)

    return [
        call((2, 3), (1, 0), (0, 2)),
        call((2, 3), (0, 0), (0, 0), value=5.0),
        call((3, 2), (1, 2), (0, 1), interior=(2, 1)),
        call((0, 2), (1, 0), (2, 1)),
        call((), (), ()),
        call((3,), (0,), (0,), f64, interior=(3,), value=-1.5),
        call((1, 1), (1, 1), (1, 1), interior=(4, 4)),
        call((0,), (1,), (1,), interior=(2,)),
        Sample((turned(some(3, 4)),), {"low": (1, 1), "high": (1, 1), "value": -math.inf}),
        Sample((whole(2, 3),), {"low": (0, 1), "high": (1, 0), "value": 3.0}),
        Sample((flags(3),), {"low": (1,), "high": (1,)}),
        Sample((some(3, dtype=bf16),), {"low": (1,), "high": (0,)}),
        call((2,), (1,), (1,), value=math.nan),
    ]


WINDOWS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((5,), {"axes": (0,), "size": (2,), "step": (1,), "dilation": (1,)}),
    ((7, 2), {"axes": (0,), "size": (3,), "step": (2,), "dilation": (1,)}),
    ((2, 6, 5), {"axes": (1, 2), "size": (3, 2), "step": (1, 2), "dilation": (2, 1)}),
    ((2, 3, 6, 7), {"axes": (2, 3), "size": (2, 3), "step": (2, 2), "dilation": (1, 2)}),
    ((6, 2, 4), {"axes": (2, 0), "size": (2, 3), "step": (1, 1), "dilation": (1, 2)}),
    ((4,), {"axes": (0,), "size": (4,), "step": (1,), "dilation": (1,)}),
    ((5,), {"axes": (0,), "size": (1,), "step": (3,), "dilation": (1,)}),
    ((0, 4), {"axes": (1,), "size": (2,), "step": (1,), "dilation": (1,)}),
    ((3, 3), {"axes": (), "size": (), "step": (), "dilation": ()}),
]


def gelu_body() -> Graph:
    """A small graph for a fused node: (x, y) -> x · sigmoid(y), x + y."""
    build = Builder("island")
    build.sources = False
    with build:
        x, y = build.input("x", TensorType.of(some(2, 3))), build.input("y", TensorType.of(some(3)))
        return build.finish([ops.mul(x, ops.sigmoid(y)), ops.add(x, y)])


WRONG_COUNT = [Bad((some(2), some(2), some(2)), OpError, "takes . operands?, got 3")]
NO_FIT = [Bad((some(2, 3), some(4)), ShapeError, r"\(2, 3\) and \(4,\) do not broadcast"), *WRONG_COUNT]
FLOAT_BITS = [Bad((some(2), some(2)), DTypeError, r"not defined for \(f32, f32\)"), *WRONG_COUNT]
NOT_A_TENSOR = [Bad(("three",), OpError, "expected a tensor, a NumPy array or a number, got str")]
NO_AXIS = [
    Bad((some(2, 3),), ShapeError, "axis 2 of a tensor with 2 axes: expected an integer from -2 to 1", {"axis": 2}),
    Bad((some(2, 3),), OpError, "keepdim", {"keepdim": True}),
]
TWICE = [*NO_AXIS, Bad((some(2, 3),), ShapeError, "name an axis twice", {"axis": (0, -2)})]
ADDS_ONLY = "adds and subtracts where its expansion multiplies by 0, 1 and -1"
PRODUCTS_ONLY = "taking the elements of the weight out of words is not counted"
MOVES = "moves or converts elements, computes nothing"
LIBRARY = "counts as one by definition, whatever the library does inside"
BOOLS = [Sample((flags(2, 3),)), Sample((np.array(True),))]
PAIRS_OF_BOOLS = [Sample((flags(2, 3), flags(2, 3, seed=1)))]
TIES = [
    Sample((whole(3, 4), whole(3, 4, seed=1))),
    Sample((np.array([1.0, -0.0, 2.0], f32), np.array([1.0, 0.0, 3.0], f32)), smooth=False),
]
LOGIC: dict[str, Any] = {
    "samples": [*binary(smooth=False), *PAIRS_OF_BOOLS, *TIES],
    "bad": NO_FIT,
    "grad": (),
    "counted": "Python's `and` and `or` leave operands unread",
}
COMPARE: dict[str, Any] = {"samples": [*binary(), *PAIRS_OF_BOOLS, *TIES], "bad": NO_FIT, "grad": ()}
BITS: dict[str, Any] = {
    "samples": [*binary(dtypes=(), special_values=False), *PAIRS_OF_BOOLS],
    "bad": FLOAT_BITS,
    "grad": (),
}
SHIFTS: dict[str, Any] = {
    "samples": binary(y=(1.0, 6.0), dtypes=(), special_values=False),
    "bad": FLOAT_BITS,
    "grad": (),
}

ENTRIES: dict[str, Entry] = {
    # arithmetic
    "add": Entry([*binary(), *PAIRS_OF_BOOLS], torch=lambda x, y: x + y, bad=NO_FIT),
    "sub": Entry(
        binary(),
        torch=lambda x, y: x - y,
        bad=[*NO_FIT, Bad((flags(2), flags(2)), DTypeError, "subtract is not defined for")],
    ),
    "mul": Entry([*binary(), *PAIRS_OF_BOOLS], torch=lambda x, y: x * y, bad=NO_FIT),
    "div": Entry(binary(y=(0.5, 2.5)), torch=lambda x, y: x / y, bad=NO_FIT),
    "neg": Entry(
        unary(ints=(i32, i8)),
        torch=lambda x: -x,
        bad=[*NOT_A_TENSOR, Bad((flags(2),), DTypeError, "negative is not defined for")],
    ),
    "abs": Entry([*unary(), *BOOLS], torch=lambda x: torch.abs(x) if x.dtype != torch.bool else x, bad=NOT_A_TENSOR),
    "sign": Entry(
        unary(), torch=lambda x: torch.where(x.isnan(), x, torch.sign(x)), grad=(), bad=NOT_A_TENSOR, counted=LIBRARY
    ),
    "floor_div": Entry(
        binary(y=(0.5, 2.5)),
        torch="torch rounds floor_divide of floats otherwise",
        meaning=lambda x, y: np.floor_divide(x, y),
        grad=(),
        bad=NO_FIT,
    ),
    "mod": Entry(
        binary(y=(0.5, 2.5)), torch="torch differs at infinities", meaning=lambda x, y: np.remainder(x, y), bad=NO_FIT
    ),
    "pow": Entry(binary(x=(0.5, 2.5), y=(1.0, 3.0)), torch=lambda x, y: torch.pow(x, y), bad=NO_FIT),
    "maximum": Entry(
        [*binary(), *PAIRS_OF_BOOLS, *TIES], torch=lambda x, y: torch.maximum(*map(torch.as_tensor, (x, y))), bad=NO_FIT
    ),
    "minimum": Entry(
        [*binary(), *PAIRS_OF_BOOLS, *TIES], torch=lambda x, y: torch.minimum(*map(torch.as_tensor, (x, y))), bad=NO_FIT
    ),
    # rounding
    "floor": Entry(unary(), torch=lambda x: torch.floor(x), grad=(), bad=NOT_A_TENSOR),
    "ceil": Entry(unary(), torch=lambda x: torch.ceil(x), grad=(), bad=NOT_A_TENSOR),
    "round": Entry(
        [*unary(), Sample((np.array([0.5, 1.5, 2.5, -0.5, -1.5], f32),), smooth=False)],
        torch=lambda x: torch.round(x),
        grad=(),
        bad=NOT_A_TENSOR,
    ),
    # transcendental
    "exp": Entry(unary(), torch=lambda x: torch.exp(x), bad=NOT_A_TENSOR),
    "expm1": Entry(
        [*unary(), Sample((some(3, low=-1e-6, high=1e-6),))], torch=lambda x: torch.expm1(x), bad=NOT_A_TENSOR
    ),
    "log": Entry(unary(0.2, 3.0), torch=lambda x: torch.log(x), bad=NOT_A_TENSOR),
    "log1p": Entry(
        [*unary(-0.8, 3.0), Sample((some(3, low=-1e-6, high=1e-6),))], torch=lambda x: torch.log1p(x), bad=NOT_A_TENSOR
    ),
    "sqrt": Entry(unary(0.2, 3.0), torch=lambda x: torch.sqrt(x), bad=NOT_A_TENSOR),
    "rsqrt": Entry(unary(0.2, 3.0), torch=lambda x: torch.rsqrt(x), bad=NOT_A_TENSOR),
    "sin": Entry(unary(-4, 4), torch=lambda x: torch.sin(x), bad=NOT_A_TENSOR),
    "cos": Entry(unary(-4, 4), torch=lambda x: torch.cos(x), bad=NOT_A_TENSOR),
    "tanh": Entry(unary(), torch=lambda x: torch.tanh(x), bad=NOT_A_TENSOR),
    "sigmoid": Entry(unary(), torch=lambda x: torch.sigmoid(x), bad=NOT_A_TENSOR, counted=LIBRARY),
    "erf": Entry(unary(), torch=lambda x: torch.erf(x), bad=NOT_A_TENSOR, counted=LIBRARY),
    # comparison and logic
    "eq": Entry(torch=lambda x, y: torch.eq(*both(x, y)), **COMPARE),
    "ne": Entry(torch=lambda x, y: torch.ne(*both(x, y)), **COMPARE),
    "lt": Entry(torch=lambda x, y: torch.lt(*both(x, y)), **COMPARE),
    "le": Entry(torch=lambda x, y: torch.le(*both(x, y)), **COMPARE),
    "gt": Entry(torch=lambda x, y: torch.gt(*both(x, y)), **COMPARE),
    "ge": Entry(torch=lambda x, y: torch.ge(*both(x, y)), **COMPARE),
    "logical_not": Entry(
        [*unary(), *BOOLS], torch=lambda x: torch.logical_not(x), grad=(), bad=NOT_A_TENSOR, counted=LOGIC["counted"]
    ),
    "logical_and": Entry(torch=lambda x, y: torch.logical_and(*both(x, y)), **LOGIC),
    "logical_or": Entry(torch=lambda x, y: torch.logical_or(*both(x, y)), **LOGIC),
    "logical_xor": Entry(torch=lambda x, y: torch.logical_xor(*both(x, y)), **LOGIC),
    "bitwise_not": Entry(
        [Sample((whole(2, 3, dtype=d),)) for d in INTS] + BOOLS,
        torch=lambda x: ~x,
        grad=(),
        bad=[Bad((some(2),), DTypeError, "invert is not defined for")],
    ),
    "bitwise_and": Entry(torch=lambda x, y: x & y, **BITS),
    "bitwise_or": Entry(torch=lambda x, y: x | y, **BITS),
    "bitwise_xor": Entry(torch=lambda x, y: x ^ y, **BITS),
    "left_shift": Entry(torch=lambda x, y: x << y, **SHIFTS),
    "right_shift": Entry(torch=lambda x, y: x >> y, **SHIFTS),
    # choosing and converting
    "where": Entry(
        [
            Sample((flags(3, 1), some(3, 4), some(4, seed=1))),
            Sample((flags(2), 1.0, some(2))),
            Sample((flags(2), some(2, dtype=f64), 0)),
            Sample((np.array(True), some(2, 3), some(2, 3, seed=1))),
            Sample((whole(4, low=0, high=2), some(4), some(4, seed=1))),
            Sample((flags(3), whole(3), some(3))),
            Sample((flags(3), whole(3, dtype=u8), whole(3, dtype=i8))),
            Sample((flags(3), flags(3, seed=1), flags(3, seed=2))),
            Sample((flags(0, 2), some(0, 2), some(1, 2))),
            Sample((turned(flags(3, 4)), spaced(some(3, 4)), backward(some(3, 4, seed=1)))),
            *(Sample((flags(3), some(3, dtype=d), some(3, dtype=d, seed=1))) for d in FLOATS),
            Sample((flags(16), special(), special()[::-1]), smooth=False),
        ],
        torch=lambda c, x, y: torch.where(c != 0, x, y),
        bad=[
            Bad((flags(2), some(3), some(3)), ShapeError, "do not broadcast"),
            Bad((flags(2),), OpError, "where.*missing 2 required positional arguments: 'x' and 'y'"),
        ],
    ),
    "cast": Entry(
        [
            Sample((some(2, 3, low=0, high=9, dtype=a),), {"dtype": b})
            for a, b in product((f32, f64, f16, bf16), ("f32", "f64", "f16", "bf16", "i32", "u8", "bool"))
        ]
        + [
            Sample((whole(2, 3, dtype=a, low=0),), {"dtype": b})
            for a, b in product((i32, u8), ("f32", "bf16", "i8", "i64", "bool"))
        ]
        + [Sample((flags(3),), {"dtype": d}) for d in ("f32", "i64")]
        + [Sample((turned(some(3, 4)),), {"dtype": "f64"}), Sample((some(0, 2),), {"dtype": "i64"})]
        + [Sample((special(),), {"dtype": d}, smooth=False) for d in ("f64", "f16", "bf16", "bool")],
        torch=lambda x, dtype: x.to(torch_dtype(dtype)),
        counted=MOVES,
        bad=[Bad((some(2),), DTypeError, "'f31' is not a dtype of tinytorch; expected one of", {"dtype": "f31"})],
    ),
    "in_range": Entry(
        [
            Sample((np.array(v, d),), {"extent": 3})
            for v, d in (([0, 2, 1], "i8"), ([[1], [2]], "i4"), (2, "i8"), ([], "u1"))
        ],
        meaning=lambda x, extent: x.copy(),
        grad=(),
        counted=MOVES,
        bad=[Bad((some(2),), DTypeError, "expected integers", {"extent": 3})],
    ),
    "detach": Entry(unary(), torch=lambda x: x.detach() * 1, grad=(), bad=NOT_A_TENSOR),
    # reductions
    "sum": Entry(
        [*reduced(), Sample((flags(2, 3),), {"axis": 1})],
        torch=over(lambda x, a, k: torch.sum(x, a, k)),
        starts=True,
        bad=TWICE,
    ),
    "prod": Entry(
        [*reduced(), Sample((np.array([[2.0, 0.0, 3.0], [0.0, 4.0, 0.0], [1.0, 2.0, 3.0]], f32),), {"axis": 1})],
        torch=over(lambda x, a, k: torch.prod(x, a, k)),
        starts=True,
        bad=TWICE,
    ),
    "max": Entry(
        reduced(empty=False),
        torch=over(lambda x, a, k: torch.amax(x, a, k)),
        starts=True,
        bad=[*TWICE, Bad((some(0, 3),), ShapeError, "there is no element", {"axis": 0})],
    ),
    "min": Entry(
        reduced(empty=False),
        torch=over(lambda x, a, k: torch.amin(x, a, k)),
        starts=True,
        bad=[*TWICE, Bad((some(0, 3),), ShapeError, "there is no element", {"axis": 0})],
    ),
    "argmax": Entry(
        [
            *rows(),
            *(Sample((whole(3, 4, dtype=d),), {"axis": 1, "keepdims": True}) for d in INTS),
            Sample((flags(2, 4),)),
        ],
        torch=lambda x, axis=-1, keepdims=False: torch.argmax(x.int() if x.dtype == torch.bool else x, axis, keepdims),
        grad=(),
        bad=[*NO_AXIS, Bad((some(2, 0),), ShapeError, "there is no element")],
    ),
    "argmin": Entry(
        [
            *rows(),
            *(Sample((whole(3, 4, dtype=d),), {"axis": 1, "keepdims": True}) for d in INTS),
            Sample((flags(2, 4),)),
        ],
        torch=lambda x, axis=-1, keepdims=False: torch.argmin(x.int() if x.dtype == torch.bool else x, axis, keepdims),
        grad=(),
        bad=[*NO_AXIS, Bad((some(2, 0),), ShapeError, "there is no element")],
    ),
    "cumsum": Entry(
        [
            *rows(),
            Sample((whole(2, 3),), {"axis": 0}),
            Sample((flags(4),)),
            Sample((whole(4, dtype=u8),)),
            Sample((some(2, 0),)),
            Sample((np.full(1000, 1.0, bf16),), smooth=False),
        ],
        torch=lambda x, axis=-1: torch.cumsum(x, axis),
        bad=[Bad((some(2),), ShapeError, "axis 1 of a tensor with 1 axes", {"axis": 1})],
    ),
    # views and moves
    "reshape": Entry(
        [Sample((some(2, 6),), {"shape": s}) for s in ((3, 4), (-1,), (12, 1), (2, -1, 3), 12)]
        + [
            Sample((some(),), {"shape": (1, 1)}),
            Sample((some(1),), {"shape": ()}),
            Sample((some(0, 3),), {"shape": (3, 0)}),
            Sample((some(0, 3),), {"shape": (-1, 3)}),
            Sample((turned(some(3, 4)),), {"shape": (2, 6)}),
            Sample((flags(4),), {"shape": (2, 2)}),
            Sample((some(4, dtype=bf16),), {"shape": (2, 2)}),
            Sample((spaced(some(3, 4)),), {"shape": (12,)}),
        ],
        torch=lambda x, shape: torch.reshape(x, shape if isinstance(shape, tuple) else (shape,)),
        bad=[
            Bad((some(2, 3),), ShapeError, r"reshape of f32\[2, 3\] \(6 elements\) to \(4,\) \(4\)", {"shape": (4,)}),
            Bad((some(2, 3),), ShapeError, "the numbers of elements must agree", {"shape": (-1, -1)}),
            Bad((some(2, 3),), ShapeError, "the numbers of elements must agree", {"shape": (4, -1)}),
        ],
        counted=MOVES,
    ),
    "transpose": Entry(
        [Sample((some(2, 3, 4),), {"axes": a}) for a in ((0, 1, 2), (2, 0, 1), (-1, 0, 1), (1, 0, 2))]
        + [Sample((a,)) for a in (some(2, 3, 4), some(), some(3), some(0, 2))]
        + [Sample((turned(some(3, 4)),)), Sample((whole(2, 3),)), Sample((backward(some(2, 3)),), {"axes": (1, 0)})],
        torch=lambda x, axes=None: x.permute(axes or tuple(reversed(range(x.ndim)))),
        bad=[
            Bad((some(2, 3),), ShapeError, "expected each of its 2 axes once", {"axes": (0, 0)}),
            Bad((some(2, 3),), ShapeError, "axis 2", {"axes": (0, 2)}),
        ],
    ),
    "broadcast_to": Entry(
        [
            Sample((some(*a),), {"shape": b})
            for a, b in (
                ((3,), (2, 3)),
                ((1, 3), (4, 3)),
                ((), (2, 2)),
                ((2, 3), (2, 3)),
                ((1, 3), (0, 3)),
                ((2, 1), (3, 2, 4)),
                ((), ()),
            )
        ]
        + [
            Sample((whole(3),), {"shape": (2, 3)}),
            Sample((turned(some(3, 4)),), {"shape": (2, 3, 4)}),
            Sample((flags(1),), {"shape": (3,)}),
        ],
        torch=lambda x, shape: torch.broadcast_to(x, shape),
        bad=[
            Bad((some(2, 3),), ShapeError, "broadcast", {"shape": (3, 2)}),
            Bad((some(2, 3),), ShapeError, "broadcast", {"shape": (3,)}),
            Bad((some(2, 3),), ShapeError, "broadcast", {"shape": (2, 1)}),
        ],
    ),
    "slice": Entry(
        slices(),
        meaning=slice_loop,
        torch="torch has no negative steps",
        bad=[
            Bad((some(3),), ShapeError, "axis 0 has no elements 2, 3, … 3", {"start": (2,), "size": (2,)}),
            Bad((some(3),), ShapeError, "axis 0 has no elements", {"start": (0,), "size": (2,), "step": (-1,)}),
            Bad((some(3),), ShapeError, "slice", {"start": (0, 0), "size": (2, 2)}),
            Bad((some(3),), ShapeError, "slice", {"start": (0,), "size": (-1,)}),
        ],
    ),
    "pad": Entry(
        pads(),
        meaning=pad_loop,
        torch="torch has no interior padding",
        counted=MOVES,
        bad=[
            Bad((some(3),), ShapeError, "expected 1 counts ≥ 0 each", {"low": (-1,), "high": (0,)}),
            Bad((some(3),), ShapeError, "expected 1 counts", {"low": (1, 1), "high": (0, 0)}),
        ],
    ),
    "concat": Entry(
        [
            Sample((some(2, 3), some(4, 3, seed=1))),
            Sample((some(2, 3), some(2, 1, seed=1), some(2, 2, seed=2)), {"axis": -1}),
            Sample((some(3),)),
            Sample((some(0, 2), some(3, 2))),
            Sample((some(2), some(2, dtype=f64))),
            Sample((whole(2), some(2))),
            Sample((whole(2, dtype=u8), whole(2, dtype=i8))),
            Sample((turned(some(3, 4)), backward(some(3, 4, seed=1)))),
            Sample((flags(2), flags(1))),
            Sample((some(2, dtype=bf16), some(1, dtype=bf16))),
        ],
        torch=lambda *x, axis=0: torch.cat(x, axis),
        counted=MOVES,
        bad=[
            Bad((), ShapeError, "concat of nothing"),
            Bad((some(2, 3), some(2, 4)), ShapeError, "all extents but that of axis 0 must agree"),
            Bad((some(2, 3), some(2)), ShapeError, "all extents but that of axis 0"),
            Bad((some(2),), ShapeError, "axis 1", {"axis": 1}),
        ],
    ),
    "windows": Entry(
        [Sample((some(*shape),), attrs) for shape, attrs in WINDOWS]
        + [Sample((view(some(4, 5)),), WINDOWS[1][1] | {"step": (1,)}) for view in LAYOUTS]
        + [Sample((whole(5),), WINDOWS[0][1])],
        meaning=windows_loop,
        torch="unfold has no dilation",
        counted=MOVES,
        bad=[
            Bad((some(3),), ShapeError, "a window of 4 .* reaches 4 elements, axis 0 has 3", WINDOWS[5][1]),
            Bad((some(3),), ShapeError, "axis 1", WINDOWS[7][1]),
            Bad((some(3),), ShapeError, "windows", WINDOWS[0][1] | {"step": (0,)}),
            Bad((some(3),), ShapeError, "windows", WINDOWS[0][1] | {"size": (2, 2)}),
        ],
    ),
    "fold": Entry(
        [
            Sample((some(*windows_loop(np.zeros(shape), **attrs).shape),), {"shape": shape} | attrs)
            for shape, attrs in WINDOWS
        ]
        + [
            Sample((turned(some(4, 2)),), {"shape": (5,)} | WINDOWS[0][1]),
            Sample((whole(4, 2),), {"shape": (5,)} | WINDOWS[0][1]),
        ],
        meaning=fold_loop,
        torch="torch's fold takes images only",
        bad=[
            Bad(
                (some(3, 2),), ShapeError, "those are not the windows of such a tensor", {"shape": (5,)} | WINDOWS[0][1]
            )
        ],
    ),
    # contractions
    "matmul": Entry(
        matrices(),
        torch=lambda x, y, transpose_x=False, transpose_y=False: torch.matmul(
            *both(x.mT if transpose_x else x, y.mT if transpose_y else y)
        ),
        starts=True,
        bad=[
            Bad(
                (some(2, 3), some(2, 3)),
                ShapeError,
                "the inner extents are 3 and 2, they must be equal; .* transpose it",
            ),
            Bad((some(3), some(3, 2)), ShapeError, "expected matrices"),
            Bad((some(2, 2, 3), some(3, 3, 4)), ShapeError, "do not broadcast"),
        ],
    ),
    "conv2d": Entry(
        convolutions(),
        torch=torch_conv,
        bad=[
            Bad(
                (some(1, 2, 4, 4), some(3, 3, 2, 2)),
                ShapeError,
                "the input has 2 channels, the weight is for 3 × 1 groups",
            ),
            Bad((some(2, 4, 4), some(3, 2, 2, 2)), ShapeError, "expected"),
            Bad((some(1, 1, 2, 2), some(1, 1, 3, 3)), ShapeError, "reaches 3 elements, axis 2 has 2"),
            Bad((some(1, 1, 4, 4), some(1, 1, 3, 3)), ShapeError, "one number or two", {"stride": (1, 1, 1)}),
            Bad((some(1, 1, 4, 4), some(1, 1, 3, 3)), ShapeError, "conv2d|pad", {"padding": -1}),
        ],
    ),
    "convolve": Entry(
        channels_last_convolutions(),
        torch=torch_channels_last,
        bad=[
            Bad((some(1, 4, 4, 2), some(2, 2, 3, 3)), ShapeError, "expected"),
            Bad((some(4, 4, 2), some(2, 2, 2, 3)), ShapeError, "expected"),
            Bad((some(1, 2, 2, 1), some(3, 3, 1, 1)), ShapeError, "reaches 3 elements, axis 1 has 2"),
        ],
    ),
    "filter_tiles": Entry(
        filtered_tiles(),
        torch=torch_filtered,
        counted=ADDS_ONLY,
        bad=[
            Bad((some(1, 4, 4, 2), some(9, 2, 3)), ShapeError, "expected"),
            Bad((some(1, 4, 4, 2), some(16, 3, 3)), ShapeError, "expected"),
        ],
    ),
    "quad_matmul": Entry(
        grouped_matrices(4),
        meaning=grouped_matrix,
        bad=[
            Bad((whole(2, 4), whole(1, 3, 4, dtype=i8)), DTypeError, "expected u8 times i8; quantise"),
            Bad((whole(2, 4, dtype=u8), whole(4, 3, dtype=i8)), ShapeError, "as `quads` makes it"),
            Bad((whole(2, 4, dtype=u8), whole(2, 3, 4, dtype=i8)), ShapeError, r"expected \(…, rows, depth\)"),
        ],
    ),
    "pair_matmul": Entry(
        grouped_matrices(2),
        meaning=grouped_matrix,
        bad=[
            Bad((some(2, 4), some(2, 3, 2)), DTypeError, "expected bf16 times bf16; convert"),
            Bad((some(2, 4, dtype=bf16), some(1, 3, 4, dtype=bf16)), ShapeError, "as `pairs` makes it"),
        ],
    ),
    "pack_pairs": Entry(
        [Sample((some(n, m),)) for n, m in ((8, 5), (34, 40), (7, 3), (2, 1), (0, 4), (4, 0))]
        + [Sample((turned(some(36, 9)),)), Sample((spaced(some(4, 6)),)), Sample((some(6, 1),))],
        meaning=lambda x: np.stack([np.pad(x, ((0, len(x) % 2), (0, 0)))[k::2] for k in (0, 1)], -1).astype(bf16),
        bad=[
            Bad((some(2, 3, 4),), ShapeError, "expected a matrix"),
            Bad((whole(2, 4),), DTypeError, "expected floats"),
        ],
    ),
    "quad_convolve": Entry(
        grouped_images(4),
        meaning=grouped_windows,
        bad=[
            Bad((whole(1, 4, 4, 4, dtype=u8), whole(3, 2, 4, dtype=i8)), ShapeError, "expected", {"size": 2}),
            Bad((whole(1, 4, 4, 4, dtype=u8), whole(4, 2, 4, dtype=i8)), ShapeError, "expected a u8",
                {"size": 2, "fill": 256}),
            Bad((whole(1, 4, 4, 4, dtype=u8), whole(4, 2, 4, dtype=u8)), DTypeError, "u8 times i8", {"size": 2}),
        ],
    ),
    "pair_convolve": Entry(
        grouped_images(2),
        meaning=grouped_windows,
        bad=[Bad((some(1, 4, 4, 4, dtype=bf16), some(3, 2, 2, dtype=bf16)), ShapeError, "expected", {"size": 2})],
    ),
    "window_products": Entry(
        products_of_windows(),
        torch=torch_products,
        bad=[
            Bad((some(3, 4, 4, 2), some(3, 4, 4, 3)), ShapeError, "divides by parts", {"parts": 2}),
            Bad((some(2, 4, 4, 2), some(1, 4, 4, 3)), ShapeError, "of one batch"),
        ],
    ),
    # gathering and scattering
    "take": Entry(
        takes(),
        torch=lambda x, i, axis=0: x[(np.s_[:],) * (axis % x.ndim) + (torch.as_tensor(i).long(),)],
        counted=MOVES,
        bad=[
            Bad((some(3), some(2)), DTypeError, r"take: positions are f32\[2\], expected integers"),
            Bad((some(3), [0]), ShapeError, "axis 1", {"axis": 1}),
        ],
    ),
    "scatter_add": Entry(
        scatters(),
        meaning=scatter_loop,
        torch="index_add takes vectors only",
        bad=[
            Bad((some(3, 2), np.array([0]), some(2)), ShapeError, r"the updates must be f32\[1, 2\]"),
            Bad((some(3), some(1), some(1)), DTypeError, "expected integers"),
        ],
    ),
    "take_along": Entry(
        [Sample((x, i), a) for x, i, a in alongs()],
        torch=lambda x, i, axis=-1: torch.take_along_dim(x, torch.where(i < 0, i + x.shape[axis], i).long(), axis),
        counted=MOVES,
        bad=[
            Bad((some(3, 2), np.array([0])), ShapeError, "as many axes are needed in both"),
            Bad((some(3, 2), np.zeros((2, 1), int)), ShapeError, "must be those of x, or 1|do not broadcast"),
        ],
    ),
    "put_along": Entry(
        [Sample((x, i, some(*along_shape(x, i, **a), dtype=x.dtype, seed=1)), a) for x, i, a in alongs()],
        meaning=put_along_loop,
        torch="scatter_add broadcasts otherwise",
        bad=[
            Bad((some(3, 2), np.zeros((3, 1), int), some(3, 2)), ShapeError, r"the updates must be f32\[3, 1\]"),
            Bad((some(3, 2), np.zeros((3, 1), int), some(1, 1)), ShapeError, r"the updates must be f32\[3, 1\]"),
        ],
    ),
    # sources and randomness
    "constant": Entry(
        [
            Sample((), {"value": v, "dtype": d, "shape": s})
            for v, d, s in (
                (1.5, "f32", ()),
                (((1, 2), (3, 4)), "i64", (2, 2)),
                ((), "f64", (0,)),
                ((True, False), "bool", (2,)),
                ((math.inf, -math.inf, math.nan, -0.0), "f32", (4,)),
                (1e-40, "f32", ()),
                ((0.1, 3.0), "bf16", (2,)),
                (0.1, "f16", ()),
                ((), "f32", (0, 3)),
            )
        ],
        meaning=lambda value, dtype, shape: np.array(value, np_dtype(dtype)).reshape(shape),
        counted=MOVES,
        bad=[
            Bad((), OpError, "constant.*missing 2 required positional arguments: 'value' and 'dtype'"),
            Bad((), OpError, r"2 numbers do not fill shape \(3,\)", {"value": (1, 2), "dtype": "f32", "shape": (3,)}),
            Bad((), DTypeError, "not a dtype", {"value": 1, "dtype": "f31", "shape": ()}),
        ],
    ),
    "iota": Entry(
        [
            Sample((), {"shape": s, "axis": a, "dtype": d})
            for s, a, d in (
                ((4,), 0, "i64"),
                ((2, 3), 1, "f32"),
                ((2, 3), -2, "i32"),
                ((0,), 0, "i64"),
                ((3, 1), 0, "f64"),
                ((5,), 0, "bf16"),
            )
        ],
        meaning=lambda shape, axis, dtype: np.indices(shape)[axis],
        counted=MOVES,
        bad=[Bad((), ShapeError, "axis 1 of a tensor with 1 axes", {"shape": (3,), "axis": 1})],
    ),
    "random_uniform": Entry(
        [
            Sample((np.array(k),), {"shape": s, "dtype": d})
            for k, s, d in (
                (0, (3, 4), "f32"),
                (7, (5,), "f64"),
                (-1, (), "f32"),
                (2**63 - 1, (2, 2), "f32"),
                (3, (0, 2), "f32"),
            )
        ]
        + [Sample((np.array(5, i32),), {"shape": (3,)}), Sample((5,), {"shape": (3,)})],
        meaning=uniform,
        counted="the hash is integer work",
        bad=[
            Bad((some(),), DTypeError, "expected one integer as key", {"shape": (2,)}),
            Bad((whole(2),), DTypeError, "expected one integer", {"shape": (2,)}),
            Bad((np.array(1),), DTypeError, "f32 or f64", {"shape": (2,), "dtype": "i32"}),
        ],
    ),
    "random_normal": Entry(
        [
            Sample((np.array(k),), {"shape": s, "dtype": d})
            for k, s, d in ((0, (3, 4), "f32"), (7, (5,), "f64"), (-1, (), "f32"), (3, (0, 2), "f32"))
        ],
        meaning=normal,
        bad=[Bad((some(),), DTypeError, "expected one integer", {"shape": (2,)})],
    ),
    "dropout": Entry(
        [Sample((some(3, 4), np.array(k)), {"p": p}) for k, p in ((0, 0.5), (1, 0.1), (2, 0.0), (3, 1.0))]
        + [Sample((some(5, dtype=f64), np.array(4))), Sample((turned(some(3, 4)), np.array(5, i32)))]
        + [Sample((some(0, 3), np.array(1)))],
        meaning=drop,
        bad=[Bad((some(2), np.array(0)), OpError, "expected a probability", {"p": 1.5})],
    ),
    # statistics
    "mean": Entry(
        reduced(), torch=lambda x, axis=None, keepdims=False: torch.mean(float_of(x), axis, keepdims), bad=TWICE
    ),
    "var": Entry(
        [*reduced(), *(Sample((some(3, 4),), {"axis": 1, "ddof": 1, "keepdims": k}) for k in (False, True))],
        torch=lambda x, axis=None, keepdims=False, ddof=0: torch.var(
            float_of(x), axis, correction=ddof, keepdim=keepdims
        ),
        bad=TWICE,
    ),
    # activations
    "relu": Entry(unary(), torch=lambda x: torch.relu(x), bad=NOT_A_TENSOR),
    "leaky_relu": Entry(
        [*unary(), *unary(slope=0.2, special_values=False)],
        torch=lambda x, slope=0.01: torch.nn.functional.leaky_relu(float_of(x), slope),
        bad=NOT_A_TENSOR,
    ),
    "silu": Entry(unary(), torch=lambda x: torch.nn.functional.silu(float_of(x)), bad=NOT_A_TENSOR),
    "softplus": Entry(unary(), torch=lambda x: torch.logaddexp(float_of(x), torch.zeros(())), bad=NOT_A_TENSOR),
    "gelu": Entry(
        [
            *(replace(s, torch=s.smooth) for s in unary()),
            *(replace(s, torch=s.smooth) for s in unary(approximate="tanh")),
        ],  # torch: nan at +inf
        torch=lambda x, approximate="none": torch.nn.functional.gelu(float_of(x), approximate=approximate),
        bad=[Bad((some(2),), OpError, "expected 'none' or 'tanh'", {"approximate": "erf"})],
    ),
    "clip": Entry(
        [
            *unary(low=-1.0, high=1.5),
            *(
                Sample((some(3, 4),), a)
                for a in (
                    {"low": -1.0, "high": 1.5},
                    {"low": 0.0},
                    {"high": 0.0},
                    {"low": None, "high": None},
                    {"low": -1, "high": 1},
                )
            ),
            Sample((whole(5),), {"low": -2, "high": 2}),
            Sample((whole(5),), {"low": -1.5}),
            Sample((special(),), {"low": -1.0, "high": 1.0}, smooth=False),
        ],
        torch=lambda x, low=None, high=None: (
            torch.clamp(x, low, high) if low is not None or high is not None else x * 1
        ),
        bad=NOT_A_TENSOR,
    ),
    # softmax and its family
    "softmax": Entry(
        [*rows(), Sample((some(3, 0),)), Sample((whole(2, 3),), torch=False)],
        torch=lambda x, axis=-1: torch.softmax(x, axis),
        bad=NO_AXIS[:1],
    ),
    "log_softmax": Entry(
        [*rows(), Sample((some(3, 0),)), Sample((whole(2, 3),), torch=False)],
        torch=lambda x, axis=-1: torch.log_softmax(x, axis),
        bad=NO_AXIS[:1],
    ),
    "logaddexp": Entry(
        binary(),
        torch=lambda x, y: torch.logaddexp(float_of(torch.as_tensor(x)), float_of(torch.as_tensor(y))),
        bad=[NO_FIT[0], Bad((some(2),) * 3, OpError, "takes 2 positional arguments")],
    ),
    "logsumexp": Entry(
        reduced(empty=False),
        torch=lambda x, axis=None, keepdims=False: torch.logsumexp(
            float_of(x), every_axis(x) if axis is None else axis, keepdims
        ),
        bad=TWICE,
    ),
    "cross_entropy": Entry(
        [
            Sample((some(4, 3), np.array([0, 2, 1, 1]))),
            Sample((some(2, 3, 5, dtype=f64), whole(2, 3, low=0, high=5, dtype=u8))),
            Sample((some(3), np.array(2))),
            Sample((some(0, 3), np.zeros(0, i64))),
            Sample((turned(some(4, 3)), spaced(np.array([0, 2, 1, 1])))),
            Sample((1000 * some(4, 3), np.array([0, 2, 1, 1], i32))),
        ],
        torch=torch_cross_entropy,
        bad=[
            Bad(
                (some(2, 3), some(2)),
                ShapeError,
                r"expected logits \(…, classes\) and one integer label for each row, of shape \(2,\)",
            ),
            Bad((some(2, 3), whole(3)), ShapeError, "one integer label for each row"),
        ],
    ),
    # normalisation
    "layer_norm": Entry(
        norms(0, 1, 2), torch=torch_norm, bad=[Bad((some(2, 3), some(2)), ShapeError, "do not broadcast"), *NO_AXIS[:1]]
    ),
    "rms_norm": Entry(
        norms(0, 1), torch=torch_rms, bad=[Bad((some(2, 3), some(2)), ShapeError, "do not broadcast"), *NO_AXIS[:1]]
    ),
    "batch_norm": Entry(
        batch_norms(),
        torch=torch_batch_norm,
        bad=[Bad((some(2, 3), some(2), some(2), some(2), some(2)), ShapeError, "do not broadcast|batch_norm")],
    ),
    # layers
    "linear": Entry(
        [
            Sample((some(2, 3), some(4, 3, seed=1))),
            Sample((some(2, 5, 3), some(4, 3, seed=1), some(4, seed=2))),
            Sample((some(3), some(4, 3, seed=1), some(4, seed=2))),
            Sample((some(0, 3), some(2, 3, seed=1), some(2, seed=2))),
            Sample((turned(some(4, 3)), turned(some(2, 3, seed=1)), spaced(some(2, seed=2)))),
            Sample((some(2, 3, dtype=f64), some(4, 3, dtype=f64, seed=1), some(4, dtype=f64, seed=2))),
        ],
        torch=lambda *t: torch.nn.functional.linear(*t),
        bad=[
            Bad((some(2, 3), some(3, 4)), ShapeError, r"expected x \(…, 4\) for a weight \(out, in\)"),
            Bad((some(2, 3), some(4, 3), some(3)), ShapeError, "do not broadcast"),
        ],
    ),
    "attention": Entry(
        attentions(),
        torch=torch_attention,
        bad=[
            Bad((some(2, 3), some(2, 4), some(2, 4)), ShapeError, "the inner extents are 3 and 4"),
            Bad((some(2, 3), some(2, 3)), OpError, "missing"),
        ],
    ),
    "attend": Entry(
        attends(),
        torch="gives log Σ exp too",
        meaning=attend_in_numpy,
        bad=[
            Bad((some(2, 3), some(2, 4), some(2, 4)), ShapeError, r"expected \(batch, time, heads, head_dim\) each"),
            Bad((some(1, 3, 3, 4),) + (some(1, 3, 2, 4),) * 2, ShapeError, "3 heads of queries must be a multiple"),
            Bad((some(1, 3, 2, 4),) * 3 + (flags(3, 3),), ShapeError, "the mask must be of booleans or f32"),
            Bad((some(1, 3, 2, 4),) * 2 + (some(1, 2, 2, 4),), ShapeError, "keys and values, must agree"),
            Bad((whole(1, 3, 2, 4),) * 3, ShapeError, "one floating point type"),
        ],
    ),
    "attend_grad": Entry(
        attend_grads(),
        meaning=attend_grad_in_numpy,
        bad=[
            Bad((some(1, 3, 2, 4), some(1, 3), some(1, 3, 2), *(some(1, 3, 2, 4),) * 3), ShapeError,
                "one number a query and head twice"),
        ],
    ),
    "write_rows": Entry(
        [
            Sample((some(2, 5, 3), some(2, 2, 3, seed=1), np.array([0, 3]))),
            Sample((some(3, 4), some(3, 1, seed=1), np.array([3, 0, 2], i32))),
            Sample((some(1, 3, 2, 2, dtype=f64), some(1, 3, 2, 2, dtype=f64, seed=1), np.array([0]))),
            Sample((whole(2, 4, 3, dtype=i8), spaced(whole(2, 1, 3, dtype=i8, seed=1)), np.array([-1, 1]))),
            Sample((turned(some(2, 4, 3)), turned(some(2, 2, 3, seed=1)), np.array([2, 0]))),
            Sample((some(2, 4, 3), some(2, 0, 3), np.array([2, 0]))),
            Sample((np.full((1, 2, 2), math.nan, f32), np.array([[[-0.0, 1]]], f32), np.array([1])), smooth=False),
        ],
        meaning=write_rows_loop,
        bad=[
            Bad((some(2, 4, 3), some(2, 5, 3), whole(2)), ShapeError, "no more rows than it holds"),
            Bad((some(2, 4, 3), whole(2, 1, 3), whole(2)), ShapeError, "of its element type"),
            Bad((some(2, 4, 3), some(2, 1, 3), some(2)), DTypeError, "expected integers"),
            Bad((some(2, 4, 3), some(2, 1, 3), whole(3)), ShapeError, "one integer a sequence"),
        ],
    ),
    "attend_cached": Entry(
        attend_cacheds(),
        meaning=attend_cached_loop,
        bad=[
            Bad((some(2, 3), some(2, 4), some(2, 4), whole(2)), ShapeError, r"expected \(batch, time, heads"),
            Bad((some(1, 1, 3, 4), *(some(1, 3, 2, 4),) * 2, whole(1)), ShapeError, "3 heads of queries must be a"),
            Bad((some(1, 1, 2, 4), *(whole(1, 3, 2, 4, dtype=i8),) * 2, whole(1)), ShapeError, "with a scale each"),
            Bad((some(1, 1, 2, 4), *(some(1, 3, 2, 4, dtype=f64),) * 2, whole(1)), ShapeError, "one that stores"),
            Bad((some(1, 1, 2, 4), *(some(1, 3, 2, 4),) * 2, whole(1)), OpError, "a query sees itself",
                {"window": 0}),
        ],
    ),
    "packed_linear": Entry(
        [
            packed(4, 33, 8, 8, some(2, 8)),
            packed(8, 3, 8, 4, some(1, 2, 8), offset=True),
            packed(4, 2, 10, 8, some(3, 10), offset=True),
            packed(8, 2, 6, 8, some(6, dtype=f64)),
            packed(8, 2, 8, 8, turned(some(3, 8))),
            packed(8, 2, 4, 4, special()[:8].reshape(2, 4), smooth=False),
        ],
        meaning=packed_linear_loop,
        grad=(0,),
        counted=PRODUCTS_ONLY,
        bad=[
            Bad(packed(4, 2, 8, 8, some(2, 9)).args, ShapeError, "make it with `pack`", PACKED),
            Bad(packed(4, 2, 8, 8, whole(2, 8)).args, DTypeError, "of a floating type", PACKED),
            Bad(packed(4, 2, 8, 8, some(2, 8)).args, OpError, "4 or 8 bits", PACKED | {"bits": 5}),
            Bad(packed(4, 2, 8, 8, some(2, 8)).args, OpError, "groups of whole words", PACKED | {"group": 12}),
            Bad(packed(4, 2, 8, 8, some(2, 8)).args, ShapeError, r"a weight \(40, 8\)", PACKED | {"outputs": 40}),
        ],
    ),
    "sparse_linear": Entry(
        [
            sparse(33, 8, 4, some(2, 8)),
            sparse(2, 6, 1, some(1, 2, 6)),
            sparse(2, 6, 2, turned(some(3, 6)), skipped=0.2),
            sparse(2, 4, 2, some(4, dtype=f64)),
            sparse(33, 4, 4, some(2, 4)),  # nothing is left of the second panel
        ],
        meaning=sparse_linear_loop,
        grad=(0, 1),
        counted=PRODUCTS_ONLY,
        bad=[
            Bad(sparse(2, 8, 4, whole(2, 8)).args, DTypeError, "of a floating type", {"outputs": 2}),
            Bad(sparse(2, 8, 4, some(2, 8)).args, ShapeError, "make them with `pack_sparse`", {"outputs": 40}),
        ],
    ),
    "packed_rows": Entry(
        [
            packed(4, 33, 16, 8, np.array([[0, 32], [-1, 5]]), offset=True, depth=16),
            packed(8, 40, 5, 4, np.array([39, 0, 33], i32), depth=5),
            packed(8, 2, 4, 4, np.array(1), depth=4),
        ],
        meaning=packed_rows_loop,
        grad=(),
        bad=[
            Bad(packed(4, 2, 8, 8, some(2)).args, DTypeError, "expected integers", PACKED | {"depth": 8}),
            Bad(packed(4, 2, 8, 8, whole(2)).args, ShapeError, "make it with `pack`", PACKED | {"depth": 9}),
        ],
    ),
    "attention_weights": Entry(
        attentions_without_values(),
        torch=torch_attention_weights,
        bad=[
            Bad((some(2, 3), some(2, 4)), ShapeError, "the inner extents are 3 and 4"),
            Bad((some(2, 3),), OpError, "missing"),
        ],
    ),
    "max_pool2d": Entry(
        pools(),
        torch=pooled("max_pool2d"),
        bad=[
            Bad((some(2, 3),), ShapeError, "expected", {"size": 2}),
            Bad((some(1, 1, 2, 2),), ShapeError, "reaches 3 elements", {"size": 3}),
        ],
    ),
    "avg_pool2d": Entry(
        pools(),
        torch=pooled("avg_pool2d"),
        bad=[
            Bad((some(2, 3),), ShapeError, "expected", {"size": 2}),
            Bad((some(1, 1, 2, 2),), ShapeError, "reaches 3 elements", {"size": 3}),
        ],
    ),
    "pool_max": Entry(
        [
            *last_pools(),
            *(
                Sample((whole(1, 5, 4, 3, dtype=d, low=-99, high=99),), {"size": 3, "low": 2, "high": 1})
                for d in (u8, i8)
            ),
        ],
        torch="it pools channels first",
        meaning=lambda x, **attrs: pooled_loop(np.max, np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf)(
            x, **attrs
        ),
        bad=[
            Bad((some(2, 3),), ShapeError, r"expected \(batch, height, width, channels\)", {"size": 2}),
            Bad((some(1, 2, 2, 1),), ShapeError, "reaches 3 elements", {"size": 3}),
        ],
    ),
    "pool_max_grad": Entry(
        last_unpools(pooled_loop(np.max, -np.inf)),
        torch="it pools channels first",
        meaning=max_unpooled,
        grad=(0,),
        bad=[
            Bad((some(1, 2, 2, 1),) * 3, ShapeError, r"pool_max makes f32\[1, 1, 1, 1\] of x", {"size": 2}),
            Bad((some(1, 1, 1, 1), some(2, 3), some(1, 1, 1, 1)), ShapeError, "expected", {"size": 2}),
        ],
    ),
    "pool_sum": Entry(
        last_pools(),
        torch="it pools channels first",
        meaning=pooled_loop(np.sum, 0.0),
        bad=[
            Bad((some(2, 3),), ShapeError, r"expected \(batch, height, width, channels\)", {"size": 2}),
            Bad((some(1, 2, 2, 1),), ShapeError, "reaches 3 elements", {"size": 3}),
        ],
    ),
    "pool_sum_grad": Entry(
        [
            replace(s, args=s.args[:1], attrs={"extent": s.args[1].shape[1:3]} | s.attrs)
            for s in last_unpools(pooled_loop(np.sum, 0.0))
        ],
        torch="it pools channels first",
        meaning=sum_unpooled,
        bad=[
            Bad((some(2, 3),), ShapeError, "expected", {"extent": 4, "size": 2}),
            Bad((some(1, 2, 2, 1),), ShapeError, "those are not the windows", {"extent": 8, "size": 2}),
        ],
    ),
    # numbers on a grid
    "quantize": Entry(
        [
            Sample((some(2, 3), 0.1, 3)),
            Sample((some(2, 3), 0.01, -3.0), {"dtype": "i8"}),  # some are cut
            Sample((some(37), f32(0.25)), {"dtype": "i16"}),
            *(Sample((view(some(3, 4)), some(4, low=0.1, high=0.5), whole(4)), {"axis": 1}) for view in LAYOUTS),
            *(Sample((some(3, 4, dtype=d), 0.1, 128)) for d in FLOATS),
            Sample((np.array([-math.inf, math.inf, -0.0, 1e38, 0.5, 1.5, 2.5], f32), 1.0, 128), smooth=False),
            Sample((some(2, 1, 3), some(2, low=0.1, high=0.5), 7), {"axis": -3}),
            Sample((some(0, 3), 0.5)),
        ],
        meaning=quantize_loop,
        grad=(),
        bad=[
            Bad((whole(2), 0.1), DTypeError, "expected floating point"),
            Bad((some(2), 0.1, 0), DTypeError, "expected u8, i8 or i16", {"dtype": "f32"}),
            Bad((some(2, 3), some(3)), ShapeError, "name the axis"),
            Bad((some(2, 3), some(3)), ShapeError, r"expected numbers or \(2,\)", {"axis": 0}),
        ],
    ),
    "dequantize": Entry(
        [
            Sample((whole(2, 3, dtype=u8, high=256), 0.1, 3)),
            Sample((whole(2, 3, dtype=i8, low=-128, high=128), f64(0.01))),
            Sample((turned(whole(3, 4)), some(4, low=0.1, high=0.5), whole(4)), {"axis": 1}),
        ],
        meaning=lambda q, scale, zero=0, axis=None: (
            (q.astype(np.asarray(scale).dtype if isinstance(scale, (Array, np.generic)) else f32)
             - along(zero, q.ndim, axis)) * along(scale, q.ndim, axis)).astype(
                f64 if isinstance(scale, np.float64) else f32),
        bad=[
            Bad((some(2), 0.1), DTypeError, "expected integers"),
            Bad((whole(2, 3), some(3)), ShapeError, "name the axis"),
        ],
    ),
    "fake_quantize": Entry(
        [
            Sample((some(2, 3), 0.1, 3, 0, 15), smooth=False),
            Sample((some(3, 4), some(4, low=0.1, high=0.5), whole(4), -8, 7), {"axis": 1}, smooth=False),
        ],
        torch=lambda x, scale, zero, low, high, axis=None: (
            torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high) if axis is None
            else torch.fake_quantize_per_channel_affine(x, scale, zero, axis, low, high)),
        grad=(0,),
        bad=[
            Bad((whole(2), 0.1, 0, 0, 15), DTypeError, "expected floating point"),
            Bad((some(2), 0.1, 0, 15, 0), OpError, "least and the greatest"),
        ],
    ),
    # what the compiler makes
    "fused": Entry(
        [Sample((some(2, 3), some(3, seed=1)), {"body": gelu_body(), "style": "pointwise"})],
        torch="its body says what it does",
        grad=(),
        meaning=lambda x, y, body, style: (x / (1 + np.exp(-y)), x + y),
        bad=[
            Bad((some(2, 3),), ShapeError, "its body takes", {"body": gelu_body(), "style": "pointwise"}),
            Bad((some(2, 3), some(3)), OpError, "expected one of", {"body": gelu_body(), "style": "odd"}),
        ],
    ),
}
SAMPLES: dict[str, list[Sample]] = {name: entry.samples for name, entry in ENTRIES.items()}


def both(x: Any, y: Any) -> tuple[Any, Any]:
    """Two torch tensors of the type that they promote to."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    dtype = torch.result_type(x, y)
    return x.to(dtype), y.to(dtype)


def np_dtype(name: str) -> Any:
    """NumPy's element type of this name."""
    return {"f32": f32, "f64": f64, "f16": f16, "bf16": bf16, "i64": i64, "i32": i32, "i8": i8, "u8": u8, "bool": bool}[
        name
    ]


def torch_dtype(name: str) -> Any:
    """PyTorch's element type of this name."""
    return {
        "f32": torch.float32,
        "f64": torch.float64,
        "f16": torch.float16,
        "bf16": torch.bfloat16,
        "i64": torch.int64,
        "i32": torch.int32,
        "i8": torch.int8,
        "u8": torch.uint8,
        "bool": torch.bool,
    }[name]
