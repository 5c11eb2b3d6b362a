"""Where time lies in a tensor: axes as products of factors, some of which have a name.

    lay = ((Factor(2, BATCH),), (Factor(8, ROWS),), (Factor(64),))
    regroup(lay, (16, 64))                             # ((batch 2, rows 8), (64,)): as `linear` merges them
    gathered(x, lay, {ROWS: 3})                        # x (2, 3, 64), or (6, 64), as (batch, rows, everything else)

A decoder reshapes its tensors all the time: (batch, time, features) becomes (batch · time, features), heads are split
off and turned. So a *lay* says for each axis which factors it is the product of, from the outermost to the innermost.
A factor is a sequence of the batch (BATCH), a token that a row belongs to (ROWS), a token that is looked at (KEYS), or
anything else (""). Factors of extent 1 are left out, neighbours without a name are one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinytorch.ir import ops
from tinytorch.ir.types import Shape

BATCH, ROWS, KEYS = "batch", "rows", "keys"


@dataclass(frozen=True, slots=True)
class Factor:
    """A part of an axis: how many there are, and of what."""

    extent: int
    label: str = ""


Axis = tuple[Factor, ...]
Lay = tuple[Axis, ...]


def plain(shape: Iterable[int]) -> Lay:
    """Axes of which nothing is known."""
    return tuple(joined((Factor(n),)) for n in shape)


def joined(factors: Iterable[Factor]) -> Axis:
    """One axis out of factors."""
    found: list[Factor] = []
    for factor in factors:
        if factor.extent == 1:
            continue
        if found and not factor.label and not found[-1].label:
            found[-1] = Factor(found[-1].extent * factor.extent)
        else:
            found.append(factor)
    return tuple(found)


def regroup(lay: Lay, shape: Shape) -> Lay | None:
    """The lay after a reshape; None if it cuts through a factor with a name."""
    left = list(joined(factor for axis in lay for factor in axis))
    found: list[Axis] = []
    for extent in shape:
        axis: list[Factor] = []
        while extent > 1:
            if not left:
                return None
            factor = left.pop(0)
            if extent % factor.extent == 0:
                extent //= factor.extent
            elif factor.label or factor.extent % extent:
                return None
            else:
                left.insert(0, Factor(factor.extent // extent))
                factor, extent = Factor(extent), 1
            axis.append(factor)
        found.append(joined(axis))
    return tuple(found)


def labels(lay: Iterable[Axis]) -> set[str]:
    """The names of all factors."""
    return {factor.label for axis in lay for factor in axis} - {""}


def home(lay: Lay, label: str) -> int | None:
    """The axis in which a name stands."""
    return next((number for number, axis in enumerate(lay) if any(f.label == label for f in axis)), None)


def renamed(lay: Lay, old: str, new: str) -> Lay:
    """The lay with one name in place of another."""
    return tuple(tuple(replace(f, label=new) if f.label == old else f for f in axis) for axis in lay)


Sizes = Mapping[str, int]  # extents of factors with a name, where they are not those of the graph that was analysed


def extents(factors: Iterable[Factor], sizes: Sizes) -> list[int]:
    """The extents of factors."""
    return [sizes.get(factor.label, factor.extent) for factor in factors]


def shape_of(lay: Lay, sizes: Sizes) -> Shape:
    """The extents of axes."""
    return tuple(math.prod(extents(axis, sizes)) for axis in lay)


def in_front(factors: Sequence[Factor], *names: str) -> list[int]:
    """The order of factors in which those with these names come first."""
    first = [n for name in names for n, factor in enumerate(factors) if factor.label == name]
    return first + [n for n in range(len(factors)) if n not in first]


def shaped(x: Any, shape: Sequence[int]) -> Any:
    """x reshaped, if that does anything."""
    return x if x.shape == tuple(shape) else ops.reshape(x, tuple(shape))


def turned(x: Any, order: Sequence[int]) -> Any:
    """x transposed, if that does anything."""
    return x if list(order) == list(range(len(order))) else ops.transpose(x, tuple(order))


def gathered(x: Any, lay: Lay, sizes: Sizes) -> Any:
    """A handle that lies so, as (batch, rows, every other factor)."""
    factors = [factor for axis in lay for factor in axis]
    order, shape = in_front(factors, BATCH, ROWS), extents(factors, sizes)
    one = () if any(factor.label == BATCH for factor in factors) else (1,)
    return shaped(turned(shaped(x, shape), order), (*one, *(shape[n] for n in order)))


def scattered(x: Any, lay: Lay, sizes: Sizes) -> Any:
    """The way back."""
    factors = [factor for axis in lay for factor in axis]
    order, shape = in_front(factors, BATCH, ROWS), extents(factors, sizes)
    apart = shaped(x, [shape[n] for n in order])
    return shaped(turned(apart, [order.index(n) for n in range(len(order))]), shape_of(lay, sizes))
