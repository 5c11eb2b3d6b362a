"""Data for training: data sets, a loader that can be repeated and resumed, and real data, some of which ships.

    >>> from tinytorch import data
    >>> images, labels = data.mnist("train", small=True)      # 5,000 digits, no download
    >>> images.shape, images.dtype, labels[:5].tolist()
    ((5000, 28, 28), dtype('uint8'), [5, 0, 4, 1, 9])
    >>> digits = data.TensorDataset(images, labels.astype("int64"))
    >>> loader = data.DataLoader(digits, batch_size=64, shuffle=True, transform=data.transforms.ToFloat())
    >>> for x, y in loader:
    ...     pass                                              # tensors: x (64, 28, 28) in 0..1, y (64,)
    >>> x.shape, x.dtype, y.dtype                             # the last batch holds the rest
    ((8, 28, 28), f32, i64)

`mnist`, `fashion_mnist` and `cifar10` read the canonical files; `tinyshakespeare`, `names` and `tinytalks` ship.
`read_idx` reads any file in MNIST's format; `fetch` downloads a file and checks what came.
"""

from . import transforms
from .cifar import CIFAR10_CLASSES, cifar10
from .collate import collate
from .corpora import names, tinyshakespeare, tinytalks
from .dataset import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, TokenDataset, random_split
from .download import fetch
from .draws import Draws
from .files import unpack
from .idx import read_idx
from .loader import DataLoader
from .mnist import FASHION_MNIST_CLASSES, fashion_mnist, mnist, mnist_batches

__all__ = [
    "CIFAR10_CLASSES", "FASHION_MNIST_CLASSES", "ConcatDataset", "DataLoader", "Dataset", "Draws", "IterableDataset",
    "Subset", "TensorDataset", "TokenDataset", "cifar10", "collate", "fashion_mnist", "fetch", "mnist",
    "mnist_batches", "names", "random_split", "read_idx", "tinyshakespeare", "tinytalks", "transforms", "unpack",
]  # fmt: skip
