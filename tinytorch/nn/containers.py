"""Modules that hold modules or parameters: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict.

    >>> import tinytorch as tt
    >>> tt.nn.ModuleList(tt.nn.Linear(4, 4) for _ in range(3))
    ModuleList(
      (0-2): 3 x Linear(in_features=4, out_features=4, bias=True)
    )
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Self

from tinytorch.ir.errors import OpError
from tinytorch.tensor import Parameter, Tensor

from .module import Module

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


class _Holder(Module):
    """What is inside stands in attributes, in the order in which it was put in."""

    _kind: type = Module

    def _parts(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if isinstance(part, self._kind)}

    def _checked(self, part: Any) -> Any:
        """`part`, if it may be put in."""
        if not isinstance(part, Module):
            raise OpError(f"{type(self).__name__}: expected modules, got {type(part).__name__}: {part!r:.60}")
        return part

    def __len__(self) -> int:
        return len(self._parts())


class _Parameters(Module):
    """Makes parameters of what is put in, and shows them."""

    _kind: type = Parameter

    def _checked(self, part: Any) -> Any:
        if isinstance(part, Parameter):
            return part
        if not isinstance(part, Tensor) and not hasattr(part, "__array__"):
            raise OpError(f"{type(self).__name__}: expected parameters or tensors, got {type(part).__name__}: "
                            f"{part!r:.60}")
        return Parameter(part)

    def __repr__(self) -> str:
        lines = [f"    ({name}): Parameter containing: [{p.dtype} of size {'x'.join(map(str, p.shape))}]"
                 for name, p in vars(self).items() if isinstance(p, Parameter)]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if lines else f"{type(self).__name__}()"


class _Listed(_Holder):
    """The names are "0", "1", …."""

    def _fill(self, parts: Iterable[Any]) -> None:
        """Hold `parts` and nothing else."""
        parts = [self._checked(part) for part in parts]
        for name in self._parts():
            delattr(self, name)
        for number, part in enumerate(parts):
            setattr(self, str(number), part)

    def _name(self, index: int) -> str:
        names = list(self._parts())
        if not -len(names) <= index < len(names):
            raise IndexError(f"{type(self).__name__}: {index} is out of range, it holds {len(names)}")
        return names[index]

    def append(self, part: Any) -> Self:
        """Add one at the end."""
        setattr(self, str(len(self)), self._checked(part))
        return self

    def extend(self, parts: Iterable[Any]) -> Self:
        """Add several at the end."""
        for part in list(parts):
            self.append(part)
        return self

    def insert(self, index: int, part: Any) -> Self:
        """Add one before the one at `index`; those behind move up by one name."""
        parts = self._numbered()
        parts.insert(index, part)
        self._fill(parts)
        return self

    def pop(self, index: int = -1) -> Any:
        """Take one out and give it; those behind move down by one name."""
        part = self[index]
        del self[index]
        return part

    def _numbered(self) -> list[Any]:
        parts = self._parts()
        if list(parts) != [str(number) for number in range(len(parts))]:
            raise OpError(f"{type(self).__name__} with names of its own ({', '.join(parts)}): parts cannot move to "
                          "other names; make a new one")
        return list(parts.values())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parts().values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])  # type: ignore[call-arg]
        return self._parts()[self._name(index)]

    def __setitem__(self, index: int, part: Any) -> None:
        setattr(self, self._name(index), self._checked(part))

    def __delitem__(self, index: int | slice) -> None:
        if not isinstance(index, slice):
            self._name(index)
        parts = self._numbered()
        del parts[index]
        self._fill(parts)

    def __iadd__(self, parts: Iterable[Any]) -> Self:
        return self.extend(parts)


class ModuleList(_Listed):
    """A list of modules that are found as parts of the model; it has no forward of its own.

    Raises:
        TypeError: something else is put in.

    >>> import tinytorch as tt
    >>> layers = tt.nn.ModuleList(tt.nn.Linear(4, 4) for _ in range(3))
    >>> len(layers), len(list(layers[1:].parameters())), layers[-1].bias is None
    (3, 4, False)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def __add__(self, modules: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *modules])

    def __repr__(self) -> str:
        parts = [(name, repr(module)) for name, module in self.named_children()]
        lines = []
        for text, group in groupby(parts, key=lambda part: part[1]):
            names = [name for name, _ in group]
            shown = f"({names[0]}): {text}" if len(names) == 1 else (
                f"({names[0]}-{names[-1]}): {len(names)} x {text}")
            lines.append("  " + shown.replace("\n", "\n  "))
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if lines else f"{type(self).__name__}()"


