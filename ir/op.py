"""The record of an op. Everything the project knows about an op stands in one of these, and nowhere else.

`Op` fields that are functions take the operands in order and the attributes by name:

    infer(*types, **attrs)          -> TensorType (or a tuple of them)     the type rule
    eval(*arrays, **attrs)          -> array                               the NumPy meaning: the definition
    vjp(g, out, *operands, **attrs) -> a cotangent or None per operand     written in ops, so it differentiates again
                                       (of an op with several results: g a tuple with None for some, out a tuple)
    expand(*operands, **attrs)      -> operand                             the op in simpler ops
    prepare(*args, **kwargs)        -> (operands, attrs)                   what users may write -> the canonical form
    flops(out, *types, **attrs)     -> int                                 additions, multiplications, comparisons, …
    native(*types, **attrs)         -> bool                                whether the runtime runs a composite whole
    vmap(op, size, mapped, *operands, **attrs) -> result                   with a leading axis: see `ops/leading.py`
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .errors import OpError, UnknownOpError, listing


def as_tuple(result: Any) -> tuple[Any, ...]:
    """What an op, or one of its rules, gives: one thing or several, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


class Kind(Enum):
    """How an op computes: what fusion and the emitters ask."""

    SOURCE = "source"
    POINTWISE = "pointwise"
    REDUCE = "reduce"
    VIEW = "view"
    CONTRACT = "contract"
    INDEX = "index"
    RANDOM = "random"
    COMPOSITE = "composite"
    FUSED = "fused"

    @property
    def launches(self) -> bool:
        """Whether a node of this kind runs a kernel: all but views and sources do."""
        return self not in (Kind.VIEW, Kind.SOURCE)


@dataclass(frozen=True, eq=False, kw_only=True)
class Op:
    """One operation of the language. Calling it goes through the door (`bind`)."""

    name: str
    kind: Kind
    doc: str
    infer: Callable[..., Any]
    eval: Callable[..., Any]
    prepare: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]
    vjp: Callable[..., tuple[Any, ...]] | None = None
    expand: Callable[..., Any] | None = None
    scalar: str | None = None  # kernel text of one element, {0} {1} … for the operands
    transcendental: bool = False
    commutative: bool = False
    flops: Callable[..., int] = lambda out, *types, **attrs: 0
    identity: Any = None  # of a reduction
    native: Callable[..., bool] = lambda *types, **attrs: False
    vmap: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if self.name in registry:
            raise OpError(f"op {self.name!r} is defined twice")
        registry[self.name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        operands, attrs = self.prepare(*args, **kwargs)
        return door.interpreter.process(self, operands, attrs)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return lookup, (self.name,)

    def __deepcopy__(self, memo: object) -> Op:
        return self


class Door(threading.local):
    """Holds the current interpreter of each thread; `interp` sets the one that all threads begin with."""

    interpreter: Any = None


door = Door()
registry: dict[str, Op] = {}


def bind(op: Op, *operands: Any, **attrs: Any) -> Any:
    """Hand one canonical operation to the current interpreter: the one door."""
    return door.interpreter.process(op, operands, attrs)


def lookup(name: str) -> Op:
    """The op called `name`; raises UnknownOpError with the vocabulary."""
    try:
        return registry[name]
    except KeyError:
        raise UnknownOpError(f"there is no op {name!r}; the vocabulary is {listing(registry, 200)}") from None
