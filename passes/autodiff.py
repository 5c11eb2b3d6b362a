"""Reverse-mode differentiation: of records (the eager tape), and of graphs (`Differentiate`, a pass).

`reverse` walks records backwards and asks each op's `vjp` for the cotangents of its operands. Rules are written in ops,
so they run through the door like anything else: eagerly, traced, or recorded again for second order. The engine sums
over broadcast axes, casts and accumulates, once, here (Griewank and Walther, "Evaluating Derivatives", 2008,
chapter 3).

    >>> from tinytorch.ir import Builder, f32, ops
    >>> build = Builder("square")
    >>> with build: y = ops.sum(build.input("x", f32[3]) ** 2)
    >>> print(Differentiate()(build.finish([y])))                  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Builder, Graph, Kind, Recorder, as_tuple, bind, ops
from tinytorch.ir.errors import GradientError
from tinytorch.ir.interp import Record

RecordOf = Callable[[Any], Record | None]


def reverse(outputs: Sequence[Any], cotangents: Sequence[Any], record_of: RecordOf, stop: frozenset[int] = frozenset(),
            visit: Callable[[Any, Any], Any] | None = None) -> dict[int, Any]:
    """Cotangents of everything that `outputs` depend on.

    Args:
        outputs: handles to start from; cotangents: one handle for each, of the same type.
        record_of: the record that made a handle, or None for a leaf.
        stop: ids of handles to treat as leaves.
        visit: called with each handle that has a record and its complete cotangent; gives the cotangent to go on with.
    Returns:
        `id(handle)` → cotangent, for every handle that was reached.
    Raises:
        GradientError: an op on the way has no gradient.
    """
    found: dict[int, Any] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        _accumulate(found, output, cotangent)
    for record in _latest_first(outputs, record_of, stop):
        if visit is not None:
            found |= {id(out): visit(out, found[id(out)]) for out in record.outputs if id(out) in found}
        grads = [found.get(id(out)) for out in record.outputs]
        operands = record.targets or record.operands
        if any(g is not None for g in grads) and any(operand.dtype.is_float for operand in operands):  # not a literal
            for operand, grad in zip(operands, pull_back(record, grads), strict=True):
                if grad is not None and operand.dtype.is_float:
                    _accumulate(found, operand, grad)
    return found


def pull_back(record: Record, grads: Sequence[Any]) -> Sequence[Any]:
    """Cotangents of the operands of one record, from those of its outputs."""
    op = record.op
    if op.vjp is not None and len(record.outputs) > 1:
        return op.vjp(tuple(grads), record.outputs, *record.operands, **record.attrs)
    if op.vjp is not None:
        return op.vjp(grads[0], record.outputs[0], *record.operands, **record.attrs)
    if op.expand is not None or op.kind is Kind.FUSED:
        return _through_expansion(record, grads)
    raise GradientError(
        f"{op}: this op has no gradient ({op.doc}); detach its result, or write it in ops that have one")


def _through_expansion(record: Record, grads: Sequence[Any]) -> Sequence[Any]:
    """Open the op, run its pieces again under a recorder, and differentiate those."""
    recorder = Recorder()
    with recorder:
        if record.op.kind is Kind.FUSED:
            results: Sequence[Any] = inline(record.attrs["body"], record.operands)
        else:
            assert record.op.expand is not None
            results = as_tuple(record.op.expand(*record.operands, **record.attrs))
    made = {id(out): inner for inner in recorder.records for out in inner.outputs}
    given = [(out, g) for out, g in zip(results, grads, strict=True) if g is not None]
    stop = frozenset(id(operand) for operand in record.operands)
    found = reverse([out for out, _ in given], [g for _, g in given], lambda handle: made.get(id(handle)), stop)
    # once each: attention(x, x, x) has one operand
    return [found.pop(id(operand), None) for operand in record.operands]


def _latest_first(outputs: Iterable[Any], record_of: RecordOf, stop: frozenset[int]) -> list[Record]:
    """The records that outputs depend on, each before those it depends on (depth first, without recursion)."""
    order: list[Record] = []
    done: set[int] = set()
    stack: list[tuple[Record, bool]] = []

    def push(handle: Any) -> None:
        record = None if id(handle) in stop else record_of(handle)
        if record is not None and id(record) not in done:
            stack.append((record, False))

    for output in outputs:
        push(output)
        while stack:
            record, ready = stack.pop()
            if ready:
                order.append(record)
            elif id(record) not in done:
                done.add(id(record))
                stack.append((record, True))
                for operand in record.targets or record.operands:
                    push(operand)
    return order[::-1]


def _accumulate(found: dict[int, Any], operand: Any, grad: Any) -> None:
    grad = sum_to(grad, operand)
    before = found.get(id(operand))
    found[id(operand)] = grad if before is None else before + grad


def sum_to(grad: Any, operand: Any) -> Any:
    """`grad` with the shape and dtype of `operand`: summed over the axes along which the operand was broadcast,
    or repeated."""
    if grad.dtype is not operand.dtype:
        grad = ops.cast(grad, operand.dtype)
    if grad.shape == operand.shape:
        return grad
    extra = grad.ndim - operand.ndim
    if extra < 0:
        return ops.broadcast_to(grad, operand.shape)
    ones = tuple(a for a in range(grad.ndim) if a < extra or (operand.shape[a - extra] == 1 and grad.shape[a] != 1))
    if ones:
        grad = ops.sum(grad, ones, keepdims=True)
    if extra:
        grad = ops.reshape(grad, grad.shape[extra:])
    return grad if grad.shape == operand.shape else ops.broadcast_to(grad, operand.shape)


def zeros_like(x: Any) -> Any:
    """Zeros of the type of `x`."""
    return ops.broadcast_to(ops.constant(0, x.dtype), x.shape)


def inline(graph: Graph, operands: Sequence[Any]) -> list[Any]:
    """Run a graph's nodes through the door on handles; gives its outputs as handles."""
    values: dict[Any, Any] = dict(zip(graph.inputs, operands, strict=True))
    last = {value: node for node in graph.nodes for value in node.inputs}
    for node in graph.nodes:
        result = bind(node.op, *(values[v] for v in node.inputs), **node.attrs)
        values |= zip(node.outputs, as_tuple(result), strict=True)
        for value in set(node.inputs).difference(graph.outputs):
            if last[value] is node:
                del values[value]  # eager numbers take memory
    return [values[v] for v in graph.outputs]


