"""GPT: PyTorch's numbers from the same state, its first weights, training steps, and what it generates."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import near
from scipy import stats

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn import functional as F
from tinytorch.nn.generation import draw

Peer = Callable[[str], ModuleType]
CONFIG = nn.GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16)
IDX = np.array([[1, 2, 3, 4, 5], [10, 0, 9, 9, 1]])


def changed(**changes: Any) -> nn.GPTConfig:
    """The configuration of these tests, but for some."""
    return nn.GPTConfig(**{**vars(CONFIG), **changes})


def of_torch(torch: ModuleType, state: dict[str, Any], config: nn.GPTConfig, idx: Any) -> Any:
    """The logits, written out on a state dict with nanoGPT's names."""
    f = torch.nn.functional
    batch, time = idx.shape

    def norm(x: Any, name: str) -> Any:
        return f.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state.get(f"{name}.bias"))

    def linear(x: Any, name: str) -> Any:
        return f.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    x = state["transformer.wte.weight"][idx] + state["transformer.wpe.weight"][:time]
    for i in range(config.n_layer):
        name = f"transformer.h.{i}"
        q, k, v = (t.reshape(batch, time, config.n_head, -1).transpose(1, 2)
                   for t in linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn").chunk(3, -1))
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(y.transpose(1, 2).reshape(x.shape), f"{name}.attn.c_proj")
        y = f.gelu(linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc"), approximate=config.approximate)
        x = x + linear(y, f"{name}.mlp.c_proj")
    return linear(norm(x, "transformer.ln_f"), "lm_head")


@pytest.mark.parametrize("changes", [{}, {"bias": False, "approximate": "tanh"}, {"tie_weights": False}])
def test_results_and_gradients_are_pytorchs(changes: dict[str, Any], peer: Peer) -> None:
    torch = peer("torch")
    config = changed(**changes)
    model = nn.GPT(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    state = {key: torch.tensor(value.numpy(), requires_grad=True) for key, value in model.state_dict().items()}
    if config.tie_weights:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    y, expected = model(tt.tensor(IDX)), of_torch(torch, state, config, torch.tensor(IDX))
    near(y, expected, 1e-4)
    labels = (IDX + 1) % 11
    F.cross_entropy(y.reshape(-1, 11), tt.tensor(labels.ravel())).backward()
    torch.nn.functional.cross_entropy(expected.reshape(-1, 11), torch.tensor(labels.ravel())).backward()
    for name, parameter in model.named_parameters():
        near(parameter.grad, state[name].grad, 1e-4)


def test_state_has_nanogpts_keys() -> None:
    block = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
    names = [f"transformer.h.{i}.{name}" for i in range(2) for name in block]
    both = [f"{name}.{part}" for name in [*names, "transformer.ln_f"] for part in ("weight", "bias")]
    state = nn.GPT(CONFIG).state_dict()
    assert list(state) == ["transformer.wte.weight", "transformer.wpe.weight", *both, "lm_head.weight"]
    assert state["transformer.h.0.attn.c_attn.weight"].shape == (48, 16)
    assert [key for key in nn.GPT(changed(bias=False)).state_dict() if "bias" in key] == []


def test_it_begins_as_gpt_2() -> None:
    model = nn.GPT(changed(n_embd=128, n_layer=8, vocab_size=100))
    for name, parameter in model.named_parameters():
        if name.endswith("c_proj.weight"):
            assert math.isclose(parameter.numpy().std(), 0.02 / 4, rel_tol=0.05)
        elif parameter.ndim == 2:
            assert math.isclose(parameter.numpy().std(), 0.02, rel_tol=0.1), name
        else:
            assert (parameter.numpy() == ("weight" in name)).all()
    loss = F.cross_entropy(model(tt.randint(0, 100, (4, 8))).reshape(-1, 100), tt.randint(0, 100, (32,)))
    assert abs(loss.item() - math.log(100)) < 0.1  # it knows nothing yet
    assert model.lm_head.weight is model.transformer.wte.weight


def test_training_compiled_is_eager_with_dropout() -> None:
    def train(compiled: bool) -> tuple[list[float], list[np.ndarray]]:
        tt.manual_seed(0)
        model = nn.GPT(changed(dropout=0.2))
        optimizer = optim.AdamW(model.parameters(), lr=0.01)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x).reshape(-1, 11), y.reshape(-1))
            loss.backward()
            optimizer.step()
            return loss

        run = tt.compile(step) if compiled else step
        losses = [run(tt.tensor(IDX), tt.tensor((IDX + 1) % 11)).item() for _ in range(4)]
        return losses, [p.detach().numpy() for p in model.parameters()]

    (losses, parameters), (expected_losses, expected) = train(True), train(False)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    assert losses[-1] < losses[0]
    for p, q in zip(parameters, expected, strict=True):
        near(p, q, 1e-3)


def test_evaluation_compiled_and_traced_are_eager() -> None:
    model, idx = nn.GPT(changed(dropout=0.5)).eval(), tt.tensor(IDX)
    near(tt.compile(model)(idx), model(idx))
    near(tt.trace(model, idx)(IDX), model(idx))


@pytest.mark.parametrize(("act", "error", "says"), [
    (lambda: nn.GPT(changed(n_head=3)), OpError, "16 features do not split into 3 heads"),
    (lambda: nn.GPT(CONFIG)(tt.zeros(1, 9, dtype="i64")), ShapeError, r"block_size=8 .* idx\[:, -8:\]"),
    (lambda: nn.GPT(CONFIG)(tt.zeros(5, dtype="i64")), ShapeError, "tokens"),
    (lambda: nn.GPT(CONFIG)(tt.tensor([[3, 11]])), IndexError, "index 11 "),
    (lambda: tt.compile(nn.GPT(CONFIG))(tt.tensor([[3, 11]])), IndexError, "out of range"),
    (lambda: nn.GPT(CONFIG).generate(tt.tensor([1, 2]), 3), ShapeError, "batch, time"),
    (lambda: nn.GPT(CONFIG).generate(tt.zeros(1, 0, dtype="i64"), 3), ShapeError, "at least one token"),
    (lambda: nn.GPT(CONFIG).generate(tt.tensor([[1]]), 3, temperature=-1.0), OpError, "temperature"),
    (lambda: nn.GPT(CONFIG).generate(tt.tensor([[1]]), 3, top_k=0), OpError, "top_k"),
])
def test_errors_say_what_fits(act: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        act()


# -- generating --------------------------------------------------------------------------------------------------------


def model_with_large_weights() -> nn.GPT:
    """A model that is sure of something, each time of something else."""
    model = nn.GPT(changed(dropout=0.3, tie_weights=False))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter)
    return model


def test_greedy_tokens_are_those_of_growing_contexts() -> None:
    model = model_with_large_weights()
    found = model.generate(tt.tensor(IDX), 7, temperature=0).numpy()
    assert model.training and model.transformer.h[1].training  # as before
    model.eval()
    expected = IDX
    for _ in range(7):  # the fourth and later ones crop
        logits = model(tt.tensor(expected[:, -8:])).numpy()[:, -1]
        expected = np.concatenate([expected, logits.argmax(-1)[:, None]], 1)
    assert (found == expected).all() and len(np.unique(found[:, 5:])) > 5


def test_a_compiled_forward_is_traced_once_and_draws_the_same() -> None:
    model = model_with_large_weights()
    fast = tt.compile(model)
    tt.manual_seed(4)
    expected = model.generate(tt.tensor(IDX), 12, temperature=1.5, top_k=5).numpy()
    tt.manual_seed(4)
    assert (model.generate(tt.tensor(IDX), 12, temperature=1.5, top_k=5, forward=fast).numpy() == expected).all()
    assert "1 programs" in repr(fast)
    assert (model.generate(tt.tensor(IDX), 12, temperature=1.5, top_k=5).numpy() != expected).any()
    assert (model.generate(tt.tensor(IDX), 0).numpy() == IDX).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 3, 10])
def test_draws_have_the_models_probabilities(temperature: float, top_k: int | None) -> None:
    logits = np.array([0.5, -1.0, 2.0, 0.0, 1.0], np.float32)
    found = np.bincount(draw(np.tile(logits, (20_000, 1)), temperature, top_k), minlength=5)
    p = np.exp(logits.astype(np.float64) / temperature)
    if top_k == 3:
        p[[1, 3]] = 0
    kept = p > 0
    assert not found[~kept].any()
    assert stats.chisquare(found[kept], 20_000 * p[kept] / p.sum()).pvalue > 1e-3
