"""tinytorch.data.transforms and draws: against loops over pictures and pixels, and their statistics."""

import numpy as np
import pytest

from tinytorch.data import Draws, transforms
from tinytorch.data.transforms import Compose, Cutout, Normalize, RandomCrop, RandomHorizontalFlip, ToFloat
from tinytorch.ir.errors import ShapeError

SHAPES = [(6, 3, 8, 10), (6, 8, 10), (1, 1, 8, 8), (0, 3, 8, 8)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def draws(n: int, seed: int = 0, epoch: int = 0) -> Draws:
    return Draws(seed, epoch, range(n))


@pytest.fixture
def pictures(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 256, shape, np.uint8)


# --- the definitions, picture by picture


@every_shape
@pytest.mark.parametrize(("size", "padding", "fill"), [(8, 4, 0), ((5, 7), 0, 0), ((10, 9), 2, 9), (3, 1, 255)])
def test_crop(pictures: np.ndarray, size: int | tuple[int, int], padding: int, fill: int) -> None:
    n = len(pictures)
    out = RandomCrop(size, padding, fill)(pictures, draws(n))
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = pictures.shape[-2] + 2 * padding - height + 1, pictures.shape[-1] + 2 * padding - width + 1
    numbers = draws(n)
    tops, lefts = numbers.integers(rows), numbers.integers(columns)
    assert out.shape == (*pictures.shape[:-2], height, width) and out.dtype == np.uint8 and out.flags.c_contiguous
    for picture, result, top, left in zip(pictures, out, tops, lefts):
        for row in range(height):
            for column in range(width):
                r, c = row + top - padding, column + left - padding
                inside = 0 <= r < picture.shape[-2] and 0 <= c < picture.shape[-1]
                assert (result[..., row, column] == (picture[..., r, c] if inside else fill)).all()


@every_shape
def test_flip(pictures: np.ndarray) -> None:
    before, n = pictures.copy(), len(pictures)
    out = RandomHorizontalFlip(0.5)(pictures, draws(n))
    for picture, result, number in zip(pictures, out, draws(n).uniform()):
        np.testing.assert_array_equal(result, picture[..., ::-1] if number < 0.5 else picture)
    np.testing.assert_array_equal(pictures, before)
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(pictures, draws(n)), pictures)
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(pictures, draws(n)), pictures[..., ::-1])


@every_shape
@pytest.mark.parametrize(("size", "fill"), [(1, 0), (4, 7), (5, 0), (20, 3), (0, 9)])
def test_cutout(pictures: np.ndarray, size: int, fill: int) -> None:
    before, n = pictures.copy(), len(pictures)
    out = Cutout(size, fill)(pictures, draws(n))
    numbers = draws(n)
    tops = numbers.integers(pictures.shape[-2]) - size // 2
    lefts = numbers.integers(pictures.shape[-1]) - size // 2
    for picture, result, top, left in zip(pictures, out, tops, lefts):
        expected = picture.copy()
        expected[..., max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = fill
        np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(pictures, before)
    assert out.dtype == np.uint8


@every_shape
def test_to_float_and_normalize(pictures: np.ndarray) -> None:
    out = Compose([ToFloat(), Normalize(0.5, 0.25)])(pictures)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (pictures / 255 - 0.5) / 0.25, rtol=0, atol=1e-6)
    floats = ToFloat()(pictures.astype(np.float64))
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, pictures)


def test_normalize_by_channel(rng: np.random.Generator) -> None:
    pictures = rng.random((5, 3, 4, 4), np.float32)
    before = pictures.copy()
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    out = Normalize(mean, std)(pictures)
    for channel in range(3):
        np.testing.assert_allclose(out[:, channel], (before[:, channel] - mean[channel]) / std[channel], atol=1e-6)
    np.testing.assert_array_equal(pictures, before)
    assert Normalize(mean, 1.0)(pictures.astype(np.float64)).dtype == np.float32


# --- bad input


