"""Beam search: the likeliest sequences, not the likeliest next token.

`beams` sequences of each prompt go on side by side. Each step, all their continuations are ranked by the sum of ln p,
and the best stay. A finished sequence scores Σ ln p / tokens**length_penalty, so that longer ones are not at a
disadvantage (Wu et al., "Google's neural machine translation system", 2016, in the form that became usual).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .decoder import Decoder
from .request import Request
from .steps import begin, log_softmax


@dataclass(frozen=True)
class Found:
    """A finished sequence: its score, new tokens, their log-probabilities, and why it ended."""

    score: float
    tokens: list[int]
    logprobs: list[float]
    reason: str


def search(decoder: Decoder, request: Request, beams: int, length_penalty: float) -> list[list[Found]]:
    """The best sequences of each prompt, the best first; every prompt stands `beams` times in `request`."""
    rows = len(request.prompts)
    groups = [_Group(beams, length_penalty, request.stop_tokens) for _ in range(rows // beams)]
    logits, positions = begin(decoder, request), request.lengths
    for left in reversed(range(request.most)):
        if request.sampling.repetition_penalty != 1:
            contexts = [np.array([*request.prompts[row], *groups[row // beams].tokens[row % beams]])
                        for row in range(rows)]
            logits = request.sampling.penalise(logits, contexts)
        logprobs = log_softmax(logits)
        for number, group in enumerate(groups):
            group.advance(logprobs[number * beams:(number + 1) * beams], left)
        if all(group.done for group in groups):
            break
        decoder.reorder(np.concatenate([number * beams + group.origins for number, group in enumerate(groups)]))
        last = np.array([tokens[-1] for group in groups for tokens in group.tokens])
        logits = decoder.extend(last[:, None], positions)[:, -1]
        positions += 1
    return [group.best() for group in groups]


class _Group:
    """The beams of one prompt.

    Attributes:
        tokens: of each beam; origins: which beam of the step before each goes on from; done: whether none can win any
            more.
    """

    def __init__(self, beams: int, length_penalty: float, stop: frozenset[int]) -> None:
        self.beams, self.penalty, self.stop = beams, length_penalty, stop
        self.tokens: list[list[int]] = [[] for _ in range(beams)]
        self.logprobs: list[list[float]] = [[] for _ in range(beams)]
        self.totals = np.array([0.0] + [-np.inf] * (beams - 1))  # all are the same at first
        self.origins = np.arange(beams)
        self.finished: list[Found] = []
        self.done = False

    def advance(self, logprobs: np.ndarray, left: int) -> None:
        """Go on by one token, of log-probabilities (beams, classes); `left` more are allowed after it."""
        if self.done:
            return
        classes = logprobs.shape[1]
        ranks = (self.totals[:, None] + logprobs).ravel()
        several = min(ranks.size, self.beams * (1 + len(self.stop)))  # enough, if all stops are among them
        ahead = np.argpartition(-ranks, several - 1)[:several]
        ahead = ahead[np.argsort(-ranks[ahead], kind="stable")]
        chosen: list[tuple[float, int, int]] = []
        for place in ahead[np.isfinite(ranks[ahead])]:
            beam, token = divmod(int(place), classes)
            if token in self.stop:
                self._finish(ranks[place], self.tokens[beam], [*self.logprobs[beam], logprobs[beam, token]], "stop")
            elif len(chosen) < self.beams:
                chosen.append((ranks[place], beam, token))
        self._go_on(chosen, logprobs)
        if left == 0:
            for total, tokens, found in zip(self.totals, self.tokens, self.logprobs, strict=True):
                if np.isfinite(total):
                    self._finish(total, tokens, found, "length")
        self.done = left == 0 or not chosen or (len(self.finished) >= self.beams and not self._can_win(left))

    def best(self) -> list[Found]:
        """The finished sequences, the best first."""
        return sorted(self.finished, key=lambda found: -found.score)[:self.beams]

    def _go_on(self, chosen: list[tuple[float, int, int]], logprobs: np.ndarray) -> None:
        chosen = chosen + [(-np.inf, 0, 0)] * (self.beams - len(chosen))  # of few classes there may be too few
        self.tokens = [[*self.tokens[beam], token] for _, beam, token in chosen]
        self.logprobs = [[*self.logprobs[beam], float(logprobs[beam, token])] for _, beam, token in chosen]
        self.totals = np.array([total for total, _, _ in chosen])
        self.origins = np.array([beam for _, beam, _ in chosen])

    def _finish(self, total: float, tokens: list[int], logprobs: list[float], reason: str) -> None:
        self.finished.append(Found(float(total) / len(logprobs) ** self.penalty, tokens, logprobs, reason))

    def _can_win(self, left: int) -> bool:
        """Whether a beam can still come among the best: a sum of ln p only falls, but what divides it may grow."""
        length = len(self.tokens[0])
        longest = length + left if self.penalty > 0 else length
        worst = sorted(found.score for found in self.finished)[-self.beams]
        return float(self.totals.max()) / longest ** self.penalty > worst
