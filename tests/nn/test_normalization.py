"""Normalisation beside PyTorch's: results, gradients and kept statistics; and a network that trains with it."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import check_module, near

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn import functional as F

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed, not around 0."""
    return (RNG.standard_normal(shape) * 2 + 1).astype(np.float32)


BATCH_NORMS: list[tuple[Callable[[Any], Any], tuple[int, ...], bool]] = [  # …, whether to compile it
    (lambda m: m.BatchNorm2d(3), (4, 3, 5, 6), True),
    (lambda m: m.BatchNorm2d(3), (1, 3, 5, 6), False),
    (lambda m: m.BatchNorm2d(3), (2, 3, 1, 1), False),
    (lambda m: m.BatchNorm2d(3), (0, 3, 5, 6), False),
    (lambda m: m.BatchNorm2d(1, eps=0.1, momentum=0.3), (2, 1, 3, 2), False),
    (lambda m: m.BatchNorm2d(3, momentum=None), (4, 3, 5, 6), True),
    (lambda m: m.BatchNorm2d(3, momentum=0.0), (4, 3, 2, 3), False),
    (lambda m: m.BatchNorm2d(3, affine=False), (4, 3, 2, 3), False),
    (lambda m: m.BatchNorm2d(3, track_running_stats=False), (4, 3, 2, 3), False),
    (lambda m: m.BatchNorm1d(4), (5, 4), True),
    (lambda m: m.BatchNorm1d(4, momentum=None, affine=False), (5, 4, 3), False),
    (lambda m: m.BatchNorm1d(4), (1, 4, 2), False),
]
OTHERS: list[tuple[Callable[[Any], Any], tuple[int, ...], bool]] = [
    (lambda m: m.LayerNorm(5), (3, 4, 5), True),
    (lambda m: m.LayerNorm((4, 5), eps=1e-3, bias=False), (3, 4, 5), False),
    (lambda m: m.RMSNorm(5), (3, 4, 5), True),
    (lambda m: m.RMSNorm((4, 5), eps=0.1), (3, 4, 5), False),
    (lambda m: m.RMSNorm(5, elementwise_affine=False), (0, 5), False),
    (lambda m: m.GroupNorm(2, 6), (3, 6, 4, 5), True),
    (lambda m: m.GroupNorm(1, 4, eps=0.1), (3, 4), False),
    (lambda m: m.GroupNorm(4, 4, affine=False), (1, 4, 3), False),
    (lambda m: m.GroupNorm(2, 4), (0, 4, 3), False),
]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("number", range(len(BATCH_NORMS)))
def test_batch_norms_are_pytorchs(number: int, train: bool, peer: Peer) -> None:
    make, shape, compiled = BATCH_NORMS[number]
    check_module(make, [floats(*shape)], peer("torch"), train=train, compiled=compiled)


@pytest.mark.parametrize("number", range(len(OTHERS)))
def test_others_are_pytorchs(number: int, peer: Peer) -> None:
    make, shape, compiled = OTHERS[number]
    check_module(make, [floats(*shape)], peer("torch"), compiled=compiled)


def test_bias_can_be_left_out() -> None:
    for layer in (nn.BatchNorm1d(3, bias=False), nn.GroupNorm(1, 3, bias=False)):
        assert list(dict(layer.named_parameters())) == ["weight"] and "bias=False" in repr(layer)
        near(layer(tt.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])).sum(), 0.0)


def test_functions_are_pytorchs(peer: Peer) -> None:
    torch = peer("torch")
    x, w, b = floats(3, 4, 5), floats(4), floats(4)
    cases: list[Callable[[Any, Any, Any, Any], Any]] = [
        lambda F, x, w, b: F.batch_norm(x, b, w * w, w, b, False, 0.1, 0.1),
        lambda F, x, w, b: F.batch_norm(x, b, w * w, None, b),
        lambda F, x, w, b: F.batch_norm(x, b, w * w, w),
        lambda F, x, w, b: F.batch_norm(x, None, None, None, b, True),
        lambda F, x, w, b: F.group_norm(x, 2, None, b),
        lambda F, x, w, b: F.group_norm(x, 4, w, None, 0.1),
        lambda F, x, w, b: F.rms_norm(x, (4, 5)),
    ]
    for f in cases:
        near(f(F, *map(tt.tensor, (x, w, b))), f(torch.nn.functional, *map(torch.tensor, (x, w, b))))


def test_statistics_of_many_batches(peer: Peer) -> None:
    torch = peer("torch")
    for momentum in (0.2, None):
        ours, theirs = (m.BatchNorm1d(3, momentum=momentum) for m in (nn, torch.nn))
        fast = tt.compile(ours)
        for step, n in enumerate((4, 2, 4, 6)):
            x = floats(n, 3)
            (fast if step % 2 else ours)(tt.tensor(x))
            theirs(torch.tensor(x))
        for b, q in zip(ours.buffers(), theirs.buffers(), strict=True):
            near(b, q)
        x = floats(1, 3)
        near(ours.eval()(tt.tensor(x)), theirs.eval()(torch.tensor(x)))
        near(fast(tt.tensor(x)), theirs(torch.tensor(x)))
        near(ours.num_batches_tracked, 4)  # use changes nothing


def test_large_means_do_not_cost_precision() -> None:
    x = (np.arange(12).reshape(12, 1) + 1e4).astype(np.float32)
    layer = nn.BatchNorm1d(1, eps=0.0)
    near(layer(tt.tensor(x)), (np.arange(12) - 5.5)[:, None] / np.arange(12).std(), 1e-5)


