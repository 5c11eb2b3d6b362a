"""Transformers: PyTorch's encoder and decoder layers, and the block that GPT is made of.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, nhead=4, batch_first=True), num_layers=2)
    >>> encoder(tt.randn(2, 10, 32)).shape                        # (batch, time, features)
    (2, 10, 32)
    >>> nn.TransformerBlock(32, num_heads=4)(tt.randn(2, 10, 32)).shape
    (2, 10, 32)
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tinytorch.ir.errors import OpError
from tinytorch.tensor import Tensor, as_tensor

from . import functional as F
from .attention import MultiheadAttention, check_heads, split
from .containers import ModuleList
from .layers import Dropout, Linear
from .module import Module
from .normalization import LayerNorm

__all__ = [
    "TransformerBlock", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
]

Activation = str | Callable[[Any], Tensor]


class TransformerBlock(Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the block of GPT-2 (Radford et al., 2019), with its keys.

    Args:
        embed_dim: features, a multiple of `num_heads`.
        mlp_ratio: hidden units of the MLP, in multiples of `embed_dim`.
        dropout: of attention weights, and of what is added to x.
        norm_first: normalise what goes into attention and MLP; else (Vaswani et al., 2017) the sums.
        causal: whether each token sees only itself and those before it.
        approximate: of the gelu, see `F.gelu`.
    Raises:
        OpError: `embed_dim` is no multiple of `num_heads`.

    >>> import tinytorch as tt
    >>> list(tt.nn.TransformerBlock(8, num_heads=2, bias=False).state_dict())
    ['ln_1.weight', 'attn.c_attn.weight', 'attn.c_proj.weight', 'ln_2.weight', 'mlp.c_fc.weight', 'mlp.c_proj.weight']
    """

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float = 4, dropout: float = 0.0, bias: bool = True,
                 norm_first: bool = True, causal: bool = True, approximate: str = "none") -> None:
        self.norm_first = norm_first
        self.ln_1 = LayerNorm(embed_dim, bias=bias)
        self.attn = SelfAttention(embed_dim, num_heads, dropout, bias, causal)
        self.ln_2 = LayerNorm(embed_dim, bias=bias)
        self.mlp = MLP(embed_dim, int(mlp_ratio * embed_dim), dropout, bias, approximate)

    def forward(self, x: Any, mask: Any = None) -> Tensor:
        """x (batch, time, embed_dim); mask as that of `F.scaled_dot_product_attention`, for (batch, heads, n, m)."""
        if self.norm_first:
            x = x + self.attn(self.ln_1(x), mask)
            return as_tensor(x + self.mlp(self.ln_2(x)))
        x = self.ln_1(x + self.attn(x, mask))
        return self.ln_2(x + self.mlp(x))


