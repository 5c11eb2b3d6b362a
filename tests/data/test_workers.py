"""tinytorch.data.workers: any number and kind of them delivers the same; they fail loudly and leave nothing behind."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_samples import Broken, Count, Squares, Stubborn, Suicidal, Traces, Unloadable, add_noise

from tinytorch.data import DataLoader, TensorDataset, TokenDataset
from tinytorch.data.workers import _pickled, in_order
from tinytorch.ir.errors import DataError

STATM = Path("/proc/self/statm")
both = pytest.mark.parametrize("kind", ["thread", "process"])


@pytest.fixture(autouse=True)
def none_left() -> Any:
    """After each test, no thread and no process more than before."""
    before = threading.active_count()
    yield
    assert not multiprocessing.active_children()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("tinytorch-data")]
    assert threading.active_count() <= before


def rows(**how: Any) -> list[list[Any]]:
    loader = DataLoader(Squares(24, slow=(3, 11)), 5, True, transform=add_noise, **how)
    return [[x.tolist(), y.tolist()] for _ in range(2 if how.get("workers") != "process" else 1) for x, y in loader]


def test_any_number_and_kind_of_workers_delivers_the_same() -> None:
    reference = rows()
    assert len(reference) == 10 and reference[:5] != reference[5:]
    for workers in (1, 3):
        for prefetch in (1, 4):
            assert rows(num_workers=workers, prefetch_factor=prefetch) == reference
    assert rows(num_workers=3, workers="process") == reference[:5]


def test_processes_do_the_work_and_resume(tmp_path: Path) -> None:
    loader = DataLoader(Traces(24, tmp_path), 2, num_workers=2, workers="process")
    state: dict[str, int] = {}
    for number, _ in enumerate(loader):
        if number == 3:
            state = loader.state_dict()
            break
    assert str(os.getpid()) not in {path.name for path in tmp_path.iterdir()} and any(tmp_path.iterdir())
    assert state["position"] == 4
    loader.num_workers = 1
    loader.load_state_dict(state)
    assert [x.tolist() for x, _ in loader] == [[n, n + 1] for n in range(8, 24, 2)]


def test_a_stream_in_processes() -> None:
    loader = DataLoader(Count(7), 3, num_workers=1, workers="process")
    assert [x.tolist() for x in loader] == [[0, 1, 2], [3, 4, 5], [6]]


def test_threads_work_ahead_but_not_further_than_asked() -> None:
    begun: list[int] = []
    numbers = in_order(lambda n: begun.append(n) or n, ((n,) for n in range(100)), workers=2, ahead=4)
    assert next(numbers) == 0
    deadline = time.monotonic() + 5
    while len(begun) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert sorted(begun) == [0, 1, 2, 3, 4]
    numbers.close()


# --- failures


@both
def test_a_failing_worker_names_the_sample_and_shows_its_traceback(kind: Any) -> None:
    with pytest.raises(DataError, match="sample 7 cannot be read: OSError: a scratched disk") as caught:
        list(DataLoader(Broken(40), 4, num_workers=1, workers=kind))
    cause = caught.value.__cause__
    if kind == "process":
        assert "worker_samples.py" in str(cause) and 'raise OSError("a scratched disk")' in str(cause)
    else:
        assert isinstance(cause, OSError) and cause.__traceback__ is not None


def test_what_a_process_cannot_send_or_load_says_so() -> None:
    how: dict[str, Any] = {"num_workers": 1, "workers": "process"}
    with pytest.raises(DataError, match=r"sample 0 cannot be read: Local: "):
        list(DataLoader(Stubborn(4), 2, **how))
    with pytest.raises(DataError, match=r"(?s)cannot load the data set: ImportError: no module.*try: "):
        list(DataLoader(Unloadable(4), 2, **how))
    with pytest.raises(DataError, match=r"(?s)cannot be sent to worker processes.*lambda.*try: "):
        list(DataLoader(Squares(4), 2, transform=lambda x, draws: x, **how))


def test_a_killed_process_is_an_error_and_no_hang() -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match=r"(?s)a worker process died.*try: .*__main__"):
        list(DataLoader(Suicidal(40), 4, num_workers=2, workers="process"))
    assert time.monotonic() - began < 30


@both
def test_leaving_early_and_failing_outside_leaves_nobody_behind(kind: Any) -> None:
    loader = DataLoader(Squares(1000), 1, num_workers=1, workers=kind)
    with pytest.raises(KeyError):
        for _ in loader:
            assert len(multiprocessing.active_children()) == (kind == "process")
            raise KeyError
    assert not multiprocessing.active_children()
    for _ in loader:
        break
    # the fixture looks whether anybody is left


INTERRUPTED = """
import os, signal, sys, threading
sys.path.insert(0, {folder!r})
from worker_samples import Squares
from tinytorch.data import DataLoader

