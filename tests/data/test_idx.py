"""tinytorch.data.idx: every type and rank is read, and nothing that is not whole and sound."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinytorch import data
from tinytorch.ir.errors import FormatError


def idx(array: np.ndarray, code: int) -> bytes:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_every_type_and_rank(
    tmp_path: Path, kind: str, shape: tuple[int, ...], pack: Callable[[bytes], bytes]
) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) * 37 - 11).astype(kind).reshape(shape)
    path = tmp_path / "array"
    path.write_bytes(pack(idx(array, CODES[kind])))
    read = data.read_idx(path)
    assert read.dtype == array.dtype and read.dtype.isnative and read.flags.writeable
    np.testing.assert_array_equal(read, array)


WHOLE = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 0x08)
ZIPPED = gzip.compress(WHOLE)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"\0\0", "no IDX file"),
        (b"<!DOCTYPE html><html>", "no IDX file"),
        (b"\0\0\x07\x01" + WHOLE[4:], "no IDX file"),
        (WHOLE[:9], "header of 16 bytes"),
        (WHOLE[:-1], "expected 24 bytes.*found 23"),
        (WHOLE + b"\0", "more data"),
        (b"\0\0\x08\x03" + b"\xff" * 4 + WHOLE[8:], "cut off"),  # announces 51 GB
        (ZIPPED[:-9], "damaged or cut off"),
        (ZIPPED[:30] + bytes([ZIPPED[30] ^ 0xFF]) + ZIPPED[31:], "damaged or cut off"),
        (ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:], "damaged or cut off"),  # checksum
        (gzip.compress(b"hello"), "no IDX file"),
        (idx(np.zeros((2, 3, 4), np.float32), 0x0D), "holds float32, expected uint8"),
        (idx(np.zeros((2, 3, 5), np.uint8), 0x08), r"shape \(2, 3, 5\), expected \(n, 3, 4\)"),
        (idx(np.zeros(2, np.uint8), 0x08), r"shape \(2\), expected \(n, 3, 4\)"),
    ],
    ids=range(15),
)
def test_refuses_what_is_not_whole_and_sound(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"(?s)images.gz.*{problem}.*try: "):
        data.read_idx(path, shape=(None, 3, 4), dtype=np.uint8)


def test_no_damaged_byte_goes_unnoticed_in_a_gzip_file(tmp_path: Path) -> None:
    path, harmless = tmp_path / "images.gz", 0
    for place in range(10, len(ZIPPED)):  # behind the header of gzip, whose bytes say nothing about the content
        path.write_bytes(ZIPPED[:place] + bytes([ZIPPED[place] ^ 0x10]) + ZIPPED[place + 1 :])
        try:
            assert data.read_idx(path).tobytes() == WHOLE[16:]
            harmless += 1
        except ValueError as error:
            assert "images.gz" in str(error) and "try: " in str(error)
    assert harmless <= 1  # the bits that fill the last byte of the stream
