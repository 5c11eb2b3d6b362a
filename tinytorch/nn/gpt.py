"""GPT: a language model that predicts the next token (Radford et al., 2018, 2019).

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> model = nn.GPT(nn.GPTConfig(vocab_size=65, block_size=16, n_layer=2, n_head=2, n_embd=32))
    >>> model(tt.tensor([[1, 2, 3]])).shape                       # a logit for each token that may come next
    (1, 3, 65)
    >>> model.generate(tt.tensor([[1, 2, 3]]), max_new_tokens=5).shape
    (1, 8)

Keys are those of nanoGPT; weights lie as in nn.Linear, (out, in), so those of OpenAI's and Hugging Face's GPT-2
("c_attn", "c_proj", "c_fc") are to be transposed when they are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Tensor, as_tensor

from . import init
from .containers import ModuleList
from .generation import generate
from .layers import Dropout, Embedding, Linear
from .module import Module
from .normalization import LayerNorm
from .positional import LearnedPositionalEmbedding
from .transformer import TransformerBlock

__all__ = ["GPT", "GPTConfig"]


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a `GPT`; the defaults are GPT-2's small one.

    Attributes:
        vocab_size: how many tokens there are; block_size: the longest sequence.
        n_layer, n_head, n_embd: blocks, heads of each, features.
        dropout: in training, see `TransformerBlock`.
        bias: whether linear maps and norms have one.
        tie_weights: whether the last map's weight is the table of embeddings (Press and Wolf, 2017).
        approximate: of the gelu: "none" is exact, "tanh" as in OpenAI's GPT-2.

    >>> import tinytorch as tt
    >>> tt.nn.GPTConfig(vocab_size=65, block_size=64).n_layer
    12
    """

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True
    tie_weights: bool = True
    approximate: str = "none"


class GPT(Module):
    """Embeddings of tokens and positions, `n_layer` causal blocks, a norm, and a linear map to logits.

    Weights begin normal with standard deviation 0.02, those that add to the residual stream with 0.02 / √(2 n_layer),
    biases as 0 (Radford et al., 2019).

    Raises:
        OpError: `n_embd` is no multiple of `n_head`.
        ShapeError: when called with more than `block_size` tokens; IndexError: with a token outside the vocabulary.

    >>> import tinytorch as tt
    >>> model = tt.nn.GPT(tt.nn.GPTConfig(vocab_size=65, block_size=16, n_layer=1, n_head=2, n_embd=32))
    >>> list(model.state_dict())[:4]
    ['transformer.wte.weight', 'transformer.wpe.weight', 'transformer.h.0.ln_1.weight', 'transformer.h.0.ln_1.bias']
    """

    def __init__(self, config: GPTConfig) -> None:
        self.config = config
        self.transformer = GPTBody(config)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_weights:
            self.lm_head.weight = self.transformer.wte.weight
        self._initialise()

    def _initialise(self) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                init.normal_(parameter, std=residual if name.endswith("c_proj.weight") else 0.02)
            elif name.endswith("bias"):
                init.zeros_(parameter)

    def forward(self, idx: Any) -> Tensor:
        """Logits (batch, time, vocab_size) of the token after each of `idx` (batch, time)."""
        return self.lm_head(self.transformer(idx))

    def generate(self, idx: Any, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
                 forward: Callable[[Any], Tensor] | None = None) -> Tensor:
        """`idx` (batch, time) with `max_new_tokens` more on the right, each drawn given those before it.

        Args:
            temperature: 0 takes the most likely token each time; 1 draws as the model says; above, more evenly.
            top_k: draw from the so many most likely tokens only.
            forward: called in place of the model, with sequences of one length only: `tt.compile(model)`.
        """
        return generate(self, forward, idx, max_new_tokens, self.config.block_size, temperature, top_k)


class GPTBody(Module):
    """All but the last linear map."""

    def __init__(self, config: GPTConfig) -> None:
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = LearnedPositionalEmbedding(config.block_size, config.n_embd)
        self.drop = Dropout(config.dropout)
        self.h = ModuleList(
            TransformerBlock(config.n_embd, config.n_head, dropout=config.dropout, bias=config.bias,
                             approximate=config.approximate) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, bias=config.bias)

    def forward(self, idx: Any) -> Tensor:
        """Features (batch, time, n_embd) of tokens (batch, time)."""
        idx = as_tensor(idx)
        if idx.ndim != 2 or idx.shape[1] > self.wpe.max_len:
            raise ShapeError(f"GPT({idx.type}): expected tokens (batch, time), with no more than "
                             f"block_size={self.wpe.max_len} of them; crop the context, idx[:, -{self.wpe.max_len}:]")
        x = self.drop(self.wpe(self.wte(idx)))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)
