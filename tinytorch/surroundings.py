"""Find the modules, optimisers and tensors that a function can see, and the names its author gave them.

A function's parameters are seldom its arguments: they stand in its closure, its globals, its `self`, or in a list or
dict there. Whoever traces it wants to know them before it runs, to name the inputs of the graph and to put gradients
back.

    >>> import tinytorch as tt
    >>> from tinytorch.surroundings import Surroundings
    >>> model = tt.nn.Linear(3, 2)
    >>> found = Surroundings(lambda x: model(x).sum())
    >>> sorted(found.names().values()), len(found.parameters()), found.all_modules() == [model]
    (['bias', 'weight'], 2, True)
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .tensor import Tensor

MANY = 1000  # what holds more parts than this is data
LISTINGS = ("named_parameters", "named_buffers", "named_state")  # what modules and optimisers tell of themselves


class Surroundings:
    """What a function can see: in its closure, its globals, its `self`, and what the functions there see, too."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._seen: set[int] = set()
        self.things = list(self._look("", function, whole=True))  # (name, tensor, module or optimiser), each once

    def names(self) -> dict[int, str]:
        """A name for each tensor, by id."""
        return {id(tensor): name for name, tensor in reversed(list(self._named()))}

    def parameters(self) -> list[Tensor]:
        """The tensors that may have gradients."""
        return list({id(t): t for _, t in self._named() if t.requires_grad}.values())

    def all_modules(self) -> list[Any]:
        """Every module, whose training flag is part of a program's key."""
        return [m for _, thing in self.things if hasattr(thing, "modules") for m in thing.modules()]

    def _visible(self, function: Any, whole: bool) -> Iterator[tuple[str, Any]]:
        """What a function or method can see; of one of ours only its `self`, unless `whole` is asked for."""
        owner = getattr(function, "__self__", None)
        if owner is not None:
            yield from self._look("", owner)
        if _is_ours(function) and not whole:
            return
        plain = inspect.unwrap(getattr(function, "__func__", function))
        try:
            found = inspect.getclosurevars(plain)
        except (TypeError, ValueError):
            return
        for name, thing in {**found.globals, **found.nonlocals}.items():
            yield from self._look(name, thing)

    def _look(self, name: str, thing: Any, depth: int = 2, whole: bool = False) -> Iterator[tuple[str, Any]]:
        """What there is in a thing that a function can see: itself, or its parts, or what it sees as a function."""
        if id(thing) in self._seen:
            return
        self._seen.add(id(thing))
        if _is_source(thing):
            yield name, thing
        elif _is_compiled(thing) or isinstance(thing, functools.partial):
            yield from self._look(name, thing.function if _is_compiled(thing) else thing.func, whole=whole)
            for part in getattr(thing, "args", ()):  # of a partial
                yield from self._look("", part)
        elif isinstance(thing, (types.FunctionType, types.MethodType)):
            yield from self._visible(thing, whole)
        elif depth:
            for key, part in _parts(thing):
                yield from self._look(f"{name}_{key}" if name else str(key), part, depth - 1)

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for name, thing in sorted(self.things, key=lambda item: hasattr(item[1], "named_state")):
            if isinstance(thing, Tensor):  # optimisers come last: a model has better names for the parameters of both
                yield name, thing
                continue
            prefix = f"{name}_" if name and len(self.things) > 1 and hasattr(thing, "named_state") else ""
            for listing in [getattr(thing, method) for method in LISTINGS if hasattr(thing, method)]:
                for key, tensor in listing():
                    yield prefix + key, tensor


def _parts(thing: Any) -> Iterable[tuple[Any, Any]]:
    """Name and value of what a container, or an object of a user's class, holds."""
    if type(thing) in (dict, list, tuple):
        return () if len(thing) > MANY else thing.items() if type(thing) is dict else enumerate(thing)
    plain = isinstance(thing, (type, types.ModuleType)) or _is_ours(type(thing)) or not hasattr(thing, "__dict__")
    return () if plain else vars(thing).items()


def _is_source(thing: Any) -> bool:
    """Whether tensors are found here: a tensor, a module, an optimiser."""
    return isinstance(thing, Tensor) or (not isinstance(thing, type) and any(hasattr(thing, m) for m in LISTINGS))


def _is_ours(thing: Any) -> bool:
    """Whether a function or class is part of tinytorch, which sees no tensors of a user's."""
    return (getattr(thing, "__module__", None) or "").partition(".")[0] == "tinytorch"


def _is_compiled(thing: Any) -> bool:
    """Whether this is a `Compiled`, known by its parts: its file stands above this one."""
    return isinstance(getattr(thing, "entries", None), dict) and callable(getattr(thing, "function", None))
