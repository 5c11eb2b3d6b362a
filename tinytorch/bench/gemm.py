"""Matrix products: ours against the machine's multiply-add peak, and against NumPy's BLAS, shape by shape.

Each product is from plain row-major operands, or transposed views read as they lie, nothing packed beforehand, called
through the pool as in a program, into an array that is there already. Both sides use as many threads (threadpoolctl).
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinytorch.look import units
from tinytorch.runtime.build import compile_kernels
from tinytorch.runtime.matmul import (
    SCRATCH_WORD,
    Epilogue,
    MatmulPlan,
    emit_matmul,
    plan_matmul,
    store_epilogue,
)

from . import limits
from .rows import Row, Settings, Target
from .timing import Timing, interval, paired

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, int, int]  # (m, k, n)
LAYERS = [(64, 784, 128), (64, 128, 64), (64, 64, 10), (784, 64, 128), (128, 64, 784), (64, 128, 784), (128, 64, 64),
          (10, 64, 64), (64, 10, 64)]
LARGE = [(96, 768, 768), (192, 768, 3072), (480, 512, 512), (512, 512, 512), (1024, 1024, 1024), (1920, 2048, 2048)]
VECTORS = [(1, 1024, 1024), (1024, 1024, 1), (1, 64, 257), (4, 768, 768), (2, 1024, 1024), (768, 768, 4),
           (1, 4096, 1024)]
ODD = [(m, k, n) for m, k, n in itertools.product((1, 7, 33, 257), repeat=3)]
SHAPES = {"layers": LAYERS, "large": LARGE, "vectors": VECTORS, "odd": ODD}
LAYOUTS = ("nn", "nt", "tn", "tt")  # of a, then of b; t: lies transposed
AGAIN = 8  # the worst so many are measured a second time, for longer: a neighbour may have been at work


def gemm_peak(settings: Settings) -> Iterator[Row]:
    """One thread against the peak of plain multiply-adds in registers, in turns: of f32, and of smaller numbers."""
    for n in (512, 1024):
        call = product(*_operands((n, n, n), "nn"), 1)
        yield _against_peak(f"{n}³, 1 thread", n, call, "f32", Target(0.9, "%"), settings)
    for name, element in (("u8 × i8", "quad"), ("bf16", "pair")):
        call = grouped_product(1024, element)
        yield _against_peak(f"{name}, 1024³, 1 thread", 1024, call, element, Target(0.7, "%"), settings)


def _against_peak(case: str, n: int, call: Callable[[], None], element: str, target: Target, settings: Settings) -> Row:
    peak = limits.peak(1, element)
    found = paired({"ours": call, "peak": peak.call}, settings.seconds)
    shares = peak.share(2 * n**3, found["ours"], found["peak"])
    ours, best = 2 * n**3 / found["ours"].median, peak.work / found["peak"].median
    return Row("gemm-peak", case, statistics.median(shares), target, found["ours"], unit="%",
               note=f"{units.rate(ours)} of {units.rate(best)}", interval=interval(shares))


def grouped_product(n: int, element: str) -> Callable[[], None]:
    """A call of our kernel for square matrices of quads (bytes) or pairs (bf16), packed as `quads` and `pairs` do."""
    depth, random = n // {"quad": 4, "pair": 2}[element], np.random.default_rng(0)
    a, b = ((random.standard_normal(2 * depth * n).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            if element == "pair" else random.integers(0, 256, 4 * depth * n).astype(np.uint8) for _ in range(2))
    out = np.empty((n, n), np.int32)
    plan = plan_matmul(n, n, depth, lda=depth, ldb=n, element=element)
    return _prepared(plan, store_epilogue("i32" if element == "quad" else "f32"), a, b, out, 1)


def product(a: Array, b: Array, out: Array, threads: int) -> Callable[[], None]:
    """A call that computes out = a @ b with our kernel."""
    (a_lies, transpose_a), (b_lies, transpose_b) = _layout(a), _layout(b)
    (m, n), k = out.shape, a.shape[1]
    plan = plan_matmul(m, n, k, lda=a_lies.shape[1], ldb=b_lies.shape[1], transpose_a=transpose_a,
                       transpose_b=transpose_b, threads=threads)
    return _prepared(plan, store_epilogue(), a, b, out, threads)


def _prepared(plan: MatmulPlan, epilogue: Epilogue, a: Array, b: Array, out: Array, threads: int) -> Callable[[], None]:
    [kernel] = compile_kernels([emit_matmul("matmul", plan.form, epilogue)])
    scratch = np.empty(plan.scratch_bytes * threads + 64, np.uint8)
    words = np.array([*plan.words, out.ctypes.data, out.shape[1], 0])
    words[plan.a_word], words[plan.b_word] = a.ctypes.data, b.ctypes.data
    words[SCRATCH_WORD] = -(-scratch.ctypes.data // 64) * 64
    return limits.kernel_call(kernel.address, words, plan.extent, plan.chunks, threads, (a, b, out, scratch))


def _layout(x: Array) -> tuple[Array, bool]:
    return (x, False) if x.flags.c_contiguous else (x.T, True)


def _operands(shape: Shape, layout: str) -> tuple[Array, Array, Array]:
    m, k, n = shape
    random = np.random.default_rng(0)
    a = random.standard_normal((k, m) if layout[0] == "t" else (m, k)).astype(np.float32)
    b = random.standard_normal((n, k) if layout[1] == "t" else (k, n)).astype(np.float32)
    return a.T if layout[0] == "t" else a, b.T if layout[1] == "t" else b, np.empty((m, n), np.float32)


def against_numpy(shape: Shape, layout: str, threads: int, seconds: float, settle: float) -> dict[str, Timing]:
    """Ours and NumPy's, in turns; the results are compared first."""
    a, b, out = _operands(shape, layout)
    expected = np.empty_like(out)
    ours = product(a, b, out, threads)
    numpy: Callable[[], object] = lambda: np.matmul(a, b, out=expected)
    ours()
    numpy()
    np.testing.assert_allclose(out, expected, atol=1e-5 * shape[1], rtol=1e-4)
    return paired({"ours": ours, "numpy": numpy}, seconds, settle)


