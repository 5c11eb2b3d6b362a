"""What comes before and around the work: importing, the first call, the cost of a call."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tinytorch.compile import compile
from tinytorch.tensor import Tensor

from .rows import Row, Settings, Target
from .timing import paired

IMPORT = """
    import time; start = time.perf_counter()
    import tinytorch
    seconds = time.perf_counter() - start
    import sys, json
    heavy = {"numba", "llvmlite", "rich", "matplotlib", "networkx"}
    print(json.dumps([seconds, len(sys.modules), sorted(heavy & set(sys.modules))]))
"""
FIRST_CALL = """
    import time; start = time.perf_counter()
    import tinytorch
    imported = time.perf_counter() - start
    from tinytorch.bench.training import batch, our_step
    from tinytorch.runtime import build
    fast = tinytorch.compile(our_step())
    x, y = map(tinytorch.tensor, batch())
    fast(x, y)
    import json
    print(json.dumps([time.perf_counter() - start, imported, build.stats().compiled]))
"""


def in_process(code: str, cache: str | None = None) -> Any:
    """What a new Python process prints as JSON; anything on its error stream is an error."""
    environment = {**os.environ, **({"TINYTORCH_CACHE": cache} if cache else {})}
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment,
                         check=True)
    return json.loads(run.stdout)


def importing(settings: Settings) -> Iterator[Row]:
    """`import tinytorch` in new processes."""
    runs = [in_process(IMPORT) for _ in range(3 if settings.quick else 9)]
    heavy = runs[0][2]
    yield Row("import", "import tinytorch", statistics.median(seconds for seconds, _, _ in runs),
              Target(0.35, "s", at_most=True), unit="s",
              note=f"{runs[0][1]} modules; {'with ' + ', '.join(heavy) if heavy else 'no Numba, no rich'}; "
                   f"NumPy alone {_numpy_alone(settings) * 1e3:.0f} ms")


def _numpy_alone(settings: Settings) -> float:
    code = "import time; t = time.perf_counter(); import numpy; print(time.perf_counter() - t)"
    return statistics.median(in_process(code) for _ in range(3 if settings.quick else 9))


def first_call(settings: Settings) -> Iterator[Row]:
    """The first step in a new process, import included: with an empty kernel cache, then with a full one."""
    with tempfile.TemporaryDirectory(prefix="tinytorch-bench-") as cache:
        cold = in_process(FIRST_CALL, cache)
        warm = [in_process(FIRST_CALL, cache) for _ in range(1 if settings.quick else 5)]
    yield Row("first-call", "first Adam step of a new process, cold cache", cold[0], Target(12, "s", at_most=True),
              unit="s", note=f"{cold[2]} kernels compiled, import {cold[1]:.2f} s of it")
    yield Row("first-call", "first Adam step of a new process, warm cache", statistics.median(run[0] for run in warm),
              Target(2.5, "s", at_most=True), unit="s", note=f"{warm[0][2]} kernels compiled")


def call(settings: Settings) -> Iterator[Row]:
    """A compiled graph of ten tiny nodes: nothing but overhead."""

    def ten(x: Any, y: Any) -> Any:
        for _ in range(5):
            x = x * y + y
        return x

    tiny = [Tensor(np.ones(4, np.float32)) for _ in range(2)]
    calls: Mapping[str, Any] = {name: compile(ten, pipeline=name) for name in ("train", "none")}
    timed: dict[str, Callable[[], object]] = {name: (lambda fast=fast: fast(*tiny)) for name, fast in calls.items()}  # type: ignore[misc]
    found = paired(timed, settings.seconds)
    for name, what in (("train", "fused"), ("none", "nothing fused")):
        launches = len(calls[name].program.steps)
        yield Row("call", f"calling a compiled graph of 10 tiny nodes, {what}", found[name].median,
                  Target(15e-6, "s", at_most=True), found[name], unit="s",
                  note=f"{launches} launch{'es' if launches > 1 else ''}")
