"""A Llama-style language model (Touvron et al., "LLaMA", 2023; "Llama 2", 2023).

What differs from GPT: root-mean-square norms, positions turned into queries and keys (rotary), fewer heads of keys and
values than of queries, a gated MLP, and no biases.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> config = nn.LlamaConfig(vocab_size=65, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    ...                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16)
    >>> model = nn.Llama(config)
    >>> model(tt.tensor([[1, 2, 3]])).shape                       # a logit for each token that may come next
    (1, 3, 65)
    >>> model.generate(tt.tensor([[1, 2, 3]]), max_new_tokens=5, temperature=0).shape
    (1, 8)

Configuration and keys are those of Hugging Face's LlamaForCausalLM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Tensor, as_tensor

from . import functional as F
from . import init
from .attention import check_heads
from .containers import ModuleList
from .generation import generate
from .layers import Embedding, Linear
from .module import Module
from .normalization import RMSNorm
from .positional import RotaryEmbedding

__all__ = ["Llama", "LlamaConfig"]


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a `Llama`; the defaults are Llama 2's, with 7 billion parameters.

    Attributes:
        vocab_size: how many tokens there are; max_position_embeddings: the longest sequence.
        hidden_size: features; intermediate_size: hidden units of the MLP; num_hidden_layers: blocks.
        num_attention_heads: heads of queries; num_key_value_heads: of keys and values (as many, if None).
        rms_norm_eps: what is added to mean squares; rope_theta: base of the rotary angles.
        tie_word_embeddings: whether the last map's weight is the table of embeddings.
        interleaved: how features are paired for the rotary angles: llama2.c's files want True, Hugging Face's False.

    >>> import tinytorch as tt
    >>> tt.nn.LlamaConfig(num_key_value_heads=8).hidden_size
    4096
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    interleaved: bool = False


class Llama(Module):
    """Embeddings, `num_hidden_layers` causal blocks, a norm, and a linear map to logits.

    Weights begin normal with standard deviation 0.02.

    Raises:
        OpError: features do not split into heads, or query heads into groups; ShapeError: a head is of odd width.
        ShapeError: when called with more than `max_position_embeddings` tokens; IndexError: with a token outside the
            vocabulary.

    >>> import tinytorch as tt
    >>> config = tt.nn.LlamaConfig(65, 32, 48, 1, 4, max_position_embeddings=16, tie_word_embeddings=True)
    >>> list(tt.nn.Llama(config).state_dict())[:3]
    ['model.embed_tokens.weight', 'model.layers.0.self_attn.q_proj.weight', 'model.layers.0.self_attn.k_proj.weight']
    """

    def __init__(self, config: LlamaConfig) -> None:
        self.config = config
        self.model = LlamaBody(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        for parameter in self.parameters():
            if parameter.ndim == 2:
                init.normal_(parameter, std=0.02)

    def forward(self, idx: Any) -> Tensor:
        """Logits (batch, time, vocab_size) of the token after each of `idx` (batch, time)."""
        return self.lm_head(self.model(idx))

    def generate(self, idx: Any, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
                 forward: Callable[[Any], Tensor] | None = None) -> Tensor:
        """`idx` with `max_new_tokens` more on the right: as `GPT.generate`."""
        return generate(self, forward, idx, max_new_tokens, self.config.max_position_embeddings, temperature, top_k)


class LlamaBody(Module):
    """All but the last linear map."""

    def __init__(self, config: LlamaConfig) -> None:
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = ModuleList(LlamaBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        # one table for all layers
        self.rotary_emb = RotaryEmbedding(config.hidden_size // config.num_attention_heads,
                                          config.max_position_embeddings, config.rope_theta, config.interleaved)

    def forward(self, idx: Any) -> Tensor:
        """Features (batch, time, hidden_size) of tokens (batch, time)."""
        idx = as_tensor(idx)
        longest = self.rotary_emb.max_len
        if idx.ndim != 2 or idx.shape[1] > longest:
            raise ShapeError(f"Llama({idx.type}): expected tokens (batch, time), with no more than "
                             f"max_position_embeddings={longest} of them; crop the context, idx[:, -{longest}:]")
        x = self.embed_tokens(idx)
        for layer in self.layers:
            x = layer(x, self.rotary_emb)
        return self.norm(x)


class LlamaBlock(Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        self.self_attn = LlamaAttention(config)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Any, rotary: Callable[[Any], Tensor]) -> Tensor:
        """x (batch, time, hidden_size) to the same."""
        x = x + self.self_attn(self.input_layernorm(x), rotary)
        return as_tensor(x + self.mlp(self.post_attention_layernorm(x)))


class LlamaAttention(Module):
    """Causal attention with rotary positions and grouped queries."""

    def __init__(self, config: LlamaConfig) -> None:
        width, heads = config.hidden_size, config.num_attention_heads
        kv_heads = heads if config.num_key_value_heads is None else config.num_key_value_heads
        check_heads("Llama", width, heads, kv_heads)
        self.head_dim = width // heads
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj = Linear(width, kv_heads * self.head_dim, bias=False)
        self.v_proj = Linear(width, kv_heads * self.head_dim, bias=False)
        self.o_proj = Linear(width, width, bias=False)

    def forward(self, x: Any, rotary: Callable[[Any], Tensor]) -> Tensor:
        """x (batch, time, hidden_size) to the same."""
        batch, time, _ = x.shape
        q, k, v = (p(x).reshape(batch, time, -1, self.head_dim).permute(0, 2, 1, 3)  # (batch, heads, time, head_dim)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        y = F.scaled_dot_product_attention(rotary(q), rotary(k), v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.permute(0, 2, 1, 3).reshape(batch, time, -1))  # fewer than width where heads were pruned


class SwiGLU(Module):
    """down(silu(gate x) · up x) (Shazeer, "GLU variants improve transformer", 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        self.gate_proj = Linear(width, hidden, bias=False)
        self.up_proj = Linear(width, hidden, bias=False)
        self.down_proj = Linear(hidden, width, bias=False)

    def forward(self, x: Any) -> Tensor:
        """x (…, width) to the same."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
