"""A sequence that grows token by token: its text as it comes, and when it is at its end.

Text is given out as soon as it is certain: not while a character has only some of its bytes, nor while it may be the
beginning of a text at which to stop.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any

import numpy as np

from .request import Request

CONTEXT, LONG = 8, 32  # tokens that are decoded again with each new one: at least, and at most
BROKEN = "\ufffd"      # what bytes decode to that are no character, or not yet


@dataclass(frozen=True, slots=True)
class Token:
    """One new token.

    Attributes:
        sequence: the number of the sequence; token: its id, None for text that was held back until the end.
        text: what is to be shown now; "" without a tokeniser.
        logprob: what the model gave it, ln p; None if it was not asked for.

    >>> import tinytorch as tt
    >>> model = tt.nn.GPT(tt.nn.GPTConfig(vocab_size=9, block_size=16, n_layer=1, n_head=1, n_embd=8))
    >>> [(new.sequence, new.text) for new in tt.stream(model, [1, 2, 3], max_new_tokens=2, seed=0)]
    [(0, ''), (0, '')]
    """

    sequence: int
    token: int | None
    text: str
    logprob: float | None = None


class Detokenizer:
    """Text from tokens, one at a time: `add` gives what is new and whole.

    >>> from tinytorch import text
    >>> from tinytorch.generate.sequence import Detokenizer
    >>> tokenizer = text.BPETokenizer.train("", vocab_size=256)
    >>> words = Detokenizer(tokenizer, [])
    >>> [words.add(token) for token in tokenizer.encode("né")]
    ['n', '', 'é']
    """

    def __init__(self, tokenizer: Any, context: Several[int]) -> None:
        self.tokenizer, self.ids, self.waiting = tokenizer, list(context[-CONTEXT:]), 0
        self.shown = self._text()

    def add(self, token: int) -> str:
        """The text that a token adds, with what was waiting for it."""
        self.ids.append(int(token))
        text = self._text()
        self.waiting += 1
        if text.endswith(BROKEN) and self.waiting < 4:  # no character has more bytes
            return ""
        return self._show(text)

    def rest(self) -> str:
        """What is still waiting, at the end."""
        return self._show(self._text())

    def _show(self, text: str) -> str:
        new = text[len(self.shown):]
        self.shown, self.waiting = text, 0
        if len(self.ids) > LONG:
            self.ids = self.ids[-CONTEXT:]
            self.shown = self._text()
        return new

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids)) if self.ids else ""


class Sequence:
    """The new tokens of one prompt.

    Attributes:
        prompt, tokens: what was given, and what is new.
        reason: why it ended, "stop" or "length"; None as long as it has not.
    """

    def __init__(self, number: int, prompt: np.ndarray, request: Request) -> None:
        self.number, self.prompt, self.request = number, prompt, request
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.reason: str | None = None
        self.text = self.held = ""
        self.words = Detokenizer(request.tokenizer, prompt.tolist()) if request.tokenizer is not None else None

    def __len__(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.tokens)

    def context(self) -> np.ndarray:
        """All tokens."""
        return np.concatenate([self.prompt, np.array(self.tokens, np.int64)])

    def push(self, token: int, logprob: float | None = None) -> list[Token]:
        """Take one more token; what is to be given out."""
        if token in self.request.stop_tokens:
            return self._end("stop")
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        text = self._released(self.words.add(token)) if self.words is not None else ""
        found = [Token(self.number, token, text, logprob)]
        if self.reason is None and len(self.tokens) >= self.request.most:
            found += self._end("length")
        return found

    def _end(self, reason: str) -> list[Token]:
        self.reason = reason
        rest = self._released(self.words.rest()) if self.words is not None else ""
        if self.held and not any(stop in self.held for stop in self.request.stop_texts):
            rest, self.text = rest + self.held, self.text + self.held
        return [Token(self.number, None, rest)] if rest else []

    def _released(self, text: str) -> str:
        """Of the text held back and this, what is certain to be shown."""
        self.held += text
        ends = [at for at in map(self.held.find, self.request.stop_texts) if at >= 0]
        if ends:
            self.reason = "stop"
            shown = self.held[:min(ends)]
        else:
            shown = self.held[:len(self.held) - self._doubtful()]
            self.held = self.held[len(shown):]
        self.text += shown
        return shown

    def _doubtful(self) -> int:
        """How many of the last characters may begin a text at which to stop."""
        return max((n for stop in self.request.stop_texts for n in range(1, len(stop)) if self.held.endswith(stop[:n])),
                   default=0)
