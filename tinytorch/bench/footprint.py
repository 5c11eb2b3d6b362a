"""Peak memory of training steps, ours and PyTorch's, each in a process of its own.

The same for both: after a first tiny step of another network, so that all libraries are loaded, the peak of the
resident set is reset; then the network is made, takes some steps, and what counts is how far the peak rose above what
was resident before. So it holds parameters, optimiser state, gradients and activations, and of ours also what tracing
and loading kernels need. Only Linux tells.
"""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinytorch.compile import compile
from tinytorch.look import units
from tinytorch.tensor import Tensor

from . import in_torch, models, peers
from .models import NETWORKS, Network
from .networks import TRAINED
from .rows import Row, Settings, Target
from .startup import in_process

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEASURED = ("cnn", "gpt")
STEPS = 4
CHILD = "from tinytorch.bench.footprint import tell; tell({side!r}, {name!r}, {threads})"


def memory(settings: Settings) -> Iterator[Row]:
    """CNN and GPT, against PyTorch eager; and what was planned."""
    for name in MEASURED:
        case = f"peak memory of the {name} training step, batch {TRAINED[name]}, against PyTorch eager's"
        if not STATUS.exists():
            yield Row("memory", case, None, Target(0.7, at_most=True), note="this system does not tell")
            continue
        ours, theirs = (_grown(side, name, settings) for side in ("ours", "torch"))
        planned = ours["planned"]
        note = (f"ours {units.nbytes(ours['grown'])}; of it planned {units.nbytes(sum(planned.values()))}: "
                + ", ".join(f"{what} {units.nbytes(size)}" for what, size in planned.items()))
        if theirs is None:
            absent = "left out" if peers.installed("torch") else "not installed"
            yield Row("memory", case, None, Target(0.7, at_most=True), peers={"torch": absent}, note=note)
        else:
            yield Row("memory", case, ours["grown"] / theirs["grown"], Target(0.7, at_most=True),
                      note=f"{note}; torch {units.nbytes(theirs['grown'])}")


def _grown(side: str, name: str, settings: Settings) -> Any:
    """The median of some processes, after one that fills the kernel cache."""
    if side != "ours" and side not in settings.peers:
        return None
    code = CHILD.format(side=side, name=name, threads=settings.threads)
    found = [in_process(code) for _ in range(2 if settings.quick else 4)][1:]
    return {**found[0], "grown": statistics.median(run["grown"] for run in found)}


def tell(side: str, name: str, threads: int) -> None:
    """Print as JSON how far the peak of this process rises when it trains; called in a process of its own."""
    print(json.dumps(_rise(side, NETWORKS[name], TRAINED[name], threads)))


def _rise(side: str, network: Network, batch: int, threads: int) -> dict[str, Any]:
    _train(side, NETWORKS["mlp"], 2, threads)
    gc.collect()
    with suppress(OSError):  # where the system does not let us: then the peak is that of the whole process
        RESET.write_text("5")
    before = _status("VmRSS")
    planned = _train(side, network, batch, threads)
    return {"grown": _status("VmHWM") - before, "planned": planned}


def _train(side: str, network: Network, batch: int, threads: int) -> dict[str, int]:
    """Some steps; what our program planned."""
    if side == "torch":
        step = in_torch.training(network, batch, threads)
        _repeat(step)
        return {}
    fast = compile(models.training_step(network.make(), network.classes), threads=threads)
    x, labels = map(Tensor, network.batch(batch))
    _repeat(lambda: fast(x, labels))
    bound = sum(value.type.nbytes for value in fast.graph.inputs)
    return {"parameters, state and inputs": bound, "arena": fast.program.arena_bytes,
            "scratch": fast.program.scratch_bytes}


def _repeat(step: Callable[[], object]) -> None:
    for _ in range(STEPS):
        step()


def _status(key: str) -> int:
    """Bytes that the system tells of this process."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1]) * 1024
