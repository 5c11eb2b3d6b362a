"""Byte-level byte-pair encoding: `BPETokenizer.train(texts, vocab_size)`, or GPT-2's with `BPETokenizer.from_gpt2`.

A text is cut into pre-tokens (words, numbers, blanks) by a pattern; each is a string of UTF-8 bytes; merges join bytes
to longer and longer tokens, never across two pre-tokens. All 256 bytes are tokens themselves, so no text is unknown.

    >>> from tinytorch.text import BPETokenizer
    >>> corpus = "low lower lowest, new newer newest " * 10
    >>> tokenizer = BPETokenizer.train(corpus, vocab_size=270, special_tokens=["<|end|>"])
    >>> tokenizer
    BPETokenizer(vocab_size=270, special_tokens=('<|end|>',))
    >>> tokenizer.merges[:3]
    ((b'w', b'e'), (b'l', b'o'), (b'n', b'e'))
    >>> [tokenizer.token_bytes(i) for i in tokenizer.encode(" newest slow")]
    [b' newest', b' ', b's', b'lo', b'w']
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import FormatError, OpError

from . import formats
from .bytelevel import BYTES, GPT2_PATTERN, shown, splitter, to_bytes, to_text, unshown
from .files import explained, names_of
from .merging import Pair, apply_merges, learn_merges
from .progress import bar
from .tokenizer import Ids, Tokenizer, as_text, as_texts


class BPETokenizer(Tokenizer):
    """A byte-level BPE from its parts; `train`, `load` and `from_gpt2` are the usual ways to one.

    `vocab` maps the name of each token, as GPT-2's files write it, to its id 0 … n - 1; `merges` are pairs of names in
    the order of learning; `special_tokens` are those of the vocabulary that text never becomes by itself; `pattern`
    cuts a text into pre-tokens. Raises FormatError for parts that do not fit together.

    >>> bytes_only = {shown(bytes([byte])): byte for byte in range(256)}
    >>> tokenizer = BPETokenizer({**bytes_only, "hi": 256}, [("h", "i")])
    >>> tokenizer.encode("hi!").tolist()
    [256, 33]
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        *,
        special_tokens: Sequence[str] = (),
        pattern: str = GPT2_PATTERN,
    ) -> None:
        super().__init__(names_of(vocab))
        self.special_tokens = tuple(special_tokens)
        self.pattern = pattern
        _check_specials(self.special_tokens)
        if absent := [name for name in self.special_tokens if name not in self._id_of]:
            raise FormatError(f"the special token {absent[0]!r} is not in the vocabulary")
        self._special_set = frozenset(self.special_tokens)
        self._bytes = [self._bytes_of(name) for name in self._names]
        halves = [self._part(name, "part of a merge") for pair in merges for name in pair]
        self._merges = list(zip(halves[::2], halves[1::2]))
        made = [self._part(left + right, "what a merge makes") for left, right in self._named_merges()]
        rank = {pair: order for order, pair in enumerate(self._merges)}
        byte_ids = [self._part(shown(bytes([byte])), "one of the 256 bytes, without which some texts have no ids")
                    for byte in range(256)]  # fmt: skip
        self._cache = _Words(byte_ids, rank, made)
        self._split = splitter(pattern)
        self._specials = _any_of(self.special_tokens)

    def __repr__(self) -> str:
        return f"BPETokenizer(vocab_size={self.vocab_size}, special_tokens={self.special_tokens})"

    def __reduce__(self) -> tuple[Callable[..., BPETokenizer], tuple[Any, ...]]:
        return _rebuilt, (self._id_of, self._named_merges(), self.special_tokens, self.pattern)

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        *,
        special_tokens: Sequence[str] = (),
        pattern: str = GPT2_PATTERN,
        min_frequency: int = 2,
        progress: bool = True,
    ) -> Self:
        """Learn the merges of a text or of several.

        `vocab_size` counts everything: the special tokens, which get the first ids, the 256 bytes, and what merges
        make; there are fewer where no pair is left that occurs `min_frequency` times. Of pairs equally frequent the
        one with the smaller ids is joined first. The same texts give the same tokeniser, the one that `tokenizers`
        would train. Special tokens within the texts are left out of the count. The time goes by the number of
        distinct pre-tokens; after two seconds on a terminal a progress bar shows, unless `progress` is False.

        Raises OpError for a vocabulary too small, for a special token that is empty, there twice or one byte long.

        >>> BPETokenizer.train(["ab ab", "ab"], vocab_size=300)        # there are two pairs: a b, and the space before
        BPETokenizer(vocab_size=257, special_tokens=())
        """
        specials = tuple(special_tokens)
        _check_specials(specials)
        if vocab_size < 256 + len(specials):
            raise OpError(f"train(vocab_size={vocab_size}): expected {256 + len(specials)} at least, the 256 bytes"
                          + (f" and {len(specials)} special tokens" if specials else ""))  # fmt: skip
        counts = _count_words(texts, splitter(pattern), _any_of(specials), progress)
        tokens = [bytes([byte]) for byte in BYTES]
        reserved = {unshown(name) or b"" for name in specials}  # the files could not tell "Ġthe" from " the"
        merges = learn_merges(counts, tokens, vocab_size - len(specials), min_frequency=min_frequency,
                              reserved=reserved, progress=progress)  # fmt: skip
        names = [shown(token) for token in tokens]
        vocab = {name: i for i, name in enumerate([*specials, *names])}
        pairs = [(names[left], names[right]) for left, right in merges]
        return cls(vocab, pairs, special_tokens=specials, pattern=pattern)

    @classmethod
    def from_gpt2(
        cls,
        folder: str | Path,
        *,
        encoder: str = "encoder.json",
        merges: str = "vocab.bpe",
        special_tokens: Sequence[str] = ("<|endoftext|>",),
    ) -> Self:
        """GPT-2's tokeniser from the two files that OpenAI published: 50,257 tokens, the ids of `tiktoken`.

        `encoder` and `merges` are their names in the folder; some call them "vocab.json" and "merges.txt".
        `special_tokens` are those of the vocabulary that no merge makes. Raises FormatError for files that are damaged
        or do not fit together, OSError where there are none.

            gpt2 = BPETokenizer.from_gpt2("gpt2_bpe")
            gpt2.encode("Hello world")                   # array([15496, 995], dtype=int32)
        """
        folder = Path(folder)
        with explained(folder):
            return cls(**formats.read_gpt2(folder / encoder, folder / merges, special_tokens))

    @property
    def merges(self) -> tuple[tuple[bytes, bytes], ...]:
        """The pairs of tokens that are joined, in the order of learning."""
        return tuple((self._bytes[left], self._bytes[right]) for left, right in self._merges)

    def token_bytes(self, id: int) -> bytes:
        """The bytes of a token, which need not be whole characters. Raises IndexError for an id that is none."""
        return self._bytes[int(self._checked([id])[0])]

    def encode(self, text: str, *, allow_special: bool = False, dtype: npt.DTypeLike = np.int32) -> Ids:
        """The ids of a text: an array (n,), and `decode` gives the text back, whatever it is.

        "<|endoftext|>" within the text is a text like any other, so that nobody's text can smuggle a special token in;
        with `allow_special` it becomes that token (where several fit, the longest of those that begin first).
        `dtype` is any NumPy integer type that holds the vocabulary: np.uint16 halves what a corpus takes on disk.

        >>> tokenizer = BPETokenizer.train("", vocab_size=257, special_tokens=["<|end|>"])
        >>> len(tokenizer.encode("a<|end|>")), tokenizer.encode("a<|end|>", allow_special=True, dtype=np.uint16)
        (8, array([65,  0], dtype=uint16))
        """
        parts = self._specials.split(as_text(text)) if allow_special and self._specials else [as_text(text)]
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:  # what the pattern captures, the special tokens, stands between texts
                ids.append(self._id_of[part])
            else:
                ids.extend(chain.from_iterable(map(self._cache.__getitem__, self._split(part))))
        return self._array(ids, dtype)

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ids, (n,) integers: an array, a list or a tensor.

        Bytes that make no whole character, where ids were cut off within one, become U+FFFD.
        Raises IndexError for an id that is not in the vocabulary, ShapeError and DTypeError for what are no ids.

        >>> tokenizer = BPETokenizer.train("", vocab_size=256)
        >>> tokenizer.decode(tokenizer.encode("né")), tokenizer.decode(tokenizer.encode("né")[:-1])
        ('né', 'n\ufffd')
        """
        return to_text(self.decode_bytes(ids))

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """The bytes of ids: for text that comes token by token, where a character may be cut between two.

        >>> tokenizer = BPETokenizer.train("", vocab_size=256)
        >>> tokenizer.decode_bytes(tokenizer.encode("é")[:1])
        b'\xc3'
        """
        return b"".join(map(self._bytes.__getitem__, self._checked(ids).tolist()))

    def _bytes_of(self, name: str) -> bytes:
        token = to_bytes(name) if name in self._special_set else unshown(name)
        if not token:
            raise FormatError(f"the token {name!r} is neither special nor written as GPT-2 writes bytes, "
                              "where 'Ġthe' is ' the'")  # fmt: skip
        return token

    def _part(self, name: str, of: str) -> int:
        """The id of an ordinary token by its name."""
        if name in self._special_set or name not in self._id_of:
            what = "a special token" if name in self._special_set else "not in the vocabulary"
            raise FormatError(f"{name!r} is {what}, but it is {of}")
        return self._id_of[name]

    def _named_merges(self) -> list[tuple[str, str]]:
        return [(self._names[left], self._names[right]) for left, right in self._merges]

    def _document(self) -> dict[str, Any]:
        return formats.bpe_document(self._id_of, self._named_merges(), self.special_tokens, self.pattern)

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Self:
        return cls(**formats.bpe_parts(document))


class _Words(dict[str, list[int]]):
    """The ids of each pre-token, merged when it is first met; emptied when it holds too many."""

    def __init__(self, byte_ids: Sequence[int], rank: Mapping[Pair, int], made: Sequence[int]) -> None:
        self.byte_ids, self.rank, self.made = byte_ids, rank, made

    def __missing__(self, word: str) -> list[int]:
        ids = apply_merges([self.byte_ids[byte] for byte in to_bytes(word)], self.rank, self.made)
        if len(word) <= _LONGEST_WORD:
            if len(self) >= _MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids


_MOST_WORDS = 1 << 17  # of some 200 bytes each
_LONGEST_WORD = 64  # characters; what is longer hardly comes twice


def _count_words(
    texts: str | Iterable[str], split: Callable[[str], list[str]], specials: re.Pattern[str] | None, progress: bool
) -> dict[bytes, int]:
    """How often each pre-token occurs, special tokens left out, in the order in which they first occur."""
    counts: Counter[str] = Counter()
    with bar("Reading texts", None, progress) as done:
        for text in as_texts(texts):
            for part in specials.split(as_text(text))[::2] if specials else [as_text(text)]:
                counts.update(split(part))
            done(1)
    return {to_bytes(word): count for word, count in counts.items()}


def _any_of(specials: Sequence[str]) -> re.Pattern[str] | None:
    """A pattern that captures special tokens, longer ones first; None where there are none."""
    longest_first = sorted(specials, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if specials else None


def _check_specials(specials: Sequence[str]) -> None:
    """Raise OpError for special tokens that would be no token, or an ordinary one."""
    for i, name in enumerate(specials):
        if not isinstance(name, str) or not name or any("\ud800" <= char <= "\udfff" for char in name):
            raise OpError(f"the special token {name!r} is no text; expected something like '<|endoftext|>'")
        if name in specials[:i]:
            raise OpError(f"the special token {name!r} is there twice")
        if len(unshown(name) or b"") == 1:
            raise OpError(f"the special token {name!r} is the name of a byte; expected something like '<|endoftext|>'")


def _rebuilt(vocab: dict[str, int], merges: list[tuple[str, str]], specials: tuple[str, ...], pattern: str) -> Any:
    """A tokeniser from a pickle, for worker processes: without what it has cached."""
    return BPETokenizer(vocab, merges, special_tokens=specials, pattern=pattern)
