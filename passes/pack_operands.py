"""Copy the operands that a kernel cannot take as they lie: the last pass before a program is made.

Kernels take any strides in loop nests, but a matrix product needs one of an operand's last two axes packed, a
convolution images whose channels are packed or few, and kernels that work by position need packed operands of full
shape. Where a view is none of that, an explicit copy (`detach`, which is the identity) goes in between. So it does
where an input is to be overwritten with (a view of) an input that is overwritten too: `a, b = b, a`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tinytorch.ir import Graph, Kind, Node, Op, Value, ops
from tinytorch.ir.interp import make_node
from tinytorch.ir.layout import Layout, packed, runs, view_strides

PACKED = {ops.take: (0, 1), ops.scatter_add: (1, 2), ops.take_along: (0, 1), ops.put_along: (1, 2),
          ops.cumsum: (0,), ops.argmax: (0,), ops.argmin: (0,)}

FAR = 1 << 14  # elements from the first to the last channel of an image that a convolution reads as it lies


@dataclass(frozen=True)
class PackOperands:
    """Insert the copies that kernels need, and no others."""

    def __call__(self, graph: Graph) -> Graph:
        where: dict[Value, Layout] = {v: packed(v) for v in graph.inputs}
        nodes: list[Node] = []

        def add(node: Node) -> None:
            nodes.append(node)
            view = view_strides(node, where[node.inputs[0]].strides) if node.op.kind is Kind.VIEW else None
            for value in node.outputs:
                base = where[node.inputs[0]] if view is not None else None
                where[value] = (Layout(base.root, base.offset + view[0], view[1])
                                if base is not None and view is not None else packed(value))

        copies: dict[Value, Value] = {}  # one serves all who want it

        def copy(value: Value) -> Value:
            if value not in copies:
                node = make_node(ops.detach, (value,), {})
                add(node)
                copies[value] = node.output
            return copies[value]

        for node in graph.nodes:
            inputs = list(node.inputs)
            for place in PACKED.get(node.op, ()):
                if node.op in (ops.take_along, ops.put_along) and place == 1:
                    inputs[1] = self._spread(node, inputs[1], add)
                if not where[inputs[place]].is_packed(inputs[place].shape):
                    inputs[place] = copy(inputs[place])
            for place, fits in _wishes(node):
                if not fits(inputs[place], where[inputs[place]]):
                    inputs[place] = copy(inputs[place])
            add(node if tuple(inputs) == node.inputs else replace(node, inputs=tuple(inputs)))
        overwritten = {graph.inputs[place] for place in graph.donated.values()}
        outputs = list(graph.outputs)
        for number in graph.donated:
            if where[outputs[number]].root in overwritten:
                outputs[number] = copy(outputs[number])
        return graph if len(nodes) == len(graph.nodes) else graph.with_(nodes=tuple(nodes), outputs=tuple(outputs))

    def _spread(self, node: Node, index: Value, add: object) -> Value:
        """The positions repeated to the full shape."""
        axis, x = node.attrs["axis"], node.inputs[0]
        shape = (*x.shape[:axis], index.shape[axis], *x.shape[axis + 1:])
        if index.shape == shape:
            return index
        spread = make_node(ops.broadcast_to, (index,), {"shape": shape})
        add(spread)  # type: ignore[operator]
        return spread.output


def _wishes(node: Node) -> list[tuple[int, Callable[[Value, Layout], bool]]]:
    """How a contraction wants its operands: (place, whether one that lies so will do)."""
    body = node.body
    if body is None:
        return list(enumerate(_own_wishes(node)))
    if node.attrs["style"] != "contract":
        return []
    product = body.nodes[0]
    own = dict(zip(map(body.inputs.index, product.inputs), _own_wishes(product), strict=True))
    others = None if product.op is ops.matmul else _is_rows
    return [(place, fits) for place in range(len(body.inputs)) if (fits := own.get(place, others)) is not None]


def _own_wishes(node: Node) -> tuple[Callable[[Value, Layout], bool], ...]:
    if node.op in _GROUPED:
        return _grouped_wishes(node)
    wishes = _WISHES.get(node.op, ())[:len(node.inputs)]
    return (_is_near, *wishes[1:]) if wishes[:1] == (_is_image,) and node.attrs.get("groups") == 1 else wishes


def _grouped_wishes(node: Node) -> tuple[Callable[[Value, Layout], bool], ...]:
    """Numbers that make one element lie side by side, and so do pixels."""
    each = node.inputs[1].shape[2]

    def fits(value: Value, layout: Layout) -> bool:
        side_by_side = layout.strides[-1] == 1 or value.shape[-1] == 1
        if node.attrs:  # a convolution
            return side_by_side and (layout.strides[2] == value.shape[3] or value.shape[2] == 1)
        found = runs(value.shape[:-1], layout.strides[:-1])
        return side_by_side and len(found) <= 1 and not any(stride % each for _, stride in found)

    return fits, _is_packed


def _is_packed(value: Value, layout: Layout) -> bool:
    return layout.is_packed(value.shape)


def _is_image(value: Value, layout: Layout) -> bool:
    """Channels lie side by side."""
    return value.shape[-1] == 1 or layout.strides[-1] == 1


def _is_near(value: Value, layout: Layout) -> bool:
    """Channels lie side by side, or are few, as those of pictures: nothing is gained by turning them."""
    return _is_image(value, layout) or 0 <= (value.shape[-1] - 1) * layout.strides[-1] <= FAR


def _is_rows(value: Value, layout: Layout) -> bool:
    """All axes but the last can be walked as one."""
    return len(runs(value.shape[:-1], layout.strides[:-1])) <= 1


def _is_lines(value: Value, layout: Layout) -> bool:
    """Rows, each in one piece, that can be walked as those of a matrix."""
    return _is_image(value, layout) and _is_rows(value, layout)


def _is_row_by_row(value: Value, layout: Layout) -> bool:
    """What follows batch and time is one run of elements, or several of one length."""
    tail = runs(value.shape[2:], layout.strides[2:])
    return len(tail) <= 2 and all(stride == 1 for _, stride in tail[-1:])


def _is_any(value: Value, layout: Layout) -> bool:
    return True


def _is_matrix(value: Value, layout: Layout) -> bool:
    rows, cols = layout.strides[-2:]
    n_rows, n_cols = value.shape[-2:]
    steps_fit = rows >= n_cols or n_rows == 1 or cols >= n_rows or n_cols == 1
    return steps_fit and (cols == 1 or rows == 1 or n_rows == 1 or n_cols == 1) and min(rows, cols) > 0


_GROUPED = (ops.quad_matmul, ops.quad_convolve, ops.pair_matmul, ops.pair_convolve)
_WISHES: dict[Op, tuple[Callable[[Value, Layout], bool], ...]] = {
    ops.matmul: (_is_matrix, _is_matrix), ops.pack_pairs: (_is_matrix,), ops.convolve: (_is_image, _is_packed),
    ops.packed_linear: (_is_lines, _is_packed, _is_packed, _is_packed),
    ops.sparse_linear: (_is_lines, _is_packed, _is_packed, _is_packed),
    ops.window_products: (_is_image, _is_packed), ops.filter_tiles: (_is_image, _is_packed),
    ops.attend: (_is_image,) * 3, ops.attend_grad: (_is_image, _is_packed, _is_packed, *(_is_image,) * 3),
    ops.write_rows: (_is_any, _is_row_by_row, _is_packed), ops.attend_cached: (_is_image,) * 3,
    ops.pool_max: (_is_image,), ops.pool_sum: (_is_image,), ops.pool_sum_grad: (_is_image,),
    ops.pool_max_grad: (_is_image, _is_image, _is_image)}
