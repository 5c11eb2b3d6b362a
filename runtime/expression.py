"""The kernel text of one scalar operation: what a node does to one element.

Numbers of a storage type (f16, bf16) are f32 in a kernel, and are rounded to their type after each op, as in NumPy:
`f16(v0 + v1)`. Folds add up in f32 and round once, as NumPy's do here. So a fused kernel agrees with eager evaluation
to the last place of the type, or nearly, however many ops it holds. Nothing is contracted or reassociated, but for the
steps of folds (`plus`, `times`): arithmetic is eager's, bit for bit.
"""

from __future__ import annotations

import math

from tinytorch.ir import DType, Kind, Node

from .launch import STATUS, ArgumentTable, float_word

IMPORTS = """from numpy import inf, nan

from tinytorch.runtime.lowlevel import *
from tinytorch.runtime.scalars import *
from tinytorch.runtime.vecmath import *
"""
PLAIN = {0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, math.inf, -math.inf}  # constants that are written into the text
BOOLEAN = {"{0} + {1}": "{0} | {1}", "{0} * {1}": "{0} & {1}", "maximum({0}, {1})": "{0} | {1}",
           "minimum({0}, {1})": "{0} & {1}"}  # on booleans
FOLD = {"{0} + {1}": "plus({0}, {1})", "{0} * {1}": "times({0}, {1})"}  # as steps of a fold of floats
EXACT = ("-{0}", "absolute_", "select(", "maximum(", "minimum(")  # how texts begin whose results need no rounding
CONSTANT_SCOPE = 59  # of loads of constants from the table


def compute_type(dtype: DType) -> str:
    """The type a kernel computes in: storage types widen to f32."""
    return "f32" if is_storage(dtype) else dtype.name


def is_storage(dtype: DType) -> bool:
    """Whether numbers of this type are kept in memory only."""
    return dtype.name in ("f16", "bf16")


def caster(dtype: DType) -> str:
    """The name of the cast to a dtype in kernel text; the cast to a storage type rounds to it."""
    return "bool_" if dtype.name == "bool" else dtype.name


def expression(node: Node, operands: list[str], flat_index: str = "0", extent: str = "") -> str:
    """What `node` computes from these names; `flat_index` is the number of the element (for random ops), `extent` names
    the word with the extent that positions are checked against."""
    assert node.op.scalar is not None
    out = node.output.dtype
    first = node.output if node.op.kind is Kind.RANDOM else node.inputs[0]
    template = BOOLEAN.get(node.op.scalar, node.op.scalar) if out.kind == "b" else node.op.scalar
    text = template.format(*operands, T=compute_type(first.dtype), cast=caster(out), flat_index=flat_index,
                           extent=extent)
    wraps = out.kind in "iu" and out.name != "i64"  # Python's integers, and Numba's, widen
    rounds = is_storage(out) and template != "{0}" and not template.startswith(EXACT)
    return f"{caster(out)}({text})" if (wraps or rounds) and not text.startswith(f"{caster(out)}(") else text


def identity(node: Node) -> str:
    """What a reduction starts from."""
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


def fold(node: Node, accumulator: str, operand: str, in_order: bool = False) -> str:
    """One step of a reduction; `in_order` keeps the compiler from joining it with others in another order."""
    assert node.op.scalar is not None
    dtype = node.output.dtype
    template = BOOLEAN.get(node.op.scalar, node.op.scalar) if dtype.kind == "b" else node.op.scalar
    loose = dtype.kind == "f" and not in_order
    text = (FOLD.get(template, template) if loose else template).format(accumulator, operand)
    return f"{caster(dtype)}({text})" if dtype.kind in "iu" else text


def literal(node: Node, name: str, table: ArgumentTable) -> str:
    """The text of a constant: written out if it is a common one, else `name`, read from the table
    (so that kernels do not depend on it)."""
    number = node.attrs["value"]
    while isinstance(number, tuple):
        number = number[0]
    dtype = node.output.dtype
    cast = "f32" if is_storage(dtype) else caster(dtype)
    if dtype.kind == "f" and (float(number) in PLAIN or number != number):
        return f"{cast}({float(number)!r})"
    if dtype.kind == "f":
        table.add(name, float_word(float(dtype.np.type(number))), f"{cast}(load_f64(args, {{}}, {CONSTANT_SCOPE}))")
    elif dtype.kind == "b" or number in PLAIN:
        return f"{cast}({int(number)})"
    else:
        table.add(name, int(number), f"{cast}(integer(args, {{}}))")
    return name


def checked_extent(node: Node, number: int, table: ArgumentTable) -> str:
    """The word with the extent that `in_range` checks against, and the one where it reports; "" for other ops."""
    if "extent" not in node.attrs:
        return ""
    if not any(line.startswith("status = ") for line in table.lines):
        table.pointer("status", STATUS)
    table.integer(f"extent{number}", node.attrs["extent"])
    return f"extent{number}"
