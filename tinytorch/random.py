"""The default generator: a counter in a tensor, so that a compiled step draws what an eager one would and moves it on.

    >>> import tinytorch as tt
    >>> _ = tt.manual_seed(0); a = tt.rand(2)
    >>> _ = tt.manual_seed(0); bool((a == tt.rand(2)).all())
    True
"""

from __future__ import annotations

import numpy as np

from tinytorch.ir import ops

from .tensor import Tensor, as_tensor
from .watch import touch

STRIDE = 0x2545F4914F6CDD1D  # odd: keys of different draws lie far apart


class Generator:
    """Gives a fresh key for each draw. Its state is one i64 tensor that moves on in place."""

    def __init__(self, seed: int = 0) -> None:
        self.state = Tensor(np.zeros((), np.int64))
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`."""
        mixed = (int(seed) * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & (2**64 - 1)
        self.state.payload[...] = np.uint64(mixed).astype(np.int64)
        touch(self.state.payload)
        return self

    def next_key(self) -> Tensor:
        """A key for one draw."""
        key = as_tensor(ops.add(self.state, 0)).detach()
        self.state.copy_(ops.add(self.state, STRIDE))
        return key


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Make all random numbers that follow depend on `seed` alone.

    >>> import tinytorch as tt
    >>> _ = tt.manual_seed(1); a = tt.rand(2); _ = tt.manual_seed(1); (a == tt.rand(2)).tolist()
    [True, True]
    """
    return default_generator.manual_seed(seed)


def next_key() -> Tensor:
    """A key for one draw from the default generator."""
    return default_generator.next_key()
