"""Make the digits that ship with the package: `python scripts/make_mnist_small.py FOLDER` (the four MNIST files).

The first 500 of each digit from the training set and the first 100 from the test set, in MNIST's order, as IDX files
under tinytorch/data/small. The same input gives the same digits; the bytes also depend on the version of zlib.
"""

import gzip
import struct
import sys
from pathlib import Path

import numpy as np

from tinytorch.data import mnist
from tinytorch.data.mnist import FILES, SMALL

PER_DIGIT = {"train": 500, "test": 100}


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """The indices, ascending, of the first `count` occurrences of each label."""
    return np.sort(np.concatenate([np.flatnonzero(labels == digit)[:count] for digit in range(10)]))


def write_idx(path: Path, array: np.ndarray) -> None:
    """A uint8 array as a gzipped IDX file, without name and time of making."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))


def main(folder: str) -> None:
    """Write the four files and say how large they are."""
    for split, (image_file, label_file) in FILES.items():
        images, labels = mnist(split, root=folder)
        pick = first_of_each(labels, PER_DIGIT[split])
        write_idx(SMALL / image_file, images[pick])
        write_idx(SMALL / label_file, labels[pick])
    print(f"{sum(path.stat().st_size for path in SMALL.glob('*.gz')):,} bytes in {SMALL}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
