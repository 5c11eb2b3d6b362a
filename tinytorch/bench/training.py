"""A whole Adam step of an MLP 784-128-64-10 over 64 digits: ours compiled and eager, and the same step by peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

from tinytorch import nn, optim
from tinytorch.compile import Compiled, compile
from tinytorch.nn import functional as F
from tinytorch.profile import profile
from tinytorch.runtime import build
from tinytorch.tensor import Parameter, Tensor

from . import peers
from .rows import Row, Settings, Target, against
from .timing import paired

SIZES = (784, 128, 64, 10)
BATCH = 64


def weights() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The same start for everybody."""
    random = np.random.default_rng(0)
    shapes = list(zip(SIZES[1:], SIZES, strict=False))
    return ([(random.standard_normal(s) / np.sqrt(s[1])).astype(np.float32) for s in shapes],
            [np.zeros(s[0], np.float32) for s in shapes])


def batch(size: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Made-up digits."""
    random = np.random.default_rng(1)
    return random.random((size, SIZES[0])).astype(np.float32), random.integers(0, SIZES[-1], size)


def our_step() -> Callable[[Any, Any], Any]:
    """The step as a user writes it: step(x, y) gives the loss."""
    layers: list[nn.Module] = []
    for w, b in zip(*weights(), strict=True):
        layer = nn.Linear(w.shape[1], w.shape[0])
        layer.weight, layer.bias = Parameter(w.copy()), Parameter(b.copy())
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimiser = optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any, y: Any) -> Any:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        return loss

    return step


def step(settings: Settings) -> Iterator[Row]:
    """Compiled, against PyTorch eager, torch.compile and JAX jit; then what it is made of."""
    x, y = batch()
    fast: Compiled = compile(our_step(), threads=settings.threads)
    images, labels = Tensor(x), Tensor(y)
    steps: dict[str, Callable[[], Any]] = {"ours": lambda: fast(images, labels)}
    if "torch" in settings.peers:
        steps["torch"] = peers.torch_step(*weights(), x, y, settings.threads, False)
    if "jax" in settings.peers:
        steps["jax"] = peers.jax_step(*weights(), x, y, settings.threads)
    if "torch-compile" in settings.peers:  # the only place: it builds C++ for half a minute
        steps["torch-compile"] = peers.torch_step(*weights(), x, y, settings.threads, True)
    _check_same(steps)
    found = paired(steps, (1 if settings.quick else 3) * settings.seconds, settings.settle)
    case = f"Adam step, batch {BATCH}, {settings.threads} threads"
    yield against("step", f"{case}, against PyTorch eager", found, "torch", Target(2.0))
    yield against("step", f"{case}, against torch.compile", found, "torch-compile", Target(1.0))
    yield against("step", f"{case}, against JAX jit", found, "jax", Target(1.0))
    yield Row("step", "kernels launched in that step", len(fast.program.steps), Target(16, "", at_most=True), unit="",
              note=f"{len(fast.kernels)} different ones")
    yield from _one_thread(settings, x, y)
    yield _new_batch_size(fast)
    yield _peak_memory(settings)


def _check_same(steps: dict[str, Callable[[], Any]]) -> None:
    """Everybody computes the same losses, or the times mean nothing."""
    losses = {name: [float(call().item()) for _ in range(3)] for name, call in steps.items()}
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses["ours"], rtol=1e-3, err_msg=f"the losses of {name} and ours")


def _one_thread(settings: Settings, x: np.ndarray, y: np.ndarray) -> Iterator[Row]:
    """On a busy machine two spinning threads say little; so also with one."""
    if settings.threads == 1 or "torch" not in settings.peers:
        return
    fast, images, labels = compile(our_step(), threads=1), Tensor(x), Tensor(y)
    theirs = peers.torch_step(*weights(), x, y, 1, False)
    found = paired({"ours": lambda: fast(images, labels), "torch": theirs}, settings.seconds)
    peers.torch(settings.threads)
    yield against("step", f"Adam step, batch {BATCH}, 1 thread, against PyTorch eager", found, "torch", Target(2.0))


def _new_batch_size(fast: Compiled) -> Row:
    x, y = batch(48)
    before, start = build.stats(), time.perf_counter()
    fast(Tensor(x), Tensor(y))
    seconds, built = time.perf_counter() - start, build.stats().compiled - before.compiled
    return Row("step", "the first call at another batch size", seconds, Target(0.15, "s", at_most=True), unit="s",
               note=f"{built} kernels compiled" + (", should be 0" if built else ""))


def _peak_memory(settings: Settings) -> Row:
    x, y = batch()
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
    x, y = batch()
    ours, images, labels = our_step(), Tensor(x), Tensor(y)
    for threads in sorted({1, settings.threads}):
        steps: dict[str, Callable[[], Any]] = {"ours": lambda: ours(images, labels)}
        if "torch" in settings.peers:
            steps["torch"] = peers.torch_step(*weights(), x, y, threads, False)
        with threadpool_limits(threads, user_api="blas") if threadpool_limits else nullcontext():
            found = paired(steps, settings.seconds, settings.settle if threads > 1 else 0.0)
        note = "" if threadpool_limits else "threads of NumPy's BLAS not set: threadpoolctl is not installed"
        case = f"Adam step, batch {BATCH}, eager, {threads} thread{'s' if threads > 1 else ''}"
        yield against("eager", case, found, "torch", Target(0.5), note)
