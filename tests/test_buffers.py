"""Memory of results: handed out again when nobody looks at it any more, and never before."""

import numpy as np

from tinytorch.runtime import buffers

F32 = np.dtype(np.float32)


def test_memory_is_used_again_when_the_last_view_is_gone() -> None:
    buffers.release()
    first = buffers.empty((256, 256), F32)
    address, view = first.ctypes.data, first[10:].T
    assert address % buffers.ALIGN == 0 and first.flags.c_contiguous and first.flags.writeable
    del first
    assert buffers.kept_bytes() == 0, "a view still looks at it"
    other = buffers.empty((256, 256), F32)
    assert other.ctypes.data != address
    del view
    assert buffers.kept_bytes() == 256 * 256 * 4
    again = buffers.empty((256, 256), F32)
    assert again.ctypes.data == address and buffers.kept_bytes() == 0


def test_small_results_come_from_numpy_and_little_is_kept() -> None:
    buffers.release()
    del_me = buffers.empty((3,), F32)
    del del_me
    assert buffers.kept_bytes() == 0
    many = [buffers.empty((buffers.KEPT // 8,), F32) for _ in range(3)]  # each half of what may be kept
    many.clear()
    assert 0 < buffers.kept_bytes() <= buffers.KEPT
    buffers.release()
