"""What this machine can do at most: `machine()` gives its arithmetic peak, memory bandwidth and caches, measured
once.

Each limit is the best of several runs of a kernel of ours (`probe.py`) through the same builder and pool as any
program, so a kernel's distance from it is the kernel's own. A multiply-add counts as two operations; copying counts
bytes read plus bytes written (a cache that fetches a line before overwriting it moves more). Measuring takes under a
second; the result lies beside the kernels with its date, and `machine(refresh=True)` measures anew.

    limit = machine()
    seconds = max(flops / (limit.gflops * 1e9), bytes_moved / (limit.read_gbytes * 1e9))      # the roofline
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import build, pool

CHAINS = 12  # of `probe.py`, which imports Numba
SECONDS = 0.08  # for each limit
MIN_BYTES, MAX_BYTES = 64 << 20, 256 << 20  # of the array that is read or copied


@dataclass(frozen=True)
class Machine:
    """The limits of this machine: GFLOP/s of f32 multiply-adds, GB/s (10^9 bytes) of reads and of copies."""

    cpu: str
    cores: int  # that this process may use
    threads: int  # that "all" below means
    vector_bits: int
    gflops_one: float
    gflops: float
    read_gbytes_one: float
    read_gbytes: float
    copy_gbytes_one: float
    copy_gbytes: float
    cache_gbytes_one: float  # reads of what lies in the second-level caches
    cache_gbytes: float
    caches: tuple[int, ...]  # bytes of the data caches that one core sees, level 1 first; empty if unknown
    measured: str  # date and time, ISO 8601


_machines: dict[int, Machine] = {}


def machine(refresh: bool = False) -> Machine:
    """The limits of this machine, for the present number of threads: remembered, read from the disk, or measured.

    Raises RuntimeError where kernels are not compiled (`NUMBA_DISABLE_JIT=1`).
    """
    threads = pool.get_num_threads()
    if refresh or threads not in _machines:
        path = build.kernel_dir() / f"machine_{threads}.json"
        found = None if refresh else _read(path, threads)
        if found is None:
            found = _measure(threads)
            build.write_cached(path, json.dumps(dataclasses.asdict(found), indent=1).encode())
        _machines[threads] = found
    return _machines[threads]


def _read(path: Path, threads: int) -> Machine | None:
    try:
        facts = json.loads(path.read_text())
        found = Machine(**{**facts, "caches": tuple(facts["caches"])})
        rates = [value for name, value in facts.items() if name.startswith(("gflops", "read", "copy", "cache_"))]
        sound = min(rates) > 0 and found.cpu == cpu_name() and found.threads == threads
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if sound else None


def _measure(threads: int) -> Machine:
    if build.interpreted():
        raise RuntimeError("machine(): NUMBA_DISABLE_JIT=1 runs kernels as Python; unset it to measure their speed")
    text = Path(__file__).with_name("probe.py").read_text()
    compute, read, copy = (kernel.address for kernel in build.compile_kernels(
        [build.KernelSource(name, text) for name in ("compute", "read", "copy")]))
    caches = cache_bytes()
    size = min(max(4 * max(caches, default=0), MIN_BYTES), MAX_BYTES) // 4
    x, out = np.ones(size, np.float32), np.ones(size, np.float32)
    numbers, steps = np.array([0.999, 0.001], np.float32), 50_000
    one = np.ones(1, np.float32)
    flops = 2.0 * CHAINS * (build.vector_bits() // 32) * steps
    limits = []
    near = (caches[1] if len(caches) > 1 else MIN_BYTES >> 7) // 8  # floats in half of it
    for count in (1, threads):
        limits.append((
            _best(compute, [numbers.ctypes.data, out.ctypes.data, steps], count, count, flops * count),
            _best(read, [x.ctypes.data, out.ctypes.data], size, count, x.nbytes),
            _best(copy, [x.ctypes.data, out.ctypes.data, one.ctypes.data], size, count, 2.0 * x.nbytes),
            _best(read, [x.ctypes.data, out.ctypes.data], near * count, count, 4.0 * near * count)))
    (gflops_one, read_one, copy_one, cache_one), (gflops, read_all, copy_all, cache_all) = limits
    return Machine(
        cpu_name(), pool.available_cores(), threads, build.vector_bits(), gflops_one, gflops, read_one, read_all,
        copy_one, copy_all, cache_one, cache_all, caches, time.strftime("%Y-%m-%dT%H:%M:%S%z"))


def _best(kernel: int, args: list[int], extent: int, threads: int, work: float) -> float:
    """The greatest rate seen, in 10^9 units of work a second."""
    operands = np.array(args, np.int64)
    table = np.array([[kernel, operands.ctypes.data, extent, threads]], np.int64)
    times = np.zeros(1, np.int64)
    fastest, end = np.inf, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        pool.run(table.ctypes.data, 1, threads, times.ctypes.data)
        fastest = min(fastest, float(times[0]))
    return work / fastest


def cpu_name() -> str:
    """The processor as its maker calls it, or as the platform does."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cache_bytes() -> tuple[int, ...]:
    """Bytes of the data caches of the first core, level 1 first; empty where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return ()
    sizes: dict[int, int] = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                sizes[int(level)] = int(size[:-1]) << {"K": 10, "M": 20, "G": 30}[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return tuple(sizes[level] for level in sorted(sizes))
