"""One id for each character: `CharTokenizer.train(text)`, the tokeniser of small language models.

The ids follow the order of the code points, so the same set of characters always gives the same ids.

    >>> from tinytorch.text import CharTokenizer
    >>> tokenizer = CharTokenizer.train("hello world")
    >>> tokenizer.vocab_size, tokenizer.encode("hold").tolist()
    (8, [3, 5, 4, 1])
    >>> tokenizer.decode([3, 2, 4, 5])
    'helo'
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import FormatError, OpError

from .files import agree, frame, member, model_of, names_of
from .tokenizer import Ids, Tokenizer, as_text, as_texts

_UNKNOWN = -1
_EACH = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}


class CharTokenizer(Tokenizer):
    """Characters (Unicode code points) as tokens. `chars` are given in the order of their ids.

    A character that is none of them is an error that names it, or becomes `unk` where that is given: a token of any
    length, such as "<unk>", which gets the last id unless it is already among `chars`. `decode(encode(s)) == s` for
    every string whose characters are all known. Raises OpError for what is not a set of single characters.

    >>> tokenizer = CharTokenizer("abc", unk="?")
    >>> tokenizer.encode("cab!").tolist(), tokenizer.decode(tokenizer.encode("cab!"))
    ([2, 0, 1, 3], 'cab?')
    """

    def __init__(self, chars: Sequence[str], *, unk: str | None = None) -> None:
        names = [*chars, *([unk] if unk is not None and unk not in chars else [])]
        if unk is not None:
            _check_unk(unk)
        wrong = [name for name in names if len(name) != 1 and name != unk]
        if wrong:
            raise OpError(f"CharTokenizer: {wrong[0]!r} is not one character; only unk may be longer or shorter")
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise OpError(f"CharTokenizer: {twice!r} is there twice; expected each character once")
        super().__init__(names)
        self.unk = unk
        self._table = self._ids_by_code_point()

    def __repr__(self) -> str:
        return f"CharTokenizer(vocab_size={self.vocab_size}, unk={self.unk!r})"

    @classmethod
    def train(cls, texts: str | Iterable[str], *, unk: str | None = None) -> Self:
        """The tokeniser of all characters that occur in a text or in several.

        >>> CharTokenizer.train(["ab", "bc"])
        CharTokenizer(vocab_size=3, unk=None)
        """
        return cls(sorted({char for text in as_texts(texts) for char in set(as_text(text))}), unk=unk)

    def encode(self, text: str, *, dtype: npt.DTypeLike = np.int32) -> Ids:
        """The ids of a text: an array (len(text),).

        `dtype` is any NumPy integer type that holds the vocabulary: np.uint8 or np.uint16 make a corpus small on disk.
        Raises FormatError naming the first unknown character and its position, unless there is `unk`.

        >>> CharTokenizer("ab").encode("abba", dtype=np.uint8)
        array([0, 1, 1, 0], dtype=uint8)
        """
        codes = np.frombuffer(as_text(text).encode("utf-32-le", "surrogatepass"), "<u4")
        ids = self._table[np.minimum(codes, len(self._table) - 1)]
        unknown = np.flatnonzero(ids == _UNKNOWN)
        if unknown.size:
            self._refuse(text, int(unknown[0]))
        return self._array(ids, dtype)

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ids, (n,) integers: an array, a list or a tensor.

        Raises IndexError for an id that is not in the vocabulary, ShapeError and DTypeError for what are no ids.

        >>> CharTokenizer("ab").decode([1, 0, 1])
        'bab'
        """
        return "".join(map(self._names.__getitem__, self._checked(ids).tolist()))

    def _ids_by_code_point(self) -> npt.NDArray[np.int32]:
        """The id of each code point up to one behind the last known; that last entry stands for all that follow."""
        codes = {ord(name): i for i, name in enumerate(self._names) if len(name) == 1}
        unknown = _UNKNOWN if self.unk is None else self._id_of[self.unk]
        table = np.full(max(codes, default=-1) + 2, unknown, np.int32)
        table[list(codes)] = list(codes.values())
        return table

    def _refuse(self, text: str, position: int) -> None:
        char = text[position]
        name = unicodedata.name(char, "without a name")
        raise FormatError(
            f"encode: the character {char!r} (U+{ord(char):04X}, {name}) at position {position:,} is not one of the "
            f"{self.vocab_size:,} in the vocabulary; train on text that has it, or with unk='<unk>'"
        )

    def _document(self) -> dict[str, Any]:
        # A WordLevel model needs an unk_token; one that is not in the vocabulary makes unknown characters an error.
        model = {"type": "WordLevel", "vocab": self._id_of, "unk_token": self.unk or ""}
        return frame(model, pre_tokenizer=_EACH, decoder={"type": "Fuse"})

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Self:
        model = model_of(document, "WordLevel")
        agree(document, {"added_tokens": ([], None), "pre_tokenizer": (_EACH,), "post_processor": (None,)})
        names, unk = names_of(member(model, "vocab", dict)), member(model, "unk_token", str)
        return cls(names, unk=unk if unk in names else None)


def _check_unk(unk: str) -> None:
    if not unk or any("\ud800" <= char <= "\udfff" for char in unk):
        raise OpError(f"CharTokenizer(unk={unk!r}): expected a text to stand for unknown characters, such as '<unk>'")
