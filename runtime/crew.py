"""Compile many kernels at once: `for job, code in compile_all(jobs)`, in the order in which they are ready.

Numba types and lowers under one lock, so threads would bring nothing. When a program needs many kernels, helpers are
started: processes that take a text and give its object code back, through pipes. This process compiles too, and does
whatever a helper could not. The code is the same whoever makes it; long texts come first, so that all end together.

    TINYTORCH_THREADS=1 starts no helper
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from .build import fingerprint, isa
from .pool import get_num_threads

SERVE = "from tinytorch.runtime.crew import serve; serve()"
SHARE = 6  # kernels a process, below which a helper (0.4 s until it is ready) is not worth its start
MOST = 8  # processes


@dataclass(frozen=True)
class Job:
    """A kernel to compile: the arguments of `compile_object`, and its key."""

    key: str
    name: str
    symbol: str
    text: str
    path: Path


Done = SimpleQueue[tuple[Job, bytes | None]]


def compile_all(jobs: Iterable[Job]) -> Iterator[tuple[Job, bytes]]:
    """Each job once, with its object code.

    Raises Numba's errors for a text that does not compile.
    """
    waiting = deque(sorted(jobs, key=lambda job: len(job.text), reverse=True))
    left, done = len(waiting), Done()
    helpers = start_helpers(helper_count(left), waiting, done)
    try:
        while left:
            with contextlib.suppress(IndexError):  # a helper may have taken the last one
                job = waiting.popleft()
                done.put((job, compile_here(job)))
            while left and not (waiting and done.empty()):
                job, code = done.get()
                yield job, compile_here(job) if code is None else code
                left -= 1
    finally:
        for helper in helpers:
            helper.kill()


def compile_here(job: Job) -> bytes:
    """Object code, made in this process."""
    from .codegen import compile_object  # imports Numba

    with _uncollected():
        return compile_object(job.name, job.symbol, job.text, job.path)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage meanwhile: Numba makes so many objects that Python would spend a fifth of the time on it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# -- helpers -----------------------------------------------------------------------------------------------------------


def helper_count(jobs: int) -> int:
    """How many helpers so many jobs are worth."""
    return min(get_num_threads(), MOST, jobs // SHARE) - 1 if jobs >= SHARE and sys.executable else 0


def start_helpers(count: int, waiting: deque[Job], done: Done) -> list[subprocess.Popen[bytes]]:
    """Processes, each with a thread of ours that hands it jobs; fewer than asked for where they cannot be started."""
    settings = {"TINYTORCH_ISA": isa(), "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    helpers: list[subprocess.Popen[bytes]] = []
    with contextlib.suppress(OSError):
        for _ in range(count):
            helpers.append(subprocess.Popen(
                [sys.executable, "-c", SERVE], env=os.environ | settings,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
    for helper in helpers:
        threading.Thread(target=_drive, args=(helper, waiting, done), daemon=True).start()
    return helpers


def _drive(helper: subprocess.Popen[bytes], waiting: deque[Job], done: Done) -> None:
    """Hand jobs to a helper until there are none, or until it fails; a job it took is always answered."""
    assert helper.stdin is not None and helper.stdout is not None
    with helper, contextlib.suppress(Exception):  # whatever goes wrong there, we do the work here
        if pickle.load(helper.stdout) != fingerprint():
            return  # another version of us
        while waiting:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            code = None
            try:
                pickle.dump(job, helper.stdin)
                helper.stdin.flush()
                code = pickle.load(helper.stdout)
            finally:
                done.put((job, code))


def serve() -> None:
    """A helper's life: a job from standard input, its code (None if it does not compile) to standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed is no answer
    gc.disable()
    from .codegen import compile_object  # ready means: with Numba

    def answer(what: object) -> None:
        pickle.dump(what, answers)
        answers.flush()

    answer(fingerprint())
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = pickle.load(sys.stdin.buffer)
            try:
                answer(compile_object(job.name, job.symbol, job.text, job.path))
            except Exception:
                answer(None)  # let the one who asked say why
