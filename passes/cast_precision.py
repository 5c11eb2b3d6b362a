"""Multiply in half precision: matrix products and convolutions take bf16 or f16, and still add up and give f32.

    CastPrecision("bf16")(graph)                    # products of pairs of bf16 (`ops.pair_matmul`, `ops.pair_convolve`)
    CastPrecision("f16")(graph)                     # operands are stored as f16
    nn.Rewritten(model, CastPrecision("bf16", weights=True))    # holds bf16 weights, half as big, and no others

What a product reads is rounded; all else stays f32: sums, norms, softmax, losses, the parameters themselves and their
gradients (Micikevicius et al., "Mixed precision training", ICLR 2018; Kalamkar et al., "A study of BFLOAT16 for deep
learning training", 2019). An op is a product by its kind, and so are the composites that are made of one (`linear`),
which are opened. In the graph of a training step the products of the backward pass are among them.

With u = 2⁻⁸ (bf16) or 2⁻¹¹ (f16, as far as its range goes: from 6·10⁻⁸ to 65504), an element of a result differs from
that of f32 by at most (2u + u²) Σ |x| |w|, and by how the sum is rounded.

    >>> from tinytorch.ir import Builder, f32, ops
    >>> build = Builder()
    >>> with build: y = ops.linear(build.input("x", f32[64, 32]), build.input("w", f32[48, 32]))
    >>> graph = CastPrecision("bf16")(build.finish([y]))
    >>> print(*(f"{node.op.name}: {node.output.type}" for node in graph.nodes if node.op.kind.launches), sep=", ")
    cast: bf16[64, 32], pack_pairs: bf16[16, 48, 2], pair_matmul: f32[64, 48]
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tinytorch.ir import DType, Graph, Kind, Node, Op, Operand, Value, bf16, f32, ops
from tinytorch.ir.cost import expansion
from tinytorch.ir.dtypes import as_dtype
from tinytorch.ir.errors import DTypeError
from tinytorch.ir.graph import substitute

from .fold_constants import frozen
from .known import bound_sources, evaluate_known, name_of
from .remove_dead import RemoveDead
from .rewrite import By, Edit, Table, rewrite


@dataclass(frozen=True)
class CastPrecision:
    """Products of rounded operands.

    Args:
        dtype: "bf16" or "f16".
        weights: whether what is made of bound inputs alone is computed now, and bound: a weight is then held in `dtype`
            and nowhere else. Without it, it is made of the parameter at each change, or call.
        least: in a product of two results, the fewest rows, columns and terms of a sum that pay for laying out pairs.
    Raises:
        DTypeError: for another dtype.
    """

    dtype: str = "bf16"
    weights: bool = False
    least: int = 32
    held: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)  # weights, by name

    def __post_init__(self) -> None:
        if self.dtype not in ("bf16", "f16"):
            raise DTypeError(f"CastPrecision(dtype={self.dtype!r}): products are cast to 'bf16' or 'f16'; "
                             "f32 is what they take without this pass")

    def __call__(self, graph: Graph, /) -> Graph:
        half = as_dtype(self.dtype)
        known = _Known(bound_sources(graph, graph.bound))
        product = partial(_in_pairs, least=self.least, known=known) if half is bf16 else partial(_rounded, half=half)
        made_of = tuple({node.op for node in graph.nodes if _is_made_of_products(node)})
        result = rewrite(graph, Table((By("x w = half(x) half(w)", PRODUCTS, product),
                                       By("a composite is what it is made of", made_of, _opened))))
        return self._with_bound_weights(result, half) if self.weights else result

    def _with_bound_weights(self, graph: Graph, half: DType) -> Graph:
        """Arrays in place of what is made of bound inputs alone, up to where it is rounded."""
        sources = bound_sources(graph, graph.bound)
        inside = {v for node in graph.nodes if node.output in sources and node.output.dtype is half
                  for v in node.inputs}
        weights = {v: Value(v.type, f"{name_of(graph, found)}_{half}") for v, found in sources.items()
                   if v in graph.producer and v.dtype is half and v not in inside}
        if not weights:
            return graph
        inputs = (*graph.inputs, *weights.values())
        renamed = graph.with_(nodes=tuple(substitute(graph.nodes, weights)), inputs=inputs,
                              bound={**graph.bound, **{v: np.zeros(0) for v in weights.values()}},
                              outputs=tuple(weights.get(v, v) for v in graph.outputs))
        names = {weight: renamed.names[new] for weight, new in weights.items()}  # distinct, the same for all sizes
        made = evaluate_known(graph, [weight for weight, name in names.items() if name not in self.held])
        self.held.update((names[weight], frozen(array)) for weight, array in made.items())
        arrays = {weights[weight]: self.held[name] for weight, name in names.items()}
        return RemoveDead()(renamed.with_(bound={**graph.bound, **arrays}))


@dataclass(frozen=True)
class _Known:
    """Which values depend on bound inputs alone, in a graph that is being rewritten."""

    values: Container[Value]

    def __call__(self, value: Value, edit: Edit) -> bool:
        stack = [value]
        while stack:
            value = stack.pop()
            if value not in self.values:
                node = edit.producer.get(value)
                if node is None:
                    return False
                stack += node.inputs
        return True


def _is_made_of_products(node: Node) -> bool:
    """Whether a node is defined by a product of f32, and has no kernel of its own."""
    op, types = node.op, tuple(v.type for v in node.inputs)
    if op.expand is None or any(t.dtype is not f32 for t in types) or op.native(*types, **node.attrs):
        return False
    return any(inner.op.kind is Kind.CONTRACT for inner in expansion(op, types, node.attrs).nodes)


def _opened(node: Node, edit: Edit) -> Any:
    assert node.op.expand is not None
    return node.op.expand(*map(Operand, node.inputs), **node.attrs) if _is_made_of_products(node) else None


def _rounded(node: Node, edit: Edit, half: DType) -> Any:
    """The product of what is rounded to `half`, and read as f32."""
    below = [edit.producer.get(v) for v in node.inputs]
    done = all(n is not None and n.op is ops.cast and n.inputs[0].dtype is half for n in below)
    if done or any(v.dtype is not f32 for v in node.inputs):
        return None
    return node.op(*(ops.cast(ops.cast(Operand(v), half), f32) for v in node.inputs), **node.attrs)


def _in_pairs(node: Node, edit: Edit, least: int, known: _Known) -> Any:
    """The product of pairs of bf16."""
    x, weight = node.inputs
    if x.dtype is not f32 or weight.dtype is not f32 or 0 in node.output.shape or node.op not in _IN_PAIRS:
        return None
    depth = node.op.flops(node.output.type, x.type, weight.type, **node.attrs) // (2 * node.output.type.size)
    columns = node.output.shape[-1]
    pays = min(node.output.type.size // columns, columns, depth) >= least or known(weight, edit)
    return _IN_PAIRS[node.op](Operand(x), Operand(weight), **node.attrs) if pays else None


def _matmul_in_pairs(x: Any, y: Any, transpose_x: bool, transpose_y: bool) -> Any:
    x = ops.transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)) if transpose_x else x
    if x.ndim < 2 or y.ndim != 2 or x.shape[-1] % 2:
        return None
    return ops.pair_matmul(ops.cast(x, bf16), ops.pack_pairs(ops.transpose(y) if transpose_y else y))


def _convolve_in_pairs(x: Any, weight: Any, stride: Any, low: Any, high: Any, dilation: Any, spread: Any,
                       groups: int) -> Any:
    if spread != (1, 1) or (groups > 1 and weight.shape[2] % 2):
        return None
    return ops.pair_convolve(ops.cast(x, bf16), ops.pairs(ops.cast(weight, bf16)), weight.shape[:2], stride, low, high,
                             dilation=dilation, groups=groups)


PRODUCTS = (ops.matmul, ops.convolve, ops.window_products)
_IN_PAIRS: dict[Op, Callable[..., Any]] = {ops.matmul: _matmul_in_pairs, ops.convolve: _convolve_in_pairs}
