"""A causal model that remembers: new tokens in, their logits out, at the cost of the new tokens alone.

    decoder = Decoder(model, batch=2, capacity=512)
    logits = decoder.extend(prompts, positions=[0, 0], lengths=[7, 5], last=True)     # (2, vocabulary)
    logits = decoder.extend(next_tokens, positions=[7, 5])                            # (2, 1, vocabulary)

The model is any that maps tokens (batch, time) to logits (batch, time, vocabulary). It is traced once, with time =
capacity; `passes.InsertKVCache` makes the program of so many new tokens of that graph, and finds out what to keep of
earlier ones. To go back, begin again at a smaller position: what is written there overwrites what was there, and what
lies behind a token is never seen.
"""

from __future__ import annotations

import operator
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.frontends.trace import Trace
from tinytorch.frontends.trace import trace as trace_function
from tinytorch.ir import Graph, Value
from tinytorch.ir.errors import OpError, ShapeError, TinyTorchError
from tinytorch.passes import PIPELINES, InsertKVCache, Pipeline, plan_memory
from tinytorch.preparation import Preparation, lower
from tinytorch.surroundings import Surroundings
from tinytorch.tensor import Tensor, tensor
from tinytorch.watch import lend

MANY = 16  # new tokens that make a prompt: from here on, a program of its own for those that begin at 0


