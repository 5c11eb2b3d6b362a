"""Our matrix product against NumPy's BLAS and the machine's multiply-add peak: `python bench/gemm.py [--threads 2]`.

Each line is one product, from plain row-major operands, nothing packed beforehand, called through the pool as in a
program. The two sides take turns, with the same number of threads; a figure is the median, a ratio is NumPy's time over
ours (above 1: ours is faster).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tinytorch.runtime import pool
from tinytorch.runtime.build import KernelSource, compile_kernels, vector_bits
from tinytorch.runtime.matmul import SCRATCH_WORD, MatmulPlan, emit_matmul, plan_matmul, store_epilogue

Array = np.ndarray[Any, np.dtype[np.float32]]
LAYERS = [(64, 784, 128), (64, 128, 64), (64, 64, 10), (784, 64, 128), (128, 64, 784), (64, 128, 784), (128, 64, 64),
          (10, 64, 64), (64, 10, 64)]
LARGE = [(96, 768, 768), (192, 768, 3072), (480, 512, 512), (512, 512, 512), (1024, 1024, 1024), (1920, 2048, 2048)]
VECTORS = [(1, 1024, 1024), (1024, 1024, 1), (1, 64, 257), (4, 768, 768), (2, 1024, 1024), (768, 768, 4),
           (1, 4096, 1024)]
ODD = [(m, k, n) for m, k, n in itertools.product((1, 7, 33, 257), repeat=3)]
SHAPES = {"layers": LAYERS, "large": LARGE, "vectors": VECTORS, "odd": ODD}  # (m, k, n)

PEAK = '''
from tinytorch.runtime.lowlevel import *
from tinytorch.runtime.microkernel import outer_tile

multiply = outer_tile(rows={rows}, vectors={vectors}, lanes={lanes}, element="f32")


def peak(args, lo, hi, slot):
    memory, stride = pointer(args, 0), integer(args, 1)
    for _ in range(lo, hi):
        multiply(memory, stride, stride, {rows}, memory, stride, 4096, memory + 4096, 0)
'''


def peak_gflops() -> float:
    """Multiply-adds on operands that never leave the first-level cache."""
    lanes = vector_bits() // 32
    rows, vectors = {512: (8, 3), 256: (4, 3), 128: (4, 2)}[vector_bits()]
    [kernel] = compile_kernels([KernelSource("peak", PEAK.format(rows=rows, vectors=vectors, lanes=lanes))])
    memory = np.zeros(1 << 14, np.float32)
    args = np.array([memory.ctypes.data, 0])
    table = np.array([kernel.address, args.ctypes.data, 50, 1])
    seconds = min(timed(lambda: pool.run(table.ctypes.data, 1, 1)) for _ in range(20))
    return 2 * rows * vectors * lanes * 4096 * 50 / seconds / 1e9


def product(a: Array, b: Array, out: Array, threads: int) -> tuple[Callable[[], None], MatmulPlan]:
    """A call that computes out = a @ b with our kernel, and its plan; transposed views are read as they lie."""
    (a_lies, transpose_a), (b_lies, transpose_b) = _layout(a), _layout(b)
    plan = plan_matmul(*out.shape, a.shape[1], lda=a_lies.shape[1], ldb=b_lies.shape[1],
                       transpose_a=transpose_a, transpose_b=transpose_b, threads=threads)
    [kernel] = compile_kernels([emit_matmul("matmul", plan.form, store_epilogue())])
    scratch = np.empty(plan.scratch_bytes * threads + 64, np.uint8)
    words = np.array([*plan.words, out.ctypes.data, out.shape[1], 0])
    words[plan.a_word], words[plan.b_word] = a.ctypes.data, b.ctypes.data
    words[SCRATCH_WORD] = -(-scratch.ctypes.data // 64) * 64
    table = np.array([kernel.address, words.ctypes.data, plan.extent, plan.chunks])
    keep, address = (a, b, out, scratch, words, table), table.ctypes.data

    def call() -> None:
        assert keep
        pool.run(address, 1, threads)
    return call, plan


def _layout(x: Array) -> tuple[Array, bool]:
    return (x, False) if x.flags.c_contiguous else (x.T, True)


def timed(call: Callable[[], object], repeat: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def alone(call: Callable[[], object], repeat: int, threads: int) -> float:
    """`timed`, once the threads of the other side have stopped spinning (OpenBLAS: after tens of milliseconds)."""
    if threads > 1:
        time.sleep(0.1)
        call()
    return timed(call, repeat)


def compare(m: int, k: int, n: int, layout: str, threads: int, budget: float) -> tuple[float, float, MatmulPlan]:
    """Median seconds of ours and of NumPy's, turn by turn, and our plan."""
    transpose_a, transpose_b = layout[0] == "t", layout[1] == "t"
    random = np.random.default_rng(0)
    a = random.standard_normal((k, m) if transpose_a else (m, k)).astype(np.float32)
    b = random.standard_normal((n, k) if transpose_b else (k, n)).astype(np.float32)
    a, b = a.T if transpose_a else a, b.T if transpose_b else b
    out, expected = np.empty((m, n), np.float32), np.empty((m, n), np.float32)
    ours, plan = product(a, b, out, threads)
    numpy = lambda: np.matmul(a, b, out=expected)
    ours(), numpy()
    np.testing.assert_allclose(out, expected, atol=1e-5 * k, rtol=1e-4)
    repeat = max(1, int((2e-4 if threads == 1 else 5e-3) / max(timed(ours), 1e-7)))
    turns = max(5, min(61, int(budget / (timed(ours, repeat) + timed(numpy, repeat)) / repeat)))
    pairs = [(alone(ours, repeat, threads), alone(numpy, repeat, threads)) for _ in range(turns)]
    return statistics.median(x for x, _ in pairs), statistics.median(y for _, y in pairs), plan


def main() -> None:
    parser = argparse.ArgumentParser(description="Our matrix product against NumPy's BLAS and the multiply-add peak.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", choices=SHAPES, nargs="*", default=["layers", "large", "vectors"])
    parser.add_argument("--layouts", nargs="*", default=["nn", "nt", "tn", "tt"], help="a, then b; t: lies transposed")
    parser.add_argument("--seconds", type=float, default=0.15, help="time for one line")
    options = parser.parse_args()
    peak = peak_gflops() * options.threads
    print(f"multiply-add peak: {peak:.0f} GFLOP/s on {options.threads} threads")
    ratios = []
    shapes = [shape for name in options.shapes for shape in SHAPES[name]]
    with threadpool_limits(options.threads, user_api="blas"):
        for (m, k, n), layout in itertools.product(shapes, options.layouts):
            ours, numpy, plan = compare(m, k, n, layout, options.threads, options.seconds)
            rate, ratio = 2 * m * k * n / ours / 1e9, numpy / ours
            ratios.append((ratio, f"{m}x{k}x{n} {layout}"))
            way = plan.form.method + " swapped" * plan.form.swapped
            print(f"{ratios[-1][1]:18} {ours * 1e6:9.1f} us  {rate:6.1f} GFLOP/s  {rate / peak:4.0%} of peak  "
                  f"{ratio:5.2f} x NumPy  {way}")
    worst = ", ".join(f"{ratio:.2f} ({shape})" for ratio, shape in sorted(ratios)[:6])
    print(f"NumPy's time over ours: median {statistics.median(ratio for ratio, _ in ratios):.2f}, least {worst}")


if __name__ == "__main__":
    main()
