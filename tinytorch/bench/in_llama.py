"""A Llama of ours in llama.cpp, through llama-cpp-python: `Llama(model, "q4_0", threads=2)`.

The weights are written to a GGUF file as llama.cpp's own quantiser would: matrices in blocks of 32 with 4 bits each,
the table of embeddings, which is also the last layer, in 8. Both packages are extras of their own (`[llama]`): they are
compiled where they are installed, which takes a quarter of an hour.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


class Llama:
    """The model in llama.cpp. `extend` gives the logits of the last of some tokens that follow those before.

    Args:
        model: a `nn.Llama` whose rotary pairs are neighbours (`interleaved`), as llama.cpp pairs them.
        kind: of the matrices: "q4_0", "q4_1", "q8_0" or "f32".
        folder: where the file is written.
    """

    def __init__(self, model: Any, kind: str, threads: int, folder: Path) -> None:
        path = folder / f"{kind}.gguf"
        write(model, kind, path)
        self.module, self.vocabulary = importlib.import_module("llama_cpp"), model.config.vocab_size
        self.llama = self.module.Llama(
            str(path), n_ctx=512, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads, verbose=False)

    def extend(self, tokens: np.ndarray, position: int) -> np.ndarray:
        """Logits (vocabulary,) after tokens (new,) that begin at `position`; what stood there before is forgotten."""
        self.llama.n_tokens = position
        self.llama.eval(tokens.tolist())
        logits = self.module.llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(logits, (self.vocabulary,)).copy()


def write(model: Any, kind: str, path: Path) -> None:
    """The model as a GGUF file."""
    gguf = importlib.import_module("gguf")
    config, types = model.config, gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")

    def add(name: str, array: np.ndarray, wanted: Any) -> None:
        packed = array if wanted is types.F32 else gguf.quants.quantize(array, wanted)
        writer.add_tensor(name, packed, raw_dtype=wanted)

    state = {key: np.array(value.numpy()) for key, value in model.state_dict().items()}
    add("token_embd.weight", state["model.embed_tokens.weight"], types.Q8_0)
    add("output_norm.weight", state["model.norm.weight"], types.F32)
    for number in range(config.num_hidden_layers):
        for ours, theirs in NAMES.items():
            array = state[f"model.layers.{number}.{ours}.weight"]
            add(f"blk.{number}.{theirs}.weight", array, types.F32 if array.ndim == 1 else types[kind.upper()])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
