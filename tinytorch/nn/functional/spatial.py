"""What convolution and pooling share: one number or one per axis, and images with or without a batch.

    >>> from tinytorch.nn.functional.spatial import numbers
    >>> numbers("stride", 2, 2), numbers("stride", (2, 1), 2)
    ((2, 2), (2, 1))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Tensor

LAYOUTS = {1: "(batch, channels, length) or (channels, length)",
           2: "(batch, channels, height, width) or (channels, height, width)"}


def numbers(name: str, value: Any, n: int, least: int = 1) -> tuple[int, ...]:
    """One number for all of `n` axes, or one for each, none below `least`."""
    found = tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
    if len(found) != n or any(not isinstance(number, (int, np.integer)) or number < least for number in found):
        wanted = "one number" if n == 1 else f"one number, or {n}"
        raise ShapeError(f"{name}={value!r}: expected {wanted}, each whole and at least {least}")
    return tuple(map(int, found))


def as_images(name: str, x: Tensor, n: int) -> Tensor:
    """x as (batch, channels, height, width): a batch of one, and a height of 1, where there is none."""
    if x.ndim not in (n + 1, n + 2):
        raise ShapeError(f"{name} of {x.type}: expected {LAYOUTS[n]}")
    batch = x.shape[:-n - 1] or (1,)
    shape = (*batch, x.shape[-n - 1], *(1,) * (2 - n), *x.shape[-n:])
    return x if shape == x.shape else x.reshape(shape)


def as_given(y: Tensor, x: Tensor, n: int) -> Tensor:
    """The result y (batch, channels, height, width) with the axes that x came with."""
    return y if x.ndim == 4 else y.reshape((*x.shape[:-n - 1], y.shape[1], *y.shape[-n:]))


@dataclass(frozen=True)
class Windows:
    """Where windows lie along one axis."""

    extent: int  # of the axis
    size: int
    step: int
    padding: int  # at each end
    dilation: int = 1
    ceil: bool = False  # whether there is a last window that begins inside and ends beyond the padding

    @property
    def reach(self) -> int:
        """From the first element of a window to its last, both counted."""
        return (self.size - 1) * self.dilation + 1

    @property
    def count(self) -> int:
        """How many there are; below 1 if the first does not fit."""
        room = self.extent + 2 * self.padding - self.reach
        found = (room + (self.step - 1 if self.ceil else 0)) // self.step + 1
        return found - (self.ceil and (found - 1) * self.step >= self.extent + self.padding)

    @property
    def overhang(self) -> int:
        """How far the last window reaches beyond the padding."""
        return max((self.count - 1) * self.step + self.reach - self.extent - 2 * self.padding, 0)

    def covered(self, with_padding: bool) -> np.ndarray:
        """How many elements each window (without dilation) holds: of the axis, or of its padding too."""
        start = np.arange(self.count) * self.step - self.padding
        stop = np.minimum(start + self.size, self.extent + self.padding)
        return stop - start if with_padding else np.minimum(stop, self.extent) - np.maximum(start, 0)
