"""Text as numbers and back: a tokeniser of characters, and byte-level byte-pair encoding (BPE) as in GPT-2.

    >>> from tinytorch import text
    >>> letters = text.CharTokenizer.train("to be or not to be")
    >>> letters.encode("not").tolist(), letters.decode([1, 2, 0, 4])
    ([3, 4, 6], 'be o')
    >>> pieces = text.BPETokenizer.train("to be or not to be", vocab_size=260)
    >>> [pieces.id_to_token(i) for i in pieces.encode("to be, or not")]    # Ġ stands for the space
    ['to', 'Ġbe', ',', 'Ġ', 'o', 'r', 'Ġ', 'n', 'o', 't']
    >>> pieces.decode(pieces.encode("naïve 東京 🙂"))                       # any text, seen in training or not
    'naïve 東京 🙂'

Both save and load the JSON format of the `tokenizers` library, and `BPETokenizer.from_gpt2` reads GPT-2's own files.
"""

from .bpe import BPETokenizer
from .bytelevel import GPT2_PATTERN
from .char import CharTokenizer
from .pieces import PieceTokenizer
from .tokenizer import Tokenizer

__all__ = ["GPT2_PATTERN", "BPETokenizer", "CharTokenizer", "PieceTokenizer", "Tokenizer"]
