"""Layers and losses: PyTorch's results and gradients with the same weights, eager and traced; what a Module keeps."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import DTypeError, FormatError, OpError, ShapeError, TinyTorchError
from tinytorch.nn import functional as F

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


def near(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Equal in shape and, within rounding, numbers."""
    actual, expected = (np.asarray(t.detach().numpy() if hasattr(t, "detach") else t) for t in (actual, expected))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# -- against PyTorch ---------------------------------------------------------------------------------------------------

LAYERS: list[tuple[Callable[[Any], Any], np.ndarray]] = [
    (lambda m: m.Linear(5, 3), floats(4, 5)),
    (lambda m: m.Linear(5, 3, bias=False), floats(2, 4, 5)),
    (lambda m: m.Linear(5, 3), floats(5)),
    (lambda m: m.ReLU(), floats(3, 4)),
    (lambda m: m.LeakyReLU(0.2), floats(3, 4)),
    (lambda m: m.GELU(), floats(3, 4)),
    (lambda m: m.GELU("tanh"), floats(3, 4)),
    (lambda m: m.SiLU(), floats(3, 4)),
    (lambda m: m.Sigmoid(), 5 * floats(3, 4)),
    (lambda m: m.Tanh(), floats(3, 4)),
    (lambda m: m.Softplus(), 5 * floats(3, 4)),
    (lambda m: m.Softplus(2.0), floats(3, 4)),
    (lambda m: m.Softmax(dim=1), floats(3, 4, 2)),
    (lambda m: m.LogSoftmax(dim=-1), floats(3, 4)),
    (lambda m: m.Identity(), floats(3)),
    (lambda m: m.Flatten(), floats(3, 4, 5)),
    (lambda m: m.Flatten(0, 1), floats(3, 4, 5)),
    (lambda m: m.LayerNorm(5), floats(3, 4, 5)),
    (lambda m: m.LayerNorm((4, 5), eps=1e-3), floats(3, 4, 5)),
    (lambda m: m.LayerNorm(5, elementwise_affine=False), floats(3, 5)),
    (lambda m: m.LayerNorm(5, bias=False), floats(3, 5)),
    (lambda m: m.Embedding(6, 3), np.array([[0, 5, 5], [1, 2, 0]])),
    (lambda m: m.Dropout(0.5).eval(), floats(3, 4)),
    (lambda m: m.Dropout(0.0), floats(3, 4)),
    (lambda m: m.Sequential(m.Linear(5, 8), m.GELU(), m.LayerNorm(8), m.Linear(8, 2), m.LogSoftmax(-1)), floats(4, 5)),
]


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_layers_are_pytorchs(number: int, peer: Peer) -> None:
    torch = peer("torch")
    make, x = LAYERS[number]
    ours, theirs = make(nn), make(torch.nn)
    assert repr(ours) == repr(theirs).replace(", threshold=20.0", "").replace(", inplace=False", "")
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    given, theirs_given = tt.tensor(x), torch.tensor(x)
    if x.dtype == np.float32:
        given.requires_grad_()
        theirs_given.requires_grad_()
    y, expected = ours(given), theirs(theirs_given)
    near(y, expected)
    near(tt.trace(ours, tt.tensor(x))(x), expected)
    if not y.requires_grad:
        return
    weights = floats(*y.shape)
    (y * tt.tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    for p, q in zip([given, *ours.parameters()], [theirs_given, *theirs.parameters()], strict=True):
        assert (p.grad is None) == (q.grad is None)
        if q.grad is not None:
            near(p.grad, q.grad, 1e-4)


LOSSES: list[tuple[str, tuple[np.ndarray, ...]]] = [
    ("CrossEntropyLoss", (floats(4, 3), np.array([0, 2, 1, 1]))),
    ("CrossEntropyLoss", (50 * floats(3), np.array(1))),
    ("CrossEntropyLoss", (floats(2, 3, 4, 5), RNG.integers(0, 3, (2, 4, 5)))),
    ("MSELoss", (floats(4, 3), floats(4, 3))),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("number", range(len(LOSSES)))
def test_losses_are_pytorchs(number: int, reduction: str, peer: Peer) -> None:
    torch = peer("torch")
    name, (x, target) = LOSSES[number]
    given, theirs_given = tt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    loss = getattr(nn, name)(reduction)(given, tt.tensor(target))
    expected = getattr(torch.nn, name)(reduction=reduction)(theirs_given, torch.tensor(target))
    near(loss, expected)
    near(tt.trace(getattr(nn, name)(reduction), tt.tensor(x), tt.tensor(target))(x, target), expected)
    loss.sum().backward()
    expected.sum().backward()
    near(given.grad, theirs_given.grad)


IMAGE, KERNEL = floats(2, 4, 9, 8), floats(6, 2, 3, 2)
Q, K, V = floats(2, 3, 5, 4), floats(2, 3, 7, 4), floats(2, 3, 7, 4)
FUNCTIONS: list[tuple[Callable[[Any, Any], Any], tuple[np.ndarray, ...]]] = [
    (lambda F, t: F.conv2d(t[0], t[1], t[2], stride=2, padding=1, groups=2), (IMAGE, KERNEL, floats(6))),
    (lambda F, t: F.conv2d(t[0], t[1], dilation=(2, 1), groups=2), (IMAGE, KERNEL)),
    (lambda F, t: F.max_pool2d(t[0], 2), (IMAGE,)),
    (lambda F, t: F.max_pool2d(t[0], 3, 2, 1), (IMAGE,)),
    (lambda F, t: F.avg_pool2d(t[0], (3, 2), padding=1), (IMAGE,)),
    (lambda F, t: F.layer_norm(t[0], (8,), None, t[1]), (IMAGE, floats(8))),
    (lambda F, t: F.leaky_relu(t[0]), (IMAGE,)),
    (lambda F, t: F.scaled_dot_product_attention(*t), (Q, K, V)),
    (lambda F, t: F.scaled_dot_product_attention(*t, is_causal=True), (Q, K, V)),
    (lambda F, t: F.scaled_dot_product_attention(t[0], t[0], t[0], is_causal=True, scale=0.3), (Q,)),
    (lambda F, t: F.scaled_dot_product_attention(*t[:3], attn_mask=t[3]), (Q, K, V, floats(5, 7))),
    (lambda F, t: F.scaled_dot_product_attention(*t[:3], attn_mask=t[3] > 0), (Q, K, V, np.abs(floats(5, 7)))),
]


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_functions_are_pytorchs(number: int, peer: Peer) -> None:
    torch = peer("torch")
    function, arrays = FUNCTIONS[number]
    ours = [tt.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = function(F, ours), function(torch.nn.functional, theirs)
    near(y, expected)
    near(tt.trace(lambda *t: function(F, t), *map(tt.tensor, arrays))(*arrays), expected)
    y.sum().backward()
    expected.sum().backward()
    for p, q in zip(ours, theirs, strict=True):
        near(p.grad if p.grad is not None else p.zeros_like(), q.grad if q.grad is not None else q.detach() * 0, 1e-4)


def test_one_hot() -> None:
    near(F.one_hot(tt.tensor([[1], [0]]), 3), np.eye(3, dtype=np.int64)[[[1], [0]]])


# -- wrong calls -------------------------------------------------------------------------------------------------------


def test_wrong_calls_say_what_is_wrong() -> None:
    logits = tt.zeros(2, 3)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: F.cross_entropy(logits, tt.tensor([0, 3])), IndexError, "label 3 is not one of the 3 classes"),
        (lambda: F.cross_entropy(logits, tt.tensor([-100, 1])), IndexError, "label -100"),
        (lambda: F.cross_entropy(logits, tt.tensor([0, 1, 2])), ShapeError, "labels|label"),
        (lambda: F.cross_entropy(logits, tt.tensor([0.0, 1.0])), ShapeError, "integer label"),
        (lambda: F.cross_entropy(tt.tensor(1.0), tt.tensor(0)), ShapeError, "classes"),
        (lambda: F.cross_entropy(logits, tt.tensor([0, 1]), "avg"), OpError, "'mean', 'sum' or 'none'"),
        (lambda: F.mse_loss(tt.zeros(3, 1), tt.zeros(3)), ShapeError, "must be the same"),
        (lambda: F.embedding(tt.tensor([10]), tt.zeros(10, 2)), IndexError, "index 10 .*10 rows"),
        (lambda: F.embedding(tt.tensor([-1]), tt.zeros(10, 2)), IndexError, "index -1"),
        (lambda: F.one_hot(tt.tensor([3]), 3), IndexError, "label 3"),
        (lambda: F.layer_norm(tt.zeros(2, 3), 4), ShapeError, r"ends in \(4,\)"),
        (lambda: nn.Linear(3, 2)(tt.zeros(2, 4)), ShapeError, "last extent"),
        (lambda: F.gelu(logits, "fast"), OpError, "'none' or 'tanh'"),
        (lambda: nn.Dropout(1.5), OpError, "probability"),
        (lambda: nn.Sequential(nn.ReLU(), 3), TypeError, "expected modules, got int"),  # type: ignore[arg-type]
        (lambda: nn.Module()(1), NotImplementedError, "forward"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()


# -- Dropout -----------------------------------------------------------------------------------------------------------


def test_dropout_thins_out_and_keeps_the_mean() -> None:
    layer, x = nn.Dropout(0.25), tt.ones(100, 100, requires_grad=True)
    y = layer(x)
    assert set(np.unique(y.numpy())) == {0.0, np.float32(1 / 0.75)}
    assert abs((y.numpy() == 0).mean() - 0.25) < 0.02 and abs(y.numpy().mean() - 1) < 0.02
    y.sum().backward()
    near(x.grad, y)  # the same elements
    assert (layer(x).numpy() != y.numpy()).any()
    assert layer.eval()(x) is x
    near(F.dropout(x, 1.0), np.zeros((100, 100)))


def test_compiled_dropout_draws_what_eager_would() -> None:
    x, layer = tt.ones(50), nn.Dropout(0.5)
    tt.manual_seed(5)
    eager = [layer(x).tolist() for _ in range(3)]
    tt.manual_seed(5)
    fast = tt.compile(layer)
    assert [fast(x).tolist() for _ in range(3)] == eager and eager[0] != eager[1]


# -- Module ------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Parameters, a buffer, a list, and weights that are shared."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(tt.ones(1))
        self.none = None
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3, bias=False))
        self.head[1].weight = self.blocks[0].weight
        self.register_buffer("seen", tt.zeros((), dtype="i64"))
        self.register_buffer("scratch", tt.zeros(2), persistent=False)

    def forward(self, x: Any) -> Any:
        """All of it."""
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x) * self.scale


