"""Functions of functions that run as passes: `vmap`, `jvp`, `hvp`.

    per_sample = tt.vmap(tt.grad(loss), in_axes=(None, 0, 0))(weights, images, labels)
    y, slope = tt.jvp(f, (x,), (direction,))
    curvature = tt.hvp(loss, weights, direction)

A function is traced on arguments like those given, a pass rewrites the graph (`passes.Vmap`, `passes.Jvp`), and the
result is replayed through the door: so they work on numbers, inside other traces and compiled functions, compose with
one another and with `tt.grad`, and gradients flow through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinytorch.frontends.trace import Trace, is_traceable
from tinytorch.frontends.trace import trace as trace_function
from tinytorch.frontends.tree import flatten, unflatten
from tinytorch.ir import TensorType, Value
from tinytorch.ir.errors import GradientError, ShapeError, TracingError
from tinytorch.ir.ops.leading import moved
from tinytorch.ir.types import normalize_axis
from tinytorch.passes import Jvp, Vmap
from tinytorch.passes.autodiff import inline

from .autograd import grad
from .surroundings import Surroundings
from .tensor import Tensor, as_tensor

Axes = int | None | Sequence[int | None]


def vmap(function: Callable[..., Any], in_axes: Axes = 0, out_axes: int = 0) -> Callable[..., Any]:
    """A function of many samples, from a function of one.

    Args:
        in_axes: the axis of each argument along which samples lie, None for one that all share; a single number (or
            None) serves all arguments. An argument that is a container of tensors has them all along this axis.
        out_axes: where results have the samples.
    Returns:
        A function of the same arguments, whose results have one more axis. Tensors that `function` captures are shared.
    Raises:
        ShapeError: arguments have no such axis, or not the same number of samples; none is mapped.
        OpError: something in it cannot be mapped, such as random numbers whose key depends on the sample.

    >>> import tinytorch as tt
    >>> squared_length = lambda x: (x * x).sum()
    >>> tt.vmap(squared_length)(tt.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([ 5., 25.])
    >>> tt.vmap(tt.grad(squared_length))(tt.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[2., 4.],
            [6., 8.]])
    """
    def mapped(*args: Any) -> Any:
        leaves, tree = flatten(args)
        axes = _axes_of_leaves(args, in_axes)
        size = _count(leaves, axes)
        moved = [leaf if axis is None else _moved(leaf, axis, 0)
                 for leaf, axis in zip(leaves, axes, strict=True)]
        samples = [leaf if axis is None else _like(TensorType(leaf.dtype, leaf.shape[1:]))
                   for leaf, axis in zip(moved, axes, strict=True)]
        traced, owners = _traced(function, unflatten(tree, samples))
        given = [(leaf, axis is not None) for leaf, axis in zip(moved, axes, strict=True) if is_traceable(leaf)]
        flags = (*(is_mapped for _, is_mapped in given), *(False for _ in owners))
        results = inline(Vmap(size, flags)(traced.graph), [*(as_tensor(leaf) for leaf, _ in given), *owners])
        return traced.results([_moved(y, 0, out_axes) for y in results])

    return mapped


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """f(x) and its derivative along a direction, J v, in one pass forward.

    Args:
        primals: the arguments, tensors or containers of them; tangents: the directions, of the same structure and
            shapes. Those of arguments that are no floating point numbers are left out of account.
    Returns:
        The result, and its tangent, of the same structure.
    Raises:
        GradientError: the structures or shapes differ, or something in it has no gradient.

    >>> import tinytorch as tt
    >>> tt.jvp(lambda x, y: x * x * y, (tt.tensor(3.0), tt.tensor(2.0)), (tt.tensor(1.0), tt.tensor(0.0)))
    (tensor(18.), tensor(12.))
    """
    leaves, tree = flatten(tuple(primals))
    directions, other = flatten(tuple(tangents))
    if tree != other:
        raise GradientError(f"jvp: {len(directions)} tangents for {len(leaves)} primals, or in another structure; "
                            "expected one tangent for each primal, in the same containers")
    given = [as_tensor(leaf) for leaf in leaves if is_traceable(leaf)]
    along = [as_tensor(t) for leaf, t in zip(leaves, directions, strict=True) if is_traceable(leaf)]
    for number, (x, t) in enumerate(zip(given, along, strict=True)):
        if x.dtype.is_float and x.type != t.type:
            raise GradientError(f"jvp: tangent {number} is {t.type}, its primal is {x.type}; they must be of one type")
    traced, owners = _traced(function, tuple(primals))
    wrt = tuple(number for number, x in enumerate(given) if x.dtype.is_float)
    pushed = Jvp(wrt)(traced.graph)
    free = iter([*given, *(along[number] for number in wrt)])
    bound = iter(owners)
    results = [as_tensor(y) for y in inline(pushed, [next(bound if v in pushed.bound else free)
                                                     for v in pushed.inputs])]
    half = len(results) // 2
    return traced.results(results[:half]), traced.results(results[half:])


def hvp(function: Callable[..., Any], x: Any, v: Any) -> Any:
    """The Hessian of a function of x with one number as result, times v: forward mode over the gradient, so the
    Hessian is never made (Pearlmutter, "Fast exact multiplication by the Hessian", 1994).

    >>> import tinytorch as tt
    >>> tt.hvp(lambda x: (x ** 3).sum(), tt.tensor([1.0, 2.0]), tt.tensor([1.0, 1.0]))
    tensor([ 6., 12.])
    """
    return jvp(grad(function), (x,), (v,))[1]


def _traced(function: Callable[..., Any], args: Sequence[Any]) -> tuple[Trace, list[Tensor]]:
    """The trace, and the tensors that it captured."""
    traced = trace_function(function, args, handle=Tensor, names=Surroundings(function).names())
    if traced.mutated:
        raise TracingError(f"{traced.graph.name} overwrites tensors; expected a function that only computes: return "
                           "new values instead")
    return traced, [owner if isinstance(owner, Tensor) else Tensor(owner.payload) for owner in traced.captured]


def _moved(x: Any, source: int, target: int) -> Tensor:
    """`x` with an axis in another place; negative ones count from the end."""
    x = as_tensor(x)
    return as_tensor(moved(x, normalize_axis(source, x.ndim), normalize_axis(target, x.ndim)))


def _like(type_: TensorType) -> Tensor:
    """A stand-in of that type."""
    return Tensor(Value(type_, "sample"))


def _axes_of_leaves(args: Sequence[Any], in_axes: Axes) -> list[int | None]:
    """The axis of each leaf of the arguments; None for what is no tensor."""
    chosen = [in_axes] * len(args) if in_axes is None or isinstance(in_axes, int) else list(in_axes)
    if wrong := [axis for axis in chosen if not (axis is None or isinstance(axis, int))]:
        raise ShapeError(f"vmap(in_axes={in_axes}): {wrong[0]!r} is no axis; expected an integer, or None, for each "
                         "argument; one that is a container has all its tensors along the same")
    if len(chosen) != len(args):
        raise ShapeError(f"vmap(in_axes={in_axes}): {len(chosen)} axes for {len(args)} arguments; expected one each")
    return [axis if is_traceable(leaf) else None for arg, axis in zip(args, chosen, strict=True)
            for leaf in flatten(arg)[0]]


def _count(leaves: Sequence[Any], axes: Sequence[int | None]) -> int:
    sizes = {}
    for number, (leaf, axis) in enumerate(zip(leaves, axes, strict=True)):
        if axis is None:
            continue
        shape = as_tensor(leaf).shape
        if not -len(shape) <= axis < len(shape):
            raise ShapeError(f"vmap: argument {number} of shape {shape} has no axis {axis} for its samples; "
                             "in_axes=None shares it")
        sizes[number] = shape[axis]
    if len(set(sizes.values())) != 1:
        shown = ", ".join(f"argument {number} has {size}" for number, size in sizes.items()) or "no argument is mapped"
        raise ShapeError(f"vmap: all mapped arguments must have the same number of samples: {shown}")
    return next(iter(sizes.values()))
