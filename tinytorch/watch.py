"""Know that the numbers of a tensor are still what they were, without looking at them.

    watch = Watch((weight, bias))     # from here on
    watch.holds()                     # whether they certainly have the numbers that they had then (20 ns a tensor)

Numbers change in one of three ways. A tensor is given another array: `holds` sees that. A tensor is overwritten, it or
any other on the same memory: whoever writes says so (`touch`). Or somebody writes into a NumPy array that shares the
memory: `Tensor.numpy()` says so when it hands one out, and as long as such an array lives, nothing is certain. Whether
one lives is known from the number of references to the memory, which are all accounted for: the tensor's own, and the
arrays that graphs are bound to (`lend`). An address that somebody keeps while the array itself is gone is beyond us.

    >>> import tinytorch as tt
    >>> from tinytorch.watch import Watch
    >>> x = tt.ones(3)
    >>> watch = Watch((x,))
    >>> before = watch.holds(); x[:2].zero_(); before, watch.holds()
    tensor([0., 0.])
    (True, False)
"""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinytorch.ir import Operand
from tinytorch.passes.fold_constants import is_frozen


class _Memory:
    """What is known of a block of memory: when it was last touched, and the arrays on it that graphs keep."""

    __slots__ = ("lent", "owner", "touched")

    def __init__(self, root: np.ndarray) -> None:
        number = id(root)
        self.owner = weakref.ref(root, lambda _: _memories.pop(number, None))
        self.touched = 0
        self.lent: list[weakref.ref[np.ndarray]] = []


_memories: dict[int, _Memory] = {}  # by the id of the array that owns it
_times = itertools.count(1)
_latest = [0]  # when any of them was touched
_is_anything_watched: list[bool] = []  # empty until something is


def touch(array: np.ndarray) -> None:
    """Say that numbers in the memory of `array` have changed, or that somebody may change them from now on."""
    memory = _memories.get(id(array if array.base is None else _root(array)))
    if memory is not None:
        _latest[0] = memory.touched = next(_times)


def touch_all(tensors: Iterable[Operand]) -> None:
    """Say so of the memory of many tensors: a training step has overwritten them."""
    if not _is_anything_watched:
        return
    now = next(_times)
    for tensor in tensors:
        array = tensor.payload
        memory = _memories.get(id(array if array.base is None else _root(array)))
        if memory is not None:
            memory.touched = now
    _latest[0] = now


def lend(array: np.ndarray) -> np.ndarray:
    """A view of `array` for a graph to keep. It is read-only, and does not count as somebody's who may write."""
    view = array.view()
    view.flags.writeable = False
    memory = _memory(array)
    memory.lent = [known for known in memory.lent if known() is not None] + [weakref.ref(view)]
    return view


class Watch:
    """Certain, as long as `holds()`, that tensors have the numbers that they have now."""

    __slots__ = ("_latest", "_memories", "_payloads", "_touched", "is_sure", "tensors")

    def __init__(self, tensors: Sequence[Operand]) -> None:
        _is_anything_watched[:] = [True]
        self.tensors = tuple(tensors)
        self._latest = _latest[0]
        self._payloads = [(tensor, weakref.ref(tensor.payload)) for tensor in self.tensors]
        self._memories = [_memory(tensor.payload) for tensor in self.tensors]
        self._touched = [memory.touched for memory in self._memories]
        self.is_sure = all(map(_is_private, self.tensors))

    def holds(self) -> bool:
        """Whether no tensor can have changed."""
        if not self.is_sure:
            return False
        for tensor, payload in self._payloads:
            if tensor.payload is not payload():
                return False
        if self._latest == _latest[0]:
            return True
        latest = _latest[0]
        if [memory.touched for memory in self._memories] != self._touched:
            return False
        self._latest = latest  # it was other memory
        return True


def _root(array: np.ndarray) -> np.ndarray:
    """The array at the bottom of a view, which owns the memory if any array does."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _memory(array: np.ndarray) -> _Memory:
    root = _root(array)
    found = _memories.get(id(root))
    if found is None:
        found = _memories[id(root)] = _Memory(root)
    return found


def _is_private(tensor: Operand) -> bool:
    """Whether nothing refers to the memory of a tensor but the tensor, and the graphs that it was lent to; or nobody
    can write there."""
    if is_frozen(tensor.payload):
        return True
    known = sum(view() is not None for view in _memory(tensor.payload).lent)
    count, count_of_root = _references(tensor)
    root = tensor.payload.base
    if root is None:
        return count == _ALONE[0] + known
    return isinstance(root, np.ndarray) and root.base is None and (count, count_of_root - known) == _VIEW


def _references(holder: Any) -> tuple[int, int]:
    """How many refer to an array, and to the one that it is a view of."""
    payload = holder.payload
    root = payload.base
    return sys.getrefcount(payload), 0 if root is None else sys.getrefcount(root)


# What an array, and a view, count that nobody else refers to.
_ALONE = _references(Operand(np.empty(1)))
_VIEW = _references(Operand(np.empty(1).view()))