class SelfAttention(Module):
    """Attention of a sequence to itself: one product gives queries, keys and values."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, bias: bool, causal: bool) -> None:
        check_heads("SelfAttention", embed_dim, num_heads, num_heads)
        self.num_heads, self.dropout, self.causal = num_heads, dropout, causal
        self.c_attn = Linear(embed_dim, 3 * embed_dim, bias)
        self.c_proj = Linear(embed_dim, embed_dim, bias)

    def forward(self, x: Any, mask: Any = None) -> Tensor:
        """x (batch, time, embed_dim) to the same."""
        batch, time, _ = x.shape
        qkv = self.c_attn(x)
        width = qkv.shape[-1] // 3  # less than embed_dim where heads were pruned
        heads = (batch, time, self.num_heads, width // self.num_heads)
        q, k, v = (t.reshape(heads).permute(0, 2, 1, 3) for t in split(qkv, (width,) * 3))
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, p, self.causal)  # (batch, heads, time, head_dim)
        y = self.c_proj(y.permute(0, 2, 1, 3).reshape(batch, time, width))
        return F.dropout(y, self.dropout, self.training)


class MLP(Module):
    """Two linear maps with a gelu between."""

    def __init__(self, embed_dim: int, hidden: int, dropout: float, bias: bool, approximate: str) -> None:
        self.dropout, self.approximate = dropout, approximate
        self.c_fc = Linear(embed_dim, hidden, bias)
        self.c_proj = Linear(hidden, embed_dim, bias)

    def forward(self, x: Any) -> Tensor:
        """x (…, embed_dim) to the same."""
        y = self.c_proj(F.gelu(self.c_fc(x), self.approximate))
        return F.dropout(y, self.dropout, self.training)


class _Layer(Module):
    """What encoder and decoder layers share: the feed-forward part, and where the norms stand."""

    self_attn: MultiheadAttention
    norm_first: bool

    def _feed_forward(self, d_model: int, dim_feedforward: int, dropout: float, activation: Activation,
                      bias: bool) -> None:
        self.activation = _activation(type(self).__name__, activation)
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias)

    def _mlp(self, x: Any) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def _add(self, x: Any, norm: Module, dropout: Module, part: Callable[[Any], Tensor]) -> Any:
        """x + part(norm(x)), or norm(x + part(x))."""
        return x + dropout(part(norm(x))) if self.norm_first else norm(x + dropout(part(x)))


class TransformerEncoderLayer(_Layer):
    """Self-attention and two linear maps, each added to its input and normalised (Vaswani et al., 2017).

    Args:
        d_model: features, a multiple of `nhead`; dim_feedforward: hidden units between the linear maps.
        dropout: of attention weights, hidden units, and what is added.
        activation: "relu", "gelu" or a function.
        batch_first: (batch, time, features) in place of (time, batch, features).
        norm_first: normalise before attention and linear maps (more stable), not after.
    Raises:
        OpError: `d_model` is no multiple of `nhead`, or the activation is unknown.

    >>> import tinytorch as tt
    >>> tt.nn.TransformerEncoderLayer(8, nhead=2, norm_first=True)(tt.zeros(5, 3, 8)).shape
    (5, 3, 8)
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = F.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True) -> None:
        self.norm_first = norm_first
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self._feed_forward(d_model, dim_feedforward, dropout, activation, bias)
        self.norm1, self.norm2 = (LayerNorm(d_model, layer_norm_eps, bias=bias) for _ in range(2))
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None,
                is_causal: bool = False) -> Tensor:
        """`src`, encoded; masks are those of `MultiheadAttention`: true where a key is not to be seen."""

        def attend(x: Any) -> Tensor:
            return self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)[0]

        x = self._add(as_tensor(src), self.norm1, self.dropout1, attend)
        return as_tensor(self._add(x, self.norm2, self.dropout2, self._mlp))


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to a memory (the encoder's result), and two linear maps (Vaswani et al., 2017).

    Arguments as those of `TransformerEncoderLayer`.

    >>> import tinytorch as tt
    >>> target, memory = tt.zeros(5, 3, 8), tt.zeros(7, 3, 8)     # (time, batch, features)
    >>> tt.nn.TransformerDecoderLayer(8, nhead=2)(target, memory).shape
    (5, 3, 8)
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = F.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True) -> None:
        self.norm_first = norm_first
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self._feed_forward(d_model, dim_feedforward, dropout, activation, bias)
        self.norm1, self.norm2, self.norm3 = (LayerNorm(d_model, layer_norm_eps, bias=bias) for _ in range(3))
        self.dropout1, self.dropout2, self.dropout3 = (Dropout(dropout) for _ in range(3))

    def forward(self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None,
                tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None, tgt_is_causal: bool = False,
                memory_is_causal: bool = False) -> Tensor:
        """`tgt`, decoded; masks are those of `MultiheadAttention`: true where a key is not to be seen."""

        def attend(x: Any) -> Tensor:
            return self.self_attn(x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal)[0]

        def look_up(x: Any) -> Tensor:
            return self.multihead_attn(x, memory, memory, memory_key_padding_mask, False, memory_mask,
                                       is_causal=memory_is_causal)[0]

        x = self._add(as_tensor(tgt), self.norm1, self.dropout1, attend)
        x = self._add(x, self.norm2, self.dropout2, look_up)
        return as_tensor(self._add(x, self.norm3, self.dropout3, self._mlp))


class TransformerEncoder(Module):
    """`num_layers` copies of a layer, one after the other, and a last norm if wanted.

    All begin with the same numbers, as in PyTorch; initialise them anew if you train them. Padded places are computed
    like others (PyTorch's nested tensors give zeros there in evaluation).

    >>> import tinytorch as tt
    >>> encoder = tt.nn.TransformerEncoder(tt.nn.TransformerEncoderLayer(8, nhead=2), 2, norm=tt.nn.LayerNorm(8))
    >>> encoder(tt.zeros(5, 3, 8), is_causal=True).shape
    (5, 3, 8)
    """

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None) -> None:
        self.layers = ModuleList(deepcopy(encoder_layer) for _ in range(num_layers))
        self.num_layers, self.norm = num_layers, norm

    def forward(self, src: Any, mask: Any = None, src_key_padding_mask: Any = None,
                is_causal: bool | None = None) -> Tensor:
        """`src` through all layers; arguments as those of `TransformerEncoderLayer`."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return as_tensor(src if self.norm is None else self.norm(src))


class TransformerDecoder(Module):
    """`num_layers` copies of a decoder layer, one after the other, and a last norm if wanted.

    >>> import tinytorch as tt
    >>> decoder = tt.nn.TransformerDecoder(tt.nn.TransformerDecoderLayer(8, nhead=2), num_layers=2)
    >>> decoder(tt.zeros(5, 3, 8), tt.zeros(7, 3, 8), tgt_is_causal=True).shape
    (5, 3, 8)
    """

    def __init__(self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: Module | None = None) -> None:
        self.layers = ModuleList(deepcopy(decoder_layer) for _ in range(num_layers))
        self.num_layers, self.norm = num_layers, norm

    def forward(self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None,
                tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None,
                tgt_is_causal: bool | None = None, memory_is_causal: bool = False) -> Tensor:
        """`tgt` through all layers; arguments as those of `TransformerDecoderLayer`."""
        for layer in self.layers:
            tgt = layer(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
                        bool(tgt_is_causal), memory_is_causal)
        return as_tensor(tgt if self.norm is None else self.norm(tgt))


def _activation(who: str, activation: Activation) -> Callable[[Any], Tensor]:
    if callable(activation):
        return activation
    if activation not in ("relu", "gelu"):
        raise OpError(f"{who}(activation={activation!r}): expected 'relu', 'gelu' or a function")
    return F.relu if activation == "relu" else F.gelu
