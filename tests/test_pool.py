"""The driver runs each chunk of each step exactly once, in order, whoever calls and however many threads there are."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinytorch.data import DataLoader
from tinytorch.ir.errors import SettingError
from tinytorch.runtime import pool
from tinytorch.runtime.build import KernelSource, compile_kernels

# Each work item counts itself and remembers the clock (the number of the step before it in this item must be one less).
MARK = """
from tinytorch.runtime.lowlevel import integer, load_i64, pointer, store_i64


def mark(args, lo, hi, slot):
    counts = pointer(args, 0)
    order = pointer(args, 1)
    step = integer(args, 2)
    slots = pointer(args, 3)
    for i in range(lo, hi):
        store_i64(counts, i, load_i64(counts, i, 0) + 1, 0)
        store_i64(order, i, (load_i64(order, i, 1) * 3 + step) & 0xFFFFFFFF, 1)
    store_i64(slots, slot, load_i64(slots, slot, 2) + 1, 2)
"""
SLOW = """
from tinytorch.runtime.lowlevel import f32, integer, load_f32, pointer, store_f32


def slow(args, lo, hi, slot):
    out = pointer(args, 0)
    for i in range(lo, hi):
        v = load_f32(out, i, 0)
        for _ in range(integer(args, 1)):
            v = v / (v + f32(1.5))
        store_f32(out, i, v, 0)
"""


class Tables:
    """Random steps over one array of counters a lane, and what must come out.

    A wave is a run of steps on lanes 0, 1, …; with one lane each step is a wave of its own.
    """

    def __init__(self, steps: int, seed: int, size: int = 64, lanes: int = 1) -> None:
        rng = np.random.default_rng(seed)
        [kernel] = compile_kernels([KernelSource("mark", MARK)])
        self.counts, self.order = np.zeros((lanes, size), "i8"), np.zeros((lanes, size), "i8")
        self.slots = np.zeros(pool.MAX_THREADS, "i8")
        self.waves: list[int] = []
        while sum(self.waves) < steps:
            self.waves.append(min(int(rng.integers(1, lanes + 1)), steps - sum(self.waves)))
        self.lanes = [lane for wave in self.waves for lane in range(wave)]
        self.args = np.array([[self.counts[lane].ctypes.data, self.order[lane].ctypes.data, step % 7,
                               self.slots.ctypes.data] for step, lane in enumerate(self.lanes)], np.int64)
        self.extents, self.chunks = rng.integers(1, size + 1, steps), rng.choice([1, 2, 3, 4, 7, 16, 100], steps)
        self.table = np.zeros((steps, 4), np.int64)
        self.table[:, 0] = kernel.address
        self.table[:, 1] = self.args.ctypes.data + 32 * np.arange(steps)
        self.table[:, 2], self.table[:, 3] = self.extents, self.chunks
        if lanes > 1:
            self.table[:, 3] += [rows << 32 for wave in self.waves for rows in range(wave, 0, -1)]

    def run(self, threads: int, times: int = 0) -> None:
        pool.run(self.table.ctypes.data, len(self.table), threads, times)

    def check(self, runs: int, threads: int) -> None:
        expected, order = np.zeros_like(self.counts), np.zeros_like(self.order)
        for _ in range(runs):
            for step, (lane, extent) in enumerate(zip(self.lanes, self.extents)):
                expected[lane, :extent] += 1
                order[lane, :extent] = (order[lane, :extent] * 3 + step % 7) & 0xFFFFFFFF
        assert np.array_equal(self.counts, expected), "a chunk ran twice or never"
        assert np.array_equal(self.order, order), "the steps did not run in order"
        assert not self.slots[threads:].any(), "a slot beyond the number of threads"


@pytest.mark.parametrize("threads", [1, 2, 4, 8, 64])
def test_each_chunk_runs_once(threads: int) -> None:
    tables = Tables(steps=2000, seed=threads)
    for _ in range(3):
        tables.run(threads)
    tables.check(3, threads)


@pytest.mark.parametrize("threads", [1, 2, 4, 64])
def test_each_chunk_of_a_wave_runs_once(threads: int) -> None:
    tables = Tables(steps=2000, seed=threads, lanes=12)
    for _ in range(3):
        tables.run(threads)
    times = np.full(2000, -1, np.int64)
    tables.run(threads, times.ctypes.data)
    tables.check(4, threads)
    assert (times >= 0).all(), "each step has its time"


def test_waves_and_single_steps_in_turns() -> None:
    many, few = Tables(steps=40, seed=0, lanes=9), Tables(steps=10, seed=1)
    for _ in range(500):  # the job changes from one run to the next, under the eyes of workers that are late
        many.run(4)
        few.run(3)
    many.check(500, 4)
    few.check(500, 3)


def test_number_of_threads_may_change_from_run_to_run() -> None:
    rng = np.random.default_rng(0)
    for threads in rng.choice([1, 2, 3, 5, 8], 150):
        tables = Tables(steps=20, seed=int(threads))
        tables.run(int(threads))
        tables.check(1, int(threads))
        if rng.random() < 0.2:
            time.sleep(0.001)  # the workers fall asleep


def test_workers_that_are_not_wanted_stay_out() -> None:
    many, few = Tables(steps=3, seed=0), Tables(steps=200, seed=1)
    for _ in range(300):  # without a pause: the workers of `many` are still awake
        many.run(6)
        few.run(2)
    many.check(300, 6)
    few.check(300, 2)


def test_claims_race() -> None:
    tables = Tables(steps=20_000, seed=0)
    tables.table[:, 3] = tables.extents
    tables.run(2)
    tables.check(1, 2)


def test_workers_take_part() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        pytest.skip("one core")
    [kernel] = compile_kernels([KernelSource("slow", SLOW)])
    out = np.ones(64, "f4")
    args = np.array([out.ctypes.data, 100_000])
    table = np.array([[kernel.address, args.ctypes.data, 64, 64]])
    before = time.thread_time()
    pool.run(table.ctypes.data, 1, 1)
    alone = time.thread_time() - before
    before = time.thread_time()
    pool.run(table.ctypes.data, 1, 2)
    assert time.thread_time() - before < 0.9 * alone, "the caller did all the work"


def test_concurrent_callers() -> None:
    tables = [Tables(steps=1000, seed=seed, lanes=1 + 4 * (seed % 2)) for seed in range(4)]
    threads = [threading.Thread(target=lambda t=t: [t.run(3) for _ in range(5)]) for t in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a caller hangs"
    for t in tables:
        t.check(5, 3)


def test_results_do_not_depend_on_threads() -> None:
    [kernel] = compile_kernels([KernelSource("slow", SLOW)])
    results = []
    for threads in (1, 2, 3, 8):
        out = np.linspace(0, 1, 999, dtype="f4")
        args = np.array([out.ctypes.data, 10])
        table = np.array([[kernel.address, args.ctypes.data, 999, 7]] * 5)
        pool.run(table.ctypes.data, 5, threads)
        results.append(out.tobytes())
    assert len(set(results)) == 1


def test_times_of_steps() -> None:
    [kernel] = compile_kernels([KernelSource("slow", SLOW)])
    out, times = np.ones(4, "f4"), np.full(3, -1, np.int64)
    args = np.array([[out.ctypes.data, 1000], [out.ctypes.data, 1_000_000], [out.ctypes.data, 1000]])
    table = np.array([[kernel.address, row.ctypes.data, 4, chunks] for row, chunks in zip(args, (1, 1, 2))])
    start = time.perf_counter_ns()
    pool.run(table.ctypes.data, 3, 2, times.ctypes.data)
    assert (times > 0).all() and times.sum() <= time.perf_counter_ns() - start
    assert times[1] > 10 * times[0]


def test_prepared() -> None:
    tables = Tables(steps=50, seed=3)
    again = pool.prepare(tables.table.ctypes.data, 50, 2)
    for _ in range(20):
        again()
    tables.check(20, 2)


def test_short_runs_wake_nobody_unless_they_are_many() -> None:
    tables = Tables(steps=5, seed=3, lanes=4)
    again = pool.prepare(tables.table.ctypes.data, 5, 2, 0, False)
    made = pool._the_pool()
    time.sleep(0.01)  # the workers fall asleep
    made.words[pool.SLEEPERS] = 1
    before = made.epoch
    again()
    time.sleep(0.01)
    again()
    assert made.epoch == before
    count = 2
    while made.epoch == before:  # without a pause: but on a busy machine two may be far apart
        again()
        count += 1
    tables.check(count, 2)


def test_nothing_to_do() -> None:
    pool.run(0, 0, 2)


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_threads", None)
    monkeypatch.setenv("TINYTORCH_THREADS", "3")
    assert pool.get_num_threads() == 3
    pool.set_num_threads(5)
    assert pool.get_num_threads() == 5
    with pytest.raises(ValueError, match=r"set_num_threads\(0\)"):
        pool.set_num_threads(0)
    monkeypatch.setattr(pool, "_threads", None)
    monkeypatch.delenv("TINYTORCH_THREADS")
    assert 1 <= pool.get_num_threads() <= (os.cpu_count() or 1)


HERE = f"""import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_pool import Tables
t = Tables(500, 1, lanes=5)
"""


def python(code: str, **settings: str) -> str:
    """Run code in a fresh process that must end by itself."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HERE + code]
    ran = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stderr == "", ran.stderr
    return ran.stdout


