"""The text of the attention kernels, forward and backward. `attention.py` says what their words are.

Both go over panels, as many queries or keys as a register tile is wide, and meet the other side block by block, so that
scores never leave the first-level cache (Dao et al., "FlashAttention", 2022). A product whose columns are a panel reads
its other operand where it lies: `outer_tile` takes rows at any stride. So only panels are packed, transposed.

    forward     a panel of queries; scores lie (keys, queries), so that maximum and sum of a query run down its lane
                (online softmax: Milakov and Gimelshein, 2018)
    backward    a panel of keys; scores lie (queries, keys), and are computed again from the forward's log Σ exp

Scores lie as the product gives them, and are scaled when they have been shifted: a weight's error is that of a number
near 0, and the greatest is 1.
"""

KERNEL = '''\
"""<title>

Queries and what belongs to them lie (batch, time, heads, head_dim), keys and values (batch, time, key heads, head_dim).
"""

from numpy import float32, inf, uint32

from tinytorch.runtime.lowlevel import *
from tinytorch.runtime.microkernel import outer_tile, transpose_block
from tinytorch.runtime.scalars import *
from tinytorch.runtime.vecmath import fma, from_bits, jit, log_f32, polynomial, to_bits

ROWS, LANES, COLS, PITCH = <rows>, <lanes>, <cols>, <pitch>    # PITCH: COLS rounded up to whole tiles
WIDE, WIDE_V = <wide>, <wide_v>    # columns of a tile of a query or key, and of a value
BLOCK = <block>
LOG2E, MINUS_LN2, ZERO, ONE, NEVER = float32(1.442695), float32(-0.6931472), float32(0), float32(1), float32(-inf)
ROUND, LEAST = float32(12583039), float32(-87)    # 1.5 * 2**23 + 127: the low bits of n + ROUND are 2**n's exponent
load, store = load_f32, store_f32

scores = outer_tile(ROWS, <vectors>, LANES, "f32")
heads_tile = outer_tile(ROWS, WIDE // LANES, LANES, "f32")
values_tile = outer_tile(ROWS, WIDE_V // LANES, LANES, "f32")
transpose = transpose_block(LANES, "f32")
power = polynomial(1.0, <power>)    # exp(r) on |r| <= ln(2) / 2


@jit
def weight(x):
    """exp(x) of x <= 0; 0 where that is less than any normal number."""
    t = fma(x, LOG2E, ROUND)
    scale = from_bits(uint32(to_bits(t) << uint32(23)))
    return select(x < LEAST, ZERO, power(fma(t - ROUND, MINUS_LN2, x)) * scale)


@jit
def pack(x, time, valid, depth, out):
    """out[k, c] = x[c, k] for the COLS lines of a panel, of which `valid` are there; those after them repeat one."""
    for c in range(0, COLS, LANES):
        line = min(c, valid - 1)
        for k in range(0, depth, LANES):
            transpose(x + (line * time + k) * 4, time, max(1, min(LANES, valid - c)), out + (k * COLS + c) * 4, COLS)


@jit
def scale_rows(tiles, width, factors):
    """Rows of a panel's tiles times their factors, four at a time: one alone LLVM would unroll, and gather columns."""
    for panel in range(width // WIDE_V):
        for r in range(0, COLS, 4):
            row = tiles + (panel * PITCH + r) * WIDE_V * 4
            f0, f1 = load(factors, r, 7), load(factors, r + 1, 7)
            f2, f3 = load(factors, r + 2, 7), load(factors, r + 3, 7)
            for c in range(WIDE_V):
                store(row, c, load(row, c, 9) * f0, 9)
                store(row, WIDE_V + c, load(row, WIDE_V + c, 9) * f1, 9)
                store(row, 2 * WIDE_V + c, load(row, 2 * WIDE_V + c, 9) * f2, 9)
                store(row, 3 * WIDE_V + c, load(row, 3 * WIDE_V + c, 9) * f3, 9)


def NAME(args, lo, hi, slot):
    <words>
    <body>
'''

