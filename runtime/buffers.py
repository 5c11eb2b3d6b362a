"""Fresh arrays for results, from memory that earlier results have left.

    empty((4096, 512), dtype)       as np.empty

The first touch of new memory costs more than most kernels (the system hands it out page by page, cleared): 0.6 ms for
16 MB that a softmax fills in 0.3 ms. So a big block is kept when the last array that looks at it is gone, and handed
out again. Small ones come from NumPy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SMALL = 1 << 16  # bytes below which NumPy's own allocator is as good
KEPT = 256 << 20  # bytes that may lie unused
ALIGN = 64

_free: dict[int, list[np.ndarray]] = {}
_kept = 0


class _Lease:
    """Owns a block while arrays look at it; NumPy keeps it alive as their `base`."""

    __slots__ = ("__array_interface__", "block")

    def __init__(self, block: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.block = block
        self.__array_interface__ = {"shape": shape, "typestr": f"|V{dtype.itemsize}",
                                    "data": (block.ctypes.data, False), "version": 3}

    def __del__(self) -> None:
        global _kept
        try:
            if _kept + self.block.nbytes <= KEPT:
                _kept += self.block.nbytes
                _free.setdefault(self.block.nbytes, []).append(self.block)
        except (AttributeError, TypeError):  # the interpreter is going down
            return


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An uninitialised C-contiguous array, 64-byte aligned if it is big."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    block = _take(-(-size // ALIGN) * ALIGN)
    return np.asarray(_Lease(block, shape, dtype)).view(dtype)


def _take(size: int) -> np.ndarray:
    global _kept
    try:
        block = _free[size].pop()
    except (KeyError, IndexError):
        raw = np.empty(size + ALIGN, np.uint8)
        start = -raw.ctypes.data % ALIGN
        return raw[start:start + size]
    _kept -= size
    return block


def kept_bytes() -> int:
    """Bytes that wait to be used again."""
    return _kept


def release() -> None:
    """Give all unused blocks back to the system."""
    global _kept
    _free.clear()
    _kept = 0
