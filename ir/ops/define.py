"""Shorthand for writing op records: what all pointwise ops, all reductions, … have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype, bf16, f16
from ..errors import DTypeError, OpError, ShapeError, TinyTorchError
from ..interp import Builder, Evaluate, Operand
from ..op import Kind, Op, registry
from ..types import Shape, TensorType, broadcast_shapes, normalize_axes, reduced_shape
from .leading import aligned, shifted

Scalar = (bool, int, float)
Prepared = tuple[tuple[Any, ...], dict[str, Any]]  # what `prepare` returns: operands and attributes


def lift(thing: Any, dtype: DType | None = None) -> Any:
    """`thing` as a handle: handles stay, arrays and numbers become constants (numbers of `dtype`, if one is given)."""
    if isinstance(thing, Operand):
        return thing
    if isinstance(thing, np.ndarray):
        return Operand(thing)
    if isinstance(thing, (*Scalar, np.generic)):
        given = dtype or as_dtype(thing.dtype if isinstance(thing, np.generic) else type(thing))
        try:
            return Operand(np.asarray(thing, given.np))
        except OverflowError:
            raise DTypeError(f"{thing} does not fit {given}; convert the tensor to a wider type first, "
                             "as in x.to(tt.i64)") from None
    if isinstance(thing, (list, tuple)):
        return Operand(np.asarray(thing))
    raise OpError(f"expected a tensor, a NumPy array or a number, got {type(thing).__name__}: {thing!r:.80}")


def cast_to(x: Any, dtype: DType) -> Any:
    """`x` with another element type; nothing to do if it has it already."""
    return x if x.dtype is dtype else registry["cast"](x, dtype)


def widened(x: np.ndarray) -> np.ndarray:
    """`x`, in f32 if its type is one that only stores."""
    return x.astype(np.float32) if x.dtype in (f16.np, bf16.np) else x


@cache
def _loop_dtypes(ufunc: np.ufunc, keys: tuple[Any, ...]) -> tuple[DType, ...]:
    """The element types NumPy would compute in: one per operand, then the result's. Python scalars stand as their type.

    They are weak beside bf16 too (bf16 · 1.0 is bf16): NEP 50 means it, but NumPy does not know it of a foreign dtype.
    """
    only_bf16 = {k for k in keys if not isinstance(k, type)} == {bf16.np}
    try:
        found = ufunc.resolve_dtypes((*((bf16.np,) * len(keys) if only_bf16 else keys), None))
    except TypeError:
        shown = ", ".join(k.__name__ if isinstance(k, type) else str(as_dtype(k)) for k in keys)
        raise DTypeError(
            f"{ufunc.__name__} is not defined for ({shown}); convert an operand first, as in x.to(tt.f32)") from None
    return tuple(as_dtype(d) for d in found)


def _key(x: Any) -> Any:
    if isinstance(x, Operand):
        dtype = x.payload.dtype
        return dtype.np if isinstance(dtype, DType) else dtype
    if type(x) in Scalar:
        return np.dtype(bool) if type(x) is bool else type(x)
    return float if type(x) is np.float64 else lift(x).dtype.np  # a float too, as np.sqrt(2) gives: as weak as Python's


def _as_operand(x: Any, dtype: DType) -> Any:
    """`x` as a handle of this element type."""
    if isinstance(x, Operand):
        own = x.payload.dtype
        return x if own is dtype.np or own is dtype else cast_to(x, dtype)
    return lift(x, dtype) if isinstance(x, Scalar) else cast_to(lift(x), dtype)


def pointwise(name: str, ufunc: np.ufunc, scalar: str, doc: str, *, vjp: Callable[..., Any] | None = None,
              eval: Callable[..., Any] | None = None, flops: int = 1, transcendental: bool = False,
              commutative: bool = False) -> Op:
    """An elementwise op. `ufunc` gives its meaning and its promotion;
    `eval` replaces the meaning where there is no such ufunc."""
    arity = ufunc.nin
    known: dict[Any, tuple[tuple[DType, ...], bool]] = {}  # what eager code asks again and again

    def prepare(*operands: Any) -> Prepared:
        key = tuple([x.payload.dtype if isinstance(x, Operand) else type(x) for x in operands])
        if key in known:
            dtypes, ready = known[key]
            return operands if ready else tuple([_as_operand(x, d) for x, d in zip(operands, dtypes, strict=False)]), {}
        if len(operands) != arity:
            raise OpError(f"{name} takes {arity} operand{'s' * (arity > 1)}, got {len(operands)}")
        dtypes = _loop_dtypes(ufunc, tuple(map(_key, operands)))
        found = tuple([_as_operand(x, d) for x, d in zip(operands, dtypes, strict=False)])
        if all(isinstance(x, Operand) or type(x) in Scalar for x in operands):
            known[key] = dtypes, all(x is y for x, y in zip(operands, found, strict=True))
        return found, {}

    def infer(*types: TensorType) -> TensorType:
        dtypes = _loop_dtypes(ufunc, tuple(t.dtype.np for t in types))
        if any(t.dtype is not d for t, d in zip(types, dtypes, strict=False)):
            raise DTypeError(f"{name}({', '.join(map(str, types))}): operands must be of the element types NumPy "
                             f"computes in, ({', '.join(map(str, dtypes[:-1]))}); insert casts")
        return TensorType(dtypes[-1], broadcast_shapes(*(t.shape for t in types)))

    return Op(name=name, kind=Kind.POINTWISE, doc=doc, infer=infer, eval=eval or ufunc, prepare=prepare, vjp=vjp,
              scalar=scalar, transcendental=transcendental, commutative=commutative,
              flops=lambda out, *types: flops * out.size, vmap=aligned)


def attributes(function: Callable[..., Prepared]) -> Callable[..., Prepared]:
    """A `prepare` written as a function with named attributes; a wrong call names the op and its signature."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]

    def prepare(*args: Any, **kwargs: Any) -> Prepared:
        try:
            return function(*args, **kwargs)
        except TinyTorchError:
            raise
        except TypeError as error:
            name = next(op.name for op in registry.values() if op.prepare is prepare)
            reason = str(error).removeprefix(f"{function.__qualname__}() ")
            raise OpError(
                f"{name}{signature.replace(parameters=bare, return_annotation=signature.empty)}: {reason}") from None

    prepare.__signature__ = signature  # type: ignore[attr-defined]
    return prepare


