"""Emit `packed_linear`: a product with a weight of 8 or 4 bits, and the pointwise ops after it, in one launch.

    launch = emit_packed(node, strides, aliases, threads)     # a `packed_linear`, or a fused node that begins with one

A work item is a block of 32 outputs and some rows of x; the weight is read in the order in which it lies. For one row,
as in decoding, that reading is all there is to wait for. For many, the elements that are taken out of a word serve 8
rows at once, so nothing is gained by writing the weight down as floats first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinytorch.ir import Graph, Node
from tinytorch.ir.layout import runs
from tinytorch.ir.ops.packed import BLOCK, LONGEST, WORD

from .build import KernelSource, vector_bits
from .contract import kernel_name, panel_epilogue
from .launch import ArgumentTable, Launch, Ref, chunks_for
from .packed_text import KERNEL
from .template import fill

TILES = {512: (2, 8), 256: (2, 4), 128: (2, 4)}  # vector bits: vectors side by side, rows of a tile
CHAIN = 176       # products summed up in one go at most: the error of a sum grows with it
ITEM_ROWS = 64
CONVERTED = 2     # a word's element taken out, in multiply-adds
VECTORISED = 16   # multiply-adds that take as long as a simple operation of `chunks_for`


def emit_packed(node: Node, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int], threads: int) -> Launch:
    """One launch for a `packed_linear` node, or for a fused one whose body begins with one."""
    body = node.body or Graph("packed_linear", node.inputs, (node,), node.outputs)
    product = body.nodes[0]
    slots = [body.inputs.index(v) for v in product.inputs]
    x, out, attrs = product.inputs[0], product.output, product.attrs
    depth, offset = x.shape[-1], len(slots) > 3
    lines = runs(x.shape[:-1], strides[slots[0]][:-1])
    rows = out.type.size // attrs["outputs"]
    table = ArgumentTable()
    for name, slot in zip(("x", "q", "scale", "offset"), slots, strict=False):
        table.pointer(name, Ref("input", slot))
    width = WORD // attrs["bits"]
    words = -(-depth // width)
    chunk = min(attrs["group"], LONGEST, depth) // width
    numbers = {"rows": rows, "outputs": attrs["outputs"], "x_row": lines[0][1] if lines else depth, "depth": words,
               "chunk": chunk, "run": max(chunk, CHAIN // width // chunk * chunk), "q_block": words * BLOCK * 4,
               "s_block": -(-depth // attrs["group"]) * BLOCK * 2,
               "s_step": 0 if attrs["group"] >= depth else BLOCK * 2, "row_blocks": -(-rows // ITEM_ROWS)}
    for name, number in numbers.items():
        table.integer(name, number)
    scratch = TILES[vector_bits()][1] * BLOCK * 4
    epilogue = panel_epilogue(table, "BLOCK", scratch, body, strides, aliases)
    extent = numbers["row_blocks"] * -(-attrs["outputs"] // BLOCK)
    work = attrs["outputs"] * depth * (rows + CONVERTED) // VECTORISED
    chunks = chunks_for(work, extent, threads)
    if rows <= TILES[vector_bits()][1] // 2:  # then a chunk is a stream from memory, and few long ones are faster
        chunks = min(chunks, 2 * threads)
    name = kernel_name(body)
    text = fill(_text(attrs["bits"], offset), words="\n".join(table.lines), epilogue=epilogue).replace("NAME", name, 1)
    return Launch(KernelSource(name, text), tuple(table.words), extent, chunks, scratch)


def _text(bits: int, offset: bool) -> str:
    """The kernel but for its words and its epilogue."""
    vectors, rows = TILES[vector_bits()]
    lanes = vector_bits() // 32
    return fill(KERNEL, bits=bits, width=WORD // bits, more=" and an offset" if offset else "", vectors=vectors,
                lanes=lanes, cols=vectors * lanes, few=rows // 2, rows=rows, offset=offset,
                shift="offset + block * s_block" if offset else "scale")