class Decoder:
    """Programs that extend sequences by new tokens, and the caches that they share.

    Args:
        model: a module, or a function of tokens (batch, time); it is traced in evaluation mode. Its parameters are
            read anew at each call, as those of any compiled function.
        batch: sequences side by side; capacity: the most tokens of one.
        window: have attention see so many of the latest tokens only, whatever the model's mask says.
        cache_dtype: "f32", "f16", "bf16", or "i8" with a scale for each row and head.
        threads: how many to use; by default all.
    Attributes:
        graph: the model's, of a whole sequence; caches: the arrays, (batch, capacity, …).
    Raises:
        PassError: the model is not causal, or not seen to be: the message names the line, and says why.
        ShapeError: the model takes no sequence as long as the capacity.

    >>> import tinytorch as tt
    >>> from tinytorch.generate import Decoder
    >>> model = tt.nn.GPT(tt.nn.GPTConfig(vocab_size=65, block_size=16, n_layer=1, n_head=2, n_embd=32))
    >>> decoder = Decoder(model, batch=1, capacity=16)
    >>> decoder.extend([[1, 2, 3]], [0], last=True).shape, decoder.extend([[4]], [3]).shape
    ((1, 65), (1, 1, 65))
    """

    def __init__(self, model: Any, batch: int, capacity: int, *, window: int | None = None, cache_dtype: str = "f32",
                 threads: int | None = None) -> None:
        if batch < 1 or capacity < 2:
            raise OpError(f"Decoder(batch={batch}, capacity={capacity}): expected at least one sequence, and 2 tokens")
        self.batch, self.capacity, self.threads = batch, capacity, threads
        self.options = {"window": window, "cache_dtype": cache_dtype}
        traced = _traced(model, batch, capacity)
        given = [value for value in traced.graph.inputs if value in traced.graph.bound]
        self._owners = dict(zip(given, traced.captured, strict=True))
        self.graph = traced.graph.with_(bound={v: lend(owner.payload) for v, owner in self._owners.items()})
        self._flow = InsertKVCache.follow(self.graph, *_shorter(model, batch, capacity))
        self._programs: dict[tuple[int, bool, bool], _Program] = {}
        one = InsertKVCache(1, **self.options).extend(self._flow)  # type: ignore[arg-type]
        kept = [one.inputs[place].type for _, place in sorted(one.donated.items())]
        self.caches = [np.zeros(t.shape, t.dtype.np) for t in kept]
        self._filled = 0  # no row of a cache behind this one has been written

    def __repr__(self) -> str:
        size = sum(cache.nbytes for cache in self.caches)
        return (f"<Decoder of {self.graph.name}: {self.batch} sequences of {self.capacity} tokens, {len(self.caches)} "
                f"caches, {size:,} bytes; {len(self._programs)} programs>")

    def extend(self, tokens: Any, positions: Any, *, lengths: Any = None, last: bool = False) -> np.ndarray:
        """The logits of new tokens, (batch, new, vocabulary), which are remembered.

        Args:
            tokens: (batch, new) integers; shorter ones are padded on the right, with any token.
            positions: (batch,): how many tokens of each sequence are before these.
            lengths: (batch,): how many of its new tokens are a sequence's own; by default all.
            last: give the logits of each sequence's last own token only, (batch, vocabulary).
        Raises:
            ShapeError: a sequence would be longer than the capacity; or the shapes are others.
            IndexError: a token is none of the vocabulary.
        """
        new, begin, own = self._checked(tokens, positions, lengths)
        pieces = self._pieces(new.shape[1], furthest := max(begin.tolist()))
        found: list[np.ndarray] = []
        for at, size, steps in pieces:
            part = new[:, at:at + size]
            if size < steps:
                part = np.concatenate([part, np.repeat(part[:, -1:], steps - size, 1)], 1)
            final = np.clip(own - 1 - at, 0, size - 1) if last and steps > 1 else None
            logits = self._run(np.ascontiguousarray(part), begin + at if at else begin, final)
            found.append(logits if final is not None or size == steps else logits[:, :size])
            self._filled = max(self._filled, furthest + at + steps)
        if not last:
            return found[0] if len(found) == 1 else np.concatenate(found, 1)
        which = np.searchsorted([at for at, _, _ in pieces], own - 1, "right") - 1
        return np.stack([found[n][row, -1] for row, n in enumerate(which)])

    def reset(self) -> None:
        """Forget all tokens."""
        for cache in self.caches:
            cache.fill(0)
        self._filled = 0

    def reorder(self, rows: Any) -> None:
        """Have sequence b go on from what sequence rows[b] has read: for beams.

        Raises:
            ShapeError: not one number of a sequence for each.
        """
        rows = np.asarray(rows)
        if rows.shape != (self.batch,) or rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < self.batch)).all():
            raise ShapeError(f"reorder({rows}): expected {self.batch} numbers of sequences, 0 … {self.batch - 1}")
        for cache in self.caches:
            cache[:, :self._filled] = cache[rows, :self._filled]

    # -- running -------------------------------------------------------------------------------------------------------

    def _checked(self, tokens: Any, positions: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        new, begin = _integers(tokens), _integers(positions)
        if new.ndim != 2 or new.shape[0] != self.batch or not new.shape[1] or begin.shape != (self.batch,):
            raise ShapeError(f"extend(tokens {new.shape}, positions {begin.shape}): expected ({self.batch}, new) "
                             f"tokens, one or more, and ({self.batch},) positions")
        count, places = new.shape[1], begin.tolist()
        if min(places) < 0 or max(places) + count > self.capacity:
            raise ShapeError(f"extend: {count} new tokens at positions {places} do not fit a capacity of "
                             f"{self.capacity}; make the Decoder with a greater one, or begin again with fewer tokens")
        if lengths is None:
            return new, begin, np.full(self.batch, count)
        own = _integers(lengths)
        if own.shape != (self.batch,) or own.min() < 1 or own.max() > count:
            raise ShapeError(f"extend(lengths={own.tolist()}): expected {self.batch} numbers, 1 … {count}")
        return new, begin, own

    def _pieces(self, count: int, begin: int) -> list[tuple[int, int, int]]:
        """New tokens cut into (first, how many, steps of the program that takes them): steps are powers of two, so that
        there are few programs; one piece, unless its padding would not fit."""
        found, at = [], 0
        while at < count:
            steps = 1 << (count - at - 1).bit_length()
            if begin + at + steps > self.capacity:
                steps = 1 << ((count - at).bit_length() - 1)
            size = min(steps, count - at)
            found.append((at, size, steps))
            at += size
        return found

    def _run(self, tokens: np.ndarray, positions: np.ndarray, last: np.ndarray | None) -> np.ndarray:
        steps = tokens.shape[1]
        key = steps, last is not None, steps >= MANY and not positions.any()
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = self._make(*key)
        given = [tokens, positions] if last is None else [tokens, positions, last]
        return program.run([*given, *self.caches])

    def _make(self, steps: int, last: bool, prefill: bool) -> _Program:
        graph = InsertKVCache(steps, last, prefill, **self.options).extend(self._flow)  # type: ignore[arg-type]
        known = [p.preparation for p in self._programs.values() if p.preparation is not None]
        return _Program(graph, self._owners, self.threads, known)


@dataclass(eq=False)
class _Program:
    """The compiled graph of so many new tokens."""

    graph: Graph
    owners: dict[Value, Any]
    threads: int | None
    known: list[Preparation]
    # The bound arrays of the latest call (weakly), and where they lie.
    held: tuple[list[Any], list[int]] = field(default_factory=lambda: ([], []))

    def __post_init__(self) -> None:
        from tinytorch.runtime.frame import address_of  # heavy: not at import
        from tinytorch.runtime.program import Program

        lowered = lower(Pipeline(*PIPELINES["infer"]), self.graph, self.owners, self.threads, self.known)
        self.preparation, self.history = lowered.preparation, lowered.history
        if self.preparation is not None:
            self.preparation.build()
        self.program = Program(lowered.graph, plan_memory(lowered.graph), self.threads)
        owners = {**self.owners, **lowered.prepared}
        self.read = [owners.get(v, Tensor(array)) for v, array in lowered.graph.bound.items()]
        self.address_of = address_of

    def run(self, given: list[np.ndarray]) -> np.ndarray:
        """The logits of these tokens, positions and caches, which are overwritten."""
        if self.preparation is not None:
            self.preparation.refresh()
        bound = [owner.payload for owner in self.read]
        known, addresses = self.held
        if len(known) != len(bound) or not all(map(operator.is_, bound, map(operator.call, known))):
            bound = [np.ascontiguousarray(array) for array in bound]
            addresses = list(map(self.address_of, bound))
            self.held = list(map(weakref.ref, bound)), addresses
        arrays = [*given, *bound]
        logits: np.ndarray = self.program.run(arrays, [*map(self.address_of, given), *addresses])[0]
        return logits


def _traced(model: Any, batch: int, capacity: int) -> Trace:
    """The model's graph in evaluation mode."""
    found = Surroundings(model)
    modes = [(module, module.training) for module in found.all_modules()]
    try:
        for module, _ in modes:
            module.training = False
        with no_grad():
            return trace_function(model, (tensor(np.zeros((batch, capacity), np.int64)),), handle=Tensor,
                                  names=found.names())
    finally:
        for module, mode in modes:
            module.training = mode


def _shorter(model: Any, batch: int, capacity: int) -> list[Graph]:
    """The model's graphs for two lengths that are short; none if it takes none but long ones."""
    lengths = [length for length in (4, 5) if length <= capacity]
    try:
        return [_traced(model, batch, length).graph for length in lengths] if len(lengths) == 2 else []
    except TinyTorchError:
        return []


def _integers(given: Any) -> np.ndarray:
    array = given.numpy() if isinstance(given, Tensor) else np.asarray(given)
    if array.dtype.kind not in "iu":
        raise OpError(f"extend: got {array.dtype} {array.shape}, expected integers: tokens, positions, lengths")
    return np.ascontiguousarray(array, np.int64)
