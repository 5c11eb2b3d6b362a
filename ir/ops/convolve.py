"""Convolution. `conv2d` is what users call; it opens to transposes around `convolve`, which works channels last.

    convolve         (N, H, W, C) with (kh, kw, C / groups, O) to (N, OH, OW, O); its gradient by x, and a transposed
                     convolution, are others of the kind, that read x with zeros spread in between
    window_products  its gradient by the weight: sums over pixels of channels times channels

Along each axis, output p reads at place k of the kernel the element q / spread of x, q = p · stride + k · dilation -
low, where that is a whole number and inside, else 0 (the convention of XLA's ConvGeneralDilated).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import Kind
from ..types import Shape, TensorType
from .contract import matmul
from .define import Prepared, attributes, composite, lift, pair
from .leading import first_merged
from .pointwise import add
from .reduce import sum
from .view import concat, pad, reshape, slice, transpose, windows

__all__ = ["conv2d", "convolve", "filter_tiles", "window_products"]

CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
MOST_PARTS = 8  # into which a batch is cut, for the products of its parts to be summed side by side


def _is_native(x: TensorType, y: TensorType, **attrs: Any) -> bool:
    """Whether the runtime has a kernel: there is none for what is strided and spread at once, which nobody asks for."""
    apart = any(s > 1 and t > 1 for s, t in zip(attrs["stride"], attrs["spread"], strict=True))
    return x.dtype.name in ("f32", "f64") and not apart and 0 not in x.shape and 0 not in y.shape


# -- channels last -----------------------------------------------------------------------------------------------------


def _convolve_prepare(x: Any, weight: Any, stride: Any = 1, low: Any = 0, high: Any = 0, dilation: Any = 1,
                      spread: Any = 1, groups: int = 1) -> Prepared:
    (x, weight), _ = add.prepare(lift(x), lift(weight))
    if (x.ndim, weight.ndim) != (4, 4) or groups < 1 or x.shape[3] != weight.shape[2] * groups or (
            weight.shape[3] % groups):
        raise ShapeError(f"convolve({x.type}, {weight.type}, groups={groups}): expected (batch, height, width, "
                         "channels) and (kh, kw, channels / groups, out), where out divides by groups")
    return (x, weight), {"stride": pair(stride), "low": pair(low), "high": pair(high), "dilation": pair(dilation),
                         "spread": pair(spread), "groups": int(groups)}


def _view(x: Any, kernel: Shape, stride: Shape, low: Shape, high: Shape, dilation: Shape, spread: Shape) -> Any:
    """The windows of x, (N, OH, OW, C, kh, kw): padded where low and high are positive, cut where they are negative."""
    before, after = ((0, *(max(n, 0) for n in side), 0) for side in (low, high))
    gaps = (0, *(n - 1 for n in spread), 0)
    if any(before) or any(after) or any(gaps):
        x = pad(x, before, after, gaps)
    if min(*low, *high) < 0:
        start = (0, *(max(-n, 0) for n in low), 0)
        end = (0, *(max(-n, 0) for n in high), 0)
        x = slice(x, start, tuple(n - a - b for n, a, b in zip(x.shape, start, end, strict=True)))
    return windows(x, axes=(1, 2), size=kernel, step=stride, dilation=dilation)


def _columns(view: Any, groups: int) -> Any:
    """(groups, pixels, kh · kw · C / groups) of the windows (N, OH, OW, C, kh, kw)."""
    n, oh, ow, channels, kh, kw = view.shape
    inner = channels // groups
    if groups == 1:
        return reshape(transpose(view, (0, 1, 2, 4, 5, 3)), (1, n * oh * ow, kh * kw * inner))
    parts = transpose(reshape(view, (n, oh, ow, groups, inner, kh, kw)), (3, 0, 1, 2, 5, 6, 4))
    return reshape(parts, (groups, n * oh * ow, kh * kw * inner))


def _convolve(x: Any, weight: Any, *, stride: Shape, low: Shape, high: Shape, dilation: Shape, spread: Shape,
              groups: int) -> Any:
    kh, kw, inner, out = weight.shape
    view = _view(x, (kh, kw), stride, low, high, dilation, spread)
    rows = transpose(reshape(weight, (kh * kw * inner, groups, out // groups)), (1, 0, 2))
    y = matmul(_columns(view, groups), rows)  # (groups, pixels, out / groups)
    return reshape(transpose(y, (1, 0, 2)), (*view.shape[:3], out))


def _convolve_vjp(g: Any, out: Any, x: Any, weight: Any, *, stride: Shape, low: Shape, high: Shape, dilation: Shape,
                  spread: Shape, groups: int) -> tuple[Any, Any]:
    kernel = weight.shape[:2]
    reach = tuple((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    begin = tuple(r - n for r, n in zip(reach, low, strict=True))
    gx = gw = None
    if not x.is_constant:
        ends = zip(x.shape[1:3], spread, g.shape[1:3], stride, reach, begin, strict=True)
        end = tuple((m - 1) * t + r - (p - 1) * s - n for m, t, p, s, r, n in ends)
        gx = convolve(g, turned(weight, groups), spread, begin, end, dilation, stride, groups)
    if weight.is_constant:
        return gx, None
    if spread == (1, 1):
        gw = _sum_of_products(x, g, kernel, stride, low, dilation, spread, groups)
    else:  # what is spread plays the part of the gradient
        swapped = _sum_of_products(g, x, kernel, spread, begin, dilation, stride, groups)
        gw = turned(swapped, groups)
    return gx, gw


def turned(weight: Any, groups: int) -> Any:
    """The weight (kh, kw, C / groups, O) of a convolution turned round, for its transpose: (kh, kw, O / groups, C)."""
    kh, kw, inner, out = weight.shape
    if (kh, kw) != (1, 1):
        weight = slice(weight, (kh - 1, kw - 1, 0, 0), weight.shape, (-1, -1, 1, 1))
    if groups == 1:
        return transpose(weight, (0, 1, 3, 2))
    parts = transpose(reshape(weight, (kh, kw, inner, groups, out // groups)), (0, 1, 4, 3, 2))
    return reshape(parts, (kh, kw, out // groups, groups * inner))


def _convolve_flops(out: TensorType, x: TensorType, weight: TensorType, *, spread: Shape, **_: Any) -> int:
    return out.size * 2 * math.prod(weight.shape[:3]) // math.prod(spread)  # what meets a zero in between costs nothing


convolve = composite(
    "convolve", _convolve, attributes(_convolve_prepare),
    "correlation of (batch, height, width, channels) with (kh, kw, channels / groups, out)",
    kind=Kind.CONTRACT, vjp=_convolve_vjp, flops=_convolve_flops, native=_is_native, vmap=first_merged)


# -- the gradient by the weight ----------------------------------------------------------------------------------------


def _products_prepare(x: Any, g: Any, size: Any = 1, stride: Any = 1, low: Any = 0, dilation: Any = 1, spread: Any = 1,
                      groups: int = 1, parts: int = 1) -> Prepared:
    (x, g), _ = add.prepare(lift(x), lift(g))
    if (x.ndim, g.ndim) != (4, 4) or x.shape[0] != g.shape[0] or x.shape[0] % parts:
        raise ShapeError(f"window_products({x.type}, {g.type}, parts={parts}): expected (batch, height, width, "
                         "channels) twice, of one batch, which divides by parts")
    return (x, g), {"size": pair(size), "stride": pair(stride), "low": pair(low), "dilation": pair(dilation),
                    "spread": pair(spread), "groups": int(groups), "parts": int(parts)}


def _ends(x: Any, g: Any, size: Shape, stride: Shape, low: Shape, dilation: Shape, spread: Shape) -> Shape:
    """The `high` with which the windows of x are as many as the pixels of g."""
    sides = zip(x.shape[1:3], spread, g.shape[1:3], stride, size, dilation, low, strict=True)
    return tuple((p - 1) * s + (k - 1) * d + 1 - ((m - 1) * t + 1) - n for m, t, p, s, k, d, n in sides)


def _products(x: Any, g: Any, *, size: Shape, stride: Shape, low: Shape, dilation: Shape, spread: Shape, groups: int,
              parts: int) -> Any:
    (kh, kw), inner, out = size, x.shape[3] // groups, g.shape[3]
    high = _ends(x, g, size, stride, low, dilation, spread)
    left = _columns(_view(x, size, stride, low, high, dilation, spread), groups)
    pixels = left.shape[1] // parts
    left = reshape(left, (groups, parts, pixels, kh * kw * inner))
    right = transpose(reshape(g, (parts, pixels, groups, out // groups)), (2, 0, 1, 3))
    y = matmul(left, right, True)  # (groups, parts, kh · kw · inner, out / groups)
    return reshape(transpose(y, (1, 2, 0, 3)), (parts, kh, kw, inner, out))


def _products_vjp(ct: Any, out: Any, x: Any, g: Any, *, size: Shape, stride: Shape, low: Shape, dilation: Shape,
                  spread: Shape, groups: int, parts: int) -> tuple[Any, Any]:
    """The products are linear in both: with a weight `ct` in their place, they are those of a convolution."""
    high = _ends(x, g, size, stride, low, dilation, spread)
    attrs: dict[str, Any] = {"stride": stride, "low": low, "high": high, "dilation": dilation, "spread": spread,
                             "groups": groups}
    found = []
    for part in range(parts):
        images = [_images(t, part, parts) for t in (x, g)]
        weight = reshape(slice(ct, (part, 0, 0, 0, 0), (1, *ct.shape[1:])), ct.shape[1:])
        y = convolve(images[0], weight, **attrs)
        found.append((_convolve_vjp(images[1], y, images[0], weight, **attrs)[0], y))
    gx, gg = zip(*found, strict=True)
    return None if gx[0] is None else concat(*gx, axis=0), concat(*gg, axis=0)


def _images(x: Any, part: int, parts: int) -> Any:
    count = x.shape[0] // parts
    return slice(x, (part * count, 0, 0, 0), (count, *x.shape[1:]))


def _products_flops(out: TensorType, x: TensorType, g: TensorType, *, groups: int, size: Shape, **_: Any) -> int:
    return 2 * g.size * math.prod(size) * x.shape[3] // groups


window_products = composite(
    "window_products", _products, attributes(_products_prepare),
    "sums, over the pixels of each part of a batch, of windows of x times g: the gradient of `convolve` by its weight",
    kind=Kind.CONTRACT, vjp=_products_vjp, flops=_products_flops,
    native=lambda x, g, **attrs: attrs["spread"] == (1, 1) and _is_native(x, g, **attrs))


def _sum_of_products(x: Any, g: Any, size: Shape, stride: Shape, low: Shape, dilation: Shape, spread: Shape,
                     groups: int) -> Any:
    parts = max((n for n in range(1, MOST_PARTS + 1) if x.shape[0] % n == 0), default=1)
    return sum(window_products(x, g, size, stride, low, dilation, spread, groups, parts), 0)


# -- minimal filtering -------------------------------------------------------------------------------------------------

# Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ D B) ] A for a tile D of 4 × 4 elements and the 2 × 2 outputs Y it decides.
_B = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_A = ((1, 1, 1, 0), (0, 1, -1, -1))


def _on_both_sides(rows: tuple[tuple[float, ...], ...], tiles: Any) -> Any:
    """`rows` tile rowsᵀ of each of tiles (n, n, …)."""
    matrix = lift(np.array(rows, tiles.dtype.np))
    for _ in range(2):
        n, m, *rest = tiles.shape
        tiles = reshape(matmul(matrix, reshape(tiles, (n, m * math.prod(rest)))), (len(rows), m, *rest))
        tiles = transpose(tiles, (1, 0, *range(2, 2 + len(rest))))
    return tiles


def filter_weight(weight: Any) -> Any:
    """What `filter_tiles` takes for the weight (3, 3, C, O) of a convolution: (16, C, O)."""
    both = np.kron(_G, _G).astype(weight.dtype.np)  # G on both sides as one product
    both.flags.writeable = False  # then what is made of it and of parameters alone is prepared once
    return reshape(matmul(lift(both), reshape(weight, (9, math.prod(weight.shape[2:])))), (16, *weight.shape[2:]))


def _filter_prepare(x: Any, weight: Any, low: Any = 0, high: Any = 0) -> Prepared:
    (x, weight), _ = add.prepare(lift(x), lift(weight))
    if x.ndim != 4 or weight.ndim != 3 or weight.shape[:2] != (16, x.shape[3]):
        raise ShapeError(f"filter_tiles({x.type}, {weight.type}): expected (batch, height, width, channels) and "
                         "(16, channels, out)")
    return (x, weight), {"low": pair(low), "high": pair(high)}


def _filter(x: Any, weight: Any, *, low: Shape, high: Shape) -> Any:
    size = [n + a + b - 2 for n, a, b in zip(x.shape[1:3], low, high, strict=True)]
    odd = tuple(b + n % 2 for n, b in zip(size, high, strict=True))
    view = windows(pad(x, (0, *low, 0), (0, *odd, 0)), axes=(1, 2), size=(4, 4), step=(2, 2), dilation=(1, 1))
    n, tall, wide, channels = view.shape[:4]
    spread = _on_both_sides(_B, transpose(view, (4, 5, 0, 1, 2, 3)))
    products = matmul(reshape(spread, (16, n * tall * wide, channels)), weight)  # (16, tiles, out)
    out = weight.shape[2]
    y = _on_both_sides(_A, reshape(products, (4, 4, n, tall, wide, out)))
    y = transpose(y, (2, 3, 0, 4, 1, 5))
    return slice(reshape(y, (n, 2 * tall, 2 * wide, out)), (0, 0, 0, 0), (n, *size, out))


def _filter_flops(out: TensorType, x: TensorType, weight: TensorType, **_: Any) -> int:
    tiles = out.shape[0] * (-(-out.shape[1] // 2)) * (-(-out.shape[2] // 2))
    channels, outs = weight.shape[1:]
    return tiles * (32 * channels + 32 * channels * outs + 24 * outs)  # additions before, 16 products, additions after


filter_tiles = composite(
    "filter_tiles", _filter, attributes(_filter_prepare),
    "convolution by 3 × 3, from tiles of 4 × 4 and a weight (16, channels, out) that `filter_weight` makes "
    "(Winograd's minimal filtering: Lavin and Gray, 2016)",
    kind=Kind.CONTRACT, flops=_filter_flops,
    native=lambda x, weight, **_: x.dtype.name in ("f32", "f64") and 0 not in x.shape and not any(
        n % 16 for n in weight.shape))


# -- channels first ----------------------------------------------------------------------------------------------------


def _conv2d_prepare(x: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                    groups: int = 1) -> Prepared:
    x, weight = lift(x), lift(weight)
    if x.ndim != 4 or weight.ndim != 4:
        raise ShapeError(f"conv2d({x.type}, {weight.type}): expected (batch, channels, height, width) "
                         "and (out, channels / groups, kh, kw)")
    if groups < 1 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(f"conv2d({x.type}, {weight.type}, groups={groups}): "
                         f"the input has {x.shape[1]} channels, the weight is for {weight.shape[1]} × {groups} groups, "
                         f"and its {weight.shape[0]} outputs must divide by the groups")
    (x, weight), _ = add.prepare(x, weight)
    edge = pair(padding)
    if min(edge) < 0:
        raise ShapeError(f"conv2d(padding={padding}): expected counts of zeros, not below 0")
    gaps = pair(dilation)
    for axis, (extent, zeros, size, gap) in enumerate(zip(x.shape[2:], edge, weight.shape[2:], gaps, strict=True), 2):
        if (size - 1) * gap + 1 > extent + 2 * zeros:
            raise ShapeError(f"conv2d({x.type}, {weight.type}, padding={padding}): the kernel reaches "
                             f"{(size - 1) * gap + 1} elements, axis {axis} has {extent + 2 * zeros}")
    return (x, weight), {"stride": pair(stride), "padding": edge, "dilation": gaps, "groups": int(groups)}


def _conv2d(x: Any, weight: Any, *, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Any:
    y = convolve(transpose(x, CHANNELS_LAST), transpose(weight, (2, 3, 1, 0)), stride, padding, padding, dilation, 1,
                 groups)
    return transpose(y, CHANNELS_FIRST)


def _conv2d_flops(out: TensorType, x: TensorType, weight: TensorType, **_: Any) -> int:
    return out.size * 2 * math.prod(weight.shape[1:])


conv2d = composite(
    "conv2d", _conv2d, attributes(_conv2d_prepare),
    "correlation of (batch, channels, height, width) with (out, channels / groups, kh, kw)",
    kind=Kind.CONTRACT, flops=_conv2d_flops)
