"""What an emitter gives: a kernel's source, the words of its argument table, and how its work divides."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .build import KernelSource


@dataclass(frozen=True)
class Ref:
    """A word that will hold an address: of operand or result `number` of the node, `elements` further on."""

    place: str  # "input" or "output"
    number: int
    elements: int = 0


@dataclass(frozen=True)
class Scratch:
    """A word that will hold the address of the workers' scratch memory."""


class ScratchStride(int):
    """A word: how far one worker's scratch memory is from the next one's; a program may widen it.

    A launch that has it can run beside others that use scratch memory too.
    """


@dataclass(frozen=True)
class Status:
    """A word that will hold the address where a kernel reports a position out of range."""


SCRATCH, STATUS = Scratch(), Status()
Word = int | Ref | Scratch | Status


@dataclass(frozen=True)
class Launch:
    """One step of a program: run `source` over `extent` work items in `chunks` parts."""

    source: KernelSource
    words: tuple[Word, ...]
    extent: int
    chunks: int
    scratch_bytes: int = 0  # for each worker


@dataclass
class ArgumentTable:
    """The words of a launch as they are collected, and the lines of kernel text that read them."""

    first: int = 0  # the index of the first word in the kernel's table
    words: list[Word] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def integer(self, name: str, word: Word) -> None:
        """`name` is an extent, a stride, or an integer constant."""
        self.add(name, word, "integer(args, {})")

    def pointer(self, name: str, word: Word) -> None:
        """`name` is an address."""
        self.add(name, word, "pointer(args, {})")

    def add(self, name: str, word: Word, read: str) -> None:
        """`name` is what the text `read` gives, `{}` in it being the index of the word."""
        self.lines.append(f"{name} = {read.format(self.first + len(self.words))}")
        self.words.append(word)


def float_word(value: float) -> int:
    """The bits of a float as the integer of a table; kernels read it with `load_f64(args, k, …)`."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


GRAIN = 1 << 13  # simple element operations: one or two microseconds, so that claiming a chunk costs a tenth or less


def chunks_for(work: int, extent: int, threads: int) -> int:
    """Into how many parts to cut a step of `work` element operations.

    Sizes and thread count fix it, so that results are fixed too.
    """
    if threads == 1 or work < 2 * GRAIN:
        return 1
    return max(1, min(extent, 4 * threads, work // GRAIN))
