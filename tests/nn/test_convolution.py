"""Convolutions beside PyTorch's: results and gradients with odd arguments; eager, traced and compiled."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import check_module, near
from scipy import stats

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn import functional as F

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


LAYERS: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda m: m.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    (lambda m: m.Conv2d(3, 4, 3), (3, 7, 6)),  # no batch
    (lambda m: m.Conv2d(3, 4, 3), (0, 3, 7, 6)),  # an empty one
    (lambda m: m.Conv2d(3, 4, (7, 6)), (1, 3, 7, 6)),  # one position
    (lambda m: m.Conv2d(1, 1, 1), (1, 1, 1, 1)),
    (lambda m: m.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(0, 2), dilation=(1, 3), groups=2), (2, 4, 8, 5)),
    (lambda m: m.Conv2d(4, 8, 3, padding=1, groups=4, bias=False), (2, 4, 5, 5)),  # depthwise
    (lambda m: m.Conv2d(2, 3, 2, stride=3, padding=4), (2, 2, 4, 5)),  # windows of nothing but padding
    (lambda m: m.Conv2d(2, 3, (4, 3), padding="same", dilation=(1, 2)), (2, 2, 6, 7)),
    (lambda m: m.Conv2d(2, 3, 3, padding="valid", dilation=2), (2, 2, 6, 7)),
    (lambda m: m.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"), (2, 2, 4, 5)),
    (lambda m: m.Conv2d(2, 3, 4, padding="same", padding_mode="replicate"), (2, 2, 4, 5)),
    (lambda m: m.Conv2d(2, 3, 3, stride=2, padding=(4, 0), padding_mode="circular"), (2, 2, 4, 5)),
    (lambda m: m.Conv1d(3, 4, 3), (2, 3, 7)),
    (lambda m: m.Conv1d(4, 6, 3, stride=2, padding=2, dilation=3, groups=2, bias=False), (2, 4, 9)),
    (lambda m: m.Conv1d(3, 4, 4, padding="same"), (3, 7)),
    (lambda m: m.Conv1d(2, 4, 3, padding=1, padding_mode="circular"), (1, 2, 1)),
    (lambda m: m.ConvTranspose2d(3, 4, 3), (2, 3, 4, 5)),
    (lambda m: m.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (3, 4, 5)),
    (lambda m: m.ConvTranspose2d(4, 6, (2, 3), (3, 2), (1, 4), (2, 0), 2, False, (2, 3)), (2, 4, 3, 4)),
    (lambda m: m.ConvTranspose2d(2, 4, 1, stride=3, padding=0, output_padding=2, groups=2), (2, 2, 3, 1)),
    (lambda m: m.ConvTranspose2d(2, 3, 3, stride=2), (0, 2, 3, 4)),
    (lambda m: m.ConvTranspose2d(2, 3, 2, output_padding=1, dilation=2), (1, 2, 1, 1)),
    (lambda m: m.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2), (2, 4, 5)),
    (lambda m: m.ConvTranspose1d(3, 2, 4), (3, 5)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_layers_are_pytorchs(number: int, peer: Peer) -> None:
    make, shape = LAYERS[number]
    check_module(make, [floats(*shape)], peer("torch"), compiled=False)


class Several(nn.Module):
    """Layers of many kinds in one module: fewer kernels to compile than one by one."""

    def __init__(self, m: Any) -> None:
        self.same = m.Conv2d(3, 4, 2, padding="same")
        self.groups = m.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.mirror = m.Conv2d(6, 4, (1, 3), padding=(0, 1), dilation=(1, 1), padding_mode="reflect")
        self.up = m.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.line = m.Conv1d(4, 2, 3, dilation=2)
        self.longer = m.ConvTranspose1d(2, 2, 3, stride=2)


def run_several(layers: Any, x: Any) -> Any:
    """All layers of `Several`, of either library, one after the other."""
    y = layers.up(layers.mirror(layers.groups(layers.same(x))))
    return layers.longer(layers.line(y.flatten(2)))


def test_compiled_gradients_are_pytorchs(peer: Peer) -> None:
    torch = peer("torch")
    ours, theirs = Several(nn), torch.nn.Module()
    for name, layer in vars(Several(torch.nn)).items():
        setattr(theirs, name, layer)
    ours.load_state_dict(theirs.state_dict())
    x = floats(2, 3, 6, 8)

    @tt.compile
    def step(x: Any) -> Any:
        y = run_several(ours, x)
        y.square().sum().backward()
        return y, [p.grad for p in ours.parameters()]

    y, grads = step(tt.tensor(x))
    expected = run_several(theirs, torch.tensor(x))
    expected.square().sum().backward()
    near(y, expected)
    for grad, q in zip(grads, theirs.parameters(), strict=True):
        near(grad, q.grad, 1e-4)


def test_transposed_convolution_is_the_transpose_of_convolution() -> None:
    x, weight = tt.tensor(floats(2, 4, 7, 8), requires_grad=True), tt.tensor(floats(6, 2, 3, 2))
    arguments = {"stride": (2, 1), "padding": (1, 0), "dilation": (2, 1), "groups": 2}
    y = F.conv2d(x, weight, **arguments)
    g = floats(*y.shape)
    y.backward(tt.tensor(g))
    near(F.conv_transpose2d(g, weight, **arguments), x.grad)


def test_second_order(peer: Peer) -> None:
    torch = peer("torch")
    x, w = floats(1, 2, 5), floats(2, 1, 2)
    given, weight = tt.tensor(x, requires_grad=True), tt.tensor(w, requires_grad=True)
    (F.conv_transpose1d(given, weight, stride=2) ** 3).sum().backward(create_graph=True)
    ours, given.grad = weight.grad, None
    ours.sum().backward()
    t, v = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    y = (torch.nn.functional.conv_transpose1d(t, v, stride=2) ** 3).sum()
    (first,) = torch.autograd.grad(y, v, create_graph=True)
    near(ours, first, 1e-4)
    near(given.grad, torch.autograd.grad(first.sum(), t)[0], 1e-4)


def test_output_size_tells_lengths_apart(peer: Peer) -> None:
    torch = peer("torch")
    ours, theirs = (m.ConvTranspose2d(2, 3, 3, stride=(3, 1), padding=1) for m in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    x = floats(1, 2, 4, 5)
    for size in ((10, 5), (11, 5), (1, 3, 12, 5)):
        near(ours(tt.tensor(x), output_size=size), theirs(torch.tensor(x), output_size=size[-2:]))
    with pytest.raises(ShapeError, match=r"expected from \(10, 5\) to \(12, 5\)"):
        ours(tt.tensor(x), output_size=(13, 5))


def test_first_numbers_are_distributed_as_pytorchs(peer: Peer) -> None:
    for make, fan in [(lambda m: m.Conv2d(8, 600, 5, groups=2), 100), (lambda m: m.Conv1d(20, 900, 5), 100),
                      (lambda m: m.ConvTranspose2d(900, 8, 5, groups=2), 100)]:  # fmt: skip
        layer, bound = make(nn), fan ** -0.5
        for p, q in zip(layer.parameters(), make(peer("torch").nn).parameters(), strict=True):
            assert p.shape == tuple(q.shape) and float(q.detach().abs().max()) <= bound
            many = p.size > 100
            assert not many or stats.kstest(p.numpy().ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
            assert abs(p.numpy()).max() <= bound


def test_element_types_are_kept() -> None:
    for dtype in (tt.f64, tt.f16, tt.bf16):
        layers = [nn.Conv2d(2, 3, 3, padding=1, dtype=dtype), nn.ConvTranspose2d(3, 1, 2, dtype=dtype)]
        y = nn.Sequential(*layers)(tt.ones(1, 2, 4, 4, dtype=dtype))
        y.sum().backward()
        assert y.dtype is dtype and all(p.grad.dtype is dtype for layer in layers for p in layer.parameters())


def test_wrong_calls_say_what_is_wrong() -> None:
    image, conv = tt.zeros(2, 3, 5, 6), nn.Conv2d(4, 8, 3)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: conv(image), ShapeError, r"f32\[2, 3, 5, 6\].*x has 3 channels, the weight is for 4 × 1 groups"),
        (lambda: conv(tt.zeros(4, 4)), ShapeError, r"conv2d of f32\[4, 4\]: expected \(batch, channels, height"),
        (lambda: conv(tt.zeros(1, 4, 2, 9)), ShapeError, "reaches 3 elements, x with its padding has 2"),
        (lambda: nn.Conv2d(4, 8, 3, dilation=3)(tt.zeros(1, 4, 6, 9)), ShapeError, "reaches 7 elements"),
        (lambda: nn.Conv1d(4, 8, 3)(tt.zeros(1, 4, 6, 9)), ShapeError, r"expected \(batch, channels, length\)"),
        (lambda: nn.Conv2d(4, 7, 3, groups=2), ShapeError, "must divide by groups"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ShapeError, "must divide by groups"),
        (lambda: nn.Conv2d(4, 4, 3, groups=0), ShapeError, "must divide by groups"),
        (lambda: F.conv2d(tt.zeros(1, 4, 5, 5), tt.zeros(3, 2, 1, 1), groups=2), ShapeError, "divide by the groups"),
        (lambda: F.conv2d(image, tt.zeros(3, 3, 1)), ShapeError, r"expected a weight \(out, channels / groups, kh, kw"),
        (lambda: F.conv2d(image, tt.zeros(2, 3, 1, 1), tt.zeros(3)), ShapeError, "each of the 2 outputs"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ShapeError, r"kernel_size=\(3, 3, 3\): expected one number, or 2"),
        (lambda: nn.Conv2d(3, 4, 0), ShapeError, "kernel_size=0.*at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), ShapeError, "stride=0.*at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), ShapeError, "padding=-1.*at least 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding="same", stride=2), ShapeError, "padding='same' with stride"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), OpError, "'same' or 'valid'"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), OpError, "zeros, reflect, replicate, circular"),
        (lambda: nn.Conv2d(3, 4, 3, padding=5, padding_mode="reflect")(image), ShapeError, "expected 4 at most"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), OpError, "expected 'zeros'"),
        (lambda: nn.ConvTranspose2d(4, 4, 3)(image), ShapeError, "x has 3 channels, the weight is for 4"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, output_padding=1)(image), ShapeError, "must be less than stride"),
        (lambda: nn.ConvTranspose2d(3, 4, 1, padding=3)(image), ShapeError, "cuts off all"),
        (lambda: F.conv_transpose1d(tt.zeros(1, 2, 3), tt.zeros(2, 3)), ShapeError, r"out / groups, size\)"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()