def reduction(name: str, numpy: Callable[..., Any], doc: str, *, vjp: Callable[..., Any] | None, scalar: str | None,
              identity: Any, accepts: str = "fiub", widen: bool = False) -> Op:
    """An op that folds axes. `widen`: small integers are summed as i64, as in NumPy."""

    def prepare(x: Any, axis: Any = None, keepdims: bool = False) -> Prepared:
        x = lift(x)
        if x.dtype.kind not in accepts:
            raise DTypeError(f"{name} of {x.type}: expected {'a bool' if accepts == 'b' else 'a number'} tensor")
        if widen and x.dtype.kind in "iub":
            x = cast_to(x, as_dtype(np.int64))
        return (x,), {"axis": normalize_axes(axis, x.ndim), "keepdims": bool(keepdims)}

    def infer(x: TensorType, *, axis: Shape, keepdims: bool) -> TensorType:
        if identity is None and any(x.shape[a] == 0 for a in axis):
            raise ShapeError(f"{name} of {x} over axes {axis}: there is no element, and {name} has no value for none")
        return TensorType(x.dtype, reduced_shape(x.shape, axis, keepdims))

    def evaluate(x: np.ndarray, *, axis: Shape, keepdims: bool) -> np.ndarray:
        return np.asarray(numpy(widened(x), axis=axis, keepdims=keepdims)).astype(x.dtype, copy=False)

    prepare.__name__ = name
    return Op(name=name, kind=Kind.REDUCE, doc=doc, infer=infer, eval=evaluate, prepare=attributes(prepare), vjp=vjp,
              scalar=scalar, identity=identity, flops=lambda out, x, **_: x.size, vmap=shifted)


def composite(name: str, expand: Callable[..., Any], prepare: Callable[..., Any], doc: str, *,
              vjp: Callable[..., Any] | None = None, kind: Kind = Kind.COMPOSITE,
              flops: Callable[..., int] | None = None, native: Callable[..., bool] = Op.native,
              eval: Callable[..., Any] | None = None, vmap: Callable[..., Any] | None = None) -> Op:
    """An op that is defined by simpler ones: its type and meaning are its expansion's. `eval` is a faster way to the
    same numbers, for eager code."""

    @lru_cache(maxsize=512)
    def infer_cached(types: tuple[TensorType, ...], attrs: tuple[tuple[str, Any], ...]) -> Any:
        build = Builder(sources=False)
        with build:
            result = expand(*(build.input("x", t) for t in types), **dict(attrs))
        return tuple(r.type for r in result) if isinstance(result, tuple) else result.type

    def infer(*types: TensorType, **attrs: Any) -> Any:
        return infer_cached(types, tuple(attrs.items()))

    def evaluate(*arrays: np.ndarray, **attrs: Any) -> Any:
        with Evaluate():
            result = expand(*map(Operand, arrays), **attrs)
        return tuple(r.payload for r in result) if isinstance(result, tuple) else result.payload

    return Op(name=name, kind=kind, doc=doc, infer=infer, eval=eval or evaluate, prepare=prepare, vjp=vjp,
              expand=expand, flops=flops or Op.flops, native=native, vmap=vmap)


def pair(n: int | Sequence[int]) -> tuple[int, int]:
    """One number for both axes, or one for each."""
    found = (n, n) if isinstance(n, (int, np.integer)) else tuple(n)
    if len(found) != 2:
        raise ShapeError(f"expected one number or two, got {n!r}")
    return int(found[0]), int(found[1])
