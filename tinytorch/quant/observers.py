"""From numbers seen to the range that a grid should cover: `OBSERVERS["percentile"]()`.

    minmax        everything (the default)
    percentile    all but the outermost 0.01 % on either side
    mse           where the squared error of rounding and cutting together is least
    entropy       where the distribution changes least (Kullback and Leibler), as TensorRT does (Migacz, 2017)

An observer is shown arrays, one after the other, and asked for (low, high) at the end. All but the first keep a
histogram whose bins become twice as wide whenever a number falls outside, so that one look at each number is enough.

    >>> import numpy as np
    >>> watch = OBSERVERS["minmax"]()
    >>> watch.look(np.array([0.5, 2.0])); watch.look(np.array([-1.0]))
    >>> watch.range()
    (-1.0, 2.0)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BINS = 4096
LEVELS = 256
MOST = 1 << 18  # numbers of one array that are counted; of more, some at equal distances
LEAST = 2.0 ** -100  # what is smaller counts as 0
KEPT = 0.9999  # by `percentile`


class MinMax:
    """The least and the greatest of all numbers."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def look(self, x: np.ndarray) -> None:
        """Take the numbers of `x` into account."""
        if x.size:
            self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))

    def range(self) -> tuple[float, float]:
        """(low, high); (0, 0) if nothing was seen."""
        return (self.low, self.high) if self.low <= self.high else (0.0, 0.0)


class Histogram(MinMax):
    """Counts how often numbers occur, in bins of equal width around 0."""

    def __init__(self) -> None:
        super().__init__()
        self.reach = 0.0  # the bins cover -reach … reach
        self.counts = np.zeros(BINS, np.int64)

    def look(self, x: np.ndarray) -> None:
        super().look(x)
        x = x.reshape(-1)[::-(-x.size // MOST) or 1]
        top = float(np.abs(x).max(initial=0))
        if top < LEAST:
            self.counts[BINS // 2] += x.size
            return
        self.reach = self.reach or top
        while self.reach < top:  # each two bins become one
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(1), BINS // 4)
            self.reach *= 2
        places = (x * np.float32(BINS / 2 / self.reach) + np.float32(BINS / 2)).astype(np.int32)  # 0 exactly: a middle
        self.counts += np.bincount(np.minimum(places, BINS - 1, out=places), minlength=BINS)

    def range(self) -> tuple[float, float]:
        low, high = super().range()
        return (low, high) if self.reach == 0 else self.choose(low, high)

    def choose(self, low: float, high: float) -> tuple[float, float]:
        """The range, given that of all numbers."""
        raise NotImplementedError

    @property
    def centres(self) -> np.ndarray:
        """The number in the middle of each bin."""
        return (np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach

    def _best(self, low: float, high: float, cost: Callable[[float, float], float]) -> tuple[float, float]:
        """The cheapest of the parts of (low, high) within some distance of 0."""
        top = max(-low, high)
        ranges = {(max(low, -reach), min(high, reach)): None for reach in top * np.geomspace(0.02, 1.0, 80)}
        return min(ranges, key=lambda ends: cost(*ends))


class Percentile(Histogram):
    """All but the outermost 0.01 % of the numbers on either side."""

    def choose(self, low: float, high: float) -> tuple[float, float]:
        share = np.cumsum(self.counts) / self.counts.sum()
        width = 2 * self.reach / BINS
        first, last = np.searchsorted(share, 1 - KEPT), np.searchsorted(share, KEPT)
        return max(low, first * width - self.reach), min(high, (last + 1) * width - self.reach)


class LeastSquares(Histogram):
    """The range with the least mean squared error of `quantize`."""

    def choose(self, low: float, high: float) -> tuple[float, float]:
        x, weight = self.centres, self.counts

        def cost(low: float, high: float) -> float:
            low, high = min(low, 0.0), max(high, 0.0)
            step = (high - low) / (LEVELS - 1)
            inside = np.clip(x, low, high)
            return float((weight * ((x - inside) ** 2 + np.where(x == inside, step ** 2 / 12, 0))).sum())

        return self._best(low, high, cost)


class Entropy(Histogram):
    """The range after which the distribution of the numbers differs least from before."""

    def choose(self, low: float, high: float) -> tuple[float, float]:
        x, counts = self.centres, self.counts.astype(np.float64)
        low, high = min(low, 0.0), max(high, 0.0)  # as grids do
        counts[BINS // 2] = 0  # zeros, as after relu, lie on the grid anyway

        def cost(low: float, high: float) -> float:
            inside = (x >= low) & (x <= high)
            cut = counts[inside].copy()
            if cut.sum() < counts.sum() / 2:  # of what is mostly cut, nothing can be told
                return np.inf
            cut[0] += counts[x < low].sum()
            cut[-1] += counts[x > high].sum()
            level = ((x[inside] - low) / (high - low or 1) * (LEVELS - 1)).astype(np.int64)
            total = np.bincount(level, counts[inside], LEVELS)
            filled = np.bincount(level, counts[inside] > 0, LEVELS)
            flat = np.where(counts[inside] > 0, (total / np.maximum(filled, 1))[level], 0)
            here = cut > 0
            p, q = cut[here] / cut.sum(), np.maximum(flat[here], 1e-9) / max(flat.sum(), 1e-9)
            return float((p * np.log(p / q)).sum())

        return self._best(low, high, cost)


OBSERVERS: dict[str, Callable[[], MinMax]] = {
    "minmax": MinMax, "percentile": Percentile, "mse": LeastSquares, "entropy": Entropy}
