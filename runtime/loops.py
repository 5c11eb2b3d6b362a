"""Emit loop nests: any group of pointwise ops and reductions over one domain becomes one kernel.

A group of pointwise ops is one pass over its elements. With reductions, each work item is a row (or a block of columns), walked in *stages*:
stage s + 1 needs what stage s has folded, as softmax needs the maximum, then the sum, then writes. What a later stage needs of an
earlier one is computed again if that is cheap, and kept in a worker's scratch row if not.

Loops that lie one inside the other in memory for every operand are merged first, so most kernels have one or two. The text depends on which
strides are 0 or 1 and never on sizes: extents, other strides and odd constants are words of the argument table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tinytorch.ir import DType, Graph, Kind, Node, Value
from tinytorch.ir.domain import Domain, find_domain
from tinytorch.ir.errors import CompileError
from tinytorch.ir.types import row_major_strides

from .build import KernelSource
from .launch import SCRATCH, Launch, Ref, Word, chunks_for, float_word

IMPORTS = "from numpy import inf, nan\n\nfrom tinytorch.runtime.lowlevel import *\nfrom tinytorch.runtime.scalars import *\nfrom tinytorch.runtime.vecmath import *\n"
PLAIN = {0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, math.inf, -math.inf}  # constants that are written into the text
BOOLEAN = {"add": "{0} | {1}", "mul": "{0} & {1}", "maximum": "{0} | {1}", "minimum": "{0} & {1}"}  # what these mean on booleans
COLUMN_BLOCK = 512  # columns that one work item folds at a time
TABLE_SCOPE, SCRATCH_SCOPE = 59, 48


def compute_type(dtype: DType) -> str:
    """The type a kernel computes in: storage types widen to f32."""
    return "f32" if dtype.name in ("f16", "bf16") else dtype.name


def caster(dtype: DType) -> str:
    """The name of the cast to a dtype in kernel text."""
    return "bool_" if dtype.name == "bool" else dtype.name


@dataclass(eq=False)
class Place:
    """Something with an address for each point of the domain: an operand, a result, a scratch row, or a counter."""

    name: str
    dtype: DType | None
    strides: list[int]  # elements, for each merged loop; 0 where it does not vary
    scope: int
    at: str = ""  # the running offset in the text


@dataclass(eq=False)
class Block:
    """Lines of one nesting level, and the values they have named."""

    lines: list[str] = field(default_factory=list)
    names: dict[Value, str] = field(default_factory=dict)


def emit_loops(body: Graph, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int], threads: int,
               out_strides: tuple[int, ...] | None = None) -> Launch:
    """One launch for `body`.

    Args:
        strides: elements between neighbours along each axis, for each input.
        aliases: output number -> input number, where the result overwrites the operand in place.
        out_strides: of the one result, if it is not packed.
    """
    domain = find_domain(body)
    if domain is None:
        raise CompileError(f"{body.name}: its ops do not share one loop nest\n{body}")
    return _Emitter(body, domain, strides, aliases, out_strides).launch(threads)


class _Emitter:
    def __init__(self, body: Graph, domain: Domain, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int],
                 out_strides: tuple[int, ...] | None) -> None:
        self.body, self.domain, self.out_strides = body, domain, out_strides
        self.words: list[Word] = []
        self.unpack: list[str] = []
        self.top = Block()
        raw = self._raw_places(strides)
        self.merged = _merge(domain, [s for _, _, s in raw.values()])
        self.extents = [math.prod(domain.extents[n] for n in run) for run in self.merged]
        self.run_of = {loop: k for k, run in enumerate(self.merged) for loop in run}
        self._choose_style()
        self.places = {key: Place(name, dtype, [s[run[-1]] for run in self.merged], 0) for key, (name, dtype, s) in raw.items()}
        self._unpack_addresses(aliases)
        self._unpack_loops()
        self.stages = self._find_stages()
        self.last = max(self.stages.values(), default=0)
        self.items = [Block() for _ in range(self.last + 2)]
        self.inner = [Block() for _ in range(self.last + 2)]
        self.finish = [Block() for _ in range(self.last + 2)]
        self.kept: dict[Value, Place] = {}
        self.scratch_elements: list[int] = []
        self.folds: dict[int, list[Node]] = {}
        for node in body.nodes:
            if self._folds(node):
                self.folds.setdefault(self.stages[node.inputs[0]], []).append(node)

    # -- the nest ------------------------------------------------------------------------------------------------------

    def _raw_places(self, strides: Sequence[tuple[int, ...]]) -> dict[Value | tuple[str, Value], tuple[str, DType | None, list[int]]]:
        """Name, dtype and strides by unmerged loop, of operands, results and counters."""
        found: dict[Value | tuple[str, Value], tuple[str, DType | None, list[int]]] = {}
        for number, (value, axes) in enumerate(zip(self.body.inputs, strides, strict=True)):
            found[value] = (f"x{number}", value.dtype, self._by_loop(value, axes))
        for number, value in enumerate(self.body.outputs):
            found["out", value] = (f"y{number}", value.dtype, self._by_loop(value, self.out_strides or row_major_strides(value.shape)))
        for number, node in enumerate(self.body.nodes):
            value = node.output
            if node.op.name == "iota":
                counted = tuple(int(a == node.attrs["axis"]) for a in range(len(value.shape)))
                found["count", value] = (f"n{number}", None, self._by_loop(value, counted))
            elif node.op.kind is Kind.RANDOM:
                found["count", value] = (f"n{number}", None, self._by_loop(value, row_major_strides(value.shape)))
        return found

    def _by_loop(self, value: Value, axes: Sequence[int]) -> list[int]:
        strides = [0] * len(self.domain.extents)
        for loop, stride in zip(self.domain.loops[value], axes, strict=True):
            if loop is not None:
                strides[loop] = stride
        return strides

    def _choose_style(self) -> None:
        """Which merged loops are work items, which are folded, and which one is innermost."""
        count = len(self.merged)
        self.reduced = [k for k in range(count) if self.merged[k][0] in self.domain.reduced]
        kept = [k for k in range(count) if k not in self.reduced]
        self.style = "points" if not self.reduced else "rows" if self.reduced[-1] == count - 1 else "columns"
        self.column = kept[-1] if self.style == "columns" else None
        if self.style == "points":
            self.item_runs, self.walk = (kept[:-1], kept[-1:]) if count > 1 else ([], kept)
            self.flat = count <= 1  # work items are the elements themselves
        else:
            self.item_runs, self.walk, self.flat = [k for k in kept if k != self.column], self.reduced, False

    def _word(self, name: str, word: Word, read: str = "integer(args, {})") -> None:
        self.unpack.append(f"{name} = {read.format(len(self.words))}")
        self.words.append(word)

    def _unpack_addresses(self, aliases: Mapping[int, int]) -> None:
        for number, value in enumerate(self.body.inputs):
            self.places[value].scope = number
            self._word(f"x{number}", Ref("input", number), "pointer(args, {})")
        for number, value in enumerate(self.body.outputs):
            place = self.places["out", value]
            if number in aliases:
                place.name, place.scope = f"x{aliases[number]}", aliases[number]
                continue
            place.scope = len(self.body.inputs) + number
            self._word(place.name, Ref("output", number), "pointer(args, {})")
        if len(self.body.inputs) + len(self.body.outputs) > SCRATCH_SCOPE:
            raise CompileError(f"{self.body.name}: more than {SCRATCH_SCOPE} operands in one kernel")

    def _unpack_loops(self) -> None:
        for k, extent in enumerate(self.extents):
            if not self.flat:
                self._word(f"n_{k}", extent)
        inner = self._inner_run()
        for place in self.places.values():
            for k, stride in enumerate(place.strides):
                if stride != 0 and not (k == inner and stride == 1):
                    self._word(f"{place.name}_s{k}", stride)

    def _inner_run(self) -> int | None:
        if self.column is not None:
            return self.column
        return self.walk[-1] if self.walk else None

    # -- which stage -----------------------------------------------------------------------------------------------------

    def _find_stages(self) -> dict[Value, int]:
        stages = dict.fromkeys(self.body.inputs, 0)
        for node in self.body.nodes:
            stage = max((stages[v] for v in node.inputs), default=0)
            stages[node.output] = stage + 1 if self._folds(node) else stage
        return stages

    def _folds(self, node: Node) -> bool:
        """Whether a node is a reduction of more than axes of extent 1."""
        return node.op.kind is Kind.REDUCE and any(self.domain.loops[node.inputs[0]][a] is not None for a in node.attrs["axis"])

    def _level(self, value: Value) -> str:
        """Where a value is computed: once a call, once an item, or inside."""
        runs = {self.run_of[loop] for loop in self.domain.of(value)}
        if not runs and not self.stages[value]:
            return "top"
        if self.column is None and runs <= set(self.item_runs):
            return "item"
        return "column" if self.column is not None and not runs & set(self.reduced) else "inner"

    # -- values ----------------------------------------------------------------------------------------------------------

    def get(self, value: Value, block: Block, stage: int) -> str:
        """The name of `value` for use in `block`, written there or further out if it is not yet."""
        level = self._level(value)
        if level == "top":
            block = self.top
        elif level == "item":
            block = self.items[self.stages[value]]
        elif level == "column" and self.stages[value] > 0:
            return self._get_column(value, block, stage)
        elif level == "inner" and self.stages[value] < stage and value not in block.names and self._is_dear(value):
            block.names[value] = self._reload(value, block)
        if value not in block.names:
            block.names[value] = self._compute(value, block, stage)
        return block.names[value]

    def _get_column(self, value: Value, block: Block, stage: int) -> str:
        """A value of the columns: in the closing loop of its own stage it is computed; elsewhere it is read from a scratch row."""
        if value in block.names:
            return block.names[value]
        home = self.finish[self.stages[value] - 1]
        if block is home and not self._is_fold(value):
            block.names[value] = self._compute(value, block, stage)
        else:
            place = self._keep(value, home)
            block.names[value] = self._fresh(block, f"load_{place.dtype}({place.name}, j, {place.scope})")
        return block.names[value]

    def _is_fold(self, value: Value) -> bool:
        node = self.body.producer.get(value)
        return node is not None and self._folds(node)

    def _keep(self, value: Value, home: Block) -> Place:
        """A scratch row that `home` fills with `value` (folds fill their own)."""
        if value not in self.kept:
            length = COLUMN_BLOCK if self.column is not None else math.prod(self.extents[k] for k in self.reduced)
            place = self.kept[value] = self._scratch_row(value, length)
            if not self._is_fold(value):
                name = self.get(value, home, self.stages[value])
                index = "j" if self.column is not None else self._index(place)
                home.lines.append(f"store_{place.dtype}({place.name}, {index}, {name}, {place.scope})")
        return self.kept[value]

    def _scratch_row(self, value: Value, length: int) -> Place:
        number = len(self.kept)
        dtype = value.dtype
        strides = [0] * len(self.extents)
        step = 1
        for k in reversed(self.reduced):
            strides[k], step = (step, step * self.extents[k]) if self.column is None else (0, 1)
        place = Place(f"row{number}", dtype, strides, SCRATCH_SCOPE + number % (TABLE_SCOPE - SCRATCH_SCOPE))
        self._word(f"row{number}_at", sum(self.scratch_elements))
        self.scratch_elements.append(-(-length * 8 // 64) * 64)
        for k in self.reduced[:-1] if self.column is None else []:
            self._word(f"{place.name}_s{k}", strides[k])
        return place

    def _reload(self, value: Value, block: Block) -> str:
        """A value of an earlier stage, from the result it was written to, or from a scratch row."""
        if value in self.body.outputs:
            self._store_output(value)
            place = self.places["out", value]
        else:
            place = self._keep(value, self.inner[self.stages[value]])
        return self._fresh(block, f"load_{place.dtype}({place.name}, {self._index(place)}, {place.scope})")

    def _is_dear(self, value: Value) -> bool:
        """Whether computing a value again costs more than reading it."""
        if self.style != "rows":
            return False
        cost = 0
        stack = [value]
        while stack:
            node = self.body.producer.get(stack.pop())
            if node is None or self._level(node.output) != "inner":
                continue
            cost += 8 if node.op.transcendental or node.op.kind is Kind.RANDOM or node.op.name in ("div", "sqrt", "rsqrt", "mod", "floor_div") else 1
            stack += node.inputs
        return cost > 4

    def _compute(self, value: Value, block: Block, stage: int) -> str:
        node = self.body.producer.get(value)
        if node is None:
            place = self.places[value]
            return self._fresh(block, f"load_{value.dtype}({place.name}, {self._index(place, block)}, {place.scope})")
        if node.op.name == "constant":
            return self._constant(value, node)
        if node.op.name == "iota":
            return self._fresh(block, f"{caster(value.dtype)}({self._index(self.places['count', value], block)})")
        if node.op.name in ("broadcast_to", "reshape") or (node.op.kind is Kind.REDUCE and not self._folds(node)):
            return self.get(node.inputs[0], block, stage)
        if self._folds(node):
            return self._accumulator(node)
        operands = [self.get(v, block, stage) for v in node.inputs]
        return self._fresh(block, self._scalar(node, operands, block))

    def _accumulator(self, node: Node) -> str:
        return f"acc{self.body.nodes.index(node)}"

    def _scalar(self, node: Node, operands: list[str], block: Block) -> str:
        assert node.op.scalar is not None
        first = node.output if node.op.kind is Kind.RANDOM else node.inputs[0]
        count = self._index(self.places["count", node.output], block) if node.op.kind is Kind.RANDOM else ""
        template = BOOLEAN.get(node.op.name, node.op.scalar) if node.output.dtype.kind == "b" else node.op.scalar
        text = template.format(*operands, T=compute_type(first.dtype), cast=caster(node.output.dtype), flat_index=count)
        narrow = node.output.dtype.kind in "iu" and node.output.dtype.name != "i64" and not text.startswith(caster(node.output.dtype) + "(")
        return f"{caster(node.output.dtype)}({text})" if narrow else text

    def _constant(self, value: Value, node: Node) -> str:
        if value in self.top.names:
            return self.top.names[value]
        number = node.attrs["value"]
        while isinstance(number, tuple):
            number = number[0]
        cast = caster(value.dtype) if value.dtype.name not in ("f16", "bf16") else "f32"
        if value.dtype.kind == "b" or float(number) in PLAIN or number != number:
            text = f"{cast}({number!r})" if value.dtype.kind == "f" else f"{cast}({int(number)})"
            self.top.names[value] = self._fresh(self.top, text)
        elif value.dtype.kind == "f":
            name = f"c{len(self.words)}"
            self._word(name, float_word(float(value.dtype.np.type(number))), f"{cast}(load_f64(args, {{}}, {TABLE_SCOPE}))")
            self.top.names[value] = name
        else:
            name = f"c{len(self.words)}"
            self._word(name, int(number), f"{cast}(integer(args, {{}}))")
            self.top.names[value] = name
        return self.top.names[value]

    def _fresh(self, block: Block, text: str) -> str:
        self.counter = getattr(self, "counter", -1) + 1
        block.lines.append(f"v{self.counter} = {text}")
        return f"v{self.counter}"

    def _index(self, place: Place, block: Block | None = None) -> str:
        """The element of `place` at the current point, as far as `block` has gone into the nest."""
        if block is self.top:
            return "0"
        inside = block not in self.items
        terms = []
        if any(place.strides[k] for k in self.item_runs):
            terms.append(f"{place.name}_at")
        for k in self.walk if inside and self.style != "points" and block not in self.finish else []:
            terms += _term(place, k, f"r{k}", k == self._inner_run())
        if inside and self.style == "points":
            for k in self.walk:
                terms += _term(place, k, "i", True)
        if inside and self.column is not None:
            terms += _term(place, self.column, "(first + j)", True)
        return " + ".join(terms) or "0"

    # -- results -----------------------------------------------------------------------------------------------------------

    def _store_output(self, value: Value) -> None:
        if value in self.stored:
            return
        self.stored.add(value)
        stage, level = self.stages[value], self._level(value)
        place = self.places["out", value]
        if level == "column" and stage:
            block = self.finish[stage - 1]
        elif level == "column":
            block = self.finish[0]
        else:
            block = self.items[stage] if level in ("item", "top") and not self.flat else self.inner[stage]
        name = self.get(value, block, stage)
        block.lines.append(f"store_{value.dtype}({place.name}, {self._index(place, block)}, {name}, {place.scope})")

    # -- the text ----------------------------------------------------------------------------------------------------------

    def launch(self, threads: int) -> Launch:
        self.stored: set[Value] = set()
        for value in self.body.outputs:
            self._store_output(value)
        folded = {stage: [(node, self.get(node.inputs[0], self.inner[stage], stage)) for node in nodes] for stage, nodes in sorted(self.folds.items())}
        if self.column is not None:
            for nodes in self.folds.values():
                for node in nodes:
                    self._keep(node.output, self.finish[0])
        lines = self._assemble(folded)
        name = _kernel_name(self.body)
        scratch = sum(self.scratch_elements)
        if scratch:
            self._word("scratch_bytes", scratch)
            self._word("scratch", SCRATCH, "pointer(args, {}) + slot * scratch_bytes")
            self.unpack += [f"{p.name} = scratch + {p.name}_at" for p in self.kept.values()]
        head = [f'"""{_summary(self.body)}"""', "", IMPORTS, "", f"def {name}(args, lo, hi, slot):"]
        text = "\n".join([*head, *("    " + line for line in [*self.unpack, *self.top.lines]), *("    " + line for line in lines)]) + "\n"
        work = math.prod(self.extents) * max(1, sum(8 if n.op.transcendental else 1 for n in self.body.nodes))
        extent = self._extent()
        empty = 0 in self.extents and not any(v.type.size for v in self.body.outputs)
        return Launch(KernelSource(name, text), tuple(self.words), 0 if empty else extent, chunks_for(work, extent, threads), scratch)

    def _extent(self) -> int:
        if self.flat:
            return math.prod(self.extents)
        items = math.prod(self.extents[k] for k in self.item_runs)
        return items * -(-self.extents[self.column] // COLUMN_BLOCK) if self.column is not None else items

    def _assemble(self, folded: Mapping[int, Sequence[tuple[Node, str]]]) -> list[str]:
        if self.style == "points":
            if self.flat:
                return ["for i in range(lo, hi):", *_indent(self.inner[0].lines or ["pass"])]
            loop = [f"for i in range(n_{self.walk[0]}):", *_indent(self.inner[0].lines or ["pass"])]
            return ["for item in range(lo, hi):", *_indent([*self._decode(), *self.items[0].lines, *loop])]
        parts = [*self._decode(), *self.items[0].lines]
        for stage in range(self.last + 1):
            nodes = folded.get(stage, ())
            parts += self._row_stage(stage, nodes) if self.style == "rows" else self._column_stage(stage, nodes)
            parts += self.items[stage + 1].lines
        return ["for item in range(lo, hi):", *_indent(parts)]

    def _row_stage(self, stage: int, folds: Sequence[tuple[Node, str]]) -> list[str]:
        start = [f"{self._accumulator(node)} = {_identity(node)}" for node, _ in folds]
        accumulate = [f"{self._accumulator(node)} = {_fold_text(node, self._accumulator(node), operand)}" for node, operand in folds]
        lines = self.inner[stage].lines + accumulate
        if not lines:
            return []
        for k in reversed(self.walk):
            lines = [f"for r{k} in range(n_{k}):", *_indent(lines)]
        return [*start, *lines]

    def _column_stage(self, stage: int, folds: Sequence[tuple[Node, str]]) -> list[str]:
        rows = {node: self.kept[node.output] for node, _ in folds}
        start = [f"store_{p.dtype}({p.name}, j, {_identity(node)}, {p.scope})" for node, p in rows.items()]
        accumulate = []
        for node, operand in folds:
            p = rows[node]
            accumulate.append(f"store_{p.dtype}({p.name}, j, {_fold_text(node, f'load_{p.dtype}({p.name}, j, {p.scope})', operand)}, {p.scope})")
        result = ["for j in range(width):", *_indent(start)] if start else []
        lines = self.inner[stage].lines + accumulate
        if lines:
            lines = ["for j in range(width):", *_indent(lines)]
            for k in reversed(self.walk):
                lines = [f"for r{k} in range(n_{k}):", *_indent(lines)]
            result += lines
        if self.finish[stage].lines:
            result += ["for j in range(width):", *_indent(self.finish[stage].lines)]
        return result

    def _decode(self) -> list[str]:
        """From the number of the work item to the index of each of its loops, and the offsets there."""
        lines, rest = [], "item"
        if self.column is not None:
            lines += [f"blocks = (n_{self.column} + {COLUMN_BLOCK - 1}) // {COLUMN_BLOCK}", f"first = item % blocks * {COLUMN_BLOCK}",
                      f"width = min({COLUMN_BLOCK}, n_{self.column} - first)", "row = item // blocks"]
            rest = "row"
        for place, k in enumerate(reversed(self.item_runs)):
            last = place == len(self.item_runs) - 1
            lines.append(f"k{k} = {rest}" if last else f"k{k} = {rest} % n_{k}")
            if not last:
                lines.append(f"rest{k} = {rest} // n_{k}")
                rest = f"rest{k}"
        for spot in self.places.values():
            terms = [f"k{k} * {spot.name}_s{k}" for k in self.item_runs if spot.strides[k]]
            if terms:
                lines.append(f"{spot.name}_at = {' + '.join(terms)}")
        return lines


def _term(place: Place, k: int, index: str, innermost: bool) -> list[str]:
    stride = place.strides[k]
    if stride == 0:
        return []
    return [index] if stride == 1 and innermost else [f"{index} * {place.name}_s{k}"]


def _merge(domain: Domain, strides: Sequence[Sequence[int]]) -> list[list[int]]:
    """Neighbouring loops that every place walks as one."""
    runs: list[list[int]] = []
    for loop, extent in enumerate(domain.extents):
        before = loop - 1
        same = runs and (before in domain.reduced) == (loop in domain.reduced)
        if same and all(s[before] == s[loop] * extent for s in strides):
            runs[-1].append(loop)
        else:
            runs.append([loop])
    return runs


def _identity(node: Node) -> str:
    dtype, name = node.output.dtype, node.op.name
    if node.op.identity is not None:
        return f"{compute_type(dtype)}({node.op.identity})"
    if dtype.kind == "b":
        return f"bool_({int(name == 'min')})"
    if dtype.kind == "f":
        return f"{compute_type(dtype)}({'-inf' if name == 'max' else 'inf'})"
    bits = 8 * dtype.itemsize
    low, high = (0, 2**bits - 1) if dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return f"{dtype}({low if name == 'max' else high})"


def _fold_text(node: Node, accumulator: str, operand: str) -> str:
    assert node.op.scalar is not None
    if node.output.dtype.kind == "b":
        return f"{accumulator} {'|' if node.op.name == 'max' else '&'} {operand}"
    text = node.op.scalar.format(accumulator, operand)
    return f"{caster(node.output.dtype)}({text})" if node.output.dtype.kind in "iu" else text


def _indent(lines: Sequence[str]) -> list[str]:
    return ["    " + line for line in lines]


def _kernel_name(body: Graph) -> str:
    names = [n.op.name for n in body.nodes if n.op.kind not in (Kind.SOURCE, Kind.VIEW)] or [n.op.name for n in body.nodes]
    shown = names if len(names) <= 4 else [*names[:2], f"x{len(names) - 3}", names[-1]]
    return "_".join(shown)


def _summary(body: Graph) -> str:
    names = {v: f"x{i}" for i, v in enumerate(body.inputs)}
    lines = []
    for number, node in enumerate(body.nodes):
        names[node.output] = f"t{number}"
        operands = ", ".join(names[v] for v in node.inputs)
        detail = {k: v for k, v in node.attrs.items() if k in ("axis", "keepdims", "dtype")}
        extra = "".join(f", {k}={v}" for k, v in detail.items())
        lines.append(f"    t{number} = {node.op.name}({operands}{extra})")
    return "\n".join([f"One kernel for {len(body.nodes)} nodes:", "", *lines, f"    return {', '.join(names[v] for v in body.outputs)}", ""])
