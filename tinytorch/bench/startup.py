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

from tinytorch import nn
from tinytorch.compile import Compiled, compile
from tinytorch.look import units
from tinytorch.tensor import Tensor

from . import models
from .rows import Row, Settings, Target
from .timing import paired
from .work import count

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
    from tinytorch.bench.models import NETWORKS, training_step
    from tinytorch.runtime import build
    network = NETWORKS[{name!r}]
    fast = tinytorch.compile(training_step(network.make(), network.classes))
    x, y = map(tinytorch.tensor, network.batch({batch}))
    fast(x, y)
    import json
    print(json.dumps([time.perf_counter() - start, imported, build.stats().compiled]))
"""
FIRST_CALLS = {"mlp": (64, 12.0, 2.5), "gpt": (16, 15.0, 2.5)}  # batch; seconds at most, cold and warm


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
    for name, (batch, most_cold, most_warm) in FIRST_CALLS.items():
        code = textwrap.dedent(FIRST_CALL).format(name=name, batch=batch)
        with tempfile.TemporaryDirectory(prefix="tinytorch-bench-") as cache:
            cold = in_process(code, cache)
            warm = [in_process(code, cache) for _ in range(1 if settings.quick else 5)]
        case = f"first {name} training step of a new process"
        yield Row("first-call", f"{case}, cold cache", cold[0], Target(most_cold, "s", at_most=True), unit="s",
                  note=f"{cold[2]} kernels compiled, import {cold[1]:.2f} s of it")
        yield Row("first-call", f"{case}, warm cache", statistics.median(run[0] for run in warm),
                  Target(most_warm, "s", at_most=True), unit="s", note=f"{warm[0][2]} kernels compiled")


def overhead(settings: Settings) -> Iterator[Row]:
    """What a training step takes beside its kernels: the time of the call less that of its launches, one thread.

    It depends on how many tensors there are, not on how large they are; so the networks are tiny ones with as many, and
    the difference of two short times is sharp.
    """
    tiny_gpt = nn.GPTConfig(11, 4, models.LAYERS, 2, 4, tie_weights=False)
    tiny_mlp = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tokens, images = np.zeros((1, 4), np.int64), np.ones((2, 4), np.float32)
    for name, model, classes, x in (("mlp", tiny_mlp, 4, images), ("gpt", nn.GPT(tiny_gpt), 11, tokens)):
        fast: Compiled = compile(models.training_step(model, classes), threads=1)
        given = Tensor(x), Tensor(np.zeros(x.shape if name == "gpt" else 2, np.int64))
        found = paired({"ours": lambda fast=fast, given=given: fast(*given)}, settings.seconds)  # type: ignore[misc]
        inside = fast.explain(100).seconds
        yield Row("overhead", f"Python overhead of a training step of a tiny {name}", found["ours"].median - inside,
                  Target(30e-6, "s", at_most=True), found["ours"], unit="s", work=count(fast, 1, "steps"),
                  note=f"the launches take {units.seconds(inside)}; {len(list(model.parameters()))} parameters")


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
