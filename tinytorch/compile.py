"""`tt.trace` and `tt.compile`: the only place where tracing, passes and the runtime meet.

    fast = tt.compile(model)                # a function, a module, or a whole training step; also a decorator
    fast(x)                                 # the first call of a kind traces, optimises, compiles; later ones just run
    fast.graph, fast.history, fast.kernels  # what became of it
    print(fast.report())                    # where the time of the first call went
    print(fast.explain())                   # each kernel: nodes, source, time, FLOPs, bytes, distance from the roofline

A call looks its program up by the types of its arguments. Tensors that the function finds elsewhere (parameters,
optimiser state, the random generator) are inputs too, read anew at each call; those that it overwrites are updated in
place. What depends on such tensors alone is computed when they change (`fast.preparation`). After a compiled training
step `.grad` of the parameters it updated is None: return gradients if you want to see them.
"""

from __future__ import annotations

import inspect
import operator
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinytorch.frontends.trace import Trace, Tracer, is_traceable
from tinytorch.frontends.trace import trace as trace_function
from tinytorch.frontends.tree import Tree, flatten
from tinytorch.ir import Graph, Value, is_tracing
from tinytorch.ir.errors import TracingError
from tinytorch.passes import LOWERING, PIPELINES, History, Pipeline, Rematerialize, plan_memory, with_precision

from .backward import attach_backward
from .entry import Entry, GradOf
from .preparation import Preparation, lower
from .spent import Spent
from .surroundings import Surroundings
from .tensor import Tensor, grad_mode
from .watch import lend, touch_all

MODE = operator.attrgetter("training", "_hooks", "_form")  # of a module: what a program depends on


def trace(function: Callable[..., Any], *examples: Any, static: Sequence[str | int] = (), **keywords: Any) -> Graph:
    """The graph of a function or module for arguments like these; see `tinytorch.frontends.trace`.

    >>> import tinytorch as tt
    >>> graph = tt.trace(lambda x: (x * 2).exp(), tt.zeros(3))
    >>> [node.op.name for node in graph.nodes], str(graph.outputs[0].type)
    (['constant', 'mul', 'exp'], 'f32[3]')
    """
    found = Surroundings(function)
    with _Grads(found.parameters()):
        return trace_function(function, examples, keywords, handle=Tensor, static=static, names=found.names(),
                              bind_keyword_only=True).graph


def compile(target: Callable[..., Any] | None = None, *, pipeline: str = "train", passes: Sequence[Any] | None = None,
            static: Sequence[str | int] = (), threads: int | None = None, precision: str = "f32",
            memory: int | float | None = None) -> Any:
    """Make a function, module or training step fast.

    Args:
        target: what to compile; leave it out to use this as a decorator with options.
        pipeline: "train" or "infer" (the standard passes), or "none" (each op a kernel).
        passes: a list of passes in place of a named pipeline; what the runtime needs is added.
        static: positions or names of arguments to be seen as they are (one program for each value).
        threads: how many to use; by default `TINYTORCH_THREADS` or all cores.
        precision: what products of f32 are computed from: "f32", or "bf16" or "f16" (`passes.CastPrecision`); sums,
            results and parameters stay f32.
        memory: a budget for the intermediates, in bytes or, up to 1.0, as a part of what they need else; what does not
            fit is computed again (`passes.Rematerialize`), with the same results bit for bit.
    Returns:
        A `Compiled`, called like `target`.

    >>> import tinytorch as tt
    >>> @tt.compile
    ... def norm(x):
    ...     return (x * x).sum().sqrt()
    >>> norm(tt.tensor([3.0, 4.0])), len(norm.program.steps)
    (tensor(5.), 1)
    """
    if target is None:
        return lambda function: compile(function, pipeline=pipeline, passes=passes, static=static, threads=threads,
                                        precision=precision, memory=memory)
    if passes is None and pipeline not in PIPELINES:
        raise TracingError(f"compile(pipeline={pipeline!r}): expected one of {sorted(PIPELINES)}, or passes=[…]")
    chosen = PIPELINES[pipeline] if passes is None else (*passes, *LOWERING)
    chosen = chosen if precision == "f32" else with_precision(chosen, precision)
    chosen = chosen if memory is None else (*chosen, Rematerialize(memory))
    return Compiled(target, Pipeline(*chosen), tuple(static), threads)


class Compiled:
    """A compiled function; see `compile`.

    Safe to call from several threads at once, if the threads do not overwrite the same tensors.
    """

    def __init__(self, function: Callable[..., Any], pipeline: Pipeline, static: tuple[str | int, ...],
                 threads: int | None) -> None:
        self.function, self.pipeline, self.static, self.threads = function, pipeline, static, threads
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = getattr(function, "__doc__", None)
        self.entries: dict[Any, list[Entry]] = {}
        self.latest: Entry | None = None
        self._lock = threading.RLock()
        self._modules: list[Any] | None = None  # whose modes, hooks and parts the programs depend on

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if is_tracing():
            return self.function(*args, **kwargs)  # inside another trace we are just a function
        if self._modules is None:
            self._modules = Surroundings(self.function).all_modules()
        leaves: Sequence[Any] = args
        tree: Tree | int = len(args)  # of tensors and nothing else, which is the usual case
        if kwargs or not all(isinstance(arg, (Tensor, np.ndarray)) for arg in args):
            leaves, tree = flatten((args, kwargs) if kwargs else args)
        fixed = self._static_leaves(args, kwargs) if self.static else ()
        key = self._key(leaves, tree, fixed)
        for entry in self.entries.get(key, ()):
            if (bound := entry.bound()) is not None:
                return self._run(entry, leaves, bound)
        with self._lock:
            self._modules = Surroundings(self.function).all_modules()  # parts may have come and gone
            key = self._key(leaves, tree, fixed)
            for entry in self.entries.get(key, ()):
                if (bound := entry.bound()) is not None:
                    return self._run(entry, leaves, bound)
            entry = self._prepare(args, kwargs)
            self.entries.setdefault(key, []).append(entry)
        bound = entry.bound()
        assert bound is not None, "a program may run right after it was made"
        return self._run(entry, leaves, bound)

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}: {sum(map(len, self.entries.values()))} programs>"

    # -- looking -------------------------------------------------------------------------------------------------------

    def _entry(self) -> Entry:
        if self.latest is None:
            raise TracingError(f"{self.__name__} has not been called yet: call it once, then look")
        return self.latest

    @property
    def graph(self) -> Graph:
        """The graph that runs: the last stage of `history`."""
        graph: Graph = self._entry().program.graph
        return graph

    @property
    def history(self) -> History:
        """Every stage of the graph, from the trace on."""
        return self._entry().history

    @property
    def program(self) -> Any:
        """The program of the latest kind of call."""
        return self._entry().program

    @property
    def kernels(self) -> Any:
        """The different kernels of that program."""
        return self._entry().program.kernels

    @property
    def preparation(self) -> Preparation | None:
        """What that program needs of parameters alone, computed when they change; None if there is nothing."""
        return self._entry().preparation

    @property
    def seconds(self) -> dict[str, float]:
        """Where the time of the first call went: import, trace, passes, plan, emit, compile, load."""
        return self._entry().spent.seconds

    def report(self) -> str:
        """Where the time of the first call went, as text to print: see `tinytorch.spent`."""
        entry = self._entry()
        return entry.spent.report(self.__name__, entry.history, entry.program)

    def explain(self, repeats: int = 20) -> Any:
        """What each kernel holds and costs, measured: see `tinytorch.explain`."""
        from .explain import explain

        return explain(self, repeats)

    # -- calling -------------------------------------------------------------------------------------------------------

    def _key(self, leaves: Sequence[Any], tree: Tree | int, fixed: Collection[int]) -> Any:
        parts: list[Any] = []
        for number, leaf in enumerate(leaves):
            if fixed and number in fixed:
                parts += (type(leaf), leaf)
            elif isinstance(leaf, Tensor):
                payload = leaf.payload
                parts += (payload.dtype, payload.shape, leaf.requires_grad)
            elif isinstance(leaf, np.ndarray):
                parts += (leaf.dtype, leaf.shape, False)
            elif type(leaf) is float:
                parts.append(float)
            else:
                parts += (type(leaf), leaf)
        modules = tuple(map(MODE, self._modules or ()))
        key = (tree, tuple(parts), grad_mode.enabled, modules)
        try:
            hash(key)
        except TypeError:
            odd = [type(leaf).__name__ for leaf in leaves if not is_traceable(leaf)]
            raise TracingError(f"{self.__name__}: arguments must be tensors, arrays, floats, or hashable values to "
                               f"specialise on; got {odd}") from None
        return key

    def _run(self, entry: Entry, leaves: Sequence[Any], bound: list[Any]) -> Any:
        given: list[Any] = [leaves[i] for i in entry.args]
        before = [t.payload if isinstance(t, Tensor) else t for t in given] + bound
        arrays = before.copy()
        addresses = entry.addresses(arrays)
        traced = entry.traced
        if traced.mutated:
            entry.program.separate(arrays, addresses)
        differentiable = entry.differentiable and grad_mode.enabled
        old = {id(t): t.payload.copy() for t in traced.mutated} if differentiable else {}
        results = entry.program.run(arrays, addresses)
        if entry.is_plain and not differentiable:
            return Tensor(results[0])
        if traced.mutated and not all(map(operator.is_, arrays, before)):
            for i in entry.program.graph.donated.values():
                if arrays[i] is not before[i]:
                    before[i][...] = arrays[i]  # a strided tensor was updated in a copy
        count = len(results) - len(traced.mutated) - len(traced.extra)
        for owner in traced.mutated:
            owner.version += 1  # type: ignore[attr-defined]
        touch_all(traced.mutated)
        for key, result in zip(traced.extra, results[count + len(traced.mutated):], strict=True):
            owner = leaves[entry.args[key]] if isinstance(key, int) else key
            if isinstance(owner, Tensor):  # a gradient that the function left behind
                fresh = Tensor(result)
                owner.grad = fresh if owner.grad is None or owner is key else owner.grad + fresh
        for tensor in entry.used_up:
            tensor.grad = None
        outputs = [Tensor(array) for array in results[:count]]
        if differentiable:
            attach_backward(entry, leaves, old, outputs)
        return traced.results(outputs)

    # -- making --------------------------------------------------------------------------------------------------------

    def _prepare(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Entry:
        spent = Spent()
        from tinytorch.runtime.program import Program

        found = Surroundings(self.function)
        parameters = found.parameters()
        with _Grads(parameters) as grads:
            traced = _lent(trace_function(self.function, args, kwargs, handle=Tensor, static=self.static,
                                          names=found.names(), after=grads.outputs))
        captured = dict(zip((v for v in traced.graph.inputs if v in traced.graph.bound), traced.captured, strict=True))
        owned = {v: _owner(owner, grads) for v, owner in captured.items()}
        spent.lap("trace")
        known = (e.preparation for entries in self.entries.values() for e in entries if e.preparation is not None)
        lowered = lower(self.pipeline, traced.graph, owned, self.threads, known)
        graph = lowered.graph
        spent.lap("passes")
        plan = plan_memory(graph)
        spent.lap("plan")
        if lowered.preparation is not None:
            lowered.preparation.build()
        program = Program(graph, plan, self.threads)
        spent.lap("emit")
        leaves, _ = flatten((args, dict(kwargs)) if kwargs else args)
        fixed = self._static_leaves(args, kwargs)
        numbers = [i for i, leaf in enumerate(leaves) if is_traceable(leaf) and i not in fixed]
        free = [v for v in graph.inputs if v not in graph.bound]
        assert len(free) == len(numbers), "every traceable leaf is an input"
        owned |= lowered.prepared
        owners = [owned.get(v, array) for v, array in ((v, graph.bound[v]) for v in graph.inputs if v in graph.bound)]
        entry = Entry(traced, lowered.history, program, numbers, owners, lowered.preparation, spent)
        read = {id(owner) for owner in traced.captured}
        entry.guard([t for t in parameters if id(t) in read], grads.before)
        self.latest = entry
        spent.tell(self.__name__, entry.history, program)
        return entry

    def _static_leaves(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> set[int]:
        """Numbers of the leaves of static arguments."""
        try:
            names = list(inspect.signature(self.function).parameters)
        except (TypeError, ValueError):
            names = []
        places: set[int] = set()
        at = 0
        for key, arg in [*enumerate(args), *sorted(kwargs.items())]:
            count = len(flatten(arg)[0])
            name = names[key] if isinstance(key, int) and key < len(names) else key
            if key in self.static or name in self.static:
                places |= set(range(at, at + count))
            at += count
        return places


def _lent(traced: Trace) -> Trace:
    """The trace, its graph bound to views that nobody can write, so that they do not stand in the way of `Watch`."""
    graph = traced.graph
    owners = zip(graph.bound, traced.captured, strict=True)
    bound = {v: lend(owner.payload) if isinstance(owner, Tensor) else owner.payload for v, owner in owners}
    return replace(traced, graph=graph.with_(bound=bound))


def _owner(owner: Any, grads: _Grads) -> Any:
    """Where an input that the caller does not give comes from."""
    whose = grads.whose.get(id(owner))
    return GradOf(whose) if whose is not None else owner if isinstance(owner, Tensor) else owner.payload


class _Grads:
    """Keeps `.grad` of parameters as they were while a function is traced, and finds the gradients it leaves behind."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.before = {id(p): p.grad for p in self.parameters}
        self.whose = {id(p.grad): p for p in self.parameters if p.grad is not None}

    def __enter__(self) -> _Grads:
        return self

    def outputs(self, tracer: Tracer) -> list[tuple[Any, Any]]:
        """Gradients to return: of tensors that were not updated (an updated parameter has used its gradient)."""
        found: list[tuple[Any, Any]] = []
        for owner, _ in tracer.captured.values():
            grad = getattr(owner, "grad", None)
            if grad is not None and isinstance(grad.payload, Value):
                if id(owner) not in tracer.mutated:
                    found.append((owner, grad))
                if id(owner) not in self.before:
                    self.parameters.append(owner)  # type: ignore[arg-type]
                    self.before[id(owner)] = None
        grads = ((number, getattr(handle, "grad", None)) for number, handle in enumerate(tracer.stand_ins))
        found += [(number, grad) for number, grad in grads if grad is not None]
        return found

    def __exit__(self, *exc: object) -> None:
        for tensor in self.parameters:
            tensor.grad = self.before[id(tensor)]
