"""The text of the left operand of a convolution of quads or pairs: lines of images, padded in scratch.

What a row of the kernel covers, kw · C numbers, lies in one run in an image, wherever the window stands, if the image
is padded. So a work item first copies the lines that it needs to scratch, with what is outside around them (unless
nothing is outside: then it reads them where they lie); and row r of the product is found by one address, from which the
rows of the kernel are one pitch apart. An item is some whole images, or a band of the lines of one.
"""

LINE_WORDS = ("height", "row_bytes", "tall", "out_height", "out_width", "kernel_h", "run", "x_n", "x_h", "pixel",
              "stride_h", "stride_w", "low_h", "edge", "skip", "gap_h", "images", "images_an_item", "bands", "pitch",
              "image_pitch", "stage_lines", "outside", "staged", "table_at", "stage_at")

LINE_PIECES = '''\
from tinytorch.runtime.microkernel import line_tile

multiply_lines = line_tile(ROWS, VECTORS, LANES, ELEMENT)
'''

# Where the window of each pixel of an item begins. What is left and right of the lines stays as it is filled here.
LINE_SETUP = '''\
<words>
table, stage = tiles + table_at, tiles + stage_at
if staged:
    fill_bytes(stage, images_an_item * image_pitch, outside)
for image in range(images_an_item):
    for y in range(tall):
        for x in range(out_width):
            store_i64(table, (image * tall + y) * out_width + x,
                      image * image_pitch + y * stride_h * pitch + x * stride_w * pixel, 59)
'''

STAGE_LINES = '''\
first, top = row_block // bands * images_an_item, row_block % bands * tall
images_here = min(images_an_item, images - first)
pixels, origin = images_here * min(tall, out_height - top) * out_width, (first * out_height + top) * out_width
base = left + (first * x_n + (top * stride_h - low_h) * x_h) * X_SIZE + skip
if staged:
    base = stage
    for image in range(images_here):
        for y in range(stage_lines):
            line, target = top * stride_h - low_h + y, stage + image * image_pitch + y * pitch
            if line >= 0 and line < height:
                copy_bytes(target + edge, left + ((first + image) * x_n + line * x_h) * X_SIZE + skip, row_bytes)
            else:
                fill_bytes(target, pitch, outside)
'''

FIND_LEFT_LINES = '''\
valid = min(ROWS, pixels - (row - row_from))
if valid <= 0:
    break
x, first_pixel = table + (row - row_from) * 8, origin + row - row_from
'''

MULTIPLY_LINES = '''\
multiply_lines(x, base, valid, kernel_h, gap_h * pitch, y, y_step, run, tile)
'''
