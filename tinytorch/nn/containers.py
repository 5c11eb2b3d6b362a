"""Modules that hold modules: Sequential and ModuleList."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .module import Module

__all__ = ["ModuleList", "Sequential"]


class ModuleList(Module):
    """A list of modules that are found as parts of the model; it has no forward of its own.

    >>> import tinytorch as tt
    >>> layers = tt.nn.ModuleList(tt.nn.Linear(4, 4) for _ in range(3))
    >>> len(layers), len(list(layers.parameters()))
    (3, 6)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add one at the end."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected modules, got {type(module).__name__}: {module!r:.60}")
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add several at the end."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int | slice) -> Any:
        found = list(self.children())[index]
        return type(self)._of(found) if isinstance(found, list) else found

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, str(range(len(self))[index]), module)

    @classmethod
    def _of(cls, modules: list[Module]) -> ModuleList:
        return cls(modules)


class Sequential(ModuleList):
    """Modules one after the other: each gets what the one before gave.

    >>> import tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(3, 4), tt.nn.ReLU(), tt.nn.Linear(4, 2))
    >>> model(tt.zeros(5, 3)).shape
    (5, 2)
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        """x through all of them."""
        for module in self.children():
            x = module(x)
        return x

    @classmethod
    def _of(cls, modules: list[Module]) -> Sequential:
        return cls(*modules)