def test_names_are_those_of_pytorch() -> None:
    net = Net()
    weights = ["scale", "blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]
    assert [name for name, _ in net.named_parameters()] == weights
    assert list(net.state_dict()) == ["scale", "seen", *weights[1:], "head.1.weight"]
    assert [name for name, _ in net.named_buffers()] == ["seen", "scratch"]
    assert [name for name, _ in net.named_modules()] == [
        "", "blocks", "blocks.0", "blocks.1", "head", "head.0", "head.1"]  # fmt: skip
    assert [name for name, _ in net.named_children()] == ["blocks", "head"]
    assert len(list(net.parameters())) == 5 and len(list(net.modules())) == 7 and len(list(net.children())) == 2
    assert len(list(net.buffers())) == 2


def test_training_flag_and_freezing_reach_all() -> None:
    net = Net()
    assert net.training and not net.eval().training and not net.head[0].training and net.train().head[0].training
    net.requires_grad_(False)
    assert not net(tt.zeros(1, 3)).requires_grad
    net.requires_grad_()
    net(tt.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_apply_and_init_reach_all() -> None:
    order: list[str] = []
    net = Net().apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear", "Linear", "ModuleList", "Dropout", "Linear", "Sequential", "Net"]
    net.apply(lambda m: nn.init.ones_(m.weight) if isinstance(m, nn.Linear) else None)
    assert (net.blocks[1].weight == 1).all()


def test_state_moves_both_ways(tmp_path: Path) -> None:
    one, two = Net(), Net()
    x = tt.tensor(floats(2, 3))
    one.eval(), two.eval()
    tt.save(one.state_dict(), tmp_path / "net.safetensors")
    memory = two.scale.numpy()
    assert two.load_state_dict(tt.load(tmp_path / "net.safetensors")) == ([], [])
    near(two(x), one(x))
    assert two.scale.numpy() is memory, "in place: optimisers and compiled code keep what they hold"
    state = one.state_dict()
    state["scale"].fill_(3)
    assert one.scale.item() == 3, "a state shares the memory of its module, as PyTorch's does"


def test_state_goes_to_pytorch(peer: Peer) -> None:
    torch = peer("torch")
    ours, theirs = (m.Sequential(m.Linear(3, 4), m.ReLU(), m.Linear(4, 2)) for m in (nn, torch.nn))
    theirs.load_state_dict({key: torch.tensor(value.numpy()) for key, value in ours.state_dict().items()})
    x = floats(5, 3)
    near(ours(tt.tensor(x)), theirs(torch.tensor(x)))


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    net, state = nn.Linear(3, 2), {"weight": tt.zeros(2, 3), "bias": tt.zeros(3), "gain": tt.zeros(1)}
    before = net.weight.tolist()
    with pytest.raises(FormatError, match=r"(?s)Linear.*bias: expected \(2,\), got \(3,\).*unexpected keys: gain"):
        net.load_state_dict(state)
    with pytest.raises(FormatError, match="missing keys: bias"):
        net.load_state_dict({"weight": tt.zeros(2, 3)})
    assert net.weight.tolist() == before
    assert net.load_state_dict({"weight": tt.zeros(2, 3), "more": tt.zeros(1)}, strict=False) == (["bias"], ["more"])
    assert net.weight.tolist() == [[0, 0, 0], [0, 0, 0]]
    with pytest.raises(FormatError, match="got"):
        net.load_state_dict({"weight": tt.zeros(3, 2)}, strict=False)


def test_conversion_keeps_identity_and_leaves_integers() -> None:
    net = Net().eval()
    parameters = list(net.parameters())
    net.to("f64")
    assert all(p is q and p.dtype is tt.f64 for p, q in zip(net.parameters(), parameters, strict=True))
    assert net.seen.dtype is tt.i64 and net(tt.zeros(1, 3, dtype="f64")).dtype is tt.f64
    with pytest.raises(DTypeError, match="floating"):
        net.to("i8")


def test_a_plain_tensor_does_not_replace_a_parameter() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"Linear\.weight is a parameter"):
        layer.weight = tt.zeros(2, 2)
    layer.weight = nn.Parameter(tt.zeros(2, 2))
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]


