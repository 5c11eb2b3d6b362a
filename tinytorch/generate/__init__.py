"""Text from a model that predicts the next token: `tt.generate(model, prompt)`, `tt.stream`, and what they stand on.

    >>> import tinytorch as tt
    >>> config = tt.nn.LlamaConfig(65, 32, 48, 2, 4, num_key_value_heads=2, max_position_embeddings=64)
    >>> found = tt.generate(tt.nn.Llama(config), [[1, 2, 3], [4, 5]], max_new_tokens=6, top_p=0.9, seed=0)
    >>> [len(tokens) for tokens in found.tokens]
    [6, 6]

Nothing is asked of a model but that it is causal: `Decoder` traces it, and a pass inserts the caches of keys and values
(`passes/insert_kv_cache.py`). On it stand the ways to choose: one token after the other (`steps.py`), several at once
that a draft proposes (`speculative.py`), and the likeliest sequences (`search.py`).
"""

from .decoder import Decoder
from .generation import Generated, generate, stream
from .sequence import Token

__all__ = ["Decoder", "Generated", "Token", "generate", "stream"]
