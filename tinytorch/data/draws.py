"""Random numbers that belong to a sample, not to a batch or a worker: `Draws(seed, epoch, indices).uniform()`.

A picture is cropped in the same way whichever worker does it, in whichever batch it stands, and whether or not the run
was resumed: what sample i gets is a function of (seed, epoch, i) and of how many numbers were drawn before. Each sample
has a SplitMix64 stream of its own, and one NumPy expression moves all streams of a batch on.

    >>> from tinytorch.data import Draws
    >>> Draws(seed=0, epoch=4, indices=[7, 8, 9]).integers(100).tolist()
    [12, 28, 40]
    >>> Draws(seed=0, epoch=4, indices=[9]).integers(100).tolist()
    [40]

Source: Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (2014).
"""

import numpy as np
import numpy.typing as npt

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
_WORD = 2**64 - 1


class Draws:
    """One stream of random numbers for each sample of a batch; each call draws one number from every stream.

    Args:
        seed, epoch: integers, the same for the whole batch.
        indices: which sample of the data set each row of the batch is, `(n,)`.

    >>> len(Draws(seed=0, epoch=0, indices=[7, 8, 9]))
    3
    """

    def __init__(self, seed: int, epoch: int, indices: npt.ArrayLike) -> None:
        self._state = np.asarray(indices, np.int64).reshape(-1).astype(np.uint64)  # (n,)
        for word in (epoch, seed):  # mixed after each, so that (0, 1) and (1, 0) lie far apart
            self._state = _mix(self._state + np.uint64(word * _GOLDEN & _WORD))

    def __len__(self) -> int:
        return len(self._state)

    def bits(self) -> npt.NDArray[np.uint64]:
        """64 random bits for each sample, uint64 `(n,)`.

        >>> Draws(0, 0, [0, 1]).bits().shape
        (2,)
        """
        self._state = self._state + np.uint64(_GOLDEN)
        return _mix(self._state)

    def uniform(self) -> npt.NDArray[np.float64]:
        """Uniform on [0, 1), float64 `(n,)`.

        >>> bool((Draws(0, 0, range(1000)).uniform() < 1).all())
        True
        """
        return np.asarray((self.bits() >> np.uint64(11)) * 2.0**-53, np.float64)

    def integers(self, high: int) -> npt.NDArray[np.int64]:
        """Uniform integers 0 ≤ k < high, int64 `(n,)`.

        >>> sorted(set(Draws(0, 0, range(1000)).integers(3).tolist()))
        [0, 1, 2]
        """
        return (self.uniform() * high).astype(np.int64)


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Every bit of the result depends on every bit of `z`, one to one (Stafford's variant 13)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
