"""Handwritten digits and, in the same format, clothes: `mnist("train")` and `fashion_mnist("train")` give arrays.

A small part of the digits ships with the package, so that examples and tests run anywhere. The full sets (60,000 +
10,000 pictures each) are read from `root`, from the folder that `TINYTORCH_DATA` names, or from where an earlier
download put them; they are downloaded only when asked for.

    >>> from tinytorch import data
    >>> images, labels = data.mnist("test", small=True)
    >>> images.shape, int(labels[0])
    ((1000, 28, 28), 7)

Sources: Yann LeCun, Corinna Cortes, Christopher Burges: The MNIST database of handwritten digits. Han Xiao, Kashif
Rasul, Roland Vollgraf: Fashion-MNIST, a Novel Image Dataset for Benchmarking Machine Learning Algorithms (2017).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import FormatError

from .files import SMALL, Home, locate
from .idx import read_idx
from .loader import batches_of

Split = Literal["train", "test"]
Bytes = npt.NDArray[np.uint8]
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
# The checksums are of what the files hold: the same data is gzipped differently in different places.
MNIST = Home(
    name="mnist",
    folder="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    sha256={
        "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    weight="12 MB for both splits",
)
FASHION_MNIST = Home(
    name="fashion_mnist",
    folder="fashion-mnist",
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    sha256={
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    weight="31 MB for both splits",
)
FASHION_MNIST_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                         "Ankle boot")  # fmt: skip


def mnist(
    split: Split = "train",
    *,
    small: bool | None = False,
    root: str | Path | None = None,
    download: bool = False,
) -> tuple[Bytes, Bytes]:
    """The digits of a split as `(images, labels)`: uint8 `(n, 28, 28)`, 0 is paper and 255 ink, and uint8 `(n,)`.

    `small=True` gives the 5,000 + 1,000 digits that ship with the package: the first 500 and 100 of each digit, in
    MNIST's order. `small=None` gives the full set where it is at hand (or `download` is set), and else the small one.
    `root` is the folder that holds the files, or holds them in `mnist/`; with `root`, no other place is looked at.
    Raises `FileNotFoundError` where there is no full set, `FormatError` (a `ValueError`) for a file that is
    damaged or something else, `ConnectionError` where no mirror delivered.

        >>> images, labels = mnist("train", small=True)
        >>> images.shape, images.dtype, labels[:5].tolist()
        ((5000, 28, 28), dtype('uint8'), [5, 0, 4, 1, 9])
    """
    files = _files("mnist", split)
    if small:
        return _load([SMALL / name for name in files])
    ships = f",\n     or mnist({split!r}, small=True) for the digits that ship with tinytorch"
    try:
        paths = locate(MNIST, files, root, download, ships)
    except FileNotFoundError:
        if small is None:
            return mnist(split, small=True)
        raise
    return _load(paths)


def fashion_mnist(
    split: Split = "train", *, root: str | Path | None = None, download: bool = False
) -> tuple[Bytes, Bytes]:
    """Pictures of clothes as `(images, labels)`: uint8 `(n, 28, 28)` and uint8 `(n,)`, 60,000 or 10,000 of them.

    `FASHION_MNIST_CLASSES` names the ten labels. `root`, `download` and errors are those of `mnist`; the folder is
    called `fashion-mnist/`.

        >>> fashion_mnist("train")
        Traceback (most recent call last):
          ...
        FileNotFoundError: fashion_mnist: train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz are not in
        ...
    """
    return _load(locate(FASHION_MNIST, _files("fashion_mnist", split), root, download))


def mnist_batches(
    images: Bytes, labels: Bytes, batch_size: int = 64, seed: int | None = 0, *, drop_last: bool = False
) -> Iterator[Batch]:
    """Mini-batches `(x, y)`: x float32 `(batch, 784)` in 0..1, y int64 `(batch,)`. `DataLoader` does more.

    The order depends on `seed` alone; give another one for each epoch, or None to keep the order of the arrays. The
    last batch is smaller where `batch_size` does not divide the number of digits, unless `drop_last` leaves it out.
    Raises `ValueError`, at once, for arrays of different lengths or a batch size below 1.

        >>> x, y = next(mnist_batches(*mnist("test", small=True), batch_size=32))
        >>> x.shape, float(x.min()), float(x.max()), y.dtype
        ((32, 784), 0.0, 1.0, dtype('int64'))
    """
    if len(images) != len(labels):
        raise ValueError(f"mnist_batches: {len(images)} images but {len(labels)} labels; expected one label an image")
    if batch_size < 1:
        raise ValueError(f"mnist_batches: a batch holds at least 1 digit, not {batch_size}")
    order = np.arange(len(labels)) if seed is None else np.random.default_rng(seed).permutation(len(labels))
    flat = images.reshape(len(images), -1)  # (n, 784)
    picks = batches_of(order, batch_size, drop_last)
    return ((flat[pick].astype(np.float32) / np.float32(255), labels[pick].astype(np.int64)) for pick in picks)


def _files(name: str, split: Split) -> tuple[str, str]:
    if split not in FILES:
        raise ValueError(f"{name}: there is no split {split!r}; it is 'train' or 'test'")
    return FILES[split]


def _load(paths: list[Path]) -> tuple[Bytes, Bytes]:
    images = read_idx(paths[0], shape=(None, 28, 28), dtype=np.uint8)
    labels = read_idx(paths[1], shape=(None,), dtype=np.uint8)
    if len(images) != len(labels):
        raise FormatError(f"{paths[0]} holds {len(images)} images, {paths[1]} {len(labels)} labels: they are no pair")
    if labels.size and labels.max() > 9:
        raise FormatError(f"{paths[1]}: it holds the label {labels.max()}, expected labels 0 to 9")
    return images, labels