if __name__ == "__main__":
    try:
        for number, _ in enumerate(DataLoader(Squares(10_000, slow=range(10_000)), 4, num_workers=2, workers={kind!r})):
            if number == 2:  # as Ctrl-C does: every process of the group gets it
                os.killpg(0, signal.SIGINT)
    except KeyboardInterrupt:
        print("interrupted", threading.active_count())
"""


@both
def test_ctrl_c_ends_cleanly(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.format(folder=str(Path(__file__).parent), kind=kind))
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, start_new_session=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "interrupted 1\n", "")


# --- memory-mapped arrays


def sparse(path: Path, rows: int, columns: int) -> np.memmap:
    """A file of zeros that takes no room, in which a few rows hold their number."""
    array = np.memmap(path, np.float32, "w+", shape=(rows, columns))
    for row in range(0, rows, rows // 16):
        array[row] = row
    array.flush()
    return np.memmap(path, np.float32, "r", shape=(rows, columns))


@pytest.mark.skipif(not STATM.exists(), reason="how much memory a process has is read from /proc")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_array_larger_than_memory_is_read_row_by_row(tmp_path: Path, workers: int) -> None:
    """4 GB on paper, of which 16 rows are read."""
    array = sparse(tmp_path / "large.bin", 1 << 18, 4096)
    assert array.nbytes == 4 << 30
    picks = list(range(0, 1 << 18, 1 << 14))
    before = resident()
    kind = {"workers": "process", "num_workers": workers}
    loader = DataLoader(TensorDataset(array, np.arange(1 << 18)), 4, sampler=picks, tensors=False, **kind)  # type: ignore[arg-type]
    for x, y in loader:
        assert x.shape == (4, 4096) and (x == y[:, None]).all()
    assert resident() - before < 100 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_tokens_larger_than_memory(tmp_path: Path) -> None:
    tokens = np.memmap(tmp_path / "tokens.bin", np.uint16, "w+", shape=((2 << 30) + 100,))  # 4 GB
    tokens[-9:] = range(9)
    windows = TokenDataset(tokens, block=4)
    assert len(windows) == (2 << 30) + 96
    x, y = windows[-1]
    assert x.tolist() == [4, 5, 6, 7] and y.tolist() == [5, 6, 7, 8]


VIEWS: dict[str, Callable[[Any], Any]] = {
    "all": lambda a: a,
    "rows": lambda a: a[3:7],
    "strided": lambda a: a[1::3, 2:5],
    "backwards": lambda a: a[::-1],
    "turned": lambda a: a.T,
    "plain": lambda a: np.asarray(a)[2:],
    "row": lambda a: a[4],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("offset", [0, 100, 5000])
def test_a_mapped_array_travels_as_a_place_in_its_file(tmp_path: Path, view: str, offset: int) -> None:
    path = tmp_path / "array.bin"
    path.write_bytes(bytes(offset) + np.arange(50_000, dtype=np.int32).tobytes())
    mapped = np.memmap(path, np.int32, "r", offset, (5000, 10))
    array = VIEWS[view](mapped)
    sent = _pickled(Holder(array))
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).array, array)


def test_a_private_or_empty_map_travels_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "array.bin"
    path.write_bytes(bytes(400))
    private = np.memmap(path, np.int32, "c")
    private[0] = 7  # not in the file
    assert pickle.loads(_pickled(Holder(private))).array[0] == 7
    assert pickle.loads(_pickled(Holder(np.memmap(path, np.int32, "r")[:0]))).array.shape == (0,)
    assert pickle.loads(_pickled(Holder(np.arange(3)))).array.tolist() == [0, 1, 2]


class Holder:
    """Something callable that holds an array."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __call__(self) -> Any:
        return self.array


def test_where_the_program_is_killed_its_workers_end(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text("""
import multiprocessing, os, signal
import numpy as np
from tinytorch.data import DataLoader, TensorDataset
if __name__ == "__main__":
    for _ in DataLoader(TensorDataset(np.zeros(100)), 1, num_workers=2, workers="process"):
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
""")
    run = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                         timeout=30)
    assert run.returncode == -9 and len(run.stdout.split()) == 2  # and the pipe has an end: no worker has it open
