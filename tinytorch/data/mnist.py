"""MNIST, handwritten digits: `mnist("train")` gives arrays, `mnist_batches(images, labels)` what a model eats.

A small part ships with the package, so that examples and tests run anywhere. The full set (60,000 + 10,000 digits) is
read from `root`, from the folder that `TINYTORCH_DATA` names, or from where an earlier download put it; it is
downloaded only when asked for.

Source: Yann LeCun, Corinna Cortes, Christopher Burges: The MNIST database of handwritten digits.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import FormatError

from .idx import read_idx

Split = Literal["train", "test"]
Bytes = npt.NDArray[np.uint8]
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

SMALL = Path(__file__).parent / "small"
FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# Of what the files hold: the same data is gzipped differently in different places.
SHA256 = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


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
    """
    if split not in FILES:
        raise ValueError(f"mnist: there is no split {split!r}; it is 'train' or 'test'")
    if small:
        return _load([SMALL / name for name in FILES[split]])
    folders = [Path(root).expanduser()] if root is not None else _folders()
    if found := _find(split, folders):
        return _load(found)
    if download:
        return _load(_download(split, folders[0]))
    if small is None:
        return mnist(split, small=True)
    places = "\n".join(f"  {folder / 'mnist'}" for folder in folders)
    raise FileNotFoundError(
        f"mnist: there is no full {split} set ({' and '.join(FILES[split])}) in\n{places}\n"
        f"try: mnist({split!r}, download=True) to fetch it once (12 MB for both splits),\n"
        f"     or TINYTORCH_DATA=FOLDER where FOLDER/mnist holds the files,\n"
        f"     or mnist({split!r}, small=True) for the digits that ship with tinytorch"
    )


def mnist_batches(
    images: Bytes, labels: Bytes, batch_size: int = 64, seed: int | None = 0, *, drop_last: bool = False
) -> Iterator[Batch]:
    """Mini-batches `(x, y)`: x float32 `(batch, 784)` in 0..1, y int64 `(batch,)`.

    The order depends on `seed` alone; give another one for each epoch, or None to keep the order of the arrays. The
    last batch is smaller where `batch_size` does not divide the number of digits, unless `drop_last` leaves it out.
    Raises `ValueError`, at once, for arrays of different lengths or a batch size below 1.
    """
    if len(images) != len(labels):
        raise ValueError(f"mnist_batches: {len(images)} images but {len(labels)} labels; expected one label an image")
    if batch_size < 1:
        raise ValueError(f"mnist_batches: a batch holds at least 1 digit, not {batch_size}")
    order = np.arange(len(labels)) if seed is None else np.random.default_rng(seed).permutation(len(labels))
    end = len(order) - len(order) % batch_size if drop_last else len(order)
    flat = images.reshape(len(images), -1)  # (n, 784)
    picks = (order[start : start + batch_size] for start in range(0, end, batch_size))
    return ((flat[pick].astype(np.float32) / np.float32(255), labels[pick].astype(np.int64)) for pick in picks)


def _folders() -> list[Path]:
    """Where data sets may lie, and the first is where a download goes: TINYTORCH_DATA, then the user's data folder."""
    from platformdirs import user_data_path

    named = os.environ.get("TINYTORCH_DATA")
    return [*([Path(named).expanduser()] if named else []), user_data_path("tinytorch", appauthor=False)]


def _find(split: Split, folders: list[Path]) -> list[Path] | None:
    """The two files of a split, gzipped or not, from the first folder that has both."""
    for folder in (place for root in folders for place in (root / "mnist", root)):
        images, labels = (_either(folder / name) for name in FILES[split])
        if images and labels:
            return [images, labels]
    return None


def _either(path: Path) -> Path | None:
    return next((name for name in (path, path.with_suffix("")) if name.is_file()), None)


def _download(split: Split, root: Path) -> list[Path]:
    from .download import fetch

    urls = {name: [mirror + name for mirror in MIRRORS] for name in FILES[split]}
    return [fetch(urls[name], root / "mnist" / name, sha256=SHA256[name]) for name in FILES[split]]


def _load(paths: list[Path]) -> tuple[Bytes, Bytes]:
    images = read_idx(paths[0], shape=(None, 28, 28), dtype=np.uint8)
    labels = read_idx(paths[1], shape=(None,), dtype=np.uint8)
    if len(images) != len(labels):
        raise FormatError(f"{paths[0]} holds {len(images)} images, {paths[1]} {len(labels)} labels: they are no pair")
    if labels.size and labels.max() > 9:
        raise FormatError(f"{paths[1]}: it holds the label {labels.max()}, expected digits 0 to 9")
    return images, labels
