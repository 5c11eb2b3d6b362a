"""New tensors: zeros, ones, ranges, random numbers. Inside a traced function they become part of the program."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.ir import as_dtype, is_tracing, ops
from tinytorch.ir.errors import ShapeError

from .random import next_key
from .tensor import Tensor, as_tensor, tensor


def _shape(parts: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(parts[0]) if len(parts) == 1 and isinstance(parts[0], (tuple, list)) else tuple(parts)


def full(shape: Any, value: float, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of this shape filled with `value` (f32 by default; i64 for an int, bool for a bool).

    >>> import tinytorch as tt
    >>> tt.full((2,), 3.0)
    tensor([3., 3.])
    """
    kind = as_dtype(type(value) if dtype is None else dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(n < 0 for n in shape):
        raise ShapeError(f"a tensor of shape {shape}: extents cannot be negative")
    if is_tracing():
        return as_tensor(ops.broadcast_to(ops.constant(kind.np.type(value).item(), kind), shape))
    return Tensor(np.full(shape, value, kind.np)).requires_grad_(requires_grad)


def zeros(*shape: Any, dtype: Any = "f32", requires_grad: bool = False) -> Tensor:
    """All 0: `zeros(2, 3)` or `zeros((2, 3))`.

    >>> import tinytorch as tt
    >>> tt.zeros(2, dtype="i64")
    tensor([0, 0])
    """
    return full(_shape(shape), 0, dtype, requires_grad)


def ones(*shape: Any, dtype: Any = "f32", requires_grad: bool = False) -> Tensor:
    """All 1.

    >>> import tinytorch as tt
    >>> tt.ones(2)
    tensor([1., 1.])
    """
    return full(_shape(shape), 1, dtype, requires_grad)


def zeros_like(x: Any, dtype: Any = None) -> Tensor:
    """All 0, of the type of x.

    >>> import tinytorch as tt
    >>> tt.zeros_like(tt.tensor([1, 2]))
    tensor([0, 0])
    """
    return full(x.shape, 0, dtype or x.dtype)


def ones_like(x: Any, dtype: Any = None) -> Tensor:
    """All 1, of the type of x.

    >>> import tinytorch as tt
    >>> tt.ones_like(tt.tensor([3.0]))
    tensor([1.])
    """
    return full(x.shape, 1, dtype or x.dtype)


def full_like(x: Any, value: float, dtype: Any = None) -> Tensor:
    """All `value`, of the type of x.

    >>> import tinytorch as tt
    >>> tt.full_like(tt.zeros(2), 7)
    tensor([7., 7.])
    """
    return full(x.shape, value, dtype or x.dtype)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: Any = None) -> Tensor:
    """start, start + step, … below `stop`; of one argument, 0 up to it.

    >>> import tinytorch as tt
    >>> tt.arange(3), tt.arange(1, 2, 0.5)
    (tensor([0, 1, 2]), tensor([1. , 1.5]))
    """
    first, last = (0, start) if stop is None else (start, stop)
    array = np.arange(first, last, step)
    kind = as_dtype(dtype) if dtype is not None else as_dtype("f32" if array.dtype.kind == "f" else "i64")
    if is_tracing() and first == 0 and step == 1:
        return as_tensor(ops.iota((len(array),), 0, kind))
    return tensor(array.astype(kind.np))


def linspace(start: float, stop: float, steps: int, dtype: Any = "f32") -> Tensor:
    """`steps` numbers from `start` to `stop`, both included.

    >>> import tinytorch as tt
    >>> tt.linspace(0, 1, 3)
    tensor([0. , 0.5, 1. ])
    """
    return tensor(np.linspace(start, stop, steps), dtype)


def eye(n: int, m: int | None = None, dtype: Any = "f32") -> Tensor:
    """1 on the diagonal, 0 elsewhere.

    >>> import tinytorch as tt
    >>> tt.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    shape = (n, n if m is None else m)
    return as_tensor(ops.cast(ops.eq(ops.iota(shape, 0), ops.iota(shape, 1)), dtype))


def tril(x: Any, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two axes, 0 above.

    >>> import tinytorch as tt
    >>> tt.tril(tt.ones(2, 2))
    tensor([[1., 0.],
            [1., 1.]])
    """
    n, m = x.shape[-2:]
    return as_tensor(ops.where(ops.ge(ops.iota((n, m), 0) + diagonal, ops.iota((n, m), 1)), x, 0))


def triu(x: Any, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two axes, 0 below.

    >>> import tinytorch as tt
    >>> tt.triu(tt.ones(2, 2))
    tensor([[1., 1.],
            [0., 1.]])
    """
    n, m = x.shape[-2:]
    return as_tensor(ops.where(ops.le(ops.iota((n, m), 0) + diagonal, ops.iota((n, m), 1)), x, 0))


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor that shares the memory of a NumPy array.

    >>> import tinytorch as tt
    >>> import numpy as np
    >>> array = np.zeros(2); x = tt.from_numpy(array); array[0] = 5.0; x
    tensor([5., 0.], dtype=f64)
    """
    as_dtype(array.dtype)
    return Tensor(array)


def rand(*shape: Any, dtype: Any = "f32", requires_grad: bool = False) -> Tensor:
    """Uniform on [0, 1).

    >>> import tinytorch as tt
    >>> tt.rand(2, 3).shape, bool((tt.rand(9) < 1).all())
    ((2, 3), True)
    """
    return as_tensor(ops.random_uniform(next_key(), _shape(shape), dtype)).requires_grad_(requires_grad)


def randn(*shape: Any, dtype: Any = "f32", requires_grad: bool = False) -> Tensor:
    """Standard normal.

    >>> import tinytorch as tt
    >>> tt.randn(2, 3).shape
    (2, 3)
    """
    return as_tensor(ops.random_normal(next_key(), _shape(shape), dtype)).requires_grad_(requires_grad)


def randint(low: int, high: int, shape: Any, dtype: Any = "i64") -> Tensor:
    """Integers low ≤ n < high.

    >>> import tinytorch as tt
    >>> sorted(set(tt.randint(0, 3, (99,)).tolist()))
    [0, 1, 2]
    """
    uniform = ops.random_uniform(next_key(), tuple(shape), "f64")
    return as_tensor(ops.cast(ops.floor(uniform * float(high - low)) + float(low), dtype))


def randperm(n: int) -> Tensor:
    """0 … n - 1 in random order (eager only).

    >>> import tinytorch as tt
    >>> sorted(tt.randperm(4).tolist())
    [0, 1, 2, 3]
    """
    return tensor(np.argsort(rand(n, dtype="f64").numpy(), kind="stable"))