class ThreadsThere:
    """A data set of how many threads a program would use where its rows are read."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return np.array(pool.get_num_threads())


def test_worker_processes_have_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTORCH_THREADS", "4")
    loader = DataLoader(ThreadsThere(), 1, num_workers=2, workers="process")
    assert [int(batch.item()) for batch in loader] == [1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork() -> None:
    out = python("""
import os
t.run(4)
child = os.fork()
t.run(4)
t.check(2, 4)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print('both')
""")
    assert out == "both\n"


@pytest.mark.parametrize("moment", ["", "import time; time.sleep(0.05)"])
def test_interpreter_ends(moment: str) -> None:
    python(f"t.run(4)\nt.check(1, 4)\n{moment}")


def test_runs_from_a_thread_that_outlives_main() -> None:
    code = "import threading\nthreading.Thread(target=lambda: [t.run(3) for _ in range(300)]).start()"
    python(code)


def test_driver_without_numba() -> None:
    assert python("t.run(4)\nt.check(1, 4)\nprint('right')", NUMBA_DISABLE_JIT="1") == "right\n"


@pytest.mark.parametrize("setting", ["abc", "0", "1000", "-1"])
def test_a_setting_that_is_no_number_of_threads_is_an_error(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTORCH_THREADS", setting)
    monkeypatch.setattr(pool, "_threads", None)
    with pytest.raises(SettingError, match=f"TINYTORCH_THREADS='{setting}': expected an integer from 1 to 256"):
        pool.get_num_threads()
