"""One program of a compiled function: what a kind of call runs, and whether it still may."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytorch.frontends.trace import TENSOR, Trace
from tinytorch.frontends.tree import LEAF
from tinytorch.passes import History

from .backward import CompiledCall
from .preparation import Preparation
from .spent import Spent
from .tensor import Tensor

PAYLOAD, GRAD, NEEDS_GRAD = map(operator.attrgetter, ("payload", "grad", "requires_grad"))


def _are(arrays: list[Any], known: list[Any]) -> bool:
    """Whether these are the arrays that weak references know."""
    return len(arrays) == len(known) and all(map(operator.is_, arrays, map(operator.call, known)))


@dataclass(eq=False)
class Entry:
    """One program: what a kind of call runs."""

    traced: Trace
    history: History
    program: Any
    args: list[int]  # for each input that the caller gives, the number of its leaf
    owners: list[Any]  # for each other input, its tensor, `GradOf`, or array
    preparation: Preparation | None
    spent: Spent
    guarded: list[Tensor] = field(default_factory=list)  # parameters whose gradients are there, or not, as they were
    empty: list[bool] = field(default_factory=list)  # which of them had none
    used_up: list[Tensor] = field(default_factory=list)  # those that had one, and were updated with it
    calls: dict[int, CompiledCall] = field(default_factory=dict)
    # Weak references to the arrays that were seen at the last call: if they are the same, so is what was found then.
    fitting: list[Any] = field(default_factory=list)  # their types were right
    held: tuple[list[Any], list[int]] = field(default_factory=lambda: ([], []))  # of bound inputs, and where they lie

    def __post_init__(self) -> None:
        from tinytorch.runtime.frame import address_of  # heavy: not at import

        self.address_of = address_of
        traced = self.traced
        self.differentiable = any(traced.needs_grad)
        one_tensor = traced.out_tree is LEAF and traced.out_static == (TENSOR,)
        self.is_plain = one_tensor and not traced.mutated and not traced.extra
        read = self.owners if self.preparation is None else self.preparation.read_with(self.owners)
        self.seen = [t for t in read if isinstance(t, Tensor)]
        self.types = [(t.payload.shape, t.payload.dtype) for t in self.seen]
        self.needing = list(map(NEEDS_GRAD, self.seen))
        self.is_seen = list(map(id, self.seen)) == list(map(id, self.owners))

    def addresses(self, arrays: list[Any]) -> list[int]:
        """Where arrays lie; those that cannot be read as they lie are replaced by copies.

        Bound arrays are the same from call to call, as a rule: their addresses are kept, and no reference to them.
        """
        count = len(self.args)
        bound, (known, kept) = arrays[count:], self.held
        same = _are(bound, known)
        for i, array in enumerate(arrays[:count] if same else arrays):
            if type(array) is not np.ndarray or not array.flags.c_contiguous:
                arrays[i] = np.asarray(array, np.float32 if type(array) is float else None, order="C")
        found = list(map(self.address_of, arrays[:count]))
        if same:
            return found + kept
        kept = list(map(self.address_of, arrays[count:]))
        if all(map(operator.is_, arrays[count:], bound)):
            self.held = list(map(weakref.ref, bound)), kept
        return found + kept

    def call(self, position: int) -> CompiledCall:
        """What stands on the tape for the result at `position`."""
        return self.calls.setdefault(position, CompiledCall(self, position))

    def guard(self, parameters: Sequence[Tensor], grads: Mapping[int, Tensor | None]) -> None:
        """From here on hold only as long as these have gradients, or none, as they had (by `id`) before the call."""
        self.guarded = list(parameters)
        self.empty = [grads[id(t)] is None for t in self.guarded]
        updated = set(map(id, self.traced.mutated))
        self.used_up = [t for t, empty in zip(self.guarded, self.empty, strict=True) if not empty and id(t) in updated]

    def bound(self) -> list[Any] | None:
        """The arrays, as of now, of the inputs that the caller does not give.

        None if the program may not run: tensors found elsewhere are of other types, were frozen or are no longer, or
        have gradients where they had none (or none where they had some), or optimisers have other options than when it
        was traced.
        """
        if list(map(NEEDS_GRAD, self.seen)) != self.needing:
            return None
        if [grad is None for grad in map(GRAD, self.guarded)] != self.empty:
            return None
        for read, before in self.traced.relied:
            if read() != before:
                return None
        arrays = list(map(PAYLOAD, self.seen))
        if not _are(arrays, self.fitting):
            if [(array.shape, array.dtype) for array in arrays] != self.types:
                return None
            self.fitting = list(map(weakref.ref, arrays))
        if self.is_seen and self.preparation is None:
            return arrays
        del arrays  # whoever holds one counts as somebody who may write
        if self.preparation is not None:
            self.preparation.refresh()
        found = [owner.owner.grad if type(owner) is GradOf else owner for owner in self.owners]
        return [thing.payload if isinstance(thing, Tensor) else thing for thing in found]


@dataclass(frozen=True)
class GradOf:
    """Stands for whatever tensor is `owner.grad` at the time of a call."""

    owner: Tensor
