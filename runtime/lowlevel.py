"""What a kernel file may say: typed loads and stores on addresses, casts, select, maximum.

A kernel gets one address, `args`, of a table of int64, and works on raw memory; it sees no array, no object and no
exception. Each helper is a Numba intrinsic, a few LLVM instructions, so LLVM's vectoriser sees a plain loop. With
`NUMBA_DISABLE_JIT=1` each is a plain Python function on the same addresses, so a kernel can be stepped through:

    def add(args, lo, hi, slot):
        x = pointer(args, 0)
        y = pointer(args, 1)
        out = pointer(args, 2)
        for i in range(lo, hi):
            store_f32(out, i, load_f32(x, i, 0) + load_f32(y, i, 1), 2)

The last argument of a load or a store is its *scope*, a literal 0 .. 63, the number of the operand. Accesses with
different scopes are declared not to overlap (LLVM `alias.scope` and `noalias`), which is what lets a loop over seven
operands vectorise without run-time checks. An operand that is updated in place is one operand: one pointer, one scope.
Two operands may share memory only if they share a scope, or if neither is written.

f16 and bf16 load as f32 and round to nearest even on the way back; a bool is a byte, true where it is not 0.
A float becomes an integer by truncation; where it does not fit (or is nan) the result is what x86, and so NumPy on it,
gives: the smallest int32 or int64, of which the narrower integers keep the low bits.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import errors
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .convert import (
    F16,
    F32,
    F64,
    I1,
    I8,
    I16,
    I32,
    I64,
    NUMPY,
    Emit,
    bfloat_to_float,
    bool_to_byte,
    byte_to_bool,
    call_function,
    convert,
    float_to_bfloat,
    float_to_half,
    half_to_float,
    plain_cast,
    plain_decode,
    plain_encode,
    same,
)

SCOPES = 64


def helper(plain: Emit, literal: bool = False) -> Callable[[Emit], Any]:
    """Turn `typed(types...) -> (signature, emit)` into an intrinsic; `plain` is what it means in Python.

    `emit(builder, values, signature)` writes LLVM instructions and returns the result, or None where there is none.
    """
    def decorate(typed: Emit) -> Any:
        if config.DISABLE_JIT:
            return plain
        return intrinsic(prefer_literal=literal)(_numba_form(typed))
    return decorate


def _numba_form(typed: Emit) -> Emit:
    def form(typingctx: Any, *operands: Any) -> Any:
        answer = typed(*operands)
        if answer is None:
            return None
        signature, emit = answer

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            result = emit(builder, values, sig)
            return context.get_dummy_value() if result is None else result
        return signature, generate
    shape = inspect.signature(typed)
    first = inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    form.__signature__ = shape.replace(parameters=[first, *shape.parameters.values()])  # type: ignore[attr-defined]
    form.__name__ = typed.__name__
    return form


# Memory

def element_address(b: Any, p: Any, i: Any, element: Any) -> Any:
    """A pointer to element `i` at the address `p`."""
    return b.gep(b.inttoptr(p, element.as_pointer()), [i], inbounds=True)


def _scoped(b: Any, access: Any, scope: int) -> None:
    """Say that `access` touches operand `scope` and no other one."""
    # Scopes are known by their strings, so that the same scope is the same node in every helper of a kernel.
    add = b.module.add_metadata
    nodes = [add([f"operand {n}", add(["tinytorch kernel"])]) for n in range(SCOPES)]
    access.set_metadata("alias.scope", add([nodes[scope]]))
    access.set_metadata("noalias", add(nodes[:scope] + nodes[scope + 1:]))


def _scope_number(scope: Any) -> int:
    if not isinstance(scope, types.Literal) or not 0 <= scope.literal_value < SCOPES:
        raise errors.TypingError(f"a load or store wants a literal scope 0 .. {SCOPES - 1}, got {scope}")
    return int(scope.literal_value)


def _define_load(name: str, memory: Any, number: Any, decode: Emit) -> Any:
    def plain(p: int, i: int, scope: int) -> Any:
        size = NUMPY[name].itemsize
        return plain_decode(name, np.frombuffer(ctypes.string_at(int(p + i * size), size), NUMPY[name])[0])

    @helper(plain, literal=True)
    def load(p: Any, i: Any, scope: Any) -> Any:
        operand = _scope_number(scope)

        def emit(b: Any, values: Any, sig: Any) -> Any:
            value = b.load(element_address(b, values[0], values[1], memory))
            _scoped(b, value, operand)
            return decode(b, value)
        return number(types.int64, types.int64, scope), emit
    return load


def _define_store(name: str, memory: Any, number: Any, encode: Emit) -> Any:
    def plain(p: int, i: int, value: Any, scope: int) -> None:
        stored = plain_encode(name, value).tobytes()
        ctypes.memmove(int(p + i * len(stored)), stored, len(stored))

    @helper(plain, literal=True)
    def store(p: Any, i: Any, value: Any, scope: Any) -> Any:
        operand = _scope_number(scope)

        def emit(b: Any, values: Any, sig: Any) -> None:
            _scoped(b, b.store(encode(b, values[2]), element_address(b, values[0], values[1], memory)), operand)
        return types.void(types.int64, types.int64, number, scope), emit
    return store


def _define(name: str, memory: Any, number: Any, decode: Emit = same, encode: Emit = same) -> tuple[Any, Any]:
    """Load and store of one format: `memory` is what lies there, `number` what a kernel computes with."""
    return _define_load(name, memory, number, decode), _define_store(name, memory, number, encode)


load_f32, store_f32 = _define("f32", F32, types.float32)
load_f64, store_f64 = _define("f64", F64, types.float64)
load_f16, store_f16 = _define("f16", F16, types.float32, half_to_float, float_to_half)
load_bf16, store_bf16 = _define("bf16", I16, types.float32, bfloat_to_float, float_to_bfloat)
load_i8, store_i8 = _define("i8", I8, types.int8)
load_u8, store_u8 = _define("u8", I8, types.uint8)
load_i16, store_i16 = _define("i16", I16, types.int16)
load_i32, store_i32 = _define("i32", I32, types.int32)
load_i64, store_i64 = _define("i64", I64, types.int64)
load_bool, store_bool = _define("bool", I8, types.boolean, byte_to_bool, bool_to_byte)


def _plain_table(args: int, i: int) -> int:
    return ctypes.c_int64.from_address(args + 8 * i).value


@helper(_plain_table)
def pointer(args: Any, i: Any) -> Any:
    """Entry `i` of the table of arguments: the address of an operand."""
    def emit(b: Any, values: Any, sig: Any) -> Any:
        entry = b.load(element_address(b, values[0], values[1], I64))
        entry.set_metadata("invariant.load", b.module.add_metadata([]))  # the table stands still while a kernel runs
        return entry
    return types.int64(types.int64, types.int64), emit


integer = pointer  # the same read, where the entry is an extent or a stride


def _plain_renew(first: int, count: int) -> None:
    return None


@helper(_plain_renew, literal=True)
def renew_scopes(first: Any, count: Any) -> Any:
    """What scopes `first` … `first + count - 1` said of accesses before here is over: from here on, the same elements
    may be reached through others of them. For a loop whose every turn touches elements that differ."""
    numbers = range(_scope_number(first), _scope_number(first) + _scope_number(count))

    def emit(b: Any, values: Any, sig: Any) -> None:
        add = b.module.add_metadata
        for n in numbers:
            scopes = add([add([f"operand {n}", add(["tinytorch kernel"])])])
            call_function(b, "llvm.experimental.noalias.scope.decl", ir.VoidType(), [scopes])
    return types.void(first, count), emit


def _plain_fill(p: int, count: int, value: int = 0) -> None:
    ctypes.memset(p, value, count)


@helper(_plain_fill)
def zero_fill(p: Any, count: Any) -> Any:
    """Set `count` bytes at `p` to 0."""
    def emit(b: Any, values: Any, sig: Any) -> None:
        _fill(b, values[0], values[1], I8(0))
    return types.void(types.int64, types.int64), emit


@helper(_plain_fill)
def fill_bytes(p: Any, count: Any, value: Any) -> Any:
    """Set `count` bytes at `p` to the low byte of `value`."""
    def emit(b: Any, values: Any, sig: Any) -> None:
        _fill(b, values[0], values[1], b.trunc(values[2], I8))
    return types.void(types.int64, types.int64, types.int64), emit


def _fill(b: Any, p: Any, count: Any, byte: Any) -> None:
    call_function(b, "llvm.memset.p0.i64", ir.VoidType(), [b.inttoptr(p, I8.as_pointer()), byte, count, I1(0)])


def _plain_copy(target: int, source: int, count: int) -> None:
    ctypes.memmove(target, source, count)


@helper(_plain_copy)
def copy_bytes(target: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes between two places that do not overlap."""
    def emit(b: Any, values: Any, sig: Any) -> None:
        places = [b.inttoptr(p, I8.as_pointer()) for p in values[:2]]
        call_function(b, "llvm.memcpy.p0.p0.i64", ir.VoidType(), [*places, values[2], I1(0)])
    return types.void(types.int64, types.int64, types.int64), emit


