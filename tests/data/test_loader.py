"""tinytorch.data.loader: what is delivered, in which order, where a run resumes, and what bad arguments say."""

from typing import Any

import numpy as np
import pytest
from worker_samples import Broken, BrokenTogether, Count, Point, Squares, add_noise, as_text, fail

import tinytorch as tt
from tinytorch import data
from tinytorch.data import DataLoader, TensorDataset
from tinytorch.data.collate import collate
from tinytorch.data.transforms import Compose, Cutout, RandomCrop, RandomHorizontalFlip
from tinytorch.ir.errors import DataError


def xs(loader: DataLoader) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


def flat(loader: DataLoader) -> list[int]:
    return [x for batch in xs(loader) for x in batch]


# --- what is delivered


def test_batches_are_tensors_of_all_fields_and_the_last_is_smaller() -> None:
    loader = DataLoader(Squares(10), 4)
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    assert all(isinstance(x, tt.Tensor) and x.dtype == y.dtype == tt.i64 for x, y in batches)
    assert [x.tolist() for x, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [y.tolist() for _, y in batches] == [[0, 1, 4, 9], [16, 25, 36, 49], [64, 81]]


@pytest.mark.parametrize(
    ("size", "batch", "drop", "lengths"),
    [
        (10, 4, True, [4, 4]),
        (8, 4, True, [4, 4]),
        (8, 4, False, [4, 4]),
        (3, 8, False, [3]),
        (3, 8, True, []),
        (0, 8, False, []),
        (1, 1, True, [1]),
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_lengths(size: int, batch: int, drop: bool, lengths: list[int], shuffle: bool) -> None:
    loader = DataLoader(Squares(size), batch, shuffle, drop_last=drop)
    assert len(loader) == len(lengths) and [len(x) for x in xs(loader)] == lengths


def test_an_array_data_set_is_gathered_at_once_and_equals_sample_by_sample(rng: np.random.Generator) -> None:
    images, labels = rng.random((30, 2, 3), np.float32), tt.tensor(np.arange(30))
    fast = TensorDataset(images, labels)
    one_by_one = [fast[index] for index in range(30)]  # a list is a data set too
    for (x, y), (u, v) in zip(DataLoader(fast, 8, True), DataLoader(one_by_one, 8, True)):
        np.testing.assert_array_equal(x.numpy(), u.numpy())
        np.testing.assert_array_equal(y.numpy(), v.numpy())
        assert x.dtype == u.dtype == tt.f32 and y.dtype == v.dtype == tt.i64
        np.testing.assert_array_equal(x.numpy(), images[y.numpy()])


def test_arrays_on_request() -> None:
    x, _ = next(iter(DataLoader(Squares(4), 2, tensors=False)))
    assert type(x) is np.ndarray


def test_own_collate_gets_samples_whatever_the_data_set_is() -> None:
    assert next(iter(DataLoader(Squares(4), 2, collate_fn=as_text))) == ["(0, 0)", "(1, 1)"]
    samples = next(iter(DataLoader(TensorDataset(np.arange(4)), 2, collate_fn=list)))
    assert [tuple(sample) for sample in samples] == [(0,), (1,)]


def test_a_data_set_without_fields() -> None:
    assert [x.tolist() for x in DataLoader(list(range(5)), 3)] == [[0, 1, 2], [3, 4]]
    doubled = DataLoader(list(range(5)), 3, transform=lambda x, draws: 2 * x)
    assert [x.tolist() for x in doubled] == [[0, 2, 4], [6, 8]]


@pytest.mark.parametrize(
    ("samples", "batch"),
    [
        ([1, 2], np.array([1, 2])),
        ([True, False], np.array([True, False])),
        ([0.5, 1], np.array([0.5, 1], np.float32)),
        ([1, 0.5], np.array([1, 0.5], np.float32)),
        ([np.float64(0.5)], np.array([0.5])),
        ([np.ones(2, np.uint8)] * 2, np.ones((2, 2), np.uint8)),
        ([tt.ones(2)] * 2, np.ones((2, 2), np.float32)),
        (["a", "b"], ["a", "b"]),
        ([None, None], [None, None]),
    ],
    ids=range(9),
)
def test_collate(samples: list[Any], batch: Any) -> None:
    for made in (collate(samples), collate([(s, 0) for s in samples])[0], collate([{"k": s} for s in samples])["k"]):
        assert type(made) is type(batch)
        np.testing.assert_array_equal(made, batch)
        assert not isinstance(batch, np.ndarray) or made.dtype == batch.dtype


def test_named_fields_stay_named() -> None:
    loader = DataLoader([Point(1, 2), Point(3, 4)], 2, transform=lambda x, draws: -x)
    (batch,) = loader
    assert isinstance(batch, Point) and batch.x.tolist() == [-1, -3] and batch.y.tolist() == [2, 4]


def test_nested_fields_become_tensors() -> None:
    (batch,) = DataLoader([{"a": (1, [2.0, "x"])}], 1)
    assert batch["a"][0].tolist() == [1] and batch["a"][1][0].dtype == tt.f32 and batch["a"][1][1] == ["x"]


# --- order


def test_shuffling_depends_on_seed_and_epoch_alone() -> None:
    first, second = DataLoader(Squares(50), 8, True, seed=3), DataLoader(Squares(50), 8, True, seed=3)
    epochs = [flat(first) for _ in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] != list(range(50))
    assert [flat(second) for _ in range(3)] == epochs
    second.set_epoch(1)
    assert flat(second) == epochs[1] and second.epoch == 2
    assert flat(DataLoader(Squares(50), 8, True, seed=4)) not in epochs
    assert flat(DataLoader(Squares(50), 5, True, seed=3)) == epochs[0]  # the batch size only cuts


def test_seeds_and_epochs_do_not_meet() -> None:
    orders = set()
    for seed in (0, 1, 2**32, 2**32 + 1):
        loader = DataLoader(Squares(20), 20, True, seed=seed)
        orders |= {tuple(xs(loader)[0]) for _ in range(4)}
    assert len(orders) == 16


def test_a_loop_left_early_begins_a_new_epoch() -> None:
    loader, whole = DataLoader(Squares(20), 4, True), DataLoader(Squares(20), 4, True)
    epochs = [xs(whole), xs(whole)]
    for batch in loader:
        assert batch[0].tolist() == epochs[0][0]
        break
    assert xs(loader) == epochs[1]


def test_sampler_gives_the_order() -> None:
    class Evens:
        epoch = -1

        def __iter__(self):
            return iter(range(self.epoch, 10, 2))

        def __len__(self):
            return 5

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    loader = DataLoader(Squares(10), 3, sampler=Evens())
    assert len(loader) == 2
    assert xs(loader) == [[0, 2, 4], [6, 8]] and xs(loader) == [[1, 3, 5], [7, 9]]
    assert xs(DataLoader(Squares(10), 2, sampler=[5, 5, -1])) == [[5, 5], [-1]]


def test_without_shuffle_each_epoch_is_in_order() -> None:
    loader = DataLoader(Squares(5), 2)
    assert xs(loader) == xs(loader) == [[0, 1], [2, 3], [4]]


# --- resuming


@pytest.mark.parametrize("done", range(9))
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_after_any_batch(done: int, workers: int) -> None:
    """Three epochs of four batches, stopped after `done` of them, and taken up by another loader."""

    def make(seed: int = 5) -> DataLoader:
        return DataLoader(Squares(15), 4, True, transform=add_noise, num_workers=workers, seed=seed)

    loader, whole = make(), []
    states = [loader.state_dict()]
    for _ in range(3):
        for x, y in loader:
            whole.append((x.tolist(), y.tolist()))
            states.append(loader.state_dict())
    other = make(seed=0)
    other.load_state_dict(states[done])
    assert other.state_dict() == states[done]
    rest = []
    while len(rest) < len(whole) - done:
        rest += [(x.tolist(), y.tolist()) for x, y in other]
    assert rest == whole[done:]
    assert other.state_dict() == {"epoch": 3, "position": 0, "seed": 5, "batch_size": 4, "samples": 15}


def test_set_epoch_keeps_the_place_when_it_resumes_that_epoch() -> None:
    loader = DataLoader(Squares(12), 4, True)
    epochs = [xs(loader), xs(loader)]
    state = {**loader.state_dict(), "epoch": 1, "position": 2}
    loader.load_state_dict(state)
    loader.set_epoch(1)
    assert xs(loader) == epochs[1][2:]
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert xs(loader) == epochs[0]
    next(iter(loader))
    loader.set_epoch(1)
    assert xs(loader) == epochs[1]


def test_a_place_in_other_data_is_refused() -> None:
    state = DataLoader(Squares(10), 4).state_dict()
    for other in (DataLoader(Squares(11), 4), DataLoader(Squares(10), 5)):
        with pytest.raises(ValueError, match="the state is of a loader with"):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="batch_size"):
        DataLoader(Squares(10), 4).load_state_dict({})


def test_state_goes_through_a_file(tmp_path) -> None:
    loader = DataLoader(Squares(10), 4, True)
    next(iter(loader))
    tt.save({"loader": loader.state_dict()}, tmp_path / "state.safetensors")
    assert tt.load(tmp_path / "state.safetensors")["loader"] == loader.state_dict()


# --- streams


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_cut_into_batches(workers: int) -> None:
    loader = DataLoader(Count(7), 3, num_workers=workers)
    assert [x.tolist() for x in loader] == [x.tolist() for x in loader] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [x.tolist() for x in DataLoader(Count(7), 3, drop_last=True)] == [[0, 1, 2], [3, 4, 5]]
    state = {**loader.state_dict(), "position": 1}
    loader.load_state_dict(state)
    assert [x.tolist() for x in loader] == [[3, 4, 5], [6]]


def test_a_stream_has_no_length_and_no_shuffle() -> None:
    with pytest.raises(TypeError, match="nobody knows"):
        len(DataLoader(Count(7), 3))
    with pytest.raises(ValueError, match="its own order"):
        DataLoader(Count(7), 3, shuffle=True)
    with pytest.raises(DataError, match="sample 5 cannot be read: OSError: a broken pipe"):
        list(DataLoader(Count(7, bad=5), 3))


# --- transforms


def test_transforms_belong_to_samples_not_to_batches(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (40, 3, 8, 8), np.uint8)
    pipeline = Compose([RandomCrop(8, 2), RandomHorizontalFlip(), Cutout(3)])

    def seen(batch_size: int, **how: Any) -> dict[int, bytes]:
        loader = DataLoader(TensorDataset(images, np.arange(40)), batch_size, transform=pipeline, **how)
        return {int(i): x.tobytes() for xs, ys in loader for x, i in zip(xs.numpy(), ys.numpy())}

    reference = seen(40)
    assert seen(7, shuffle=True) == seen(1) == seen(16, num_workers=3) == reference
    assert seen(40, seed=1) != reference
    loader = DataLoader(TensorDataset(images), 40, transform=pipeline)
    first, second = (next(iter(loader))[0].numpy() for _ in range(2))
    assert not np.array_equal(first, second)  # another epoch


# --- errors


def test_a_failing_sample_is_named() -> None:
    for dataset in (Broken(20), BrokenTogether(20)):
        with pytest.raises(DataError, match="sample 7 cannot be read: OSError: a scratched disk") as caught:
            list(DataLoader(dataset, 4))
        assert isinstance(caught.value.__cause__, OSError)
    loader = DataLoader(Broken(20), 4)
    with pytest.raises(DataError):
        list(loader)
    assert loader.position == 1  # what was delivered before counts


def test_failing_functions_name_the_batch() -> None:
    for how in ({"collate_fn": fail}, {"transform": fail}):
        with pytest.raises(DataError, match=r"samples 0, 1, 2 cannot be made: ZeroDivisionError: nothing goes"):
            list(DataLoader(Squares(20), 3, **how))
    with pytest.raises(DataError, match=r"samples 0, 1, 2, 3, 4, 5, 6, 7, … cannot be made: ShapeError.*collate_fn"):
        list(DataLoader([np.zeros(n) for n in range(9)], 9))
    with pytest.raises(DataError, match="fields in one batch"):
        list(DataLoader([(1, 2), (1, 2, 3)], 2))
    with pytest.raises(DataError, match="sample 10 cannot be read: IndexError"):
        list(DataLoader(list(range(5)), 2, sampler=[1, 10]))


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"batch_size": 0}, "batch_size is an integer from 1, not 0"),
        ({"batch_size": 2.0}, "batch_size is an integer from 1, not 2.0"),
        ({"num_workers": -1}, "num_workers is an integer from 0, not -1"),
        ({"prefetch_factor": 0}, "prefetch_factor is an integer from 1"),
        ({"seed": -1}, "seed is an integer from 0"),
        ({"workers": "fork"}, "'thread' or 'process', not 'fork'"),
        ({"shuffle": True, "sampler": [1]}, "a sampler gives the order"),
    ],
)
def test_bad_arguments(how: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DataLoader(Squares(4), **how)


def test_dtypes_that_are_no_tensors_say_so() -> None:
    with pytest.raises(TypeError, match="uint16"):
        list(DataLoader(TensorDataset(np.zeros(4, np.uint16)), 2))


@pytest.mark.peers("torch")
def test_same_batches_as_pytorch_without_shuffle(peer: Any, rng: np.random.Generator) -> None:
    torch = peer("torch")
    x, y = rng.random((10, 3), np.float32), np.arange(10)
    theirs_of = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    for batch_size in (1, 3, 10, 20):
        for drop_last in (False, True):
            how = {"batch_size": batch_size, "drop_last": drop_last}
            theirs = torch.utils.data.DataLoader(theirs_of, **how)
            ours = DataLoader(data.TensorDataset(x, y), **how)
            assert len(ours) == len(theirs)
            for (a, b), (c, d) in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a.numpy(), c.numpy())
                np.testing.assert_array_equal(b.numpy(), d.numpy())
    class_of_theirs = Squares(10)  # their loader also takes what ours takes
    assert [b[0].tolist() for b in torch.utils.data.DataLoader(class_of_theirs, 4)] == xs(DataLoader(Squares(10), 4))
    mixed = torch.utils.data.ConcatDataset([theirs_of, theirs_of])  # and ours what theirs is
    assert xs(DataLoader(mixed, 20))[0] == np.concatenate([x, x]).tolist()


def test_feeds_a_compiled_step() -> None:
    step = tt.compile(lambda x, y: ((x * 2 - y) ** 2).mean())
    samples = TensorDataset(np.arange(8, dtype=np.float32), 2 * np.arange(8, dtype=np.float32))
    for tensors in (True, False):
        assert [float(step(x, y)) for x, y in DataLoader(samples, 4, True, tensors=tensors)] == [0.0, 0.0]
