"""The memory of one call of a program at a time: arena, scratch, argument words, and the table of steps.

    frame = Frame(program)
    frame.point_to(inputs, results) # their addresses
    for run in frame.parts: run()   # all of them, one after the other
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from . import pool

if TYPE_CHECKING:
    from .program import Program

ALIGN = 64


class Frame:
    """What a call of a program needs for itself.

    Attributes:
        status: words in which kernels report a position out of range.
        parts: run the steps; each but the last must leave `status` alone for the next to run.
    """

    def __init__(self, program: Program) -> None:
        self.arena = _aligned(program.plan.size)
        self.scratch = _aligned(program.scratch_bytes)
        self.words = program.template.copy()
        self._status_memory = np.zeros(8, np.int64)
        bases = {"arena": self.arena.ctypes.data, "scratch": self.scratch.ctypes.data,
                 "status": self._status_memory.ctypes.data}
        for place, base in bases.items():
            at, _, offset = program.fixed[place]
            self.words[at] = base + offset
        self._words = (ctypes.c_int64 * len(self.words)).from_address(self.words.ctypes.data)
        words = self.words.ctypes.data
        rows = [[step.kernel.address, words + 8 * start, step.launch.extent, shares]
                for step, start, shares in zip(program.steps, program.starts, program.shares, strict=True)]
        self._table = np.array(rows, np.int64).reshape(-1, 4)
        self._at, self._which, self._beyond = program.fixed["input"]
        self._results = program.results
        self._inputs: list[int] = []
        self.status = (ctypes.c_int64 * 8).from_address(bases["status"])
        self.table_address = self._table.ctypes.data
        self._parts, self._threads, self._rouses = program.parts, program.threads, program.rouses
        self.parts = self.timed(0)

    def timed(self, times: int) -> list[Callable[[], None]]:
        """`parts` that write the nanoseconds of each step to an int64 table at the address `times`, if it is not 0."""
        return [pool.prepare(self.table_address + pool.ROW * part.start, len(part), self._threads,
                             times and times + 8 * part.start, self._rouses) for part in self._parts]

    def point_to(self, inputs: list[int], results: list[int]) -> None:
        """Let the argument words point to these inputs and fresh results."""
        if inputs != self._inputs:
            self.words[self._at] = np.array(inputs, np.int64)[self._which] + self._beyond
            self._inputs = inputs.copy()
        for at, number, offset in self._results:  # few, and new at each call
            self._words[at] = results[number] + offset


def _aligned(size: int) -> np.ndarray:
    """`size` bytes that begin at a multiple of 64."""
    block = np.empty(size + ALIGN, np.uint8)
    start = -block.ctypes.data % ALIGN
    return block[start:start + size]


def _official_address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _quick_address(array: np.ndarray) -> int:
    return _word_at(id(array) + _DATA).value


_word_at = ctypes.c_int64.from_address
_DATA = object.__basicsize__  # an array's address follows the head of the object in NumPy's public C struct


def _is_quick_right() -> bool:
    block = np.zeros((3, 5))
    return all(_quick_address(a) == _official_address(a) for a in (block, block[1:], block.T, np.array(3.0)))


# Asked the official way, an array takes 0.9 us to tell its address: more than a small kernel. Its struct takes 0.2 us.
address_of: Callable[[np.ndarray], int] = _quick_address if _is_quick_right() else _official_address
