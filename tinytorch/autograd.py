"""Gradients of eager code: the tape, `backward`, `no_grad`; `grad` and `value_and_grad` of functions, which compose.

Each tensor that needs a gradient remembers the operation that made it. `backward` walks these memories with the engine
of `tinytorch.passes.autodiff`, whether the tensors hold numbers or are being traced.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tinytorch.frontends.tree import flatten, unflatten
from tinytorch.ir import Operand, TensorType, is_tracing, ops
from tinytorch.ir.errors import GradientError
from tinytorch.ir.interp import Record
from tinytorch.passes.autodiff import reverse

from .tensor import Tensor, as_tensor, grad_mode

F = TypeVar("F", bound=Callable[..., Any])


class Switch:
    """Turns recording on or off: a context manager and a decorator."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.before = threading.local()

    def __enter__(self) -> Switch:
        stack = self.before.__dict__.setdefault("stack", [])
        stack.append(grad_mode.enabled)
        grad_mode.enabled = self.enabled
        return self

    def __exit__(self, *exc: object) -> None:
        grad_mode.enabled = self.before.stack.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


def no_grad() -> Switch:
    """Nothing inside is recorded: `with tt.no_grad(): …` or `@tt.no_grad()`.

    >>> import tinytorch as tt
    >>> x = tt.ones(2, requires_grad=True)
    >>> with tt.no_grad(): y = x * 2
    >>> y.requires_grad
    False
    """
    return Switch(False)


def enable_grad() -> Switch:
    """Record again, inside a `no_grad`.

    >>> import tinytorch as tt
    >>> with tt.no_grad(), tt.enable_grad(): tt.is_grad_enabled()
    True
    """
    return Switch(True)


def is_grad_enabled() -> bool:
    """Whether operations are being recorded.

    >>> import tinytorch as tt
    >>> tt.is_grad_enabled()
    True
    """
    return grad_mode.enabled


class _Stale(Operand):
    """Stands for a tensor that was overwritten after it was used: its type may be asked for, its numbers may not."""

    __slots__ = ("_dtype", "_op", "_shape")

    def __init__(self, tensor: Operand, op: object) -> None:
        self._shape, self._dtype, self._op = tensor.shape, tensor.dtype, op

    shape = property(lambda self: self._shape)
    dtype = property(lambda self: self._dtype)
    ndim = property(lambda self: len(self._shape))
    type = property(lambda self: TensorType(self._dtype, self._shape))

    @property
    def payload(self) -> Any:
        raise GradientError(f"the gradient of {self._op} needs a tensor of type {self.type} that was overwritten in "
                            "place since; call backward() before you change it, or change a copy (x.clone())")


class _Constant(Tensor):
    """Stands for a tensor that needs no gradient, so that costly rules leave it out."""

    __slots__ = ()
    is_constant = True


class Tape:
    """The records behind some tensors, made once each while one `backward` runs."""

    def __init__(self, skip_constants: bool) -> None:
        self.skip_constants = skip_constants
        self.records: dict[int, Record] = {}
        self.tensors: list[Tensor] = []

    def record_of(self, tensor: Any) -> Record | None:
        """What made `tensor`, or None for a leaf."""
        creator = getattr(tensor, "creator", None)
        if creator is None:
            return None
        record = self.records.get(id(tensor))
        if record is None:
            if creator is FREED:
                raise GradientError("backward() has been here before and dropped what it needs; "
                                    "use backward(retain_graph=True) the first time")
            op, operands, attrs, versions, *several = creator
            seen = [self.seen(o, v, op) for o, v in zip(operands, versions, strict=True)]
            outputs = several[0] if several else (tensor,)
            record = Record(op, seen, attrs, outputs, operands)
            self.records |= dict.fromkeys(map(id, outputs), record)
            self.tensors.extend(t for t in outputs if t.creator is not None)
        return record

    def seen(self, operand: Any, version: int, op: object) -> Any:
        """What a gradient rule is given for an operand."""
        if getattr(operand, "version", 0) != version:
            return _Stale(operand, op)
        constant = self.skip_constants and not getattr(operand, "requires_grad", False)
        return _Constant(operand.payload) if constant else operand


FREED = object()


def run_backward(outputs: Sequence[Tensor], cotangents: Sequence[Any], retain_graph: bool, create_graph: bool,
                 stop: frozenset[int] = frozenset()) -> tuple[dict[int, Any], Tape]:
    """Cotangents by tensor id, with hooks applied; drops the tape unless it is to be kept."""
    tape = Tape(skip_constants=not create_graph and not is_tracing())  # a trace drops them later
    with Switch(create_graph):
        found = reverse(outputs, cotangents, tape.record_of, stop, _apply_hooks)
    if not (retain_graph or create_graph):
        for tensor in tape.tensors:
            tensor.creator = FREED
    return found, tape


def _apply_hooks(tensor: Any, grad: Any) -> Any:
    for hook in getattr(tensor, "hooks", None) or ():
        replaced = hook(grad)
        grad = grad if replaced is None else replaced
    return grad


