"""`tt.prune` for channels, heads and neurons: what goes, what is left, what is refused, and that it checks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import GradientError, OpError, PassError, ShapeError
from tinytorch.nn import functional as F
from tinytorch.prune import prune, structured

IMAGES = tt.Tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype("f4"))
TOKENS = tt.tensor([[1, 2, 3]])


def network() -> nn.Sequential:
    tt.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 8, 3, groups=4),
                         nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 6, 2), nn.Flatten(), nn.Linear(6 * 25, 16),
                         nn.ReLU(), nn.Linear(16, 4))


def sizes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {path: tensor.shape for path, tensor in model.state_dict().items() if tensor.ndim}


def test_modules_become_smaller_with_all_that_they_know_of_themselves() -> None:
    model = network()
    before = sizes(model)
    small = prune(model, 0.5, "channels", examples=IMAGES)
    assert sizes(model) == before and model.training and small.training
    assert [repr(layer) for layer in list(small)[:8]] == [
        "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))",
        "BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        "PReLU(num_parameters=4)",
        "Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), groups=2)",
        "GroupNorm(1, 4, eps=1e-05, affine=True, bias=True)",
        "ConvTranspose2d(4, 3, kernel_size=(2, 2), stride=(1, 1))",
        "Flatten(start_dim=1, end_dim=-1)",
        "Linear(in_features=75, out_features=16, bias=True)"]
    again = network()
    with pytest.raises(Exception, match="expected"):
        again.load_state_dict(small.state_dict())
    opt = tt.optim.SGD(small.parameters(), lr=0.1)
    F.cross_entropy(small(IMAGES), tt.tensor([0, 1])).backward()
    opt.step()  # it trains


class Mixing(nn.Module):
    """Attention without its weights, of which each head has a part."""

    def __init__(self, inner: nn.Module) -> None:
        self.inner = inner

    def forward(self, *given: Any) -> Any:
        return self.inner(*given, need_weights=False)[0]


@pytest.mark.parametrize(("model", "structure", "x", "changed"), [
    (lambda: Mixing(nn.MultiheadAttention(16, 4, num_kv_heads=2, kdim=5, vdim=6)), "heads",
     (tt.zeros(3, 2, 16), tt.zeros(4, 2, 5), tt.zeros(4, 2, 6)),
     {"inner.num_heads": 2, "inner.num_kv_heads": 1, "inner.sizes": (8, 4, 4), "inner.head_dim": 4}),
    (lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), "heads", tt.zeros(2, 3, 16),
     {"self_attn.num_heads": 2, "self_attn.out_proj.in_features": 8}),
    (lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), "neurons", tt.zeros(2, 3, 16),
     {"linear1.out_features": 16, "linear2.in_features": 16}),
    (lambda: nn.GPT(nn.GPTConfig(17, 8, 1, 4, 16)), "heads", TOKENS,
     {"transformer.h.0.attn.num_heads": 2, "transformer.h.0.attn.c_attn.out_features": 24}),
    (lambda: nn.Llama(nn.LlamaConfig(17, 16, 24, 1, 4, 2, 8)), "heads", TOKENS,
     {"model.layers.0.self_attn.q_proj.out_features": 8, "model.layers.0.self_attn.v_proj.out_features": 4}),
])
def test_attention_and_what_stands_around_it(model: Callable[[], nn.Module], structure: str, x: Any,
                                             changed: dict[str, Any]) -> None:
    tt.manual_seed(0)
    small = prune(model(), 0.5, structure, examples=x)
    for path, expected in changed.items():
        owner, _, name = path.rpartition(".")
        assert getattr(small.get_submodule(owner), name) == expected, path


def test_what_is_pruned_compiles_saves_and_can_be_pruned_again(tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    small = prune(prune(model, 0.5, "neurons", examples=tt.ones(2, 6)), 0.5, "neurons", examples=tt.ones(2, 6))
    assert [p.shape for p in small.parameters() if p.ndim == 2] == [(4, 6), (2, 4)]
    tt.save(small.state_dict(), tmp_path / "small.safetensors")
    other = prune(model, 0.75, "neurons", examples=tt.ones(2, 6))
    other.load_state_dict(tt.load(tmp_path / "small.safetensors"))
    np.testing.assert_allclose(tt.compile(other)(tt.ones(2, 6)).numpy(), small(tt.ones(2, 6)).numpy(), rtol=1e-5)


def two_layers() -> nn.Sequential:
    """Neuron i of the first layer has weights of size i + 1, that of the second of size 100 (i + 1)."""
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.ReLU(),
                          nn.Linear(4, 2, bias=False))
    rows = np.arange(1.0, 5.0, dtype="f4")[:, None]
    for layer, numbers in (("0", rows * np.ones((4, 2), "f4")), ("2", 100 * rows * np.ones((4, 4), "f4")),
                           ("4", np.ones((2, 4), "f4"))):
        model.get_submodule(layer).load_state_dict({"weight": numbers})
    return model


def kept(model: nn.Module) -> tuple[list[float], list[float]]:
    return tuple(model.get_submodule(layer).weight.numpy()[:, 0].tolist() for layer in ("0", "2"))


def opposite(path: str, weight: np.ndarray) -> np.ndarray:
    return -np.abs(weight)


@pytest.mark.parametrize(("options", "expected"), [
    ({"amount": 0.5}, ([3, 4], [300, 400])),
    ({"amount": 0.3}, ([2, 3, 4], [200, 300, 400])),
    ({"amount": 0.5, "criterion": "l2"}, ([3, 4], [300, 400])),
    ({"amount": 0.5, "criterion": opposite}, ([1, 2], [100, 200])),
    ({"amount": 0.6, "multiple": 2}, ([3, 4], [300, 400])),
    ({"amount": 0.5, "layers": ["2"]}, ([1, 2, 3, 4], [300, 400])),
    ({"layers": {"0": 0.75, "2": 0.25}}, ([4], [200, 300, 400])),
    ({"amount": 0.5, "scope": "global"}, ([3, 4], [300, 400])),
    ({"amount": 0.25, "scope": "global", "criterion": "l2"}, ([1, 2, 3, 4], [300, 400])),
])
def test_the_least_important_go(options: dict[str, Any], expected: Any) -> None:
    assert kept(prune(two_layers(), structure="neurons", examples=tt.ones(1, 2), **options)) == expected


def test_taylor_asks_the_gradients() -> None:
    model = two_layers()
    with pytest.raises(GradientError, match="0.weight has no gradient; call loss.backward"):
        prune(model, 0.5, "neurons", "taylor", examples=tt.ones(1, 2))
    for p in model.parameters():
        p.grad = p.zeros_like()
    model[0].weight.grad.payload[:2] = 9.0
    assert kept(prune(model, 0.5, "neurons", "taylor", examples=tt.ones(1, 2)))[0] == [1, 2]


def test_graphs_too() -> None:
    graph = tt.trace(network().eval(), IMAGES)
    small = prune(graph, 0.5, "channels")
    model = prune(network().eval(), 0.5, "channels", examples=IMAGES)
    np.testing.assert_allclose(small(IMAGES.numpy()), model(IMAGES).numpy(), rtol=1e-4, atol=1e-5)


class Fixed(nn.Module):
    """Says in its code how many features there are."""

    def __init__(self) -> None:
        self.a, self.b = nn.Linear(3, 8), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.b(self.a(x).reshape(2, 4, 2).sum(-1))


class Running(nn.Module):
    def __init__(self) -> None:
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        return self.c(self.b(self.a(x).cumsum(1)))


X = tt.ones(2, 3)


@pytest.mark.parametrize(("model", "options", "error", "match"), [
    (Running, {"layers": ["a"]}, PassError, r"nothing that a gives can be removed: there is no rule for cumsum in "
     r"`return self.c\(self.b\(self.a\(x\).cumsum\(1\)\)\)` \(test_structured.py"),
    (Running, {"layers": ["c"]}, PassError, "it is output 0 of running"),
    (Running, {"layers": ["d"]}, OpError, r"layers=\['d'\]\): expected layers that have outputs to remove: a, b, c"),
    (Running, {"layers": "b"}, OpError, r"expected a list of names, \['b'\]"),
    (Running, {"structure": "heads"}, PassError, "there are no heads of running"),
    (Running, {"structure": "heads", "layers": ["b"]}, OpError, "what b gives are neurons"),
    (Running, {"amount": 1.0}, PassError, "b has 8 neurons; 8 cannot be removed; remove less"),
    (Running, {"amount": 1.0, "scope": "global"}, PassError, "nothing would be left"),
    (Running, {"amount": 1.5}, OpError, "expected 0 < amount < 1"),
    (Running, {"structure": "rows"}, OpError, "expected one of channels, heads, neurons"),
    (Running, {"scope": "all"}, OpError, "expected 'layer' or 'global'"),
    (Running, {"examples": None}, OpError, "pass examples=x"),
    (Running, {"criterion": "l3"}, OpError, "expected 'l1', 'l2', 'taylor'"),
    (Running, {"criterion": lambda path, w: 1.0}, ShapeError, r"gives \(\) for b.weight"),
    (Fixed, {}, PassError, r"sizes in its code that ought to come from shapes\?\n.*reshape"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1)), {}, PassError, "no neurons .*\n  0: max in"),
])
def test_refusals(model: Callable[[], nn.Module], options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        prune(model(), **({"amount": 0.5, "structure": "neurons", "examples": X} | options))


def test_channels_that_are_not_the_ones_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knock-out: of every second tensor, other elements are removed than were chosen."""
    real = structured._smaller_model

    def wrong(model: nn.Module, analysis: Any, removed: Any) -> nn.Module:
        mixed = [type(unit)(((*unit.parts[0][:2], tuple((place + 1) % 8 for place in unit.parts[0][2])),
                             *unit.parts[1:]), unit.kind, unit.reason) for unit in removed]
        return real(model, analysis, mixed)

    monkeypatch.setattr(structured, "_smaller_model", wrong)
    with pytest.raises(PassError, match="computes something else"):
        prune(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), 0.5, "neurons", examples=X)