def test_bad_input_says_what_was_expected() -> None:
    floats, d = np.zeros((2, 3, 8, 8), np.float32), draws(2)
    cases = [
        (Normalize(0.5, 0.5), floats.astype(np.uint8), "put ToFloat"),
        (Normalize(0.5, 0.0), floats, "std must be above 0"),
        (Normalize((0.5, 0.5), 1.0), floats, r"2 numbers for pictures of shape \(2, 3, 8, 8\)"),
        (Normalize((0.5,) * 3, (1.0,) * 3), floats[:, 0], "one number"),
        (RandomCrop(13, 2), floats, "window of 13x13 does not fit into pictures of 12x12"),
        (RandomCrop(4), floats[0, 0], r"RandomCrop: expected pictures \(n, c, h, w\)"),
        (Cutout(4), floats[:1], "draws for 2 pictures, but there are 1"),
    ]
    for transform, pictures, problem in cases:
        with pytest.raises(ValueError, match=problem):
            transform(pictures, d)
    for random in (RandomCrop(4), RandomHorizontalFlip(), Cutout(2)):
        with pytest.raises(ValueError, match="it is random"):
            random(floats)
    assert issubclass(ShapeError, ValueError)


# --- statistics


def test_every_place_is_cropped_equally_often_and_half_are_flipped() -> None:
    n = 20_000
    marks = np.arange(9, dtype=np.uint8).reshape(1, 3, 3).repeat(n, 0)
    counts = np.bincount(RandomCrop(1)(marks, draws(n)).ravel(), minlength=9)
    assert ((counts - n / 9) ** 2 / (n / 9)).sum() < 26.1  # chi squared, 8 degrees of freedom, p = 0.001
    flipped = RandomHorizontalFlip(0.3)(marks, draws(n))[:, 0, 0] == 2
    assert abs(flipped.mean() - 0.3) < 3.3 * np.sqrt(0.21 / n)
    centres = Cutout(1, fill=99)(marks, draws(n)) == 99
    assert (centres.sum((1, 2)) == 1).all()
    assert ((centres.sum(0) - n / 9) ** 2 / (n / 9)).sum() < 26.1


def test_draws_are_uniform_and_independent_of_neighbours() -> None:
    n = 1 << 16
    numbers = Draws(0, 0, range(n))
    first, second = numbers.uniform(), numbers.uniform()
    others = [Draws(1, 0, range(n)).uniform(), Draws(0, 1, range(n)).uniform(), np.roll(first, 1), second]
    for row in (first, *others):
        counts = np.bincount((row * 64).astype(int), minlength=64)
        assert len(counts) == 64 and ((counts - n / 64) ** 2 / (n / 64)).sum() < 104  # 63 degrees, p = 0.001
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 3.3 / np.sqrt(n)
    ones = np.unpackbits(Draws(0, 0, range(n)).bits().view(np.uint8).reshape(n, 8), axis=1).mean(0)
    assert (abs(ones - 0.5) < 4.5 * 0.5 / np.sqrt(n)).all()


def test_draws_belong_to_the_sample() -> None:
    whole = Draws(3, 4, range(100))
    part = Draws(3, 4, [70, 5])
    for _ in range(3):
        np.testing.assert_array_equal(whole.bits()[[70, 5]], part.bits())
    streams = [Draws(s, e, range(-8, 8)) for s in range(8) for e in range(8)]
    numbers = {int(bits) for stream in streams for _ in range(8) for bits in stream.bits()}
    assert len(numbers) == 8 * 8 * 16 * 8  # (seed, epoch, index, number of the draw) never meet


def test_a_stream_is_splitmix64() -> None:
    """Sample 0 of epoch 0 with seed 0 begins at state 0, for which the first numbers are published."""
    stream = Draws(0, 0, [0])
    assert [int(stream.bits()[0]) for _ in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_a_pipeline_for_cifar_on_one_thread_is_fast_enough(rng: np.random.Generator) -> None:
    """20,000 pictures a second are wanted; a tenth of the speed that one sees is asked for here."""
    import time

    pictures = rng.integers(0, 256, (128, 3, 32, 32), np.uint8)
    pipeline = transforms.Compose(
        [RandomCrop(32, 4), RandomHorizontalFlip(), ToFloat(), Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))]
    )
    best = np.inf
    for _ in range(5):
        began = time.perf_counter()
        pipeline(pictures, draws(128))
        best = min(best, time.perf_counter() - began)
    assert 128 / best > 20_000
