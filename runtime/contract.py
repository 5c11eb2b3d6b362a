"""Emit contractions: a matrix product, with the pointwise ops after it as its epilogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tinytorch.ir import Graph, Kind, Node, Value
from tinytorch.ir.errors import CompileError
from tinytorch.ir.types import row_major_strides

from .expression import checked_extent, expression, is_storage, literal
from .launch import SCRATCH, ArgumentTable, Launch, Ref, Word
from .matmul import Epilogue, emit_matmul, first_word, plan_matmul

SCRATCH_WORD = 2


@dataclass(frozen=True)
class Matrix:
    """How an operand lies: row stride, whether its rows run down (transposed), strides of its batch axes."""

    ld: int
    transposed: bool
    batch: tuple[int, ...]


def matrix_layout(shape: Sequence[int], strides: Sequence[int], transposed: bool) -> Matrix | None:
    """The operand as the product takes it; None if neither of its last two axes is packed."""
    rows, cols = strides[-2:]
    n_rows, n_cols = shape[-2:]
    if cols == 1 or n_cols == 1:
        ld = rows if n_rows > 1 and cols == 1 else max(n_cols, 1) if cols == 1 or n_rows == 1 else rows
        return Matrix(ld, transposed, tuple(strides[:-2]))
    if rows == 1 or n_rows == 1:
        return Matrix(cols, not transposed, tuple(strides[:-2]))
    return None


def emit_contraction(node: Node, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int],
                     threads: int) -> Launch:
    """One launch for a `matmul` node, or for a fused one whose body begins with a matmul."""
    body = node.body
    product = node if body is None else body.nodes[0]
    slots = [0, 1] if body is None else [body.inputs.index(v) for v in product.inputs]
    x, y = (v.type for v in product.inputs)
    left = matrix_layout(x.shape, strides[slots[0]], product.attrs["transpose_x"])
    right = matrix_layout(y.shape, strides[slots[1]], product.attrs["transpose_y"])
    if left is None or right is None:
        raise CompileError(f"matmul({x}, {y}): an operand has no packed axis; strides {strides}")
    out = product.output
    batch = out.shape[:-2]
    m, n = out.shape[-2:]
    k = x.shape[-2] if product.attrs["transpose_x"] else x.shape[-1]
    plan = plan_matmul(m, n, k, lda=left.ld, ldb=right.ld, transpose_a=left.transposed, transpose_b=right.transposed,
                       batch=batch, a_strides=_batch_strides(left.batch, x.shape[:-2], batch),
                       b_strides=_batch_strides(right.batch, y.shape[:-2], batch),
                       element=x.dtype.name, threads=threads)
    writer = _Epilogue(batch, ArgumentTable(first_word(plan.form)))
    graph = body if body is not None else Graph("matmul", product.inputs, (product,), (out,))
    epilogue = writer.write(graph, product, strides, aliases)
    source = emit_matmul(_kernel_name(graph), plan.form, epilogue)
    words: list[Word] = [*plan.words, *writer.table.words]
    words[plan.a_word], words[plan.b_word] = Ref("input", slots[0]), Ref("input", slots[1])
    words[SCRATCH_WORD] = SCRATCH
    return Launch(source, tuple(words), plan.extent, plan.chunks, plan.scratch_bytes)


def _batch_strides(strides: Sequence[int], shape: Sequence[int], batch: Sequence[int]) -> tuple[int, ...]:
    own = [0 if n == 1 else s for n, s in zip(shape, strides, strict=True)]
    return (*(0,) * (len(batch) - len(own)), *own)


def _kernel_name(body: Graph) -> str:
    return "_".join(node.op.name for node in body.nodes if node.op.kind.launches)[:60]


@dataclass
class _Epilogue:
    """Collects the lines and words of an epilogue: loads and constants once, pointwise ops once an element."""

    batch: tuple[int, ...]
    table: ArgumentTable
    row: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def write(self, body: Graph, product: Node, strides: Sequence[tuple[int, ...]],
              aliases: Mapping[int, int]) -> Epilogue:
        """The epilogue for what follows `product` in `body`."""
        names: dict[Value, str] = {product.output: self._product(product)}
        for number, value in enumerate(body.inputs):
            if value not in product.inputs or any(value in node.inputs for node in body.nodes if node is not product):
                names[value] = self._load(value, f"x{number}", number, strides[number])
        for number, node in enumerate(body.nodes):
            if node is not product:
                names[node.output] = self._compute(node, [names[v] for v in node.inputs], number)
        for number, value in enumerate(body.outputs):
            source = aliases.get(number)
            name = f"y{number}" if source is None else f"x{source}"
            scope = len(body.inputs) + number if source is None else source
            if source is None:
                self._address(name, Ref("output", number), value, row_major_strides(value.shape))
            index = self._index(name, value, row_major_strides(value.shape))
            self.lines.append(f"store_{value.dtype}({name}, {index}, {names[value]}, {scope})")
        return Epilogue(tuple(self.table.lines), tuple(self.row), tuple(self.lines))

    def _product(self, product: Node) -> str:
        if not is_storage(product.output.dtype):
            return "acc"
        self.lines.append(f"product0 = {product.output.dtype}(acc)")
        return "product0"

    def _aligned(self, value: Value, strides: Sequence[int]) -> list[int]:
        """Strides along (batch axes…, i, j); 0 where the value does not vary."""
        own = [0 if n == 1 else s for n, s in zip(value.shape, strides, strict=True)]
        return [0] * (len(self.batch) + 2 - len(own)) + own

    def _address(self, name: str, ref: Ref, value: Value, strides: Sequence[int]) -> None:
        self.table.pointer(name, ref)
        aligned = self._aligned(value, strides)
        terms = []
        for axis, stride in enumerate(aligned[:-1]):
            if stride:
                self.table.integer(f"s{axis}_{name}", stride)
                terms.append(f"{'i' if axis == len(self.batch) else f'b{axis}'} * s{axis}_{name}")
        if terms:
            self.row.append(f"row_{name} = {' + '.join(terms)}")
        if aligned[-1] not in (0, 1):
            self.table.integer(f"sj_{name}", aligned[-1])

    def _index(self, name: str, value: Value, strides: Sequence[int]) -> str:
        aligned = self._aligned(value, strides)
        terms = [f"row_{name}"] * any(aligned[:-1])
        terms += ["j" if aligned[-1] == 1 else f"j * sj_{name}"] if aligned[-1] else []
        return " + ".join(terms) or "0"

    def _load(self, value: Value, name: str, number: int, strides: Sequence[int]) -> str:
        self._address(name, Ref("input", number), value, strides)
        aligned = self._aligned(value, strides)
        text = f"load_{value.dtype}({name}, {self._index(name, value, strides)}, {number})"
        where = self.lines if aligned[-1] else self.row if any(aligned) else self.table.lines
        where.append(f"v_{name} = {text}")
        return f"v_{name}"

    def _compute(self, node: Node, operands: list[str], number: int) -> str:
        if node.op.name == "constant":
            return literal(node, f"c{number}", self.table)
        if node.op.kind is Kind.VIEW:
            return operands[0]
        self.lines.append(f"t{number} = {expression(node, operands, extent=checked_extent(node, number, self.table))}")
        return f"t{number}"
