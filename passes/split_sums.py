"""Fold a big tensor to one number in two steps, so that all threads take part.

    SplitSums()(graph)          # Σ over axes (0, 1) of f32[4096, 4096] becomes Σ over axis 1, then Σ of 4096 numbers

A fold to one number is one work item. Folding all axes but the first leaves one for each of its places. Sizes alone
decide, so the result does not depend on the number of threads; the sum of sums has a smaller error than one long sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Graph, Node, Operand

from .rewrite import By, Edit, Table, rewrite
from .simplify_shapes import REDUCTIONS

BIG = 1 << 16  # elements; fewer are folded as fast by one thread as the others are woken
MOST_LEFT = 1 << 14  # numbers that the second step folds


@dataclass(frozen=True)
class SplitSums:
    """Two folds for one of a big tensor to a single number."""

    def __call__(self, graph: Graph, /) -> Graph:
        return rewrite(graph, _TABLE)


def _split(node: Node, edit: Edit) -> Any:
    shape = node.inputs[0].shape
    if node.output.type.size != 1 or math.prod(shape) < BIG:
        return None
    first = next(a for a, n in enumerate(shape) if n > 1)
    rest = tuple(a for a in node.attrs["axis"] if a > first and shape[a] > 1)
    if not rest or not 8 <= shape[first] <= MOST_LEFT or len(node.attrs["axis"]) < len(shape):
        return None
    partial = node.op(Operand(node.inputs[0]), rest, keepdims=True)
    return node.op(partial, node.attrs["axis"], keepdims=node.attrs["keepdims"])


_TABLE = Table((By("Σ over all = Σ over the first axis of Σ over the others", REDUCTIONS, _split),))