def test_containers() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(model) == 3 and model[-1] is list(model)[2] and isinstance(model[:2], nn.Sequential)
    model[1] = nn.Tanh()
    model.append(nn.Sigmoid())
    assert [type(m).__name__ for m in model] == ["Linear", "Tanh", "Linear", "Sigmoid"]
    with pytest.raises(IndexError):
        model[9] = nn.ReLU()
    assert repr(nn.Sequential(nn.ReLU())) == "Sequential(\n  (0): ReLU()\n)"


def test_repr_nests() -> None:
    assert repr(Net()) == """Net(
  (blocks): ModuleList(
    (0): Linear(in_features=3, out_features=3, bias=True)
    (1): Linear(in_features=3, out_features=3, bias=True)
  )
  (head): Sequential(
    (0): Dropout(p=0.5)
    (1): Linear(in_features=3, out_features=3, bias=False)
  )
)"""


def test_layers_of_other_dtypes() -> None:
    for dtype in (tt.f64, tt.f16, tt.bf16):
        layer = nn.Linear(3, 2, dtype=dtype)
        y = nn.ReLU()(layer(tt.ones(4, 3, dtype=dtype)))
        y.sum().backward()
        assert y.dtype is dtype and layer.weight.grad.dtype is dtype


def test_empty_batches() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2))
    y = model(tt.zeros(0, 3))
    y.sum().backward()
    assert y.shape == (0, 2) and all((p.grad == 0).all() for p in model[0].parameters())


