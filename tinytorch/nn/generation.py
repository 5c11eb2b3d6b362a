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
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Tensor, as_tensor, tensor

from .module import Module


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
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            for _ in range(max_new_tokens):
                context = tokens[:, -width:]
                time = context.shape[1]
                padded = np.pad(context, ((0, 0), (0, width - time)))
                logits = (forward or model)(tensor(padded)).numpy()[:, time - 1]
                tokens = np.concatenate([tokens, draw(logits, temperature, top_k)[:, None]], 1)
    finally:
        for module, mode in modes:
            module.training = mode
    return tensor(tokens)


def draw(logits: np.ndarray, temperature: float = 1.0, top_k: int | None = None) -> np.ndarray:
    """One class for each row of `logits` (batch, classes), with probabilities softmax(logits / temperature).

    The greatest of logits / temperature + Gumbel noise is such a draw (Gumbel, 1954).

    Args:
        temperature: 0 takes the most likely class; above 1, draws are more even.
        top_k: draw from the so many most likely classes only.
    Raises:
        OpError: a negative temperature, or top_k below 1.
    """
    if temperature < 0 or (top_k is not None and top_k < 1):
        raise OpError(f"temperature={temperature}, top_k={top_k}: expected a temperature ≥ 0, and top_k ≥ 1 or None")
    if temperature == 0:
        return np.asarray(logits.argmax(-1))
    scores = logits.astype(np.float64) / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        least = np.partition(scores, -top_k, -1)[:, -top_k, None]
        scores = np.where(scores < least, -np.inf, scores)
    with np.errstate(divide="ignore"):
        return np.asarray((scores - np.log(-np.log(rand(scores.shape, dtype="f64").numpy()))).argmax(-1))
