"""One token after the other: each sequence goes on from its own last token, until all are at their end."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Several

import numpy as np

from .decoder import Decoder
from .request import Request
from .sequence import Sequence, Token


def begin(decoder: Decoder, request: Request) -> np.ndarray:
    """Read the prompts; the logits of the first new tokens, (sequences, vocabulary)."""
    lengths = request.lengths
    return decoder.extend(request.padded(), np.zeros(len(lengths), np.int64), lengths=lengths, last=True)


def one_by_one(decoder: Decoder, sequences: Several[Sequence], request: Request,
               logits: np.ndarray) -> Iterator[Token]:
    """Choose, give out, go on; `logits` are those of the prompts' last tokens."""
    positions, greedy = request.lengths, request.sampling.is_greedy
    nothing = np.zeros(len(sequences))
    while True:
        allowed = logits
        if request.sampling.repetition_penalty != 1:
            allowed = request.sampling.penalise(logits, [s.context() for s in sequences])
        chosen = request.sampling.choose(allowed, nothing if greedy else request.rng.random(len(sequences)))
        logprobs = log_softmax_at(logits, chosen) if request.logprobs else None
        for row, sequence in enumerate(sequences):
            if sequence.reason is None:
                yield from sequence.push(int(chosen[row]), None if logprobs is None else float(logprobs[row]))
        going = [s.reason is None for s in sequences]
        if not any(going):
            return
        logits = decoder.extend(chosen[:, None], positions)[:, -1]
        positions += going  # those at their end stay where they are: nobody reads them


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """ln p of each class, float64 of the shape of `logits`."""
    wide = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(-1, keepdims=True)))


def log_softmax_at(logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """ln p of one class of each row, float64 (rows,)."""
    return log_softmax(logits)[np.arange(len(chosen)), chosen]
