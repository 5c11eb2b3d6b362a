"""Find where a loss became NaN or infinite: in the batch, in a parameter, in a module, in the loss, in the gradient.

    >>> import tinytorch as tt
    >>> class Root(tt.nn.Module):
    ...     def forward(self, x):
    ...         return (x - 10.0).log()
    >>> model = tt.nn.Sequential(tt.nn.Linear(2, 2), Root())
    >>> loss_of = lambda model, parts: model(parts[0]).sum()
    >>> found = find(model, (tt.zeros(4, 2),), loss_of)
    >>> found.kind, found.module
    ('output', '1')

A step that is not finite changes nothing (`tinytorch.train.step`), so its forward pass can run again, eagerly, from the
very numbers it began with and with the same random numbers. The modules are watched as they run: the first that gives
something not finite from finite inputs is the one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinytorch.autograd import enable_grad
from tinytorch.frontends.tree import flatten
from tinytorch.ir.errors import TinyTorchError
from tinytorch.nn import Module
from tinytorch.tensor import Tensor


class NonFiniteError(TinyTorchError, FloatingPointError):
    """A loss or gradient is NaN or infinite. The model, the optimiser and all else are as they were before the step.

    Attributes:
        step: the number of the step that was not made.
        kind: what was not finite first: "batch", "parameter", "output" of a module, "loss", "gradient" or "unknown".
        module: the path of the module where it began, "" for the model itself, None where it is no module.

    >>> error = NonFiniteError("step 3: the loss is nan", 3, "output", "layers.1")
    >>> error.step, error.kind, error.module
    (3, 'output', 'layers.1')
    """

    def __init__(self, message: str, step: int, kind: str, module: str | None) -> None:
        super().__init__(message)
        self.step, self.kind, self.module = step, kind, module


def trouble(model: Module, parts: tuple[Any, ...], loss_of: Callable[[Module, tuple[Any, ...]], Any], step: int,
            loss: float, norm: float | None, saved: object = None) -> NonFiniteError:
    """The error for a step that was not made: it looks where that began."""
    found = find(model, parts, loss_of)
    what = f"the gradient has norm {norm}" if math.isfinite(loss) else f"the loss is {loss}"
    kept = f" The last checkpoint is {saved}." if saved else ""
    return NonFiniteError(f"step {step}: {what}. {found.text} This step was not made: parameters, optimiser and random "
                          f"numbers are as they were before.{kept}", step, found.kind, found.module)


@dataclass(frozen=True)
class Finding:
    """What was not finite first, and where; `text` says it in words."""

    kind: str
    module: str | None
    text: str


def find(model: Module, parts: tuple[Any, ...], loss_of: Callable[[Module, tuple[Any, ...]], Any]) -> Finding:
    """Run a step's forward and backward pass again, eagerly, and tell where it stopped being finite.

    It draws random numbers and moves running statistics as a step does; gradients are forgotten.
    """
    found = _batch(parts) or bad_parameter(model)
    if found:
        return found
    with np.errstate(all="ignore"), enable_grad(), _watching(model) as watch:
        result = loss_of(model, parts)
        loss = result[0] if isinstance(result, tuple) else result
        if watch.first:
            return watch.first
        if wrong := count(loss):
            return Finding("loss", None, f"It began in the loss: the model's output is finite, the loss is {wrong}.")
        loss.backward()
    found = _gradient(model, watch.calls)
    model.zero_grad()
    return found or Finding("unknown", None, "Run again eagerly, everything is finite: the compiled step rounds in "
                            "another order, or it began in an earlier batch of the same update (accumulate > 1).")


def bad_parameter(model: Module) -> Finding | None:
    """The first parameter or buffer that is not finite."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        wrong = count(tensor)
        if wrong and (tensor.requires_grad or "nan" in wrong):  # a buffer may well hold a mask of -inf
            path = name.rpartition(".")[0]
            return Finding("parameter", path, f"It began before: {name} of {_called(model, path)} has {wrong}, so the "
                           "gradient of an earlier step was not finite although its loss was. clip_norm=… would have "
                           "stopped there; a lower learning rate may help.")
    return None


