"""The networks of `models` in JAX, jitted whole: `inference(NETWORKS["cnn"], 64, threads=2)`, `training(…)`.

Parameters are a dictionary by PyTorch's keys, so that all begin with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import peers
from .models import HEADS, LAYERS, MOBILE, Network

Call = Callable[[], Any]
Params = Mapping[str, Any]
Forward = Callable[[Params, Any], Any]
EPSILON = 1e-5  # of norms


def inference(wanted: Network, batch: int, threads: int) -> Call:
    """Logits of `wanted.batch(batch)`; weights are constants of the program."""
    jax = peers.jax(threads)
    forward, params = _Layers(jax).network(wanted.name), _parameters(jax, wanted)
    x = jax.numpy.asarray(wanted.batch(batch)[0])
    fast = jax.jit(lambda x: forward(params, x))
    return lambda: fast(x).block_until_ready()


def training(wanted: Network, batch: int, threads: int) -> Call:
    """A whole Adam step, one function that gives its buffers away; a call gives the loss."""
    jax = peers.jax(threads)
    numpy, tree = jax.numpy, jax.tree
    forward = _Layers(jax).network(wanted.name)
    x, labels = map(numpy.asarray, wanted.batch(batch))

    def loss_of(params: Params) -> Any:
        logits = jax.nn.log_softmax(forward(params, x))
        return -numpy.take_along_axis(logits, labels[..., None], -1).mean()

    def update(params: Params, m: Any, v: Any, t: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(params)
        t = t + 1
        m = tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        move: Callable[..., Any] = lambda p, m, v: (
            p - 1e-3 * (m / (1 - 0.9**t)) / (numpy.sqrt(v / (1 - 0.999**t)) + 1e-8))
        return loss, tree.map(move, params, m, v), m, v, t

    fast = jax.jit(update, donate_argnums=(0, 1, 2, 3))
    params = _parameters(jax, wanted)
    zeros: Callable[[], Any] = lambda: tree.map(numpy.zeros_like, params)
    state = [params, zeros(), zeros(), numpy.float32(0)]

    def step() -> Any:
        loss, *state[:] = fast(*state)
        return loss.block_until_ready()

    return step


def _parameters(jax: Any, wanted: Network) -> dict[str, Any]:
    return {key: jax.numpy.asarray(value) for key, value in wanted.weights().items()}


class _Layers:
    """Layers as functions of parameters p under the key `at`; batch norm as it is in inference."""

    def __init__(self, jax: Any) -> None:
        self.jax, self.numpy, self.lax = jax, jax.numpy, jax.lax

    def network(self, name: str) -> Forward:
        forward: Forward = getattr(self, name)
        return forward

    def linear(self, p: Params, at: str, x: Any) -> Any:
        y = x @ p[f"{at}.weight"].T
        return y + p[f"{at}.bias"] if f"{at}.bias" in p else y

    def conv(self, p: Params, at: str, x: Any, stride: int = 1) -> Any:
        weight = p[f"{at}.weight"]
        around = [(size // 2, size // 2) for size in weight.shape[2:]]
        y = self.lax.conv_general_dilated(x, weight, (stride, stride), around,
                                          feature_group_count=x.shape[1] // weight.shape[1])
        return y + p[f"{at}.bias"][:, None, None] if f"{at}.bias" in p else y

    def batch_norm(self, p: Params, at: str, x: Any) -> Any:
        mean, variance, weight, bias = (p[f"{at}.{name}"][:, None, None]
                                        for name in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) * self.lax.rsqrt(variance + EPSILON) * weight + bias

    def layer_norm(self, p: Params, at: str, x: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) * self.lax.rsqrt(variance + EPSILON) * p[f"{at}.weight"] + p[f"{at}.bias"]

    def mlp(self, p: Params, x: Any) -> Any:
        for at in ("0", "2"):
            x = self.jax.nn.relu(self.linear(p, at, x))
        return self.linear(p, "4", x)

    def cnn(self, p: Params, x: Any) -> Any:
        for first, second in (("0", "2"), ("5", "7")):
            x = self.jax.nn.relu(self.conv(p, second, self.jax.nn.relu(self.conv(p, first, x))))
            x = self.lax.reduce_window(x, -self.numpy.inf, self.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return self.linear(p, "13", self.jax.nn.relu(self.linear(p, "11", x.reshape(x.shape[0], -1))))

    def mobilenet(self, p: Params, x: Any) -> Any:
        strides = [1, *(stride for _, own in MOBILE for stride in (own, 1))]
        for number, stride in enumerate(strides):
            y = self.batch_norm(p, str(3 * number + 1), self.conv(p, str(3 * number), x, stride))
            x = self.jax.nn.relu6(y)
        return self.linear(p, str(3 * len(strides) + 2), x.mean((2, 3)))

    def resnet20(self, p: Params, x: Any) -> Any:
        relu = self.jax.nn.relu
        x = relu(self.batch_norm(p, "bn1", self.conv(p, "conv1", x)))
        for at in (f"layer{stage}.{number}" for stage in (1, 2, 3) for number in range(3)):
            more = p[f"{at}.conv1.weight"].shape[0] - x.shape[1]
            y = relu(self.batch_norm(p, f"{at}.bn1", self.conv(p, f"{at}.conv1", x, 2 if more else 1)))
            y = self.batch_norm(p, f"{at}.bn2", self.conv(p, f"{at}.conv2", y))
            if more:
                x = self.numpy.pad(x[:, :, ::2, ::2], ((0, 0), (more // 2, more // 2), (0, 0), (0, 0)))
            x = relu(x + y)
        return self.linear(p, "linear", x.mean((2, 3)))

    def gpt(self, p: Params, tokens: Any) -> Any:
        x = p["transformer.wte.weight"][tokens] + p["transformer.wpe.weight"][:tokens.shape[1]]
        for number in range(LAYERS):
            at = f"transformer.h.{number}"
            x = x + self.attention(p, f"{at}.attn", self.layer_norm(p, f"{at}.ln_1", x))
            hidden = self.jax.nn.gelu(self.linear(p, f"{at}.mlp.c_fc", self.layer_norm(p, f"{at}.ln_2", x)))
            x = x + self.linear(p, f"{at}.mlp.c_proj", hidden)
        return self.linear(p, "lm_head", self.layer_norm(p, "transformer.ln_f", x))

    def attention(self, p: Params, at: str, x: Any) -> Any:
        batch, time, width = x.shape
        parts = self.numpy.split(self.linear(p, f"{at}.c_attn", x), 3, -1)
        q, k, v = (part.reshape(batch, time, HEADS, width // HEADS).transpose(0, 2, 1, 3) for part in parts)
        scores = q @ k.transpose(0, 1, 3, 2) / (width // HEADS) ** 0.5
        seen = self.numpy.tril(self.numpy.ones((time, time), bool))
        y = self.jax.nn.softmax(self.numpy.where(seen, scores, -1e30), -1) @ v
        return self.linear(p, f"{at}.c_proj", y.transpose(0, 2, 1, 3).reshape(batch, time, width))
