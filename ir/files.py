"""Write a file whole or not at all: `write_atomically(path, content)`."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, and move it there when all is written: whoever reads meets the old file or the new one.

    Raises OSError where that cannot be done; then nothing is left behind, and the old file stays as it is.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
