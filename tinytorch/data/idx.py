"""Read IDX, the file format of MNIST: `read_idx("train-images-idx3-ubyte.gz")`.

The format: two zero bytes, a byte for the element type, a byte for the rank, the extents as big-endian uint32, then
the elements, row by row, big-endian. Files come plain or gzipped; the first bytes tell which, not the name. The
reader is strict, since a damaged data set that loads is worse than one that does not: a file that is cut off, too
long, damaged or something else altogether is a `FormatError` that names the file, what was expected, and the way out.

Source: the description that accompanies MNIST (LeCun, Cortes, Burges), "The IDX file format".
"""

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import FormatError

from .files import explained

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20

_Stream = BinaryIO | gzip.GzipFile


def read_idx(
    path: str | Path, *, shape: tuple[int | None, ...] | None = None, dtype: npt.DTypeLike | None = None
) -> npt.NDArray[Any]:
    """The array that an IDX file holds, in native byte order, writable.

    `shape` and `dtype` say what the caller can use (None: any extent); a file that holds something else is refused.
    Raises `FormatError`, a `ValueError`, for a file that is not a whole, sound IDX file of that kind, and `OSError`
    where it cannot be read.

    >>> _ = Path("two.idx").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 10, 20]))
    >>> read_idx("two.idx")
    array([10, 20], dtype=uint8)
    """
    path = Path(path)
    with _open(path) as file, explained(path):
        found, extents = _header(file)
        if dtype is not None and found != np.dtype(dtype):
            raise FormatError(f"it holds {found.name}, expected {np.dtype(dtype).name}")
        if shape is not None and not _fits(extents, shape):
            raise FormatError(f"it holds an array of shape {_show(extents)}, expected {_show(shape)}")
        size = math.prod(extents) * found.itemsize
        body = _read(file, size + 1)  # one byte more than there should be: a file too long is noticed, not read
        if len(body) < size:
            raise FormatError(f"it is cut off: expected {size:,} bytes for {_show(extents)}, found {len(body):,}")
        if len(body) > size:
            raise FormatError(f"more data follows the expected {size:,} bytes for {_show(extents)}")
    array = np.frombuffer(body, found.newbyteorder(">")).reshape(extents)
    return array.astype(found, copy=False)


def _header(file: _Stream) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = bytes(_read(file, 4))
    if not magic:
        raise FormatError("it is empty")
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise FormatError(f"it is no IDX file: expected 00 00, a type and a rank at its start, found {magic.hex(' ')}")
    rank = magic[3]
    extents = bytes(_read(file, 4 * rank))
    if len(extents) < 4 * rank:
        raise FormatError(f"it is cut off within its header of {4 + 4 * rank} bytes")
    return np.dtype(_DTYPES[magic[2]]).newbyteorder("="), tuple(np.frombuffer(extents, ">u4").tolist())


def _fits(extents: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(extents) == len(shape) and all(want in (None, have) for have, want in zip(extents, shape))


def _show(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('n' if extent is None else str(extent) for extent in shape)})"


def _read(file: _Stream, size: int) -> bytearray:
    """Up to `size` bytes. Piece by piece: what a damaged header announces is never allocated on trust."""
    body = bytearray()
    while len(body) < size and (piece := file.read(min(_CHUNK, size - len(body)))):
        body += piece
    return body


@contextmanager
def _open(path: Path) -> Iterator[_Stream]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == _GZIP
        raw.seek(0)
        if zipped:
            with gzip.open(raw) as file:
                yield file
        else:
            yield raw