# Numbers

def _common(a: Any, b: Any) -> Any:
    """The type two numbers meet in: the wider float, else the wider integer, as in Numba."""
    return cpu_target.typing_context.unify_types(types.unliteral(a), types.unliteral(b))


def _plain_select(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


@helper(_plain_select)
def select(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`; both are computed."""
    kind = _common(a, b)

    def emit(b: Any, values: Any, sig: Any) -> Any:
        return b.select(*values)
    return kind(types.boolean, kind, kind), emit


def _define_extreme(name: str, plain: Emit) -> Any:
    @helper(plain)
    def extreme(a: Any, b: Any) -> Any:
        kind = _common(a, b)

        def emit(b: Any, values: Any, sig: Any) -> Any:
            if isinstance(kind, types.Float):
                # nsz: NumPy too leaves open which zero is the larger one.
                return call_function(b, f"llvm.{name}imum.f{kind.bitwidth}", values[0].type, values, fastmath=("nsz",))
            sign = "s" if isinstance(kind, types.Integer) and kind.signed else "u"
            return call_function(b, f"llvm.{sign}{name[:3]}.i{values[0].type.width}", values[0].type, values)
        return kind(kind, kind), emit
    return extreme


maximum = _define_extreme("max", np.maximum)
minimum = _define_extreme("min", np.minimum)


def _define_cast(name: str, number: Any, rounded: Emit = same) -> Any:
    def plain(x: Any) -> Any:
        return plain_decode(name, plain_encode(name, x))

    @helper(plain)
    def cast(x: Any) -> Any:
        source = types.unliteral(x)

        def emit(b: Any, values: Any, sig: Any) -> Any:
            return rounded(b, convert(b, values[0], source, number))
        return number(source), emit
    return cast


f32 = _define_cast("f32", types.float32)
f64 = _define_cast("f64", types.float64)
f16 = _define_cast("f16", types.float32, lambda b, x: half_to_float(b, float_to_half(b, x)))  # an f32 that fits
bf16 = _define_cast("bf16", types.float32, lambda b, x: bfloat_to_float(b, float_to_bfloat(b, x)))
i8 = _define_cast("i8", types.int8)
u8 = _define_cast("u8", types.uint8)
i16 = _define_cast("i16", types.int16)
i32 = _define_cast("i32", types.int32)
i64 = _define_cast("i64", types.int64)
bool_ = _define_cast("bool", types.boolean)


def _define_bitcast(source: str, source_type: Any, target: str, target_type: Any, memory: Any) -> Any:
    def plain(x: Any) -> Any:
        return plain_cast(source, x).view(NUMPY[target])

    @helper(plain)
    def bitcast(x: Any) -> Any:
        def emit(b: Any, values: Any, sig: Any) -> Any:
            return b.bitcast(values[0], memory)
        return target_type(source_type), emit
    return bitcast


bits_f32 = _define_bitcast("f32", types.float32, "i32", types.int32, I32)
bits_f64 = _define_bitcast("f64", types.float64, "i64", types.int64, I64)
f32_bits = _define_bitcast("i32", types.int32, "f32", types.float32, F32)
f64_bits = _define_bitcast("i64", types.int64, "f64", types.float64, F64)
