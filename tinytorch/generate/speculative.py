"""A small model proposes, the big one judges several tokens at once, and what comes out is the big one's.

Each round the draft draws some tokens, and the model gives its probabilities at all of them in one call, which costs
little more than one token: its weights are read once. A token d is kept with probability min(1, p(d) / q(d)), where q
is what the draft drew it from; the first that is not is drawn anew from max(p - q, 0), so that every token has the
probability p (Leviathan, Kalman and Matias, "Fast inference from transformers via speculative decoding", 2023).
Greedily that is: kept as long as both agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Several

import numpy as np

from tinytorch.nn.sampling import pick

from .decoder import Decoder
from .request import Request
from .sequence import Sequence, Token
from .steps import log_softmax_at


def speculate(decoder: Decoder, draft: Decoder, sequences: Several[Sequence], request: Request, logits: np.ndarray,
              ahead: int) -> Iterator[Token]:
    """As `steps.one_by_one`, `ahead` tokens proposed a round; the draft has read the prompts too."""
    nothing = np.zeros((len(sequences), 0), np.int64)
    first = _probabilities(logits[:, None], sequences, request, nothing)[:, 0]
    chosen = pick(first, request.rng.random(len(sequences)))
    for sequence, token, row in zip(sequences, chosen, logits, strict=True):
        yield from sequence.push(int(token), _logprob(request, row, int(token)))
    tails = np.array([[s.prompt[-1], token] for s, token in zip(sequences, chosen, strict=True)])
    lengths = request.lengths + 1  # the last token is not read yet
    while any(s.reason is None for s in sequences):
        proposed, drawn_from = _propose(draft, tails, lengths, sequences, request, ahead)
        logits = decoder.extend(np.concatenate([tails[:, 1:], proposed], 1), lengths - 1)  # (rows, ahead + 1, classes)
        wanted = _probabilities(logits, sequences, request, proposed)
        for row, sequence in enumerate(sequences):
            if sequence.reason is not None:
                continue
            kept = _judge(proposed[row], drawn_from[row], wanted[row], request.rng)
            for place, token in enumerate(kept):
                if sequence.reason is None:
                    yield from sequence.push(token, _logprob(request, logits[row, place], token))
            tails[row] = [tails[row, 1], *kept][-2:]
            lengths[row] += len(kept) if sequence.reason is None else 0


def _propose(draft: Decoder, tails: np.ndarray, lengths: np.ndarray, sequences: Several[Sequence], request: Request,
             ahead: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (rows, ahead) and what they were drawn from, (rows, ahead, classes).

    The last two tokens are read again: where all proposals were kept, the draft has not read the last of them.
    """
    found = np.zeros((len(tails), 0), np.int64)
    weights = []
    logits = draft.extend(tails, lengths - 2, last=True)
    for place in range(ahead):
        q = _probabilities(logits[:, None], sequences, request, found)[:, 0]
        token = pick(q, request.rng.random(len(tails)))[:, None]
        weights.append(q)
        found = np.concatenate([found, token], 1)
        if place + 1 < ahead:
            logits = draft.extend(token, lengths + place)[:, -1]
    return found, np.stack(weights, 1)


def _probabilities(logits: np.ndarray, sequences: Several[Sequence], request: Request,
                   proposed: np.ndarray) -> np.ndarray:
    """What tokens are drawn from, float64 (rows, places, classes): the last place comes after all that is proposed,
    (rows, tokens), the one before it after all but one."""
    rows, places, classes = logits.shape
    flat = logits.reshape(-1, classes)
    if request.sampling.repetition_penalty != 1:
        ends = range(proposed.shape[1] - places + 1, proposed.shape[1] + 1)
        contexts = [np.concatenate([sequence.context(), proposed[row, :end]])
                    for row, sequence in enumerate(sequences) for end in ends]
        flat = request.sampling.penalise(flat, contexts)
    return request.sampling.probabilities(flat).reshape(rows, places, classes)


def _judge(proposed: np.ndarray, drawn_from: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> list[int]:
    """The tokens that are kept of one sequence's, and one more: drawn anew, or after all of them."""
    for place, token in enumerate(proposed):
        p, q = wanted[place], drawn_from[place]
        if rng.random() * q[token] >= p[token]:
            left = np.maximum(p - q, 0)
            return [*map(int, proposed[:place]), int(pick(left[None], np.array([rng.random()]))[0])]
    return [*map(int, proposed), int(pick(wanted[-1:], np.array([rng.random()]))[0])]


def _logprob(request: Request, logits: np.ndarray, token: int) -> float | None:
    return float(log_softmax_at(logits[None], np.array([token]))[0]) if request.logprobs else None
