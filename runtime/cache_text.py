"""The text of the kernels on caches. `cache.py` says what their words are.

Attention to a cache goes over blocks of keys, up to where the last query of a panel stands, with the softmax's maximum
and sum brought along (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018). A row is one head of
one query: all rows of a panel look at the same keys, which come out of memory once. One or two rows take dot products
with the keys where they lie; for more, a block of keys is turned, so that scores are a matrix product.
"""

ATTEND = '''\
"""out = softmax(q kᵀ · scale) v over the keys of a cache that queries may see, by their positions.

Queries lie (batch, time, heads, head_dim), keys and values (batch, capacity, key heads, head_dim).
"""

from numpy import float32, inf

from tinytorch.runtime.lowlevel import *
from tinytorch.runtime.microkernel import outer_tile, row_dots, transpose_block
from tinytorch.runtime.scalars import *
from tinytorch.runtime.vecmath import exp_f32

ROWS, LANES, WIDE, BLOCK, DOTS = <rows>, <lanes>, <wide>, <block>, <dots>    # WIDE: columns of a tile of values
SIDE = <side>    # columns of a tile of scores
ZERO, ONE, NEVER = float32(0), float32(1), float32(-inf)
load, store = load_f32, store_f32

dots = row_dots(DOTS, LANES, "f32")
transpose = transpose_block(LANES, "f32")
scores = outer_tile(ROWS, SIDE // LANES, LANES, "f32")
values_tile = outer_tile(ROWS, WIDE // LANES, LANES, "f32")


def attend_cached(args, lo, hi, slot):
    <words>
    queries = scratch + slot * scratch_bytes
    turned = queries + most * head_dim * 4
    tile = turned + BLOCK * head_dim * 4
    result = tile + (most + ROWS) * BLOCK * 4
    top = result + (most + ROWS) * value_dim * 4
    total, lanes = top + most * 4, top + most * 8
    <convert_places>
    panels = (n + panel - 1) // panel
    for item in range(lo, hi):
        b, g, first = item // (key_heads * panels), item // panels % key_heads, item % panels * panel
        count = min(panel, n - first)
        rows = count * group
        stand = load_i64(positions, b, 1) + first    # of the first query
        limit = min(stand + count, capacity)
        begin = max(0, stand + 1 - window)
        kb = k + (b * k_batch + g * k_head) * <size>
        vb = v + (b * v_batch + g * v_head) * <size>
        for r in range(rows):
            source = (b * q_batch + (first + r // group) * q_time + (g * group + r % group) * q_head)
            for c in range(head_dim):
                store(queries, r * head_dim + c, load(q, source + c, 0) * scale, 4)
            store(top, r, NEVER, 5)
            store(total, r, ZERO, 6)
        if limit <= begin:
            zero_fill(result, (most + ROWS) * value_dim * 4)
        for start in range(begin, limit, BLOCK):
            some = min(BLOCK, limit - start)
            <keys>
            if rows <= 2:
                for r in range(rows):
                    for s in range(0, some, DOTS):
                        dots(queries + r * head_dim * 4, keys + s * key_row * 4, key_row, min(DOTS, some - s), head_dim,
                             tile + (r * BLOCK + s) * 4)
            else:
                for s in range(0, some, LANES):
                    for c in range(0, head_dim, LANES):
                        transpose(keys + (s * key_row + c) * 4, key_row, min(LANES, some - s),
                                  turned + (c * BLOCK + s) * 4, BLOCK)
                for r in range(0, rows, ROWS):
                    for s in range(0, some, SIDE):
                        scores(queries + r * head_dim * 4, head_dim, 1, min(ROWS, rows - r), turned + s * 4, BLOCK,
                               head_dim, lanes, 0)
                        for j in range(min(ROWS, rows - r)):
                            copy_bytes(tile + ((r + j) * BLOCK + s) * 4, lanes + j * SIDE * 4, SIDE * 4)
            <scale_keys>
            whole = (some + LANES - 1) // LANES * LANES
            for r in range(rows):
                row, own = tile + r * BLOCK * 4, stand + r // group - start
                for s in range(max(0, min(own + 1, some)), whole):    # keys after the query's own place
                    store(row, s, NEVER, 7)
                for s in range(0, min(own + 1 - window, some)):
                    store(row, s, NEVER, 7)
                for c in range(LANES):
                    store(lanes, c, NEVER, 8)
                for s in range(0, whole, LANES):
                    for c in range(LANES):
                        x, best = load(row, s + c, 7), load(lanes, c, 8)
                        store(lanes, c, select(x > best, x, best), 8)
                before = load(top, r, 5)
                best = before
                for c in range(LANES):
                    x = load(lanes, c, 8)
                    best = select(x > best, x, best)
                shift = select(best == NEVER, ZERO, best)
                lost = exp_f32(before - shift)
                part = ZERO
                for s in range(whole):
                    e = exp_f32(load(row, s, 7) - shift)
                    store(row, s, e, 7)
                    part = plus(part, e)
                store(top, r, best, 5)
                store(total, r, load(total, r, 6) * lost + part, 6)
                if start > begin and lost != ONE:
                    for c in range(0, value_dim, WIDE):
                        at = c // WIDE * (most + ROWS) * WIDE + r * WIDE
                        for j in range(WIDE):
                            store(result, at + j, load(result, at + j, 9) * lost, 9)
            <values>
            <scale_values>
            for c in range(0, value_dim, WIDE):
                for r in range(0, rows, ROWS):
                    values_tile(tile + r * BLOCK * 4, BLOCK, 1, min(ROWS, rows - r), values + c * 4, value_row, some,
                                result + (c // WIDE * (most + ROWS) + r) * WIDE * 4, start - begin)
        for r in range(rows):
            weight = load(total, r, 6)
            weight = ONE / select(weight == ZERO, ONE, weight)
            target = ((b * n + first + r // group) * heads + g * group + r % group) * value_dim
            for c in range(0, value_dim, WIDE):
                at = c // WIDE * (most + ROWS) * WIDE + r * WIDE
                for j in range(WIDE):
                    store(out, target + c + j, load(result, at + j, 9) * weight, 10)
'''

