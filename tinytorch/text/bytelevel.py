"""Bytes as text, text as bytes, and text in pre-tokens: what byte-level BPE stands on.

    >>> from tinytorch.text.bytelevel import GPT2_PATTERN, shown, splitter
    >>> splitter(GPT2_PATTERN)("I've 2 cats!")
    ['I', "'ve", ' 2', ' cats', '!']
    >>> shown(" é".encode())                              # a space and the two bytes of é
    'ĠÃ©'

GPT-2 writes a token, which is a string of bytes, with one printable character a byte: 188 bytes stand for themselves
(as in Latin-1), the other 68 are given the characters from U+0100 on. So a vocabulary is a text file without blanks.
"""

import codecs
from collections.abc import Callable
from functools import cache
from typing import Any

from tinytorch.ir.errors import OpError

# Contractions, words, numbers and runs of other signs, each with the space before it; then blanks, whose last one is
# left to what follows. Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]

# In the order of their characters, which is the order of their ids in GPT-2 and after training.
BYTES = [*_PRINTABLE, *_OTHERS]
_CHAR = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}
_BYTE = {char: byte for byte, char in _CHAR.items()}


def shown(token: bytes) -> str:
    """A token as GPT-2's files write it: one printable character a byte."""
    return "".join(map(_CHAR.__getitem__, token))


def unshown(name: str) -> bytes | None:
    """The bytes of a token from its name in a file, or None for what is no such name."""
    found = [_BYTE.get(char, -1) for char in name]
    return None if -1 in found else bytes(found)


def to_bytes(text: str) -> bytes:
    """A text as UTF-8; a lone surrogate, which UTF-8 has no place for, as the three bytes its number would give."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """The text of UTF-8: `to_text(to_bytes(s)) == s` for every string; what is none becomes U+FFFD."""
    return data.decode("utf-8", _lenient())


@cache
def _lenient() -> str:
    """The name of an error handler for UTF-8: surrogates as `to_bytes` writes them, U+FFFD for anything else."""
    surrogatepass: Callable[[UnicodeError], tuple[str | bytes, int]] = codecs.lookup_error("surrogatepass")

    def handler(error: UnicodeError) -> tuple[str | bytes, int]:
        try:
            return surrogatepass(error)
        except UnicodeError:
            return codecs.replace_errors(error)

    codecs.register_error("tinytorch.surrogatepass-or-replace", handler)
    return "tinytorch.surrogatepass-or-replace"


def splitter(pattern: str) -> Callable[[str], list[str]]:
    """The function that cuts a text into pre-tokens: what the pattern matches, and what lies between two matches.

    The parts always join to the text again. Raises OpError for a pattern that is no regular expression.
    """
    compiled = compiled_pattern(pattern)

    def split(text: str) -> list[str]:
        parts: list[str] = compiled.findall(text) if not compiled.groups else []
        # A pattern that leaves nothing out, as GPT-2's, is done here; the loop below would be three times slower.
        return parts if sum(map(len, parts)) == len(text) and "" not in parts else _with_gaps(compiled, text)

    return split


def compiled_pattern(pattern: str) -> Any:
    """A pattern of the `regex` library, which knows the classes \\p{L} and \\p{N} that the standard one lacks."""
    import regex

    try:
        return regex.compile(pattern)
    except (regex.error, TypeError) as error:
        raise OpError(f"pattern={pattern!r} is no regular expression ({error}); GPT2_PATTERN is one") from None


def _with_gaps(compiled: Any, text: str) -> list[str]:
    parts, end = [], 0
    for match in compiled.finditer(text):
        parts += [text[end : match.start()], match[0]]
        end = match.end()
    return [part for part in (*parts, text[end:]) if part]
