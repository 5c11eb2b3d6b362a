"""The text of the left operand of a convolution: windows of images, found by a table of addresses (`matmul_text.py`).

A tile of the product has a row for each of some pixels; a run of its depth is one place of the kernel (a tap) with all
channels of x. So row r of run u begins where the window of pixel r has its tap u, or at zeros where that is outside
(at zero points in an image of bytes: `outside`).
"""

WINDOW_WORDS = ("height", "width", "out_height", "out_width", "kernel_h", "kernel_w", "channels", "x_n", "x_h", "x_w",
                "x_c", "stride_h", "stride_w", "low_h", "low_w", "gap_h", "gap_w", "spread_h", "spread_w", "images",
                "batches", "table_at", "outside")

WINDOW_PIECES = '''\
from tinytorch.runtime.microkernel import table_tile

multiply_runs = table_tile(ROWS, VECTORS, LANES, ELEMENT)
OUTSIDE, FAR = -1 << 62, 1 << 40
'''

# Room for: what is known of each row of a tile; the table of runs, relative to a batch of images and as addresses.
WINDOW_SETUP = '''\
<words>
lines, taps = tiles + table_at, kernel_h * kernel_w
rests_h, columns, rests_w = lines + 8 * ROWS, lines + 16 * ROWS, lines + 24 * ROWS
corners, starts, places = lines + 32 * ROWS, lines + 40 * ROWS, lines + 48 * ROWS
relative, table = lines + 56 * ROWS, lines + (56 + 8 * taps) * ROWS
offsets = table + 8 * taps * ROWS
zeros = offsets + 8 * taps
fill_bytes(zeros, ((channels - 1) * x_c + 1) * SIZE, outside)
phases_h, phases_w = (out_height + spread_h - 1) // spread_h, (out_width + spread_w - 1) // spread_w
hop_h, odd_h, hop_w, odd_w = gap_h // spread_h, gap_h % spread_h, gap_w // spread_w, gap_w % spread_w
known, runs, runs_a_go = -1, 0, max(1, CHAIN // channels)
'''

# Tiles run through the batches of images for one place after the other, so that the table is made once a place.
# The pixels of an image come in order; where x is spread, those of one phase after the other: they need the same
# taps. Element `spread * e + rest` of the spread x is element e of x if rest is 0 (or spread).
FIND_LEFT_WINDOWS = '''\
spot, batch = row // ROWS // batches, row // ROWS % batches
if spot != known:
    known = spot
    ow, above = spot * ROWS % phases_w, spot * ROWS // phases_w
    oh, image = above % phases_h, above // phases_h
    phase_w, phase_h = 0, 0
    if spread_h * spread_w > 1:
        phase_w, image = image % spread_w, image // spread_w
        phase_h, image = image % spread_h, image // spread_h
    begin_h, rest_h, begin_w, rest_w = -low_h, 0, -low_w, 0
    for r in range(ROWS):
        if spread_h * spread_w > 1:
            begin_h, rest_h = (phase_h * stride_h - low_h) // spread_h, (phase_h * stride_h - low_h) % spread_h
            begin_w, rest_w = (phase_w * stride_w - low_w) // spread_w, (phase_w * stride_w - low_w) % spread_w
        y, x = oh * stride_h + begin_h, ow * stride_w + begin_w
        pixel_h, pixel_w = oh * spread_h + phase_h, ow * spread_w + phase_w
        inside = (pixel_h < out_height) & (pixel_w < out_width) & (image < images)
        store_i64(lines, r, select(inside, y, FAR), 59)
        store_i64(rests_h, r, rest_h, 59)
        store_i64(columns, r, x, 59)
        store_i64(rests_w, r, rest_w, 59)
        store_i64(corners, r, (image * x_n + y * x_h + x * x_w) * X_SIZE, 59)
        store_i64(places, r, select(inside, (image * out_height + pixel_h) * out_width + pixel_w, -1), 59)
        ow += 1
        if ow == phases_w:
            ow, oh = 0, oh + 1
            if oh == phases_h:
                oh, phase_w = 0, phase_w + 1
                if phase_w == spread_w:
                    phase_w, phase_h = 0, phase_h + 1
                    if phase_h == spread_h:
                        phase_h, image = 0, image + 1
    runs, hops_h, more_h = 0, 0, 0
    for p in range(kernel_h):
        for r in range(ROWS):
            rest, y = load_i64(rests_h, r, 59) + more_h, load_i64(lines, r, 59) + hops_h
            on = rest == spread_h
            y += i64(on)
            address = load_i64(corners, r, 59) + hops_h * x_h * X_SIZE + select(on, x_h * X_SIZE, 0)
            store_i64(starts, r, select(((rest == 0) | on) & (y >= 0) & (y < height), address, OUTSIDE), 59)
        hops_w, more_w = 0, 0
        for q in range(kernel_w):
            run = relative + runs * ROWS * 8
            for r in range(ROWS):
                rest, x = load_i64(rests_w, r, 59) + more_w, load_i64(columns, r, 59) + hops_w
                on = rest == spread_w
                x += i64(on)
                start = load_i64(starts, r, 59)
                inside = (start != OUTSIDE) & ((rest == 0) | on) & (x >= 0) & (x < width)
                address = start + hops_w * x_w * X_SIZE + select(on, x_w * X_SIZE, 0)
                store_i64(run, r, select(inside, address, OUTSIDE), 58)
            store_i64(offsets, runs, (p * kernel_w + q) * channels * (COLS if pack_right else right_ld) * SIZE, 57)
            needed = spread_h * spread_w == 1
            for r in range(0 if needed else ROWS):
                needed |= load_i64(run, r, 58) != OUTSIDE
            runs += i64(needed)
            hops_w, more_w = hops_w + hop_w, more_w + odd_w
            if more_w >= spread_w:
                hops_w, more_w = hops_w + 1, more_w - spread_w
        hops_h, more_h = hops_h + hop_h, more_h + odd_h
        if more_h >= spread_h:
            hops_h, more_h = hops_h + 1, more_h - spread_h
base, origin = left + batch * images * x_n * X_SIZE, batch * images * out_height * out_width
for entry in range(runs * ROWS):
    address = load_i64(relative, entry, 58)
    store_i64(table, entry, select(address == OUTSIDE, zeros, base + address), 57)
'''

MULTIPLY_WINDOWS = '''\
for run in range(0, max(runs, 1), runs_a_go):
    multiply_runs(table + run * ROWS * 8, offsets + run * 8, min(runs_a_go, runs - run), x_c, y, y_step, channels, tile,
                  run)
'''
