"""What `generate` was asked for, checked: prompts as tokens, and what ends a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn.sampling import Sampling
from tinytorch.tensor import Tensor


@dataclass(frozen=True)
class Request:
    """One call.

    Attributes:
        prompts: the tokens of each sequence to go on from, i64 (time,), each as often as it is to be continued.
        most: new tokens of each at most.
        sampling: how tokens are chosen.
        stop_tokens, stop_texts: what ends a sequence; it is no part of the result.
        tokenizer: for texts, or None; logprobs: whether to keep log-probabilities.
        rng: where chance comes from.
    """

    prompts: list[np.ndarray]
    most: int
    sampling: Sampling
    stop_tokens: frozenset[int]
    stop_texts: tuple[str, ...]
    tokenizer: Any
    logprobs: bool
    rng: np.random.Generator

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each prompt."""
        return np.array([len(prompt) for prompt in self.prompts])

    def padded(self) -> np.ndarray:
        """The prompts as one array (sequences, longest), each with zeros behind it."""
        found = np.zeros((len(self.prompts), self.lengths.max()), np.int64)
        for row, prompt in zip(found, self.prompts, strict=True):
            row[:len(prompt)] = prompt
        return found

    def check(self, vocabulary: int, drafted: int) -> None:
        """Raise IndexError for a token that is none of the model's, OpError for a draft with another vocabulary."""
        if drafted != vocabulary:
            raise OpError(f"generate(draft=…): its vocabulary is {drafted} tokens, the model's {vocabulary}; both must "
                          "have the same")
        for number, prompt in enumerate(self.prompts):
            if prompt.min() < 0 or prompt.max() >= vocabulary:
                wrong = prompt[(prompt < 0) | (prompt >= vocabulary)][0]
                raise IndexError(f"generate: token {wrong} of prompt {number} is none of the model's, "
                                 f"0 … {vocabulary - 1}; was it made with another tokeniser?")


def as_prompts(prompt: Any, tokenizer: Any) -> list[np.ndarray]:
    """The tokens of each prompt: of a text or several, of tokens (time,) or (batch, time), or of lists of tokens.

    Raises:
        OpError: text without a tokeniser, or what is no prompt; ShapeError: a prompt without tokens.
    """
    texts = [prompt] if isinstance(prompt, str) else prompt
    if isinstance(prompt, str) or (isinstance(prompt, (list, tuple)) and prompt and isinstance(prompt[0], str)):
        if tokenizer is None:
            raise OpError("generate(text): a text needs tokenizer=…; or give tokens, as lists or (batch, time)")
        rows = [tokenizer.encode(text) for text in texts]
    elif isinstance(prompt, (Tensor, np.ndarray)):
        array = prompt.numpy() if isinstance(prompt, Tensor) else prompt
        rows = list(array[None] if array.ndim == 1 else array)
    else:
        nested = bool(prompt) and not isinstance(prompt[0], (int, np.integer))
        rows = list(prompt) if nested else [prompt]
    found = [np.asarray(row.numpy() if isinstance(row, Tensor) else row) for row in rows]
    for number, row in enumerate(found):
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise OpError(f"generate: prompt {number} is {row.dtype}{list(row.shape)}, expected integers (time,)")
        if not row.size:
            raise ShapeError(f"generate: prompt {number} is empty; a model needs a token to begin with, such as the "
                             "one that begins a text")
    if not found:
        raise ShapeError("generate: no prompt; expected at least one")
    return [row.astype(np.int64) for row in found]


def endings(stop: Any, eos: Any, tokenizer: Any) -> tuple[frozenset[int], tuple[str, ...]]:
    """Tokens and texts that end a sequence; without `eos`, the tokeniser's own if it has one.

    Raises:
        OpError: something else than tokens and texts, or a text without a tokeniser.
    """
    eos = getattr(tokenizer, "eos", None) if eos is None else eos
    given: Sequence[Any] = [*_several(stop), *_several(eos)]
    tokens = frozenset(int(s) for s in given if isinstance(s, (int, np.integer)))
    texts = tuple(s for s in given if isinstance(s, str) and s)
    if len(tokens | frozenset(texts)) < len(set(given)):
        raise OpError(f"generate(stop={stop!r}, eos={eos!r}): expected tokens (integers) and texts that are not empty")
    if texts and tokenizer is None:
        raise OpError(f"generate(stop={stop!r}): to stop at a text needs tokenizer=…; or give tokens")
    return tokens, texts


def _several(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
