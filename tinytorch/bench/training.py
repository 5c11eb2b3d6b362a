"""A whole Adam step of an MLP 784-128-64-10 over 64 digits: ours compiled and eager, and the same step by peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

from tinytorch.compile import Compiled, compile
from tinytorch.profile import profile
from tinytorch.runtime import build
from tinytorch.tensor import Tensor

from . import in_torch, peers
from .models import NETWORKS, training_step
from .networks import LOSSES, training_sides
from .rows import Row, Settings, Target, against
from .same import check_same
from .timing import paired

MLP = NETWORKS["mlp"]
BATCH = 64


def our_step() -> Callable[[Any, Any], Any]:
    """The step as a user writes it: step(x, y) gives the loss."""
    return training_step(MLP.make())


def step(settings: Settings) -> Iterator[Row]:
    """Compiled, against PyTorch eager, torch.compile and JAX jit; then what it is made of."""
    fast, steps = training_sides(MLP, BATCH, settings)
    check_same(steps, LOSSES)
    found = paired(steps, (1 if settings.quick else 3) * settings.seconds, settings.settle)
    case = f"Adam step, batch {BATCH}, {settings.with_threads}"
    yield against("step", f"{case}, against PyTorch eager", found, "torch", Target(2.0))
    yield against("step", f"{case}, against torch.compile", found, "torch-compile", Target(1.0))
    yield against("step", f"{case}, against JAX jit", found, "jax", Target(1.0))
    yield Row("step", "kernels launched in that step", len(fast.program.steps), Target(16, "", at_most=True), unit="",
              note=f"{len(fast.kernels)} different ones")
    yield from _one_thread(settings)
    yield _new_batch_size(fast)
    yield _peak_memory(settings)


def _one_thread(settings: Settings) -> Iterator[Row]:
    """On a busy machine two spinning threads say little; so also with one."""
    if settings.threads == 1 or "torch" not in settings.peers:
        return
    fast: Compiled = compile(our_step(), threads=1)
    images, labels = map(Tensor, MLP.batch(BATCH))
    theirs = in_torch.training(MLP, BATCH, 1)
    found = paired({"ours": lambda: fast(images, labels), "torch": theirs}, settings.seconds)
    peers.torch(settings.threads)
    yield against("step", f"Adam step, batch {BATCH}, 1 thread, against PyTorch eager", found, "torch", Target(2.0))


def _new_batch_size(fast: Compiled) -> Row:
    x, y = MLP.batch(48)
    before, start = build.stats(), time.perf_counter()
    fast(Tensor(x), Tensor(y))
    seconds, built = time.perf_counter() - start, build.stats().compiled - before.compiled
    return Row("step", "the first call at another batch size", seconds, Target(0.15, "s", at_most=True), unit="s",
               note=f"{built} kernels compiled" + (", should be 0" if built else ""))


def _peak_memory(settings: Settings) -> Row:
    x, y = MLP.batch(BATCH)
    fast = compile(our_step(), threads=settings.threads)
    predicted = profile(fast, x, y).memory.arena
    fast(Tensor(x), Tensor(y))
    entry = fast.latest
    arrays = [x, y, *((o.payload if isinstance(o, Tensor) else o).copy() for o in entry.owners)]
    written = fast.program.touched_bytes(arrays)
    return Row("step", "arena: highest byte written, of those predicted", -(-written // 64) * 64 / predicted,
               Target(1.0, "%"), unit="%", note=f"{written:,} of {predicted:,} bytes; values begin at multiples of 64")


def eager(settings: Settings) -> Iterator[Row]:
    """The same step eager, against PyTorch eager."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        threadpool_limits = None
    ours = our_step()
    images, labels = map(Tensor, MLP.batch(BATCH))
    for threads in sorted({1, settings.threads}):
        steps: dict[str, Callable[[], Any]] = {"ours": lambda: ours(images, labels)}
        if "torch" in settings.peers:
            steps["torch"] = in_torch.training(MLP, BATCH, threads)
        with threadpool_limits(threads, user_api="blas") if threadpool_limits else nullcontext():
            found = paired(steps, settings.seconds, settings.settle if threads > 1 else 0.0)
        note = "" if threadpool_limits else "threads of NumPy's BLAS not set: threadpoolctl is not installed"
        case = f"Adam step, batch {BATCH}, eager, {threads} thread{'s' if threads > 1 else ''}"
        yield against("eager", case, found, "torch", Target(0.5), note)