@dataclass(frozen=True)
class Differentiate:
    """Graph → graph that returns the gradients of its first output, a single number, one for each floating input.

    Args:
        wrt: numbers of the inputs to differentiate by; None for all that are floating point.
        keep_outputs: return the original outputs first.
    """

    wrt: tuple[int, ...] | None = None
    keep_outputs: bool = True

    def __call__(self, graph: Graph) -> Graph:
        build = Builder(f"{graph.name}_grad", sources=False)
        inputs = [build.input(graph.names[v], v.type, graph.bound.get(v)) for v in graph.inputs]
        with build:
            recorder = Recorder()
            with recorder:
                outputs = inline(graph, inputs)
            if outputs[0].shape != () or not outputs[0].dtype.is_float:
                raise GradientError(f"{graph.name}: gradients start from one floating point number, "
                                    f"its first output is {outputs[0].type}; return a sum or a mean")
            made: Mapping[int, Record] = {id(out): record for record in recorder.records for out in record.outputs}
            found = reverse(outputs[:1], [ops.constant(1.0, outputs[0].dtype)], lambda handle: made.get(id(handle)))
            wrt = [i for i, x in enumerate(inputs) if x.dtype.is_float] if self.wrt is None else self.wrt
            grads = [found.get(id(inputs[i])) for i in wrt]
            results = [zeros_like(inputs[i]) if g is None else g for i, g in zip(wrt, grads, strict=True)]
        return build.finish([*(outputs if self.keep_outputs else ()), *results])
