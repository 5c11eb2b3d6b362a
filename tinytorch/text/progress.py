"""A progress bar for what may take long: `with bar("Reading", total=100) as done: done(1)`.

    >>> with bar("Reading", total=2, wanted=False) as done:
    ...     done(2)
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PATIENCE = 2.0  # seconds without a bar: what is quick stays silent


@contextmanager
def bar(what: str, total: int | None, wanted: bool = True) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of steps done; after two seconds on a terminal a bar shows them on stderr.

    `total` is None where nobody knows how many there will be.
    """
    if not (wanted and sys.stderr.isatty()):
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    begun = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total, visible=False)
        yield lambda steps: shown.update(task, advance=steps, visible=time.monotonic() - begun > _PATIENCE)
