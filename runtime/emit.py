"""From a node to its launches: which emitter makes what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tinytorch.ir import Graph, Kind, Node, Op, Value, ops
from tinytorch.ir.errors import CompileError

from .attention import ATTENTION
from .cache import CACHES, emit_write_rows
from .contract import CONTRACTIONS, emit_contraction
from .depthwise import emit_depthwise, emit_depthwise_products, is_depthwise
from .interleave import INTERLEAVED
from .launch import Launch, Ref
from .loops import emit_loops
from .move import MOVES, emit_copy
from .packed import emit_packed
from .pooling import POOLS
from .products import emit_window_products
from .sparse import emit_sparse


def _emit_products(node: Node, strides: Sequence[tuple[int, ...]], threads: int) -> list[Launch]:
    return (emit_depthwise_products if is_depthwise(node) else emit_window_products)(node, strides, threads)


def _emit_convolution(node: Node, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int],
                      threads: int) -> Launch:
    product = node if node.body is None else node.body.nodes[0]
    return (emit_depthwise if is_depthwise(product) else emit_contraction)(node, strides, aliases, threads)


# Ops that take pointwise ops after them into their kernel: node (or a fused one that begins with it), strides of its
# operands, aliases, threads -> the launch.
WITH_EPILOGUE: dict[Op, Callable[[Node, Sequence[tuple[int, ...]], Mapping[int, int], int], Launch]] = {
    **dict.fromkeys(CONTRACTIONS, emit_contraction), ops.convolve: _emit_convolution, ops.packed_linear: emit_packed,
    ops.sparse_linear: emit_sparse}

# Ops that have another emitter of their own: node, strides of its operands, threads -> launches.
KERNELS: dict[Op, Callable[[Node, Sequence[tuple[int, ...]], int], list[Launch]]] = {
    **MOVES, **ATTENTION, **CACHES, **INTERLEAVED, **POOLS, ops.window_products: _emit_products}


def emit_node(node: Node, strides: Sequence[tuple[int, ...]], aliases: Mapping[int, int], threads: int) -> list[Launch]:
    """The launches that compute `node`, in order.

    Args:
        strides: of each operand, in elements.
        aliases: result number -> operand number, where the result overwrites the operand.
    Raises:
        CompileError: no kernel can be made; the message shows the node.
    """
    if node.body is not None:
        if node.attrs["style"] == "contract":
            return [WITH_EPILOGUE[node.body.nodes[0].op](node, strides, aliases, threads)]
        return [emit_loops(node.body, strides, aliases, threads)]
    if node.op in WITH_EPILOGUE:
        return [WITH_EPILOGUE[node.op](node, strides, aliases, threads)]
    if node.op is ops.write_rows:
        return emit_write_rows(node, strides, aliases, threads)
    if node.op in KERNELS:
        return KERNELS[node.op](node, strides, threads)
    if node.op.kind in (Kind.POINTWISE, Kind.REDUCE, Kind.RANDOM):
        return [emit_loops(alone(node), strides, aliases, threads)]
    if node.op.kind is Kind.VIEW:
        return [emit_copy(node.inputs[0].type, tuple(strides[0]), threads, Ref("input", 0), Ref("output", 0))]
    raise CompileError(f"{node.op}: no kernel for an op of kind {node.op.kind.value}; "
                       "expand composites before compiling")


def alone(node: Node) -> Graph:
    """A graph of one node."""
    inputs = tuple(Value(v.type, v.hint) for v in node.inputs)  # the same operand twice is two operands of the kernel
    outputs = tuple(Value(v.type, v.hint) for v in node.outputs)
    return Graph(node.op.name, inputs, (Node(node.op, inputs, node.attrs, outputs, node.source),), outputs)
