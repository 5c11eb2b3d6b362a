"""The few settings, read from the environment when they are asked for, so that a test or a notebook may change them.

`TINYTORCH_DEBUG` 0 silent, 1 timings, 2 kernels, 3 graphs, 4 generated source · `TINYTORCH_VERIFY` 0 off, 1 on
(default), 2 also run every pass differentially · `TINYTORCH_CACHE` kernel cache · `TINYTORCH_DATA` data sets ·
`TINYTORCH_THREADS` · `TINYTORCH_ISA`.
"""

import os

from .errors import SettingError


def _integer(name: str, default: int, allowed: range) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value not in allowed:
        raise SettingError(f"{name}={text!r}: expected an integer from {allowed.start} to {allowed.stop - 1}; "
                           f"unset it for {default}")
    return value


def debug() -> int:
    """How much the compiler tells on standard error, 0 to 4."""
    return _integer("TINYTORCH_DEBUG", 0, range(5))


def verify_level() -> int:
    """0 trusts every pass, 1 verifies each result, 2 also runs old and new graph on random inputs."""
    return _integer("TINYTORCH_VERIFY", 1, range(3))


def threads(default: int, most: int) -> int:
    """How many threads run a program."""
    return _integer("TINYTORCH_THREADS", default, range(1, most + 1))
