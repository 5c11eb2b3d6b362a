"""Copy the operands that a kernel cannot take as they lie: the last pass before a program is made.

Kernels take any strides in loop nests, but a matrix product needs one of an operand's last two axes packed, and kernels
that work by position need packed operands of full shape. Where a view is neither, an explicit copy (`detach`, which is
the identity) goes in between. So it does where an input is to be overwritten with (a view of) an input that is
overwritten too: `a, b = b, a`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinytorch.ir import Graph, Kind, Node, Value, ops
from tinytorch.ir.interp import make_node
from tinytorch.ir.layout import Layout, packed, view_strides

PACKED = {ops.take: (0, 1), ops.scatter_add: (1, 2), ops.take_along: (0, 1), ops.put_along: (1, 2),
          ops.cumsum: (0,), ops.argmax: (0,), ops.argmin: (0,)}


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

        def copy(value: Value) -> Value:
            node = make_node(ops.detach, (value,), {})
            add(node)
            return node.output

        for node in graph.nodes:
            inputs = list(node.inputs)
            for place in PACKED.get(node.op, ()):
                if node.op in (ops.take_along, ops.put_along) and place == 1:
                    inputs[1] = self._spread(node, inputs[1], add)
                if not where[inputs[place]].is_packed(inputs[place].shape):
                    inputs[place] = copy(inputs[place])
            for place in self._matrices(node):
                value = inputs[place]
                if not _is_matrix(value, where[value]):
                    inputs[place] = copy(value)
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

    def _matrices(self, node: Node) -> tuple[int, ...]:
        """The operands of `node` that a matrix product reads."""
        if node.op is ops.matmul:
            return (0, 1)
        if node.body is not None and node.attrs["style"] == "contract":
            return tuple(node.body.inputs.index(v) for v in node.body.nodes[0].inputs)
        return ()


def _is_matrix(value: Value, layout: Layout) -> bool:
    rows, cols = layout.strides[-2:]
    n_rows, n_cols = value.shape[-2:]
    steps_fit = rows >= n_cols or n_rows == 1 or cols >= n_rows or n_cols == 1
    return steps_fit and (cols == 1 or rows == 1 or n_rows == 1 or n_cols == 1) and min(rows, cols) > 0
