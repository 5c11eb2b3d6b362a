"""Replace computations by simpler ones that mean the same: one table of equations.

    Simplify()(graph)
    for rule in RULES: print(rule.text)

The equations hold for nan and the infinities (so x · 0 = 0, x - x = 0 and x / x = 1 are not among them), and up to one
rounding for those that say so. As in other compilers, three edges are accepted: the sign of a zero (x + 0, 0 - x,
-(x - y)), log(exp x) = x where exp would overflow or vanish, and x**½ at -∞ and -0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tinytorch.ir import DType, Graph, Node, Operand, Value, ops

from .rewrite import By, Edit, Rule, Table, as_number, rewrite
from .simplify_shapes import SHAPE_RULES, VIEW_RULES


@dataclass(frozen=True)
class Simplify:
    """Apply `RULES` until none fits. `detach=True` also drops `detach`, which means something to gradients only."""

    detach: bool = True

    def __call__(self, graph: Graph, /) -> Graph:
        return rewrite(graph, _table(self.detach))


@cache
def _table(detach: bool) -> Table:
    return Table((*RULES, *((DETACH,) if detach else ())))


def _is_float(*operands: Any) -> bool:
    return all(x.dtype.is_float for x in operands)


# -- constants ---------------------------------------------------------------------------------------------------------


def _number(value: float, dtype: DType) -> Any:
    """A constant, if `value` is an ordinary number of that dtype: finite, and not so small that it lost digits."""
    with np.errstate(over="ignore"):
        array = np.asarray(value, dtype.np)
    ordinary = not dtype.is_float or value == 0 or _SMALLEST[dtype.name] <= abs(float(array)) < math.inf
    return Operand(array) if ordinary else None


_SMALLEST = {"f64": 2.0**-1022, "f32": 2.0**-126, "bf16": 2.0**-126, "f16": 2.0**-14}  # normal numbers


def _with_constant(node: Node | None, edit: Edit) -> tuple[Value, float] | None:
    """(x, c) of a node that combines x with a constant number c, one of them first."""
    if node is None:
        return None
    x, y = node.inputs
    if y in edit.scalars and x not in edit.scalars:
        return x, edit.scalars[y]
    return (y, edit.scalars[x]) if x in edit.scalars and y not in edit.scalars else None


def _join_constants(node: Node, edit: Edit) -> Any:
    outer = _with_constant(node, edit)
    below = edit.producer.get(outer[0]) if outer else None
    inner = _with_constant(below, edit) if below is not None and below.op is node.op else None
    if outer is None or inner is None:
        return None
    (_, c2), (x, c1) = outer, inner
    if node.op is ops.add and x.dtype.is_float and c1 * c2 < 0:
        return None  # (x + 10²⁰) - 10²⁰ rounds on purpose
    with np.errstate(all="ignore"):
        joined = as_number(node.op.eval(np.asarray(c1, x.dtype.np), np.asarray(c2, x.dtype.np)))
    number = _number(joined, x.dtype)
    if number is None or (joined == 0 and node.op is ops.mul and x.dtype.is_float):
        return None  # x · 0 is not what (x · 10³⁰) · 0 is
    return node.op(Operand(x), number)


def _divide_by_power_of_two(node: Node, edit: Edit) -> Any:
    c = edit.scalars.get(node.inputs[1], 0.0)
    if c == 0 or not math.isfinite(c) or abs(math.frexp(c)[0]) != 0.5:
        return None
    inverse = _number(1 / c, node.output.dtype)
    return None if inverse is None else ops.mul(Operand(node.inputs[0]), inverse)


def _negate_constant(node: Node, edit: Edit) -> Any:
    below = edit.producer.get(node.inputs[0])
    found = _with_constant(below, edit) if below is not None and below.op is ops.mul else None
    dtype = node.output.dtype
    if found is None or not dtype.is_float:
        return None
    return ops.mul(Operand(found[0]), Operand(np.asarray(-found[1], dtype.np)))


# -- conversions -------------------------------------------------------------------------------------------------------

# bits, without the sign
_DIGITS = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8, "i8": 7, "u8": 8, "i16": 15, "i32": 31, "i64": 63}


def is_lossless(a: DType, b: DType) -> bool:
    """Whether every number of type `a` is one of type `b`."""
    if a is b or a.kind == "b":
        return True
    if a.is_float:
        return b.is_float and a.itemsize < b.itemsize
    if b.kind == "b" or (a.kind, b.kind) == ("i", "u"):
        return False
    return _DIGITS[a.name] <= _DIGITS[b.name]


def _cast(node: Node, edit: Edit) -> Any:
    x, dtype = node.inputs[0], node.attrs["dtype"]
    if x.dtype is dtype:
        return Operand(x)
    below = edit.made_by(x, ops.cast)
    if below is not None and is_lossless(below.inputs[0].dtype, x.dtype):
        return ops.cast(Operand(below.inputs[0]), dtype)
    return None


# -- the table ---------------------------------------------------------------------------------------------------------

RULES: tuple[Rule | By, ...] = (
    Rule("x + 0 = x", lambda x: x + 0.0, lambda x: x),
    Rule("x - 0 = x", lambda x: x - 0.0, lambda x: x),
    Rule("0 - x = -x", lambda x: 0.0 - x, lambda x: -x),
    Rule("x · 1 = x", lambda x: x * 1.0, lambda x: x),
    Rule("x · -1 = -x", lambda x: x * -1.0, lambda x: -x),
    Rule("x / 1 = x", lambda x: x / 1.0, lambda x: x),
    Rule("-(-x) = x", lambda x: ops.neg(-x), lambda x: x),
    Rule("x + (-y) = x - y", lambda x, y: x + (-y), lambda x, y: x - y),
    Rule("x - (-y) = x + y", lambda x, y: x - (-y), lambda x, y: x + y),
    Rule("-(x - y) = y - x", lambda x, y: -(x - y), lambda x, y: y - x),
    Rule("(-x)(-y) = x y", lambda x, y: (-x) * (-y), lambda x, y: x * y),
    Rule("(-x) / (-y) = x / y", lambda x, y: (-x) / (-y), lambda x, y: x / y),
    Rule("(-x) y = -(x y)", lambda x, y: (-x) * y, lambda x, y: -(x * y)),
    Rule("(-x) / y = -(x / y)", lambda x, y: (-x) / y, lambda x, y: -(x / y)),
    Rule("x / (-y) = -(x / y)", lambda x, y: x / (-y), lambda x, y: -(x / y)),
    By("-(x c) = x (-c)", (ops.neg,), _negate_constant),
    By("x / c = x · c⁻¹ if c is a power of two", (ops.div,), _divide_by_power_of_two),
    By("(x ∘ c₁) ∘ c₂ = x ∘ (c₁ ∘ c₂), up to a rounding", (ops.add, ops.mul, ops.maximum, ops.minimum),
       _join_constants),

    Rule("x¹ = x", lambda x: ops.pow(x, 1.0), lambda x: x),
    Rule("x² = x x", lambda x: ops.pow(x, 2.0), lambda x: x * x),
    Rule("x³ = x x x, up to a rounding", lambda x: ops.pow(x, 3.0), lambda x: x * x * x),
    Rule("x⁻¹ = 1 / x", lambda x: ops.pow(x, -1.0), lambda x: 1.0 / x, when=_is_float),
    Rule("x^½ = √x", lambda x: ops.pow(x, 0.5), lambda x: ops.sqrt(x), when=_is_float),
    Rule("x^-½ = 1 / √x", lambda x: ops.pow(x, -0.5), lambda x: ops.rsqrt(x), when=_is_float),
    Rule("1 / √x = rsqrt x", lambda x: 1.0 / ops.sqrt(x), lambda x: ops.rsqrt(x), when=_is_float),
    Rule("log(eˣ) = x", lambda x: ops.log(ops.exp(x)), lambda x: x),
    Rule("|-x| = |x|", lambda x: abs(-x), lambda x: abs(x)),
    Rule("||x|| = |x|", lambda x: abs(abs(x)), lambda x: abs(x)),

    Rule("max(x, x) = x", lambda x: ops.maximum(x, x), lambda x: x),
    Rule("min(x, x) = x", lambda x: ops.minimum(x, x), lambda x: x),
    Rule("c ? x : x = x", lambda c, x: ops.where(c, x, x), lambda c, x: x),
    Rule("¬c ? x : y = c ? y : x", lambda c, x, y: ops.where(ops.logical_not(c), x, y),
         lambda c, x, y: ops.where(c, y, x), when=lambda c, x, y: c.dtype.kind == "b"),
    Rule("¬¬c = c", lambda c: ops.logical_not(ops.logical_not(c)), lambda c: c),

    By("cast of what has the type; cast of a cast that lost nothing", (ops.cast,), _cast),
    *VIEW_RULES,
    *SHAPE_RULES,
)

DETACH = Rule("detach x = x", lambda x: ops.detach(x), lambda x: x)
