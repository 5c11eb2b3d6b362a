"""Emit what caches of keys and values need: rows written in place, attention to the keys that are there.

    launches = emit_write_rows(node, strides, aliases, threads)     # extent: rows of every sequence
    [launch] = emit_attend_cached(node, strides, threads)           # extent: panels of queries of every key head

Positions are read when the kernels run: time grows with them, not with the capacity. Where the result of `write_rows`
overwrites the cache, only its rows are written. What reports positions out of range is a launch of its own, which
writes nothing, so that a program can run it first and a donated cache needs no copy to be put back from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinytorch.ir import Node, TensorType, ops
from tinytorch.ir.layout import runs

from .build import KernelSource, vector_bits
from .cache_text import ATTEND, CHECK, CONVERTED, PLAIN, SCALED, WRITE
from .launch import SCRATCH, STATUS, ArgumentTable, Launch, Ref, ScratchStride, chunks_for, float_word
from .matmul import TILE_ROWS, VECTORS
from .move import emit_copy
from .template import fill

Strides = Sequence[tuple[int, ...]]
BLOCK = 64       # keys that meet a panel in one go
PANEL_ROWS = 64  # heads of queries in a panel, if one query has no more
DOTS = 8         # keys whose dot products are taken side by side
EXP = 16         # an exponential, in multiply-adds, with all that belongs to a score


# -- writing -----------------------------------------------------------------------------------------------------------


def emit_write_rows(node: Node, strides: Strides, aliases: Mapping[int, int], threads: int) -> list[Launch]:
    """A check of positions, a copy of the cache unless the result lies there, and its new rows."""
    cache, rows = (v.type for v in node.inputs[:2])
    batch, count = rows.shape[:2]
    tail = runs(rows.shape[2:], strides[1][2:]) or [(1, 1)]
    (outer, rows_outer), (length, _) = [(1, 0), *tail][-2:]
    copies = [] if 0 in aliases else [emit_copy(cache, strides[0], threads, Ref("input", 0), Ref("output", 0))]
    check, table = ArgumentTable(), ArgumentTable()
    for each in (check, table):
        each.pointer("positions", Ref("input", 2))
        each.integer("count", count)
        each.integer("capacity", cache.shape[1])
    check.pointer("status", STATUS)
    table.pointer("rows", Ref("input", 1))
    table.pointer("out", Ref("output", 0))
    for name, word in {"outer": outer, "length": length, "rows_batch": strides[1][0], "rows_time": strides[1][1],
                       "rows_outer": rows_outer}.items():
        table.integer(name, word)
    extent = batch * count
    return [_launch("check_rows", CHECK, check, batch, 1), *copies,
            _launch("write_rows", fill(WRITE, size=rows.dtype.itemsize), table, extent,
                    chunks_for(rows.size, extent, threads))]


def _launch(name: str, text: str, table: ArgumentTable, extent: int, chunks: int, scratch: int = 0) -> Launch:
    return Launch(KernelSource(name, fill(text, words="\n".join(table.lines))), tuple(table.words), extent, chunks,
                  scratch)


# -- attention ---------------------------------------------------------------------------------------------------------


def emit_attend_cached(node: Node, strides: Strides, threads: int) -> list[Launch]:
    """softmax(q kᵀ · scale) v over the keys that each query may see."""
    q, k, v, _, *scales = (value.type for value in node.inputs)
    (batch, n, heads, head_dim), (_, capacity, key_heads, _), value_dim = q.shape, k.shape, v.shape[3]
    group = heads // key_heads
    panel = max(1, min(n, PANEL_ROWS // group))
    most = panel * group
    form = _form(most, head_dim, value_dim)
    table = ArgumentTable()
    table.pointer("scratch", SCRATCH)
    for number, name in enumerate(("q", "k", "v")):
        table.pointer(name, Ref("input", number))
        for axis, stride in zip(("batch", "time", "head"), strides[number], strict=False):
            table.integer(f"{name}_{axis}", stride)
    table.pointer("positions", Ref("input", 3))
    table.pointer("out", Ref("output", 0))
    for number, name in enumerate(("k_scale", "v_scale")[:len(scales)]):
        table.pointer(name, Ref("input", 4 + number))
        for axis, stride in zip(("batch", "time", "head"), strides[4 + number], strict=True):
            table.integer(f"{name}_{axis}", stride)
    window = node.attrs["window"] or capacity
    for name, word in {"n": n, "capacity": capacity, "heads": heads, "key_heads": key_heads, "group": group,
                       "head_dim": head_dim, "value_dim": value_dim, "panel": panel, "most": most,
                       "window": min(window, capacity)}.items():
        table.integer(name, word)
    table.add("scale", float_word(node.attrs["scale"]), "f32(load_f64(args, {}, 0))")
    narrow = k.dtype is not q.dtype
    rows = form["rows"]
    floats = most * head_dim + BLOCK * head_dim + (most + rows) * (BLOCK + value_dim) + 2 * most + rows * form["side"]
    floats += BLOCK * (head_dim + value_dim) * narrow
    scratch = -(-4 * floats // 64) * 64
    table.integer("scratch_bytes", ScratchStride(scratch))
    extent = batch * key_heads * -(-n // panel)
    work = batch * n * heads * capacity * (head_dim + value_dim + EXP)
    text = fill(ATTEND, **_blocks(k, narrow, bool(scales)))
    return [_launch("attend_cached", fill(text, **form, size=k.dtype.itemsize), table, extent,
                    chunks_for(work, extent, threads), scratch)]


def _form(most: int, head_dim: int, value_dim: int) -> dict[str, int]:
    """What the text depends on: how many rows and columns tiles have, for panels of `most` rows."""
    bits = vector_bits()
    tall = TILE_ROWS[bits][0]
    lanes = _divisor(bits // 32, head_dim, value_dim)
    rows = next(n for n in (1, 4, tall) if n >= min(most, tall))
    wide = max(w for w in (1, 2, 4) if value_dim % (w * lanes) == 0 and (w == 1 or w * rows <= VECTORS * tall))
    return {"rows": rows, "lanes": lanes, "wide": wide * lanes, "side": VECTORS * lanes, "block": BLOCK, "dots": DOTS}


def _divisor(lanes: int, *extents: int) -> int:
    """The most lanes, a power of 2, of which these extents are multiples."""
    while any(extent % lanes for extent in extents):
        lanes //= 2
    return lanes


def _blocks(k: TensorType, narrow: bool, scaled: bool) -> dict[str, str]:
    """How a block's keys and values come as f32."""
    parts = {"keys": ("key", "k", "converted", "head_dim"),
             "values": ("value", "v", "converted + BLOCK * head_dim * 4", "value_dim")}
    found = {part: fill(CONVERTED if narrow else PLAIN, name=name, x=x, place=place, extent=extent, T=k.dtype.name)
             for part, (name, x, place, extent) in parts.items()}
    found["convert_places"] = "converted = lanes + ROWS * SIDE * 4" if narrow else ""
    found["scale_keys"] = fill(SCALED, scale="k_scale") if scaled else ""
    found["scale_values"] = fill(SCALED, scale="v_scale") if scaled else ""
    return found


CACHES = {ops.attend_cached: emit_attend_cached}