class Sequential(_Listed):
    """Modules one after the other: each gets what the one before gave. A dict gives them names of their own.

    Raises:
        TypeError: something else is put in.

    >>> import tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(3, 4), tt.nn.ReLU(), tt.nn.Linear(4, 2))
    >>> model(tt.zeros(5, 3)).shape, model[:2](tt.zeros(5, 3)).shape
    ((5, 2), (5, 4))
    >>> tt.nn.Sequential({"hidden": tt.nn.Linear(3, 4), "act": tt.nn.ReLU()}).act
    ReLU()
    """

    def __init__(self, *modules: Any) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, self._checked(module))
        else:
            self.extend(modules)

    def forward(self, x: Any) -> Any:
        """x through all of them."""
        for module in self.children():
            x = module(x)
        return x

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):  # the parts keep their names, as in PyTorch
            return type(self)(dict(list(self._parts().items())[index]))
        return super().__getitem__(index)

    def __add__(self, modules: Iterable[Module]) -> Sequential:
        return Sequential(*self, *modules)


class ParameterList(_Parameters, _Listed):
    """A list of parameters that are found as parts of the model; tensors and arrays that are put in become parameters.

    >>> import tinytorch as tt
    >>> scales = tt.nn.ParameterList([tt.ones(2), tt.zeros(3)])
    >>> [name for name, _ in scales.named_parameters()], scales[1].requires_grad
    (['0', '1'], True)
    """

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.extend(values)


class _Named(_Holder):
    """The names are keys."""

    def update(self, parts: Any) -> None:
        """Put in (or replace) those of a mapping, or of (key, part) pairs."""
        for key, part in parts.items() if hasattr(parts, "items") else parts:
            self[key] = part

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._parts().keys()

    def values(self) -> Iterable[Any]:
        """The parts."""
        return self._parts().values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, part) pairs."""
        return self._parts().items()

    def pop(self, key: str) -> Any:
        """Take one out and give it."""
        part = self[key]
        del self[key]
        return part

    def clear(self) -> None:
        """Take all out."""
        for key in self._parts():
            delattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts())

    def __contains__(self, key: object) -> bool:
        return key in self._parts()

    def __getitem__(self, key: str) -> Any:
        parts = self._parts()
        if key not in parts:
            raise KeyError(f"{type(self).__name__} has no {key!r}; it has {', '.join(parts) or 'nothing'}")
        return parts[key]

    def __setitem__(self, key: str, part: Any) -> None:
        checked = self._checked(part)
        if isinstance(checked, Parameter):
            self.register_parameter(key, checked)
        else:
            self.add_module(key, checked)

    def __delitem__(self, key: str) -> None:
        self[key]
        delattr(self, key)


class ModuleDict(_Named):
    """Modules by name that are found as parts of the model; it has no forward of its own.

    Raises:
        TypeError: something else is put in.
        OpError: a key is no string, has a dot in it, or is the name of a method such as "keys".

    >>> import tinytorch as tt
    >>> heads = tt.nn.ModuleDict({"cat": tt.nn.Linear(4, 1), "dog": tt.nn.Linear(4, 2)})
    >>> heads["dog"](tt.zeros(3, 4)).shape, "fish" in heads
    ((3, 2), False)
    """

    def __init__(self, modules: Any = ()) -> None:
        self.update(modules)


class ParameterDict(_Parameters, _Named):
    """Parameters by name that are found as parts of the model; tensors and arrays that are put in become parameters.

    Raises:
        OpError: a key is no string, has a dot in it, or is the name of a method such as "keys".

    >>> import tinytorch as tt
    >>> gains = tt.nn.ParameterDict({"left": tt.ones(2), "right": tt.zeros(3)})
    >>> list(gains.state_dict()), gains["left"].requires_grad
    (['left', 'right'], True)
    """

    def __init__(self, values: Any = ()) -> None:
        self.update(values)
