"""A program: a graph made ready to run. One arena, one table of steps, one native call.

    program = Program(graph, plan_memory(graph), threads=2)
    outputs = program([x_array, w_array])
    len(program.steps), len(program.waves)          # launches of kernels, and the groups in which they are started

Every graph input must be a C-contiguous array of its type; donated ones are overwritten. Results are fresh arrays. Each
call takes a *frame* (`frame.py`: arena, argument words, step table) from a pool, so several Python threads may call one
program at once.

Steps that may run side by side are one *wave* (`schedule.py`): its parts are shared by all threads, or run one after
the other where there is too little to share.

A position that is out of range (in `take`, `scatter_add`, …) raises IndexError, and nothing is lost: the steps that
check positions, and those they wait for, run first, and donated inputs that one of them overwrites are put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinytorch.ir import Cost, Graph, Kind, MemoryPlan, Node, Value, node_cost, ops
from tinytorch.ir.errors import ShapeError
from tinytorch.ir.layout import layouts

from . import buffers, pool
from .build import Kernel, compile_kernels
from .emit import emit_node
from .frame import Frame, address_of
from .launch import STATUS, Launch, Ref, Scratch, ScratchStride, Status
from .move import emit_copy
from .schedule import WORTH_WAKING, Footprint, Touch, estimated_time, is_shared, waves

IDLE_FRAMES = 4  # that a program keeps for its next calls


@dataclass(frozen=True)
class Step:
    """A kernel that a program runs, on what, and the node it belongs to (None for a copy at the end)."""

    launch: Launch
    node: Node | None
    kernel: Kernel


@dataclass(frozen=True)
class _Spot:
    """Where a value begins: "arena", "input", "output" or "constant", which one, and how many bytes in."""

    place: str
    number: int
    offset: int


@dataclass(frozen=True)
class _Pending:
    """A step before its kernel is compiled: where its operands and results are, and what memory it touches."""

    launch: Launch
    node: Node | None
    spots: dict[Ref, _Spot]
    footprint: Footprint


class Program:
    """A compiled graph; call it with the arrays of all its inputs, in order.

    Attributes:
        steps: launches of kernels, in the order in which they run.
        waves: the numbers of the steps that are started together; waves run one after the other.
        parts: the steps that check positions, with those they wait for, and all others; or all steps.
        shares, rouses: the last word of each row of the table, and whether it is worth waking workers (`pool.py`).
        starts, template, fixed, results: where the argument words of each step begin, all of them, and which hold
            addresses: of the frame and of inputs, by place, and of results.
    """

    def __init__(self, graph: Graph, plan: MemoryPlan, threads: int | None = None) -> None:
        self.graph, self.plan = graph, plan
        self.threads = pool.get_num_threads() if threads is None else threads
        self.layouts = layouts(graph)
        self.constants: list[np.ndarray] = []
        self._constant_of: dict[Value, int] = {}
        self._sources = {v: node for node in graph.nodes if node.op.kind is Kind.SOURCE for v in node.outputs}
        self._input_of = {v: i for i, v in enumerate(graph.inputs)}
        self.fresh = [i for i in range(len(graph.outputs)) if i not in graph.donated]
        self._result_of = {graph.outputs[i]: i for i in reversed(self.fresh)}
        pending = self._schedule(self._emit())
        kernels = compile_kernels([p.launch.source for p in pending])
        self.steps = tuple(Step(p.launch, p.node, kernel) for p, kernel in zip(pending, kernels, strict=True))
        self._lay_out([p.spots for p in pending])
        self._written = sorted(set(graph.donated.values()))
        self._sizes = [v.type.nbytes for v in graph.inputs]
        self._apart: list[int] = []  # addresses of inputs of which none lies where a donated one is
        self._types = [(graph.outputs[i].shape, graph.outputs[i].dtype.np) for i in self.fresh]
        self._results = [len(self.fresh) + graph.donated[i] if i in graph.donated else self.fresh.index(i)
                         for i in range(len(graph.outputs))]  # where each is among fresh arrays and inputs
        self._frames: list[Frame] = []

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The different kernels, in order of first use."""
        return tuple({step.kernel.key: step.kernel for step in self.steps}.values())

    @property
    def arena_bytes(self) -> int:
        """Bytes of intermediates: the plan's prediction, and what a frame allocates besides scratch."""
        return self.plan.size

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the workers' scratch memory, all workers together."""
        return self._scratch_stride() * self.threads

    def _scratch_stride(self) -> int:
        return -(-max((step.launch.scratch_bytes for step in self.steps), default=0) // 64) * 64

    # -- making --------------------------------------------------------------------------------------------------------

    def _emit(self) -> list[_Pending]:
        found: list[_Pending] = []
        for node in self.graph.nodes:
            kind = node.op.kind
            if kind is Kind.SOURCE or (kind is Kind.VIEW and self.layouts[node.output].root is not node.output):
                continue
            strides = [self.layouts[v].strides for v in node.inputs]
            aliases = self._aliases(node)
            launches = [n for n in emit_node(node, strides, aliases, self.threads) if n.extent]
            time = estimated_time(node_cost(node)) / max(1, len(launches))
            for launch in launches:
                named = {(ref.place, ref.number) for ref in _refs(launch)}
                reads = [self._touch(v) for n, v in enumerate(node.inputs) if ("input", n) in named]
                writes = [self._touch(v) for n, v in enumerate(node.outputs)
                          if ("output", n) in named or ("input", aliases.get(n)) in named]
                found.append(_Pending(launch, node, self._wire(launch, node.inputs, node.outputs),
                                      _footprint(launch, reads, writes, time)))
        donated = self.graph.donated
        for number, value in sorted(enumerate(self.graph.outputs), key=lambda pair: pair[0] in donated):
            # donated ones come last: inputs are read before they go
            if not self._is_in_place(number, value) and value.type.size:
                layout = self.layouts[value]
                launch = emit_copy(value.type, layout.strides, self.threads, Ref("input", 0), Ref("output", 0))
                target = _Spot("input", donated[number], 0) if number in donated else _Spot("output", number, 0)
                places = {"input": self._spot(value), "output": target}
                written = Touch((target.place, target.number), 0, value.type.nbytes)
                time = estimated_time(Cost(0, 0, value.type.nbytes, value.type.nbytes))
                found.append(_Pending(launch, None, {ref: places[ref.place] for ref in _refs(launch)},
                                      _footprint(launch, [self._touch(value)], [written], time)))
        return found

    def _touch(self, value: Value) -> Touch:
        """The bytes from the first to the last element of a value."""
        spot, strides = self._spot(value), self.layouts[value].strides
        reach = [(n - 1) * s for n, s in zip(value.shape, strides, strict=True)]
        first, last = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
        size = value.dtype.itemsize
        stop = spot.offset + (last + 1) * size if value.type.size else spot.offset
        return Touch((spot.place, spot.number), spot.offset + first * size, stop)

    def _schedule(self, pending: list[_Pending]) -> list[_Pending]:
        """The steps in the order in which they run; sets what depends on it."""
        footprints = [p.footprint for p in pending]
        early, late = waves(footprints, self._checks(pending))
        donated = set(self.graph.donated.values())
        ends = {t.block[1] for wave in early for n in wave for t in footprints[n].writes if t.block[0] == "input"}
        self._endangered = sorted(ends & donated)
        count = sum(map(len, early))
        self.parts = [part for part in (range(count), range(count, len(pending))) if part]
        self.shares: list[int] = []
        ranges: list[range] = []
        together = 0.0
        for wave in early + late:
            ranges.append(range(len(self.shares), len(self.shares) + len(wave)))
            if self.threads > 1 and is_shared(footprints[n] for n in wave):
                together += sum(footprints[n].time for n in wave)
                self.shares += [len(wave) - k << 32 | footprints[n].chunks for k, n in enumerate(wave)]
            else:
                self.shares += [1] * len(wave)
        self.waves = tuple(ranges)
        self.rouses = together >= WORTH_WAKING
        return [pending[n] for wave in early + late for n in wave]

    def _checks(self, pending: Sequence[_Pending]) -> list[int]:
        """The steps that check positions, if that matters. The same positions need not be checked twice."""
        found: dict[object, int] = {}
        for number, step in enumerate(pending if self.graph.donated else ()):
            if step.node is not None and STATUS in step.launch.words:
                found.setdefault(_what_it_checks(step.node), number)
        return list(found.values())

    def _aliases(self, node: Node) -> dict[int, int]:
        """Results that overwrite an operand of the same node."""
        found = {}
        for number, value in enumerate(node.outputs):
            target = self.plan.reuses.get(value)
            for place, operand in enumerate(node.inputs):
                if target is not None and self.layouts[operand].root is target:
                    found[number] = place
                    break
        return found

    def _wire(self, launch: Launch, inputs: Sequence[Value], outputs: Sequence[Value]) -> dict[Ref, _Spot]:
        sides = {"input": inputs, "output": outputs}
        spots = {}
        for ref in _refs(launch):
            value = sides[ref.place][ref.number]
            spot = self._spot(value)
            spots[ref] = _Spot(spot.place, spot.number, spot.offset + ref.elements * value.dtype.itemsize)
        return spots

    def _spot(self, value: Value) -> _Spot:
        layout = self.layouts[value]
        root = layout.root
        while root in self.plan.reuses:
            root = self.layouts[self.plan.reuses[root]].root
        offset = layout.offset * value.dtype.itemsize
        if root in self.plan.offsets:
            return _Spot("arena", 0, self.plan.offsets[root] + offset)
        if root in self._input_of:
            return _Spot("input", self._input_of[root], offset)
        if root in self._sources:
            return _Spot("constant", self._constant(root), offset)
        return _Spot("output", self._result_of[root], offset)

    def _constant(self, value: Value) -> int:
        if value not in self._constant_of:
            node = self._sources[value]
            self._constant_of[value] = len(self.constants)
            self.constants.append(np.ascontiguousarray(node.op.eval(**node.attrs)))
        return self._constant_of[value]

    def _is_in_place(self, number: int, value: Value) -> bool:
        """Whether result `number` is written where it belongs by the node that makes it."""
        spot = self._spot(value)
        if not self.layouts[value].is_packed(value.shape) or spot.offset:
            return False
        if number in self.graph.donated:
            return spot.place == "input" and spot.number == self.graph.donated[number]
        return spot.place == "output" and spot.number == number

    def _lay_out(self, wiring: Sequence[dict[Ref, _Spot]]) -> None:
        """The words of all steps in one template, and which of them hold addresses."""
        words: list[int] = []
        self.starts: list[int] = []
        fixups: dict[str, list[tuple[int, int, int]]] = {
            "arena": [], "scratch": [], "status": [], "input": [], "output": [], "constant": []}
        for step, spots in zip(self.steps, wiring, strict=True):
            self.starts.append(len(words))
            for word in step.launch.words:
                if isinstance(word, Ref):
                    spot = spots[word]
                    fixups[spot.place].append((len(words), spot.number, spot.offset))
                elif isinstance(word, (Scratch, Status)):
                    fixups["scratch" if isinstance(word, Scratch) else "status"].append((len(words), 0, 0))
                elif isinstance(word, ScratchStride):
                    word = self._scratch_stride()
                words.append(word if isinstance(word, int) else 0)
        for at, number, offset in fixups.pop("constant"):
            words[at] = self.constants[number].ctypes.data + offset
        self.results = [(at, self.fresh.index(number), offset) for at, number, offset in fixups.pop("output")]
        self.template = np.array(words, np.int64)
        self.fixed = {place: _columns(rows) for place, rows in fixups.items()}

    # -- running -------------------------------------------------------------------------------------------------------

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once; gives the outputs, where donated ones are the input arrays themselves.

        Raises:
            ShapeError: an array is not of its input's type, not C-contiguous, or donated and read-only.
            IndexError: a position is out of range.
        """
        self._check(arrays)
        return self.run(arrays, list(map(address_of, arrays)))

    def _check(self, arrays: Sequence[np.ndarray]) -> None:
        graph = self.graph
        if len(arrays) != len(graph.inputs):
            raise ShapeError(f"{graph.name} takes {len(graph.inputs)} arrays, got {len(arrays)}")
        for number, (value, array) in enumerate(zip(graph.inputs, arrays, strict=True)):
            expected = f"{graph.name}: input {number} ({graph.names[value]}) must be a C-contiguous array {value.type}"
            if not isinstance(array, np.ndarray):
                raise ShapeError(f"{expected}, got {type(array).__name__}")
            if array.dtype != value.dtype.np or array.shape != value.shape:
                raise ShapeError(f"{expected}, got {array.dtype}{list(array.shape)}")
            if not array.flags.c_contiguous:
                raise ShapeError(f"{expected}, got one with strides {array.strides}; pass np.ascontiguousarray(x)")
            if number in graph.donated.values() and not array.flags.writeable:
                raise ShapeError(f"{expected} that can be overwritten, got a read-only one; pass x.copy()")

    def separate(self, arrays: list[np.ndarray], addresses: list[int]) -> None:
        """Make sure that nothing else lies where a donated input is: other arrays that overlap it are copied.

        Args:
            arrays, addresses: of all inputs; those that are copied are replaced in both lists.
        Raises:
            ShapeError: a donated input is read-only, or two of them overlap.
        """
        for i in self._written:
            if not arrays[i].flags.writeable:
                raise ShapeError(f"{self.graph.name} overwrites a tensor {self.graph.inputs[i].type} "
                                 "that is read-only; give it a copy")
        if addresses == self._apart:
            return
        written, seen = set(self._written), list(addresses)
        end, last = 0, -1
        for start, size, i in sorted(zip(addresses, self._sizes, range(len(arrays)), strict=True)):
            if start < end and size and (i in written or last in written):
                if i in written and last in written:
                    raise ShapeError(f"{self.graph.name} overwrites two tensors that share memory, "
                                     f"inputs {last} and {i}")
                other = last if i in written else i
                arrays[other] = arrays[other].copy()
                addresses[other] = address_of(arrays[other])
            if start + size > end:
                end, last = start + size, i
        self._apart = seen if seen == addresses else []

    def run(self, arrays: Sequence[np.ndarray], addresses: list[int], times: int = 0) -> list[np.ndarray]:
        """As calling, unchecked, with the addresses of the arrays already known.

        `times` is the address of an int64 a step for nanoseconds.
        """
        fresh = [buffers.empty(shape, dtype) for shape, dtype in self._types]
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = Frame(self)
        try:
            frame.point_to(addresses, list(map(address_of, fresh)))
            before = [(arrays[i], arrays[i].copy()) for i in self._endangered]
            for part in frame.timed(times) if times else frame.parts:
                part()
                if frame.status[0]:
                    for array, old in before:
                        array[...] = old
                    raise IndexError(self._out_of_range())
        finally:
            frame.status[0] = 0
            if len(self._frames) < IDLE_FRAMES:
                self._frames.append(frame)
        return list(map([*fresh, *arrays].__getitem__, self._results))

    def _out_of_range(self) -> str:
        users = [s.node for s in self.steps
                 if s.node is not None and STATUS in s.launch.words]
        inside = [n for u in users
                  for n in (u.body.nodes if u.body is not None else [u]) if n is u or "extent" in n.attrs]
        lines = "; ".join(dict.fromkeys(f"{n.op} at {n.source}" if n.source else str(n.op) for n in inside))
        return (f"{self.graph.name}: a position or label is out of range in {lines}; it must be less than the extent "
                "of the axis it indexes (labels: one of the classes, from 0)")

    def touched_bytes(self, arrays: Sequence[np.ndarray]) -> int:
        """Run once on an arena filled with a pattern; how far up it was written: the measured high-water mark."""
        high = 0
        for pattern in (0x5A, 0xA5):
            frame = Frame(self)
            frame.arena[:] = pattern
            self._frames.append(frame)
            self(arrays)
            changed = np.flatnonzero(frame.arena[:self.plan.size] != pattern)
            high = max(high, int(changed[-1]) + 1 if changed.size else 0)
        return high


def _footprint(launch: Launch, reads: list[Touch], writes: list[Touch], time: float) -> Footprint:
    """Of a launch that touches these operands and results, and scratch memory if it has some."""
    if launch.scratch_bytes:
        scratch = Touch(("scratch", 0), 0, 1)
        if any(isinstance(word, ScratchStride) for word in launch.words):
            reads = [*reads, scratch]  # beside others of that kind, but not beside one that divides the memory itself
        else:
            writes = [*writes, scratch]
    return Footprint(tuple(reads), tuple(writes), time, max(1, launch.chunks))


def _what_it_checks(node: Node) -> object:
    """What a node checks: which positions, against which extent."""
    if node.op is ops.write_rows:
        return node.inputs[2], node.inputs[0].shape[1], node.inputs[1].shape[1]
    if node.body is not None or "axis" not in node.attrs:
        return node
    return node.inputs[1], node.inputs[0].shape[node.attrs["axis"]]


def _columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(rows, np.int64).reshape(-1, 3)
    return table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy()


def _refs(launch: Launch) -> list[Ref]:
    return [word for word in launch.words if isinstance(word, Ref)]
