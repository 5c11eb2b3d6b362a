"""The command line, `tito`: demo, show, profile, opt, bench, doctor, cache.

    tito --help
    tito demo                           # train on real digits, eager and compiled, and look at every stage
    tito show model.py:build            # a graph as tree, table, SVG and HTML

Exit status: 0 all is well, 1 something failed (one panel says what; `TINYTORCH_DEBUG=1` shows the traceback), 2 the
command was not understood.
"""

from __future__ import annotations

from tinytorch.ir import config
from tinytorch.ir.errors import TinyTorchError


def main() -> None:
    """What the command `tito` runs."""
    from .app import app, failed

    try:
        app(prog_name="tito")
    except (TinyTorchError, OSError) as error:
        if config.debug():
            raise
        failed(error)
        raise SystemExit(1) from None


__all__ = ["main"]
