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

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from .tensor import Tensor

LISTINGS = ("named_parameters", "named_buffers", "named_state")  # what modules and optimisers tell of themselves


class Surroundings:
    """What a function can see: in its closure, its globals, its `self`; what a compiled function in there sees, too."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._seen: set[int] = set()
        self.things = dict(self._visible(function))

    def names(self) -> dict[int, str]:
        """A name for each tensor, by id."""
        return {id(tensor): name for name, tensor in reversed(list(self._named()))}

    def parameters(self) -> list[Tensor]:
        """The tensors that may have gradients."""
        return list({id(t): t for _, t in self._named() if t.requires_grad}.values())

    def all_modules(self) -> list[Any]:
        """Every module, whose training flag is part of a program's key."""
        return [m for thing in self.things.values() if hasattr(thing, "modules") for m in thing.modules()]

    def _visible(self, function: Any) -> Iterator[tuple[str, Any]]:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        if hasattr(function, "named_parameters"):
            yield "", function
            return
        if _is_compiled(function):
            yield from self._visible(function.function)
            return
        owner = getattr(function, "__self__", None)
        if owner is not None and hasattr(owner, "named_parameters"):
            yield "", owner
        plain = inspect.unwrap(getattr(function, "__func__", function))
        try:
            found = inspect.getclosurevars(plain)
        except (TypeError, ValueError):
            return
        for name, thing in {**found.globals, **found.nonlocals}.items():
            parts = thing.items() if type(thing) is dict else enumerate(thing) if type(thing) in (list, tuple) else ()
            for label, part in [(name, thing), *((f"{name}_{key}", part) for key, part in parts)]:
                if isinstance(part, Tensor) or hasattr(part, "named_parameters") or hasattr(part, "named_state"):
                    yield label, part
                elif _is_compiled(part):
                    yield from self._visible(part)

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for name, thing in sorted(self.things.items(), key=lambda item: hasattr(item[1], "named_state")):
            if isinstance(thing, Tensor):  # optimisers come last: a model has better names for the parameters of both
                yield name, thing
                continue
            prefix = f"{name}_" if name and len(self.things) > 1 and hasattr(thing, "named_state") else ""
            for listing in [getattr(thing, method) for method in LISTINGS if hasattr(thing, method)]:
                for key, tensor in listing():
                    yield prefix + key, tensor


def _is_compiled(thing: Any) -> bool:
    """Whether this is a `Compiled`, known by its parts: its file stands above this one."""
    return isinstance(getattr(thing, "entries", None), dict) and callable(getattr(thing, "function", None))
