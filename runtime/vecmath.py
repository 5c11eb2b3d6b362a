"""Elementary functions that LLVM vectorises: call `exp_f32(x)`, `tanh_f64(x)`, ... on scalars inside a kernel's loop.

`math.exp` and its kin are calls of a scalar libm and cost 10 to 20 times a loop of vector arithmetic. The functions
here have no branch, no table and no call, so LLVM inlines them and turns the loop that uses them into vector code for
any target. `<name>_f32` takes and gives float32, `<name>_f64` float64 (`sin cos pow` in float64 are libm's). Special
values are NumPy's, subnormals included. The greatest error, in units in the last place, stands in `BOUNDS`.

    @njit(error_model="numpy")
    def gelu(x, out):
        for i in range(x.size):
            out[i] = np.float32(0.5) * x[i] * (one + erf_f32(x[i] * half_sqrt2))

Why it stays exact under fast-math: LLVM's flags sit on instructions, and those of these functions keep their own (none)
when they are inlined into a kernel that has `reassoc` and `arcp`. They must say `fastmath=False`: Numba passes the
caller's flags on to a callee that says nothing. Fused multiply-adds are asked for by name with `fma`, which is
`a*b + c` on a machine without them; a constant whose product must be exact is split so that it is exact there as well.

Sources. Reduction of exp and log: W. J. Cody and W. Waite, *Software Manual for the Elementary Functions* (1980), with
the split ln 2 of Cephes and fdlibm. log1p: the scaled remainder of N. Juffa. erf: 1 - exp(-P(x)), after N. Juffa.
sin, cos: M. Payne and R. Hanek's reduction (1983), in float64 products. Polynomials: own minimax fits by Remez exchange
in 50 digits; the function and the interval stand at each.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types

from .convert import call_function
from .lowlevel import helper, select

__all__ = [
    "ceil_f32", "ceil_f64", "cos_f32", "cos_f64", "erf_f32", "erf_f64", "exp_f32", "exp_f64", "expm1_f32", "expm1_f64",
    "floor_f32", "floor_f64", "log1p_f32", "log1p_f64", "log_f32", "log_f64", "pow_f32", "pow_f64", "rint_f32",
    "rint_f64", "rsqrt_f32", "rsqrt_f64", "sigmoid_f32", "sigmoid_f64", "sin_f32", "sin_f64", "sqrt_f32", "sqrt_f64",
    "tanh_f32", "tanh_f64",
]

Function = Callable[..., Any]

# The greatest error in units in the last place, with and without a fused multiply-add.
BOUNDS: dict[str, float] = {
    "exp_f32": 1.25, "expm1_f32": 1.5, "log_f32": 1.0, "log1p_f32": 1.75, "tanh_f32": 1.5, "sigmoid_f32": 2.0,
    "erf_f32": 1.25, "sin_f32": 1.75, "cos_f32": 1.75, "pow_f32": 0.75, "sqrt_f32": 0.5, "rsqrt_f32": 1.5,
    "exp_f64": 1.25, "expm1_f64": 1.5, "log_f64": 1.0, "log1p_f64": 1.75, "tanh_f64": 1.5, "sigmoid_f64": 2.0,
    "erf_f64": 1.25, "sin_f64": 1.0, "cos_f64": 1.0, "pow_f64": 1.0, "sqrt_f64": 0.5, "rsqrt_f64": 1.5,
}

jit = njit(error_model="numpy", fastmath=False, forceinline=True)


# Primitives: one LLVM instruction each in a kernel, plain NumPy under NUMBA_DISABLE_JIT=1.

def _operation(name: str, plain: Function) -> Any:
    """The LLVM operation `name` of one float, e.g. `llvm.sqrt`."""
    @helper(plain)
    def operation(x: Any) -> Any:
        def emit(b: Any, values: Any, sig: Any) -> Any:
            return call_function(b, f"{name}.f{x.bitwidth}", values[0].type, values)
        return x(x), emit
    return operation


fabs = _operation("llvm.fabs", np.abs)
sqrt_f32 = sqrt_f64 = _operation("llvm.sqrt", np.sqrt)
floor_f32 = floor_f64 = _operation("llvm.floor", np.floor)
ceil_f32 = ceil_f64 = _operation("llvm.ceil", np.ceil)
rint_f32 = rint_f64 = _operation("llvm.rint", np.rint)


@helper(np.copysign)
def copysign(x: Any, sign: Any) -> Any:
    """|x| with the sign of `sign`."""
    def emit(b: Any, values: Any, sig: Any) -> Any:
        return call_function(b, f"llvm.copysign.f{x.bitwidth}", values[0].type, values)
    return x(x, x), emit


def _emit_fma(b: Any, *values: Any) -> Any:
    bits = 64 if isinstance(values[0].type, ir.DoubleType) else 32
    return call_function(b, f"llvm.fmuladd.f{bits}", values[0].type, list(values))


@helper(lambda a, b, c: a * b + c)
def fma(a: Any, b: Any, c: Any) -> Any:
    """a*b + c, rounded once where the machine can."""
    def emit(builder: Any, values: Any, sig: Any) -> Any:
        return _emit_fma(builder, *values)
    return a(a, a, a), emit


def polynomial(*coefficients: float) -> Any:
    """x -> c0 + c1 x + c2 x^2 + ..., by Horner's rule, in the type of x."""
    *others, last = coefficients

    def plain(x: Any) -> Any:
        value = type(x)(last)
        for c in reversed(others):
            value = value * x + type(x)(c)
        return value

    @helper(plain)
    def horner(x: Any) -> Any:
        def emit(b: Any, values: Any, sig: Any) -> Any:
            value = ir.Constant(values[0].type, last)
            for c in reversed(others):
                value = _emit_fma(b, value, values[0], ir.Constant(values[0].type, c))
            return value
        return x(x), emit
    return horner


