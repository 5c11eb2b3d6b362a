"""Rules that push a leading axis through an op: what `Op.vmap` of its record is.

A rule is `rule(op, size, mapped, *operands, **attrs)`: operands that are `mapped` have an axis of extent `size` before
those that the op speaks of; the result has it, too. `aligned`, `shifted` and the others are the rules of many ops; an
op with a layout of its own writes one beside its record. A composite that has no rule, or whose rule gives None, is
opened.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from ..op import Op, as_tuple, bind, registry

Mapped = Sequence[bool]


def spread(x: Any, is_mapped: bool, size: int) -> Any:
    """`x` with the leading axis, the same along it if it had none."""
    return x if is_mapped else registry["broadcast_to"](x, (size, *x.shape))


def levelled(operands: Sequence[Any], mapped: Mapped, rank: int | None = None) -> list[Any]:
    """Operands that broadcast as before: axes of extent 1 stand between the leading axis and those of short ones."""
    rank = builtins.max(x.ndim - m for x, m in zip(operands, mapped, strict=True)) if rank is None else rank
    return [registry["reshape"](x, (x.shape[0], *(1,) * (rank + 1 - x.ndim), *x.shape[1:]))
            if m and x.ndim <= rank else x for x, m in zip(operands, mapped, strict=True)]


def aligned(op: Op, size: int, mapped: Mapped, /, *operands: Any, **attrs: Any) -> Any:
    """Elementwise ops, and others whose operands broadcast from the right."""
    return bind(op, *levelled(operands, mapped), **attrs)


def shifted(op: Op, size: int, mapped: Mapped, /, *operands: Any, **attrs: Any) -> Any:
    """Ops that name axes, `axis` or `axes`, counted from the front: each is one further on."""
    operands = tuple(spread(x, m, size) for x, m in zip(operands, mapped, strict=True))
    moved = {key: tuple(a + 1 for a in value) if isinstance(value, tuple) else value + 1
             for key, value in attrs.items() if key in ("axis", "axes")}
    return bind(op, *operands, **{**attrs, **moved})


def extended(**first: Any) -> Any:
    """The rule of an op of one operand whose attributes have a number for each axis: `first` has those of the leading
    axis, where "size" stands for its extent; `axes` count one further on."""
    def rule(op: Op, size: int, mapped: Mapped, x: Any, /, **attrs: Any) -> Any:
        longer = {key: (size if value == "size" else value, *attrs[key]) for key, value in first.items()}
        moved = {"axes": tuple(a + 1 for a in attrs["axes"])} if "axes" in attrs else {}
        return bind(op, x, **{**attrs, **moved, **longer})
    return rule


def merged(op: Op, size: int, mapped: Mapped, /, *operands: Any, **attrs: Any) -> Any:
    """Ops whose operands and results all have a batch as axis 0 (or an axis of extent 1): the two axes are one."""
    reshape = registry["reshape"]
    whole = [spread(x, m, size) for x, m in zip(operands, mapped, strict=True)]
    batch = builtins.max(y.shape[1] for y in whole)
    whole = [y if y.shape[1] == batch else registry["broadcast_to"](y, (size, batch, *y.shape[2:])) for y in whole]
    flat = [reshape(y, (size * batch, *y.shape[2:])) for y in whole]
    found = bind(op, *flat, **attrs)
    results = [reshape(y, (size, y.shape[0] // size, *y.shape[1:])) for y in as_tuple(found)]
    return tuple(results) if isinstance(found, tuple) else results[0]


def first_merged(op: Op, size: int, mapped: Mapped, x: Any, /, *others: Any, **attrs: Any) -> Any:
    """Ops whose first operand alone has a batch as axis 0; they are opened where the others are mapped."""
    if any(mapped[1:]):
        return None
    y = bind(op, registry["reshape"](x, (size * x.shape[1], *x.shape[2:])), *others, **attrs)
    return registry["reshape"](y, (size, x.shape[1], *y.shape[1:]))


def moved(x: Any, source: int, target: int) -> Any:
    """`x` with axis `source` at place `target`."""
    order = [a for a in range(x.ndim) if a != source]
    order.insert(target, source)
    return x if source == target else registry["transpose"](x, order)


def rows(x: Any, is_mapped: bool, size: int, axis: int) -> Any:
    """All samples' entries along `axis` in one row: (size · n, …)."""
    first = moved(spread(x, is_mapped, size), axis + 1, 1)
    return registry["reshape"](first, (size * first.shape[1], *first.shape[2:]))


def row_numbers(indices: Any, size: int, extent: int) -> Any:
    """Positions (size, …), each within its own sample's `extent`, as positions in `rows`; a negative one counts from
    the sample's end, and one outside is an IndexError."""
    op = registry
    inside = op["in_range"](op["where"](op["lt"](indices, 0), op["add"](indices, extent), indices), extent)
    sample = op["iota"]((size, *(1,) * (indices.ndim - 1)))
    return op["add"](inside, op["mul"](sample, extent))
