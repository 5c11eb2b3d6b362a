"""Small texts that ship with the package: plays of Shakespeare, first names, questions with answers.

    >>> from tinytorch import data
    >>> data.tinyshakespeare()[:14]
    'First Citizen:'
    >>> data.names()[:3]
    ['emma', 'olivia', 'ava']
    >>> data.tinytalks()[0]
    ('Where do you watch movies?', 'You watch movies at a theater or at home.')

`small/LICENSE.md` tells where each comes from and under which terms it is passed on.
"""

import gzip
from typing import Literal

from .files import SMALL


def tinyshakespeare() -> str:
    """40,000 lines of Shakespeare's plays: 1,115,394 characters, of which 65 are distinct. Public domain.

    Split by hand, as in the recipes that published losses come from: the first 90 % to train, the rest to validate.
    Source: Andrej Karpathy: The Unreasonable Effectiveness of Recurrent Neural Networks (2015), and char-rnn.

        >>> text = tinyshakespeare()
        >>> len(text), len(set(text))
        (1115394, 65)
    """
    return _read("tinyshakespeare.txt")


def names() -> list[str]:
    """The 32,033 most frequent first names in the USA, girls' then boys', in lower-case letters a to z.

    2,539 stand in both lists: split `sorted(set(names()))`, if what is held out shall not have been learned.

    Source: Andrej Karpathy's makemore (MIT licence), from the Social Security Administration's counts for 2018.

        >>> len(names()), max(names(), key=len)
        (32033, 'muhammadibrahim')
    """
    return _read("names.txt").split()


def tinytalks(split: Literal["train", "val", "test"] = "train") -> list[tuple[str, str]]:
    """Simple questions with their answers, as pairs. By the TinyTorch contributors, CC BY 4.0.

    Raises `ValueError` for another split than these three.

        >>> [len(tinytalks(split)) for split in ("train", "val", "test")]
        [210, 45, 46]
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"tinytalks: there is no split {split!r}; it is 'train', 'val' or 'test'")
    talks = _read(f"tinytalks-{split}.txt").strip().split("\n\n")
    return [(q.removeprefix("Q: "), a.removeprefix("A: ")) for q, a in (talk.split("\n", 1) for talk in talks)]


def _read(name: str) -> str:
    return gzip.decompress((SMALL / f"{name}.gz").read_bytes()).decode()
