"""Which token comes next, given logits: the one definition of it that everything which generates shares.

    >>> import numpy as np
    >>> from tinytorch.nn.sampling import Sampling
    >>> logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    >>> Sampling(top_p=0.7).probabilities(logits).round(3).tolist()       # the likeliest that make up 70 %
    [[0.625, 0.375, 0.0, 0.0]]
    >>> Sampling(temperature=0).choose(logits, np.array([0.9])).tolist()  # no chance in it
    [0]

What is chosen depends on logits and on one uniform number a row alone, so that whoever draws that number decides what
a result depends on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinytorch.ir.errors import OpError


@dataclass(frozen=True)
class Sampling:
    """How to choose among tokens; what is given applies in this order.

    Attributes:
        repetition_penalty: above 1, what is in the context already becomes less likely: its logits are divided by this
            where positive, else multiplied (Keskar et al., "CTRL", 2019).
        temperature: divides logits; 0 takes the most likely token; above 1, draws are more even.
        top_k: the so many most likely tokens only.
        top_p: the fewest tokens that have at least this probability together (Holtzman et al., "The curious case of
            neural text degeneration", 2020).
        min_p: tokens of at least this part of the greatest probability (Nguyen et al., "Min-p sampling", 2024).
    Raises:
        OpError: a number that is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        wrong = [
            not self.temperature >= 0 and f"temperature={self.temperature}: expected a number ≥ 0; 0 is greedy",
            self.top_k is not None and self.top_k < 1 and f"top_k={self.top_k}: expected an integer ≥ 1 or None",
            self.top_p is not None and not 0 < self.top_p <= 1 and f"top_p={self.top_p}: expected 0 < top_p ≤ 1",
            self.min_p is not None and not 0 <= self.min_p <= 1 and f"min_p={self.min_p}: expected 0 ≤ min_p ≤ 1",
            not self.repetition_penalty > 0 and f"repetition_penalty={self.repetition_penalty}: expected a number > 0",
        ]
        reasons = [reason for reason in wrong if reason]
        if reasons:
            raise OpError("; ".join(reasons))

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken each time."""
        return self.temperature == 0

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """What `choose` draws from, float64 (rows, classes) of logits of that shape; all on one class if greedy.

        Raises:
            OpError: logits that are not numbers.
        """
        if self.is_greedy:
            found = np.zeros(logits.shape)
            np.put_along_axis(found, _best(logits)[:, None], 1.0, 1)
            return found
        scores = logits.astype(np.float64) / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            least = np.partition(scores, -self.top_k, -1)[:, -self.top_k, None]
            scores[scores < least] = -np.inf
        scores -= scores.max(-1, keepdims=True)
        found = np.exp(scores, out=scores)
        found /= found.sum(-1, keepdims=True)
        if not np.isfinite(found[:, 0]).all():
            raise OpError("the logits are not finite: the model gives nan or infinities")
        if self.top_p is not None and self.top_p < 1:
            for row in found:
                _keep_nucleus(row, self.top_p)
        if self.min_p:
            found[found < self.min_p * found.max(-1, keepdims=True)] = 0.0
        return np.asarray(found / found.sum(-1, keepdims=True))

    def choose(self, logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """A class for each row of `logits` (rows, classes), given a uniform number of [0, 1) for each row."""
        return _best(logits) if self.is_greedy else pick(self.probabilities(logits), uniform)

    def penalise(self, logits: np.ndarray, contexts: Iterable[np.ndarray]) -> np.ndarray:
        """The logits with the penalty on what is in each row's context, integers (time,)."""
        if self.repetition_penalty == 1:
            return logits
        logits = logits.copy()
        for row, context in zip(logits, contexts, strict=True):
            seen = np.unique(context)
            row[seen] *= np.where(row[seen] > 0, 1 / self.repetition_penalty, self.repetition_penalty)
        return logits


def pick(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A class for each row of weights (rows, classes), as likely as its weight, given a uniform number of each row."""
    reached = weights.cumsum(-1)
    total = reached[:, -1]
    target = np.minimum(uniform * total, np.nextafter(total, 0))
    return np.asarray((reached <= target[:, None]).sum(-1))


def _best(logits: np.ndarray) -> np.ndarray:
    """The most likely class of each row."""
    found = np.asarray(logits.argmax(-1))  # nan counts as the greatest
    if np.isnan(logits[np.arange(len(found)), found]).any():
        raise OpError("the logits are not finite: the model gives nan")
    return found


def _keep_nucleus(row: np.ndarray, mass: float) -> None:
    """Set to 0 what is not among the likeliest classes that have `mass` together."""
    several = np.flatnonzero(row > (1 - mass) / row.size)  # all others together have less than 1 - mass
    order = several[np.argsort(-row[several], kind="stable")]
    reached = row[order].cumsum()
    kept = order[:np.searchsorted(reached, mass) + 1]
    values = row[kept]
    row[:] = 0.0
    row[kept] = values
