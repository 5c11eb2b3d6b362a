"""PyTorch and JAX doing the same work, with as many threads: what ours is compared with, where they are installed.

PyTorch's threads are set by `torch.set_num_threads`. JAX has no such call: its CPU client uses the cores of the
process, so `jax()` imports it with `XLA_FLAGS` for one thread, or leaves it all cores.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
PEERS = {"torch": "torch", "torch-compile": "torch", "jax": "jax"}


def version(package: str) -> str | None:
    """The version that is installed, or None; nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(peer: str) -> bool:
    """Whether a peer of `PEERS` can be imported."""
    return importlib.util.find_spec(PEERS[peer]) is not None


def torch(threads: int) -> Any:
    """The module, with its threads set."""
    module = importlib.import_module("torch")
    module.set_num_threads(threads)
    return module


def jax(threads: int) -> Any:
    """The module, set up for the CPU."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads == 1:
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    return importlib.import_module("jax")


Step = Callable[[], Any]  # a whole training step; gives the loss


def torch_step(weights: Sequence[Array], biases: Sequence[Array], x: Array, y: Array, threads: int,
               compiled: bool) -> Step:
    """Linear and ReLU in turn, cross entropy, Adam: forward, backward and update. Compiled: loss and update both."""
    module = torch(threads)
    layers: list[Any] = []
    for w, b in zip(weights, biases, strict=True):
        layer = module.nn.Linear(w.shape[1], w.shape[0])
        layer.load_state_dict({"weight": module.tensor(w), "bias": module.tensor(b)})
        layers += [layer, module.nn.ReLU()]
    model = module.nn.Sequential(*layers[:-1])
    optimiser = module.optim.Adam(model.parameters(), lr=1e-3)
    images, labels = module.tensor(x), module.tensor(y)
    criterion = module.nn.functional.cross_entropy
    loss_of: Callable[..., Any] = lambda images, labels: criterion(model(images), labels)
    update = optimiser.step
    if compiled:
        loss_of, update = module.compile(loss_of), module.compile(optimiser.step)

    def step() -> Any:
        optimiser.zero_grad()
        loss = loss_of(images, labels)
        loss.backward()
        update()
        return loss

    return step


def jax_step(weights: Sequence[Array], biases: Sequence[Array], x: Array, y: Array, threads: int) -> Step:
    """The same, jitted as one function that gives its buffers away."""
    module = jax(threads)
    numpy, tree = module.numpy, module.tree
    params = [(numpy.asarray(w), numpy.asarray(b)) for w, b in zip(weights, biases, strict=True)]
    images, labels = numpy.asarray(x), numpy.asarray(y)

    def loss_of(params: Any) -> Any:
        h = images
        for number, (w, b) in enumerate(params):
            h = h @ w.T + b
            h = module.nn.relu(h) if number < len(params) - 1 else h
        return -numpy.take_along_axis(module.nn.log_softmax(h), labels[:, None], 1).mean()

    def update(params: Any, m: Any, v: Any, t: Any) -> Any:
        loss, g = module.value_and_grad(loss_of)(params)
        t = t + 1
        m = tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        move: Callable[..., Any] = lambda p, m, v: (
            p - 1e-3 * (m / (1 - 0.9**t)) / (numpy.sqrt(v / (1 - 0.999**t)) + 1e-8))
        return loss, tree.map(move, params, m, v), m, v, t

    fast = module.jit(update, donate_argnums=(0, 1, 2, 3))
    zeros: Callable[[], Any] = lambda: tree.map(numpy.zeros_like, params)
    state = [params, zeros(), zeros(), numpy.float32(0)]

    def step() -> Any:
        loss, *state[:] = fast(*state)
        return loss.block_until_ready()

    return step
