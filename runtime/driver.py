"""The loop that runs a program, and the loop of a worker: compiled like kernels, and documented in `pool.py`.

`driver(state, table, steps, times)` runs rows of `[kernel, args, extent, chunks]`. `worker(state, slot, idle_ns,
unused)` takes chunks until it has had none for `idle_ns` and no run that wants this slot is going on.
"""

from numba import njit

from tinytorch.runtime.atomics import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_kernel,
    clock,
    give_way,
    pause,
    swap_if_equal,
)
from tinytorch.runtime.lowlevel import load_i64, store_i64
from tinytorch.runtime.pool import ACTIVE, ARGS, CHUNKS, DONE, EXTENT, KERNEL, NEXT, PATIENCE, SLEEPERS, TICKET


@njit(inline="always")
def take_chunk(state: int, slot: int) -> bool:
    """Claim and run one chunk; False if there was none for this slot, or another thread was faster."""
    word = atomic_load(state, TICKET)
    left = word & 0xFFFFFFFF
    if left == 0 or slot >= word >> 32:
        return False
    if swap_if_equal(state, TICKET, word, word - 1):
        chunk = left - 1
        extent = atomic_load(state, EXTENT)
        chunks = atomic_load(state, CHUNKS)
        lo = split(extent, chunk, chunks)
        call_kernel(atomic_load(state, KERNEL), atomic_load(state, ARGS), lo, split(extent, chunk + 1, chunks), slot)
        atomic_add(state, DONE, 1)
    return True


@njit(inline="always")
def split(extent: int, chunk: int, chunks: int) -> int:
    """The first work item of a chunk."""
    return chunk * extent // chunks


def driver(state: int, table: int, steps: int, times: int) -> None:
    """Run the steps; with `state` 0 alone, else with the workers. Returns early, ACTIVE, to have workers woken."""
    first = 0
    if state != 0:
        first = atomic_load(state, NEXT)
        atomic_store(state, NEXT, 0)
    for step in range(first, steps):
        kernel = load_i64(table, 4 * step, 0)
        args = load_i64(table, 4 * step + 1, 0)
        extent = load_i64(table, 4 * step + 2, 0)
        chunks = load_i64(table, 4 * step + 3, 0)
        started = 0
        if times != 0:
            started = clock()
        if chunks <= 1:
            call_kernel(kernel, args, 0, extent, 0)
        elif state == 0:
            for chunk in range(chunks):
                call_kernel(kernel, args, split(extent, chunk, chunks), split(extent, chunk + 1, chunks), 0)
        else:
            if atomic_load(state, SLEEPERS) > 0:
                atomic_store(state, NEXT, step)  # `run` wakes the workers and comes back to this step
                return
            atomic_store(state, DONE, 0)
            atomic_store(state, KERNEL, kernel)
            atomic_store(state, ARGS, args)
            atomic_store(state, EXTENT, extent)
            atomic_store(state, CHUNKS, chunks)
            atomic_store(state, TICKET, atomic_load(state, ACTIVE) << 32 | chunks)
            while take_chunk(state, 0):
                pass
            spins = 0
            while atomic_load(state, DONE) < chunks:
                spins += 1
                if spins < atomic_load(state, PATIENCE):
                    pause()
                else:
                    give_way()
        if times != 0:
            store_i64(times, step, clock() - started, 1)
    if state != 0:
        atomic_store(state, ACTIVE, 0)


def worker(state: int, slot: int, idle_ns: int, unused: int) -> None:
    """Run chunks for this slot until there is no more to come."""
    since = clock()
    turn = 0
    while True:
        if take_chunk(state, slot):
            turn = 0
            since = clock()
        else:
            turn += 1
            pause()
            if turn % 64 == 0:
                if turn > atomic_load(state, PATIENCE):
                    give_way()
                if slot < atomic_load(state, ACTIVE):
                    since = clock()
                elif clock() - since > idle_ns:
                    return