# -- first numbers -----------------------------------------------------------------------------------------------------


def test_first_numbers_are_distributed_as_pytorchs() -> None:
    weight = nn.Linear(400, 50).weight.numpy()
    assert stats.kstest(weight.ravel(), stats.uniform(-0.05, 0.1).cdf).pvalue > 1e-3
    assert stats.kstest(nn.Linear(400, 500).bias.numpy(), stats.uniform(-0.05, 0.1).cdf).pvalue > 1e-3
    assert stats.kstest(nn.Embedding(100, 50).weight.numpy().ravel(), "norm").pvalue > 1e-3
    tt.manual_seed(1)
    first = nn.Linear(3, 3).weight.tolist()
    assert nn.Linear(3, 3).weight.tolist() != first
    tt.manual_seed(1)
    assert nn.Linear(3, 3).weight.tolist() == first


def test_init_functions() -> None:
    def std(fill: Callable[[Any], Any], *shape: int) -> float:
        p = nn.Parameter(tt.zeros(shape))
        assert fill(p) is p and p.requires_grad and p.creator is None
        return float(p.numpy().std())

    init = nn.init
    for fill, expected in [
        (init.xavier_uniform_, math.sqrt(2 / 500)),
        (lambda p: init.xavier_normal_(p, gain=3), 3 * math.sqrt(2 / 500)),
        (lambda p: init.kaiming_uniform_(p, nonlinearity="relu"), math.sqrt(2 / 200)),
        (lambda p: init.kaiming_normal_(p, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 300)),
        (lambda p: init.kaiming_uniform_(p, a=math.sqrt(5)), math.sqrt(1 / 3 / 200)),
        (lambda p: init.uniform_(p, -3, 3), math.sqrt(3)),
        (lambda p: init.normal_(p, 5, 2), 2),
        (lambda p: init.constant_(p, 4), 0),
    ]:
        assert std(fill, 300, 200) == pytest.approx(expected, rel=0.02)
    assert init.fans(tt.zeros(8, 4, 3, 3)) == (36, 72)
    for wrong in (lambda: init.xavier_uniform_(tt.zeros(3)), lambda: init.kaiming_uniform_(tt.zeros(3, 3), mode="in"),
                  lambda: init.calculate_gain("sine")):  # fmt: skip
        with pytest.raises(TinyTorchError):
            wrong()


def test_modules_can_be_pickled_by_multiprocessing() -> None:
    net = nn.Linear(2, 2)
    near(pickle.loads(pickle.dumps(net)).weight, net.weight)