def _bitcast(target: dict[Any, Any], plain: Function) -> Any:
    """The same bits as another type. Unsigned integers, because their right shift brings in zeros."""
    @helper(plain)
    def bitcast(x: Any) -> Any:
        def emit(b: Any, values: Any, sig: Any) -> Any:
            memory = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
            return b.bitcast(values[0], memory.get(target[x]) or ir.IntType(x.bitwidth))
        return target[x](x), emit
    return bitcast


to_bits = _bitcast({types.float32: types.uint32, types.float64: types.uint64},
                   lambda x: x.view(np.uint32 if x.itemsize == 4 else np.uint64))
from_bits = _bitcast({types.uint32: types.float32, types.uint64: types.float64},
                     lambda x: x.view(np.float32 if x.itemsize == 4 else np.float64))


@dataclass(frozen=True)
class Width:
    """What the formulas need to know about a float type, and the polynomials for its precision."""
    float: Any
    bits: Any                 # the unsigned integer of the same size
    mantissa: int             # stored bits of the significand
    bias: int                 # of the exponent
    log2e: Any
    ln2_high: Any             # ends in zero bits: its product with any exponent is exact
    ln2_low: Any
    exp_least: float          # exp is 0 below, and infinite above exp_greatest
    exp_greatest: float
    tanh_one: float           # tanh is 1 above
    erf_one: float            # erf is 1 above
    exp_tail: Function        # (exp(r) - 1 - r) / r^2             on |r| <= ln(2)/2
    log_tail: Function        # (log1p(f) - f + f^2/2) / f^3       on |f| <= 1/3
    tanh_near: Function       # (tanh(x) - x) / x^3, of x^2        on 0 <= x <= 0.6
    erf_near: Function        # erf(x)/x - 1, of x^2               on 0 <= x <= 0.9 (f32), 1 (f64)
    erf_far: Function         # log(1 - erf(x))                    on 0.9 or 1 <= x <= erf_one
    erf_split: float


