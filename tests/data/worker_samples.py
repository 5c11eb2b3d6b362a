"""Data sets and functions that worker processes can import."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinytorch.data import Dataset, Draws, IterableDataset


class Squares(Dataset[tuple[int, int]]):
    """Sample i is (i, i * i); a sample in `slow` takes its time, so that later ones are ready before."""

    def __init__(self, size: int, slow: tuple[int, ...] = ()) -> None:
        self.size, self.slow = size, slow

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, int]:
        if index in self.slow:
            time.sleep(0.03)
        return index, index * index


class Broken(Squares):
    """Sample 7 is no good."""

    def __getitem__(self, index: int) -> tuple[int, int]:
        if index == 7:
            raise OSError("a scratched disk")
        return super().__getitem__(index)


class BrokenTogether(Broken):
    """The same, fetched many at once."""

    def __getitems__(self, indices: list[int]) -> list[tuple[int, int]]:
        return [self[index] for index in indices]


class Stubborn(Squares):
    """An error that cannot be pickled."""

    def __getitem__(self, index: int) -> tuple[int, int]:
        class Local(Exception):
            pass

        raise Local(lambda: 0)


class Suicidal(Squares):
    """Whoever reads sample 7 is killed at once, as by the kernel when memory runs out."""

    def __getitem__(self, index: int) -> tuple[int, int]:
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Unloadable(Squares):
    """It can be sent, but not received."""

    def __setstate__(self, state: Any) -> None:
        raise ImportError("no module named elsewhere")


class Traces(Squares):
    """Each process that reads a sample leaves a file with its number."""

    def __init__(self, size: int, folder: Path) -> None:
        super().__init__(size)
        self.folder = folder

    def __getitem__(self, index: int) -> tuple[int, int]:
        (self.folder / str(os.getpid())).touch()
        return super().__getitem__(index)


class Count(IterableDataset[int]):
    """0, 1, 2, … one after the other; at `bad` it breaks."""

    def __init__(self, size: int, bad: int = -1) -> None:
        self.size, self.bad = size, bad

    def __iter__(self) -> Iterator[int]:
        for number in range(self.size):
            if number == self.bad:
                raise OSError("a broken pipe")
            yield number


class Point(NamedTuple):
    """A sample with names."""

    x: int
    y: int


def add_noise(x: np.ndarray, draws: Draws) -> np.ndarray:
    """A random transform of one's own."""
    return x + draws.uniform()


def as_text(samples: list[Any]) -> list[str]:
    """A collate function of one's own."""
    return [str(sample) for sample in samples]


def fail(*anything: Any) -> Any:
    """Whatever it is asked."""
    raise ZeroDivisionError("nothing goes")
