"""Write the graph of new tokens down, once `Flow` knows how each value depends on time.

    graph = Extension(flow, steps=1, last=False, prefill=False, cache_dtype=f32).finished()

Each value that depends on tokens is written with its new rows only. One that is looked at by later tokens is written
into a cache too, and what looks at it reads the cache. One that no token reaches is written as it was, and where its
rows belong to times, those at the new positions are taken.

With `last`, only the caches need all rows: what they are not made of is written for one row a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinytorch.ir import Builder, DType, Graph, Kind, Node, Operand, Value, as_tuple, bind, f32, i8, i64, ops

from .time_axis import (
    BATCH,
    KEYS,
    ROWS,
    Axis,
    Factor,
    extents,
    gathered,
    in_front,
    labels,
    scattered,
    shape_of,
    shaped,
    turned,
)
from .time_flow import AS_KEYS, TABLE, Flow, split


class Extension:
    """The graph being written. Handles of what has been written are kept by value and number of rows."""

    def __init__(self, flow: Flow, steps: int, last: bool, prefill: bool, cache_dtype: DType,
                 window: int | None = None) -> None:
        self.flow, self.steps, self.prefill, self.cache_dtype, self.window = flow, steps, prefill, cache_dtype, window
        self.build = Builder(f"{flow.graph.name}_extend", sources=False)
        tokens = flow.graph.free[0]
        self.batch, self.capacity = tokens.shape
        self.whole = _needed_whole(flow) if last and steps > 1 else None
        given = self.build.input("tokens", tokens.dtype[self.batch, steps])
        self.positions = self.build.input("positions", i64[self.batch])
        self.last = self.build.input("last", i64[self.batch]) if last else None
        self.rows: dict[tuple[Value, int], Any] = {(tokens, steps): given}
        self.keys: dict[Value, Any] = {}
        self.caches: dict[tuple[Value, int | None], tuple[Any, ...]] = {}
        self.tables: dict[Any, Any] = {}
        self.updates: list[tuple[Value, Any]] = []  # an input, and what overwrites it

    def finished(self) -> Graph:
        """The whole graph: tokens, positions, caches and bound inputs to the outputs and the caches."""
        flow, graph = self.flow, self.flow.graph
        with self.build:
            for node in flow.nodes:
                self._write(node)
            outputs = [self._output(flow.same.get(v, v)) for v in graph.outputs]
        for value, array in {**graph.bound, **flow.bound}.items():
            self.build.inputs.append(value)
            self.build.bound[value] = array
        donated = {len(outputs) + n: value for n, (value, _) in enumerate(self.updates)}
        return self.build.finish([*outputs, *(new for _, new in self.updates)], donated)

    def _output(self, value: Value) -> Any:
        return self._of(value, 1 if self.last is not None else self.steps)

    def _write(self, node: Node) -> None:
        if not any(v in self.flow.facts for v in node.outputs):
            self.build.nodes.append(node)
            return
        before = len(self.build.nodes)
        count = self._count(node.output)
        if node in self.flow.bands:
            result = self._attend(node, count)
        else:
            operands = [self._operand(node, number, count) for number in range(len(node.inputs))]
            result = bind(node.op, *operands, **self._attrs(node, count))
        results = as_tuple(result)
        if node.output in self.flow.guarded:
            results = (self._guarded(results[0], node.output, count),)
        for value, handle in zip(node.outputs, results, strict=False):
            self.rows[value, count] = handle
        self._sign(before, node)

    def _sign(self, before: int, node: Node) -> None:
        """The user's line, for what has been written since."""
        self.build.nodes[before:] = [replace(new, source=node.source) for new in self.build.nodes[before:]]

    def _attrs(self, node: Node, count: int) -> dict[str, Any]:
        """The attributes, with the extents that the result has now."""
        attrs = dict(node.attrs)
        if node.op in (ops.reshape, ops.broadcast_to):
            attrs["shape"] = self.flow.shape(node.output, count)
        elif node.op is ops.slice:
            attrs["size"] = self.flow.shape(node.output, count)
        return attrs

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _count(self, value: Value) -> int:
        """How many rows of a value are needed."""
        return self.steps if self.whole is None or value in self.whole else 1

    def _begins(self, count: int) -> Any:
        """Where the first of so many rows stands, (batch,)."""
        return self.positions if count == self.steps or self.last is None else self.positions + self.last

    def _index(self, count: int) -> Any:
        """Where each row stands, (batch, rows)."""
        key = ("index", count)
        if key not in self.tables:
            shape = (self.batch, count)
            begins = ops.reshape(self._begins(count), (self.batch, 1))
            self.tables[key] = begins + ops.iota(shape, 1) if count > 1 else begins
        return self.tables[key]

    def _of(self, value: Value, count: int) -> Any:
        """So many rows of a value: all new ones, or the last."""
        if (value, count) not in self.rows:
            self.rows[value, count] = self._selected(value)
        return self.rows[value, count]

    def _selected(self, value: Value) -> Any:
        """The last row of each sequence."""
        lay = self.flow.facts[value].lay
        x = gathered(self.rows[value, self.steps], lay, {ROWS: self.steps})
        number = self.last + ops.iota((self.batch,), 0) * self.steps
        flat = ops.reshape(x, (self.batch * self.steps, *x.shape[2:]))
        picked = ops.take(flat, number, 0)
        return scattered(ops.reshape(picked, (self.batch, 1, *x.shape[2:])), lay, {ROWS: 1})

    # -- operands ------------------------------------------------------------------------------------------------------

    def _operand(self, node: Node, number: int, count: int) -> Any:
        value, meeting = node.inputs[number], self.flow.meetings[node]
        use = meeting.uses[number]
        if use == AS_KEYS:
            return self._keys(value)
        if use == TABLE:
            return self._table(node, number, count)
        return self._of(value, count) if value in self.flow.facts else Operand(value)

    def _guarded(self, x: Any, value: Value, count: int) -> Any:
        """x, -inf where a key is later than its row: there, a mask has made it so low that exp gives 0."""
        lay = self.flow.facts[value].lay
        axes = dict(enumerate(lay))
        key = lay.index((Factor(self.capacity, KEYS),))
        own = self._placed(self._index(count), [], tuple(axes), axes, count)
        return ops.where(ops.ge(own, ops.iota([self.capacity if p == key else 1 for p in axes], key)), x, -math.inf)

    def _table(self, node: Node, number: int, count: int) -> Any:
        """The rows at the new positions of an operand that no token has made, after what axes broadcasting may add."""
        value, meeting = node.inputs[number], self.flow.meetings[node]
        to, axes = meeting.places[number], meeting.axes
        full = (*range(meeting.lead - sum(place < meeting.lead for place in to)), *to)
        x = self._made(value, full, axes, count)
        if node.op.kind is Kind.POINTWISE:  # it repeats
            return x
        own = (*(1,) * (len(full) - len(to)), *value.shape)
        return ops.broadcast_to(x, [shape_of((axes[place],), {ROWS: count})[0] if n != 1 else m
                                    for place, n, m in zip(full, own, x.shape, strict=True)])

    def _made(self, value: Value, full: tuple[int, ...], axes: Mapping[int, Axis], count: int) -> Any:
        """Those rows: computed where elements are, taken where they are known."""
        key = (value, full, count, tuple(sorted(axes.items())))
        if key not in self.tables:
            self.tables[key] = self._make(value, full, axes, count)
        return self.tables[key]

    def _make(self, value: Value, full: tuple[int, ...], axes: Mapping[int, Axis], count: int) -> Any:
        node = self.flow.producer.get(value)
        shape = (*(1,) * (len(full) - len(value.shape)), *value.shape)
        timed = [n != 1 and ROWS in labels((axes.get(p, ()),)) for n, p in zip(shape, full, strict=True)]
        if not any(timed):
            return Operand(value)
        if node is not None and node.op is ops.broadcast_to:
            return self._made(node.inputs[0], full, axes, count)
        if node is not None and node.op.kind is Kind.POINTWISE:
            return bind(node.op, *(self._made(v, full, axes, count) for v in node.inputs), **node.attrs)
        if node is not None and node.op is ops.iota:
            axis = node.attrs["axis"] + len(shape) - len(value.shape)
            if not timed[axis]:
                return ops.iota([1 if a != axis else n for a, n in enumerate(shape)], axis, node.attrs["dtype"])
            if len(axes[full[axis]]) == 1:
                return ops.cast(self._placed(self._index(count), [], full, axes, count), node.attrs["dtype"])
        factors = split(shape, full, axes)
        order = in_front(factors, BATCH, ROWS)
        x = turned(shaped(self._kept(value), [f.extent for f in factors]), order)
        index = self._index(count)
        if any(f.label == BATCH for f in factors):
            x = ops.reshape(x, (self.batch * self.capacity, *x.shape[2:]))
            index = index + ops.iota((self.batch, 1), 0) * self.capacity
        held = [place for n, place in zip(shape, full, strict=True) if n != 1]
        return self._placed(ops.take(x, index, 0), held, full, axes, count)

    def _kept(self, value: Value) -> Any:
        """A table to take rows from; one that is made of literals alone is made here, once."""
        if not self.flow.is_literal(value):
            return Operand(value)
        if ("kept", value) not in self.tables:
            self.tables["kept", value] = self.build.input(f"{value.hint}_table", value.type,
                                                          bound=self.flow.table(value))
        return self.tables["kept", value]

    def _placed(self, x: Any, held: Sequence[int], full: Sequence[int], axes: Mapping[int, Axis], count: int) -> Any:
        """x (batch, rows, other factors of the axes `held`), each where the common axes have it."""
        sizes = {BATCH: self.batch, ROWS: count}
        source: dict[tuple[int, int], int] = {}  # (axis, factor) -> axis of x
        wanted: list[tuple[int, int]] = []
        at = 2
        for place in full:
            axis = axes.get(place, ())
            mine = labels((axis,)) & {BATCH, ROWS}
            for n, factor in enumerate(axis):
                if factor.label in (BATCH, ROWS):
                    source[place, n] = (BATCH, ROWS).index(factor.label)
                elif place in held:
                    source[place, n] = at
                    at += 1
                elif not mine:
                    continue
                wanted.append((place, n))
        if self.batch == 1:
            x = ops.reshape(x, x.shape[1:])
            source = {spot: axis - 1 for spot, axis in source.items()}
        x = turned(x, [source[spot] for spot in wanted if spot in source])
        got = [extents((axes[place][n],), sizes)[0] for place, n in wanted]
        x = shaped(x, [n if spot in source else 1 for spot, n in zip(wanted, got, strict=True)])
        x = x if x.shape == tuple(got) else ops.broadcast_to(x, got)
        grouped = dict.fromkeys(full, 1)
        for (place, _), n in zip(wanted, got, strict=True):
            grouped[place] *= n
        return shaped(x, [grouped[place] for place in full])

    # -- caches --------------------------------------------------------------------------------------------------------

    def _keys(self, value: Value) -> Any:
        """A value at all times up to the capacity, from its cache, or from that of what it is a repetition of."""
        if value not in self.keys:
            origin = self.flow.origin(value)
            if origin is value:
                lay = self.flow.facts[value].lay
                self.keys[value] = scattered(self._stored(value), lay, {})
            else:
                node = self.flow.producer[value]
                self.keys[value] = bind(node.op, self._keys(node.inputs[0]), **node.attrs)
        return self.keys[value]

    def _stored(self, value: Value) -> Any:
        """(batch, capacity, other factors) as numbers of the value's type."""
        cache, *scale = self._cache(value)
        x = cache if cache.dtype is value.dtype else ops.cast(cache, value.dtype)
        return x * ops.reshape(scale[0], (*scale[0].shape, 1)) if scale else x

    def _cache(self, value: Value, groups: int | None = None) -> tuple[Any, ...]:
        """The cache of a value with its new rows, and its scales if there are some; see `_new`."""
        if (value, groups) not in self.caches:
            self.caches[value, groups] = tuple(self._updated(part) for part in _packed(
                self._new(value, groups), self.cache_dtype))
        return self.caches[value, groups]

    def _new(self, value: Value, groups: int | None) -> Any:
        """The new rows of a value, (batch, rows, every other factor), or (batch, rows, groups, width)."""
        x = gathered(self._of(value, self.steps), self.flow.facts[value].lay, {ROWS: self.steps})
        return x if groups is None else shaped(x, (*x.shape[:2], groups, math.prod(x.shape[2:]) // groups))

    def _updated(self, rows: Any) -> Any:
        cache = self.build.input(f"cache_{len(self.updates)}", rows.dtype[self.batch, self.capacity, *rows.shape[2:]])
        new = ops.write_rows(cache, rows, self.positions)
        self.updates.append((cache.payload, new))
        return new

    def _attend(self, node: Node, count: int) -> tuple[Any, ...]:
        q = self._of(node.inputs[0], count)
        k, v = (self.flow.heads[value] for value in node.inputs[1:3])
        (keys, *key_scale), (values, *value_scale) = self._cache(*k), self._cache(*v)
        scale = node.attrs["scale"]
        window = min((w for w in (self.flow.bands[node], self.window) if w is not None), default=None)
        if self.prefill and count == self.steps and window is None:
            return (ops.attend(q, self._new(*k), self._new(*v), None, True, scale)[0],)
        return (ops.attend_cached(q, keys, values, self._begins(count), *key_scale, *value_scale, scale=scale,
                                  window=window),)


def _needed_whole(flow: Flow) -> set[Value]:
    """The values of which all rows are needed: those that caches are made of."""
    whole = set(flow.cached)
    for node in reversed(flow.nodes):
        if any(v in whole for v in node.outputs):
            whole.update(v for v in node.inputs if v in flow.facts)
    return whole


def _packed(x: Any, dtype: DType) -> tuple[Any, ...]:
    """What a cache keeps of rows: f32 stands for what they are, i8 comes with a scale for all but the last axis."""
    if not x.dtype.is_float or dtype in (f32, x.dtype) or (dtype is i8 and x.ndim < 3):
        return (x,)
    if dtype is not i8:
        return (ops.cast(x, dtype),)
    scale = ops.max(ops.abs(x), -1, True) * (1 / 127)
    steps = ops.round(x / ops.where(ops.eq(scale, 0.0), 1.0, scale))
    return ops.cast(steps, i8), ops.reshape(scale, x.shape[:-1])
