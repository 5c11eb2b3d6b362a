"""Emit contractions: a matrix product or a convolution, with the pointwise ops after it as its epilogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tinytorch.ir import Graph, Kind, Node, Value, ops
from tinytorch.ir.errors import CompileError
from tinytorch.ir.layout import runs
from tinytorch.ir.types import row_major_strides

from .expression import checked_extent, expression, is_storage, literal
from .images import Windows, plan_lines, plan_tiles, plan_windows
from .launch import SCRATCH, ArgumentTable, Launch, Ref, ScratchStride, Word
from .matmul import SCRATCH_WORD, Epilogue, MatmulPlan, emit_matmul, first_word, plan_matmul
from .template import fill


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
    """One launch for a product or a convolution, or for a fused node whose body begins with one."""
    body = node.body
    product = node if body is None else body.nodes[0]
    slots = [0, 1] if body is None else [body.inputs.index(v) for v in product.inputs]
    own = [strides[slot] for slot in slots]
    groups = 0 if product.op is ops.matmul else product.attrs.get("groups", 1)
    plan = CONTRACTIONS[product.op](product, own, threads)
    writer = EpilogueWriter(len(product.output.shape) - 2, groups, ArgumentTable(first_word(plan.form)))
    graph = body if body is not None else Graph(product.op.name, product.inputs, (product,), (product.output,))
    epilogue = writer.write(graph, product, strides, aliases)
    source = emit_matmul(kernel_name(graph), plan.form, epilogue)
    words: list[Word] = [*plan.words, *writer.table.words]
    words[plan.a_word], words[plan.b_word] = Ref("input", slots[0]), Ref("input", slots[1])
    words[SCRATCH_WORD], words[SCRATCH_WORD + 1] = SCRATCH, ScratchStride(plan.scratch_bytes)
    return Launch(source, tuple(words), plan.extent, plan.chunks, plan.scratch_bytes)


def _plan_product(product: Node, strides: Sequence[tuple[int, ...]], threads: int) -> MatmulPlan:
    x, y = (v.type for v in product.inputs)
    left = matrix_layout(x.shape, strides[0], product.attrs["transpose_x"])
    right = matrix_layout(y.shape, strides[1], product.attrs["transpose_y"])
    if left is None or right is None:
        raise CompileError(f"matmul({x}, {y}): an operand has no packed axis; strides {strides}")
    *batch, m, n = product.output.shape
    k = x.shape[-2] if product.attrs["transpose_x"] else x.shape[-1]
    return plan_matmul(m, n, k, lda=left.ld, ldb=right.ld, transpose_a=left.transposed, transpose_b=right.transposed,
                       batch=tuple(batch), a_strides=_batch_strides(left.batch, x.shape[:-2], batch),
                       b_strides=_batch_strides(right.batch, y.shape[:-2], batch),
                       element=x.dtype.name, threads=threads)


def _plan_convolution(product: Node, strides: Sequence[tuple[int, ...]], threads: int) -> MatmulPlan:
    """As a product of windows; where each window is one pixel and none is left out, of plain matrices."""
    (x, weight), attrs, out = (v.type for v in product.inputs), product.attrs, product.output.type
    groups, cols = attrs["groups"], out.shape[3] // attrs["groups"]
    pixels = runs((*x.shape[:3], 1), (*strides[0][:3], 0))
    if (groups == 1 and weight.shape[:2] == (1, 1) and x.shape[:3] == out.shape[:3] and attrs["low"] == (0, 0)
            and len(pixels) <= 1 and (strides[0][3] == 1 or x.shape[3] == 1)):
        ld = pixels[0][1] if pixels else x.shape[3]
        return plan_matmul(out.size // cols, cols, x.shape[3], lda=ld, ldb=cols, element=x.dtype.name, threads=threads)
    windows = Windows(x.shape[0], x.shape[1:3], out.shape[1:3], weight.shape[:2], weight.shape[2], strides[0],
                      attrs["stride"], attrs["low"], attrs["dilation"], attrs["spread"])
    return plan_windows(windows, cols, groups=groups, element=x.dtype.name, threads=threads)


def _plan_grouped_product(product: Node, strides: Sequence[tuple[int, ...]], threads: int) -> MatmulPlan:
    """All leading axes of x are rows; the weight is (elements along the depth, columns, numbers an element)."""
    x, (depth, cols, each) = product.inputs[0].type, product.inputs[1].shape
    rows = runs(x.shape[:-1], strides[0][:-1])
    return plan_matmul(x.size // x.shape[-1], cols, depth, lda=rows[0][1] // each if rows else depth, ldb=cols,
                       element=_element(product), threads=threads)


def _plan_grouped_windows(product: Node, strides: Sequence[tuple[int, ...]], threads: int) -> MatmulPlan:
    """Of lines of images; of windows found by a table where a row of the kernel is not one run of them."""
    (x, weight), attrs, out = (v.type for v in product.inputs), product.attrs, product.output.type
    each, groups, kernel, (n, h, *_) = weight.shape[2], attrs["groups"], attrs["size"], strides[0]
    lines, pixel = groups == attrs["dilation"][1] == 1, x.shape[3]
    run = weight.shape[0] // kernel[0] if lines else x.shape[3] // groups // each
    windows = Windows(x.shape[0], x.shape[1:3], out.shape[1:3], kernel, run, (n, h, pixel, 1), attrs["stride"],
                      attrs["low"], attrs["dilation"], (1, 1), int(attrs["fill"]))
    if lines:
        return plan_lines(windows, weight.shape[1], element=_element(product), threads=threads)
    return plan_windows(windows, weight.shape[1] // groups, groups=groups, element=_element(product), threads=threads)


def _element(product: Node) -> str:
    return {4: "quad", 2: "pair"}[product.inputs[1].shape[2]]


def _plan_filter(product: Node, strides: Sequence[tuple[int, ...]], threads: int) -> MatmulPlan:
    x, out = product.inputs[0].type, product.output.type
    return plan_tiles(x.shape, strides[0], out.shape, product.attrs["low"], x.dtype.name, threads)


# How each op that `emit_contraction` takes is planned.
CONTRACTIONS = {ops.matmul: _plan_product, ops.convolve: _plan_convolution, ops.filter_tiles: _plan_filter,
                 ops.quad_matmul: _plan_grouped_product, ops.pair_matmul: _plan_grouped_product,
                 ops.quad_convolve: _plan_grouped_windows, ops.pair_convolve: _plan_grouped_windows}


def _batch_strides(strides: Sequence[int], shape: Sequence[int], batch: Sequence[int]) -> tuple[int, ...]:
    own = [0 if n == 1 else s for n, s in zip(shape, strides, strict=True)]
    return (*(0,) * (len(batch) - len(own)), *own)


def kernel_name(body: Graph) -> str:
    """The name of a kernel that computes `body`: its ops, one after the other."""
    return "_".join(node.op.name for node in body.nodes if node.op.kind.launches)[:60]


@dataclass
class EpilogueWriter:
    """Collects the lines and words of an epilogue: loads and constants once, pointwise ops once an element."""

    batch: int  # axes before the last two of a product
    groups: int  # of a convolution, whose pixels are rows; 0: of a matrix product
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
        own = [0] * (self.batch + 2 - len(own)) + own
        if not self.groups:
            return own
        *pixels, channel = own
        found = runs(value.shape[:-1], tuple(pixels)) if any(pixels) else []
        if len(found) > 1:
            raise CompileError(f"convolve: its epilogue reads {value.type} with strides {strides}, which are no rows")
        group = [channel * (value.shape[-1] // self.groups) if channel else 0] * (self.groups > 1)
        return [*group, found[0][1] if found else 0, channel]

    def _address(self, name: str, ref: Ref, value: Value, strides: Sequence[int]) -> None:
        self.table.pointer(name, ref)
        aligned = self._aligned(value, strides)
        terms = []
        for axis, stride in enumerate(aligned[:-1]):
            if stride:
                self.table.integer(f"s{axis}_{name}", stride)
                terms.append(f"{'i' if axis == len(aligned) - 2 else f'b{axis}'} * s{axis}_{name}")
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


PANEL_EPILOGUE = """\
for r in range(valid):
    i = row + r
    <row>
    if start + <width> <= outputs:
        for c in range(<width>):
            <element>
    else:
        for c in range(outputs - start):
            <element>
"""


def panel_epilogue(table: ArgumentTable, width: str, scratch: int, body: Graph, strides: Sequence[tuple[int, ...]],
                   aliases: Mapping[int, int]) -> str:
    """What follows the product that `body` begins with, for kernels whose tiles are rows of a panel of outputs: the
    words of the tile in `scratch` and of the epilogue go into `table`; gives the loop over the tile, whose panel is as
    wide as the kernel's constant `width`."""
    table.integer("tile_bytes", ScratchStride(scratch))
    table.add("tile", SCRATCH, "pointer(args, {}) + slot * tile_bytes")
    product = body.nodes[0]
    found = EpilogueWriter(len(product.output.shape) - 2, 1, table).write(body, product, strides, aliases)
    element = "\n".join(("j = start + c", f"acc = load_f32(tile, r * {width} + c, 61)", *found.body))
    return fill(PANEL_EPILOGUE, width=width, row="\n".join(found.row), element=element)
