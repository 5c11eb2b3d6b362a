"""`generate` and `stream`: what all ways to generate share, from the prompt to the result."""

from __future__ import annotations

import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn.module import Module
from tinytorch.nn.sampling import Sampling
from tinytorch.random import next_key

from .decoder import Decoder
from .request import Request, as_prompts, endings
from .search import search
from .sequence import Sequence, Token
from .speculative import speculate
from .steps import begin, one_by_one

ROOM = 64  # capacities are multiples of it where the model allows, so that calls share their programs
KEPT = 2   # decoders of a model that wait for further calls


@dataclass(frozen=True, eq=False)
class Generated:
    """What `generate` gives; its sequences are those of the first prompt, then those of the second, …

    Attributes:
        tokens: the new tokens of each sequence, i64 (new,), without those that ended it.
        text: the new text of each; None without a tokeniser.
        logprobs: ln p of each new token, as the model gave it, float64 (new,); None if they were not asked for.
        reasons: why each ended: "stop" or "length".
        scores: of beams, the best first; None otherwise.
        prompt_tokens: how many were read; seconds_reading, seconds_writing: what reading prompts and making tokens
            took, programs that had to be compiled first included.

    >>> import tinytorch as tt
    >>> model = tt.nn.GPT(tt.nn.GPTConfig(vocab_size=9, block_size=16, n_layer=1, n_head=1, n_embd=8))
    >>> found = tt.generate(model, [[1, 2, 3], [4, 5]], max_new_tokens=4, seed=0)
    >>> found.prompt_tokens, found.new_tokens, found.reasons
    (5, 8, ['length', 'length'])
    """

    tokens: list[np.ndarray]
    text: list[str] | None
    logprobs: list[np.ndarray] | None
    reasons: list[str]
    scores: list[float] | None
    prompt_tokens: int
    seconds_reading: float
    seconds_writing: float

    @property
    def new_tokens(self) -> int:
        """All new tokens together."""
        return sum(map(len, self.tokens))

    @property
    def reading_rate(self) -> float:
        """Tokens of prompts that were read, a second."""
        return self.prompt_tokens / self.seconds_reading

    @property
    def writing_rate(self) -> float:
        """New tokens a second, all sequences together."""
        return self.new_tokens / self.seconds_writing

    def __repr__(self) -> str:
        return (f"<Generated: {len(self.tokens)} sequences, {self.new_tokens} tokens, read at {self.reading_rate:,.0f} "
                f"and written at {self.writing_rate:,.0f} tokens/s>")


def generate(model: Any, prompt: Any, max_new_tokens: int = 64, *, temperature: float = 1.0, top_k: int | None = None,
             top_p: float | None = None, min_p: float | None = None, repetition_penalty: float = 1.0, stop: Any = (),
             eos: Any = None, seed: int | None = None, num_return: int = 1, logprobs: bool = False,
             stream: Callable[[Token], object] | None = None, beams: int = 1, length_penalty: float = 1.0,
             draft: Any = None, ahead: int = 3, tokenizer: Any = None, capacity: int | None = None,
             window: int | None = None, cache_dtype: str = "f32", threads: int | None = None) -> Generated:
    """Go on from prompts, token by token, with caches that a compiler pass inserts into the model.

    Args:
        model: a causal module that maps tokens (batch, time) to logits (batch, time, vocabulary), or a `Decoder`.
        prompt: tokens (time,) or (batch, time), lists of tokens of any lengths, a text, or several.
        max_new_tokens: for each sequence.
        temperature, top_k, top_p, min_p, repetition_penalty: see `nn.sampling.Sampling`; temperature=0 is greedy.
        stop, eos: tokens that end a sequence and are no part of it, and texts that are cut from its text (the tokens
            that spell them stay); eos is the tokeniser's by default.
        seed: makes the result depend on it alone; by default chance comes from `tt.manual_seed`.
        num_return: sequences for each prompt.
        stream: called with each new `Token`.
        beams: above 1, search for the likeliest sequences with so many beams, see `generate.search`.
        draft: a smaller model of the same vocabulary that proposes `ahead` tokens a round, which changes the time and
            not the result, see `generate.speculative`.
        tokenizer: for texts: an object with `encode` and `decode`.
        capacity: room for so many tokens a sequence; by default as many as are needed.
        window, cache_dtype, threads: see `Decoder`.
    Raises:
        PassError: the model is not a causal decoder; the message names the line.
        ShapeError: a prompt is empty, or does not fit the capacity; IndexError: a token is none of the vocabulary.
        OpError: options that are out of range or do not go together.

    >>> import tinytorch as tt
    >>> from tinytorch.generate import generate
    >>> model = tt.nn.GPT(tt.nn.GPTConfig(vocab_size=65, block_size=16, n_layer=1, n_head=2, n_embd=32))
    >>> found = generate(model, [[1, 2, 3], [4]], 5, temperature=0)
    >>> [tokens.shape for tokens in found.tokens], found.reasons
    ([(5,), (5,)], ['length', 'length'])
    """
    if beams > 1 and (stream is not None or draft is not None or temperature > 0 or not 0 < num_return <= beams):
        raise OpError(f"generate(beams={beams}): beams are searched, not drawn: expected temperature=0, no stream and "
                      "no draft, and num_return of 1 to beams")
    if beams > 1 and endings(stop, eos, tokenizer)[1]:
        raise OpError(f"generate(beams={beams}, stop={stop!r}): beams end at tokens, not at texts; give the tokens")
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    run = _Run(model, prompt, max_new_tokens, sampling, stop, eos, seed, num_return if beams < 2 else beams, logprobs,
               draft, ahead,
               tokenizer, capacity, window, cache_dtype, threads)
    if beams > 1:
        return run.searched(beams, length_penalty, num_return)
    for token in run.tokens():
        if stream is not None:
            stream(token)
    return run.result()


