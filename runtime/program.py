"""A program: a graph made ready to run. One arena, one table of steps, one native call.

    program = Program(graph, plan_memory(graph), threads=2)
    outputs = program([x_array, w_array])

Every graph input must be a C-contiguous array of its type; donated ones are overwritten. Results are fresh arrays. Each call takes a *frame* (arena,
argument words, step table) from a pool, so several Python threads may call one program at once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinytorch.ir import Graph, Kind, MemoryPlan, Node, Value
from tinytorch.ir.layout import layouts

from . import buffers, pool
from .build import Kernel, compile_kernels
from .emit import emit_node
from .launch import Launch, Ref, Scratch, Status
from .move import emit_copy

ALIGN = 64


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
        self._result_of = {v: i for i, v in reversed(list(enumerate(graph.outputs)))}
        pending = self._emit()
        kernels = compile_kernels([launch.source for launch, _, _ in pending])
        self.steps = tuple(Step(launch, node, kernel) for (launch, node, _), kernel in zip(pending, kernels, strict=True))
        self._lay_out([spots for _, _, spots in pending])
        self.types = [(v.shape, v.dtype.np) for v in graph.outputs]
        self.fresh = [i for i in range(len(graph.outputs)) if i not in graph.donated]
        self._frames: list[_Frame] = []
        self._lock = threading.Lock()

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
            if node.op.kind is Kind.SOURCE or (node.op.kind is Kind.VIEW and self.layouts[node.output].root is not node.output):
                continue
            aliases = self._aliases(node)
            strides = [self.layouts[v].strides for v in node.inputs]
            for launch in emit_node(node, strides, aliases, self.threads):
                if launch.extent:
                    found.append((launch, node, self._wire(launch, node.inputs, node.outputs)))
        for number, value in enumerate(self.graph.outputs):
            if not self._is_in_place(number, value) and value.type.size:
                launch = emit_copy(value.type, self.layouts[value].strides, self.threads, Ref("input", 0), Ref("output", 0))
                target = _Spot("input", self.graph.donated[number], 0) if number in self.graph.donated else _Spot("output", number, 0)
                found.append((launch, None, {ref: target if ref.place == "output" else self._spot(value) for ref in _refs(launch)}))
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
        fixups: dict[str, list[tuple[int, int, int]]] = {"arena": [], "scratch": [], "status": [], "input": [], "output": [], "constant": []}
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
        self._template = np.array(words, np.int64)
        self._fixed = {place: [np.array(column, np.int64) for column in zip(*rows, strict=True)] for place, rows in fixups.items() if rows}
        calls = self._fixed.pop("input", None), self._fixed.pop("output", None)
        count = len(self.graph.inputs)
        at = [c[0] for c in calls if c is not None]
        which = [c[1] + (count if i else 0) for i, c in enumerate(calls) if c is not None]
        self._at, self._which = (np.concatenate(at), np.concatenate(which)) if at else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._beyond = np.concatenate([c[2] for c in calls if c is not None]) if at else np.zeros(0, np.int64)

    # -- running -------------------------------------------------------------------------------------------------------

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once; gives the outputs, where donated ones are the input arrays themselves."""
        return self.run(arrays, [a.__array_interface__["data"][0] for a in arrays])

    def run(self, arrays: Sequence[np.ndarray], addresses: list[int], times: int = 0) -> list[np.ndarray]:
        """As calling, with the addresses of the arrays already known; `times` is the address of an int64 a step for nanoseconds."""
        donated = self.graph.donated
        results = [arrays[donated[i]] if i in donated else buffers.empty(shape, dtype) for i, (shape, dtype) in enumerate(self.types)]
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = _Frame(self)
        addresses = addresses + [r.__array_interface__["data"][0] for r in results]
        frame.words[self._at] = np.array(addresses, np.int64)[self._which] + self._beyond
        pool.run(frame.table_address, len(self.steps), self.threads, times)
        status = frame.status[0]
        if status:
            frame.status[0] = 0
        self._frames.append(frame)
        if status:
            raise IndexError(self._out_of_range())
        return results

    def _out_of_range(self) -> str:
        users = [s.node for s in self.steps if s.node is not None and any(isinstance(w, Status) for w in s.launch.words)]
        lines = "; ".join(dict.fromkeys(f"{n.op} at {n.source}" if n.source else str(n.op) for n in users))
        return f"{self.graph.name}: a position is out of range in {lines}; positions must be from -extent to extent - 1 of the axis they index"

    def touched_bytes(self, arrays: Sequence[np.ndarray]) -> int:
        """Run once on an arena filled with a pattern, and tell how far up it was written: the measured high-water mark."""
        high = 0
        for pattern in (0x5A, 0xA5):
            frame = _Frame(self)
            frame.arena[:] = pattern
            self._frames.append(frame)
            self(arrays)
            changed = np.flatnonzero(frame.arena[:self.plan.size] != pattern)
            high = max(high, int(changed[-1]) + 1 if changed.size else 0)
        return high


class _Frame:
    """The memory of one call at a time."""

    def __init__(self, program: Program) -> None:
        self.arena = _aligned(program.plan.size)
        self.scratch = _aligned(program.scratch_bytes)
        self.status = np.zeros(8, np.int64)
        self.words = program._template.copy()
        bases = {"arena": self.arena.ctypes.data, "scratch": self.scratch.ctypes.data, "status": self.status.ctypes.data}
        for place, (at, _, offset) in program._fixed.items():
            self.words[at] = bases[place] + offset
        base = self.words.ctypes.data
        rows = [[step.kernel.address, base + 8 * start, step.launch.extent, step.launch.chunks]
                for step, start in zip(program.steps, program._starts, strict=True)]
        self.table = np.array(rows, np.int64).reshape(-1, 4)
        self.table_address = self.table.ctypes.data


def _aligned(size: int) -> np.ndarray:
    """`size` bytes that begin at a multiple of 64."""
    block = np.empty(size + ALIGN, np.uint8)
    start = -block.ctypes.data % ALIGN
    return block[start:start + size]


def _refs(launch: Launch) -> list[Ref]:
    return [word for word in launch.words if isinstance(word, Ref)]
