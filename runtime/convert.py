"""How numbers change format: `convert(builder, x, source, target)` as LLVM instructions, `plain_cast(name, x)` in
Python.

f16 and bf16 are formats of memory only: kernels compute in f32, and round to nearest even on the way back. Both
directions are written here for both, in bits where the processor has no instruction, so that they are the same
everywhere and stay vector code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from .build import has

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
NATIVE_HALF = has("f16c") or not has("sse2")
NUMPY: dict[str, np.dtype[Any]] = {
    "f32": np.dtype("f4"), "f64": np.dtype("f8"), "f16": np.dtype("f2"), "bf16": np.dtype("u2"), "bool": np.dtype("?"),
    "i8": np.dtype("i1"), "u8": np.dtype("u1"), "i16": np.dtype("i2"), "i32": np.dtype("i4"), "i64": np.dtype("i8"),
}
Emit = Callable[..., Any]


def call_function(b: Any, name: str, result: Any, operands: list[Any], **options: Any) -> Any:
    """Call the LLVM intrinsic (or C function) `name`, declared by the types of its operands."""
    kind = ir.FunctionType(result, [x.type for x in operands])
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    return b.call(function, operands, **options)


def _truncate(b: Any, x: Any, bits: int) -> Any:
    """Float to integer, defined everywhere: what does not fit in 32 (64) bits becomes the smallest integer."""
    wide = I64 if bits == 64 else I32
    size = call_function(b, "llvm.fabs.f32" if x.type == F32 else "llvm.fabs.f64", x.type, [x])
    fits = b.fcmp_ordered("<", size, ir.Constant(x.type, 2.0 ** (wide.width - 1)))
    whole = b.select(fits, b.fptosi(x, wide), ir.Constant(wide, -2 ** (wide.width - 1)))
    return whole if bits == wide.width else b.trunc(whole, ir.IntType(bits))


def convert(b: Any, x: Any, source: Any, target: Any) -> Any:
    """The value `x` of Numba type `source` as the Numba type `target`."""
    if target == types.boolean:
        compare = b.fcmp_unordered if isinstance(source, types.Float) else b.icmp_unsigned
        return compare("!=", x, ir.Constant(x.type, 0))
    signed = isinstance(source, types.Integer) and source.signed
    if isinstance(target, types.Float):
        if isinstance(source, types.Float):
            grow = target.bitwidth > source.bitwidth
            return x if source == target else (b.fpext if grow else b.fptrunc)(x, F64 if grow else F32)
        return (b.sitofp if signed else b.uitofp)(x, F32 if target.bitwidth == 32 else F64)
    if isinstance(source, types.Float):
        return _truncate(b, x, target.bitwidth)
    if x.type.width >= target.bitwidth:
        return x if x.type.width == target.bitwidth else b.trunc(x, ir.IntType(target.bitwidth))
    return (b.sext if signed else b.zext)(x, ir.IntType(target.bitwidth))


def _bits(b: Any, value: int) -> Any:
    return ir.Constant(I32, value & 0xFFFFFFFF)


def half_to_float(b: Any, half: Any) -> Any:
    """An LLVM half as a float."""
    if NATIVE_HALF:
        return b.fpext(half, F32)
    h = b.zext(b.bitcast(half, I16), I32)
    magnitude = b.shl(b.and_(h, _bits(b, 0x7FFF)), _bits(b, 13))
    # Moves the exponent; exact, for subnormals too.
    scaled = b.fmul(b.bitcast(magnitude, F32), ir.Constant(F32, 2.0 ** 112))
    special = b.icmp_unsigned(">=", magnitude, _bits(b, 0x7C00 << 13))
    bits = b.select(special, b.or_(magnitude, _bits(b, 0x7F800000)), b.bitcast(scaled, I32))
    return b.bitcast(b.or_(bits, b.shl(b.and_(h, _bits(b, 0x8000)), _bits(b, 16))), F32)


def float_to_half(b: Any, x: Any) -> Any:
    """A float as a half, to nearest even; a nan keeps its sign and high bits."""
    if NATIVE_HALF:
        return b.fptrunc(x, F16)
    u = b.bitcast(x, I32)
    a = b.and_(u, _bits(b, 0x7FFFFFFF))
    odd = b.and_(b.lshr(a, _bits(b, 13)), _bits(b, 1))
    # The carry may run into the exponent, and up to infinity, rightly.
    normal = b.lshr(b.add(b.add(a, odd), _bits(b, 0xFFF - (112 << 23))), _bits(b, 13))
    # 0.5 has the ulp of the smallest half: the sum rounds a subnormal half to nearest even.
    small = b.sub(b.bitcast(b.fadd(b.bitcast(a, F32), ir.Constant(F32, 0.5)), I32), _bits(b, 0x3F000000))
    payload = b.or_(b.and_(b.lshr(a, _bits(b, 13)), _bits(b, 0x3FF)), _bits(b, 0x7E00))
    large = b.select(b.icmp_unsigned(">", a, _bits(b, 0x7F800000)), payload, _bits(b, 0x7C00))
    finite = b.select(b.icmp_unsigned("<", a, _bits(b, 0x38800000)), small, normal)
    bits = b.select(b.icmp_unsigned(">=", a, _bits(b, 0x47800000)), large, finite)
    return b.bitcast(b.trunc(b.or_(bits, b.and_(b.lshr(u, _bits(b, 16)), _bits(b, 0x8000))), I16), F16)


def bfloat_to_float(b: Any, bits: Any) -> Any:
    """The 16 bits of a bf16 as a float."""
    return b.bitcast(b.shl(b.zext(bits, I32), _bits(b, 16)), F32)


def float_to_bfloat(b: Any, x: Any) -> Any:
    """A float as the 16 bits of a bf16, to nearest even; a nan stays a nan."""
    u = b.bitcast(x, I32)
    high = b.lshr(u, _bits(b, 16))
    rounded = b.lshr(b.add(b.add(u, _bits(b, 0x7FFF)), b.and_(high, _bits(b, 1))), _bits(b, 16))
    return b.trunc(b.select(b.fcmp_unordered("uno", x, x), b.or_(high, _bits(b, 64)), rounded), I16)


def same(b: Any, value: Any) -> Any:
    """No conversion."""
    return value


def byte_to_bool(b: Any, byte: Any) -> Any:
    """True where the byte is not 0."""
    return b.icmp_unsigned("!=", byte, ir.Constant(I8, 0))


def bool_to_byte(b: Any, value: Any) -> Any:
    """1 or 0."""
    return b.zext(value, I8)


def plain_decode(name: str, stored: Any) -> Any:
    """The number that a stored NumPy scalar stands for."""
    if name == "bf16":
        return np.uint32(int(stored) << 16).view(np.float32)
    return stored.astype(np.float32) if name == "f16" else stored


def plain_encode(name: str, value: Any) -> Any:
    """The NumPy scalar that stores a number."""
    if name == "bf16":
        bits = int(plain_cast("f32", value).view(np.uint32))
        nan = bits & 0x7FFFFFFF > 0x7F800000
        return np.uint16(bits >> 16 | 64 if nan else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    return plain_cast("f32", value).astype(NUMPY[name]) if name == "f16" else plain_cast(name, value)


def plain_cast(name: str, value: Any) -> Any:
    """`convert`, in Python."""
    with np.errstate(all="ignore"):
        if isinstance(value, (float, np.floating)) and NUMPY[name].kind in "iu":
            wide = 64 if name == "i64" else 32
            value = int(value) if abs(float(value)) < 2.0 ** (wide - 1) else -(2 ** (wide - 1))
        if isinstance(value, int):
            value = np.int64(value)
        return np.asarray(value).astype(NUMPY[name])[()]