F32 = Width(
    np.float32, np.uint32, 23, 127, np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4),
    exp_least=-105.0, exp_greatest=89.0, tanh_one=10.0, erf_one=3.95, erf_split=0.9,
    exp_tail=polynomial(0.49999997, 0.16666542, 0.041667204, 0.008366692, 0.0013882489),
    log_tail=polynomial(0.33333215, -0.24999797, 0.20010407, -0.1668049, 0.14005844, -0.121842325, 0.1398457,
                        -0.12891822),
    tanh_near=polynomial(-0.333333, 0.13331924, -0.05378383, 0.020795973, -0.005895159),
    erf_near=polynomial(0.12837915, -0.37612525, 0.11282141, -0.026778908, 0.0050119627, -0.00060903595),
    erf_far=polynomial(-0.00016645069, -1.1277972, -0.6369761, -0.10411365, 0.0223152, -0.003065487, 0.00019821929),
)
F64 = Width(
    np.float64, np.uint64, 52, 1023, np.float64(1.4426950408889634), np.float64(6.93147180369123816490e-01),
    np.float64(1.90821492927058770002e-10),
    exp_least=-746.0, exp_greatest=710.0, tanh_one=22.0, erf_one=5.95, erf_split=1.0,
    exp_tail=polynomial(
        0.5, 0.16666666666666677, 0.041666666666666505, 0.00833333333332145, 0.0013888888888963888,
        0.00019841269886660038, 2.4801587170549194e-05, 2.7557243601041486e-06, 2.755740349265431e-07,
        2.510927197114404e-08, 2.0875325917040374e-09),
    log_tail=polynomial(
        0.3333333333333323, -0.2500000000001334, 0.2000000000005471, -0.1666666666293049, 0.14285714276532302,
        -0.12500000388984658, 0.11111111840533652, -0.0999997929721742, 0.09090876588945558, -0.08333972068647952,
        0.07693189030714445, -0.07130794502221523, 0.06651599566391612, -0.0639087254991597, 0.06044773727579201,
        -0.04573687899945141, 0.04204207754634945, -0.0862448005792116, 0.08449132659336851),
    tanh_near=polynomial(
        -0.33333333333333126, 0.1333333333329966, -0.053968253949294206, 0.02186948800253365, -0.008863226777126644,
        0.0035920373770177588, -0.001455215352756383, 0.000587188375135657, -0.000230396752983557,
        7.931388651168558e-05, -1.717869407380435e-05),
    erf_near=polynomial(
        0.12837916709551256, -0.3761263890318352, 0.11283791670944185, -0.02686617064311148, 0.005223977606118576,
        -0.0008548325929319783, 0.00012055293577066666, -1.492471230531065e-05, 1.6447131613087193e-06,
        -1.6206314085344617e-07, 1.3710981835032562e-08, -7.779471205810618e-10),
    erf_far=polynomial(
        -5.028119382632892e-07, -1.128374089847332, -0.6366436263990293, -0.10270344424942802, 0.01899018797995786,
        0.0004106150704179022, -0.0019159297520032423, 0.0007706321565228187, -0.00013504336643044084,
        -2.0270145437392246e-05, 2.2823868611794906e-05, -8.667583829873181e-06, 2.1357770656495193e-06,
        -3.733207201167026e-07, 4.642521451699172e-08, -3.934469196006019e-09, 2.0450792925729426e-10,
        -4.92892496042885e-12),
)


