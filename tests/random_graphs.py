"""Random well-typed graphs for Hypothesis: pointwise, reductions, views, products, indexing, randomness and composites.

    @given(graphs())
    def test_a_pass_keeps_the_meaning(graph): check_same_meaning(graph, MyPass()(graph))

Numbers stay tame (no exp of something great, no division by nearly nothing), so that a pass which reorders floating
point operations differs by roundings only. Constants are those that rewriting rules look for. Positions are taken
modulo the extent, so every input is valid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinytorch.ir import Builder, DType, Graph, Operand, TensorType, bool_, f32, f64, i64, ops
from tinytorch.ir.ops.define import lift

LARGEST = 600  # elements
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 3.0, -0.0)
Draw = Callable[[Any], Any]


@st.composite
def graphs(draw: Draw, max_nodes: int = 12, steps: tuple[str, ...] | None = None,
           dtypes: tuple[DType, ...] = (f32, f64, i64, bool_), donate: bool = True) -> Graph:
    """A random graph of about `max_nodes` operations; `steps` restricts them to some names of `STEPS`."""
    build = Builder("random")
    build.sources = False
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    pool = [_input(draw, build, rng, f"x{n}", dtypes) for n in range(draw(st.integers(1, 3)))]
    chosen = [STEPS[name] for name in steps or tuple(STEPS)]
    with build:
        for _ in range(draw(st.integers(1, max_nodes))):
            mark = len(build.nodes)
            result = draw(st.sampled_from(chosen))(draw, pool, build)
            if result is None or math.prod(result.shape) > LARGEST:
                del build.nodes[mark:]
            else:
                pool.append(result)
    outputs = [pool[-1], *draw(st.lists(st.sampled_from(pool), max_size=2))]
    return build.finish(outputs, _donations(draw, build, outputs) if donate else None)


def _input(draw: Draw, build: Builder, rng: np.random.Generator, name: str, dtypes: tuple[DType, ...]) -> Any:
    type_ = TensorType(f32 if name == "x0" and f32 in dtypes else draw(st.sampled_from(dtypes)), draw(_shapes()))
    if draw(st.integers(0, 3)):
        return build.input(name, type_)
    array = np.asarray(rng.integers(0, 2, type_.shape)).astype(type_.dtype.np)
    array.flags.writeable = draw(st.booleans())
    return build.input(name, type_, array)


def _shapes() -> st.SearchStrategy[tuple[int, ...]]:
    extents = st.sampled_from((1, 2, 3, 4, 1, 2, 3, 4, 5, 0))
    return st.lists(extents, min_size=0, max_size=3).map(tuple)


def _donations(draw: Draw, build: Builder, outputs: list[Any]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for number, output in enumerate(outputs):
        fits = [v for v in build.inputs if v.type == output.type and v not in found.values()]
        if fits and draw(st.booleans()):
            found[number] = draw(st.sampled_from(fits))
    return found


# -- picking operands --------------------------------------------------------------------------------------------------


def _pick(draw: Draw, pool: list[Any], fits: Callable[[Any], bool] = lambda x: True) -> Any:
    """A value of the pool that fits, the latest most often; None if none does."""
    found = [x for x in pool if fits(x)]
    return draw(st.one_of(st.just(found[-1]), st.sampled_from(found))) if found else None


def _number(draw: Draw, pool: list[Any]) -> Any:
    return _pick(draw, pool, lambda x: x.dtype.kind != "b")


def _floating(draw: Draw, pool: list[Any], ndim: int = 0, full: bool = False) -> Any:
    return _pick(draw, pool, lambda x: x.dtype.is_float and x.ndim >= ndim and (not full or 0 not in x.shape))


def _positions(draw: Draw, pool: list[Any], extent: int) -> Any:
    """Integers from 0 to `extent` - 1."""
    found = _pick(draw, pool, lambda x: x.dtype is i64 and x.ndim <= 2)
    if found is not None:
        return ops.mod(found, extent)
    return lift(np.asarray(draw(st.lists(st.integers(0, extent - 1), min_size=1, max_size=3))))


def _broadcastable(x: Any, y: Any) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(x.shape), reversed(y.shape)))


# -- steps: each gives one more value, or None if it does not apply ----------------------------------------------------


def _unary(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _floating(draw, pool)
    if x is None:
        return None
    return draw(st.sampled_from((
        ops.neg, ops.abs, ops.tanh, ops.sigmoid, ops.sin, ops.cos, ops.erf, ops.floor, ops.sign, ops.detach,
        lambda v: ops.exp(-ops.abs(v)), lambda v: ops.log(ops.abs(v) + 1.0), lambda v: ops.sqrt(ops.abs(v)),
        lambda v: ops.rsqrt(ops.abs(v) + 1.0), lambda v: ops.neg(-v), lambda v: ops.log(ops.exp(ops.tanh(v))),
        lambda v: ops.pow(v, 2.0), lambda v: ops.pow(ops.abs(v), 0.5), lambda v: ops.pow(v, 3.0),
        lambda v: 1.0 / ops.sqrt(ops.abs(v) + 1.0), lambda v: ops.pow(ops.abs(v) + 1.0, -1.0))))(x)


def _binary(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _number(draw, pool)
    y = _pick(draw, pool, lambda y: y.dtype.kind != "b" and _broadcastable(x, y)) if x is not None else None
    if y is None:
        return None
    return draw(st.sampled_from((
        ops.add, ops.sub, ops.mul, ops.maximum, ops.minimum, lambda a, b: a / (ops.abs(b) + 1.0), lambda a, b: a - (-b),
        lambda a, b: (-a) * b,
        lambda a, b: a + (-b))))(x, y)


def _with_number(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _number(draw, pool)
    if x is None:
        return None
    number: Any = draw(st.sampled_from(NUMBERS))
    number = number if x.dtype.is_float else int(number)
    if draw(st.booleans()):
        number = ops.broadcast_to(lift(number, x.dtype), x.shape)
    op = draw(st.sampled_from((ops.add, ops.sub, ops.mul, ops.maximum, lambda a, b: b - a, lambda a, b: b + a)))
    return op(x, number)


def _divide(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _floating(draw, pool)
    return None if x is None else x / draw(st.sampled_from((1.0, 2.0, -4.0, 3.0, 0.25)))


def _compare(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _number(draw, pool)
    if x is None:
        return None
    return draw(st.sampled_from((ops.lt, ops.ge, ops.eq, ops.ne)))(x, draw(st.sampled_from((0, 1))))


def _choose(draw: Draw, pool: list[Any], build: Builder) -> Any:
    c = _pick(draw, pool, lambda c: c.dtype.kind == "b")
    x = _pick(draw, pool, lambda x: _broadcastable(c, x)) if c is not None else None
    if x is None:
        return None
    c = ops.logical_not(c) if draw(st.booleans()) else c
    return ops.where(c, x, draw(st.sampled_from((x, lift(0, x.dtype)))))


def _convert(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool, lambda x: x.dtype.kind != "f")
    if x is None or draw(st.booleans()):
        x = _floating(draw, pool)
        return None if x is None else ops.cast(x, draw(st.sampled_from((f32, f64))))
    return ops.cast(x, draw(st.sampled_from((f32, f64, i64, bool_))))


def _reduce(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool, lambda x: x.dtype.kind != "b" and 0 not in x.shape)
    if x is None:
        return None
    axes = draw(st.lists(st.integers(0, x.ndim - 1), unique=True)) if x.ndim else []
    return draw(st.sampled_from((ops.sum, ops.sum, ops.max, ops.min)))(x, tuple(axes), draw(st.booleans()))


def _position(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _floating(draw, pool, 1, full=True)
    if x is None:
        return None
    return draw(st.sampled_from((ops.argmax, ops.cumsum)))(ops.floor(x), draw(st.integers(0, x.ndim - 1)))


def _transpose(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool)
    return ops.transpose(x, draw(st.permutations(range(x.ndim))))


def _reshape(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool)
    shapes = [(-1,), (1, *x.shape), (*x.shape, 1), tuple(n for n in x.shape if n != 1), tuple(reversed(x.shape))]
    shapes += [(x.shape[0] * x.shape[1], *x.shape[2:])] if x.ndim > 1 else []
    shapes += [(2, x.shape[0] // 2, *x.shape[1:])] if x.ndim and x.shape[0] % 2 == 0 and x.ndim < 4 else []
    return ops.reshape(x, draw(st.sampled_from(shapes)) if x.ndim < 5 and 0 not in x.shape else (1, *x.shape))


def _broadcast(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool, lambda x: x.ndim < 4)
    wide = tuple(draw(st.sampled_from((1, 3))) if n == 1 else n for n in x.shape) if x is not None else ()
    return None if x is None else ops.broadcast_to(x, (*draw(st.sampled_from(((), (2,), (1,)))), *wide))


def _slice(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool, lambda x: x.ndim > 0)
    if x is None:
        return None
    start, size, step = [], [], []
    for n in x.shape:
        stride = draw(st.sampled_from((1, 1, 2, -1)))
        first = draw(st.integers(0, n - 1)) if n else 0
        most = 0 if not n else (n - 1 - first) // stride + 1 if stride > 0 else first + 1
        start.append(first)
        size.append(draw(st.sampled_from((most, max(most - 1, 0)))))
        step.append(stride)
    return ops.slice(x, start, size, step)


def _window(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool, lambda x: 0 < x.ndim < 4 and x.shape[-1] >= 3)
    if x is None:
        return None
    attrs = {"axes": (x.ndim - 1,), "size": (2,), "step": draw(st.sampled_from(((1,), (2,)))), "dilation": (1,)}
    view = ops.windows(x, **attrs)
    return view if x.dtype.kind == "b" or draw(st.booleans()) else ops.fold(view * 2, shape=x.shape, **attrs)


def _pad(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool, lambda x: x.ndim > 0)
    counts = st.sampled_from((0, 0, 1))
    return None if x is None else ops.pad(x, [draw(counts) for _ in x.shape], [draw(counts) for _ in x.shape],
                                          [draw(counts) for _ in x.shape])


def _concat(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _pick(draw, pool, lambda x: x.ndim > 0)
    return None if x is None else ops.concat(*([x] * draw(st.integers(1, 2))), axis=draw(st.integers(0, x.ndim - 1)))


def _matmul(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _floating(draw, pool, 2)
    if x is None:
        return None
    y = _pick(draw, pool, lambda y: y.dtype is x.dtype and y.ndim >= 2 and y.shape[-2] == x.shape[-1]
              and _broadcastable(np.empty(x.shape[:-2]), np.empty(y.shape[:-2])))
    swap = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    choices = [lambda: ops.matmul(x, ops.transpose(x, swap)), lambda: ops.matmul(x, x, True, False),
               lambda: ops.transpose(ops.matmul(x, x, False, True), swap)]
    return draw(st.sampled_from(choices if y is None else [*choices, lambda: ops.matmul(x, y)]))()


def _index(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _floating(draw, pool, 1, full=True)
    if x is None or x.ndim > 2:
        return None
    positions = _positions(draw, pool, x.shape[0])
    picked = ops.take(x, positions, 0)
    return picked if draw(st.booleans()) else ops.scatter_add(x, positions, picked * 0.5, 0)


def _along(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _floating(draw, pool, 1, full=True)
    if x is None:
        return None
    where = ops.argmax(x, -1, keepdims=True)
    picked = ops.take_along(x, where, -1)
    return picked if draw(st.booleans()) else ops.put_along(x, where, picked * 2.0, -1)


def _random(draw: Draw, pool: list[Any], build: Builder) -> Any:
    shape = draw(_shapes())
    return draw(st.sampled_from((ops.random_uniform, ops.random_normal)))(draw(st.sampled_from((0, 1))), shape, f32)


def _count(draw: Draw, pool: list[Any], build: Builder) -> Any:
    return ops.iota((*draw(_shapes()), 3), axis=-1, dtype=draw(st.sampled_from((i64, f32))))


def _literal(draw: Draw, pool: list[Any], build: Builder) -> Any:
    return Operand(build.lift(lift(draw(st.sampled_from((1.0, 0.0, [1.0, 2.0, 3.0], [[0.5], [2.0]], 2, True))))))


def _composite(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _floating(draw, pool, 1, full=True)
    if x is None:
        return None
    return draw(st.sampled_from((
        ops.softmax, ops.log_softmax, ops.mean, ops.var, ops.relu, ops.silu, ops.softplus, ops.gelu, ops.logsumexp,
        ops.layer_norm, ops.rms_norm, ops.leaky_relu, lambda v: ops.gelu(v, "tanh"), lambda v: ops.mean(v, -1, True),
        lambda v: ops.clip(v, -1.0, 1.0),
        lambda v: ops.dropout(v, 1, 0.5))))(x)


def _layer(draw: Draw, pool: list[Any], build: Builder) -> Any:
    x = _floating(draw, pool, 1, full=True)
    if x is None:
        return None
    if x.ndim >= 2 and draw(st.booleans()):
        return ops.attention(x, x, x, causal=draw(st.booleans()))
    if draw(st.booleans()):
        return ops.cross_entropy(x, ops.argmax(x, -1))
    n = x.shape[-1]
    weight = build.input("w", TensorType(x.dtype, (2, n)), np.linspace(-1, 1, 2 * n).astype(x.dtype.np).reshape(2, n))
    return ops.linear(x, weight)


STEPS: dict[str, Callable[[Draw, list[Any], Builder], Any]] = {
    "unary": _unary, "binary": _binary, "number": _with_number, "divide": _divide, "compare": _compare,
    "choose": _choose, "convert": _convert, "reduce": _reduce, "position": _position, "transpose": _transpose,
    "reshape": _reshape, "broadcast": _broadcast, "slice": _slice, "windows": _window, "pad": _pad, "concat": _concat,
    "matmul": _matmul, "index": _index, "along": _along, "random": _random, "count": _count,
    "literal": _literal, "composite": _composite, "layer": _layer,
}
VIEWS = ("transpose", "reshape", "broadcast", "slice", "windows", "unary", "binary", "number")