FORWARD = '''\
queries = scratch + slot * scratch_bytes
tile = queries + head_dim * COLS * 4
result = tile + (BLOCK + ROWS) * COLS * 4
top = result + value_dim * PITCH * 4
new, shift, total = top + COLS * 4, top + COLS * 8, top + COLS * 12
part, lost = top + COLS * 16, top + COLS * 20
lines = top + COLS * 24
turned = lines + BLOCK * COLS * 4
panels = (n + COLS - 1) // COLS
for item in range(lo, hi):
    b = item // (heads * panels)
    h = item // panels % heads
    first = item % panels * COLS
    valid = min(COLS, n - first)
    qb = q + (b * q_batch + first * q_time + h * q_head) * 4
    kb = k + (b * k_batch + h // group * k_head) * 4
    vb = v + (b * v_batch + h // group * v_head) * 4
    pack(qb, q_time, valid, head_dim, queries)
    for c in range(COLS):
        store(top, c, NEVER, 2)
        store(shift, c, ZERO, 6)
        store(total, c, ZERO, 3)
    limit = min(m, first + COLS + offset)    # of the keys that a query of the panel may see
    if limit <= 0:
        zero_fill(result, value_dim * PITCH * 4)
    for start in range(0, limit, BLOCK):
        count = min(BLOCK, limit - start)
        for key in range(0, count, ROWS):
            scores(kb + (start + key) * k_time * 4, k_time, 1, min(ROWS, count - key), queries, COLS, head_dim,
                   tile + key * COLS * 4, 0)
        <mask>
        for key in range(max(0, first + offset + 1 - start), count):
            for c in range(COLS):
                store(tile, key * COLS + c, select(start + key > first + c + offset, NEVER,
                                                   load(tile, key * COLS + c, 4)), 4)
        whole = (count + 3) // 4 * 4
        for c in range(count * COLS, whole * COLS):
            store(tile, c, NEVER, 4)
        for c in range(COLS):
            store(new, c, load(top, c, 2), 5)
            store(part, c, ZERO, 8)
        for key in range(0, whole, 4):
            row = tile + key * COLS * 4
            for c in range(COLS):
                x0, x1 = load(row, c, 4), load(row, COLS + c, 4)
                x2, x3 = load(row, 2 * COLS + c, 4), load(row, 3 * COLS + c, 4)
                x0, x2, best = select(x0 > x1, x0, x1), select(x2 > x3, x2, x3), load(new, c, 5)
                x0 = select(x0 > x2, x0, x2)
                store(new, c, select(x0 > best, x0, best), 5)
        for c in range(COLS):
            best = load(new, c, 5)
            now = select(best == NEVER, ZERO, best)
            rest = weight((load(top, c, 2) - now) * natural)
            store(shift, c, now, 6)
            store(lost, c, rest, 7)
            store(top, c, best, 2)
            store(total, c, load(total, c, 3) * rest, 3)
        for key in range(0, whole, 4):
            row = tile + key * COLS * 4
            for c in range(COLS):
                now = load(shift, c, 6)
                x0, x1 = weight((load(row, c, 4) - now) * natural), weight((load(row, COLS + c, 4) - now) * natural)
                x2 = weight((load(row, 2 * COLS + c, 4) - now) * natural)
                x3 = weight((load(row, 3 * COLS + c, 4) - now) * natural)
                store(row, c, x0, 4)
                store(row, COLS + c, x1, 4)
                store(row, 2 * COLS + c, x2, 4)
                store(row, 3 * COLS + c, x3, 4)
                store(part, c, load(part, c, 8) + ((x0 + x1) + (x2 + x3)), 8)
        for c in range(COLS):
            store(total, c, load(total, c, 3) + load(part, c, 8), 3)
        if start > 0:
            scale_rows(result, value_dim, lost)
        for panel in range(value_dim // WIDE_V):
            target = result + panel * PITCH * WIDE_V * 4
            for row in range(0, valid, ROWS):
                values_tile(tile + row * 4, 1, COLS, min(ROWS, COLS - row), vb + (start * v_time + panel * WIDE_V) * 4,
                            v_time, count, target + row * WIDE_V * 4, start)
    for c in range(COLS):
        weights = load(total, c, 3)
        weights = select(weights == ZERO, ONE, weights)    # a query that sees no key gives zeros
        store(lost, c, ONE / weights, 7)
        store(shift, c, fma(load(shift, c, 6), natural, log_f32(weights)), 6)
    scale_rows(result, value_dim, lost)
    for r in range(valid):
        row = (b * n + first + r) * heads + h
        store(lse, row, load(shift, r, 6), 11)
        for panel in range(value_dim // WIDE_V):
            copy_bytes(out + (row * value_dim + panel * WIDE_V) * 4, result + (panel * PITCH + r) * WIDE_V * 4,
                       WIDE_V * 4)
'''