def count(thing: Any) -> str:
    """How many numbers of a tensor are not finite, in words; empty if none are."""
    if not isinstance(thing, Tensor) or not thing.dtype.is_float:
        return ""
    array = thing.numpy().astype(np.float64)
    nans, all_bad = int(np.isnan(array).sum()), int((~np.isfinite(array)).sum())
    if not all_bad:
        return ""
    kinds = [f"{nans} nan"] * bool(nans) + [f"{all_bad - nans} inf"] * (all_bad > nans)
    return f"{' and '.join(kinds)} among {array.size} numbers" if array.ndim else str(float(array))


def _batch(parts: tuple[Any, ...]) -> Finding | None:
    for number, leaf in enumerate(flatten(parts)[0]):
        if wrong := count(leaf):
            return Finding("batch", None, f"It began in the data: part {number} of the batch has {wrong}.")
    return None


def _called(model: Module, path: str) -> str:
    """A module as a message names it."""
    kind = type(dict(model.named_modules()).get(path, model)).__name__
    return f"module {path} ({kind})" if path else f"the model itself ({kind})"


class _Watch:
    """What the modules take and give, in order of return, and the first thing that is not finite."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.calls: list[tuple[str, list[Tensor], list[Tensor]]] = []
        self.inside: list[str] = []
        self.first: Finding | None = None

    def enters(self, path: str, module: Module, args: Any, kwargs: Any) -> None:
        """A module is called: what it is given was computed by the one around it."""
        if wrong := next(filter(None, map(count, _tensors((args, kwargs)))), ""):
            outer = self.inside[-1] if self.inside else None
            whose = "the loss step" if outer is None else _called(self.model, outer)
            self._report(outer, f"{whose}: it computed an input for {path or 'the model'} that has {wrong}.")
        self.inside.append(path)

    def leaves(self, path: str, module: Module, args: Any, kwargs: Any, output: Any) -> None:
        """A module has returned."""
        self.inside.pop()
        given, made = _tensors((args, kwargs)), _tensors(output)
        if wrong := next(filter(None, map(count, made)), ""):
            self._report(path, f"{_called(self.model, path)}: its inputs are finite, its output has {wrong}.")
        for tensor in (*given, *made):
            if tensor.requires_grad:
                tensor.retain_grad()
        self.calls.append((path, given, made))

    def _report(self, path: str | None, text: str) -> None:
        self.first = self.first or Finding("output", path, f"It began in {text}")


@contextmanager
def _watching(model: Module) -> Iterator[_Watch]:
    """While the block runs, hooks see what goes into each module and comes out."""
    watch = _Watch(model)
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(partial(watch.enters, path), with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(partial(watch.leaves, path), with_kwargs=True))
        yield watch


def _gradient(model: Module, calls: list[tuple[str, list[Tensor], list[Tensor]]]) -> Finding | None:
    """Where the backward pass stopped being finite: from the last module to the first."""
    modules = dict(model.named_modules())
    for path, given, made in reversed(calls):
        if wrong := _bad_gradient(made):
            return Finding("gradient", None, "The loss is finite. It began in its gradient, after "
                           f"{_called(model, path)}: that of the module's output has {wrong}.")
        own = [p for name, p in modules[path].named_parameters() if "." not in name]
        leaf = next(modules[path].children(), None) is None
        if wrong := _bad_gradient([*own, *(given if leaf else ())]):
            return Finding("gradient", path, f"The loss is finite. It began in the gradient of {_called(model, path)}: "
                           f"that of its output is finite, that of its input or parameters has {wrong}.")
    return None


def _bad_gradient(tensors: list[Any]) -> str:
    return next(filter(None, (count(t.grad) for t in tensors if t.grad is not None)), "")


def _tensors(thing: Any) -> list[Tensor]:
    return [leaf for leaf in flatten(thing)[0] if isinstance(leaf, Tensor)]
