"""What the machine can do, measured in turns with what is held against it: `peak(threads)`, `copying(threads)`,
`reading(threads)`.

These are the kernels that `tinytorch.runtime.measure` measures the machine with, as calls that can take turns with
ours, so that a neighbour or a lower clock rate slows both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.runtime import measure, pool
from tinytorch.runtime.build import KernelSource, compile_kernels, vector_bits

from .timing import Timing

STEPS = 1_000_000  # multiply-adds in a row: about 2 ms, long enough to forget that workers had to be woken
COPIED = 16 << 20  # elements


@dataclass(frozen=True)
class Limit:
    """A call that does so much work, FLOPs or bytes, as fast as the machine can."""

    call: Callable[[], None]
    work: float

    def share(self, work: float, ours: Timing, own: Timing) -> list[float]:
        """Round by round, the rate of ours, which does `work`, over the machine's."""
        return [work / mine / (self.work / best) for mine, best in zip(ours.samples, own.samples, strict=True)]


def peak(threads: int, element: str = "f32") -> Limit:
    """Multiply-adds in registers, each of them two operations: of "f32", of "quad" (u8 times i8 to i32: four with one
    instruction where there is one) or of "pair" (bf16 to f32: two)."""
    numbers, out = np.array([0.999, 0.001], np.float32), np.ones(16 * threads, np.float32)
    words = np.array([numbers.ctypes.data, out.ctypes.data, STEPS])
    kernel, each = {"f32": ("compute", 1), "quad": ("compute_quads", 4), "pair": ("compute_pairs", 2)}[element]
    flops = 2.0 * each * measure.CHAINS * (vector_bits() // 32) * STEPS * threads
    return Limit(kernel_call(_probe(kernel), words, threads, threads, threads, (numbers, out)), flops)


def copying(threads: int) -> Limit:
    """64 MiB from one place in memory to another; bytes read and written count."""
    x, out, one = np.ones(COPIED, np.float32), np.ones(COPIED, np.float32), np.ones(1, np.float32)
    words = np.array([x.ctypes.data, out.ctypes.data, one.ctypes.data])
    return Limit(kernel_call(_probe("copy"), words, COPIED, threads, threads, (x, out, one)), 2.0 * x.nbytes)


def reading(threads: int) -> Limit:
    """256 MiB of memory, read once and added up."""
    x, out = np.ones(4 * COPIED, np.float32), np.ones(16 * threads, np.float32)
    words = np.array([x.ctypes.data, out.ctypes.data])
    return Limit(kernel_call(_probe("read"), words, x.size, threads, threads, (x, out)), float(x.nbytes))


def _probe(name: str) -> int:
    text = Path(measure.__file__).with_name("probe.py").read_text()
    [kernel] = compile_kernels([KernelSource(name, text)])
    return kernel.address


def kernel_call(kernel: int, words: np.ndarray, extent: int, chunks: int, threads: int,
                keep: Any) -> Callable[[], None]:
    """A call of the pool on one step; `keep` and the tables live as long as it."""
    table = np.array([[kernel, words.ctypes.data, extent, chunks]])
    alive, run = (words, table, keep), pool.prepare(table.ctypes.data, 1, threads)  # as a program runs its steps

    def call() -> None:
        assert alive
        run()

    return call