def _exponentials(width: Width) -> tuple[Function, Function, Function, Function, Function]:
    """exp, expm1, tanh, sigmoid and erf. All take x = n ln2 + r with |r| <= ln(2)/2, so that exp(x) = 2^n exp(r)."""
    F, U, mantissa = width.float, width.bits, width.mantissa
    log2e, minus_high, minus_low = width.log2e, -width.ln2_high, -width.ln2_low
    tail, tanh_near, erf_near, erf_far = width.exp_tail, width.tanh_near, width.erf_near, width.erf_far
    half, one, two = F(0.5), F(1), F(2)
    least, greatest, least_expm1 = F(width.exp_least), F(width.exp_greatest), F(-64)
    tanh_one, erf_one, erf_split = F(width.tanh_one), F(width.erf_one), F(width.erf_split)
    tanh_split, sigmoid_one, tiny = F(0.6), F(-40), F(2.0 ** -60)

    # Adding `round_` rounds to an integer n and leaves n + bias in the lowest bits; shifted up, they are 2^n.
    # A result may be as great as 2^bias and as small as 2^-(bias + mantissa): it is made shifted and scaled back.
    shift = (width.bias + 1) // 2
    round_ = F(1.5 * 2.0 ** mantissa + width.bias)
    round_down, scale_up = F(round_ - shift), F(2.0 ** shift)
    round_up, scale_down = F(round_ + shift), F(2.0 ** -shift)
    round_half = F(round_ - 1)

    @jit
    def reduce(x: Any, rounder: Any) -> Any:
        """r; what rounding took from r; 2^n, shifted by `rounder`."""
        t = fma(x, log2e, rounder)
        n = t - rounder
        exact = fma(n, minus_high, x)
        r = fma(n, minus_low, exact)
        return r, fma(n, minus_low, exact - r), from_bits(U(to_bits(t) << mantissa))

    @jit
    def scaled_exp(x: Any, rounder: Any) -> Any:
        r, _, power = reduce(x, rounder)
        return (fma(r * r, tail(r), r) + one) * power

    @jit
    def exp(x: Any) -> Any:
        x = select(x > greatest, greatest, x)  # a NaN passes
        x = select(x < least, least, x)
        negative = x < F(0)
        return scaled_exp(x, select(negative, round_up, round_down)) * select(negative, scale_down, scale_up)

    @jit
    def expm1(x: Any) -> Any:
        y = select(x > greatest, greatest, x)
        r, low, power = reduce(select(y < least_expm1, least_expm1, y), round_half)
        y = two * fma(power, fma(r * r, tail(r), low), fma(power, r, power - half))  # power: 2^(n-1), never infinite
        return select(fabs(x) < tiny, x, y)  # keeps -0 and subnormals

    @jit
    def tanh(x: Any) -> Any:
        a = fabs(x)
        z = a * a
        far = one - two / (scaled_exp(two * select(a > tanh_one, tanh_one, a), round_) + one)
        return copysign(select(a < tanh_split, fma(a * z, tanh_near(z), a), far), x)

    @jit
    def sigmoid(x: Any) -> Any:
        y = select(-x > -least, -least, -x)
        r, _, power = reduce(select(y < sigmoid_one, sigmoid_one, y), round_down)
        total = power + scale_down  # exp(-x) and the 1 beside it are both scaled, so that neither overflows
        lost = (power - total) + scale_down
        return scale_down / (total + fma(power, fma(r * r, tail(r), r), lost))  # 1/(exp(-x) + 1)

    @jit
    def erf(x: Any) -> Any:
        a = fabs(x)
        far = one - scaled_exp(erf_far(select(a > erf_one, erf_one, a)), round_)
        return select(a < erf_split, fma(x, erf_near(x * x), x), copysign(far, x))

    return exp, expm1, tanh, sigmoid, erf


