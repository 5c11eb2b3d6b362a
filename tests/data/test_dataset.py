"""tinytorch.data.dataset: one by one equals many at once, however data sets are combined."""

from typing import Any

import numpy as np
import pytest
from worker_samples import Squares

import tinytorch as tt
from tinytorch.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    TokenDataset,
    random_split,
)
from tinytorch.ir.errors import ShapeError

ARRAYS = TensorDataset(np.arange(12.0).reshape(6, 2), tt.tensor([5, 4, 3, 2, 1, 0]), list("abcdef"))
DATASETS: dict[str, Any] = {
    "arrays": ARRAYS,
    "subset of arrays": Subset(ARRAYS, [4, 1, 1, 0]),
    "subset of squares": Subset(Squares(9), np.array([8, 0])),
    "subset of a subset": Subset(Subset(Squares(9), [8, 2, 4]), [2, 0]),
    "subset of both": Subset(ConcatDataset([Squares(2), Squares(3)]), [4, 0]),
    "tokens": TokenDataset(np.arange(20, dtype=np.uint16), 4, stride=3),
    "part of tokens": random_split(TokenDataset(range(20), 4), [0.5, 0.5])[0],
}


@pytest.mark.parametrize("name", DATASETS)
def test_many_at_once_equals_one_by_one(name: str) -> None:
    dataset = DATASETS[name]
    indices = [len(dataset) - 1, 0, -1, 1, 0]
    many = dataset.__getitems__(indices)
    rows = many if isinstance(many, list) else list(zip(*many))
    assert len(rows) == len(indices)
    for row, index in zip(rows, indices):
        for a, b in zip(row, dataset[index], strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    for outside in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[outside]
        with pytest.raises(IndexError):
            dataset.__getitems__([0, outside])


def test_tensor_dataset_gives_rows_and_copies_nothing() -> None:
    x, y = np.zeros((3, 2)), tt.tensor([1, 2, 3])
    dataset = TensorDataset(x, y)
    assert dataset.tensors[0] is x and dataset.tensors[1] is y
    x[1] = 5
    assert dataset[1][0].tolist() == [5, 5] and isinstance(dataset[1][1], tt.Tensor)
    assert len(TensorDataset(np.zeros((0, 4)))) == 0


@pytest.mark.parametrize("arrays", [(), (np.zeros(3), np.zeros(4)), (np.float32(1),), (np.zeros(3), tt.tensor(1.0))])
def test_tensor_dataset_refuses_what_has_no_rows(arrays: tuple[Any, ...]) -> None:
    with pytest.raises(ShapeError, match="TensorDataset: .*expected one"):
        TensorDataset(*arrays)


def test_concat_is_one_after_the_other() -> None:
    parts = [list(range(3)), [], [10, 11], Squares(2)]
    whole = ConcatDataset(parts)
    assert len(whole) == 7 and [whole[i] for i in range(7)] == [0, 1, 2, 10, 11, (0, 0), (1, 1)]
    assert [whole[-i] for i in range(1, 8)] == [(1, 1), (0, 0), 11, 10, 2, 1, 0]
    assert len(ConcatDataset([])) == len(ConcatDataset([[]])) == 0
    with pytest.raises(IndexError, match="there is no sample 7; there are 7"):
        whole[7]


@pytest.mark.parametrize(
    ("size", "lengths", "counts"),
    [
        (10, [7, 3], [7, 3]),
        (10, [0.7, 0.3], [7, 3]),
        (10, [0.5, 0.25, 0.25], [6, 2, 2]),
        (11, [1 / 3, 1 / 3, 1 / 3], [4, 4, 3]),
        (10, [10, 0], [10, 0]),
        (0, [0.5, 0.5], [0, 0]),
        (1, [1], [1]),
        (1, [0, 1], [0, 1]),
        (5, [1.0], [5]),
        (60_000, [55_000, 5_000], [55_000, 5_000]),
    ],
)
def test_random_split(size: int, lengths: list[float], counts: list[int]) -> None:
    parts = random_split(range(size), lengths, seed=1)
    assert [len(part) for part in parts] == counts
    seen = [part[i] for part in parts for i in range(len(part))]
    assert sorted(seen) == list(range(size))
    again = random_split(range(size), lengths, seed=1)
    assert [list(part.indices) for part in again] == [list(part.indices) for part in parts]
    if size >= 10 and len(counts) > 1:
        assert [list(p.indices) for p in random_split(range(size), lengths, seed=2)] != [list(p.indices) for p in parts]


@pytest.mark.parametrize("lengths", [[5, 4], [0.5, 0.6], [-1, 11], [1], [1.5, -0.5], []])
def test_random_split_that_does_not_add_up(lengths: list[float]) -> None:
    with pytest.raises(ValueError, match="random_split: "):
        random_split(range(10), lengths)


@pytest.mark.peers("torch")
@pytest.mark.filterwarnings("ignore:Length of split")
def test_random_split_counts_as_pytorch(peer: Any, rng: np.random.Generator) -> None:
    torch = peer("torch")
    for size in (1, 7, 100, 999):
        for fractions in ([0.1] * 10, [0.29, 0.71], [0.9, 0.1], [0.8, 0.1, 0.1], [1 / 3] * 3):
            theirs = torch.utils.data.random_split(range(size), fractions)
            assert [len(part) for part in random_split(range(size), fractions)] == [len(part) for part in theirs]


@pytest.mark.parametrize(
    ("count", "block", "stride", "windows"),
    [(10, 4, 1, 6), (10, 4, 4, 2), (9, 4, 4, 2), (8, 4, 4, 1), (5, 4, 1, 1), (4, 4, 1, 0), (0, 1, 1, 0), (10, 1, 3, 3)],
)
def test_tokens(count: int, block: int, stride: int, windows: int) -> None:
    tokens = np.arange(100, 100 + count, dtype=np.uint16)
    dataset = TokenDataset(tokens, block, stride)
    assert len(dataset) == windows
    for index in range(windows):
        x, y = dataset[index]
        start = index * stride
        assert x.tolist() == tokens[start : start + block].tolist() and x.dtype == np.int64
        assert y.tolist() == tokens[start + 1 : start + block + 1].tolist() and y.dtype == np.int64
    assert [len(x) for x, _ in DataLoader(dataset, 4)] == [4] * (windows // 4) + [windows % 4] * (windows % 4 > 0)


def test_tokens_that_are_none() -> None:
    with pytest.raises(ShapeError, match="expected integers"):
        TokenDataset(np.zeros(5, np.float32), 2)
    with pytest.raises(ShapeError, match="expected integers"):
        TokenDataset(np.zeros((5, 2), np.int64), 2)
    with pytest.raises(ValueError, match="at least 1, not 0 and 1"):
        TokenDataset(np.zeros(5, np.int64), 0)


def test_unfinished_classes_say_what_is_missing() -> None:
    class Unfinished(Dataset[int]):
        pass

    class Endless(IterableDataset[int]):
        pass

    for ask, method in ((lambda: len(Unfinished()), "__len__"), (lambda: Unfinished()[0], "__getitem__"),
                        (lambda: iter(Endless()), "__iter__")):  # fmt: skip
        with pytest.raises(NotImplementedError, match=f"without {method}; define it"):
            ask()
