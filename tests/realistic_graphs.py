"""Graphs of the size and kind that the compiler is for: a training step of an MLP, written out,
and a transformer block."""

from typing import Any

import numpy as np

from tinytorch.ir import Builder, Graph, f32, i64, ops


def mlp_step(batch: int = 64, sizes: tuple[int, ...] = (784, 128, 64, 10), rate: float = 0.1) -> Graph:
    """Forward, backward by hand, and momentum updates that overwrite the parameters."""
    build = Builder("mlp_step")
    rng = np.random.default_rng(0)
    weights, biases, moments = [], [], []
    x, labels = build.input("x", f32[batch, sizes[0]]), build.input("labels", i64[(batch,)])
    for n, (m, k) in enumerate(zip(sizes[1:], sizes, strict=False)):
        weights.append(build.input(f"w{n}", f32[m, k], (rng.standard_normal((m, k)) / k**0.5).astype(np.float32)))
        biases.append(build.input(f"b{n}", f32[(m,)], np.zeros(m, np.float32)))
        moments.append((build.input(f"mw{n}", f32[m, k], np.zeros((m, k), np.float32)),
                        build.input(f"mb{n}", f32[(m,)], np.zeros(m, np.float32))))
    with build:
        loss, gradients = _backward(x, labels, weights, biases)
        outputs: list[Any] = [loss]
        donated: dict[int, Any] = {}
        for parameters, gradient, moment in zip(zip(weights, biases, strict=True), gradients, moments, strict=True):
            for p, g, m in zip(parameters, gradient, moment, strict=True):
                new = m * 0.9 + g
                donated |= {len(outputs): m.payload, len(outputs) + 1: p.payload}
                outputs += [new, p - new * rate]
    return build.finish(outputs, donated)


def _backward(x: Any, labels: Any, weights: list[Any], biases: list[Any]) -> tuple[Any, list[tuple[Any, Any]]]:
    layers = [x]
    for w, b in zip(weights, biases, strict=True):
        y = ops.linear(layers[-1], w, b)
        layers.append(ops.relu(y) if w is not weights[-1] else y)
    batch, classes = layers[-1].shape
    loss = ops.mean(ops.cross_entropy(layers[-1], labels))
    hot = ops.cast(ops.eq(ops.iota((batch, classes), 1), ops.reshape(labels, (batch, 1))), f32)
    g = (ops.softmax(layers[-1]) - hot) * ops.broadcast_to(
        ops.reshape(ops.mean(ops.broadcast_to(1.0, (batch,))) / batch, (1, 1)), hot.shape)
    gradients: list[tuple[Any, Any]] = []
    for w, below in zip(reversed(weights), reversed(layers[:-1]), strict=True):
        gradients.append((ops.transpose(ops.matmul(ops.transpose(below), g)), ops.sum(g, 0)))
        if w is not weights[0]:
            g = ops.where(below > 0, ops.matmul(g, w), 0.0)
    return loss, gradients[::-1]


def transformer_block(batch: int = 2, time: int = 16, width: int = 32, heads: int = 4) -> Graph:
    """Attention and feed-forward, each after a layer norm, on top of the residual stream."""
    build = Builder("block")
    rng = np.random.default_rng(0)

    def parameter(name: str, *shape: int) -> Any:
        return build.input(name, f32[shape], (rng.standard_normal(shape) * 0.1).astype(np.float32))

    def split(t: Any) -> Any:
        return ops.transpose(ops.reshape(t, (batch, time, heads, width // heads)), (0, 2, 1, 3))

    x = build.input("x", f32[batch, time, width])
    with build:
        y = ops.layer_norm(x, parameter("n1", width), parameter("c1", width))
        q, k, v = (split(ops.linear(y, parameter(name, width, width), parameter(f"{name}b", width))) for name in "qkv")
        mixed = ops.reshape(ops.transpose(ops.attention(q, k, v, causal=True), (0, 2, 1, 3)), (batch, time, width))
        x = x + ops.linear(mixed, parameter("o", width, width))
        y = ops.layer_norm(x, parameter("n2", width), parameter("c2", width))
        x = x + ops.linear(ops.gelu(ops.linear(y, parameter("up", 4 * width, width)), "tanh"),
                           parameter("down", width, 4 * width))
    return build.finish([x])
