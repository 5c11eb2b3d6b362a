"""Llama: PyTorch's numbers from the same state, and a real model that must tell its story word by word."""

import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import near

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import OpError, ShapeError

Peer = Callable[[str], ModuleType]
STORIES = Path(__file__).parents[3] / "shared" / "data" / "stories260k"
CONFIG = nn.LlamaConfig(vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2, max_position_embeddings=8)
IDX = np.array([[1, 2, 3, 4, 5], [10, 0, 9, 9, 1]])


def of_torch(torch: ModuleType, state: dict[str, Any], config: nn.LlamaConfig, idx: Any) -> Any:
    """The logits, written out on a state dict with the names of Hugging Face's model."""
    f = torch.nn.functional
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    kv = config.num_key_value_heads or heads
    batch, time = idx.shape

    def norm(x: Any, weight: Any) -> Any:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config.rms_norm_eps) * weight

    def rotate(x: Any) -> Any:
        rates = config.rope_theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles = torch.outer(torch.arange(time, dtype=torch.float64), rates)
        cos, sin = (torch.cat([t, t], -1).float() for t in (angles.cos(), angles.sin()))
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    x = state["model.embed_tokens.weight"][idx]
    for i in range(config.num_hidden_layers):
        own = {key.removeprefix(f"model.layers.{i}."): value for key, value in state.items()}
        y = norm(x, own["input_layernorm.weight"])
        q, k, v = ((y @ own[f"self_attn.{name}_proj.weight"].T).reshape(batch, time, n, width).transpose(1, 2)
                   for name, n in (("q", heads), ("k", kv), ("v", kv)))
        y = f.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True, enable_gqa=True)
        x = x + y.transpose(1, 2).reshape(x.shape) @ own["self_attn.o_proj.weight"].T
        y = norm(x, own["post_attention_layernorm.weight"])
        gate, up = (y @ own[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (f.silu(gate) * up) @ own["mlp.down_proj.weight"].T
    return norm(x, state["model.norm.weight"]) @ state["lm_head.weight"].T


@pytest.mark.parametrize("tied", [False, True])
def test_results_and_gradients_are_pytorchs(tied: bool, peer: Peer) -> None:
    torch = peer("torch")
    config = nn.LlamaConfig(**{**vars(CONFIG), "tie_word_embeddings": tied})
    model = nn.Llama(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    state = {key: torch.tensor(value.numpy(), requires_grad=True) for key, value in model.state_dict().items()}
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    y, expected = model(tt.tensor(IDX)), of_torch(torch, state, config, torch.tensor(IDX))
    near(y, expected, 1e-4)
    weights = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    (y * tt.tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    for name, parameter in model.named_parameters():
        near(parameter.grad, state[name].grad, 1e-3)


def test_state_has_hugging_faces_keys() -> None:
    layer = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
             "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"]
    assert list(nn.Llama(CONFIG).state_dict()) == [
        "model.embed_tokens.weight", *(f"model.layers.{i}.{name}.weight" for i in range(2) for name in layer),
        "model.norm.weight", "lm_head.weight"]


def test_compiled_is_eager() -> None:
    model, idx = nn.Llama(CONFIG), tt.tensor(IDX)
    near(tt.compile(model)(idx), model(idx))
    near(tt.trace(model, idx)(IDX), model(idx))


@pytest.mark.parametrize(("change", "says"), [
    ({"num_attention_heads": 3}, "do not split into 3 heads"),
    ({"num_key_value_heads": 3}, "4 query heads do not split into 3"),
    ({"hidden_size": 12}, "even"),
])
def test_configurations_that_cannot_be(change: dict[str, int], says: str) -> None:
    with pytest.raises((OpError, ShapeError), match=says):
        nn.Llama(nn.LlamaConfig(**{**vars(CONFIG), **change}))


def test_too_long_a_sequence_and_unknown_tokens_are_errors() -> None:
    model = nn.Llama(CONFIG)
    with pytest.raises(ShapeError, match=r"max_position_embeddings=8 .* idx\[:, -8:\]"):
        model(tt.zeros(1, 9, dtype="i64"))
    with pytest.raises(IndexError, match="index 11 "):
        model(tt.tensor([[11]]))


# -- a real model: llama2.c's stories260K ------------------------------------------------------------------------------


def stories() -> nn.Llama:
    """The model in llama2.c's file: seven sizes, then all numbers, each kind for all layers."""
    data = (STORIES / "stories260K.bin").read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, longest = struct.unpack("7i", data[:28])
    kv = dim // heads * kv_heads
    model = nn.Llama(nn.LlamaConfig(vocab, dim, hidden, layers, heads, kv_heads, longest, rms_norm_eps=1e-5,
                                    tie_word_embeddings=True, interleaved=True))
    numbers, at = np.frombuffer(data, np.float32, offset=28), 0
    state: dict[str, np.ndarray] = {}

    def read(name: str, *shape: int) -> None:
        nonlocal at
        for i in range(layers) if "{}" in name else [0]:
            state[name.format(i)] = numbers[at:at + np.prod(shape)].reshape(shape)
            at += int(np.prod(shape))

    layer = "model.layers.{}."
    read("model.embed_tokens.weight", vocab, dim)
    read(layer + "input_layernorm.weight", dim)
    for name, rows in (("q", dim), ("k", kv), ("v", kv), ("o", dim)):
        read(layer + f"self_attn.{name}_proj.weight", rows, dim)
    read(layer + "post_attention_layernorm.weight", dim)
    read(layer + "mlp.gate_proj.weight", hidden, dim)
    read(layer + "mlp.down_proj.weight", dim, hidden)
    read(layer + "mlp.up_proj.weight", hidden, dim)
    read("model.norm.weight", dim)
    assert len(numbers) - at == longest * dim // heads  # tables of cosines and sines, which nobody needs
    model.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]})
    return model


def words() -> list[bytes]:
    """The pieces of text that the tokens stand for."""
    data, at, found = (STORIES / "tok512.bin").read_bytes(), 4, []
    while at < len(data):
        length = struct.unpack_from("i", data, at + 4)[0]
        piece = data[at + 8:at + 8 + length]
        found.append(bytes([int(piece[3:5], 16)]) if piece.startswith(b"<0x") else piece)
        at += 8 + length
    return found


@pytest.mark.skipif(not STORIES.is_dir(), reason="shared/data/stories260k is not beside the checkout")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_real_model_tells_its_story(compiled: bool) -> None:
    model, pieces = stories(), words()
    forward = tt.compile(model) if compiled else None
    count = 100 if compiled else 20
    ids = model.generate(tt.tensor([[1]]), count, temperature=0, forward=forward).numpy()[0, 1:]
    assert ids[:8].tolist() == [403, 407, 261, 378, 432, 383, 286, 261]
    text = b"".join(pieces[i] for i in ids).removeprefix(b" ").decode()
    assert len(text) > count and (STORIES / "expected_greedy.txt").read_text().startswith(text)
    assert not compiled or repr(forward).count("1 programs")