def gemm_numpy(settings: Settings) -> Iterator[Row]:
    """All shapes and layouts with one thread, the large ones with all threads."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield Row("gemm-numpy", "all shapes", None, Target(1.0), peers={"numpy": "threadpoolctl is not installed"})
        return
    groups = {name: shapes[::6] if settings.quick else shapes for name, shapes in SHAPES.items()}
    layouts = LAYOUTS[:2] if settings.quick else LAYOUTS
    with threadpool_limits(1, user_api="blas"):
        yield from _groups(groups, layouts, 1, 0.02 if settings.quick else 0.05, 0.0)
    if settings.threads > 1:
        with threadpool_limits(settings.threads, user_api="blas"):
            yield from _groups({"large": groups["large"]}, ("nn",), settings.threads, 1.0, settings.settle)


def _groups(groups: Mapping[str, Sequence[Shape]], layouts: Sequence[str], threads: int, seconds: float,
            settle: float) -> Iterator[Row]:
    """A row a group that tells, then the two that count: the median and the worst of all."""
    ratios: dict[tuple[str, Shape, str], float] = {}
    for name, shapes in groups.items():
        for shape, layout in itertools.product(shapes, layouts):
            found = against_numpy(shape, layout, threads, seconds, settle)
            ratios[name, shape, layout] = found["ours"].faster_than(found["numpy"])
    for key in sorted(ratios, key=ratios.__getitem__)[:AGAIN]:
        found = against_numpy(key[1], key[2], threads, 8 * seconds, settle)
        ratios[key] = found["ours"].faster_than(found["numpy"])
    with_threads = f"{threads} thread{'s' if threads > 1 else ''}"
    for name in groups if len(groups) > 1 else ():
        own = {key: ratio for key, ratio in ratios.items() if key[0] == name}
        yield Row("gemm-numpy", f"{name}, {with_threads}", statistics.median(own.values()), note=_worst(own))
    which = "all shapes" if len(groups) > 1 else next(iter(groups))
    yield Row("gemm-numpy", f"{which}, {with_threads}: median", statistics.median(ratios.values()), Target(1.0),
              note=f"{len(ratios)} products")
    yield Row("gemm-numpy", f"{which}, {with_threads}: worst", min(ratios.values()), Target(0.85), note=_worst(ratios))


def _worst(ratios: dict[tuple[str, Shape, str], float]) -> str:
    worst = sorted(ratios, key=ratios.__getitem__)[:2]
    return "slowest: " + ", ".join(f"{'×'.join(map(str, shape))} {layout} {ratios[name, shape, layout]:.2f}×"
                                   for name, shape, layout in worst)