# How the keys (or values) of a block come as f32: where they lie, or converted into scratch memory.
PLAIN = '''\
<name>s, <name>_row = <x>b + start * <x>_time * 4, <x>_time
'''
CONVERTED = '''\
<name>s, <name>_row = <place>, <extent>
for s in range(some):
    for c in range(<extent>):
        store(<name>s, s * <extent> + c, f32(load_<T>(<x>b, (start + s) * <x>_time + c, 2)), 11)
'''
SCALED = '''\
for s in range(some):
    factor = load(<scale>, b * <scale>_batch + (start + s) * <scale>_time + g * <scale>_head, 3)
    for r in range(rows):
        store(tile, r * BLOCK + s, load(tile, r * BLOCK + s, 7) * factor, 7)
'''

WRITE = '''\
"""Rows of each sequence, put into a cache from its position on."""

from tinytorch.runtime.lowlevel import *


def write_rows(args, lo, hi, slot):
    <words>
    for item in range(lo, hi):
        b, i = item // count, item % count
        p = load_i64(positions, b, 1) + i
        p = select(p < 0, p + capacity, p)
        if p >= 0 and p < capacity:    # else `check_rows` has reported it
            for j in range(outer):
                copy_bytes(out + ((b * capacity + p) * outer + j) * length * <size>,
                           rows + (b * rows_batch + i * rows_time + j * rows_outer) * <size>, length * <size>)
'''

CHECK = '''\
"""Report positions where rows would not fit a cache; they touch nothing else, so that this can come first."""

from tinytorch.runtime.lowlevel import *


def check_rows(args, lo, hi, slot):
    <words>
    for b in range(lo, hi):
        p = load_i64(positions, b, 1)
        if p < -capacity or p + count > capacity:
            store_i64(status, 0, 1, 50)
'''
