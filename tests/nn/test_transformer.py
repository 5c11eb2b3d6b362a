"""Transformer layers against PyTorch's; the block of GPT against the same mathematics; causal order; dropout."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import check_module, near
from test_attention import called

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import OpError, ShapeError

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(8)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


def relu_squared(x: Any) -> Any:
    """An activation that has no name."""
    return x.relu() * x.relu()


X, MEMORY = floats(5, 2, 8), floats(7, 2, 8)  # (time, batch, features)
LATER = ~np.tri(5, dtype=bool)
PADDING = np.array([[False] * 5, [False, False, True, False, True]])
MEMORY_PADDING = np.array([[False] * 6 + [True], [True] + [False] * 6])
ENCODERS: dict[str, tuple[Callable[[Any], Any], Callable[..., Any], list[np.ndarray]]] = {
    "post-norm": (lambda m: m.TransformerEncoderLayer(8, 2, 16, 0.0), lambda e, x: e(x), [X]),
    "pre-norm": (lambda m: m.TransformerEncoderLayer(8, 4, 16, 0.0, "gelu", norm_first=True, batch_first=True),
                 lambda e, x: e(x), [X]),
    "no biases": (lambda m: m.TransformerEncoderLayer(8, 2, 16, 0.0, relu_squared, 1e-3, bias=False),
                  lambda e, x: e(x), [X]),
    "no batch": (lambda m: m.TransformerEncoderLayer(8, 2, 16, 0.0), lambda e, x: e(x), [X[:, 0]]),
    "masks": (lambda m: m.TransformerEncoderLayer(8, 2, 16, 0.0), lambda e, *t: e(*t), [X, LATER, PADDING]),
    "encoder": (lambda m: m.TransformerEncoder(
        m.TransformerEncoderLayer(8, 2, 16, 0.0, norm_first=True), 2, m.LayerNorm(8)),
        lambda e, *t: e(*t), [X, LATER]),
    "decoder layer": (lambda m: m.TransformerDecoderLayer(8, 2, 16, 0.0), lambda d, *t: d(*t), [X, MEMORY]),
    "decoder layer, masks": (lambda m: m.TransformerDecoderLayer(8, 2, 16, 0.0, norm_first=True),
                             lambda d, *t: d(t[0], t[1], t[2], t[3], t[4], t[5]),
                             [X, MEMORY, LATER, floats(5, 7), PADDING, MEMORY_PADDING]),
    "decoder": (lambda m: m.TransformerDecoder(m.TransformerDecoderLayer(8, 2, 16, 0.0, "gelu"), 2),
                lambda d, *t: d(t[0], t[1], tgt_mask=t[2], memory_key_padding_mask=t[3]),
                [X, MEMORY, LATER, MEMORY_PADDING]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, on nested tensors and kinds of masks
@pytest.mark.parametrize("case", ENCODERS)
def test_layers_are_pytorchs(case: str, peer: Peer) -> None:
    make, call, inputs = ENCODERS[case]
    torch = peer("torch")
    torch.manual_seed(0)
    check_module(called(make, call), inputs, torch, same_repr=False, compiled=False, tolerance=2e-4)


def test_compiled_is_eager() -> None:
    cases = [ENCODERS[name] for name in ("pre-norm", "decoder layer, masks")]
    group = nn.ModuleList(called(make, call)(nn) for make, call, _ in cases)
    inputs = [[tt.tensor(x) for x in arrays] for _, _, arrays in cases]

    def run(inputs: Any) -> Any:
        return [module(*x) for module, x in zip(group, inputs, strict=True)]

    for y, expected in zip(tt.compile(run)(inputs), run(inputs), strict=True):
        near(y, expected, 1e-4)


def test_layers_of_an_encoder_are_copies() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    encoder = nn.TransformerEncoder(layer, 2)
    first, second = (part.linear1.weight for part in encoder.layers)
    near(first, second)
    with tt.no_grad():
        first.zero_()
    assert second.numpy().any() and layer.linear1.weight.numpy().any()


def test_dropout_everywhere_is_the_same_eager_and_compiled() -> None:
    layer, x = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5), tt.tensor(X)
    fast = tt.compile(layer)
    tt.manual_seed(2)
    first, second = layer(x), layer(x)
    tt.manual_seed(2)
    near(fast(x), first, 1e-4)
    near(fast(x), second, 1e-4)
    assert not np.allclose(first.numpy(), second.numpy(), atol=0.1)
    layer.eval()
    near(layer(x), layer(x))


# -- the block of GPT --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_the_block_is_an_encoder_layer_under_other_names(norm_first: bool, causal: bool) -> None:
    block = nn.TransformerBlock(8, 2, mlp_ratio=2, norm_first=norm_first, causal=causal)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=norm_first)
    names = {"ln_1": "norm1", "attn.c_attn.": "self_attn.in_proj_", "attn.c_proj": "self_attn.out_proj",
             "ln_2": "norm2", "mlp.c_fc": "linear1", "mlp.c_proj": "linear2"}
    state = {}
    for key, value in block.state_dict().items():
        ours = next(name for name in names if key.startswith(name))
        state[key.replace(ours, names[ours])] = value
    layer.load_state_dict(state)
    x = tt.tensor(X.swapaxes(0, 1))
    near(block(x), layer(x, is_causal=causal), 1e-4)
    mask = np.array([True, True, False, True, True])  # as the functional one: true where seen
    near(block(x, tt.tensor(mask)), layer(x, tt.tensor(~mask[None].repeat(5, 0)), is_causal=causal), 1e-4)


def test_causal_blocks_do_not_look_ahead() -> None:
    block, x = nn.TransformerBlock(8, 2), floats(1, 6, 8)
    changed = x.copy()
    changed[:, 4:] *= -2
    before, after = block(tt.tensor(x)).numpy(), block(tt.tensor(changed)).numpy()
    near(before[:, :4], after[:, :4])
    assert (np.abs(before - after)[:, 4:] > 1e-3).any(-1).all()
    open_block = nn.TransformerBlock(8, 2, causal=False)
    assert (np.abs(open_block(tt.tensor(x)).numpy() - open_block(tt.tensor(changed)).numpy()) > 1e-4).any(-1).all()


@pytest.mark.parametrize(("act", "says"), [
    (lambda: nn.TransformerBlock(8, 3), "do not split into 3 heads"),
    (lambda: nn.TransformerEncoderLayer(8, 3), "do not split into 3 heads"),
    (lambda: nn.TransformerEncoderLayer(8, 2, activation="tanh"), "'relu', 'gelu' or a function"),
    (lambda: nn.TransformerEncoderLayer(8, 2)(tt.zeros(5, 2, 6)), "last extents"),
    (lambda: nn.TransformerBlock(8, 2)(tt.zeros(2, 5, 6)), "6"),
])
def test_errors_say_what_fits(act: Callable[[], Any], says: str) -> None:
    with pytest.raises((OpError, ShapeError), match=says):
        act()
