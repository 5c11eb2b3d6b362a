"""Tokens one after the other, from any function that gives logits: what `GPT.generate` and `Llama.generate` share.

The context is padded on the right to one width for the whole call, so that a compiled forward is traced once; what
lies behind a token cannot change its logits, because attention is causal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.creation import rand
from tinytorch.ir.errors import ShapeError
from tinytorch.tensor import Tensor, as_tensor, tensor

from .module import Module, in_mode
from .sampling import Sampling


def generate(model: Module, forward: Callable[[Any], Tensor] | None, idx: Any, max_new_tokens: int, block_size: int,
             temperature: float, top_k: int | None) -> Tensor:
    """`idx` (batch, time) of integers with `max_new_tokens` more on the right, drawn in evaluation mode.

    Args:
        forward: what gives the logits (batch, time, vocabulary), such as `tt.compile(model)`; the model itself if None.
        block_size: the longest context; of a longer one, the last so many tokens are seen.
        temperature, top_k: see `draw`.
    """
    tokens = np.asarray(as_tensor(idx).numpy())
    if tokens.ndim != 2 or not tokens.shape[1]:
        raise ShapeError(f"generate(idx of shape {tokens.shape}): expected (batch, time) with at least one token to "
                         "begin with")
    width = min(block_size, tokens.shape[1] + max_new_tokens - 1)
    with in_mode(model, False), no_grad():
        for _ in range(max_new_tokens):
            context = tokens[:, -width:]
            time = context.shape[1]
            padded = np.pad(context, ((0, 0), (0, width - time)))
            logits = (forward or model)(tensor(padded)).numpy()[:, time - 1]
            tokens = np.concatenate([tokens, draw(logits, temperature, top_k)[:, None]], 1)
    return tensor(tokens)


def draw(logits: np.ndarray, temperature: float = 1.0, top_k: int | None = None) -> np.ndarray:
    """One class for each row of `logits` (batch, classes), with probabilities softmax(logits / temperature).

    Args:
        temperature, top_k: see `sampling.Sampling`, which raises OpError for what makes no sense.
    """
    sampling = Sampling(temperature, top_k)
    uniform = np.zeros(len(logits)) if sampling.is_greedy else rand(len(logits), dtype="f64").numpy()
    return sampling.choose(logits, uniform)
