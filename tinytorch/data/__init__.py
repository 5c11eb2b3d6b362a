"""Data sets as NumPy arrays: real digits that ship with the package, and the full MNIST.

    >>> from tinytorch import data
    >>> images, labels = data.mnist("train", small=True)      # 5,000 digits, no download
    >>> images.shape, images.dtype, labels[:5].tolist()
    ((5000, 28, 28), dtype('uint8'), [5, 0, 4, 1, 9])
    >>> for x, y in data.mnist_batches(images, labels, batch_size=64, seed=0):
    ...     pass                                              # x (64, 784) float32 in 0..1, y (64,) int64
    >>> x.shape, y.dtype                                      # the last batch holds the rest
    ((8, 784), dtype('int64'))

`read_idx` reads any file in MNIST's format; `fetch` downloads a file and checks what came.
"""

from .download import fetch
from .idx import read_idx
from .mnist import mnist, mnist_batches

__all__ = ["fetch", "mnist", "mnist_batches", "read_idx"]
