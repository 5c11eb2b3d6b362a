"""A group of operations that run as one kernel: a node with a graph inside. Only the fusion pass makes these."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import OpError, ShapeError
from ..graph import Graph, evaluate
from ..interp import Builder
from ..op import Kind, Op, as_tuple
from ..types import TensorType
from .define import Prepared, attributes, lift

__all__ = ["fused"]

STYLES = ("pointwise", "reduce", "contract")


def _prepare(*operands: Any, body: Graph | Callable[..., Any], style: str) -> Prepared:
    if style not in STYLES:
        raise OpError(f"fused: style {style!r}, expected one of {STYLES}")
    lifted = tuple(map(lift, operands))
    return lifted, {"body": body if isinstance(body, Graph) else _traced(body, lifted), "style": style}


def _traced(function: Callable[..., Any], operands: tuple[Any, ...]) -> Graph:
    """The body as a graph, where the text of a program is run as it stands."""
    build = Builder(function.__name__)
    with build:
        result = function(*map(build.input, inspect.signature(function).parameters, (o.type for o in operands)))
    return build.finish(as_tuple(result))


def _infer(*types: TensorType, body: Graph, style: str) -> tuple[TensorType, ...]:
    if types != tuple(v.type for v in body.inputs):
        raise ShapeError(f"fused {body.name}: its operands are ({', '.join(map(str, types))}), its body takes "
                         f"({', '.join(str(v.type) for v in body.inputs)})")
    return tuple(v.type for v in body.outputs)


def _eval(*arrays: np.ndarray, body: Graph, style: str) -> tuple[np.ndarray, ...]:
    return tuple(evaluate(body, arrays))


fused = Op(name="fused", kind=Kind.FUSED, doc="run the graph `body` as one kernel", prepare=attributes(_prepare),
           infer=_infer, eval=_eval)