def _logarithms(width: Width) -> tuple[Function, Function, Function]:
    """split, log and log1p. All take the argument as 2^e (1 + f), with 2/3 <= 1 + f < 4/3."""
    F, U, mantissa = width.float, width.bits, width.mantissa
    ln2_high, ln2_low, tail = width.ln2_high, width.ln2_low, width.log_tail
    zero, one, quarter, half = F(0), F(1), F(0.25), F(0.5)
    inf, nan, tiny = F(np.inf), F(np.nan), F(2.0 ** -60)
    smallest, scale, scale_bits = F(2.0 ** (1 - width.bias)), F(2.0 ** (mantissa + 1)), F(mantissa + 1)
    one_bits = U(width.bias << mantissa)
    above = U(one_bits - F(2 / 3).view(U))  # moves the step of the exponent from 1 to 2/3
    exponent = U((2 * width.bias + 1) << mantissa)
    four = U((2 * width.bias + 2) << mantissa)  # the bits of 4, and the bias
    ulp_one = U((width.bias + mantissa) << mantissa)  # the bits of 2^mantissa, whose ulp is 1
    unbias = F(2.0 ** mantissa + width.bias)

    @jit
    def power_of(x: Any) -> Any:
        """2^e as bits, and e."""
        moved = U(to_bits(x) + above)
        return U(moved & exponent), from_bits(U((moved >> mantissa) + ulp_one)) - unbias

    @jit
    def split(x: Any) -> Any:
        """(e, f) of a normal number x > 0."""
        power, e = power_of(x)
        return e, from_bits(U(U(to_bits(x) + one_bits) - power)) - one

    @jit
    def combine(e: Any, f: Any) -> Any:
        """e ln2 + f - f^2/2 + f^3 tail(f), the small parts first."""
        return fma(e, ln2_high, f + fma(e, ln2_low, f * f * fma(f, tail(f), -half)))

    @jit
    def log(x: Any) -> Any:
        subnormal = x < smallest
        e, f = split(select(subnormal, x * scale, x))
        y = combine(e - select(subnormal, scale_bits, zero), f)
        return select(x > zero, select(x < inf, y, x), select(x == zero, -inf, nan))

    @jit
    def log1p(x: Any) -> Any:
        power, e = power_of(one + x)
        inverse = from_bits(U(four - power))  # 4 / 2^e, which is never subnormal
        f = from_bits(U(U(to_bits(x) + one_bits) - power)) + fma(quarter, inverse, -one)  # (1 + x)/2^e - 1
        a = fabs(x)
        y = select((a >= tiny) & (a < inf), combine(e, f), x)  # keeps -0, subnormals, inf and NaN
        return select(x > -one, y, select(x == -one, -inf, nan))

    return split, log, log1p


exp_f32, expm1_f32, tanh_f32, sigmoid_f32, erf_f32 = _exponentials(F32)
exp_f64, expm1_f64, tanh_f64, sigmoid_f64, erf_f64 = _exponentials(F64)
_, log_f32, log1p_f32 = _logarithms(F32)
_split_f64, log_f64, log1p_f64 = _logarithms(F64)
rsqrt_f32 = jit(lambda x: np.float32(1) / sqrt_f32(x))
rsqrt_f64 = jit(lambda x: np.float64(1) / sqrt_f64(x))
sin_f64, cos_f64, pow_f64 = jit(lambda x: np.sin(x)), jit(lambda x: np.cos(x)), jit(lambda x, y: np.power(x, y))

# sin and cos of a float32: the angle in turns, x/(2 pi) mod 1, is a sum of products that float64 holds exactly,
# because x has 24 bits and each part of 1/(2 pi) has 29. Whole turns are dropped from each before they are added.
_TURN = tuple(float.fromhex(part) for part in (
    "0x1.45f306cp-3", "0x1.c9c882ap-31", "0x1.4fe13a8p-61", "0x1.f47d4d3p-88", "0x1.dc0db62p-118",
    "0x1.2b32788720840p-147"))
_T0, _T1, _T2, _T3, _T4, _T5 = (np.float64(part) for part in _TURN)
_TWO_PI, _FOUR, _QUARTER = np.float64(2 * np.pi), np.float64(4), np.float64(0.25)
_ROUND_F64 = np.float64(1.5 * 2.0 ** 52)
_sin_tail = polynomial(-0.16666655, 0.008332158, -0.0001951494)        # (sin(r) - r)/r^3, of r^2,     |r| <= pi/4
_cos_tail = polynomial(0.041666646, -0.0013887313, 2.4432766e-05)      # (cos(r) - 1 + r^2/2)/r^4, of r^2
_fraction = jit(lambda x: x - rint_f64(x))


