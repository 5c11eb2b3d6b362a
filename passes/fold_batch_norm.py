"""Fold a batch norm that follows a convolution or a linear layer into its weight and bias, where all are known.

    FoldBatchNorm()(graph)

With s = weight / √(var + eps), which is one number for each output channel,

    batch_norm(conv2d(x, w) + c) = conv2d(x, w · s) + (c - mean) · s + bias

When the statistics, the weight and c depend on bound inputs alone (a model in evaluation), the right side costs a call
nothing: `HoistBound` has w · s and the sum computed once. In training the statistics depend on x, and nothing is
folded. Half-precision weights are left alone, for w · s would be rounded once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from tinytorch.ir import Graph, Node, Operand, Value, ops

from .known import bound_sources
from .rewrite import By, Edit, Table, rewrite

LAYERS = (ops.conv2d, ops.linear)  # whose output channels are axis 0 of the weight and axis 1 of the result


@dataclass(frozen=True)
class FoldBatchNorm:
    """No batch norm after a layer, if what it multiplies by is known."""

    def __call__(self, graph: Graph, /) -> Graph:
        known = frozenset(bound_sources(graph, graph.bound))
        return rewrite(graph, Table((By("bn(conv(x, w) + c) = conv(x, w s) + (c - mean) s + bias", (ops.batch_norm,),
                                        partial(_folded, known=known)),)))


def _folded(node: Node, edit: Edit, known: frozenset[Value]) -> Any:
    y, *given = node.inputs
    if not known.issuperset(given) or node.output.dtype.name not in ("f32", "f64"):
        return None
    plus = edit.made_by(y, ops.add)
    c: Any = 0.0
    if plus is not None and _is_only_here(y, edit):
        y, other = plus.inputs if plus.inputs[1] in known else plus.inputs[::-1]
        if other not in known:
            return None
        c = Operand(other)
    layer = edit.made_by(y, *LAYERS)
    if layer is None or not _is_only_here(y, edit) or not known.issuperset(layer.inputs[1:]):
        return None
    if len({v.dtype for v in (y, *layer.inputs, *given)}) > 1 or len(y.shape) != len(layer.inputs[1].shape):
        return None  # a stack of matrices has its channels elsewhere
    mean, var, weight, bias = map(Operand, given)
    return _written(layer, c, mean, weight * ops.rsqrt(var + node.attrs["eps"]), bias)


def _is_only_here(value: Value, edit: Edit) -> bool:
    """Whether one operand of the graph as it was given is this value."""
    return edit.uses.get(value) == 1


def _written(layer: Node, c: Any, mean: Any, s: Any, bias: Any) -> Any:
    x, w, *inner = map(Operand, layer.inputs)  # a linear layer may have a bias inside
    along = (1, -1, *(1,) * (w.ndim - 2))
    mean, bias, scale = (ops.reshape(t, along) if t.ndim else t for t in (mean, bias, s))
    shift = c + ops.reshape(inner[0], along) if inner else c
    weight = w * (ops.reshape(s, (-1, *(1,) * (w.ndim - 1))) if s.ndim else s)
    return layer.op(x, weight, **layer.attrs) + ((shift - mean) * scale + bias)
