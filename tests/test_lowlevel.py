"""The helpers of kernels mean what NumPy means, compiled and interpreted, and loops of them become vector code."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from again import OTHER_ISAS

from tinytorch.runtime import build, codegen
from tinytorch.runtime.build import KernelSource, compile_kernels

HEAD = "from tinytorch.runtime.lowlevel import *\nfrom tinytorch.runtime.scalars import plus\n\n\n"
DTYPES = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "i8": np.int8,
          "u8": np.uint8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "bool": np.bool_}  # fmt: skip
FLOATS = ["f32", "f64", "f16", "bf16"]
INTEGERS = ["i8", "u8", "i16", "i32", "i64"]
SPECIAL = np.array([
    0.0, -0.0, 1.5, -1.5, 2.5, 127.9, 128.0, -129.0, 255.0, 256.0, 300.0, 65504.0, 65519.9, 65520.0, 1e-7, 6e-8, 2e-8,
    1e-40, 2147483520.0, 2147483648.0, -2147483648.0, 3e9, -3e9, 1e19, 3.3e38, np.inf, -np.inf, np.nan,
])  # fmt: skip


def source(name: str, body: str, operands: int = 3) -> KernelSource:
    """A kernel with pointers p0, p1, ... and a body."""
    lines = [f"p{i} = pointer(args, {i})" for i in range(operands)] + body.splitlines()
    return KernelSource(name, f"{HEAD}def {name}(args, lo, hi, slot):\n" + "".join(f"    {line}\n" for line in lines))


def run(name: str, body: str, *operands: np.ndarray | int, extent: int | None = None) -> None:
    """Compile and run a kernel on arrays (and integers)."""
    [kernel] = compile_kernels([source(name, body, len(operands))])
    args = np.array([x if isinstance(x, int) else x.ctypes.data for x in operands], np.int64)
    size = extent if extent is not None else operands[0].size  # type: ignore[union-attr]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(args.ctypes.data, 0, size, 0)


def values(dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Random and special numbers of a type."""
    kind = np.dtype(DTYPES[dtype])
    with np.errstate(all="ignore"):
        if dtype in FLOATS:
            return np.concatenate([SPECIAL, rng.normal(size=500) * 10.0 ** rng.integers(-9, 9, 500)]).astype(kind)
    return rng.integers(0, 256, kind.itemsize * 500, np.uint8).view(kind) if dtype != "bool" else rng.random(500) > 0.5


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit by bit, any nan being as good as another."""
    if a.dtype == ml_dtypes.bfloat16 or a.dtype.kind == "f":
        return bool(np.array_equal(a.astype("f8"), b.astype("f8"), equal_nan=True) and
                    np.array_equal(np.signbit(a.astype("f8"))[a == a], np.signbit(b.astype("f8"))[a == a]))
    return np.array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_load_and_store(dtype: str, rng: np.random.Generator) -> None:
    x = values(dtype, rng)
    out = np.zeros_like(x)
    run(f"copy_{dtype}", f"for i in range(lo, hi):\n    store_{dtype}(p1, i, load_{dtype}(p0, i, 0), 1)", x, out)
    assert same(out, x)


@pytest.mark.parametrize("half", ["f16", "bf16"])
def test_every_half_to_float_and_back(half: str) -> None:
    x = np.arange(65536, dtype=np.uint16).view(DTYPES[half])
    wide, back = np.zeros(x.size, "f4"), np.zeros_like(x)
    body = f"""for i in range(lo, hi):
    v = load_{half}(p0, i, 0)
    store_f32(p1, i, v, 1)
    store_{half}(p2, i, v, 2)"""
    run(f"wide_{half}", body, x, wide, back)
    with np.errstate(all="ignore"):
        assert same(wide, x.astype("f4")) and same(back, x)


@pytest.mark.parametrize("half", ["f16", "bf16"])
def test_rounding_to_half_is_to_nearest_even(half: str) -> None:
    bits = np.arange(0, 2**32, 4099, dtype=np.uint32)  # every exponent, all kinds of tails
    ties = (np.arange(65536, dtype=np.uint32) << 16) | 0x8000
    more = (np.arange(2**16, dtype=np.uint32) << 13) + 0x38000000 + 0x1000
    x = np.concatenate([bits, ties, more]).view("f4")
    out, cast = np.zeros(x.size, DTYPES[half]), np.zeros(x.size, "f4")
    body = f"""for i in range(lo, hi):
    v = load_f32(p0, i, 0)
    store_{half}(p1, i, v, 1)
    store_f32(p2, i, {half}(v), 2)"""
    run(f"round_{half}", body, x, out, cast)
    with np.errstate(all="ignore"):
        assert same(out, x.astype(DTYPES[half])) and same(cast, out.astype("f4"))


@pytest.mark.parametrize("old", DTYPES)
def test_casts_are_numpys(old: str, rng: np.random.Generator) -> None:
    x = values(old, rng)
    outs = {new: np.zeros(x.size, dtype) for new, dtype in DTYPES.items() if new != old}
    body = f"for i in range(lo, hi):\n    x = load_{old}(p0, i, 0)\n" + "".join(
        f"    store_{new}(p{at}, i, {'bool_' if new == 'bool' else new}(x), {at})\n" for at, new in enumerate(outs, 1))
    run(f"casts_of_{old}", body, x, *outs.values())
    for new, out in outs.items():
        through = np.float32 if {old, new} & {"f16", "bf16"} else x.dtype  # they are formats of memory
        with np.errstate(all="ignore"):
            wide = x.astype(through)
            if wide.dtype.kind == "f" and new in ("i8", "u8", "i16"):  # NumPy's own answer differs from loop to loop
                wide = wide.astype("i4")
            assert same(out, wide.astype(DTYPES[new])), new


@pytest.mark.parametrize("dtype", ["f32", "f64", *INTEGERS, "bool"])
def test_maximum_minimum_and_select(dtype: str, rng: np.random.Generator) -> None:
    x = values(dtype, rng)
    y = rng.permutation(x)
    high, low, chosen = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    body = f"""for i in range(lo, hi):
    a = load_{dtype}(p0, i, 0)
    b = load_{dtype}(p1, i, 1)
    store_{dtype}(p2, i, maximum(a, b), 2)
    store_{dtype}(p3, i, minimum(a, b), 3)
    store_{dtype}(p4, i, select(a < b, a, b), 4)"""
    run(f"extremes_{dtype}", body, x, y, high, low, chosen)
    assert np.array_equal(high, np.maximum(x, y), equal_nan=dtype in FLOATS)
    assert np.array_equal(low, np.minimum(x, y), equal_nan=dtype in FLOATS)
    assert np.array_equal(chosen, np.where(x < y, x, y), equal_nan=dtype in FLOATS)


@pytest.mark.parametrize("position", [0, 17, 99, 255, None])
def test_reductions_by_maximum_keep_nan(position: int | None, rng: np.random.Generator) -> None:
    x = rng.normal(size=256).astype("f4")
    if position is not None:
        x[position] = np.nan
    out = np.zeros(1, "f4")
    run("reduce_max", MAXIMUM, x, out)
    assert np.array_equal(out[0], x.max(), equal_nan=True)


def test_bit_casts(rng: np.random.Generator) -> None:
    x = values("f32", rng)
    out, bits = np.zeros_like(x), np.zeros(x.size, "i4")
    body = """for i in range(lo, hi):
    b = bits_f32(load_f32(p0, i, 0))
    store_i32(p1, i, b, 1)
    store_f32(p2, i, f32_bits(b), 2)"""
    run("bits32", body, x, bits, out)
    assert np.array_equal(bits, x.view("i4")) and np.array_equal(out.view("i4"), bits)
    y = values("f64", rng)
    out64, bits64 = np.zeros_like(y), np.zeros(y.size, "i8")
    run("bits64", body.replace("32", "64"), y, bits64, out64)
    assert np.array_equal(bits64, y.view("i8")) and np.array_equal(out64.view("i8"), bits64)


def test_zero_fill_and_copy_bytes() -> None:
    x, y = np.arange(10, dtype="f4"), np.full(10, 7, "f4")
    run("fill", "copy_bytes(p1 + 8, p0, 8)\nzero_fill(p0, 4 * (hi - 1))", x, y)
    assert np.array_equal(x, [0] * 9 + [9]) and np.array_equal(y, [7, 7, 0, 1] + [7] * 6)


def test_integers_come_from_the_table() -> None:
    out = np.zeros(1, "i8")
    run("table", "store_i64(p0, 0, integer(args, 1), 0)", out, -5, extent=1)
    assert out[0] == -5


def test_scopes_must_be_literal() -> None:
    with pytest.raises(Exception, match="literal scope"):
        compile_kernels([source("bad", "store_f32(p0, 0, f32(1), lo)")])


MULTIPLY = "for i in range(lo, hi):\n    store_f32(p2, i, load_f32(p0, i, 0) * load_f32(p1, i, 1), 2)"
ADAM = """for i in range(lo, hi):
    g = load_f32(p0, i, 0)
    m = f32(0.9) * load_f32(p1, i, 1) + f32(0.1) * g
    v = f32(0.99) * load_f32(p2, i, 2) + f32(0.01) * g * g
    store_f32(p1, i, m, 1)
    store_f32(p2, i, v, 2)
    store_f32(p3, i, load_f32(p3, i, 3) - m / (v + f32(1e-8)), 3)"""
SUM = "s = f32(0)\nfor i in range(lo, hi):\n    s = plus(s, load_f32(p0, i, 0))\nstore_f32(p1, 0, s, 1)"
MAXIMUM = """m = load_f32(p0, 0, 0)
for i in range(lo, hi):
    m = maximum(m, load_f32(p0, i, 0))
