"""CIFAR-10, small colour photographs: `cifar10("train")` gives 50,000 of them as arrays, `cifar10("test")` 10,000.

The files are those of the published "binary version": `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
Each holds 10,000 records of a byte for the label and 3072 bytes for the picture: 32 rows of red, then green, then
blue. The format has no header, so a file of any other length, or with another label than 0 to 9, is refused.

Source: Alex Krizhevsky: Learning Multiple Layers of Features from Tiny Images (2009).
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import FormatError

from .files import Home, explained, locate

CIFAR10 = Home(
    name="cifar10",
    folder="cifar-10-batches-bin",
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    sha256={"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    weight="170 MB for both splits",
    archive="cifar-10-binary.tar.gz",
)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
_COUNT = 10_000  # records in a file
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32

Bytes = npt.NDArray[np.uint8]


def cifar10(
    split: Literal["train", "test"] = "train", *, root: str | Path | None = None, download: bool = False
) -> tuple[Bytes, Bytes]:
    """The photographs of a split as `(images, labels)`: uint8 `(n, 3, 32, 32)`, red green blue, and uint8 `(n,)`.

    `CIFAR10_CLASSES` names the ten labels. `root` is the folder that holds the files, or holds them in
    `cifar-10-batches-bin/`; without it they are looked for under `TINYTORCH_DATA` and in the user's data folder.
    `download=True` fetches the archive if they are nowhere, takes the files out and removes the archive.
    Raises `FileNotFoundError` where there are no files, `FormatError` (a `ValueError`) for a file that is cut off,
    too long or something else, `ConnectionError` where no mirror delivered.

        >>> cifar10("test")
        Traceback (most recent call last):
          ...
        FileNotFoundError: cifar10: test_batch.bin is not in
        ...
    """
    if split not in _FILES:
        raise ValueError(f"cifar10: there is no split {split!r}; it is 'train' or 'test'")
    paths = locate(CIFAR10, _FILES[split], root, download)
    images = np.empty((len(paths), _COUNT, *_SHAPE), np.uint8)
    labels = np.empty((len(paths), _COUNT), np.uint8)
    for number, path in enumerate(paths):
        images[number], labels[number] = _read(path)
    return images.reshape(-1, *_SHAPE), labels.reshape(-1)


def _read(path: Path) -> tuple[Bytes, Bytes]:
    with explained(path):
        size, expected = path.stat().st_size, _COUNT * _RECORD
        if size != expected:
            how = "cut off" if size < expected else "too long"
            raise FormatError(f"it is {how}: expected {expected:,} bytes ({_COUNT:,} pictures), found {size:,}")
        records = np.fromfile(path, np.uint8).reshape(_COUNT, _RECORD)
        labels = records[:, 0]
        if labels.max() > 9:
            where = int(np.argmax(labels > 9))
            raise FormatError(f"record {where} has the label {labels[where]}, expected labels 0 to 9")
    return records[:, 1:].reshape(_COUNT, *_SHAPE), labels
