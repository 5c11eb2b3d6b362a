"""The networks that are measured: `NETWORKS["cnn"].make()` is ours, with the weights that every peer begins with.

    network = NETWORKS["resnet20"]
    model, (x, labels) = network.make(), network.batch(64)
    step = training_step(model)                 # step(x, labels) gives the loss: forward, backward, Adam's update

Those that are a chain of layers are written for any `nn` with PyTorch's names, so that `cnn(torch.nn)` is the same
network; the others stand here for ours and in `in_torch` for PyTorch, with the same keys. MLP, CNN and GPT have the
sizes that the project's targets are stated for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch import nn, optim
from tinytorch.data.files import Home, locate
from tinytorch.nn import functional as F
from tinytorch.random import manual_seed

Array = np.ndarray
VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS = 65, 64, 128, 4, 4  # of the GPT
RESNET_HOME = Home("resnet20", "resnet20_cifar10", (), {}, "1 MB")
# Howard et al. (2017), cut to 32×32 pictures: (channels, stride) of each depthwise 3×3 with its 1×1.
MOBILE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1))


def mlp(nn: Any) -> Any:
    """784-128-64-10 with ReLU."""
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn(nn: Any) -> Any:
    """Four 3×3 convolutions of 32, 32, 64, 64 channels on 32×32 pictures, two linear maps."""
    layers: list[Any] = []
    for before, after in ((3, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1), nn.ReLU(),
                   nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10))


def mobilenet(nn: Any) -> Any:
    """Depthwise separable convolutions with batch norm and ReLU6: a MobileNet for 32×32 pictures."""
    layers, before = _normed(nn, 3, 32, 3), 32
    for after, stride in MOBILE:
        layers += _normed(nn, before, before, 3, stride, groups=before) + _normed(nn, before, after, 1)
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def _lively_mobilenet() -> Any:
    """With weights that keep signals of size 1 (He et al., 2015), so that comparing results means something."""
    model = mobilenet(nn)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return model


def _normed(nn: Any, before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> list[Any]:
    return [nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(after),
            nn.ReLU6()]


def gpt(nn: Any) -> Any:
    """Four blocks of width 128 with four heads over 64 tokens of 65; the last map has weights of its own."""
    return nn.GPT(nn.GPTConfig(VOCABULARY, CONTEXT, LAYERS, HEADS, WIDTH, tie_weights=False, approximate="tanh"))


def resnet20(nn: Any) -> Any:
    """ResNet-20 for CIFAR-10 with shortcuts of kind A (He et al., 2015, section 4.2): where channels grow, x is
    subsampled and padded with zeros."""
    F = nn.functional

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            self.more = after - before
            self.conv1 = nn.Conv2d(before, after, 3, 2 if self.more else 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            if self.more:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
            return F.relu(x + y)

    class ResNet(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            stages = [nn.Sequential(*(Block(before if number == 0 else after, after) for number in range(3)))
                      for before, after in ((16, 16), (16, 32), (32, 64))]
            self.layer1, self.layer2, self.layer3 = stages
            self.linear = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
            return self.linear(x.mean((2, 3)))

    return ResNet()


@dataclass(frozen=True)
class Network:
    """A network with what it is given.

    Attributes:
        name, about: for tables; build: makes ours.
        shape: of one example; classes: of a label; unit: what throughput counts, `items` of them an example.
    """

    name: str
    about: str
    build: Callable[[], Any]
    shape: tuple[int, ...]
    classes: int
    unit: str = "images"

    @property
    def items(self) -> int:
        """Labels, and things that throughput counts, in one example."""
        return self.shape[0] if self.unit == "tokens" else 1

    def batch(self, size: int) -> tuple[Array, Array]:
        """`size` made-up examples and their labels, the same each time."""
        random = np.random.default_rng(size)
        labels = (size, *self.shape) if self.unit == "tokens" else (size,)
        y = random.integers(0, self.classes, labels)
        if self.unit == "tokens":
            return random.integers(0, self.classes, (size, *self.shape)), y
        return random.standard_normal((size, *self.shape)).astype(np.float32), y

    def make(self) -> Any:
        """Ours, in training mode: trained weights where there are some (see `trained`), else the same random ones."""
        manual_seed(0)
        model = self.build()
        if found := trained(self.name):
            model.load_state_dict(found, strict=False)  # the file was written before batch norm counted batches
        return model

    def weights(self) -> dict[str, Array]:
        """What `make` begins with, by PyTorch's keys; counters that nothing reads left out."""
        return {key: np.array(value.numpy()) for key, value in self.make().state_dict().items()
                if not key.endswith("num_batches_tracked")}


NETWORKS = {network.name: network for network in (
    Network("mlp", "MLP 784-128-64-10", lambda: mlp(nn), (784,), 10),
    Network("cnn", "CNN of 4 convolutions and 2 linear maps, 32×32", lambda: cnn(nn), (3, 32, 32), 10),
    Network("gpt", "GPT of 4 layers, width 128, 64 tokens", lambda: gpt(nn), (CONTEXT,), VOCABULARY, "tokens"),
    Network("resnet20", "ResNet-20, 32×32", lambda: resnet20(nn), (3, 32, 32), 10),
    Network("mobilenet", "MobileNet-like network, 32×32", _lively_mobilenet, (3, 32, 32), 10),
)}


def trained(name: str) -> dict[str, Array] | None:
    """Trained weights, where there are some and they are found under `TINYTORCH_DATA` or the user's data folder."""
    if name != "resnet20":
        return None
    from safetensors.numpy import load_file

    try:
        [path] = locate(RESNET_HOME, ["model.safetensors"], None, download=False)
    except FileNotFoundError:
        return None
    return load_file(path)


def training_step(model: Any, classes: int = 10) -> Callable[[Any, Any], Any]:
    """step(x, labels) gives the loss of `model`, cross entropy, after which Adam has changed its parameters."""
    optimiser = optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any, labels: Any) -> Any:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x).reshape(-1, classes), labels.reshape(-1))
        loss.backward()
        optimiser.step()
        return loss

    return step
