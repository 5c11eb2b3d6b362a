"""Emit loop nests: any group of pointwise ops and reductions over one domain becomes one kernel.

A group of pointwise ops is one pass over its elements. With reductions, each work item is a row (or a block of
columns), walked in *stages*: stage s + 1 needs what stage s has folded, as softmax needs the maximum, then the sum,
then writes. What a later stage needs of an earlier one is computed again if that is cheap, and kept in a worker's
scratch row if not.

Loops that lie one inside the other in memory for every operand are merged first, so most kernels have one or two
(`nest.py`). The text depends on which strides are 0 or 1 and never on sizes: extents, other strides and odd constants
are words of the argument table.

What is computed is what NumPy computes, op for op: f16 and bf16 are rounded after each op, folds of them add up in f32
(`expression.py`). A result that overwrites an operand in place is stored when everything that reads the operand has
been loaded: stores end their block, and the columns of such a result are written in the last loop of the item.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tinytorch.ir import Graph, Kind, Node, Value
from tinytorch.ir.domain import Domain, find_domain
from tinytorch.ir.errors import CompileError

from .build import KernelSource, vector_bits
from .expression import IMPORTS, caster, checked_extent, compute_type, expression, fold, identity, is_storage, literal
from .fold_text import ColumnFold, Loop, columns, fold_columns, fold_rows, indent
from .launch import SCRATCH, ArgumentTable, Launch, ScratchStride, chunks_for
from .nest import SCRATCH_SCOPE, TILE, Nest, Place

SCRATCH_SCOPES = 11  # rows of scratch memory share that many
DEAR = 4  # what costs more to compute again than so many simple operations is kept
SLOW = ("div", "sqrt", "rsqrt", "mod", "floor_div")  # they count as much as a transcendental function


@dataclass(eq=False)
class Block:
    """Lines of one nesting level ("top", "item", "column" or "inner") at one stage, and the values they have named."""

    level: str
    stage: int
    lines: list[str] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)  # come after all lines
    names: dict[Value, str] = field(default_factory=dict)

    @property
    def text(self) -> list[str]:
        """All lines."""
        return self.lines + self.stores


def emit_loops(body: Graph, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int], threads: int,
               out_strides: tuple[int, ...] | None = None) -> Launch:
    """One launch for `body`.

    Args:
        strides: elements between neighbours along each axis, for each input.
        aliases: output number -> input number, where the result overwrites the operand in place.
        out_strides: of the one result, if it is not packed.
    Raises:
        CompileError: the ops do not share one loop nest.
    """
    domain = find_domain(body)
    if domain is None:
        raise CompileError(f"{body.name}: its ops do not share one loop nest\n{body}")
    return _Emitter(body, domain, Nest(body, domain, strides, aliases, out_strides), frozenset(aliases)).launch(threads)


class _Emitter:
    def __init__(self, body: Graph, domain: Domain, nest: Nest, in_place: frozenset[int]) -> None:
        self.body, self.domain, self.nest, self.in_place = body, domain, nest, in_place
        self.table = ArgumentTable()
        nest.unpack(self.table)
        self.stages = self._find_stages()
        self.last = max(self.stages.values(), default=0)
        self.top = Block("top", 0)
        self.items = [Block("item", s) for s in range(self.last + 2)]  # items[s] comes before the loops of stage s
        self.inner = [Block("inner", s) for s in range(self.last + 1)]
        # closing[s]: over the columns, after the loops of stage s - 1
        self.closing = [Block("column", s) for s in range(self.last + 2)]
        self.folds: dict[int, list[Node]] = {}
        for node in body.nodes:
            if self._folds(node):
                self.folds.setdefault(self.stages[node.inputs[0]], []).append(node)
        self.kept: dict[Value, Place] = {}
        self.rows: list[Place] = []  # of scratch memory
        self.scratch = 0  # bytes for each worker
        self.turned = {v: self._new_scratch(TILE * TILE * v.dtype.itemsize) for v in nest.turned_inputs()}
        self.stored: set[Value] = set()
        self.counter = 0

    def _find_stages(self) -> dict[Value, int]:
        stages = dict.fromkeys(self.body.inputs, 0)
        for node in self.body.nodes:
            stage = max((stages[v] for v in node.inputs), default=0)
            stages[node.output] = stage + 1 if self._folds(node) else stage
        return stages

    def _folds(self, node: Node | None) -> bool:
        """Whether a node is a reduction of more than axes of extent 1."""
        if node is None or node.op.kind is not Kind.REDUCE:
            return False
        return any(self.domain.loops[node.inputs[0]][a] is not None for a in node.attrs["axis"])

    # -- values --------------------------------------------------------------------------------------------------------

    def get(self, value: Value, block: Block) -> str:
        """The name of `value` for use in `block`, written there or further out if it is not yet."""
        level, stage = self.nest.level(value), self.stages[value]
        if self.nest.is_uniform(value) and stage == 0:
            block = self.top
        elif level == "item":
            block = self.items[stage]
        if value not in block.names:
            block.names[value] = self._find(value, level, stage, block)
        return block.names[value]

    def _find(self, value: Value, level: str, stage: int, block: Block) -> str:
        if block.level in ("inner", "column") and stage > 0 and level == "column":
            home = self.closing[stage]
            if block is not home or self._folds(self.body.producer.get(value)):
                return self._load_row(value, self._keep(value, home), block)
        elif block.level == "inner" and stage < block.stage and self._is_dear(value):
            return self._load_again(value, block)
        return self._compute(value, block)

    def _compute(self, value: Value, block: Block) -> str:
        node = self.body.producer.get(value)
        if node is None and value in self.turned:
            return self._name(block, f"load_{value.dtype}({self.turned[value].name}, {self._tile_index()}, "
                                     f"{self.turned[value].scope})")
        if node is None:
            return self._load(value, self.nest.places[value], block)
        if node.op.name == "constant":
            return literal(node, f"c{self.body.nodes.index(node)}", self.table)
        counter = self.nest.places.get(("count", value))
        count = self.nest.index(counter, block.level) if counter is not None else "0"
        if node.op.name == "iota":
            return self._name(block, f"{caster(value.dtype)}({count})")
        if self._folds(node):
            return self._accumulator(node)
        if node.op.kind in (Kind.VIEW, Kind.REDUCE):
            return self.get(node.inputs[0], block)
        operands = [self.get(v, block) for v in node.inputs]
        extent = checked_extent(node, self.body.nodes.index(node), self.table)
        return self._name(block, expression(node, operands, count, extent))

    def _load(self, value: Value, place: Place, block: Block) -> str:
        index = self.nest.index(place, block.level)
        return self._name(block, f"load_{value.dtype}({place.name}, {index}, {place.scope})")

    def _name(self, block: Block, text: str) -> str:
        name = f"v{self.counter}"
        self.counter += 1
        block.lines.append(f"{name} = {text}")
        return name

    def _accumulator(self, node: Node) -> str:
        return f"acc{self.body.nodes.index(node)}"

    # -- values of earlier stages --------------------------------------------------------------------------------------

    def _is_dear(self, value: Value) -> bool:
        """Whether computing a value again costs more than reading it."""
        if self.nest.style != "rows":
            return False
        cost, stack = 0, [value]
        while stack and cost <= DEAR:
            node = self.body.producer.get(stack.pop())
            if node is not None and self.nest.level(node.output) == "inner":
                cost += 8 if node.op.transcendental or node.op.kind is Kind.RANDOM or node.op.name in SLOW else 1
                stack += node.inputs
        return cost > DEAR

    def _load_again(self, value: Value, block: Block) -> str:
        """A value of an earlier stage, from the result it was written to, or from a scratch row."""
        if value not in self.body.outputs:
            return self._load_row(value, self._keep(value, self.inner[self.stages[value]]), block)
        self._store(self.body.outputs.index(value))
        return self._load(value, self.nest.places["out", value], block)

    def _load_row(self, value: Value, row: Place, block: Block) -> str:
        text = f"load_{compute_type(value.dtype)}({row.name}, {self._row_index(row)}, {row.scope})"
        rounds = is_storage(value.dtype) and self._folds(self.body.producer.get(value))
        return self._name(block, f"{caster(value.dtype)}({text})" if rounds else text)

    def _keep(self, value: Value, home: Block) -> Place:
        """A scratch row that `home` fills with `value`; that of a fold is filled as it goes."""
        if value not in self.kept:
            row = self.kept[value] = self._new_row()
            if not self._folds(self.body.producer.get(value)):
                name, store = self.get(value, home), f"store_{compute_type(value.dtype)}"
                home.stores.append(f"{store}({row.name}, {self._row_index(row)}, {name}, {row.scope})")
        return self.kept[value]

    def _new_row(self) -> Place:
        strides, length = self.nest.scratch_strides()
        row = self._new_scratch(length * 8, strides)
        self.nest.unpack_strides(row, self.table)
        return row

    def _new_scratch(self, size: int, strides: Sequence[int] = ()) -> Place:
        number = len(self.rows)
        row = Place(f"row{number}", list(strides), SCRATCH_SCOPE + number % SCRATCH_SCOPES)
        self.table.integer(f"{row.name}_begin", self.scratch)
        self.scratch += -(-size // 64) * 64
        self.rows.append(row)
        return row

    def _row_index(self, row: Place) -> str:
        return "j" if self.nest.column is not None else self.nest.index(row, "inner")

    # -- results -------------------------------------------------------------------------------------------------------

    def _store(self, number: int) -> None:
        value = self.body.outputs[number]
        if value in self.stored:
            return
        self.stored.add(value)
        block = self._home(number, value)
        place = self.nest.places["out", value]
        name, index = self.get(value, block), self.nest.index(place, block.level)
        block.stores.append(f"store_{value.dtype}({place.name}, {index}, {name}, {place.scope})")

    def _home(self, number: int, value: Value) -> Block:
        """The block in which a result is stored."""
        stage, level = self.stages[value], self.nest.level(value)
        if level == "column":
            return self.closing[max(stage, 1, self._last_walk() + 1 if number in self.in_place else 0)]
        return self.inner[stage] if level == "inner" or self.nest.flat else self.items[self.last + 1]

    def _last_walk(self) -> int:
        """The last stage that walks the whole domain."""
        full = [self.stages[v] for v in self.body.outputs if self.nest.level(v) == "inner"]
        return max([*self.folds, *full], default=0)

    # -- the text ------------------------------------------------------------------------------------------------------

    def launch(self, threads: int) -> Launch:
        """The kernel, its words, and how its work divides."""
        for number in range(len(self.body.outputs)):
            self._store(number)
        operands = {node: self.get(node.inputs[0], self.inner[stage])
                    for stage, nodes in sorted(self.folds.items()) for node in nodes}
        if self.nest.column is not None:
            for node in operands:
                self._keep(node.output, self.closing[self.stages[node.output]])
        lines = self._assemble(operands)
        if self.rows:  # of no bytes, if they have no elements
            self.table.integer("scratch_bytes", ScratchStride(self.scratch))
            self.table.add("scratch", SCRATCH, "pointer(args, {}) + slot * scratch_bytes")
            self.table.lines += [f"{row.name} = scratch + {row.name}_begin" for row in self.rows]
        name = f"{self.nest.style}_{_shown(self.body)}"
        head = [f'"""{_summary(self.body)}"""', "", IMPORTS, *self._turns(), "", f"def {name}(args, lo, hi, slot):"]
        text = "\n".join([*head, *indent([*self.table.lines, *self.top.lines, *lines])]) + "\n"
        work = math.prod(self.nest.extents) * max(1, sum(8 if n.op.transcendental else 1 for n in self.body.nodes))
        nothing = not any(v.type.size for v in self.body.outputs)
        extent = 0 if nothing else self.nest.work_items()
        chunks = chunks_for(work, extent, threads)
        return Launch(KernelSource(name, text), tuple(self.table.words), extent, chunks, self.scratch)

    def _assemble(self, operands: Mapping[Node, str]) -> list[str]:
        nest = self.nest
        if nest.flat:
            return ["for i in range(lo, hi):", *indent(self.inner[0].text or ["pass"])]
        parts = [*nest.decode(), *self.items[0].lines]
        if nest.style in ("points", "tiles"):
            parts += [line for value in self.turned for line in self._turn(value)]
            parts += self._walk(self.inner[0].text)
        else:
            for stage in range(self.last + 1):
                folds = [(node, operand) for node, operand in operands.items() if self.stages[node.output] == stage + 1]
                parts += self._row_stage(stage, folds) if nest.style == "rows" else self._column_stage(stage, folds)
                parts += self.items[stage + 1].lines
        for block in self.items:
            parts += block.stores
        return ["for item in range(lo, hi):", *indent(parts)]

    def _walk(self, lines: list[str]) -> list[str]:
        """These lines inside the loops that an item walks."""
        for k in reversed(self.nest.walk) if lines else ():
            lines = [f"for {self.nest.counter(k)} in {self.nest.span(k)}:", *indent(lines)]
        return lines

    # -- tiles ---------------------------------------------------------------------------------------------------------

    def _tile_index(self) -> str:
        a, b = self.nest.walk
        return f"(r{a} - first{a}) * {TILE} + (i - first{b})"

    def _turns(self) -> list[str]:
        """The pieces that turn a block in registers, for each size of elements."""
        sizes = sorted({v.dtype.itemsize for v in self.turned})
        return ["from tinytorch.runtime.microkernel import transpose_block", "",
                *(f'turn{n} = transpose_block({_lanes(n)}, "f{8 * n}")' for n in sizes), ""] if sizes else []

    def _turn(self, value: Value) -> list[str]:
        """An operand's tile, turned: whole blocks in registers, and what is left at the edge one by one."""
        (a, b), place, tile = self.nest.walk, self.nest.places[value], self.turned[value]
        size, dtype = value.dtype.itemsize, value.dtype
        lanes = _lanes(size)
        start = " + ".join([f"{place.name}_at"] * any(place.strides[k] for k in self.nest.items)
                           + [f"i * {place.name}_s{b}", f"r{a}"])
        target = f"{tile.name} + {size} * ((r{a} - first{a}) * {TILE} + i - first{b})"
        whole = f"whole{a} = first{a} + (end{a} - first{a}) // {lanes} * {lanes}"
        return [whole, f"for i in range(first{b}, end{b}, {lanes}):",
                f"    for r{a} in range(first{a}, whole{a}, {lanes}):",
                f"        turn{size}({place.name} + {size} * ({start}), {place.name}_s{b}, min({lanes}, end{b} - i), "
                f"{target}, {TILE})",
                f"for i in range(first{b}, end{b}):", f"    for r{a} in range(whole{a}, end{a}):",
                f"        store_{dtype}({tile.name}, {self._tile_index()}, "
                f"load_{dtype}({place.name}, {start}, {place.scope}), {tile.scope})"]

    def _loops(self) -> list[Loop]:
        return [(self.nest.counter(k), f"n_{k}") for k in self.nest.walk]

    def _row_stage(self, stage: int, folds: Sequence[tuple[Node, str]]) -> list[str]:
        if not folds:
            return self._walk(self.inner[stage].text)
        start, steps, join, rounded = [], [], [], []
        for node, operand in folds:
            name, part = self._accumulator(node), f"part_{self._accumulator(node)}"
            start.append(f"{name} = {identity(node)}")
            steps.append(f"{part} = {fold(node, part, operand)}")
            join.append(f"{name} = {fold(node, name, part, in_order=True)}")
            if is_storage(node.output.dtype):
                rounded.append(f"{name} = {caster(node.output.dtype)}({name})")
        begin = [f"part_{line}" for line in start]
        return [*start, *fold_rows(self._loops(), begin, [*self.inner[stage].text, *steps], join), *rounded]

    def _column_stage(self, stage: int, folds: Sequence[tuple[Node, str]]) -> list[str]:
        if not folds:
            return [*self._walk(columns(self.inner[stage].text)), *columns(self.closing[stage + 1].text)]
        start, steps, lines = [], [], ColumnFold([], [], [], [], [], [])
        for node, operand in folds:
            total, part, sofar = self.kept[node.output], self._new_row(), self._accumulator(node)
            self.kept[Value(node.output.type)] = part
            dtype = compute_type(node.output.dtype)
            put, get = f"store_{dtype}({{0.name}}, j, {{1}}, {{0.scope}})", f"load_{dtype}({{0.name}}, j, {{0.scope}})"
            joined = fold(node, "before", sofar, in_order=True)
            start.append(put.format(total, identity(node)))
            steps.append(f"{sofar} = {fold(node, sofar, operand)}")
            lines.begin.append(put.format(part, identity(node)))
            lines.load.append(f"{sofar} = {get.format(part)}")
            lines.afresh.append(f"{sofar} = {identity(node)}")
            lines.add.extend([f"before = {get.format(part)}", f"{sofar} = {joined}"])
            lines.store.append(put.format(part, sofar))
            lines.join.extend([f"before, {sofar} = {get.format(total)}, {get.format(part)}", put.format(total, joined)])
        walked = fold_columns(self._loops(), [*self.inner[stage].text, *steps], lines)
        return [*columns(start), *walked, *columns(self.closing[stage + 1].text)]


def _lanes(size: int) -> int:
    """How many elements of so many bytes a vector holds."""
    return vector_bits() // (8 * size)


def _shown(body: Graph) -> str:
    """The ops of a body, for the name of its kernel."""
    names = [n.op.name for n in body.nodes if n.op.kind.launches] or [n.op.name for n in body.nodes]
    return "_".join(names if len(names) <= 4 else [*names[:2], f"x{len(names) - 3}", names[-1]])


def _summary(body: Graph) -> str:
    names = {v: f"x{i}" for i, v in enumerate(body.inputs)}
    lines = []
    for number, node in enumerate(body.nodes):
        names[node.output] = f"t{number}"
        operands = ", ".join(names[v] for v in node.inputs)
        detail = {k: v for k, v in node.attrs.items() if k in ("axis", "keepdims", "dtype")}
        extra = "".join(f", {k}={v}" for k, v in detail.items())
        lines.append(f"    t{number} = {node.op.name}({operands}{extra})")
    results = ", ".join(names[v] for v in body.outputs)
    return "\n".join([f"One kernel for {len(body.nodes)} nodes:", "", *lines, f"    return {results}", ""])
