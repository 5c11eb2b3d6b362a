"""The tensor users hold: numbers (or a traced value), with PyTorch's operators and methods, that knows what made it.

    >>> import tinytorch as tt
    >>> x = tt.tensor([[1.0, 2.0]], requires_grad=True)
    >>> (x * 2).sum().backward()
    >>> x.grad
    tensor([[2., 2.]])
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinytorch.ir import Op, Operand, Value, as_dtype, current, is_tracing, ops
from tinytorch.ir.errors import GradientError, ShapeError, TracingError
from tinytorch.ir.interp import Builder

from .indexing import get_item, set_item
from .watch import touch


class _GradMode(threading.local):
    enabled = True


grad_mode = _GradMode()


class MinMax(NamedTuple):
    """What `x.max(dim)` gives."""

    values: Any
    indices: Any


class Tensor(Operand):
    """An n-dimensional array of one element type.

    Attributes:
        requires_grad: whether operations on it are recorded for `backward`.
        grad: d loss / d self after `backward`, or None.
        shape, dtype, ndim: as in NumPy (dtypes are `tt.f32`, …).

    >>> import tinytorch as tt
    >>> x = tt.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x @ x.T).sum().backward()
    >>> x.shape, x.grad
    ((2, 2), tensor([[ 8., 12.],
            [ 8., 12.]]))
    """

    __slots__ = ("creator", "grad", "hooks", "name", "requires_grad", "retains_grad", "version")

    def __init__(self, payload: np.ndarray | Value) -> None:
        self.payload = payload
        self.requires_grad = False
        self.grad: Tensor | None = None
        self.creator: Any = None
        self.hooks: list[Callable[[Any], Any]] | None = None
        self.retains_grad = False
        self.version = 0

    @classmethod
    def from_op(cls, payload: Any, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Tensor:
        """A result of `op`, which is remembered if an operand requires a gradient."""
        tensor = Tensor(payload)
        if grad_mode.enabled:
            for operand in operands:
                if getattr(operand, "requires_grad", False) and tensor.dtype.is_float and op is not ops.detach:
                    tensor.requires_grad = True
                    tensor.creator = (op, operands, attrs, [getattr(o, "version", 0) for o in operands])
                    break
        return tensor

    @classmethod
    def from_ops(cls, payloads: Sequence[Any], op: Op, operands: Sequence[Any],
                 attrs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The results of an `op` that gives several; each remembers all, for the op's gradient wants them together."""
        tensors = tuple(cls.from_op(payload, op, operands, attrs) for payload in payloads)
        for tensor in tensors:
            if tensor.creator is not None:
                tensor.creator = (*tensor.creator, tensors)
        return tensors

    # -- reading -------------------------------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The numbers as a NumPy array that shares their memory."""
        array = self._numbers()
        touch(array)  # who has it may write
        return array

    def _numbers(self) -> np.ndarray:
        if isinstance(self.payload, Value):
            raise TracingError(f"numpy() or item() of a traced value ({self.type}): its numbers are not known while "
                               "the function is traced; return the tensor and read it outside")
        return self.payload

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """The one number of a tensor of size 1, as a Python number."""
        return self._numbers().item()

    def tolist(self) -> Any:
        """The numbers as nested lists."""
        return self._numbers().tolist()

    __float__ = lambda self: float(self.item())
    __int__ = lambda self: int(self.item())
    __index__ = lambda self: self._numbers().__index__()

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    def numel(self) -> int:
        """Number of elements."""
        return self.size

    @property
    def T(self) -> Tensor:
        """The matrix turned over; of more axes, all in reverse."""
        return ops.transpose(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor with no axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("iteration over a tensor with no axes")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        if isinstance(self.payload, Value):
            return f"tensor(<traced>, {self.type})"
        text = np.array2string(self.payload, separator=", ", prefix="tensor(", precision=4)
        notes = "" if self.dtype.name in ("f32", "i64", "bool") else f", dtype={self.dtype}"
        if isinstance(self.creator, tuple):
            notes += f", grad of {self.creator[0]}"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"tensor({text}{notes})"

    __hash__ = Operand.__hash__

    def __eq__(self, other: object) -> Any:
        return ops.eq(self, other)

    def __ne__(self, other: object) -> Any:
        return ops.ne(self, other)

    # -- gradients -----------------------------------------------------------------------------------------------------

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Record what is done with this tensor from now on; gives the tensor itself."""
        if on and not self.dtype.is_float:
            raise GradientError(f"requires_grad of {self.type}: only floating point tensors have gradients")
        self.requires_grad = on
        return self

    def backward(self, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf it was made from.

        Args:
            gradient: the cotangent to start from, of this tensor's shape; may be left out for one number.
            retain_graph: keep the records, so that backward can run again.
            create_graph: record the gradient's own computation, for second order.
        Raises:
            GradientError: nothing was recorded, or a tensor that is needed was overwritten.
        """
        from .autograd import backward

        backward(self, gradient, retain_graph, create_graph)

    def detach(self) -> Tensor:
        """The same numbers (and memory), through which no gradient flows."""
        tensor = Tensor(self.payload)
        return tensor

    def clone(self) -> Tensor:
        """A copy that gradients flow through."""
        if is_tracing():  # of what is traced, values never change
            return self.alias()
        return self * 1 if self.requires_grad else Tensor(self.payload.copy())

    def alias(self) -> Tensor:
        """Another handle on the same numbers, that gradients flow through."""
        return ops.reshape(self, self.shape)

    def register_hook(self, hook: Callable[[Any], Any]) -> Callable[[], None]:
        """Call `hook(grad)` when this tensor's gradient is complete; what it returns (if not None) replaces it.

        Returns:
            A function that removes the hook.
        """
        if not self.requires_grad:
            raise GradientError("register_hook on a tensor that does not require a gradient")
        self.hooks = [*(self.hooks or ()), hook]
        return lambda: setattr(self, "hooks", [h for h in self.hooks or () if h is not hook])

    def retain_grad(self) -> Tensor:
        """Keep `.grad` of this tensor although it is not a leaf."""
        self.retains_grad = True
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made it."""
        return self.creator is None

    # -- in place ------------------------------------------------------------------------------------------------------

    def copy_(self, source: Any) -> Tensor:
        """Overwrite the numbers, keeping the memory; what was recorded with the old ones has no gradient any more."""
        if self.requires_grad and grad_mode.enabled:
            raise GradientError(
                "a tensor that requires a gradient cannot be overwritten while recording; do it under tt.no_grad()")
        value = as_tensor(source)
        value = value if value.dtype is self.dtype else ops.cast(value, self.dtype)
        value = value if value.shape == self.shape else ops.broadcast_to(value, self.shape)
        current().assign(self, value)
        return self._changed()

    def add_(self, other: Any) -> Tensor:
        """self += other, in place."""
        return self._update(ops.add, other)

    def sub_(self, other: Any) -> Tensor:
        """self -= other, in place."""
        return self._update(ops.sub, other)

    def mul_(self, other: Any) -> Tensor:
        """self *= other, in place."""
        return self._update(ops.mul, other)

    def _update(self, op: Op, other: Any) -> Tensor:
        """self = op(self, other), in place."""
        operands, _ = op.prepare(self, other)
        fits = operands[0] is self and operands[1].shape in ((), self.shape)
        if not fits or self.is_traced or (self.requires_grad and grad_mode.enabled):
            return self.copy_(op(self, other))
        current().update(op, self, operands[1])
        return self._changed()

    def _changed(self) -> Tensor:
        """What was recorded or prepared with the old numbers holds no longer."""
        self.version += 1
        if not self.is_traced:
            touch(self.payload)
        return self

    def zero_(self) -> Tensor:
        """All zeros, in place."""
        return self.copy_(0.0)

    def fill_(self, value: float) -> Tensor:
        """All `value`, in place."""
        return self.copy_(value)

    # -- indexing ------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        return get_item(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.copy_(set_item(self, index, value))

    # -- element types -------------------------------------------------------------------------------------------------

    def to(self, dtype: Any) -> Tensor:
        """The same numbers in another element type."""
        dtype = as_dtype(dtype)
        return self if dtype is self.dtype else ops.cast(self, dtype)

    def float(self) -> Tensor:
        """As f32."""
        return self.to("f32")

    def double(self) -> Tensor:
        """As f64."""
        return self.to("f64")

    def long(self) -> Tensor:
        """As i64."""
        return self.to("i64")

    def bool(self) -> Tensor:
        """As bool."""
        return self.to("bool")

    def type_as(self, other: Tensor) -> Tensor:
        """In the element type of `other`."""
        return self.to(other.dtype)

    # -- elementwise ---------------------------------------------------------------------------------------------------

    def exp(self) -> Tensor: return ops.exp(self)
    def log(self) -> Tensor: return ops.log(self)
    def sqrt(self) -> Tensor: return ops.sqrt(self)
    def rsqrt(self) -> Tensor: return ops.rsqrt(self)
    def abs(self) -> Tensor: return ops.abs(self)
    def sin(self) -> Tensor: return ops.sin(self)
    def cos(self) -> Tensor: return ops.cos(self)
    def tanh(self) -> Tensor: return ops.tanh(self)
    def sigmoid(self) -> Tensor: return ops.sigmoid(self)
    def relu(self) -> Tensor: return ops.relu(self)
    def square(self) -> Tensor: return self * self
    def pow(self, exponent: Any) -> Tensor: return ops.pow(self, exponent)
    def clip(self, min: Any = None, max: Any = None) -> Tensor: return ops.clip(self, min, max)
    def clamp(self, min: Any = None, max: Any = None) -> Tensor: return ops.clip(self, min, max)

    # -- reductions ----------------------------------------------------------------------------------------------------

    def sum(self, dim: Any = None, keepdim: builtins.bool = False) -> Tensor:
        """Σ over `dim` (a number, several, or all)."""
        return ops.sum(self, dim, keepdim)

    def mean(self, dim: Any = None, keepdim: builtins.bool = False) -> Tensor:
        """The mean over `dim`."""
        return ops.mean(self, dim, keepdim)

    def var(self, dim: Any = None, unbiased: builtins.bool = True, keepdim: builtins.bool = False) -> Tensor:
        """The variance over `dim`, divided by n - 1 if `unbiased`."""
        return ops.var(self, dim, keepdim, ddof=int(unbiased))

    def std(self, dim: Any = None, unbiased: builtins.bool = True, keepdim: builtins.bool = False) -> Tensor:
        """The standard deviation over `dim`."""
        return self.var(dim, unbiased, keepdim).sqrt()

    def prod(self, dim: Any = None, keepdim: builtins.bool = False) -> Tensor:
        """Π over `dim`."""
        return ops.prod(self, dim, keepdim)

    def max(self, dim: int | None = None, keepdim: builtins.bool = False) -> Any:
        """The greatest number; with `dim`, (values, indices) along it."""
        return ops.max(self) if dim is None else self._extreme(ops.argmax, dim, keepdim)

    def min(self, dim: int | None = None, keepdim: builtins.bool = False) -> Any:
        """The least number; with `dim`, (values, indices) along it."""
        return ops.min(self) if dim is None else self._extreme(ops.argmin, dim, keepdim)

    def _extreme(self, op: Any, dim: int, keepdim: builtins.bool) -> MinMax:
        where = op(self, dim, keepdims=True)
        values = ops.take_along(self, where, dim)
        return MinMax(values, where) if keepdim else MinMax(values.squeeze(dim), where.squeeze(dim))

    def amax(self, dim: Any = None, keepdim: builtins.bool = False) -> Tensor:
        """The greatest over `dim`; equals share the gradient."""
        return ops.max(self, dim, keepdim)

    def amin(self, dim: Any = None, keepdim: builtins.bool = False) -> Tensor:
        """The least over `dim`; equals share the gradient."""
        return ops.min(self, dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: builtins.bool = False) -> Tensor:
        """The position of the greatest."""
        return ops.argmax(self.flatten(), 0) if dim is None else ops.argmax(self, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: builtins.bool = False) -> Tensor:
        """The position of the least."""
        return ops.argmin(self.flatten(), 0) if dim is None else ops.argmin(self, dim, keepdim)

    def cumsum(self, dim: int) -> Tensor:
        """Running sums along `dim`."""
        return ops.cumsum(self, dim)

    def any(self, dim: Any = None, keepdim: builtins.bool = False) -> Tensor:
        """Whether any is not 0."""
        return ops.max(self.to("u8") if self.dtype.kind == "b" else (self != 0).to("u8"), dim, keepdim) != 0

    def all(self, dim: Any = None, keepdim: builtins.bool = False) -> Tensor:
        """Whether none is 0."""
        return ops.min(self.to("u8") if self.dtype.kind == "b" else (self != 0).to("u8"), dim, keepdim) != 0

    def softmax(self, dim: int = -1) -> Tensor:
        """eˣ / Σeˣ along `dim`."""
        return ops.softmax(self, dim)

    def log_softmax(self, dim: int = -1) -> Tensor:
        """log of softmax along `dim`."""
        return ops.log_softmax(self, dim)

    # -- shapes --------------------------------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape; one extent may be -1."""
        return ops.reshape(self, _spread(shape))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes start_dim to end_dim merged into one."""
        if not self.shape:
            return self.reshape(1)
        first, last = start_dim % self.ndim, end_dim % self.ndim
        return self.reshape(*self.shape[:first], int(np.prod(self.shape[first:last + 1])), *self.shape[last + 1:])

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two axes exchanged."""
        order = list(range(self.ndim))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return ops.transpose(self, order)

    def permute(self, *dims: Any) -> Tensor:
        """Axes in the order `dims`."""
        return ops.transpose(self, _spread(dims))

    def expand(self, *shape: Any) -> Tensor:
        """Repeated along axes of extent 1; -1 keeps an extent."""
        wanted = _spread(shape)
        extra = len(wanted) - self.ndim
        return ops.broadcast_to(self, [self.shape[i - extra] if n == -1 else n for i, n in enumerate(wanted)])

    def squeeze(self, dim: int | None = None) -> Tensor:
        """Without axes of extent 1 (or that one)."""
        if dim is not None and not -self.ndim <= dim < self.ndim:
            raise ShapeError(f"squeeze(dim={dim}) of {self.type}: there is no such axis")
        keep = [n for a, n in enumerate(self.shape) if n != 1 or (dim is not None and a != dim % self.ndim)]
        return self.reshape(*keep) if keep else self.reshape(())

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new axis of extent 1 at `dim`."""
        at = dim % (self.ndim + 1)
        return self.reshape(*self.shape[:at], 1, *self.shape[at:])

    def contiguous(self) -> Tensor:
        """With elements in C order in memory."""
        return self if self.is_traced or self.payload.flags.c_contiguous else self.clone()

    def zeros_like(self) -> Tensor:
        """Zeros of the same type."""
        if not self.is_traced:
            return Tensor(np.zeros(self.shape, self.dtype.np))
        zero = ops.constant(0.0 if self.dtype.is_float else 0, self.dtype)
        return as_tensor(ops.broadcast_to(zero, self.shape))

    # -- products ------------------------------------------------------------------------------------------------------

    def __matmul__(self, other: Any) -> Tensor: return matmul(self, other)
    def __rmatmul__(self, other: Any) -> Tensor: return matmul(other, self)
    def matmul(self, other: Any) -> Tensor: return matmul(self, other)


def _spread(parts: Sequence[Any]) -> tuple[int, ...]:
    """f(2, 3) and f((2, 3)) alike."""
    return tuple(parts[0]) if len(parts) == 1 and isinstance(parts[0], (tuple, list)) else tuple(parts)


def as_tensor(thing: Any, dtype: Any = None) -> Tensor:
    """`thing` as a Tensor, sharing its memory where it can.

    >>> import tinytorch as tt
    >>> x = tt.ones(2); tt.as_tensor(x) is x, tt.as_tensor([1, 2])
    (True, tensor([1, 2]))
    """
    if isinstance(thing, Tensor):
        return thing if dtype is None else thing.to(dtype)
    if isinstance(thing, Operand):
        return Tensor(thing.payload)
    return tensor(thing, dtype)


def tensor(data: Any, dtype: Any = None, requires_grad: builtins.bool = False) -> Tensor:
    """A new tensor from numbers, nested lists, or an array.

    Args:
        dtype: the element type; by default that of an array, f32 for Python floats, i64 for integers, bool.

    >>> import tinytorch as tt
    >>> tt.tensor([[1.0, 2.0]]), tt.tensor([1, 2], dtype="f64")
    (tensor([[1., 2.]]), tensor([1., 2.], dtype=f64))
    """
    if isinstance(data, Tensor) and data.is_traced:
        return data.to(dtype or data.dtype)
    if not isinstance(data, np.ndarray) and hasattr(data, "__array__"):
        data = data.__array__()  # of ours, of NumPy's numbers, of PyTorch's tensors
    array = np.array(data, order="C")
    if array.dtype == object:
        raise ShapeError(f"tensor({str(data)[:60]}): expected numbers in a regular nesting")
    if dtype is not None:
        array = array.astype(as_dtype(dtype).np)
    elif array.dtype == np.float64 and not isinstance(data, np.ndarray):
        array = array.astype(np.float32)
    as_dtype(array.dtype)  # complain now about what we do not have
    builder = current()
    if isinstance(builder, Builder):  # a literal inside a traced function belongs to the program
        return Tensor(builder.lift(Operand(array))).requires_grad_(requires_grad)
    return Tensor(array).requires_grad_(requires_grad)


def matmul(x: Any, y: Any) -> Tensor:
    """x @ y by NumPy's rules: a vector is a row on the left, a column on the right; stacks of matrices broadcast.

    >>> import tinytorch as tt
    >>> tt.matmul(tt.ones(2, 3), tt.ones(3))
    tensor([3., 3.])
    """
    x, y = as_tensor(x), as_tensor(y)
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(f"matmul({x.type}, {y.type}): a number has no axis to multiply over; use *")
    row, column = x.ndim == 1, y.ndim == 1
    left = x.reshape(1, -1) if row else x
    right = y.reshape(-1, 1) if column else y
    if left.ndim > 2 and right.ndim == 2:  # one big product instead of a stack of them
        flat = ops.matmul(left.reshape(-1, left.shape[-1]), right)
        result = flat.reshape(*left.shape[:-1], right.shape[-1])
    else:
        result = ops.matmul(left, right)
    shape = list(result.shape)
    if column:
        del shape[-1]
    if row:
        del shape[-1 if column else -2]
    return result.reshape(tuple(shape)) if row or column else result


class Parameter(Tensor):
    """A tensor that a module owns and an optimiser changes: it requires a gradient from the start.

    >>> import tinytorch as tt
    >>> tt.nn.Parameter(tt.zeros(2))
    tensor([0., 0.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: builtins.bool = True) -> None:
        super().__init__(np.asarray(as_tensor(data).numpy(), order="C"))
        self.requires_grad_(requires_grad)
