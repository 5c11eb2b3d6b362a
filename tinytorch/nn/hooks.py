"""Forward hooks: functions that a module calls before and after its forward, to look at what passes, or to change it.

A module without hooks pays nothing for them. Hooks run when the module is called, so in a traced or compiled function
they run once, while it is traced: what they do with tensors becomes part of the program, and one that wants numbers is
a TracingError. Where hooks have come or gone, a compiled function is compiled anew.

    >>> import tinytorch as tt
    >>> model, seen = tt.nn.Sequential(tt.nn.Linear(3, 2), tt.nn.ReLU()), {}
    >>> with model[0].register_forward_hook(lambda module, args, output: seen.update(hidden=output)):
    ...     _ = model(tt.zeros(5, 3))
    >>> seen["hidden"].shape
    (5, 2)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(eq=False)
class Hook:
    """A function that `module` calls before or after its forward, as long as nobody calls `remove`."""

    module: Any
    function: Callable[..., Any]
    before: bool
    with_kwargs: bool

    def remove(self) -> None:
        """Call it no more. A second time does nothing."""
        self.module._hooks = tuple(hook for hook in self.module._hooks if hook is not self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def call_with_hooks(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The module's forward between its hooks."""
    hooks: tuple[Hook, ...] = module._hooks  # those that are there when the call begins
    for hook in hooks:
        if not hook.before:
            continue
        if hook.with_kwargs:
            args, kwargs = hook.function(module, args, kwargs) or (args, kwargs)
        elif (replaced := hook.function(module, args)) is not None:
            args = replaced if isinstance(replaced, tuple) else (replaced,)
    output = module.forward(*args, **kwargs)
    for hook in hooks:
        if not hook.before:
            replaced = hook.function(module, args, *([kwargs] if hook.with_kwargs else []), output)
            output = output if replaced is None else replaced
    return output
