"""Elementwise ops: one line of meaning, one of kernel text, one of gradient.

In kernel text `{0}` is the first operand and `{T}` the name of its element type (`f32`), so `exp_{T}({0})` calls
`vecmath.exp_f32`. In gradients `g` is the cotangent of the result `out`; the engine sums over broadcast axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype
from ..errors import DTypeError
from ..op import Kind, Op
from ..types import TensorType, broadcast_shapes
from .define import Prepared, attributes, lift, pointwise
from .leading import aligned

__all__ = [
    "abs", "add", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "cast", "ceil", "cos", "detach", "div",
    "eq", "erf", "exp", "expm1", "floor", "floor_div", "ge", "gt", "in_range", "le", "left_shift", "log", "log1p",
    "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "maximum", "minimum", "mod", "mul", "ne", "neg",
    "pow", "right_shift", "round", "rsqrt", "sigmoid", "sign", "sin", "sqrt", "sub", "tanh", "where",
]


def _flat(g: Any, out: Any, *operands: Any) -> tuple[None, ...]:
    """No gradient for any operand: the op is constant nearly everywhere, or is meant to stop gradients."""
    return (None,) * len(operands)


# -- arithmetic --------------------------------------------------------------------------------------------------------

add = pointwise("add", np.add, "{0} + {1}", "x + y", commutative=True, vjp=lambda g, out, x, y: (g, g))
sub = pointwise("sub", np.subtract, "{0} - {1}", "x - y", vjp=lambda g, out, x, y: (g, -g))
mul = pointwise("mul", np.multiply, "{0} * {1}", "x * y", commutative=True,
                vjp=lambda g, out, x, y: (None if x.is_constant else g * y, None if y.is_constant else g * x))
div = pointwise("div", np.true_divide, "{0} / {1}", "x / y",
                vjp=lambda g, out, x, y: (g / y, None if y.is_constant else -g * out / y))
neg = pointwise("neg", np.negative, "-{0}", "-x", vjp=lambda g, out, x: (-g,))
abs = pointwise("abs", np.absolute, "absolute_{T}({0})", "|x|", vjp=lambda g, out, x: (g * sign(x),))
sign: Op = pointwise("sign", np.sign, "sign_{T}({0})", "-1, 0 or 1", vjp=_flat)
floor_div = pointwise("floor_div", np.floor_divide, "floor_div_{T}({0}, {1})", "⌊x / y⌋", vjp=_flat)
mod = pointwise("mod", np.remainder, "mod_{T}({0}, {1})", "x - y⌊x / y⌋, with the sign of y",
                vjp=lambda g, out, x, y: (g, -g * floor(x / y)))
pow: Op = pointwise("pow", np.power, "pow_{T}({0}, {1})", "x to the power y", transcendental=True,
                    vjp=lambda g, out, x, y: (g * y * pow(x, y - 1),
                                              None if y.is_constant else g * out * log(where(x > 0, x, 1.0))))
maximum = pointwise("maximum", np.maximum, "maximum({0}, {1})",
                    "the greater; nan if either is; ties share the gradient", commutative=True,
                    vjp=lambda g, out, x, y: (g * _share(x, y, x > y), g * _share(x, y, x < y)))
minimum = pointwise("minimum", np.minimum, "minimum({0}, {1})", "the lesser; nan if either is; ties share the gradient",
                    commutative=True, vjp=lambda g, out, x, y: (g * _share(x, y, x < y), g * _share(x, y, x > y)))


def _share(x: Any, y: Any, wins: Any) -> Any:
    """1 where an operand wins, ½ at a tie, 0 elsewhere."""
    return where(eq(x, y), cast(0.5, x.dtype), cast(wins, x.dtype))


# -- rounding ----------------------------------------------------------------------------------------------------------

floor: Op = pointwise("floor", np.floor, "floor_{T}({0})", "round down", vjp=_flat)
ceil = pointwise("ceil", np.ceil, "ceil_{T}({0})", "round up", vjp=_flat)
round = pointwise("round", np.rint, "rint_{T}({0})", "round to the nearest, halves to even", vjp=_flat)

# -- transcendental ----------------------------------------------------------------------------------------------------

exp = pointwise("exp", np.exp, "exp_{T}({0})", "eˣ", transcendental=True, vjp=lambda g, out, x: (g * out,))
expm1 = pointwise("expm1", np.expm1, "expm1_{T}({0})", "eˣ - 1, exact near 0", transcendental=True,
                  vjp=lambda g, out, x: (g * (out + 1),))
log: Op = pointwise("log", np.log, "log_{T}({0})", "natural logarithm", transcendental=True,
                    vjp=lambda g, out, x: (g / x,))
log1p = pointwise("log1p", np.log1p, "log1p_{T}({0})", "log(1 + x), exact near 0", transcendental=True,
                  vjp=lambda g, out, x: (g / (x + 1),))
sqrt = pointwise("sqrt", np.sqrt, "sqrt_{T}({0})", "√x", vjp=lambda g, out, x: (g * 0.5 / out,))
rsqrt = pointwise("rsqrt", np.sqrt, "rsqrt_{T}({0})", "1 / √x", flops=2, eval=lambda x: np.asarray(1 / np.sqrt(x)),
                  vjp=lambda g, out, x: (g * -0.5 * out / x,))
sin = pointwise("sin", np.sin, "sin_{T}({0})", "sine", transcendental=True, vjp=lambda g, out, x: (g * cos(x),))
cos: Op = pointwise("cos", np.cos, "cos_{T}({0})", "cosine", transcendental=True, vjp=lambda g, out, x: (-g * sin(x),))
tanh = pointwise("tanh", np.tanh, "tanh_{T}({0})", "hyperbolic tangent", transcendental=True,
                 vjp=lambda g, out, x: (g * (1 - out * out),))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(e.dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _erf_eval(x: np.ndarray) -> np.ndarray:
    return (_erf(x.astype(np.float64)) if x.size else x).astype(np.exp(np.zeros(0, x.dtype)).dtype)


sigmoid = pointwise("sigmoid", np.exp, "sigmoid_{T}({0})", "1 / (1 + e⁻ˣ)", transcendental=True, eval=_sigmoid, flops=3,
                    vjp=lambda g, out, x: (g * out * (1 - out),))
erf = pointwise("erf", np.exp, "erf_{T}({0})", "error function 2/√π ∫₀ˣ exp(-t²) dt", transcendental=True,
                eval=_erf_eval, vjp=lambda g, out, x: (g * exp(-x * x) * (2 / math.sqrt(math.pi)),))

# -- comparison and logic ----------------------------------------------------------------------------------------------

eq = pointwise("eq", np.equal, "{0} == {1}", "x = y", commutative=True, vjp=_flat)
ne = pointwise("ne", np.not_equal, "{0} != {1}", "x ≠ y", commutative=True, vjp=_flat)
lt = pointwise("lt", np.less, "{0} < {1}", "x < y", vjp=_flat)
le = pointwise("le", np.less_equal, "{0} <= {1}", "x ≤ y", vjp=_flat)
gt = pointwise("gt", np.greater, "{0} > {1}", "x > y", vjp=_flat)
ge = pointwise("ge", np.greater_equal, "{0} >= {1}", "x ≥ y", vjp=_flat)
logical_not = pointwise("logical_not", np.logical_not, "negation({0})", "whether x is 0", vjp=_flat)
logical_and = pointwise("logical_and", np.logical_and, "truth({0}) & truth({1})", "whether both are not 0",
                        commutative=True, vjp=_flat)
logical_or = pointwise("logical_or", np.logical_or, "truth({0}) | truth({1})", "whether either is not 0",
                       commutative=True, vjp=_flat)
logical_xor = pointwise("logical_xor", np.logical_xor, "truth({0}) ^ truth({1})", "whether just one is not 0",
                        commutative=True, vjp=_flat)
bitwise_not = pointwise("bitwise_not", np.bitwise_not, "invert_{T}({0})", "the bits of x turned over")
bitwise_and = pointwise("bitwise_and", np.bitwise_and, "{0} & {1}", "bits that both have", commutative=True)
bitwise_or = pointwise("bitwise_or", np.bitwise_or, "{0} | {1}", "bits that either has", commutative=True)
bitwise_xor = pointwise("bitwise_xor", np.bitwise_xor, "{0} ^ {1}", "bits that just one has", commutative=True)
left_shift = pointwise("left_shift", np.left_shift, "shift_left_{T}({0}, {1})", "x · 2ʸ on integers")
right_shift = pointwise("right_shift", np.right_shift, "shift_right_{T}({0}, {1})", "⌊x / 2ʸ⌋ on integers")

# -- choosing and converting -------------------------------------------------------------------------------------------


def _where_prepare(condition: Any, x: Any, y: Any) -> Prepared:
    condition = lift(condition)
    (x, y), _ = maximum.prepare(x, y)  # the usual promotion of two operands
    return (cast(condition, as_dtype(bool)) if condition.dtype.kind != "b" else condition, x, y), {}


def _where_infer(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    return TensorType(maximum.infer(x, y).dtype, broadcast_shapes(condition.shape, x.shape, y.shape))


where: Op = Op(
    name="where", kind=Kind.POINTWISE, doc="x where `condition` holds, y elsewhere", scalar="select({0}, {1}, {2})",
    prepare=attributes(_where_prepare), infer=_where_infer, eval=lambda condition, x, y: np.where(condition, x, y),
    flops=lambda out, *types: out.size, vmap=aligned,
    vjp=lambda g, out, condition, x, y: (None, where(condition, g, 0.0), where(condition, 0.0, g)))


def _cast_eval(x: np.ndarray, *, dtype: DType) -> np.ndarray:
    return x.astype(dtype.np)


cast: Op = Op(
    name="cast", kind=Kind.POINTWISE, doc="the same numbers in another element type", scalar="{cast}({0})",
    prepare=attributes(lambda x, dtype: ((lift(x),), {"dtype": as_dtype(dtype)})), eval=_cast_eval,
    infer=lambda x, *, dtype: TensorType(dtype, x.shape), vmap=aligned,
    vjp=lambda g, out, x, *, dtype: (cast(g, x.dtype) if x.dtype.is_float else None,))

detach = Op(
    name="detach", kind=Kind.POINTWISE, doc="x itself, through which no gradient flows", eval=lambda x: x, scalar="{0}",
    prepare=attributes(lambda x: ((lift(x),), {})), infer=lambda x: x, vjp=_flat, vmap=aligned)


def _in_range_eval(x: np.ndarray, *, extent: int) -> np.ndarray:
    wrong = (x < 0) | (x >= extent)
    if wrong.any():
        raise IndexError(f"in_range: {x[wrong].flat[0]} is not from 0 to {extent - 1}")
    return x


def _in_range_infer(x: TensorType, *, extent: int) -> TensorType:
    if x.dtype.kind not in "iu":
        raise DTypeError(f"in_range({x}): expected integers")
    return x


in_range = Op(
    name="in_range", kind=Kind.POINTWISE, doc="x itself; IndexError if an element is not one of 0 … extent - 1",
    prepare=attributes(lambda x, extent: ((lift(x),), {"extent": int(extent)})),
    infer=_in_range_infer, eval=_in_range_eval,
    scalar="in_range({0}, {extent}, status)", vjp=_flat, vmap=aligned)
