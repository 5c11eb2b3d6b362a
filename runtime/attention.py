"""Emit attention and its gradient: `attend` and `attend_grad`, one launch each, sizes and strides as words.

    [launch] = emit_attend(node, strides, threads)        # extent: panels of queries of every head
    [launch] = emit_attend_grad(node, strides, threads)   # extent: heads of keys

The last axis of queries, keys, values and cotangents is packed, other strides are free; Σ g · out and log Σ exp are
packed. A worker's scratch memory holds a panel and a block of scores: it does not grow with time.

With fewer key heads than threads the gradient is two launches: one cut by keys gives those of keys and values, one cut
by queries theirs. They compute weights twice, and give the same bits: the order of every sum is that of panels.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinytorch.ir import Node, TensorType, ops

from .attention_text import APPLY, BACKWARD, BACKWARD_MASK, FORWARD, FORWARD_MASK, KERNEL, NUMBER, POWER
from .build import KernelSource, vector_bits
from .launch import SCRATCH, ArgumentTable, Launch, Ref, ScratchStride, chunks_for, float_word
from .matmul import TILE_ROWS, VECTORS
from .template import fill

Strides = Sequence[tuple[int, ...]]
FORWARD_BLOCK, BACKWARD_BLOCK = 64, 32  # keys, queries that meet a panel in one go
EXP = 16         # an exponential, in multiply-adds, with all that belongs to a score


def emit_attend(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """softmax(q kᵀ · scale + mask) v, and log Σ exp."""
    form = _Form(node.inputs[2].shape[3], node.inputs[0].shape[3])
    types = [v.type for v in node.inputs]
    table = _Table(types[:3], types[3:], node.attrs["causal"])
    for number, name in enumerate("qkv"):
        table.operand(name, number, strides[number])
    table.results("out", "lse")
    table.scale(node.attrs["scale"])
    mask = table.mask(3, strides, FORWARD_MASK)
    batch, n, heads, head_dim = types[0].shape
    m, value_dim = types[1].shape[1], types[2].shape[3]
    floats = head_dim * form.cols + (FORWARD_BLOCK + form.rows) * form.cols + value_dim * form.pitch + 6 * form.cols
    floats += 2 * FORWARD_BLOCK * form.cols if mask else 0
    extent = batch * heads * -(-n // form.cols)
    work = batch * heads * n * m * (head_dim + value_dim + EXP)
    title = "out = softmax(q kᵀ · scale + mask) v, and the log of the softmax's sums."
    return [table.launch("attend", form, title, FORWARD, mask, FORWARD_BLOCK, floats, extent,
                         chunks_for(work, extent, threads))]


def emit_attend_grad(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """The cotangents of q, k and v from that of the result."""
    types = [v.type for v in node.inputs]
    batch, n, heads, head_dim = types[3].shape
    m, key_heads, value_dim = types[4].shape[1], types[4].shape[2], types[5].shape[3]
    work = batch * heads * n * m * (3 * head_dim + 2 * value_dim + EXP)
    if batch * key_heads >= threads or chunks_for(work, threads, threads) == 1:
        return [_gradient(node, strides, threads, work, 1, 1, True, True)]
    parts = -(-4 * threads // (batch * key_heads))
    return [_gradient(node, strides, threads, work, parts, 1, True, False),
            _gradient(node, strides, threads, work, 1, parts, False, True)]


def _gradient(node: Node, strides: Strides, threads: int, work: int, key_parts: int, query_parts: int,
              want_keys: bool, want_queries: bool) -> Launch:
    types = [v.type for v in node.inputs]
    form = _Form(types[5].shape[3], types[3].shape[3])
    table = _Table(types[3:6], types[6:], node.attrs["causal"])
    for number, name in ((0, "g"), (3, "q"), (4, "k"), (5, "v")):
        table.operand(name, number, strides[number])
    table.pointer("delta", Ref("input", 1))
    table.pointer("lse", Ref("input", 2))
    table.results("dq", "dk", "dv")
    table.scale(node.attrs["scale"])
    for name, word in (("key_parts", key_parts), ("query_parts", query_parts), ("want_keys", want_keys),
                       ("want_queries", want_queries)):
        table.integer(name, int(word))
    mask = table.mask(6, strides, BACKWARD_MASK)
    batch, _, key_heads, head_dim = types[4].shape
    both = head_dim + types[5].shape[3]
    floats = (both * (form.cols + form.pitch) + 2 * (BACKWARD_BLOCK + form.rows) * form.cols
              + form.rows * form.vectors(head_dim) * form.lanes)
    extent = batch * key_heads * key_parts * query_parts
    title = "The cotangents of q, k and v: weights again, and what they and their slopes give."
    return table.launch("attend_grad", form, title, BACKWARD, mask, BACKWARD_BLOCK, floats, extent,
                        chunks_for(work, extent, threads))


class _Form:
    """What the text depends on, beside the mask: the vectors of the machine, and how wide tiles may be."""

    def __init__(self, value_dim: int, head_dim: int) -> None:
        bits = vector_bits()
        self.lanes, self.rows = bits // 32, TILE_ROWS[bits][0]
        self.cols = VECTORS * self.lanes
        self.pitch = -(-self.cols // self.rows) * self.rows
        self.wide, self.wide_v = (self.vectors(n) * self.lanes for n in (head_dim, value_dim))

    def vectors(self, extent: int) -> int:
        """The vectors side by side in a tile of this many columns."""
        return VECTORS if extent % self.cols == 0 else 1


class _Table(ArgumentTable):
    """Words of a kernel: extents first."""

    def __init__(self, qkv: Sequence[TensorType], masks: Sequence[TensorType], causal: bool) -> None:
        super().__init__()
        (_, n, heads, head_dim), (_, m, key_heads, _), (*_, value_dim) = (t.shape for t in qkv)
        self.masks = masks
        self.pointer("scratch", SCRATCH)
        extents = {"n": n, "m": m, "heads": heads, "key_heads": key_heads, "group": heads // key_heads,
                   "head_dim": head_dim, "value_dim": value_dim, "offset": m - n if causal else m}
        for name, word in extents.items():  # query i sees keys up to i + offset
            self.integer(name, word)

    def scale(self, factor: float) -> None:
        """`factor` makes scores of products, `natural` of what lies in the tile, where adding a mask has scaled."""
        natural = 1.0 if any(mask.dtype.is_float for mask in self.masks) else factor
        for name, value in (("factor", factor), ("natural", natural)):
            self.add(name, float_word(value), "f32(load_f64(args, {}, 0))")

    def operand(self, name: str, number: int, strides: tuple[int, ...]) -> None:
        """`name` is the address of an operand (batch, time, heads, packed)."""
        self.pointer(name, Ref("input", number))
        for axis, stride in zip(("batch", "time", "head"), strides, strict=False):
            self.integer(f"{name}_{axis}", stride)

    def results(self, *names: str) -> None:
        """The addresses of the results."""
        for number, name in enumerate(names):
            self.pointer(name, Ref("output", number))

    def mask(self, number: int, strides: Strides, template: str) -> str:
        """The words of the mask, operand `number`, and the text that applies it; nothing if there is none."""
        if not self.masks:
            return ""
        [mask] = self.masks
        self.pointer("mask", Ref("input", number))
        for axis, extent, stride in zip(("batch", "head", "time", "key"), mask.shape, strides[number], strict=True):
            self.integer(f"mask_{axis}", stride if extent != 1 else 0)
        return fill(template, number=NUMBER[mask.dtype.name], apply=APPLY[mask.dtype.name])

    def launch(self, name: str, form: _Form, title: str, body: str, mask: str, block: int, floats: int, extent: int,
               chunks: int) -> Launch:
        """The kernel and its step; a worker has `floats` of scratch memory."""
        scratch = -(-4 * floats // 64) * 64
        self.integer("scratch_bytes", ScratchStride(scratch))
        text = fill(KERNEL, words="\n".join(self.lines), body=fill(body, mask=mask))
        text = fill(text, title=title, rows=form.rows, lanes=form.lanes, cols=form.cols, pitch=form.pitch,
                    wide=form.wide, wide_v=form.wide_v, vectors=VECTORS, block=block,
                    power=", ".join(map(str, POWER))).replace("NAME", name, 1)
        return Launch(KernelSource(name, text), tuple(self.words), extent, chunks, scratch)


ATTENTION = {ops.attend: emit_attend, ops.attend_grad: emit_attend_grad}
