"""Kernels that do nothing but compute, or nothing but move memory: `measure.py` times them to learn the machine's
limits.
"""

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from tinytorch.runtime.build import vector_bits
from tinytorch.runtime.convert import F32, I32
from tinytorch.runtime.lowlevel import integer, load_f32, pointer, store_f32
from tinytorch.runtime.microkernel import _repeat, _Vectors
from tinytorch.runtime.scalars import plus

CHAINS = 12  # independent sums: more than latency x units on any processor, and within 16 registers
LANES = vector_bits() // 32


def _multiply_adds(element: str) -> Any:
    """`steps` times s = s * x + y (of quads and pairs s = s + s * y, where s stands for its bits) for CHAINS vectors of
    sums; the result is there to keep them alive."""
    def typed(typingctx: Any, steps: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
            return _emit(_Vectors(b, element, LANES), *values)
        return types.float32(types.int64, types.float32, types.float32), generate
    return typed if config.DISABLE_JIT else intrinsic(typed)


def _emit(v: _Vectors, steps: Any, x: Any, y: Any) -> Any:
    b, floats = v.builder, ir.VectorType(F32, LANES)
    zeros = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    anything = ir.Constant(floats, ir.Undefined)
    x, y = (b.bitcast(b.shuffle_vector(b.insert_element(anything, number, I32(0)), anything, zeros), v.vector)
            for number in (x, y))

    def step(_: Any, sums: list[Any]) -> list[Any]:
        if v.element == "f32":
            return [v.multiply_add(s, x, y) for s in sums]
        return [v.multiply_add(b.bitcast(s, v.vector), y, s) for s in sums]

    first = [ir.Constant(v.total, [v.total.element(number)] * LANES) for number in range(CHAINS)]
    total, *others = _repeat(b, steps, first, step)
    for value in others:
        total = (b.add if v.total.element == I32 else b.fadd)(total, value)
    return b.bitcast(b.extract_element(total, I32(0)), F32)


multiply_adds, quad_adds, pair_adds = map(_multiply_adds, ("f32", "quad", "pair"))


def compute(args: int, lo: int, hi: int, slot: int) -> None:
    """out[16 i] = the sum of many multiply-adds, for each work item i."""
    numbers = pointer(args, 0)
    out = pointer(args, 1)
    for i in range(lo, hi):
        store_f32(out, 16 * i, multiply_adds(integer(args, 2), load_f32(numbers, 0, 0), load_f32(numbers, 1, 0)), 1)


def compute_quads(args: int, lo: int, hi: int, slot: int) -> None:
    """The same of bytes, four multiply-adds a lane."""
    numbers = pointer(args, 0)
    out = pointer(args, 1)
    for i in range(lo, hi):
        store_f32(out, 16 * i, quad_adds(integer(args, 2), load_f32(numbers, 0, 0), load_f32(numbers, 1, 0)), 1)


def compute_pairs(args: int, lo: int, hi: int, slot: int) -> None:
    """The same of bf16, two multiply-adds a lane."""
    numbers = pointer(args, 0)
    out = pointer(args, 1)
    for i in range(lo, hi):
        store_f32(out, 16 * i, pair_adds(integer(args, 2), load_f32(numbers, 0, 0), load_f32(numbers, 1, 0)), 1)


def read(args: int, lo: int, hi: int, slot: int) -> None:
    """out[16 slot] = sum of x[lo:hi]."""
    x = pointer(args, 0)
    out = pointer(args, 1)
    total = load_f32(x, lo, 0)
    for i in range(lo, hi):
        total = plus(total, load_f32(x, i, 0))
    store_f32(out, 16 * slot, total, 1)


def copy(args: int, lo: int, hi: int, slot: int) -> None:
    """out = x * factor; a factor, or LLVM would call memcpy, which stores past the caches as no other kernel does."""
    x = pointer(args, 0)
    out = pointer(args, 1)
    factor = load_f32(pointer(args, 2), 0, 2)
    for i in range(lo, hi):
        store_f32(out, i, load_f32(x, i, 0) * factor, 1)
