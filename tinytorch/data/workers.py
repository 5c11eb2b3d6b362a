"""Work done ahead, by threads or processes, and delivered in order: `in_order(work, tasks, workers=2)`.

Processes are started afresh (spawn), not forked: a fork would copy a runtime without its threads. They get `work` once,
pickled, where a memory-mapped array travels as the name of its file. When the generator is closed, by the end of the
tasks, an early `break` or an error, the workers are gone; where the program is killed, they end by themselves.
"""

import io
import mmap
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from tinytorch.ir.errors import DataError

Work = Callable[..., Any]
Kind = Literal["thread", "process"]


def in_order(
    work: Work, tasks: Iterable[tuple[Any, ...]], *, workers: int = 0, kind: Kind = "thread", ahead: int = 2
) -> Generator[Any, None, None]:
    """`work(*task)` for each task, in order, of which up to `ahead` lie ready or under way; 0 workers do it on demand.

    Raises `DataError` where a worker process died or could not be given its work, and what `work` raises.

    >>> list(in_order(pow, [(2, 3), (3, 2)], workers=2))
    [8, 9]
    """
    if workers == 0:
        for task in tasks:
            yield work(*task)
        return
    pending: deque[Future[Any]] = deque()
    with _pool(work, workers, kind) as submit:
        try:
            for task in tasks:
                pending.append(submit(task))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenExecutor as error:
            raise DataError(
                "a worker process died: it was killed (out of memory?), crashed, or could not start\n"
                "try: fewer workers, workers='thread', and in a script `if __name__ == '__main__':` around what it runs"
            ) from error


@contextmanager
def _pool(work: Work, workers: int, kind: Kind) -> Iterator[Callable[[tuple[Any, ...]], Future[Any]]]:
    """A function that hands a task to a worker; afterwards no worker is left."""
    executor: Executor
    if kind == "thread":
        executor = ThreadPoolExecutor(workers, "tinytorch-data")
        submit = lambda task: executor.submit(work, *task)
    else:
        import multiprocessing  # with its pools, a twentieth of a second of import that only processes need
        from concurrent.futures import ProcessPoolExecutor

        spawn = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(workers, spawn, _begin, (_pickled(work),))
        submit = lambda task: executor.submit(_run, task)
    try:
        yield submit
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_work: bytes | Work  # in a worker process


def _begin(pickled: bytes) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which then ends its workers
    os.environ["TINYTORCH_THREADS"] = "1"  # all workers at once, and the program beside them, share the cores
    _work = pickled
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A program that is killed cannot end its workers, and those would wait for their next task for ever."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(task: tuple[Any, ...]) -> Any:
    global _work
    if isinstance(_work, bytes):  # not in _begin, where an error would look like a worker that died
        try:
            _work = pickle.loads(_work)
        except Exception as error:
            raise DataError(
                f"a worker process cannot load the data set: {type(error).__name__}: {error}\n"
                "try: define its class and functions in a module that can be imported, or workers='thread'"
            ) from error
    return _work(*task)  # type: ignore[operator]


def _pickled(work: Work) -> bytes:
    file = io.BytesIO()
    try:
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(
            f"the data set, collate_fn or transform cannot be sent to worker processes: {error}\n"
            "try: functions and classes with a name at the top of a module, no lambdas; or workers='thread'"
        ) from error
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """A memory-mapped array, or a view of one, travels as a file and a place in it, not as its bytes."""

    def reducer_override(self, thing: Any) -> Any:
        root = thing
        while isinstance(root, np.ndarray) and not isinstance(root, np.memmap):
            root = root.base
        if not isinstance(root, np.memmap) or not root.filename or root.mode == "c":
            return NotImplemented
        mapped: mmap.mmap = root._mmap  # type: ignore[attr-defined]
        place = thing.__array_interface__["data"][0] - np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
        begin = root.offset - root.offset % mmap.ALLOCATIONGRANULARITY  # where in the file the mapping starts
        return _reopen, (str(root.filename), thing.shape, thing.dtype, begin + place, thing.strides)


def _reopen(path: str, shape: tuple[int, ...], dtype: Any, offset: int, strides: tuple[int, ...]) -> Any:
    return np.ndarray(shape, dtype, np.memmap(path, np.uint8, "r"), offset, strides)
