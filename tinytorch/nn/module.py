"""`Module`: a function with tensors of its own, that knows them by name.

Attributes that are `Parameter`s, buffers or modules are found where they are: in the instance's own dictionary, in the
order in which they were set. So `__init__` needs no call to super, and reading an attribute costs nothing.

    >>> import tinytorch as tt
    >>> class Twice(tt.nn.Module):
    ...     def __init__(self):
    ...         self.inner = tt.nn.Linear(2, 1)
    ...     def forward(self, x):
    ...         return self.inner(x) * 2
    >>> Twice()
    Twice(
      (inner): Linear(in_features=2, out_features=1, bias=True)
    )
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from tinytorch.autograd import no_grad
from tinytorch.ir import as_dtype
from tinytorch.ir.errors import DTypeError, FormatError, OpError, listing
from tinytorch.tensor import Parameter, Tensor, as_tensor

from .hooks import Hook, call_with_hooks

__all__ = ["Module"]


class Keys(NamedTuple):
    """What did not fit when a state was loaded with strict=False."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """The base of all layers and models: assign parameters and modules to attributes, and write `forward`.

    Attributes:
        training: whether layers such as Dropout behave as in training; see `train` and `eval`.

    >>> import tinytorch as tt
    >>> class Scale(tt.nn.Module):
    ...     def __init__(self, factor):
    ...         super().__init__()
    ...         self.factor = tt.nn.Parameter(tt.tensor(factor))
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale(3.0)(tt.ones(2)).tolist()
    [3.0, 3.0]
    """

    training: bool = True
    _buffers: Mapping[str, bool] = {}  # name -> whether state_dict has it
    _hooks: tuple[Hook, ...] = ()
    _form: int = 0  # goes up when a part is put in, replaced or taken out: what was compiled knows the parts it saw

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; a subclass says it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(self, x): write what it computes")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return call_with_hooks(self, args, kwargs) if self._hooks else self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        before, part = vars(self).get(name), (Parameter, Module)
        if isinstance(before, Parameter) and isinstance(value, Tensor) and not isinstance(value, Parameter):
            raise OpError(f"{type(self).__name__}.{name} is a parameter, a plain tensor would take its place and "
                            "never be trained; assign nn.Parameter(…), or overwrite it: "
                            f"with tt.no_grad(): module.{name}.copy_(…)")
        if value is not before and (isinstance(value, part) or isinstance(before, part) or name in self._buffers):
            object.__setattr__(self, "_form", self._form + 1)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__setattr__(self, "_form", self._form + 1)
        object.__delattr__(self, name)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Own a tensor that is not trained, as `self.name`; it is part of `state_dict` if `persistent`."""
        self._check_name(name)
        self._buffers = {**self._buffers, name: persistent}
        setattr(self, name, tensor)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Own a parameter, as `self.name`; None says that there could be one."""
        if param is not None and not isinstance(param, Parameter):
            raise OpError(f"register_parameter({name!r}): expected nn.Parameter(…) or None, got "
                            f"{type(param).__name__}")
        self._check_name(name)
        setattr(self, name, param)

    def add_module(self, name: str, module: Module | None) -> None:
        """Own a module, as `self.name`, where the name is not known when the class is written.

        >>> import tinytorch as tt
        >>> model = tt.nn.Module()
        >>> model.add_module("head", tt.nn.Linear(3, 2))
        >>> model.head.weight.shape
        (2, 3)
        """
        if module is not None and not isinstance(module, Module):
            raise OpError(f"add_module({name!r}): expected a module, got {type(module).__name__}: {module!r:.60}")
        self._check_name(name)
        setattr(self, name, module)

    def _check_name(self, name: str) -> None:
        """A name must be one step of a path, and hide nothing of the class."""
        if not isinstance(name, str) or not name or "." in name:
            raise OpError(f"{name!r} does not name a part of {type(self).__name__}: expected a string without a dot")
        if hasattr(type(self), name) or not isinstance(vars(self).get(name), (Tensor, Module, type(None))):
            raise OpError(f"{type(self).__name__} has an attribute {name!r} already, which is no part; "
                          "choose another name")

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def register_forward_pre_hook(self, hook: Callable[..., Any], *, prepend: bool = False,
                                  with_kwargs: bool = False) -> Hook:
        """Call `hook(module, args)` before each forward; what it gives, if not None, takes the place of args.

        Args:
            hook: gives None, the new arguments as a tuple, or the only one.
            prepend: call it before the hooks that are there.
            with_kwargs: call `hook(module, args, kwargs)`, which gives None or (args, kwargs).
        Returns:
            A handle: `remove()` takes the hook away, and so does the end of a `with` block.
        """
        return self._add_hook(Hook(self, hook, True, with_kwargs), prepend)

    def register_forward_hook(self, hook: Callable[..., Any], *, prepend: bool = False,
                              with_kwargs: bool = False) -> Hook:
        """Call `hook(module, args, output)` after each forward; what it gives, if not None, takes the output's place.

        With `with_kwargs`, it is `hook(module, args, kwargs, output)`; see `register_forward_pre_hook`.

        >>> import tinytorch as tt
        >>> layer = tt.nn.ReLU()
        >>> handle = layer.register_forward_hook(lambda module, args, output: output * 2)
        >>> layer(tt.tensor([-1.0, 2.0])).tolist()
        [0.0, 4.0]
        >>> handle.remove()
        """
        return self._add_hook(Hook(self, hook, False, with_kwargs), prepend)

    def _add_hook(self, hook: Hook, prepend: bool) -> Hook:
        self._hooks = (hook, *self._hooks) if prepend else (*self._hooks, hook)
        return hook

    # -- what is inside ------------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) for the modules directly inside."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def children(self) -> Iterator[Module]:
        """The modules directly inside."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) for this one, under the name `prefix`, and all inside; one that is shared comes once."""
        yield from ((path, module) for path, module in _once(_walk(self, prefix)))

    def modules(self) -> Iterator[Module]:
        """This module and all inside."""
        return (module for _, module in self.named_modules())

    def get_submodule(self, target: str) -> Module:
        """The module at `target`, such as "blocks.0.attention"; this one at "".

        Raises:
            AttributeError: there is none; the message names the step that fails.

        >>> import tinytorch as tt
        >>> tt.nn.Sequential(tt.nn.ReLU(), tt.nn.Tanh()).get_submodule("1")
        Tanh()
        """
        module = self
        for step in target.split(".") if target else ():
            found = vars(module).get(step)
            if not isinstance(found, Module):
                inside = ", ".join(name for name, _ in module.named_children()) or "none"
                raise AttributeError(f"{target!r}: {type(module).__name__} has no module {step!r}; it has {inside}")
            module = found
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at `target`, such as "blocks.0.weight"; an AttributeError if there is none."""
        return self._at(target, buffer=False)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at `target`, such as "norm.running_mean"; an AttributeError if there is none."""
        return self._at(target, buffer=True)

    def _at(self, path: str, buffer: bool) -> Any:
        owner, _, name = path.rpartition(".")
        found = {key: tensor for key, tensor, kind in _own(self.get_submodule(owner)) if kind is buffer}
        if name not in found:
            raise AttributeError(f"{path!r}: there is no {'buffer' if buffer else 'parameter'} {name!r}; "
                                 f"expected one of {listing(found) or 'none'}")
        return found[name]

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) for all inside, or without `recurse` only its own; one that is shared comes once."""
        return _once((path, t) for path, t, buffer in _tensors(self, prefix, recurse) if not buffer)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters inside (or its own): what an optimiser takes.

        >>> import tinytorch as tt
        >>> [p.shape for p in tt.nn.Linear(3, 2).parameters()]
        [(2, 3), (2,)]
        """
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer) for all inside, or without `recurse` only its own; one that is shared comes once."""
        return _once((path, t) for path, t, buffer in _tensors(self, prefix, recurse) if buffer)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers inside (or its own)."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    # -- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by path, with PyTorch's keys; they share memory with the module.

        >>> import tinytorch as tt
        >>> list(tt.nn.Sequential(tt.nn.Linear(3, 2), tt.nn.ReLU()).state_dict())
        ['0.weight', '0.bias']
        """
        return {path: tensor.detach() for path, tensor, _ in _tensors(self, persistent=True)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Keys:
        """Overwrite parameters and buffers in place, with tensors or arrays (PyTorch's on the CPU too) of their shapes.

        Args:
            strict: whether every key must be there on both sides.
        Raises:
            FormatError: keys are missing, unexpected or of another shape; then nothing was changed.
        """
        own = {path: tensor for path, tensor, _ in _tensors(self, persistent=True)}
        given = {key: as_tensor(value) for key, value in state_dict.items()}
        keys = Keys([key for key in own if key not in given], [key for key in given if key not in own])
        faults = [f"{key}: expected {own[key].shape}, got {given[key].shape}" for key in own
                  if key in given and given[key].shape != own[key].shape]
        if strict and keys.missing_keys:
            faults.append(f"missing keys: {listing(keys.missing_keys)}")
        if strict and keys.unexpected_keys:
            faults.append(f"unexpected keys: {listing(keys.unexpected_keys)}")
        if faults:
            hint = "" if not any(keys) else "\nstrict=False passes over keys that only one side has"
            whose = f"load_state_dict of {type(self).__name__}, nothing was changed:"
            raise FormatError("\n  ".join([whose, *faults]) + hint)
        with no_grad():
            for key, tensor in own.items():
                if key in given:
                    tensor.copy_(given[key])
        return keys

    # -- changing all of it --------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set `training` here and in all modules inside."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """As when the model is used: `train(False)`."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or fill them with 0)."""
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train all parameters inside, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def to(self, dtype: Any) -> Self:
        """Convert all floating point parameters and buffers, keeping each tensor's identity.

        Do it before you make an optimiser.

        Raises:
            DTypeError: `dtype` is not a floating point type.
        """
        wanted = as_dtype(dtype)
        if not wanted.is_float:
            raise DTypeError(
                f"{type(self).__name__}.to({wanted}): expected a floating point type; parameters have gradients")
        for _, tensor, _ in _tensors(self):
            if tensor.dtype.is_float and tensor.dtype is not wanted:
                tensor.payload, tensor.grad = tensor.numpy().astype(wanted.np), None
                tensor.version += 1
        return self

    def half(self) -> Self:
        """As f16: `to("f16")`."""
        return self.to("f16")

    def bfloat16(self) -> Self:
        """As bf16: `to("bf16")`."""
        return self.to("bf16")

    def float(self) -> Self:
        """As f32: `to("f32")`."""
        return self.to("f32")

    def double(self) -> Self:
        """As f64: `to("f64")`."""
        return self.to("f64")

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` with each module, those inside first; for initialisation."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # -- printing ------------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        lines = [*([self.extra_repr()] if self.extra_repr() else []), *children]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def clear_grad(tensor: Tensor, set_to_none: bool) -> None:
    """Forget a gradient, or fill it with 0."""
    if set_to_none or tensor.grad is None:
        tensor.grad = None
    else:
        tensor.grad = tensor.grad.zeros_like()


@contextmanager
def in_mode(model: Module, training: bool) -> Iterator[None]:
    """The model trains, or does not, while the block runs; then each module is as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _walk(module: Module, path: str) -> Iterator[tuple[str, Module]]:
    yield path, module
    for name, child in module.named_children():
        yield from _walk(child, f"{path}.{name}" if path else name)


def _own(module: Module) -> Iterator[tuple[str, Any, bool]]:
    """(name, tensor, whether it is a buffer) for the tensors directly inside, parameters first."""
    own = vars(module)
    yield from ((name, value, False) for name, value in own.items()
                if isinstance(value, Parameter) and name not in module._buffers)
    yield from ((name, own[name], True) for name in module._buffers if isinstance(own.get(name), Tensor))


def _tensors(root: Module, prefix: str = "", recurse: bool = True, *,
             persistent: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """(path, tensor, whether it is a buffer) for all inside; with `persistent`, only what belongs into a state."""
    for path, module in _walk(root, prefix) if recurse else [(prefix, root)]:
        for name, tensor, buffer in _own(module):
            if not (persistent and buffer and not module._buffers[name]):
                yield (f"{path}.{name}" if path else name), tensor, buffer


def _once(pairs: Any) -> Iterator[tuple[str, Any]]:
    """Each object once, under its first name."""
    seen: set[int] = set()
    for name, thing in pairs:
        if id(thing) not in seen:
            seen.add(id(thing))
            yield name, thing
