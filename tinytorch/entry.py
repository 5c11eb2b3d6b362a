"""One program of a compiled function: what a kind of call runs, and whether it still may."""

from __future__ import annotations

import operator
import weakref
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
    guards: list[tuple[Tensor, bool]] = field(default_factory=list)

    calls: dict[int, CompiledCall] = field(default_factory=dict)
    # Bound arrays, by weak references, and where they lie.
    held: tuple[list[Any], list[int]] = field(default_factory=lambda: ([], []))

    def __post_init__(self) -> None:
        from tinytorch.runtime.frame import address_of  # heavy: not at import

        self.address_of = address_of
        traced = self.traced
        self.differentiable = any(traced.needs_grad)
        one_tensor = traced.out_tree is LEAF and traced.out_static == (TENSOR,)
        self.is_plain = one_tensor and not traced.mutated and not traced.extra
        read = self.owners if self.preparation is None else self.preparation.read_with(self.owners)
        self.seen = [(t, t.payload.shape, t.payload.dtype) for t in read if isinstance(t, Tensor)]

    def addresses(self, arrays: list[Any]) -> list[int]:
        """Where arrays lie; those that cannot be read as they lie are replaced by copies.

        Bound arrays are the same from call to call, as a rule: their addresses are kept, and no reference to them.
        """
        count = len(self.args)
        bound, (known, kept) = arrays[count:], self.held
        same = len(known) == len(bound) and all(map(operator.is_, bound, (seen() for seen in known)))
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

    def holds(self) -> bool:
        """Whether tensors found elsewhere are of the types, and have gradients or none, as when it was traced, and
        optimisers have the options that they had."""
        for tensor, empty in self.guards:
            if (tensor.grad is None) is not empty:
                return False
        for read, before in self.traced.relied:
            if read() != before:
                return False
        for tensor, shape, dtype in self.seen:
            array = tensor.payload
            if array.shape != shape or (array.dtype is not dtype and array.dtype != dtype):
                return False
        return True


@dataclass(frozen=True)
class GradOf:
    """Stands for whatever tensor is `owner.grad` at the time of a call."""

    owner: Tensor
