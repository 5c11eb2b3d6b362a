"""Convolve by 3 × 3 with less than half of the multiplications: Winograd's minimal filtering.

    FilterMinimally()(graph)

Four neighbouring outputs of a 3 × 3 convolution share so many elements that 16 multiplications a channel will do, not
36 (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016). The transforms before and after add and
subtract only, and the sums are shorter, so the error is no greater. Channels and outputs must be multiples of 16; with
fewer the transforms would cost what the products save.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Graph, Node, Operand, ops
from tinytorch.ir.ops.convolve import filter_weight

from .rewrite import By, Edit, Table, rewrite

PLAIN = {"stride": (1, 1), "dilation": (1, 1), "spread": (1, 1), "groups": 1}


@dataclass(frozen=True)
class FilterMinimally:
    """`filter_tiles` in place of each `convolve` by 3 × 3 that it suits."""

    def __call__(self, graph: Graph, /) -> Graph:
        return rewrite(graph, _TABLE)


def _by_tiles(node: Node, edit: Edit) -> Any:
    x, weight = node.inputs
    low, high = node.attrs["low"], node.attrs["high"]
    if weight.shape[:2] != (3, 3) or any(node.attrs[name] != value for name, value in PLAIN.items()):
        return None
    if any(n % 16 for n in weight.shape[2:]) or min(*low, *high) < 0 or min(node.output.shape[1:3]) < 4:
        return None
    if x.dtype.name not in ("f32", "f64") or 0 in x.shape:
        return None
    return ops.filter_tiles(Operand(x), filter_weight(Operand(weight)), low, high)


_TABLE = Table((By("a 3 × 3 convolution, four outputs at a time", (ops.convolve,), _by_tiles),))
