"""A module, or a function, seen through passes: what `tt.quantize` and others of the kind give back.

    small = nn.Rewritten(model, QuantizeWeights(…))      # small(x) runs the graph that the pass makes of model's
    print(small.graph(x))                                # the graph for such a call; small.history(x): every stage

A graph has fixed sizes, a model has not. So for each kind of call `forward` traces the model, in evaluation mode, runs
the passes, and keeps the result; a call replays its nodes through the door. It is a module like any other: eager,
traced inside something else, compiled, saved. What passes bind (packed weights, scales) become buffers of it, and
parameters that the rewritten graph no longer reads are freed: it holds what it needs, and the model is left as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinytorch.frontends.trace import Trace, is_traceable
from tinytorch.frontends.trace import trace as trace_function
from tinytorch.frontends.tree import flatten
from tinytorch.ir import Graph, Value
from tinytorch.ir.errors import TracingError
from tinytorch.passes import History, Pipeline
from tinytorch.passes.autodiff import inline
from tinytorch.passes.fold_constants import frozen, is_frozen
from tinytorch.surroundings import Surroundings
from tinytorch.tensor import Parameter, Tensor, as_tensor
from tinytorch.watch import lend

from .module import Keys, Module

__all__ = ["Rewritten"]


@dataclass(frozen=True)
class _Plan:
    """What a call of one kind runs: a graph, and the tensors behind its bound inputs."""

    traced: Trace
    history: History
    owners: dict[Value, Tensor]

    @property
    def graph(self) -> Graph:
        return self.history[-1].graph


class Rewritten(Module):
    """Runs `module` (or a function of tensors) as `passes` rewrite it, for arguments of any sizes.

    Args:
        module: it is copied; its training mode does not matter, for it is traced in evaluation mode.
        passes: functions from graph to graph, which do the same for every size: what they bind is the same array each
            time, chosen by the names of values (`graph.names`), which do not depend on sizes.
    Raises:
        TracingError: when called, if the module overwrites tensors (draws random numbers, updates statistics).
        PassError: when called, if a pass refuses the graph.

    >>> import tinytorch as tt
    >>> from tinytorch import nn, passes
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()).eval()
    >>> folded, x = nn.Rewritten(model, passes.FoldBatchNorm()), tt.ones(2, 3)
    >>> bool((folded(x) - model(x)).abs().max() < 1e-6), [n.op.name for n in folded.graph(x).nodes].count("batch_norm")
    (True, 0)
    """

    def __init__(self, module: Callable[..., Any], *passes: Callable[[Graph], Graph]) -> None:
        self.training = False
        self.passes = Pipeline(*passes)
        self._source = (_snapshot(module) if isinstance(module, Module) else module,)  # in a tuple: no part of this
        self._plans: dict[Any, _Plan] = {}
        self._made: dict[int, tuple[np.ndarray, Tensor]] = {}  # arrays that passes bind, by id

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the rewritten graph computes of the arguments: results as those of the module."""
        plan = self._plan(args, kwargs)
        leaves, _ = flatten((args, kwargs))
        given = [as_tensor(leaf) for leaf in leaves if is_traceable(leaf)]
        operands = iter(given)
        results = inline(plan.graph, [plan.owners[v] if v in plan.owners else next(operands)
                                      for v in plan.graph.inputs])
        return plan.traced.results([as_tensor(result) for result in results])

    @property
    def source(self) -> Callable[..., Any]:
        """What is rewritten: a copy of the module, of whose tensors those that are not read any more are freed."""
        return self._source[0]

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """The rewritten graph for arguments like these."""
        return self._plan(args, kwargs).graph

    def history(self, *args: Any, **kwargs: Any) -> History:
        """The graph after each pass, for arguments like these; the first is the module's own."""
        return self._plan(args, kwargs).history

    def train(self, mode: bool = True) -> Rewritten:
        """Only evaluation is possible.

        Raises:
            TracingError: training mode is asked for.
        """
        if mode:
            raise TracingError("a rewritten module has no training mode: train the module first, then rewrite it")
        return self

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Keys:
        """As of any module; packed weights are replaced, for nobody can write them."""
        keys = super().load_state_dict({k: v for k, v in state_dict.items() if k not in self._buffers}, strict=False)
        for name in self._buffers.keys() & state_dict.keys():
            getattr(self, name).payload = frozen(as_tensor(state_dict[name]).numpy())
        return Keys([k for k in keys.missing_keys if k not in state_dict], keys.unexpected_keys)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_plans": {}, "_made": list(self._made.values())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy makes plans of its own, of the arrays that its passes have now."""
        vars(self).update(state, _made={id(array): (array, tensor) for array, tensor in state["_made"]})

    def extra_repr(self) -> str:
        """The module and the passes."""
        shown = ", ".join(type(step).__name__ for step in self.passes.passes)
        return f"{getattr(self._source[0], '__name__', type(self._source[0]).__name__)}, {shown}"

    # -- making a plan -------------------------------------------------------------------------------------------------

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Plan:
        leaves, tree = flatten((args, kwargs))
        kinds = tuple(as_tensor(leaf).type if is_traceable(leaf) else (type(leaf), leaf) for leaf in leaves)
        found = self._plans.get((tree, kinds))
        if found is None:
            found = self._plans[tree, kinds] = self._make(args, kwargs)
        return found

    def _make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Plan:
        source = self._source[0]
        traced = trace_function(source, args, kwargs, handle=Tensor, names=Surroundings(source).names())
        if traced.mutated:
            names = ", ".join(traced.graph.names[traced.graph.inputs[i]] for i in traced.graph.donated.values())
            raise TracingError(f"{self.extra_repr()}: the module overwrites tensors ({names}); expected one that only "
                               "computes, as in evaluation mode")
        given = [value for value in traced.graph.inputs if value in traced.graph.bound]
        captured = {value: owner if isinstance(owner, Tensor) else Tensor(owner.payload)
                    for value, owner in zip(given, traced.captured, strict=True)}
        lent = {value: lend(tensor.payload) for value, tensor in captured.items()}
        graph, history = self.passes.run(traced.graph.with_(bound=lent))
        read = {graph.names[v]: captured[v] for v in graph.bound if v in captured}
        if isinstance(source, Module):
            self._keep(source, read)
        owners = {v: captured[v] if v in captured else self._own(array, graph.names[v])
                  for v, array in graph.bound.items()}
        bound = {value: lend(owner.payload) for value, owner in owners.items()}
        stages = (*(replace(stage, graph=_hollow(stage.graph)) for stage in history[:-1]),
                  replace(history[-1], graph=graph.with_(bound=bound)))
        return _Plan(replace(traced, graph=stages[0].graph, captured=()), History(stages), owners)

    def _own(self, array: np.ndarray, name: str) -> Tensor:
        """The buffer that holds an array of a pass."""
        if id(array) not in self._made:
            while hasattr(self, name):
                name += "_"
            self.register_buffer(name, Tensor(array if is_frozen(array) else frozen(array)))
            self._made[id(array)] = array, getattr(self, name)
        return self._made[id(array)][1]

    def _keep(self, source: Module, read: Mapping[str, Tensor]) -> None:
        """Own what is read of the module, and free what is not."""
        kept = {id(tensor) for tensor in (*self.parameters(), *self.buffers())}
        for name, tensor in read.items():
            if _is_hollow(tensor):
                raise TracingError(f"{self.extra_repr()}: for these sizes the passes leave {name} in the graph, for "
                                   "others they did not; expected passes that do not look at sizes")
            if id(tensor) in kept or not any(tensor is own for own in (*source.parameters(), *source.buffers())):
                continue
            tensor.payload = tensor.payload.copy()  # the model's own may be trained further
            if isinstance(tensor, Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)
            kept.add(id(tensor))
        for tensor in (*source.parameters(), *source.buffers()):
            if id(tensor) not in kept:
                tensor.payload = _zeros(tensor.payload)


def _snapshot(module: Module) -> Module:
    """A copy in evaluation mode whose tensors are its own, though their numbers are not copied yet."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        memo[id(tensor)] = twin = copy.copy(tensor)
        twin.grad = None
    return copy.deepcopy(module, memo).eval()


def _zeros(array: np.ndarray) -> np.ndarray:
    """Zeros of that type and shape, all of them the same element."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _is_hollow(tensor: Tensor) -> bool:
    return tensor.payload.size > 1 and not any(tensor.payload.strides)


def _hollow(graph: Graph) -> Graph:
    """`graph`, bound to zeros that take no memory."""
    return graph.with_(bound={value: _zeros(array) for value, array in graph.bound.items()})
