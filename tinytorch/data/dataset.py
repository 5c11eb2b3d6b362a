"""Data as a model meets it, sample by sample: write a `Dataset`, or make one of arrays, and combine them.

A data set is anything with `len()` and `[index]`. One that can fetch many samples at less cost than one by one also has
`__getitems__(indices)`, which gives a list of samples, or, faster still, a tuple of arrays with one row a sample.

    >>> import numpy as np
    >>> from tinytorch import data
    >>> squares = data.TensorDataset(np.arange(10.0), np.arange(10.0) ** 2)
    >>> len(squares), squares[3]
    (10, (np.float64(3.0), np.float64(9.0)))
    >>> train, test = data.random_split(squares, [0.8, 0.2], seed=0)
    >>> len(train), len(test)
    (8, 2)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Tensor

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """Something with samples 0 to len - 1. Derive from it and define `__len__` and `__getitem__`.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 10
    ...     def __getitem__(self, index):
    ...         return index, index**2
    >>> Squares()[3]
    (3, 9)
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} is a Dataset without __len__; define it")

    def __getitem__(self, index: int) -> T:
        raise NotImplementedError(f"{type(self).__name__} is a Dataset without __getitem__; define it")


class IterableDataset(Generic[T]):
    """Samples that come one after the other, such as lines of a file too long to index. Define `__iter__`.

    A loader reads it in its own thread and in order; workers only collate and transform.

    >>> class Lines(IterableDataset):
    ...     def __iter__(self):
    ...         return iter([1, 2, 3])
    >>> list(Lines())
    [1, 2, 3]
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} is an IterableDataset without __iter__; define it")


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Sample i is row i of each of some arrays or tensors, which must be equally long.

    Nothing is copied: of a `np.memmap` larger than memory only the rows asked for are read.
    Raises `ShapeError` for arrays of different lengths.

    >>> TensorDataset(np.zeros((4, 2)), np.array([7, 8, 9, 10]))[1]
    (array([0., 0.]), np.int64(8))
    """

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple(t if isinstance(t, Tensor | np.ndarray) else np.asarray(t) for t in tensors)
        if not self.tensors or any(len(t.shape) < 1 for t in self.tensors):
            raise ShapeError("TensorDataset: expected one or more arrays, each with a row for each sample")
        if len({len(t) for t in self.tensors}) > 1:
            lengths = ", ".join(str(len(t)) for t in self.tensors)
            raise ShapeError(f"TensorDataset: the arrays have {lengths} rows; expected one row for each sample")

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(t[index] for t in self.tensors)

    def __getitems__(self, indices: Sequence[int]) -> tuple[npt.NDArray[Any], ...]:
        rows = np.asarray(indices, np.int64)
        return tuple((t.numpy() if isinstance(t, Tensor) else t)[rows] for t in self.tensors)


class TokenDataset(Dataset[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]):
    """Windows of a text for a language model: x is `block` tokens, y the same shifted by one, both int64 `(block,)`.

    A window starts at every `stride`-th token, so shuffled ones are random windows; `stride=block` gives each token
    once. `tokens` is an array of integers `(n,)`, also a `np.memmap`, of which only the windows are read.
    Raises `ShapeError` for anything but a row of integers, `ValueError` for a block or stride below 1.

    >>> TokenDataset(np.arange(10, dtype=np.uint16), block=4)[2]
    (array([2, 3, 4, 5]), array([3, 4, 5, 6]))
    """

    def __init__(self, tokens: Any, block: int, stride: int = 1) -> None:
        self.tokens = tokens if isinstance(tokens, np.ndarray) else np.asarray(tokens)
        if self.tokens.ndim != 1 or (self.tokens.dtype.kind not in "iu" and len(self.tokens)):
            raise ShapeError(f"TokenDataset: expected integers (n,), not {self.tokens.dtype} {self.tokens.shape}")
        if block < 1 or stride < 1:
            raise ValueError(f"TokenDataset: block and stride are at least 1, not {block} and {stride}")
        self.block, self.stride = block, stride

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.block - 1) // self.stride + 1)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        x, y = self.__getitems__([index])
        return x[0], y[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        starts = np.array([_inside(self, index) for index in indices], np.int64) * self.stride
        windows = self.tokens[starts[:, None] + np.arange(self.block + 1)].astype(np.int64)  # (n, block + 1)
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])


class Subset(Dataset[T]):
    """The samples of `dataset` at `indices`, in that order.

    >>> Subset(TensorDataset(np.arange(10)), [8, 2])[0]
    (np.int64(8),)
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> T:
        return self.dataset[int(self.indices[index])]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        inner = [int(self.indices[index]) for index in indices]
        many = getattr(self.dataset, "__getitems__", None)
        return many(inner) if many else [self.dataset[index] for index in inner]


class ConcatDataset(Dataset[T]):
    """Some data sets one after the other.

    >>> both = ConcatDataset([TensorDataset(np.arange(3)), TensorDataset(np.arange(5))])
    >>> len(both), both[4]
    (8, (np.int64(1),))
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1] if self.cumulative_sizes else 0

    def __getitem__(self, index: int) -> T:
        index = _inside(self, index)
        which = bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]


def random_split(dataset: Any, lengths: Sequence[float], seed: int = 0) -> list[Subset[Any]]:
    """Split a data set at random into parts of the given lengths, or fractions of 1; `seed` alone decides.

    What fractions leave over goes to the first parts, one sample each. Raises `ValueError` where lengths do not sum to
    `len(dataset)`, nor fractions to 1.

    >>> [len(part) for part in random_split(range(10), [0.5, 0.25, 0.25])]
    [6, 2, 2]
    """
    size, total = len(dataset), sum(lengths)
    if any(length < 0 for length in lengths):
        raise ValueError(f"random_split: a length below 0 in {list(lengths)}")
    if abs(total - 1) < 1e-6 and not all(isinstance(length, int | np.integer) for length in lengths):
        counts = [int(size * length) for length in lengths]
        for place in range(size - sum(counts)):
            counts[place % len(counts)] += 1
    elif total == size:
        counts = [int(length) for length in lengths]
    else:
        raise ValueError(f"random_split: {list(lengths)} sum to {total}; expected {size} samples, or fractions of 1")
    order = np.random.default_rng(seed).permutation(size)
    ends = list(accumulate(counts, initial=0))
    return [Subset(dataset, order[start:end].tolist()) for start, end in pairwise(ends)]


def _inside(dataset: Dataset[Any], index: int) -> int:
    """The index from 0, where -1 is the last sample. Raises `IndexError`."""
    if not -len(dataset) <= index < len(dataset):
        raise IndexError(f"{type(dataset).__name__}: there is no sample {index}; there are {len(dataset)}")
    return index % len(dataset)
