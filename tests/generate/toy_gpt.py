"""Models that are small and sure of what they say."""

import tinytorch as tt
from tinytorch import nn


def make_gpt(vocabulary: int = 11, seed: int = 0, layers: int = 2) -> nn.GPT:
    """A GPT with weights so large that each context has a token of its own."""
    tt.manual_seed(seed)
    model = nn.GPT(nn.GPTConfig(vocab_size=vocabulary, block_size=32, n_layer=layers, n_head=2, n_embd=16,
                                tie_weights=False))
    with tt.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter * (8.0 if parameter.ndim == 2 else 1.0))
    return model.eval()
