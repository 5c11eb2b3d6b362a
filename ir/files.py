"""Write a file whole or not at all: `write_atomically(path, content)`."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


def write_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Write beside `path`, and move it there when all is written: whoever reads meets the old file or the new one.

    With `durable` that holds after a power failure too: the content is on the disk before the name is.
    Raises OSError where that cannot be done; then nothing is left behind, and the old file stays as it is.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        temporary.write_bytes(content)
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable and os.name == "posix":  # the name itself; elsewhere a folder cannot be opened
            _flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    """Wait until the disk holds the file (or the names in the folder)."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
