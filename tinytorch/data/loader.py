"""Batches for training, in an order that can be repeated and resumed: `for x, y in DataLoader(dataset, 64)`.

What is delivered depends on (seed, epoch) alone: the order, and the random numbers of the transforms, which belong to
samples (`draws.py`). Workers only decide how soon a batch is ready. So the place in a run is two numbers, epoch and
position, and `state_dict` holds them.

    >>> import numpy as np
    >>> from tinytorch import data
    >>> samples = data.TensorDataset(np.arange(10), np.arange(10) ** 2)
    >>> loader = data.DataLoader(samples, batch_size=4, shuffle=True, seed=1)
    >>> [y.tolist() for x, y in loader]
    [[16, 1, 36, 49], [0, 25, 81, 4], [9, 64]]
    >>> for x, y in loader:                 # the next epoch, in another order, left after one batch
    ...     state = loader.state_dict()
    ...     break
    >>> loader.load_state_dict(state)       # also in another process
    >>> sum(len(x) for x, y in loader)      # the rest of that epoch
    6
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import DataError

from .collate import as_tensors, collate, rebuild
from .dataset import IterableDataset
from .draws import Draws
from .workers import Kind, in_order

Indices = npt.NDArray[np.int64]


class DataLoader:
    """Batches of a data set, each time it is iterated over for one epoch.

    Args:
        dataset: anything with `len()` and `[index]`, or an `IterableDataset`.
        batch_size: samples in a batch; the last batch is smaller where it does not divide their number.
        shuffle: a new random order in each epoch.
        sampler: in place of `shuffle`, an iterable with `len()` that gives the indices of an epoch; its
            `set_epoch(epoch)` is called before, if it has one. To resume, it must give an epoch's indices again.
        drop_last: leave out a last batch that is smaller.
        collate_fn: makes a batch of a list of samples; by default `collate`.
        transform: `(pictures, draws) -> pictures`, for the first field of a batch; see `transforms`.
        num_workers: how many threads or processes prepare batches; 0 for none but the caller's.
        workers: "thread" or "process". NumPy works in threads at once; Python code that takes long wants processes.
            With several threads, `dataset[index]` is called by several at a time.
        prefetch_factor: how many batches per worker are prepared ahead.
        seed: what all randomness depends on, with the epoch.
        tensors: give Tensors that share the arrays' memory; False for the NumPy arrays.

    Attributes:
        epoch: the epoch under way, or the next one.
        position: how many of its batches have been delivered.

    Raises `ValueError` for arguments that make no sense, and, when iterated, `DataError`, which names the sample that
    could not be had, with the original error as its cause. One loop at a time: loops share `epoch` and `position`.

    >>> loader = DataLoader([(1, 0.5), (2, 1.5), (3, 2.5)], batch_size=2)
    >>> len(loader), next(iter(loader))
    (2, (tensor([1, 2]), tensor([0.5, 1.5])))
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        sampler: Iterable[int] | None = None,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        transform: Callable[[Any, Draws], Any] | None = None,
        num_workers: int = 0,
        workers: Kind = "thread",
        prefetch_factor: int = 2,
        seed: int = 0,
        tensors: bool = True,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0),
                                   ("prefetch_factor", prefetch_factor, 1), ("seed", seed, 0)):  # fmt: skip
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"DataLoader: {name} is an integer from {least}, not {value!r}")
        if workers not in ("thread", "process"):
            raise ValueError(f"DataLoader: workers are 'thread' or 'process', not {workers!r}")
        if shuffle and sampler is not None:
            raise ValueError("DataLoader: a sampler gives the order; shuffle=True would give another one")
        self._is_stream = isinstance(dataset, IterableDataset)
        if self._is_stream and (shuffle or sampler is not None):
            raise ValueError("DataLoader: an IterableDataset comes in its own order, without shuffle or sampler")
        self.dataset, self.batch_size, self.shuffle, self.sampler = dataset, int(batch_size), shuffle, sampler
        self.drop_last, self.collate_fn, self.transform = drop_last, collate_fn, transform
        self.num_workers, self.workers, self.prefetch_factor = int(num_workers), workers, int(prefetch_factor)
        self.seed, self.tensors = int(seed), tensors
        self.epoch = self.position = 0
        self._resumes = False  # the next loop goes on at `position`

    def __len__(self) -> int:
        """The number of batches in an epoch. Raises `TypeError` for an `IterableDataset`."""
        if self._is_stream:
            raise TypeError("DataLoader: nobody knows how many batches an IterableDataset gives")
        count = len(self.dataset if self.sampler is None else self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """The batches of the next epoch, or, after `load_state_dict`, the rest of that one."""
        if self.position and not self._resumes:  # the last loop was left early
            self.set_epoch(self.epoch + 1)
        self._resumes = False
        epoch, position = self.epoch, self.position
        tasks = self._read(epoch, position) if self._is_stream else self._pick(epoch, position)
        work = Fetch(self.dataset, self.collate_fn, self.transform, self.seed)
        ahead = self.num_workers * self.prefetch_factor
        with closing(in_order(work, tasks, workers=self.num_workers, kind=self.workers, ahead=ahead)) as batches:
            for batch in batches:
                position += 1
                self.epoch, self.position = epoch, position
                yield as_tensors(batch) if self.tensors else batch
        self.epoch, self.position = epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin with this epoch next, at its start; or, right after `load_state_dict`, go on in it.

        >>> loader = DataLoader([1, 2, 3], 2, shuffle=True)
        >>> loader.set_epoch(5)
        >>> loader.epoch, loader.position
        (5, 0)
        """
        if not (self._resumes and epoch == self.epoch):
            self.epoch, self.position, self._resumes = epoch, 0, False

    @contextmanager
    def apart(self) -> Iterator[None]:
        """While the block runs, the loader is at the beginning of epoch 0; afterwards it stands where it stood.

        >>> loader = DataLoader(range(6), 2)
        >>> for batch in loader:
        ...     with loader.apart():
        ...         assert sum(len(other) for other in loader) == 6
        >>> loader.epoch, loader.position
        (1, 0)
        """
        before = self.epoch, self.position, self._resumes
        self.epoch, self.position, self._resumes = 0, 0, False
        try:
            yield
        finally:
            self.epoch, self.position, self._resumes = before

    def state_dict(self) -> dict[str, int]:
        """Where in the data the run is, and what that depends on, as plain numbers.

        >>> DataLoader([1, 2, 3], 2).state_dict()
        {'epoch': 0, 'position': 0, 'seed': 0, 'batch_size': 2, 'samples': 3}
        """
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, **self._fixed()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where `state_dict` was taken: the next loop begins with the batch after, in the same order.

        Raises `ValueError` where batch size or number of samples are others, since then the place means nothing.

        >>> loader = DataLoader([1, 2, 3], 2)
        >>> loader.load_state_dict({**loader.state_dict(), "position": 1})
        >>> list(loader)
        [tensor([3])]
        """
        other = {key: state.get(key) for key, value in self._fixed().items() if state.get(key) != value}
        if other:
            raise ValueError(f"load_state_dict: the state is of a loader with {other}, this one has {self._fixed()}")
        self.epoch, self.position, self.seed = state["epoch"], state["position"], state["seed"]
        self._resumes = True

    def _fixed(self) -> dict[str, int]:
        return {"batch_size": self.batch_size, "samples": -1 if self._is_stream else len(self.dataset)}

    def _pick(self, epoch: int, position: int) -> Iterator[tuple[int, Indices]]:
        """The tasks of an epoch, from a position on: the indices of each batch."""
        if self.sampler is not None:
            getattr(self.sampler, "set_epoch", lambda epoch: None)(epoch)
            order = np.fromiter(self.sampler, np.int64)
        elif self.shuffle:
            stream = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
            order = np.random.default_rng(stream).permutation(len(self.dataset))
        else:
            order = np.arange(len(self.dataset))
        return ((epoch, pick) for pick in islice(batches_of(order, self.batch_size, self.drop_last), position, None))

    def _read(self, epoch: int, position: int) -> Iterator[tuple[int, Indices, list[Any]]]:
        """The tasks of an epoch of an IterableDataset, which hold the samples themselves."""
        first = position * self.batch_size
        stream = islice(iter(self.dataset), first, None)
        while samples := _next(stream, first, self.batch_size):
            if len(samples) < self.batch_size and self.drop_last:
                return
            yield epoch, np.arange(first, first + len(samples)), samples
            first += len(samples)


def _next(stream: Iterator[Any], first: int, count: int) -> list[Any]:
    """The next `count` samples of a stream, of which the first has number `first`."""
    samples: list[Any] = []
    try:
        samples.extend(islice(stream, count))
    except Exception as error:
        raise _failure(f"sample {first + len(samples)} cannot be read", error) from error
    return samples


def batches_of(order: Indices, batch_size: int, drop_last: bool = False) -> Iterator[Indices]:
    """Cut an order of samples into batches.

    >>> [batch.tolist() for batch in batches_of(np.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    end = len(order) - len(order) % batch_size if drop_last else len(order)
    return (order[start : start + batch_size] for start in range(0, end, batch_size))


@dataclass(frozen=True)
class Fetch:
    """What makes a batch, wherever it runs: `Fetch(...)(epoch, indices)`. It holds all that a worker needs."""

    dataset: Any
    collate_fn: Callable[[list[Any]], Any] | None
    transform: Callable[[Any, Draws], Any] | None
    seed: int

    def __call__(self, epoch: int, indices: Indices, samples: list[Any] | None = None) -> Any:
        """The batch of these samples, of NumPy arrays. Raises `DataError`, which names the sample or samples."""
        rows = self._rows(indices.tolist()) if samples is None else samples
        try:
            batch = self._collated(rows)
            return batch if self.transform is None else self._transformed(batch, Draws(self.seed, epoch, indices))
        except Exception as error:
            raise _failure(f"the batch of samples {_some(indices)} cannot be made", error) from error

    def _rows(self, indices: list[int]) -> Any:
        """A list of samples, or what else `__getitems__` gives."""
        many = getattr(self.dataset, "__getitems__", None)
        if many is None:
            return [self._sample(index) for index in indices]
        try:
            return many(indices)
        except Exception as error:
            for index in indices:  # which one is it?
                self._sample(index)
            raise _failure(f"the samples {_some(indices)} cannot be read together", error) from error

    def _sample(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            raise _failure(f"sample {index} cannot be read", error) from error

    def _collated(self, rows: Any) -> Any:
        if isinstance(rows, list):
            return (self.collate_fn or collate)(rows)
        return rows if self.collate_fn is None else self.collate_fn(list(zip(*rows)))

    def _transformed(self, batch: Any, draws: Draws) -> Any:
        assert self.transform is not None
        if isinstance(batch, tuple | list):
            return rebuild(batch, (self.transform(batch[0], draws), *batch[1:]))
        return self.transform(batch, draws)


def _failure(what: str, error: Exception) -> DataError:
    return DataError(f"{what}: {type(error).__name__}: {error}")


def _some(indices: Sequence[int] | Indices) -> str:
    return ", ".join(str(index) for index in indices[:8]) + (", …" if len(indices) > 8 else "")