BACKWARD = '''\
keys = scratch + slot * scratch_bytes
values = keys + head_dim * COLS * 4
tile = values + value_dim * COLS * 4
slopes = tile + (BLOCK + ROWS) * COLS * 4
sum_k = slopes + (BLOCK + ROWS) * COLS * 4
sum_v = sum_k + head_dim * PITCH * 4
moved = sum_v + value_dim * PITCH * 4
key_panels, row_groups = (m + COLS - 1) // COLS, (n + ROWS - 1) // ROWS
parts = key_parts * query_parts
for item in range(lo, hi):
    b = item // (key_heads * parts)
    kh = item // parts % key_heads
    key_part, query_part = item % parts % key_parts, item % parts // key_parts
    key_from = key_panels * key_part // key_parts * COLS
    key_to = min(m, key_panels * (key_part + 1) // key_parts * COLS)
    query_from = row_groups * query_part // query_parts * ROWS
    query_to = min(n, row_groups * (query_part + 1) // query_parts * ROWS)
    kb = k + (b * k_batch + kh * k_head) * 4
    vb = v + (b * v_batch + kh * v_head) * 4
    if want_queries:
        for i in range(query_from, query_to):
            zero_fill(dq + ((b * n + i) * heads + kh * group) * head_dim * 4, group * head_dim * 4)
    for first in range(key_from, key_to, COLS):
        wide = min(COLS, m - first)
        pack(kb + first * k_time * 4, k_time, wide, head_dim, keys)
        pack(vb + first * v_time * 4, v_time, wide, value_dim, values)
        if want_keys:
            zero_fill(sum_k, (head_dim + value_dim) * PITCH * 4)
        for h in range(kh * group, (kh + 1) * group):
            qb = q + (b * q_batch + h * q_head) * 4
            gb = g + (b * g_batch + h * g_head) * 4
            for start in range(max(query_from, (first - offset) // ROWS * ROWS), query_to, BLOCK):
                count = min(BLOCK, query_to - start)
                for r in range(0, count, ROWS):
                    some = min(ROWS, count - r)
                    scores(qb + (start + r) * q_time * 4, q_time, 1, some, keys, COLS, head_dim,
                           tile + r * COLS * 4, 0)
                    scores(gb + (start + r) * g_time * 4, g_time, 1, some, values, COLS, value_dim,
                           slopes + r * COLS * 4, 0)
                <mask>
                for r in range(count):
                    i = start + r
                    row = (b * n + i) * heads + h
                    shift, mean = -load(lse, row, 2), load(delta, row, 3)
                    seen = i + offset + 1 - first
                    for c in range(COLS):
                        p = select(c < seen, weight(fma(load(tile, r * COLS + c, 4), natural, shift)), ZERO)
                        store(tile, r * COLS + c, p, 4)
                        store(slopes, r * COLS + c, p * (load(slopes, r * COLS + c, 5) - mean), 5)
                if want_keys:
                    for row in range(0, wide, ROWS):
                        some = min(ROWS, COLS - row)
                        for panel in range(value_dim // WIDE_V):
                            values_tile(tile + row * 4, 1, COLS, some, gb + (start * g_time + panel * WIDE_V) * 4,
                                        g_time, count, sum_v + (panel * PITCH + row) * WIDE_V * 4, 1)
                        for panel in range(head_dim // WIDE):
                            heads_tile(slopes + row * 4, 1, COLS, some, qb + (start * q_time + panel * WIDE) * 4,
                                       q_time, count, sum_k + (panel * PITCH + row) * WIDE * 4, 1)
                if want_queries:
                    for r in range(0, count, ROWS):
                        some = min(ROWS, count - r)
                        for panel in range(head_dim // WIDE):
                            heads_tile(slopes + r * COLS * 4, COLS, 1, some, kb + (first * k_time + panel * WIDE) * 4,
                                       k_time, wide, moved, 0)
                            for j in range(some):
                                row = ((b * n + start + r + j) * heads + h) * head_dim + panel * WIDE
                                for c in range(WIDE):
                                    store(dq, row + c, fma(load(moved, j * WIDE + c, 7), factor, load(dq, row + c, 6)),
                                          6)
        if want_keys:
            for r in range(wide):
                row = (b * m + first + r) * key_heads + kh
                for panel in range(head_dim // WIDE):
                    source = sum_k + (panel * PITCH + r) * WIDE * 4
                    for c in range(WIDE):
                        store(dk, row * head_dim + panel * WIDE + c, load(source, c, 8) * factor, 9)
                for panel in range(value_dim // WIDE_V):
                    copy_bytes(dv + (row * value_dim + panel * WIDE_V) * 4,
                               sum_v + (panel * PITCH + r) * WIDE_V * 4, WIDE_V * 4)
'''

# The mask of the last query or key stands for those after it, which are computed but not used. Forward, it is read as
# it lies, a query after the other, and turned like the scores.
FORWARD_MASK = '''\
for r in range(COLS):
    masks = b * mask_batch + h * mask_head + min(first + r, n - 1) * mask_time + start * mask_key
    for key in range(count):
        store(lines, r * BLOCK + key, <number>, 12)
for key in range(0, count, LANES):
    for c in range(0, COLS, LANES):
        transpose(lines + (c * BLOCK + key) * 4, BLOCK, LANES, turned + (key * COLS + c) * 4, COLS)
for c in range(count * COLS):
    x, seen = load(tile, c, 4), load(turned, c, 13)
    store(tile, c, <apply>, 4)
'''
BACKWARD_MASK = '''\
for r in range(count):
    masks = b * mask_batch + h * mask_head + (start + r) * mask_time
    for c in range(COLS):
        key = min(first + c, m - 1)
        x, seen = load(tile, r * COLS + c, 4), <number>
        store(tile, r * COLS + c, <apply>, 4)
'''
NUMBER = {"bool": "select(load_bool(mask, masks + key * mask_key, 14), ONE, ZERO)",
          "f32": "load(mask, masks + key * mask_key, 14)"}
APPLY = {"bool": "select(seen > ZERO, x, NEVER)", "f32": "fma(x, factor, seen)"}
POWER = (1.00000003, 0.499999941, 0.166664288, 0.0416680165, 0.00837437104, 0.00138434028)  # relative error 2e-9
