"""Kernels that do nothing but compute, or nothing but move memory: `measure.py` times them to learn the machine's
limits.
"""

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from tinytorch.runtime.build import has, vector_bits
from tinytorch.runtime.convert import F32, I32, I64, call_function
from tinytorch.runtime.lowlevel import integer, load_f32, pointer, store_f32
from tinytorch.runtime.scalars import plus

CHAINS = 12  # independent sums: more than latency x units on any processor, and within 16 registers
LANES = vector_bits() // 32


def _multiply_adds(typingctx: Any, steps: Any, x: Any, y: Any) -> Any:
    """`steps` times s = s * x + y for CHAINS vectors of sums; the result is there to keep them alive."""
    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        vector = ir.VectorType(F32, LANES)
        zeros = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
        anything = ir.Constant(vector, ir.Undefined)
        x, y = (b.shuffle_vector(b.insert_element(anything, v, I32(0)), anything, zeros) for v in values[1:])
        before, loop, after = b.block, b.append_basic_block("loop"), b.append_basic_block("after")
        b.branch(loop)
        b.position_at_end(loop)
        index = b.phi(I64)
        sums = [b.phi(vector) for _ in range(CHAINS)]
        new = [call_function(b, f"llvm.fma.v{LANES}f32", vector, [s, x, y]) if has("fma") or has("neon")
               else b.fadd(b.fmul(s, x), y) for s in sums]  # fmt: skip
        following = b.add(index, I64(1))
        b.cbranch(b.icmp_signed("<", following, values[0]), loop, after)
        for number, (phi, value) in enumerate(zip([index, *sums], [following, *new])):
            phi.add_incoming(I64(0) if number == 0 else ir.Constant(vector, [float(number)] * LANES), before)
            phi.add_incoming(value, loop)
        b.position_at_end(after)
        total = new[0]
        for value in new[1:]:
            total = b.fadd(total, value)
        return b.extract_element(total, I32(0))
    return types.float32(types.int64, types.float32, types.float32), generate


multiply_adds: Any = _multiply_adds if config.DISABLE_JIT else intrinsic(_multiply_adds)


def compute(args: int, lo: int, hi: int, slot: int) -> None:
    """out[16 i] = the sum of many multiply-adds, for each work item i."""
    numbers = pointer(args, 0)
    out = pointer(args, 1)
    for i in range(lo, hi):
        store_f32(out, 16 * i, multiply_adds(integer(args, 2), load_f32(numbers, 0, 0), load_f32(numbers, 1, 0)), 1)


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
