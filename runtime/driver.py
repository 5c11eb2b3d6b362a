"""The loop that runs a program, and the loop of a worker: compiled like kernels, and documented in `pool.py`.

`driver(state, table, steps, times)` runs rows of `[kernel, args, extent, rows << 32 | chunks]`. `worker(state, slot,
idle_ns, unused)` takes chunks until it has had none for `idle_ns` and no run that wants this slot is going on.
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
from tinytorch.runtime.pool import ACTIVE, CHUNKS, DONE, FIRST, NEXT, PATIENCE, ROW, SLEEPERS, TICKET

LOW = 0xFFFFFFFF  # the lower half of a word


@njit(inline="always")
def take_chunk(state: int, slot: int) -> bool:
    """Claim and run one chunk; False if there was none for this slot, or another thread was faster."""
    word = atomic_load(state, TICKET)
    left = word & LOW
    if left == 0 or slot >= word >> 32:
        return False
    if swap_if_equal(state, TICKET, word, word - 1):
        row = atomic_load(state, FIRST)
        chunk = atomic_load(state, CHUNKS) - left
        chunks = atomic_load(row, 3) & LOW
        while chunk >= chunks:  # it is not of this step
            chunk -= chunks
            row += ROW
            chunks = atomic_load(row, 3) & LOW
        extent = atomic_load(row, 2)
        lo = split(extent, chunk, chunks)
        call_kernel(atomic_load(row, 0), atomic_load(row, 1), lo, split(extent, chunk + 1, chunks), slot)
        atomic_add(state, DONE, 1)
    return True


@njit(inline="always")
def split(extent: int, chunk: int, chunks: int) -> int:
    """The first work item of a chunk."""
    return chunk * extent // chunks


@njit(inline="always")
def run_alone(table: int, row: int) -> None:
    """All chunks of one step on this thread."""
    kernel, args, extent = load_i64(table, 4 * row, 0), load_i64(table, 4 * row + 1, 0), load_i64(table, 4 * row + 2, 0)
    chunks = max(1, load_i64(table, 4 * row + 3, 0) & LOW)
    for chunk in range(chunks):
        call_kernel(kernel, args, split(extent, chunk, chunks), split(extent, chunk + 1, chunks), 0)


@njit(inline="always")
def chunks_of(table: int, row: int, rows: int) -> int:
    """The chunks of all steps of a wave."""
    chunks = 0
    for k in range(row, row + rows):
        chunks += load_i64(table, 4 * k + 3, 0) & LOW
    return chunks


def driver(state: int, table: int, steps: int, times: int) -> None:
    """Run the steps; with `state` 0 alone, else with the workers. Returns early, ACTIVE, to have workers woken."""
    row = 0
    if state != 0:
        row = atomic_load(state, NEXT)
        atomic_store(state, NEXT, 0)
    while row < steps:
        started = 0
        rows = 1
        if times != 0:
            started = clock()
        elif state != 0:
            rows = max(1, load_i64(table, 4 * row + 3, 0) >> 32)
        chunks = chunks_of(table, row, rows)
        if state == 0 or chunks <= 1:
            run_alone(table, row)
        else:
            if atomic_load(state, SLEEPERS) > 0:
                atomic_store(state, NEXT, row)  # `run` wakes the workers and comes back to this wave
                return
            atomic_store(state, DONE, 0)
            atomic_store(state, FIRST, table + ROW * row)
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
            store_i64(times, row, clock() - started, 1)
        row += rows
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
