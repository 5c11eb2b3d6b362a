"""Forward mode: push tangents through a graph beside its values.

    Jvp(wrt=(0,))(graph)        # takes a tangent for input 0 as one more input, gives one for each floating output

An op has one rule of differentiation, its `vjp`, which is linear in the cotangent g. The transpose of a linear map is
its own gradient: with v(g) = Jᵀ g, the gradient of ⟨v(g), t⟩ by g is J t. So the tangent of a result is found by
differentiating the rule itself, at any g (Townsend, "A new trick for calculating Jacobian vector products", 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Builder, Graph, Recorder, as_tuple, bind
from tinytorch.ir.errors import GradientError
from tinytorch.ir.interp import Record

from .autodiff import pull_back, reverse, sum_to, zeros_like
from .remove_dead import RemoveDead


@dataclass(frozen=True)
class Jvp:
    """Graph → graph with a tangent for each input of `wrt` after its inputs, and after its outputs one for each output
    (zeros, of an output that does not depend on them or is no floating point number).

    >>> from tinytorch.ir import Builder, f32, ops
    >>> build = Builder("square")
    >>> with build: y = build.input("x", f32[()]) ** 2.0
    >>> [float(n) for n in Jvp((0,))(build.finish([y]))(3.0, 1.0)]
    [9.0, 6.0]
    """

    wrt: tuple[int, ...]

    def __call__(self, graph: Graph) -> Graph:
        if odd := [graph.names[graph.inputs[i]] for i in self.wrt if not graph.inputs[i].dtype.is_float]:
            raise GradientError(f"{graph.name}: tangents of {', '.join(odd)}: expected floating point inputs")
        build = Builder(f"{graph.name}_jvp", sources=False)
        inputs = [build.input(graph.names[v], v.type, graph.bound.get(v)) for v in graph.inputs]
        given = [build.input(f"{graph.names[graph.inputs[i]]}_tangent", graph.inputs[i].type) for i in self.wrt]
        values: dict[Any, Any] = dict(zip(graph.inputs, inputs, strict=True))
        tangents: dict[Any, Any] = {graph.inputs[i]: t for i, t in zip(self.wrt, given, strict=True)}
        with build:
            for node in graph.nodes:
                operands = tuple(values[v] for v in node.inputs)
                results = as_tuple(bind(node.op, *operands, **node.attrs))
                values |= zip(node.outputs, results, strict=True)
                if any(v in tangents for v in node.inputs):
                    record = Record(node.op, operands, node.attrs, results)
                    found = push_forward(record, [tangents.get(v) for v in node.inputs])
                    tangents |= {v: t for v, t in zip(node.outputs, found, strict=True) if t is not None}
            outputs = [values[v] for v in graph.outputs]
            ends = [tangents[v] if v in tangents else zeros_like(values[v]) for v in graph.outputs]
            return RemoveDead()(build.finish([*outputs, *ends]))


def push_forward(record: Record, tangents: Sequence[Any]) -> list[Any]:
    """The tangents of the results of one record, from those of its operands (None where there is none)."""
    probes = [zeros_like(out) if out.dtype.is_float else None for out in record.outputs]
    if all(probe is None for probe in probes):
        return [None] * len(probes)
    recorder = Recorder()
    with recorder:
        grads = pull_back(record, probes)
        pulled = [(sum_to(g, x), t) for g, x, t in zip(grads, record.operands, tangents, strict=True)
                  if g is not None and t is not None]
    depend = {id(probe) for probe in probes if probe is not None}
    made: dict[int, Record] = {}
    for inner in recorder.records:  # of the rule, what is linear in the probes
        if not depend.isdisjoint(map(id, inner.operands)):
            depend.update(map(id, inner.outputs))
            made |= dict.fromkeys(map(id, inner.outputs), inner)
    found = reverse([g for g, _ in pulled], [t for _, t in pulled], lambda handle: made.get(id(handle)))
    return [None if probe is None else found.get(id(probe)) for probe in probes]
