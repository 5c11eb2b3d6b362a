"""What all tokenisers share: a vocabulary, ids in and out as arrays, and a file.

    >>> from tinytorch.text import CharTokenizer
    >>> tokenizer = CharTokenizer.train("abc")
    >>> tokenizer.vocab_size, tokenizer.id_to_token(1), tokenizer.token_to_id("c")
    (3, 'b', 2)
    >>> [ids.tolist() for ids in tokenizer.encode_batch(["cab", ""])]
    [[2, 0, 1], []]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import DTypeError, FormatError, OpError, ShapeError

from .files import explained, read_json, write_json

Ids = npt.NDArray[np.integer[Any]]


class Tokenizer(ABC):
    """A vocabulary, and the way from text to its ids and back; `CharTokenizer` and `BPETokenizer` are its kinds.

    >>> from tinytorch.text import BPETokenizer, CharTokenizer, Tokenizer
    >>> issubclass(CharTokenizer, Tokenizer) and issubclass(BPETokenizer, Tokenizer)
    True
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)  # the name of each token, by id
        self._id_of = {name: i for i, name in enumerate(names)}

    @property
    def vocab_size(self) -> int:
        """The number of tokens: ids are 0 … vocab_size - 1."""
        return len(self._names)

    def id_to_token(self, id: int) -> str:
        """The name of a token, as its file has it. Raises IndexError for an id that is none."""
        return self._names[int(self._checked([id])[0])]

    def token_to_id(self, token: str) -> int:
        """The id of a token, by the name that `id_to_token` gives. Raises FormatError where there is no such token."""
        if token not in self._id_of:
            raise FormatError(f"token_to_id({token!r}): there is no such token among {self.vocab_size:,}; encode(text) "
                              "splits a text into those that there are")  # fmt: skip
        return self._id_of[token]

    @abstractmethod
    def encode(self, text: str, *, dtype: npt.DTypeLike = np.int32) -> Ids:
        """The ids of a text."""

    @abstractmethod
    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ids, (n,) integers."""

    def encode_batch(self, texts: Iterable[str], **options: Any) -> list[Ids]:
        """The ids of each text, as a list of arrays of their own lengths; `options` are those of `encode`."""
        if isinstance(texts, str):
            raise OpError("encode_batch(text): expected several texts; encode(text) takes one")
        return [self.encode(text, **options) for text in texts]

    def save(self, path: str | Path) -> None:
        """Write the tokeniser as JSON that the `tokenizers` library loads too; a failed write leaves the old file.

        Raises OSError where it cannot be written.
        """
        write_json(Path(path), self._document())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save`, or the `tokenizers` library, wrote. Nothing in the file is executed.

        Raises FormatError for a file that is damaged or holds another kind of tokeniser, OSError where there is none.

        >>> from tinytorch.text import CharTokenizer
        >>> CharTokenizer.train("abc").save("letters.json")
        >>> CharTokenizer.load("letters.json")
        CharTokenizer(vocab_size=3, unk=None)
        """
        with explained(Path(path)):
            return cls._from_document(read_json(Path(path)))

    @abstractmethod
    def _document(self) -> dict[str, Any]:
        """What `save` writes."""

    @classmethod
    @abstractmethod
    def _from_document(cls, document: dict[str, Any]) -> Self:
        """The tokeniser that `_document` describes."""

    def _array(self, ids: Sequence[int] | Ids, dtype: npt.DTypeLike) -> Ids:
        """Ids as an array of a type that can hold the whole vocabulary."""
        kind = np.dtype(dtype)
        if kind.kind not in "iu" or np.iinfo(kind).max < self.vocab_size - 1:
            raise DTypeError(f"encode(dtype={kind}): it cannot hold the ids 0 … {self.vocab_size - 1}; np.int32 can")
        return np.asarray(ids, kind)

    def _checked(self, ids: npt.ArrayLike) -> Ids:
        """Ids from outside as an array (n,) of integers, each of them in the vocabulary."""
        array = np.asarray(ids)
        if array.ndim != 1:
            raise ShapeError(f"ids of shape {array.shape}: expected (n,), the ids of one text; decode row by row")
        if not array.size:
            return array.astype(np.int32)
        if array.dtype.kind not in "iu":
            raise DTypeError(f"ids of dtype {array.dtype}: expected integers, e.g. what argmax gives")
        wrong = np.flatnonzero((array < 0) | (array >= self.vocab_size))
        if wrong.size:
            raise IndexError(f"id {array[wrong[0]]} at position {wrong[0]} is not one of the {self.vocab_size:,} ids "
                             f"0 … {self.vocab_size - 1} of this vocabulary")  # fmt: skip
        return array


def as_text(text: object) -> str:
    """`text`, if it is a string. Raises OpError, a TypeError, otherwise."""
    if not isinstance(text, str):
        raise OpError(f"expected a string, got a {type(text).__name__}; bytes become text with .decode('utf-8')")
    return text


def as_texts(texts: str | Iterable[str]) -> Iterable[str]:
    """Several texts; one string is one text, not many of one character."""
    return [texts] if isinstance(texts, str) else texts
