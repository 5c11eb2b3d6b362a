"""What contractions of quads and pairs mean, in NumPy: a loop over the depth, for samples and kernels."""

from typing import Any

import numpy as np


def grouped_matrix(x: Any, weight: Any) -> np.ndarray:
    """Σ over depth k of x[…, k] · weight[k // each, :, k % each]."""
    wide, each = np.int64 if x.dtype == np.uint8 else np.float64, weight.shape[2]
    out = np.zeros((*x.shape[:-1], weight.shape[1]), wide)
    for k in range(x.shape[-1]):
        out += x[..., k, None].astype(wide) * weight[k // each, :, k % each].astype(wide)
    return out


def grouped_windows(x: Any, weight: Any, size: Any, stride: Any = 1, low: Any = 0, high: Any = 0, fill: float = 0,
                    dilation: Any = 1, groups: int = 1) -> np.ndarray:
    """Element e of row p of a window times weight[p · ⌈elements a row / each⌉ + e // each, :, e % each], summed up."""
    stride, low, high, gap = ((n, n) if isinstance(n, int) else n for n in (stride, low, high, dilation))
    wide, each = np.int64 if x.dtype == np.uint8 else np.float64, weight.shape[2]
    edges = [(0, 0), *((max(a, 0), max(b, 0)) for a, b in zip(low, high)), (0, 0)]
    images = np.pad(x.astype(wide), edges, constant_values=wide(fill))
    down, across = (np.s_[max(-a, 0) : n - max(-b, 0)] for a, b, n in zip(low, high, images.shape[1:3]))
    images = images[:, down, across]
    reach = [(k - 1) * d + 1 for k, d in zip(size, gap)]
    tall, broad = ((n - r) // s + 1 for n, r, s in zip(images.shape[1:3], reach, stride))
    inner, outs = x.shape[3] // groups, weight.shape[1] // groups
    out = np.zeros((len(x), tall, broad, weight.shape[1]), wide)
    for group, p, q, c in np.ndindex(groups, *size, inner):
        line = p * -(-size[1] * inner // each) + (q * inner + c) // each
        factor = weight[line, group * outs : (group + 1) * outs, (q * inner + c) % each].astype(wide)
        rows = np.arange(tall) * stride[0] + p * gap[0]
        columns = np.arange(broad) * stride[1] + q * gap[1]
        seen = images[:, rows[:, None], columns, group * inner + c]
        out[..., group * outs : (group + 1) * outs] += seen[..., None] * factor
    return out