store_f32(p1, 0, m, 1)"""
CAST = "for i in range(lo, hi):\n    store_i8(p1, i, i8(load_f32(p0, i, 0)), 1)"
HALF = "for i in range(lo, hi):\n    store_f16(p1, i, load_f16(p0, i, 0) + f32(1), 1)"


@pytest.mark.parametrize("body", [MULTIPLY, ADAM, SUM, MAXIMUM, CAST, HALF])
def test_loops_become_vector_code(body: str) -> None:
    kernel = source("loop", body, 4)
    text = str(codegen.optimised(build.load_function("loop", "loop", kernel.text, Path("loop.py")), "loop"))
    lanes = build.vector_bits() // 32
    wide = re.findall(rf"load <({lanes}|{2 * lanes}) x ", text)
    assert len(wide) >= (1 if body == HALF else 2), "the loop is not unrolled full-width vector code"
    assert "memcheck" not in text, "the loop checks at run time whether operands overlap"


def again(tests: str, **settings: str) -> None:
    """Run tests of this file in a process with other settings."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", tests]
    ran = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stdout[-3000:]


def test_helpers_without_numba() -> None:
    again("load_and_store or maximum_minimum or bit_casts or zero_fill or integers or casts_are", NUMBA_DISABLE_JIT="1")


@pytest.mark.skipif(not build.has("avx2"), reason="this processor has no AVX2")
@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_helpers_on_lesser_processors(isa: str) -> None:
    again("half or maximum or casts_are or vector_code", TINYTORCH_ISA=isa)
