"""What is done to pictures on their way into a model: `Compose([RandomCrop(32, 4), ToFloat()])`.

A transform takes a whole batch of pictures, a NumPy array `(n, c, h, w)` or `(n, h, w)`, and gives a new one. The
random ones also take the batch's `Draws`, from which each picture gets random numbers of its own, so that the result
does not depend on how the pictures were batched. `DataLoader(..., transform=...)` hands them out; by hand it reads

    >>> import numpy as np
    >>> from tinytorch.data import Draws, transforms
    >>> augment = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.ToFloat()])
    >>> pictures = np.zeros((8, 3, 32, 32), np.uint8)
    >>> out = augment(pictures, Draws(seed=0, epoch=0, indices=range(8)))
    >>> out.shape, out.dtype
    ((8, 3, 32, 32), dtype('float32'))

Any function of (pictures, draws) can stand beside them. Crop and flip while the pictures are bytes: that is faster.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import ShapeError

from .draws import Draws

__all__ = ["Compose", "Cutout", "Normalize", "RandomCrop", "RandomHorizontalFlip", "ToFloat"]

Array = npt.NDArray[Any]
Transform = Callable[[Array, Draws], Array]


@dataclass(frozen=True)
class Compose:
    """One transform after the other.

    >>> halve = lambda pictures, draws: pictures / 2
    >>> Compose([ToFloat(), halve])(np.full((1, 2, 2), 255, np.uint8)).max()
    np.float32(0.5)
    """

    transforms: Sequence[Transform]

    def __call__(self, pictures: Array, draws: Draws | None = None) -> Array:
        for transform in self.transforms:
            pictures = transform(pictures, draws)  # type: ignore[arg-type]  # those that need draws say so
        return pictures


@dataclass(frozen=True)
class ToFloat:
    """Bytes 0..255 become float32 0..1; floats become float32 as they are. Any shape.

    >>> ToFloat()(np.array([0, 255], np.uint8))
    array([0., 1.], dtype=float32)
    """

    def __call__(self, pictures: Array, draws: Draws | None = None) -> Array:
        if pictures.dtype == np.uint8:
            return pictures.astype(np.float32) / np.float32(255)
        return pictures.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Normalize:
    """(x - mean) / std: one number for all pixels, or one a channel. Floats `(n, c, h, w)`, or `(n, h, w)`, to float32.

    Raises `ShapeError` where there are not as many channels as numbers, `ValueError` for bytes or a std of 0.

    >>> Normalize(0.5, 0.25)(np.array([[[0.5, 1.0]]], np.float32))
    array([[[0., 2.]]], dtype=float32)
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]

    def __call__(self, pictures: Array, draws: Draws | None = None) -> Array:
        mean, std = (np.asarray(numbers, np.float32) for numbers in (self.mean, self.std))
        if pictures.dtype.kind != "f":
            raise ValueError(f"Normalize: expected floats, not {pictures.dtype}; put ToFloat() before it")
        if not (std > 0).all():
            raise ValueError(f"Normalize: std must be above 0, not {self.std}")
        for numbers in (mean, std):
            if numbers.ndim and (pictures.ndim != 4 or numbers.shape != pictures.shape[1:2]):
                raise ShapeError(f"Normalize: {numbers.size} numbers for pictures of shape {pictures.shape}; expected "
                                 "one number, or one for each channel of (n, c, h, w)")  # fmt: skip
        result = pictures - mean.reshape(-1, 1, 1) if mean.ndim else pictures - mean
        result /= std.reshape(-1, 1, 1) if std.ndim else std
        return result.astype(np.float32, copy=False)


@dataclass(frozen=True)
class RandomCrop:
    """A window of `size` (one number, or height and width) from each picture, at a random place.

    `padding` pixels of value `fill` are put around first, so that RandomCrop(32, 4) shifts a 32x32 picture by up to 4.
    Raises `ShapeError` for pictures that are smaller than the window.

    >>> RandomCrop(2)(np.zeros((5, 3, 4, 4)), Draws(0, 0, range(5))).shape
    (5, 3, 2, 2)
    """

    size: int | tuple[int, int]
    padding: int = 0
    fill: float = 0

    def __call__(self, pictures: Array, draws: Draws | None = None) -> Array:
        draws = _checked("RandomCrop", pictures, draws)
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        around = [(0, 0)] * (pictures.ndim - 2) + [(self.padding, self.padding)] * 2
        padded = np.pad(pictures, around, constant_values=self.fill) if self.padding else pictures
        rows, columns = padded.shape[-2] - height + 1, padded.shape[-1] - width + 1  # places for the corner
        if rows < 1 or columns < 1:
            have = f"{padded.shape[-2]}x{padded.shape[-1]}"
            raise ShapeError(f"RandomCrop: a window of {height}x{width} does not fit into pictures of {have}, padding "
                             "included; try a larger padding")  # fmt: skip
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(-2, -1))
        top, left = draws.integers(rows), draws.integers(columns)
        return windows[np.arange(len(pictures)), ..., top, left, :, :]


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Each picture is mirrored, left to right, with probability `p`.

    >>> RandomHorizontalFlip(p=1)(np.array([[[1, 2, 3]]]), Draws(0, 0, [0]))
    array([[[3, 2, 1]]])
    """

    p: float = 0.5

    def __call__(self, pictures: Array, draws: Draws | None = None) -> Array:
        draws = _checked("RandomHorizontalFlip", pictures, draws)
        flip = draws.uniform() < self.p  # (n,)
        result = pictures.copy()
        result[flip] = pictures[flip, ..., ::-1]
        return result


@dataclass(frozen=True)
class Cutout:
    """A square of `size` x `size` pixels in each picture becomes `fill`; its centre is any pixel, so it may hang over.

    After `Normalize`, a `fill` of 0 is the mean colour. Source: DeVries and Taylor: Improved Regularization of
    Convolutional Neural Networks with Cutout (2017).

    >>> int((Cutout(2)(np.ones((1, 8, 8)), Draws(0, 0, [0])) == 0).sum())
    4
    """

    size: int
    fill: float = 0

    def __call__(self, pictures: Array, draws: Draws | None = None) -> Array:
        draws = _checked("Cutout", pictures, draws)
        rows, columns = (self._span(draws, extent) for extent in pictures.shape[-2:])  # (n, h), (n, w)
        hole = rows[:, :, None] & columns[:, None, :]  # (n, h, w)
        hole = hole.reshape(len(hole), *(1,) * (pictures.ndim - 3), *hole.shape[1:])
        return np.where(hole, np.asarray(self.fill, pictures.dtype), pictures)

    def _span(self, draws: Draws, extent: int) -> npt.NDArray[np.bool_]:
        first = draws.integers(extent)[:, None] - self.size // 2  # (n, 1)
        place = np.arange(extent)
        return (first <= place) & (place < first + self.size)


def _checked(name: str, pictures: Array, draws: Draws | None) -> Draws:
    if pictures.ndim not in (3, 4):
        raise ShapeError(f"{name}: expected pictures (n, c, h, w) or (n, h, w), not an array of shape {pictures.shape}")
    if draws is None:
        raise ValueError(f"{name}: it is random; call it with (pictures, Draws(seed, epoch, indices))")
    if len(draws) != len(pictures):
        raise ShapeError(f"{name}: draws for {len(draws)} pictures, but there are {len(pictures)}")
    return draws
