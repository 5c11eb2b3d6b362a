"""What the driver may say besides `lowlevel`: atomic words, the clock, and calling a kernel by its address.

`p` is the address of an array of int64 words and `i` counts words. Loads acquire, stores release, the others do both.
The plain versions (`NUMBA_DISABLE_JIT=1`) serve one thread.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

from llvmlite import ir
from numba import types

from .build import ENTRY, has
from .convert import I32, I64, call_function
from .lowlevel import element_address, helper

CLOCK = 6 if sys.platform == "darwin" else 1  # CLOCK_MONOTONIC


def _word(p: int, i: int) -> ctypes.c_int64:
    return ctypes.c_int64.from_address(p + 8 * i)


def _plain_load(p: int, i: int) -> int:
    return _word(p, i).value


@helper(_plain_load)
def atomic_load(p: Any, i: Any) -> Any:
    """The word, and all that was written before it was stored."""
    def emit(b: Any, values: Any, sig: Any) -> Any:
        return b.load_atomic(element_address(b, values[0], values[1], I64), "acquire", 8)
    return types.int64(types.int64, types.int64), emit


def _plain_store(p: int, i: int, value: int) -> None:
    _word(p, i).value = value


@helper(_plain_store)
def atomic_store(p: Any, i: Any, value: Any) -> Any:
    """Store a word after all that this thread wrote before."""
    def emit(b: Any, values: Any, sig: Any) -> None:
        b.store_atomic(values[2], element_address(b, values[0], values[1], I64), "release", 8)
    return types.void(types.int64, types.int64, types.int64), emit


def _plain_add(p: int, i: int, value: int) -> int:
    word = _word(p, i)
    word.value += value
    return word.value - value


@helper(_plain_add)
def atomic_add(p: Any, i: Any, value: Any) -> Any:
    """Add to a word; the result is the word before."""
    def emit(b: Any, values: Any, sig: Any) -> Any:
        return b.atomic_rmw("add", element_address(b, values[0], values[1], I64), values[2], "acq_rel")
    return types.int64(types.int64, types.int64, types.int64), emit


def _plain_swap(p: int, i: int, expected: int, value: int) -> bool:
    word = _word(p, i)
    same = word.value == expected
    word.value = value if same else word.value
    return same


@helper(_plain_swap)
def swap_if_equal(p: Any, i: Any, expected: Any, value: Any) -> Any:
    """Store `value` if the word is as expected, in one atomic act; the result says whether it was."""
    def emit(b: Any, values: Any, sig: Any) -> Any:
        pair = b.cmpxchg(element_address(b, values[0], values[1], I64), values[2], values[3], "acq_rel", "acquire")
        return b.extract_value(pair, 1)
    return types.boolean(types.int64, types.int64, types.int64, types.int64), emit


def _plain_pause() -> None:
    time.sleep(0)


@helper(_plain_pause)
def pause() -> Any:
    """Tell the processor that this is a waiting loop."""
    def emit(b: Any, values: Any, sig: Any) -> None:
        if has("sse2"):
            call_function(b, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif has("neon"):
            call_function(b, "llvm.aarch64.hint", ir.VoidType(), [ir.Constant(I32, 1)])
    return types.void(), emit


@helper(_plain_pause)
def give_way() -> Any:
    """Offer this thread's time slice to others."""
    def emit(b: Any, values: Any, sig: Any) -> None:
        if os.name == "posix":
            call_function(b, "sched_yield", I32, [])
    return types.void(), emit


@helper(time.perf_counter_ns)
def clock() -> Any:
    """Nanoseconds of a clock that never runs backwards (on Windows: the processor's cycles)."""
    def emit(b: Any, values: Any, sig: Any) -> Any:
        if os.name != "posix":
            return call_function(b, "llvm.readcyclecounter", I64, [])
        with b.goto_entry_block():  # an alloca inside a loop would eat the stack
            time_spec = b.alloca(I64, 2)
        call_function(b, "clock_gettime", I32, [ir.Constant(I32, CLOCK), time_spec])
        seconds, nanoseconds = b.load(time_spec), b.load(b.gep(time_spec, [ir.Constant(I64, 1)]))
        return b.add(b.mul(seconds, ir.Constant(I64, 10 ** 9)), nanoseconds)
    return types.int64(), emit


def _plain_call(kernel: int, args: int, lo: int, hi: int, slot: int) -> None:
    ENTRY(int(kernel))(args, lo, hi, slot)


@helper(_plain_call)
def call_kernel(kernel: Any, args: Any, lo: Any, hi: Any, slot: Any) -> Any:
    """Run work items [lo, hi) of the kernel at this address."""
    def emit(b: Any, values: Any, sig: Any) -> None:
        function = ir.FunctionType(ir.VoidType(), [I64] * 4)
        b.call(b.inttoptr(values[0], function.as_pointer()), values[1:])
    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), emit
