"""Ctrl-C that waits for the end of the step: the first asks to stop, the second stops at once.

with patience() as asked:
    while not asked.to_stop:
        step()
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

MESSAGE = b"\nstopping after this step, then saving; Ctrl-C again stops at once\n"


@dataclass
class Asked:
    """Whether Ctrl-C was pressed."""

    to_stop: bool = False


@contextmanager
def patience() -> Iterator[Asked]:
    """While the block runs, the first Ctrl-C only sets `to_stop`; what Ctrl-C did before comes back with the second,
    and after the block. In another thread than the main one, or where SIGINT is ignored, nothing changes."""
    asked = Asked()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield asked
        return

    def first(number: int, frame: Any) -> None:
        asked.to_stop = True
        signal.signal(signal.SIGINT, before)
        os.write(2, MESSAGE)  # a handler may run amid a print, which print itself would not survive

    signal.signal(signal.SIGINT, first)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
