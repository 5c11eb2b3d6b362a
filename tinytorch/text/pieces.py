"""Pieces with scores, as SentencePiece's BPE has them: Llama's way to make tokens.

    >>> from tinytorch.text import PieceTokenizer
    >>> special = [(b"<unk>", 0.0), (b"<s>", 0.0), (b"</s>", 0.0)]
    >>> every = [(f"<0x{n:02X}>".encode(), 0.0) for n in range(256)]
    >>> some = [(b" ", -3.0), (b"b", -4.0), (b"e", -5.0), (b"be", -1.0), (b" be", -2.0)]
    >>> tokenizer = PieceTokenizer([*special, *every, *some])
    >>> tokenizer.encode("be é").tolist(), tokenizer.decode(tokenizer.encode("be é"))
    ([263, 259, 198, 172], 'be é')

Text is split into characters, and of all neighbours that make a piece together, those with the best score are joined,
again and again (Kudo and Richardson, "SentencePiece", 2018). A character that is no piece becomes its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinytorch.ir.errors import FormatError

from .tokenizer import Ids, Tokenizer, as_text

FIRST_BYTE = 3  # after <unk>, <s> and </s> come the 256 bytes


class PieceTokenizer(Tokenizer):
    """Tokens by scores; ids 1 and 2 begin and end a text, and stand for no text themselves.

    Args:
        pieces: the bytes and the score of each token: <unk>, <s>, </s>, then <0x00> … <0xFF>, then all others.
    Raises:
        FormatError: the pieces do not begin so.

    >>> from tinytorch.text import PieceTokenizer
    >>> PieceTokenizer([(b"a", 0.0)])
    Traceback (most recent call last):
    tinytorch.ir.errors.FormatError: piece 3 is no byte: expected <unk>, <s>, </s>, <0x00> … <0xFF>, then pieces
    """

    bos, eos = 1, 2

    def __init__(self, pieces: Sequence[tuple[bytes, float]]) -> None:
        for n in range(256):
            if pieces[FIRST_BYTE + n:FIRST_BYTE + n + 1] == [] or pieces[FIRST_BYTE + n][0] != f"<0x{n:02X}>".encode():
                raise FormatError(f"piece {FIRST_BYTE + n} is no byte: expected <unk>, <s>, </s>, <0x00> … <0xFF>, "
                                  "then pieces")
        super().__init__([piece.decode("utf-8", "replace") for piece, _ in pieces])
        special = [b""] * FIRST_BYTE
        self._bytes = special + [bytes([n]) for n in range(256)] + [piece for piece, _ in pieces[FIRST_BYTE + 256:]]
        self._scores = [score for _, score in pieces]
        self._place: dict[bytes, int] = {}
        for number in range(FIRST_BYTE + 256, len(pieces)):
            self._place.setdefault(self._bytes[number], number)

    def encode(self, text: str, *, dtype: npt.DTypeLike = np.int32) -> Ids:
        """The ids of a text, without those that begin and end it."""
        ids: list[int] = []
        for character in " " + as_text(text) if text else "":
            piece = character.encode()
            ids += [self._place[piece]] if piece in self._place else [FIRST_BYTE + n for n in piece]
        while True:
            joined = [self._place.get(self._bytes[a] + self._bytes[b]) for a, b in pairwise(ids)]
            scores = [(-self._scores[n], at) for at, n in enumerate(joined) if n is not None]
            if not scores:
                return self._array(ids, dtype)
            _, at = min(scores)  # the best, and of several the first
            ids[at:at + 2] = [joined[at]]  # type: ignore[list-item]

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ids (n,); bytes that are no UTF-8 become U+FFFD."""
        text = b"".join(self._bytes[i] for i in self._checked(ids).tolist())
        return text.removeprefix(b" ").decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"PieceTokenizer(vocab_size={self.vocab_size})"

    def _document(self) -> dict[str, Any]:
        raise FormatError("save: pieces with scores have a format of their own, which is read but not written here")

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Self:
        raise FormatError("load: read the pieces with frontends.llama2c.read_vocabulary")
