"""A group of operations that run as one kernel: a node with a graph inside. Only the fusion pass makes these."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import OpError, ShapeError
from ..graph import Graph, evaluate
from ..op import Kind, Op
from ..types import TensorType
from .define import lift

__all__ = ["fused"]

STYLES = ("pointwise", "reduce", "contract")


def _prepare(*operands: Any, body: Graph, style: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if style not in STYLES:
        raise OpError(f"fused: style {style!r}, expected one of {STYLES}")
    return tuple(map(lift, operands)), {"body": body, "style": style}


def _infer(*types: TensorType, body: Graph, style: str) -> tuple[TensorType, ...]:
    if types != tuple(v.type for v in body.inputs):
        raise ShapeError(f"fused {body.name}: its operands are ({', '.join(map(str, types))}), its body takes "
                         f"({', '.join(str(v.type) for v in body.inputs)})")
    return tuple(v.type for v in body.outputs)


def _eval(*arrays: np.ndarray, body: Graph, style: str) -> tuple[np.ndarray, ...]:
    return tuple(evaluate(body, arrays))


def _flops(out: TensorType, *types: TensorType, body: Graph, style: str) -> int:
    return sum(node.op.flops(node.output.type, *(v.type for v in node.inputs), **node.attrs) for node in body.nodes)


fused = Op(name="fused", kind=Kind.FUSED, doc="run the graph `body` as one kernel", prepare=_prepare, infer=_infer, eval=_eval, flops=_flops)