def test_element_types_are_kept() -> None:
    for dtype in (tt.f64, tt.f16, tt.bf16):
        x = tt.tensor(floats(3, 4, 2), dtype)
        layers = [nn.BatchNorm1d(4, dtype=dtype), nn.BatchNorm1d(4, affine=False).to(dtype), nn.RMSNorm(2).to(dtype),
                  nn.GroupNorm(2, 4, dtype=dtype), nn.BatchNorm1d(4).to(dtype).eval()]  # fmt: skip
        assert all(layer(x).dtype is dtype for layer in layers)


def test_wrong_calls_say_what_is_wrong() -> None:
    x = tt.zeros(2, 3, 4, 4)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: nn.BatchNorm2d(4)(x), ShapeError, r"BatchNorm2d of f32\[2, 3, 4, 4\]: expected 4 channels"),
        (lambda: nn.BatchNorm2d(3)(tt.zeros(2, 3)), ShapeError, r"expected \(batch, features, height, width\)"),
        (lambda: nn.BatchNorm1d(3)(x), ShapeError, r"\(batch, features\) or \(batch, features, length\)"),
        (lambda: nn.BatchNorm1d(3)(tt.zeros(1, 3)), ShapeError, "one value only.*larger batches"),
        (lambda: nn.BatchNorm2d(3)(tt.zeros(1, 3, 1, 1)), ShapeError, "one value only"),
        (lambda: F.batch_norm(x, None, None), OpError, "needs running_mean"),
        (lambda: F.batch_norm(x, tt.zeros(2), tt.zeros(2)), ShapeError, "running_mean is f32.*each of the 3 channels"),
        (lambda: F.batch_norm(tt.zeros(3), None, None, training=True), ShapeError, r"expected \(batch, channels"),
        (lambda: nn.GroupNorm(2, 3), ShapeError, "must divide"),
        (lambda: nn.GroupNorm(2, 4)(x), ShapeError, r"GroupNorm of f32\[2, 3, 4, 4\]: expected 4 channels"),
        (lambda: F.group_norm(x, 2), ShapeError, "do not divide by num_groups=2"),
        (lambda: F.group_norm(x, 3, tt.zeros(4)), ShapeError, "weight is"),
        (lambda: nn.RMSNorm(3)(x), ShapeError, r"rms_norm.*ends in \(3,\)"),
        (lambda: nn.LayerNorm(3)(x), ShapeError, r"layer_norm.*ends in \(3,\)"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()
    failing = nn.BatchNorm1d(3)
    with pytest.raises(ShapeError):
        failing(tt.zeros(1, 3))
    near(failing.num_batches_tracked, 0)  # what failed does not count


# -- a network ---------------------------------------------------------------------------------------------------------


def block(m: Any) -> Any:
    """A residual block (He et al., 2016), of either library."""

    class Block(m.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = m.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
            self.bn1 = m.BatchNorm2d(4)
            self.relu = m.ReLU()
            self.conv2 = m.Conv2d(4, 4, 3, padding=1, bias=False)
            self.bn2 = m.BatchNorm2d(4)
            self.downsample = m.Sequential(m.Conv2d(3, 4, 1, stride=2, bias=False), m.BatchNorm2d(4))

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))

    return Block()


def test_state_of_a_residual_block_moves_both_ways(peer: Peer) -> None:
    torch = peer("torch")
    x = floats(2, 3, 6, 6)
    ours, theirs = block(nn), block(torch.nn)
    theirs(torch.tensor(x))  # so that statistics are no longer the first ones
    assert [(key, tuple(t.shape)) for key, t in theirs.state_dict().items()] == [
        (key, t.shape) for key, t in ours.state_dict().items()]  # fmt: skip
    ours.load_state_dict(theirs.state_dict())
    near(ours.eval()(tt.tensor(x)), theirs.eval()(torch.tensor(x)))
    back = block(torch.nn)
    ours.train()(tt.tensor(x))
    back.load_state_dict({key: torch.tensor(t.numpy()) for key, t in ours.state_dict().items()})
    near(ours.eval()(tt.tensor(x)), back.eval()(torch.tensor(x)))


def network(m: Any) -> Any:
    """Convolutions, batch norm and pooling of each kind, of either library."""
    return m.Sequential(m.Conv2d(3, 3, 3, padding=1), m.BatchNorm2d(3), m.ReLU(), m.MaxPool2d(2), block(m),
                        m.AdaptiveAvgPool2d(1), m.Flatten(), m.BatchNorm1d(4, momentum=None), m.Linear(4, 3))


def advance(model: Any, opt: Any, x: Any, y: Any, loss: Any) -> Any:
    """One step of training, of either library."""
    opt.zero_grad()
    value = loss(model(x), y)
    value.backward()
    opt.step()
    return value


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ten_steps_of_training_are_pytorchs(compiled: bool, peer: Peer) -> None:
    torch = peer("torch")
    theirs, ours = network(torch.nn), network(nn)
    ours.load_state_dict(theirs.state_dict())
    theirs_opt = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    opt = optim.SGD(ours.parameters(), lr=0.05, momentum=0.9)
    step = tt.compile(advance) if compiled else advance
    x, y = floats(8, 3, 8, 8), RNG.integers(0, 3, 8)
    expected, found = [], []
    for _ in range(10):
        expected.append(advance(theirs, theirs_opt, torch.tensor(x), torch.tensor(y),
                                torch.nn.functional.cross_entropy).item())
        found.append(step(ours, opt, tt.tensor(x), tt.tensor(y), F.cross_entropy).item())
    assert expected[-1] < expected[0] / 2
    near(np.array(found), np.array(expected), 1e-3)
    for key, value in theirs.state_dict().items():
        near(ours.state_dict()[key], value, 2e-3)
