"""What became of each node from one graph to the next: which are new, which have changed, which have gone.

    found = compare(before, after)
    found.new, found.changed, found.gone        # numbers of nodes; of `after`, of `after` with a word, of `before`

Passes leave alone what they do not change, so a node is the same if it gives the same value. The rest (a graph that was
traced anew shares no value) is aligned by op, in order, as a tool that compares texts aligns lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from .graph import Graph, Node


@dataclass(frozen=True)
class Difference:
    """Numbers of nodes: `new` and `changed` of the later graph, `gone` of the earlier one.

    `changed` says what a result was before: `f32[64, 10]`.
    """

    new: tuple[int, ...]
    changed: dict[int, str]
    gone: tuple[int, ...]


def compare(before: Graph, after: Graph) -> Difference:
    """The difference of two graphs, the second made from the first."""
    place = {node: number for number, node in enumerate(before.nodes)}
    pairs = {number: place[before.producer[node.output]] for number, node in enumerate(after.nodes)
             if node.output in before.producer}
    came = [number for number in range(len(after.nodes)) if number not in pairs]
    went = sorted(set(range(len(before.nodes))) - set(pairs.values()))
    pairs |= _aligned(went, before.nodes, came, after.nodes)
    return Difference(
        new=tuple(number for number in came if number not in pairs),
        changed={number: _types(before.nodes[old]) for number, old in sorted(pairs.items())
                 if _types(before.nodes[old]) != _types(after.nodes[number])},
        gone=tuple(sorted(set(went) - set(pairs.values()))))


def _aligned(went: list[int], before: tuple[Node, ...], came: list[int], after: tuple[Node, ...]) -> dict[int, int]:
    """Pairs (new number: old number) of nodes with the same op, in the same order."""
    old, new = [_name(before[number]) for number in went], [_name(after[number]) for number in came]
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return {came[b + step]: went[a + step] for a, b, length in blocks for step in range(length)}


def _name(node: Node) -> str:
    return node.op.name if node.body is None else " ".join(inner.op.name for inner in node.body.nodes)


def _types(node: Node) -> str:
    return ", ".join(str(value.type) for value in node.outputs)
