"""Before and after: write two functions, trace both, and compare the programs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.ir import Builder, Graph, TensorType, Value
from tinytorch.passes import MergeCommon, Pass, RemoveDead, check_same_meaning
from tinytorch.passes.merge_common import freeze


def program(function: Callable[..., Any], *types: TensorType, bound: dict[int, np.ndarray] | None = None) -> Graph:
    """The graph of `function` on inputs of these types; `bound` gives some of them a value, by number."""
    build = Builder("program")
    build.sources = False
    inputs = [build.input(f"x{number}", type_, (bound or {}).get(number)) for number, type_ in enumerate(types)]
    with build:
        result = function(*inputs)
    return build.finish(result if isinstance(result, tuple) else (result,))


def becomes(step: Pass, before: Graph, after: Graph) -> None:
    """Fail unless `step` turns `before` into the program `after`, and that means the same."""
    found = step(before)
    check_same_meaning(before, found, np.random.default_rng(3))
    assert shape_of(found) == shape_of(after), f"expected\n{after}\nfound\n{found}"


def shape_of(graph: Graph) -> Any:
    """What is equal for graphs that compute the same in the same way,
    whatever the order of their nodes and equal constants."""
    graph = RemoveDead()(MergeCommon()(graph))
    keys: dict[Value, Any] = {value: ("input", number) for number, value in enumerate(graph.free)}
    keys |= {value: ("bound", value.type, graph.bound[value].tobytes()) for value in graph.bound}
    for node in graph.nodes:
        operands = [keys[v] for v in node.inputs]
        if node.op.commutative:
            operands.sort(key=repr)
        key = (node.op.name, tuple(operands), tuple((k, freeze(v)) for k, v in sorted(node.attrs.items())))
        keys |= {value: (*key, number) for number, value in enumerate(node.outputs)}
    return [keys[v] for v in graph.outputs]