def backward(tensor: Tensor, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
    """Add d tensor / d leaf to `.grad` of every leaf that requires it; see `Tensor.backward`."""
    if not tensor.requires_grad:
        raise GradientError("backward() of a tensor that nothing recorded: "
                            "no input has requires_grad=True, or it was made under no_grad()")
    seed = _seed(tensor, gradient)
    found, tape = run_backward([tensor], [seed], retain_graph, create_graph)
    leaves = {id(t): t for record in tape.records.values() for t in record.targets or ()
              if getattr(t, "requires_grad", False) and t.creator is None}
    if tensor.creator is None:
        leaves[id(tensor)] = tensor
    retained = {id(t): t for t in tape.tensors if t.retains_grad}
    with Switch(create_graph):
        for key, leaf in (leaves | retained).items():
            if key in found:
                grad = found[key] if key in retained else _apply_hooks(leaf, found[key])
                leaf.grad = as_tensor(grad) if leaf.grad is None else leaf.grad + grad


def _seed(tensor: Tensor, gradient: Any) -> Any:
    if gradient is not None:
        seed = as_tensor(gradient)
        if seed.shape != tensor.shape:
            raise GradientError(f"backward(gradient of type {seed.type}) on a tensor of type {tensor.type}: "
                                "the shapes must agree")
        return seed
    if tensor.size != 1:
        raise GradientError(f"backward() starts from one number, this tensor is {tensor.type}; "
                            "reduce it (.sum() or .mean()) or pass gradient=")
    one = ops.constant(1.0, tensor.dtype) if tensor.is_traced else Tensor(np.ones((), tensor.dtype.np))
    return ops.broadcast_to(one, tensor.shape) if tensor.shape else one


def value_and_grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0,
                   has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives (value, gradient) of `function`, whose result must be one number.

    Args:
        argnums: which positional arguments to differentiate by (each may be a nested container of tensors).
        has_aux: `function` returns (value, anything else); then so does the result: ((value, aux), gradient).
    Raises:
        GradientError: the value is not one floating point number.

    >>> import tinytorch as tt
    >>> tt.value_and_grad(lambda x: (x * x).sum())(tt.tensor([1.0, 3.0]))
    (tensor(10.), tensor([2., 6.]))
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        picked = [args[i] for i in numbers]
        leaves, tree = flatten(picked)
        recording = grad_mode.enabled
        with enable_grad():
            inner = [_fresh(x) for x in leaves]
        replaced = dict(zip(numbers, unflatten(tree, inner), strict=True))
        with enable_grad():
            result = function(*(replaced.get(i, a) for i, a in enumerate(args)), **kwargs)
            value, aux = result if has_aux else (result, None)
            if not isinstance(value, Tensor) or value.size != 1 or not value.dtype.is_float:
                raise GradientError(f"grad of {getattr(function, '__name__', function)}: it must return one floating "
                                    f"point number, it returned {getattr(value, 'type', type(value).__name__)}")
            create = recording and (any(isinstance(x, Tensor) and x.requires_grad for x in leaves)
                                    or _leans_on_others(value, inner))
            found, _ = run_backward([value], [_seed(value, None)], True, create, frozenset(map(id, inner)))
            grads = [as_tensor(found[id(x)]) if id(x) in found else x.zeros_like() for x in inner]
        for x in inner:  # nobody can ask for the gradient of a handle that was made here
            x.requires_grad = x.creator is not None
        if not create:
            value, grads = value.detach(), [g.detach() for g in grads]
        gradient = unflatten(tree, grads)
        return (value, aux) if has_aux else value, gradient[0] if isinstance(argnums, int) else tuple(gradient)

    return wrapped


def _leans_on_others(value: Tensor, inner: Sequence[Tensor]) -> bool:
    """Whether `value` was made from leaves that require a gradient besides `inner`: those of a grad() further out."""
    seen, todo = {id(x) for x in inner}, [value]
    while todo:
        tensor = todo.pop()
        if id(tensor) in seen or not getattr(tensor, "requires_grad", False):
            continue
        seen.add(id(tensor))
        if not isinstance(tensor.creator, tuple):
            return True
        todo.extend(tensor.creator[1])
    return False


def _fresh(x: Any) -> Tensor:
    """A handle of its own on `x`, connected to it if `x` is being differentiated further out."""
    tensor = as_tensor(x)
    if not tensor.dtype.is_float:
        raise GradientError(f"grad by an argument of type {tensor.type}: only floating point tensors have gradients")
    if tensor.requires_grad:
        return tensor.alias()
    fresh = Tensor(tensor.payload)
    fresh.requires_grad = True
    return fresh


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a function of tensors, as a function; compose it for higher orders. See `value_and_grad`.

    >>> import tinytorch as tt
    >>> cube = lambda x: x * x * x
    >>> tt.grad(cube)(tt.tensor(2.0)), tt.grad(tt.grad(cube))(tt.tensor(2.0))
    (tensor(12.), tensor(12.))
    """
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapped
