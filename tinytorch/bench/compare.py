"""`tt.bench(fn, *examples)`: eager against compiled, and against the same in other libraries.

A function `f` in a file may have others beside it that do the same: `f_torch` for PyTorch (and torch.compile), `f_jax`
for JAX. They get the same arguments as tensors of theirs; or, if they take none, they return (callable, argument, …).
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytorch.compile import Compiled, compile
from tinytorch.frontends.tree import map_tree
from tinytorch.ir.errors import TinyTorchError
from tinytorch.look import units
from tinytorch.tensor import Tensor

from . import peers
from .rows import Row
from .same import check_same
from .timing import Timing, busy, interval, paired
from .work import Work
from .work import inspect as inspect_work

Function = Callable[..., Any]


class TargetFailed(TinyTorchError, RuntimeError):
    """A function that was to be measured raised an error."""


@dataclass(frozen=True)
class Result:
    """What `bench` measured.

    Attributes:
        eager, compiled: seconds of a call, round by round; peers: of the same in other libraries.
        first: seconds of the first compiled call, and `parts` of it: trace, passes, kernels.
        built: kernels that the first call had to compile; others were found on disk or in memory.
        note: a warning, if the machine is busy.
        work: launches, FLOPs, bytes, planned memory, and what the roofline allows.
    """

    name: str
    eager: Timing
    compiled: Timing
    first: float
    parts: dict[str, float]
    launches: int
    built: int
    threads: int
    note: str = ""
    peers: Mapping[str, Timing] = field(default_factory=dict)
    work: Work | None = None

    @property
    def speedup(self) -> float:
        """How many times faster than eager the compiled function is: the median over the rounds."""
        return self.compiled.faster_than(self.eager)

    def rows(self) -> list[Row]:
        """A row against eager, and one against each peer."""
        sides = {"eager": self.eager, **self.peers}
        return [Row(self.name, f"compiled, against {name}", self.compiled.faster_than(other), None, self.compiled,
                    {name: other}, interval=interval(self.compiled.ratios(other)), work=self.work)
                for name, other in sides.items()]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {units.seconds(seconds)}" for name, seconds in self.parts.items())
        others = "".join(f"\n{name} {timing}: compiled is {self.compiled.faster_than(timing):.2f} times as fast"
                         for name, timing in self.peers.items())
        return (f"{self.name}: eager {self.eager}, compiled {self.compiled}, {self.speedup:.1f} times as fast{others}\n"
                f"first call {units.seconds(self.first)} ({parts}); {self.launches} launches, {self.built} kernels "
                f"compiled for it; {len(self.eager.samples)} rounds, {self.threads} threads"
                + (f"\n{self.note}" if self.note else ""))

    def to_json(self) -> str:
        """The figures as JSON text, all in seconds."""
        data: dict[str, Any] = {"name": self.name, "speedup": self.speedup, "first": self.first, "parts": self.parts,
                                "launches": self.launches, "built": self.built, "threads": self.threads}
        for name, timing in (("eager", self.eager), ("compiled", self.compiled)):
            data[name] = {"median": timing.median, "quartiles": timing.quartiles, "rounds": len(timing.samples)}
        data["rows"] = [row.data() for row in self.rows()]
        return json.dumps(data, indent=1)

    def print(self) -> None:
        """A line for each way, in the terminal."""
        from rich.console import Console

        Console().print(str(self), markup=False, highlight=False, soft_wrap=True)


def bench(target: Callable[..., Any], *examples: Any, repeats: int | None = None, seconds: float = 1.0,
          vs: Mapping[str, Callable[[], Any]] | None = None) -> Result:
    """Time a function eager and compiled, in turns. It is really called: a training step trains.

    Args:
        target: a function, module, training step, or what `tt.compile` made of one.
        examples: its arguments.
        repeats: rounds to measure; by default as many as fit into about `seconds`.
        vs: calls without arguments that do the same in other ways, by name; they take turns too.
    Raises:
        ValueError: results of `vs` differ from ours.

    >>> import tinytorch as tt
    >>> result = tt.bench(lambda x: (x * 2).exp().sum(), tt.ones(1000), repeats=3)
    >>> len(result.eager.samples), result.launches
    (3, 1)
    """
    from tinytorch.runtime import build

    given = target if isinstance(target, Compiled) else compile(target)
    fast = Compiled(given.function, given.pipeline, given.static, given.threads)
    before, start = build.stats(), time.perf_counter()
    fast(*examples)
    first = time.perf_counter() - start
    built = build.stats().compiled - before.compiled
    others = dict(vs or {})
    if others:
        check_same({"ours": lambda: fast.function(*examples), **others})
    calls = {"eager": lambda: fast.function(*examples), "compiled": lambda: fast(*examples), **others}
    found = paired(calls, seconds, settle=0.01 if others and fast.program.threads > 1 else 0.0, rounds=repeats)
    return Result(fast.__name__, found["eager"], found["compiled"], first, fast.seconds, len(fast.program.steps), built,
                  fast.program.threads, busy(), {name: found[name] for name in others}, inspect_work(fast))


def peer_calls(functions: Mapping[str, Any], name: str, examples: tuple[Any, ...], wanted: frozenset[str],
               threads: int) -> dict[str, Callable[[], Any]]:
    """Calls of what stands beside the function `name`, for the peers that are wanted: see the top of this file."""
    calls = {}
    for peer in sorted(wanted & {"torch", "torch-compile", "jax"}):
        library = "jax" if peer == "jax" else "torch"
        theirs = functions.get(f"{name}_{library}")
        if callable(theirs):
            calls[peer] = _peer_call(peer, theirs, examples, threads)
    return calls


def _peer_call(peer: str, theirs: Function, examples: tuple[Any, ...], threads: int) -> Callable[[], Any]:
    module = peers.jax(threads) if peer == "jax" else peers.torch(threads)
    convert: Function = module.numpy.asarray if peer == "jax" else module.tensor
    takes_nothing = inspect.isfunction(theirs) and not inspect.signature(theirs).parameters
    if takes_nothing:
        theirs, *given = theirs()
    else:
        given = map_tree(lambda leaf: _converted(leaf, convert), list(examples))
    if peer == "jax":
        fast = theirs if takes_nothing else module.jit(theirs)
        return lambda: module.block_until_ready(fast(*given))
    fast = module.compile(theirs) if peer == "torch-compile" else theirs
    return lambda: fast(*given)


def _converted(leaf: Any, convert: Function) -> Any:
    array = leaf.numpy() if isinstance(leaf, Tensor) else leaf
    return convert(array) if isinstance(array, np.ndarray) else leaf
