"""Run a program: `run(table_address, n_steps, threads)` executes a table of steps
`[kernel, args, extent, rows << 32 | chunks]`.

One compiled loop walks the table, wave by wave (`schedule.py`): the next `rows` steps, counted from each of them to the
end of its wave, do not wait for one another; 0 and 1 say that a step is on its own. A wave of one chunk runs where the
loop runs; the chunks of another, numbered through from its first step on, are shared between the caller and worker
threads. Chunk c of the n of a step is `[c*extent//n, (c+1)*extent//n)`, whoever runs it and whenever, so a result never
depends on threads or timing.

How a wave is shared. The caller writes the job (address of the first row, number of chunks), then publishes one word,
the ticket: `threads << 32 | chunks left`. Everybody, the caller too, claims the next chunk by one compare-and-swap from
the ticket that was read to that ticket less one, reads the job, finds the row by walking over rows whose chunks come
before, runs the chunk, and adds one to DONE. When DONE equals chunks, the caller goes on. *No thread can run a wrong
chunk*, however late it is: if the swap succeeds, the ticket was, at that instant, what the thread had read, so a chunk
of the *current* job was left and is now its own; it had read nothing of the job before; and neither the job nor the
rows and arguments it points to can change before this chunk is counted in DONE. The upper half of the ticket keeps
threads beyond the number asked for out, by the same argument. A slot runs one chunk at a time, so scratch memory that
belongs to a slot is nobody else's, also where the steps of a wave have it all.

Workers are daemon Python threads inside a compiled loop, without the GIL. They spin while a run is going on and
shortly after, then sleep in Python. The loop finds them asleep only when it meets a parallel step; it then returns,
`run` wakes them, and the loop goes on: a table of serial steps wakes nobody. Waking takes up to 0.1 ms, so a run that
is said to be short wakes nobody either, unless short runs follow one another closely. If another Python thread holds
the pool, the caller runs all chunks itself, in the same bounds.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinytorch.ir import config

from .build import ENTRY, KernelSource, compile_kernels, interpreted

# Words of the shared state. The ticket and the job share one cache line, so that a claim brings the job along.
TICKET, FIRST, CHUNKS = range(3)
DONE = 8
ACTIVE = 16  # the number of threads of the run that is going on, set by `run`, cleared by the driver at the end
SLEEPERS = 17  # not 0: some worker that this run wants must be woken, or started
NEXT = 18  # the step to begin with: not 0 where the driver came back, ACTIVE, to have workers woken
PATIENCE = 19  # turns of a waiting loop before it offers its time slice to others
WORDS = 24
ROW = 32  # bytes of a row of the table
IDLE_NS = 200_000  # how long a worker spins after a run before it sleeps
MAX_THREADS = 256
NOBODY = ctypes.c_int64(0)  # the state of a driver that runs alone


def available_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked(threads: int) -> int:
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"set_num_threads({threads}): expected 1 .. {MAX_THREADS} threads")
    return threads


_threads: int | None = None


def get_num_threads() -> int:
    """The number of threads a program uses: as set, else `TINYTORCH_THREADS`, else the cores this process may use."""
    if _threads is not None:
        return _threads
    return config.threads(min(available_cores(), MAX_THREADS), MAX_THREADS)


def set_num_threads(threads: int) -> None:
    """Set the number of threads of the programs that are built from now on."""
    global _threads
    _threads = _checked(threads)


@functools.cache
def _functions() -> tuple[Callable[..., None], Callable[..., None]]:
    layout = (TICKET, FIRST, CHUNKS, DONE, ACTIVE, SLEEPERS, NEXT, PATIENCE, ROW)
    # The layout is part of the text, so of the key.
    text = f"# Words of the state: {layout}\n" + Path(__file__).with_name("driver.py").read_text()
    driver, worker = compile_kernels([KernelSource("driver", text), KernelSource("worker", text)])
    # Without declared arguments, ctypes takes ready c_int64 objects as they are: 0.25 us a call, not 0.5.
    return ctypes.CFUNCTYPE(None)(driver.address), ENTRY(worker.address)


class _Pool:
    """The shared state and the workers of one process."""

    def __init__(self) -> None:
        self.driver, self.worker = _functions()
        self.owner = threading.Lock()  # held during a run
        self.bed = threading.Condition()  # guards the next three, and SLEEPERS
        self.epoch = 0  # counts the wake-up calls; a worker sleeps until it changes
        self.awake = 1  # workers with slots below this one were called
        self.closing = interpreted()  # no workers when Python itself runs the kernels, or at the end
        self.workers: list[threading.Thread] = []
        self.memory = np.zeros(WORDS + 8, np.int64)
        self.address = -(-self.memory.ctypes.data // 64) * 64
        self.state = ctypes.c_int64(self.address)
        self.words = (ctypes.c_int64 * WORDS).from_address(self.address)
        self.cores = available_cores()
        self.declined = 0  # when a short run last went without workers

    def run(self, table: ctypes.c_int64, steps: ctypes.c_int64, threads: int, times: ctypes.c_int64,
            rouse: bool) -> None:
        if (threads == 1 or self.closing or not (rouse or self._in_a_series(threads))
                or not self.owner.acquire(blocking=False)):
            self.driver(NOBODY, table, steps, times)
            return
        words = self.words
        try:
            if threads > self.awake:
                words[SLEEPERS] = 1
            words[ACTIVE] = threads
            self.driver(self.state, table, steps, times)
            while words[ACTIVE]:
                self._wake(threads)
                self.driver(self.state, table, steps, times)
        except BaseException:  # Ctrl-C, between two calls of the driver: no job is under way
            words[ACTIVE] = words[NEXT] = 0
            raise
        finally:
            self.owner.release()

    def _in_a_series(self, threads: int) -> bool:
        """Whether the workers are awake, or short runs follow one another so closely that they should be."""
        if threads <= self.awake and not self.words[SLEEPERS]:
            return True
        before, self.declined = self.declined, time.perf_counter_ns()
        return self.declined - before < IDLE_NS

    def _wake(self, threads: int) -> None:
        away = _other_cores()
        for thread in self.workers if away else ():
            # A woken thread begins on the core of the one that wakes it, and would wait there until that one rests.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread.native_id or 0, away)
        with self.bed:
            self.epoch += 1
            self.awake = threads
            self.words[SLEEPERS] = 0
            self.words[PATIENCE] = 2000 if threads <= self.cores else 64
            self.bed.notify_all()
        for slot in range(len(self.workers) + 1, threads):
            thread = threading.Thread(target=self._work, args=(slot, self.epoch), name=f"tinytorch-{slot}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads to be had: those that there are do the work
                return
            self.workers.append(thread)

    def _work(self, slot: int, seen: int) -> None:
        while True:
            self.worker(self.address, slot, IDLE_NS, 0)
            with self.bed:
                if self.epoch == seen:
                    self.words[SLEEPERS] = 1
                while self.epoch == seen or slot >= self.awake:
                    if self.closing:
                        return
                    self.bed.wait()
                seen = self.epoch

    def close(self) -> None:
        with self.bed:
            self.closing = True
            self.bed.notify_all()
        for thread in self.workers:
            thread.join(1.0)


_pool: _Pool | None = None
_making = threading.Lock()


def _other_cores() -> frozenset[int]:
    """The cores this process may use, less the one this thread is on; empty if that is unknown or there is no other."""
    if _sched_getcpu is None:
        return frozenset()
    return frozenset(_allowed - {_sched_getcpu()})


_sched_getcpu = getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
_allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _the_pool() -> _Pool:
    global _pool
    with _making:
        if _pool is None:
            _pool = _Pool()
        return _pool


def _forget() -> None:
    """In a forked child: the workers stayed behind with the parent."""
    global _pool, _making
    _pool = None
    _making = threading.Lock()


def _close() -> None:
    if _pool is not None:
        _pool.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(_close)


def run(table_address: int, n_steps: int, threads: int, times_address: int = 0) -> None:
    """Run the step table (int64, `n_steps` rows of 4) on up to `threads` threads; returns when all steps are done.

    With `times_address`, each step runs as a wave of its own, and its nanoseconds are written to an int64 table there.
    The memory that the kernels use must stay alive; a kernel sees slots 0 .. threads - 1.
    """
    prepare(table_address, n_steps, threads, times_address)()


def prepare(table_address: int, n_steps: int, threads: int, times_address: int = 0,
            rouse: bool = True) -> Callable[[], None]:
    """`run` with these arguments, to be called again and again: for a short table half the cost of `run`.

    With `rouse=False`, workers that sleep are woken only if such runs follow one another closely.
    """
    table, steps, times = ctypes.c_int64(table_address), ctypes.c_int64(n_steps), ctypes.c_int64(times_address)

    def run_prepared() -> None:
        (_pool or _the_pool()).run(table, steps, threads, times, rouse)

    return run_prepared