@jit
def _sine(x: Any, quadrant: Any) -> Any:
    """sin(x + quadrant pi/2)."""
    d = np.float64(x)
    a, b, c = _fraction(d * _T0), _fraction(d * _T1), _fraction(d * _T2)
    g, h, i = _fraction(d * _T3), _fraction(d * _T4), d * _T5
    t = fma(a + b + c + g + h + i, _FOUR, _ROUND_F64)
    near = (t - _ROUND_F64) * _QUARTER  # subtracted first: what follows then cancels without error
    r = np.float32((a - near + b + c + g + h + i) * _TWO_PI)
    z = r * r
    sine = fma(z * r, _sin_tail(z), r)
    cosine = fma(z * z, _cos_tail(z), fma(z, np.float32(-0.5), np.float32(1)))
    n = np.uint32(np.uint32(to_bits(t)) + quadrant)
    y = select(np.uint32(n & np.uint32(1)) == np.uint32(0), sine, cosine)
    return from_bits(np.uint32(to_bits(y) ^ np.uint32(np.uint32(n >> np.uint32(1)) << np.uint32(31))))


sin_f32 = jit(lambda x: select(x == np.float32(0), x, _sine(x, np.uint32(0))))
cos_f32 = jit(lambda x: _sine(x, np.uint32(1)))

# pow of a float32, 2^(y log2 |x|), in float64: its 29 spare bits spare the double-float arithmetic.
_log2_tail = polynomial(  # log2(1 + f)/f on |f| <= 1/3, relative error 2^-36
    1.442695040892331, -0.721347519569094, 0.48089834396108344, -0.36067397866030965, 0.28853944180301416,
    -0.24043365781651624, 0.2060759702708389, -0.18080612402995686, 0.16089129296876692, -0.13746049929452975,
    0.12356221554190885, -0.16610745510473107, 0.1575437820084229)
_exp2 = polynomial(  # 2^r on |r| <= 1/2
    1.0000000005550422, 0.6931472057671815, 0.24022646886097818, 0.055503287117570424, 0.009618489242695209,
    0.001339995763048359, 0.00015345789376456265)
_ROUND_EXP2 = np.float64(1.5 * 2.0 ** 52 + 1023)
_LIMIT = np.float64(300)  # 2^300 and 2^-300 are infinite and 0 in float32
_INF, _NAN = np.float32(np.inf), np.float32(np.nan)


@jit
def _log2_of_f32(a: Any) -> Any:
    """log2(a) in float64, of a positive float32."""
    e, f = _split_f64(np.float64(a))
    log2 = fma(f, _log2_tail(f), e)
    log2 = select(a == np.float32(0), np.float64(-np.inf), log2)
    return select(a < _INF, log2, np.float64(a))


@jit
def pow_f32(x: Any, y: Any) -> Any:
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    p = np.float64(y) * _log2_of_f32(fabs(x))
    p = select(p > _LIMIT, _LIMIT, p)
    p = select(p < -_LIMIT, -_LIMIT, p)
    t = p + _ROUND_EXP2
    power = np.float32(_exp2(p - (t - _ROUND_EXP2)) * from_bits(np.uint64(to_bits(t) << np.uint64(52))))
    integer = rint_f32(y) == y
    odd = integer & (rint_f32(y * half) != y * half)
    power = select(odd, copysign(power, x), power)
    power = select((x < zero) & (x > -_INF) & (rint_f32(y) != y), _NAN, power)
    power = select((x == -one) & (fabs(y) == _INF), one, power)
    return select((x == one) | (y == zero), one, power)
