"""Read the files of llama2.c: `read_checkpoint` gives what nn.Llama wants, `read_vocabulary` the pieces of its texts.

    config, state = read_checkpoint("stories260K.bin")
    model = nn.Llama(nn.LlamaConfig(**config))
    model.load_state_dict(state)

A checkpoint is seven integers, then numbers in f32: each kind of weight for all layers. Sizes are checked against the
length of the file before anything is read by them; nothing in a file is executed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.ir.errors import FormatError

HEADER = struct.Struct("<7i")  # width, hidden units, layers, heads, key heads, vocabulary, longest sequence
LONGEST_PIECE = 1 << 16        # bytes


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The options of nn.LlamaConfig, and the state of nn.Llama: f32 arrays by name.

    Raises:
        FormatError: the file is damaged, or no checkpoint of this kind; OSError: it cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        return _checkpoint(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}\ntry: get the file anew; expected a llama2.c checkpoint (version 0, "
                          "f32), as its export.py writes") from None


def _checkpoint(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if len(data) < HEADER.size:
        raise FormatError(f"it has {len(data)} bytes, and a header alone is {HEADER.size}")
    width, hidden, layers, heads, key_heads, vocab, longest = HEADER.unpack_from(data)
    tied, vocab = vocab > 0, abs(vocab)
    if min(width, hidden, layers, heads, key_heads, vocab, longest) < 1:
        raise FormatError("one of the sizes in its header is not positive")
    if width % heads or heads % key_heads or width // heads % 2:
        raise FormatError(f"{heads} heads, {key_heads} key heads and {width} features do not fit together")
    parts = list(_parts(width, hidden, layers, width // heads * key_heads, vocab, longest * width // heads, tied))
    expected = HEADER.size + 4 * sum(count * math.prod(shape) for _, count, shape in parts)
    if len(data) != expected:
        raise FormatError(f"it has {len(data):,} bytes, and the sizes in its header make {expected:,}")
    numbers, at = np.frombuffer(data, "<f4", offset=HEADER.size), 0
    state: dict[str, np.ndarray] = {}
    for name, count, shape in parts:
        for layer in range(count):
            state[name.format(layer)] = numbers[at:at + math.prod(shape)].reshape(shape)
            at += math.prod(shape)
    del state[ANGLES]
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    config = {"vocab_size": vocab, "hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": layers,
              "num_attention_heads": heads, "num_key_value_heads": key_heads, "max_position_embeddings": longest,
              "rms_norm_eps": 1e-5, "tie_word_embeddings": tied, "interleaved": True}
    return config, state


ANGLES = "tables of cosines and sines"  # which follow from the sizes


def _parts(width: int, hidden: int, layers: int, keys: int, vocab: int, angles: int,
           tied: bool) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """The name, the number of layers that have one, and the shape of each kind of weight, as they follow each other."""
    layer = "model.layers.{}."
    yield "model.embed_tokens.weight", 1, (vocab, width)
    yield layer + "input_layernorm.weight", layers, (width,)
    for name, rows in (("q", width), ("k", keys), ("v", keys), ("o", width)):
        yield f"{layer}self_attn.{name}_proj.weight", layers, (rows, width)
    yield layer + "post_attention_layernorm.weight", layers, (width,)
    yield layer + "mlp.gate_proj.weight", layers, (hidden, width)
    yield layer + "mlp.down_proj.weight", layers, (width, hidden)
    yield layer + "mlp.up_proj.weight", layers, (hidden, width)
    yield "model.norm.weight", 1, (width,)
    yield ANGLES, 1, (angles,)
    if not tied:
        yield "lm_head.weight", 1, (vocab, width)


def read_vocabulary(path: str | Path) -> list[tuple[bytes, float]]:
    """The piece of text and the score of each token, from a tokenizer file; `text.PieceTokenizer` encodes by them.

    Raises:
        FormatError: the file is damaged, or no tokenizer of this kind; OSError: it cannot be read.
    """
    data, at = Path(path).read_bytes(), 4
    found: list[tuple[bytes, float]] = []
    while at + 8 <= len(data):
        score, length = struct.unpack_from("<fi", data, at)
        at += 8 + length
        if not 0 <= length <= LONGEST_PIECE or at > len(data) or not math.isfinite(score):
            break
        found.append((data[at - length:at], score))
    if at != len(data) or not found:
        raise FormatError(f"{path}: piece {len(found)} is damaged, or the file ends within it\ntry: get the file anew; "
                          "expected the tokenizer.bin of a llama2.c model")
    return found
