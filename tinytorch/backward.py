"""Gradients through a compiled call: its results remember it; backward runs a compiled gradient of its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinytorch.ir import Builder, Kind, Recorder
from tinytorch.passes import PIPELINES, Pipeline, plan_memory
from tinytorch.passes.autodiff import inline, reverse, zeros_like

from .tensor import Tensor, as_tensor, grad_mode


class CompiledCall:
    """Stands where an op stands on the tape; `vjp` is the compiled gradient (it runs the forward pass again inside)."""

    name, kind, expand, transcendental = "compiled", Kind.FUSED, None, False
    doc = "a compiled function"

    def __init__(self, entry: Any, position: int) -> None:
        self.entry, self.position = entry, position
        # By the operands whose gradients are wanted: parameters may be frozen from one call to the next.
        self._programs: dict[tuple[int, ...], tuple[Any, list[np.ndarray]]] = {}

    def __repr__(self) -> str:
        return "compiled call"

    def vjp(self, g: Any, out: Any, *operands: Any) -> Sequence[Any]:
        """Cotangents of all inputs of the graph."""
        graph = self.entry.traced.graph
        wanted = tuple(i for i, operand in enumerate(operands) if getattr(operand, "requires_grad", False))
        if grad_mode.enabled:  # for second order: open the call and differentiate its pieces
            return _gradients(graph, self.position, operands, g, wanted)
        if wanted not in self._programs:
            self._programs[wanted] = self._compile(wanted)
        program, constants = self._programs[wanted]
        results = program([np.asarray(t.payload, order="C") for t in (*operands, g)] + constants)
        found: list[Any] = [None] * len(operands)
        for i, array in zip(wanted, results, strict=True):
            found[i] = Tensor(array)
        return found

    def _compile(self, wanted: Sequence[int]) -> tuple[Any, list[np.ndarray]]:
        """The program, and the arrays that it takes beside operands and cotangent: constants that passes put in."""
        from tinytorch.runtime.program import Program

        graph = self.entry.traced.graph
        build = Builder(f"{graph.name}_backward", sources=False)
        inputs = [build.input(graph.names[v], v.type) for v in graph.inputs]
        seed = build.input("cotangent", graph.outputs[self.position].type)
        with build:
            found = _gradients(graph, self.position, inputs, seed, wanted)
            grads = [zeros_like(inputs[i]) if found[i] is None else found[i] for i in wanted]
        lowered = Pipeline(*PIPELINES["train"])(build.finish(grads))
        return Program(lowered, plan_memory(lowered)), [lowered.bound[v] for v in lowered.inputs if v in lowered.bound]


def _gradients(graph: Any, position: int, operands: Sequence[Any], g: Any, wanted: Sequence[int]) -> list[Any]:
    recorder = Recorder()
    with recorder:
        result = inline(graph, operands)[position]
    made = {id(out): record for record in recorder.records for out in record.outputs}
    found = reverse([result], [g], lambda handle: made.get(id(handle)), frozenset(map(id, operands)))
    # An operand that is given twice has one cotangent: the first place takes it.
    return [found.pop(id(operand), None) if i in wanted else None for i, operand in enumerate(operands)]


def attach_backward(entry: Any, leaves: Sequence[Any], old: Mapping[int, Any], outputs: Sequence[Tensor]) -> None:
    """Connect the results of a call to the tensors it read, where those require a gradient.

    Args:
        leaves: the leaves of the call's arguments.
        old: `id` of a tensor that the call overwrote → its numbers before.
    """
    traced = entry.traced
    tensors = [*(leaves[i] for i in entry.args), *(Tensor(old[id(t)]) if id(t) in old else t for t in traced.captured)]
    if not any(getattr(t, "requires_grad", False) for t in tensors):
        return
    operands = [t if isinstance(t, Tensor) else as_tensor(t) for t in tensors]
    versions = [t.version for t in operands]
    for position, (tensor, needs) in enumerate(zip(outputs, traced.needs_grad, strict=True)):
        if needs:
            tensor.requires_grad = True
            tensor.creator = (entry.call(position), operands, {}, versions)