def stream(model: Any, prompt: Any, max_new_tokens: int = 64, *, temperature: float = 1.0, top_k: int | None = None,
           top_p: float | None = None, min_p: float | None = None, repetition_penalty: float = 1.0, stop: Any = (),
           eos: Any = None, seed: int | None = None, num_return: int = 1, logprobs: bool = False, draft: Any = None,
           ahead: int = 3, tokenizer: Any = None, capacity: int | None = None, window: int | None = None,
           cache_dtype: str = "f32", threads: int | None = None) -> Iterator[Token]:
    """As `generate`, but an iterator that gives each `Token` as soon as it is there; what is wrong is said at once.

    >>> import tinytorch as tt
    >>> from tinytorch.generate import stream
    >>> model = tt.nn.GPT(tt.nn.GPTConfig(vocab_size=65, block_size=16, n_layer=1, n_head=2, n_embd=32))
    >>> len([token.token for token in stream(model, [1, 2, 3], 5)])
    5
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    return _Run(model, prompt, max_new_tokens, sampling, stop, eos, seed, num_return, logprobs, draft, ahead, tokenizer,
                capacity, window, cache_dtype, threads).tokens()


class _Run:
    """One call: its request, and the decoders it has taken."""

    def __init__(self, model: Any, prompt: Any, most: int, sampling: Sampling, stop: Any, eos: Any, seed: int | None,
                 each: int, logprobs: bool, draft: Any, ahead: int, tokenizer: Any, capacity: int | None,
                 window: int | None, cache_dtype: str, threads: int | None) -> None:
        if most < 1 or each < 1 or ahead < 1:
            raise OpError(f"generate(max_new_tokens={most}, num_return={each}, ahead={ahead}): expected 1 or more of "
                          "each")
        prompts = [row for row in as_prompts(prompt, tokenizer) for _ in range(each)]
        if seed is None and not sampling.is_greedy:
            seed = int(next_key().numpy()) % 2**64
        rng = np.random.default_rng(seed)
        self.request = Request(prompts, most, sampling, *endings(stop, eos, tokenizer), tokenizer, logprobs, rng)
        self.ahead = ahead
        need = int(self.request.lengths.max()) + most + (ahead + 1 if draft is not None else 0)
        options = {"window": window, "cache_dtype": cache_dtype, "threads": threads}
        self.loan = _borrow(model, len(prompts), need, capacity, options)
        self.draft = self.loan if draft is None else _borrow(draft, len(prompts), need, capacity, options)
        try:
            self.request.check(self.loan.vocabulary, self.loan.vocabulary if draft is None else self.draft.vocabulary)
        except (OpError, IndexError):
            self._give_back()
            raise
        self.sequences = [Sequence(n, row, self.request) for n, row in enumerate(prompts)]
        self.began = self.read = self.ended = 0.0

    def tokens(self) -> Iterator[Token]:
        """Every new token; the decoders go back when all are there, or nobody wants more."""
        decoder, draft = self.loan.decoder, self.draft.decoder
        self.began = time.perf_counter()
        try:
            logits = begin(decoder, self.request)
            if draft is not decoder:
                begin(draft, self.request)
            self.read = time.perf_counter()
            if draft is decoder:
                yield from one_by_one(decoder, self.sequences, self.request, logits)
            else:
                yield from speculate(decoder, draft, self.sequences, self.request, logits, self.ahead)
        finally:
            self.ended = time.perf_counter()
            self._give_back()

    def _give_back(self) -> None:
        self.loan.give_back()
        if self.draft is not self.loan:
            self.draft.give_back()

    def result(self) -> Generated:
        """What has come."""
        sequences = self.sequences
        return self._generated([s.tokens for s in sequences], [s.text for s in sequences],
                               [s.logprobs for s in sequences], [s.reason or "" for s in sequences], None)

    def searched(self, beams: int, length_penalty: float, best: int) -> Generated:
        """What beams find, the `best` of each prompt."""
        self.began = self.read = time.perf_counter()
        groups = search(self.loan.decoder, self.request, beams, length_penalty)
        self.ended = time.perf_counter()
        self.loan.give_back()
        found = [(prompt, one) for prompt, group in zip(self.request.prompts[::beams], groups, strict=True)
                 for one in group[:best]]
        texts = [self._text(prompt, one.tokens) for prompt, one in found]
        return self._generated([one.tokens for _, one in found], texts, [one.logprobs for _, one in found],
                               [one.reason for _, one in found], [one.score for _, one in found])

    def _text(self, prompt: np.ndarray, tokens: list[int]) -> str:
        sequence = Sequence(0, prompt, self.request)
        for token in tokens:
            sequence.push(token)
        return sequence.text

    def _generated(self, tokens: list[list[int]], text: list[str], logprobs: list[list[float]], reasons: list[str],
                   scores: list[float] | None) -> Generated:
        request = self.request
        return Generated([np.array(row, np.int64) for row in tokens], None if request.tokenizer is None else text,
                         [np.array(row) for row in logprobs] if request.logprobs else None, reasons, scores,
                         int(request.lengths.sum()), self.read - self.began, self.ended - self.read)


# -- decoders that wait for further calls ------------------------------------------------------------------------------


@dataclass(eq=False)
class _Loan:
    """A decoder that one call uses, and where it goes when that is over."""

    decoder: Decoder
    shelf: list[tuple[Any, Decoder]] = field(default_factory=list)
    key: Any = None

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return int(self.decoder.graph.outputs[0].shape[-1])

    def give_back(self) -> None:
        """The next call may have it."""
        if self.key is not None:
            with _busy:
                self.shelf.append((self.key, self.decoder))
                del self.shelf[:-KEPT]


_busy = threading.Lock()  # who holds it may change a shelf
_shelves: weakref.WeakKeyDictionary[Any, list[tuple[Any, Decoder]]] = weakref.WeakKeyDictionary()


def _borrow(model: Any, batch: int, need: int, capacity: int | None, options: dict[str, Any]) -> _Loan:
    """A decoder of this model with room for `need` tokens: the given one, one that an earlier call has left, a new one.
    """
    if isinstance(model, Decoder):
        if model.batch != batch or model.capacity < need:
            raise ShapeError(f"generate({model!r}): {batch} sequences of {need} tokens are needed")
        return _Loan(model)
    if capacity is not None and capacity < need:
        raise ShapeError(f"generate(capacity={capacity}): the longest prompt and max_new_tokens need {need}")
    if not isinstance(model, Module):
        return _Loan(_new(model, batch, need, capacity, options))
    own = tuple(map(id, model.parameters())), tuple(map(id, model.buffers())), tuple(map(_settings, model.modules()))
    key = (batch, capacity, own, *options.values())
    with _busy:
        shelf = _shelves.setdefault(model, [])
        for place, (known, decoder) in enumerate(shelf):
            if known == key and decoder.capacity >= need:
                del shelf[place]
                return _Loan(decoder, shelf, key)
    return _Loan(_new(model, batch, need, capacity, options), shelf, key)


def _settings(module: Module) -> tuple[Any, ...]:
    """What a module computes follows from its class, and from numbers and functions that it has."""
    kept = (bool, int, float, str, types.FunctionType)
    return type(module), *((k, v) for k, v in vars(module).items() if isinstance(v, kept) and k != "training")


def _new(model: Any, batch: int, need: int, capacity: int | None, options: dict[str, Any]) -> Decoder:
    if capacity is not None:
        return Decoder(model, batch, capacity, **options)
    try:
        return Decoder(model, batch, -(-need // ROOM) * ROOM, **options)
    except ShapeError:  # the model takes none that long
        return Decoder(model, batch, need, **options)
