"""Nested containers of tensors ("pytrees"): take the leaves out, put others in.

Tuples, lists, dictionaries (by sorted key), named tuples, dataclasses and None nest; everything else is a leaf.

    >>> leaves, tree = flatten({"w": 1, "b": (2, None)})
    >>> leaves
    [2, 1]
    >>> unflatten(tree, [20, 10])
    {'b': (20, None), 'w': 10}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tinytorch.ir.errors import ShapeError


@dataclasses.dataclass(frozen=True)
class Tree:
    """The structure of a nested container without its leaves; hashable, so that a trace can be found by it."""

    kind: Any  # a leaf (None), or a container class
    keys: tuple[Any, ...] = ()
    children: tuple[Tree, ...] = ()

    @property
    def leaves(self) -> int:
        """How many leaves fit in."""
        return 1 if self.kind is None else sum(child.leaves for child in self.children)


LEAF = Tree(None)
NOTHING = Tree(type(None))


def flatten(thing: Any) -> tuple[list[Any], Tree]:
    """The leaves of `thing` in order, and its structure."""
    leaves: list[Any] = []
    return leaves, _walk(thing, leaves)


def _walk(thing: Any, leaves: list[Any]) -> Tree:
    if thing is None:
        return NOTHING
    kind = type(thing)
    if kind is dict:
        keys = tuple(sorted(thing, key=lambda key: (str(type(key)), key)))
        return Tree(kind, keys, tuple(_walk(thing[key], leaves) for key in keys))
    if kind in (tuple, list) or hasattr(thing, "_fields"):
        return Tree(kind, (), tuple(_walk(child, leaves) for child in thing))
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type) and not hasattr(thing, "payload"):
        keys = tuple(field.name for field in dataclasses.fields(thing))
        return Tree(kind, keys, tuple(_walk(getattr(thing, key), leaves) for key in keys))
    leaves.append(thing)
    return LEAF


def unflatten(tree: Tree, leaves: Sequence[Any]) -> Any:
    """A container of this structure with these leaves; raises ShapeError if their number is wrong."""
    if tree.leaves != len(leaves):
        raise ShapeError(f"this structure has {tree.leaves} leaves, {len(leaves)} were given")
    return _build(tree, iter(leaves))


def _build(tree: Tree, leaves: Iterator[Any]) -> Any:
    if tree.kind is None:
        return next(leaves)
    if tree.kind is type(None):
        return None
    children = [_build(child, leaves) for child in tree.children]
    if tree.kind in (tuple, list):
        return tree.kind(children)
    if hasattr(tree.kind, "_fields"):
        return tree.kind(*children)
    items = dict(zip(tree.keys, children, strict=True))
    return items if tree.kind is dict else tree.kind(**items)


def paths(tree: Tree, prefix: str = "") -> list[str]:
    """A name for each leaf, such as `batch_0` or `state_w`."""
    if tree.kind is None:
        return [prefix or "x"]
    keys = tree.keys or tuple(range(len(tree.children)))
    return [path for key, child in zip(keys, tree.children, strict=False)
            for path in paths(child, f"{prefix}_{key}" if prefix else str(key))]


def map_tree(function: Callable[[Any], Any], thing: Any) -> Any:
    """`thing` with `function` applied to each leaf."""
    leaves, tree = flatten(thing)
    return unflatten(tree, [function(leaf) for leaf in leaves])
