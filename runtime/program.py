"""A program: a graph made ready to run. One arena, one table of steps, one native call.

    program = Program(graph, plan_memory(graph), threads=2)
    outputs = program([x_array, w_array])

Every graph input must be a C-contiguous array of its type; donated ones are overwritten. Results are fresh arrays. Each
call takes a *frame* (arena, argument words, step table) from a pool, so several Python threads may call one program at
once.

A position that is out of range (in `take`, `scatter_add`, …) raises IndexError, and nothing is lost: steps up to the
last that checks positions run first, and donated inputs that one of them overwrites are put back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinytorch.ir import Graph, Kind, MemoryPlan, Node, Value
from tinytorch.ir.errors import ShapeError
from tinytorch.ir.layout import layouts

from . import buffers, pool
from .build import Kernel, compile_kernels
from .emit import emit_node
from .launch import Launch, Ref, Scratch, Status
from .move import emit_copy

ALIGN = 64
IDLE_FRAMES = 4  # that a program keeps for its next calls


@dataclass(frozen=True)
class Step:
    """One launch of a program and the node it belongs to (None for a copy at the end)."""

    launch: Launch
    node: Node | None
    kernel: Kernel


@dataclass(frozen=True)
class _Spot:
    """Where a value begins: "arena", "input", "output" or "constant", which one, and how many bytes in."""

    place: str
    number: int
    offset: int


class Program:
    """A compiled graph; call it with the arrays of all its inputs, in order."""

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
        pending = self._emit()
        kernels = compile_kernels([launch.source for launch, _, _ in pending])
        self.steps = tuple(Step(launch, node, kernel)
                           for (launch, node, _), kernel in zip(pending, kernels, strict=True))
        self._lay_out([spots for _, _, spots in pending])
        self._checked, self._endangered = self._find_checks([spots for _, _, spots in pending])
        self.types = [(v.shape, v.dtype.np) for v in graph.outputs]
        self._frames: list[_Frame] = []

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
        return max((step.launch.scratch_bytes for step in self.steps), default=0) * self.threads

    # -- making --------------------------------------------------------------------------------------------------------

    def _emit(self) -> list[tuple[Launch, Node | None, dict[Ref, _Spot]]]:
        found: list[tuple[Launch, Node | None, dict[Ref, _Spot]]] = []
        for node in self.graph.nodes:
            kind = node.op.kind
            if kind is Kind.SOURCE or (kind is Kind.VIEW and self.layouts[node.output].root is not node.output):
                continue
            aliases = self._aliases(node)
            strides = [self.layouts[v].strides for v in node.inputs]
            for launch in emit_node(node, strides, aliases, self.threads):
                if launch.extent:
                    found.append((launch, node, self._wire(launch, node.inputs, node.outputs)))
        donated = self.graph.donated
        for number, value in sorted(enumerate(self.graph.outputs), key=lambda pair: pair[0] in donated):
            # donated ones come last: inputs are read before they go
            if not self._is_in_place(number, value) and value.type.size:
                layout = self.layouts[value]
                launch = emit_copy(value.type, layout.strides, self.threads, Ref("input", 0), Ref("output", 0))
                target = _Spot("input", donated[number], 0) if number in donated else _Spot("output", number, 0)
                places = {"input": self._spot(value), "output": target}
                found.append((launch, None, {ref: places[ref.place] for ref in _refs(launch)}))
        return found

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
        self._starts = []
        fixups: dict[str, list[tuple[int, int, int]]] = {
            "arena": [], "scratch": [], "status": [], "input": [], "output": [], "constant": []}
        for step, spots in zip(self.steps, wiring, strict=True):
            self._starts.append(len(words))
            for word in step.launch.words:
                if isinstance(word, Ref):
                    spot = spots[word]
                    fixups[spot.place].append((len(words), spot.number, spot.offset))
                elif isinstance(word, (Scratch, Status)):
                    fixups["scratch" if isinstance(word, Scratch) else "status"].append((len(words), 0, 0))
                words.append(word if isinstance(word, int) else 0)
        for at, number, offset in fixups.pop("constant"):
            words[at] = self.constants[number].ctypes.data + offset
        count = len(self.graph.inputs)
        given = fixups.pop("input") + [(at, count + number, offset) for at, number, offset in fixups.pop("output")]
        self._template = np.array(words, np.int64)
        self._fixed = {place: _columns(rows) for place, rows in fixups.items()}
        self._given = _columns(given)

    def _find_checks(self, wiring: Sequence[dict[Ref, _Spot]]) -> tuple[int, list[int]]:
        """After how many steps all positions have been checked, and the donated inputs that are overwritten by then.

        0 and none if that does not matter. The same positions need not be checked twice.
        """
        donated = set(self.graph.donated.values())
        seen: set[object] = set()
        last = 0
        for number, step in enumerate(self.steps if donated else ()):
            if step.node is not None and any(isinstance(word, Status) for word in step.launch.words):
                key = _checks(step.node)
                last = last if key in seen else number + 1
                seen.add(key)
        written = {spot.number for spots in wiring[:last]
                   for ref, spot in spots.items() if ref.place == "output" and spot.place == "input"}
        reused = {self._input_of[v] for step in self.steps[:last] if step.node is not None
                  for v in self._overwritten(step.node) if v in self._input_of}
        return last, sorted((written | reused) & donated)

    def _overwritten(self, node: Node) -> list[Value]:
        """The values whose memory the results of `node` take over."""
        return [self.plan.reuses[v] for v in node.outputs if v in self.plan.reuses]

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

    def separate(self, arrays: list[np.ndarray]) -> None:
        """Make sure that nothing else lies where a donated input is: other arrays that overlap it are copied.

        Raises:
            ShapeError: a donated input is read-only, or two of them overlap.
        """
        written = set(self.graph.donated.values())
        for i in written:
            if not arrays[i].flags.writeable:
                raise ShapeError(f"{self.graph.name} overwrites a tensor {self.graph.inputs[i].type} "
                                 "that is read-only; give it a copy")
        end, last = 0, -1
        for start, size, i in sorted((address_of(array), array.nbytes, i) for i, array in enumerate(arrays)):
            if start < end and size and (i in written or last in written):
                if i in written and last in written:
                    raise ShapeError(f"{self.graph.name} overwrites two tensors that share memory, "
                                     f"inputs {last} and {i}")
                other = last if i in written else i
                arrays[other] = arrays[other].copy()
            if start + size > end:
                end, last = start + size, i

    def run(self, arrays: Sequence[np.ndarray], addresses: list[int], times: int = 0) -> list[np.ndarray]:
        """As calling, unchecked, with the addresses of the arrays already known.

        `times` is the address of an int64 a step for nanoseconds.
        """
        donated = self.graph.donated
        results = [arrays[donated[i]] if i in donated else buffers.empty(shape, dtype)
                   for i, (shape, dtype) in enumerate(self.types)]
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = _Frame(self)
        try:
            frame.point_to(addresses + [address_of(r) for r in results])
            if self._checked:
                self._run_checked(frame, arrays, times)
            elif times:
                pool.run(frame.table_address, len(self.steps), self.threads, times)
            else:
                frame.run()
            if frame.status[0]:
                raise IndexError(self._out_of_range())
        finally:
            frame.status[0] = 0
            if len(self._frames) < IDLE_FRAMES:
                self._frames.append(frame)
        return results

    def _run_checked(self, frame: _Frame, arrays: Sequence[np.ndarray], times: int) -> None:
        """Steps that check positions first; when one is out of range, the inputs are as they were."""
        before = [(arrays[i], arrays[i].copy()) for i in self._endangered]
        first = self._checked
        pool.run(frame.table_address, first, self.threads, times)
        if frame.status[0]:
            for array, old in before:
                array[...] = old
            return
        rest = frame.table_address + ROW_BYTES * first
        pool.run(rest, len(self.steps) - first, self.threads, times and times + 8 * first)

    def _out_of_range(self) -> str:
        users = [s.node for s in self.steps
                 if s.node is not None and any(isinstance(w, Status) for w in s.launch.words)]
        inside = [n for u in users
                  for n in (u.body.nodes if u.body is not None else [u]) if n is u or "extent" in n.attrs]
        lines = "; ".join(dict.fromkeys(f"{n.op} at {n.source}" if n.source else str(n.op) for n in inside))
        return (f"{self.graph.name}: a position or label is out of range in {lines}; it must be less than the extent "
                "of the axis it indexes (labels: one of the classes, from 0)")

    def touched_bytes(self, arrays: Sequence[np.ndarray]) -> int:
        """Run once on an arena filled with a pattern; how far up it was written: the measured high-water mark."""
        high = 0
        for pattern in (0x5A, 0xA5):
            frame = _Frame(self)
            frame.arena[:] = pattern
            self._frames.append(frame)
            self(arrays)
            changed = np.flatnonzero(frame.arena[:self.plan.size] != pattern)
            high = max(high, int(changed[-1]) + 1 if changed.size else 0)
        return high


def _checks(node: Node) -> object:
    """What a node checks: which positions, against which extent."""
    if node.body is not None or "axis" not in node.attrs:
        return node
    return node.inputs[1], node.inputs[0].shape[node.attrs["axis"]]


ROW_BYTES = 32  # of the step table: kernel, arguments, extent, chunks


class _Frame:
    """The memory of one call at a time."""

    def __init__(self, program: Program) -> None:
        self.arena = _aligned(program.plan.size)
        self.scratch = _aligned(program.scratch_bytes)
        self.words = program._template.copy()
        status = np.zeros(8, np.int64)
        bases = {"arena": self.arena.ctypes.data, "scratch": self.scratch.ctypes.data, "status": status.ctypes.data}
        for place, (at, _, offset) in program._fixed.items():
            self.words[at] = bases[place] + offset
        base = self.words.ctypes.data
        rows = [[step.kernel.address, base + 8 * start, step.launch.extent, step.launch.chunks]
                for step, start in zip(program.steps, program._starts, strict=True)]
        self._table = np.array(rows, np.int64).reshape(-1, 4)
        self._status_memory = status
        self._at, self._which, self._beyond = program._given
        self._addresses: list[int] = []
        self.status = (ctypes.c_int64 * 8).from_address(bases["status"])
        self.table_address = self._table.ctypes.data
        self.run: Callable[[], None] = pool.prepare(self.table_address, len(program.steps), program.threads)

    def point_to(self, addresses: list[int]) -> None:
        """Let the argument words point to these inputs and results."""
        if addresses != self._addresses:
            self.words[self._at] = np.array(addresses, np.int64)[self._which] + self._beyond
            self._addresses = addresses


def _columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(rows, np.int64).reshape(-1, 3)
    return table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy()


def _official_address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _quick_address(array: np.ndarray) -> int:
    return _word_at(id(array) + _DATA).value


_word_at = ctypes.c_int64.from_address
_DATA = object.__basicsize__  # an array's address follows the head of the object in NumPy's public C struct


def _is_quick_right() -> bool:
    block = np.zeros((3, 5))
    return all(_quick_address(a) == _official_address(a) for a in (block, block[1:], block.T, np.array(3.0)))


# Asked the official way, an array takes 0.9 us to tell its address: more than a small kernel. Its struct takes 0.2 us.
address_of: Callable[[np.ndarray], int] = _quick_address if _is_quick_right() else _official_address


def _aligned(size: int) -> np.ndarray:
    """`size` bytes that begin at a multiple of 64."""
    block = np.empty(size + ALIGN, np.uint8)
    start = -block.ctypes.data % ALIGN
    return block[start:start + size]


def _refs(launch: Launch) -> list[Ref]:
    return [word for word in launch.words if isinstance(word, Ref)]
