"""vecmath against wider arithmetic: error bounds in ULP, NumPy's special values, vector code, life without the JIT.

    python tests/test_vecmath.py 200000    # the greatest error of each function among so many samples of each kind
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numba import config, njit, types

from tinytorch.runtime import vecmath

NAMES = sorted(vecmath.BOUNDS)
ROUNDING = [f"{name}_{width}" for name in ("floor", "ceil", "rint") for width in ("f32", "f64")]
LIBM = {"sin_f64", "cos_f64", "pow_f64"}
KERNEL_FLAGS = {"contract", "reassoc", "nsz", "arcp"}  # what kernels are compiled with

# Ranges over which each function is swept, besides random bit patterns. Ends beyond overflow and underflow.
RANGES = {
    "exp": (-800.0, 720.0), "expm1": (-50.0, 720.0), "log": (1e-3, 20.0), "log1p": (-1.0, 20.0), "tanh": (-12.0, 12.0),
    "sigmoid": (-110.0, 30.0), "erf": (-7.0, 7.0), "sin": (-1e5, 1e5), "cos": (-1e5, 1e5), "sqrt": (0.0, 20.0),
    "rsqrt": (0.0, 20.0),
}


def float_type(name: str) -> Any:
    return np.float32 if name.endswith("f32") else np.float64


def arity(name: str) -> int:
    return 2 if name.startswith("pow") else 1


@cache
def loop(name: str) -> Any:
    """The loop `out[i] = f(x[i])`, compiled as a kernel is."""
    f = getattr(vecmath, name)
    array = (types.float32 if name.endswith("f32") else types.float64)[::1]

    def unary(x: Any, out: Any) -> None:
        for i in range(out.size):
            out[i] = f(x[i])

    def binary(x: Any, y: Any, out: Any) -> None:
        for i in range(out.size):
            out[i] = f(x[i], y[i])

    body = binary if arity(name) == 2 else unary
    if config.DISABLE_JIT:
        return body
    compiled = njit(error_model="numpy", fastmath=KERNEL_FLAGS, no_cfunc_wrapper=True)(body)
    compiled.compile((array,) * (arity(name) + 1))
    return compiled


def apply(name: str, *operands: Any) -> Any:
    out = np.empty_like(operands[0])
    with np.errstate(all="ignore"):
        loop(name)(*operands, out)
    return out


def random_bits(rng: Any, dtype: Any, count: int) -> Any:
    """Floats of every exponent, subnormals, infinities and NaN among them."""
    unsigned = np.uint32 if dtype is np.float32 else np.uint64
    return rng.integers(0, np.iinfo(unsigned).max, count, dtype=unsigned, endpoint=True).view(dtype)


def samples(name: str, count: int) -> tuple[Any, ...]:
    rng, dtype = np.random.default_rng(0), float_type(name)
    if arity(name) == 2:
        x = np.exp(rng.uniform(-20, 20, count))
        y = rng.uniform(-110, 110, count) / np.maximum(np.abs(np.log(x)), 1e-3)  # x^y on the whole range
        near_one, small = 1 + rng.normal(0, 1e-3, count), np.rint(rng.normal(0, 6, count))
        sides = (x, near_one, -x), (y, 1e4 * y / 110, small)
        last = random_bits(rng, dtype, count), rng.normal(0, 2, count).astype(dtype)
        return tuple(np.concatenate([*(part.astype(dtype) for part in side), end]) for side, end in zip(sides, last))
    low, high = RANGES[name.split("_")[0]]
    exponents = rng.normal(0, 3, count)
    parts = (rng.uniform(low, high, count), rng.uniform(max(low, -2), 2, count), np.exp(exponents), -np.exp(-exponents),
             np.exp(rng.uniform(-40, 0, count)))
    return (np.concatenate([part.astype(dtype) for part in parts] + [random_bits(rng, dtype, count)]),)


def in_longdouble(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands: f(*(x.astype(np.longdouble) for x in operands))


def erf(x: Any) -> Any:
    """2/sqrt(pi) exp(-x^2) (x + 2x^3/3 + 4x^5/15 + ...): all terms have one sign, so nothing cancels."""
    x = np.where(np.abs(x) > 8, 8 * np.sign(x), x)
    term = total = x
    for n in range(1, 300):
        term = term * (2 * x * x / (2 * n + 1))
        total = total + term
    return 2 / np.sqrt(np.longdouble(np.pi) + np.longdouble(1.2246467991473532e-16)) * np.exp(-x * x) * total


TRUTH: dict[str, Callable[..., Any]] = {
    "sigmoid": in_longdouble(lambda x: 1 / (1 + np.exp(-x))), "rsqrt": in_longdouble(lambda x: 1 / np.sqrt(x)),
    "erf": in_longdouble(erf), "pow": in_longdouble(np.power),
}


def truth(name: str, *operands: Any) -> Any:
    base = name.split("_")[0]
    with np.errstate(all="ignore"):
        return TRUTH.get(base, in_longdouble(getattr(np, base, np.exp)))(*operands)


def ulp_errors(got: Any, exact: Any) -> Any:
    """|got - exact| in units of the last place of `exact`; infinity counts as the next float after the greatest."""
    dtype = got.dtype.type
    beyond = np.longdouble(2) ** np.finfo(dtype).maxexp
    with np.errstate(all="ignore"):
        wide, exact = (np.clip(v.astype(np.longdouble), -beyond, beyond) for v in (got, exact))
        below = np.minimum(np.abs(exact), beyond / 2).astype(dtype)
        unit = np.spacing(below).astype(np.longdouble)
        errors = np.abs(wide - exact) / unit
    return np.where(np.isnan(wide) | np.isnan(exact), np.where(np.isnan(wide) & np.isnan(exact), 0, np.inf), errors)


def greatest_error(name: str, count: int) -> tuple[float, list[Any]]:
    operands = samples(name, count)
    errors = ulp_errors(apply(name, *operands), truth(name, *operands))
    worst = int(np.argmax(errors))
    return float(errors[worst]), [x[worst] for x in operands]


every_name = pytest.mark.parametrize("name", NAMES)
wide_enough = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than float64 here")


@wide_enough
@every_name
def test_error_is_within_the_stated_bound(name: str) -> None:
    error, where = greatest_error(name, 10_000)
    assert error <= vecmath.BOUNDS[name], f"{name}({', '.join(map(repr, where))}) is off by {error:.2f} ULP"


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1e9, 16777217.0, -16777216.0, np.inf, -np.inf, np.nan]


def special_values(dtype: Any) -> Any:
    """Signed zeros, ones, odd and even integers, the infinities, NaN; the ends of the subnormal and normal numbers."""
    info = np.finfo(dtype)
    ends = [info.smallest_subnormal, info.tiny, info.tiny - info.smallest_subnormal, info.max, info.eps]
    return np.array([*SPECIAL, *ends, *(-end for end in ends)], dtype)


def expected(name: str, *operands: Any) -> Any:
    with np.errstate(all="ignore"):
        return truth(name, *operands).astype(operands[0].dtype)


@every_name
def test_special_values_are_those_of_numpy(name: str) -> None:
    x = special_values(float_type(name))
    operands = [side.ravel() for side in np.meshgrid(x, x)] if arity(name) == 2 else [x]
    got, exact = apply(name, *operands), expected(name, *operands)
    plain = np.isnan(exact) | np.isinf(exact) | (exact == 0) | (np.abs(exact) == 1)  # the others are a matter of ULP
    np.testing.assert_array_equal(got[plain], exact[plain])
    np.testing.assert_array_equal(np.signbit(got)[~np.isnan(exact)], np.signbit(exact)[~np.isnan(exact)])
    assert np.all(ulp_errors(got, exact.astype(np.longdouble)) <= vecmath.BOUNDS[name] + 0.5)


@pytest.mark.parametrize("name", ROUNDING)
def test_rounding_is_numpys(name: str) -> None:
    dtype = float_type(name)
    x = np.concatenate([special_values(dtype), np.arange(-40, 40, dtype=dtype) / 4, samples("sin" + name[-4:], 500)[0]])
    with np.errstate(all="ignore"):
        got, exact = apply(name, x), getattr(np, name.split("_")[0])(x)
    np.testing.assert_array_equal(got, exact)
    np.testing.assert_array_equal(np.signbit(got[~np.isnan(x)]), np.signbit(exact[~np.isnan(x)]))


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("name", sorted({*NAMES, *ROUNDING} - LIBM))
def test_loop_is_vector_code_without_calls(name: str) -> None:
    signature = loop(name).signatures[0]
    ir, assembly = loop(name).inspect_llvm(signature), loop(name).inspect_asm(signature)
    body = ir[re.search(r"^define .*@_ZN", ir, re.M).start():].split("\n}")[0]  # type: ignore[union-attr]
    called = [callee for callee in re.findall(r"call [^@]*@([^(]*)", body) if "llvm." not in callee]
    machine = assembly[re.search(r"^_ZN.*:$", assembly, re.M).start():].split(".Lfunc_end")[0]  # type: ignore[union-attr]
    called += re.findall(r"^\s+(?:call|bl)\S*\s+(.*)", machine, re.M)
    assert not called, f"{name} calls {called}"
    kind = "float" if name.endswith("f32") else "double"
    assert re.search(rf"<(4|8|16|32) x {kind}>" if kind == "float" else r"<(2|4|8|16) x double>", body)
    if kind == "float" and not name.startswith(("sin", "cos", "pow")):
        assert "double" not in body, f"{name} computes in float64"


def run_again(*arguments: str, **environment: str) -> str:
    """This file, as a program, in another process."""
    run = subprocess.run([sys.executable, "-W", "ignore", __file__, *arguments], env={**os.environ, **environment},
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


CPUS = {"no fused multiply-add": ("x86-64", "+sse2"), "AVX2": ("haswell", "+avx2,+fma")}


@wide_enough
@pytest.mark.parametrize("cpu", ["no fused multiply-add", pytest.param("AVX2", marks=pytest.mark.slow)])
def test_bounds_hold_on_other_machines(cpu: str) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("names x86 machines")
    name, features = CPUS[cpu]
    run_again("2000", NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)


@wide_enough
def test_bounds_hold_as_plain_python() -> None:
    run_again("60", NUMBA_DISABLE_JIT="1")


def test_every_function_is_exported() -> None:
    assert sorted(vecmath.__all__) == sorted([*NAMES, *ROUNDING])


def report(count: int) -> int:
    """Print the errors; the number of bounds that were broken."""
    broken = 0
    for name in NAMES:
        error, where = greatest_error(name, count)
        broken += not error <= vecmath.BOUNDS[name]
        print(f"{name:12} {error:6.3f} of {vecmath.BOUNDS[name]} at {where}", flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(report(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
