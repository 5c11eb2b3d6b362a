"""Cut a graph in two: what depends on bound inputs alone, and the rest, which is given the results.

    preparation, main = HoistBound().split(graph, steady)       # steady: bound inputs that seldom change

A model's weights are the same from call to call, so what is made of them alone (the copy that a convolution reads, the
weight times a batch norm's scale, a table of sines) need not be made again at each. `preparation` computes it: its
inputs are bound, its outputs are the values that the main graph has as bound inputs. The two are fused and run apart;
`tinytorch/preparation.py` runs the first one when a tensor has changed.

What no kernel computes (a view that strides can express, a literal) stays where it is used, and so does a single
number. A result takes no more than `GROWTH` times the memory of the bound inputs it comes from (16 numbers for 9, as
minimal filtering wants its weights), and all results of an input twice as much as it does; beyond that, all together
may take `spare` bytes. So weights of 8 or 16 bits are not kept as floats, nor a vector as the matrix it is repeated to.

As a pass, `HoistBound()` marks the place in a pipeline where the cut is made, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinytorch.ir import Graph, Node, Value, ops
from tinytorch.ir.graph import substitute
from tinytorch.ir.interp import make_node
from tinytorch.ir.layout import layouts

from .known import Sources, bound_sources
from .merge_common import MergeCommon
from .pack_operands import PackOperands
from .remove_dead import RemoveDead

GROWTH = 16 / 9
MANY_ROWS = 16  # from so many on, a product reads a weight faster that lies along its columns


@dataclass(frozen=True)
class HoistBound:
    """The place of the cut; `spare` is how many bytes all results may take beyond those that they come from."""

    spare: int = 1 << 20

    def __call__(self, graph: Graph, /) -> Graph:
        return graph

    def split(self, graph: Graph, steady: Collection[Value] | None = None) -> tuple[Graph | None, Graph]:
        """The preparation (None if there is nothing to prepare) and the main graph.

        In the main graph prepared values are bound to zeros; whoever runs the preparation binds them to its results.

        Args:
            steady: the bound inputs to prepare from; by default all. Those that are overwritten never are.
        """
        steady = graph.bound if steady is None else steady
        # The copies of weights that kernels need, or are faster with, are prepared too.
        packed = MergeCommon()(PackOperands()(_turn_weights(graph, bound_sources(graph, steady))))
        sources = bound_sources(packed, steady)
        prepared = self._choose(packed, sources)
        if not prepared:
            return None, graph
        inputs = tuple(v for v in packed.inputs if v in sources)
        nodes = tuple(node for node in packed.nodes if sources.keys() >= set(node.outputs))
        named = {value: Value(value.type, _name(sources[value])) for value in prepared}
        preparation = packed.with_(name=f"{graph.name}_preparation", inputs=inputs, nodes=_renamed(nodes, named),
                                   outputs=tuple(named.values()), bound={v: packed.bound[v] for v in inputs},
                                   donated={})
        main = _without(packed, named, _copies(packed, graph) - named.keys())
        return RemoveDead()(preparation), RemoveDead()(main)

    def _choose(self, graph: Graph, sources: Sources) -> tuple[Value, ...]:
        """The values to prepare: those that something else needs, and that are worth it."""
        lies = layouts(graph)
        needed = set(graph.outputs)
        chosen: list[Value] = []
        place = {value: number for number, value in enumerate(graph.inputs)}
        credit = _Credit(self.spare)
        for node in reversed(graph.nodes):
            wanted = [value for value in node.outputs if value in needed]
            made_of = sorted(sources.get(node.outputs[0], ()), key=place.__getitem__)
            launched = all(lies[value].root is value and value.type.size > 1 for value in wanted)
            if wanted and made_of and launched and credit.pays(sum(v.type.nbytes for v in wanted), made_of):
                chosen += wanted
            elif wanted:
                needed.update(node.inputs)
        return tuple(reversed(chosen))


class _Credit:
    """How much memory results may still take: `spare` bytes, and what they come from, a little grown, at most twice."""

    def __init__(self, spare: int) -> None:
        self.spare = spare
        self.left: dict[Value, int] = {}

    def pays(self, nbytes: int, sources: Sequence[Value]) -> bool:
        """Whether a result of that size may be kept; then it is paid for."""
        known = int(GROWTH * sum(value.type.nbytes for value in sources))
        left = {value: self.left.get(value, 2 * value.type.nbytes) for value in sources}
        covered = min(nbytes, known, sum(left.values()))
        if nbytes - covered > self.spare:
            return False
        self.spare -= nbytes - covered
        for value in sources:
            part = min(covered, left[value])
            self.left[value] = left[value] - part
            covered -= part
        return True


def _turn_weights(graph: Graph, sources: Sources) -> Graph:
    """Copies, lying the other way round, of weights that matrix products read transposed, row by row of x."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op is ops.matmul and node.attrs["transpose_y"] and node.inputs[1] in sources and (
                len(node.inputs[1].shape) == 2 and node.output.shape[-2] >= MANY_ROWS):
            turned = make_node(ops.transpose, (node.inputs[1],), {"axes": (1, 0)})
            copy = make_node(ops.detach, turned.outputs, {})
            nodes += [turned, copy]
            node = replace(node, inputs=(node.inputs[0], copy.output), attrs={**node.attrs, "transpose_y": False})
        nodes.append(node)
    return graph.with_(nodes=tuple(nodes))


def _name(sources: Collection[Value]) -> str:
    """What is prepared is named after the biggest thing it is made of."""
    return f"{max(sources, key=lambda value: (value.type.nbytes, value.hint)).hint}_prepared"


def _renamed(nodes: Sequence[Node], named: Mapping[Value, Value]) -> tuple[Node, ...]:
    return tuple(replace(node, outputs=tuple(named.get(v, v) for v in node.outputs))
                 for node in substitute(nodes, dict(named)))


def _copies(packed: Graph, graph: Graph) -> set[Value]:
    """The copies that packing has put in."""
    return {node.output for node in packed.nodes if node.op is ops.detach and node.output not in graph.producer}


def _without(graph: Graph, named: Mapping[Value, Value], copies: Collection[Value]) -> Graph:
    """`graph` with some values given, and without these copies, for which the place to be made is later."""
    same = dict(named)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.outputs[0] in copies:
            same[node.output] = same.get(node.inputs[0], node.inputs[0])
        elif named.keys().isdisjoint(node.outputs):
            nodes += substitute([node], same)
    zeros = {value: np.zeros(value.shape, value.dtype.np) for value in named.values()}
    return graph.with_(inputs=(*graph.inputs, *zeros), bound={**graph.bound, **zeros}, nodes=tuple(nodes),
                       outputs=tuple(same.get(v, v) for v in graph.outputs))
