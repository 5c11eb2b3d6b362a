"""Quantisation-aware training: ranges that follow, gradients that pass, accuracy that rounding alone loses."""

from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, optim, quant, zoo
from tinytorch.ir.errors import DataError, OpError
from tinytorch.nn import functional as F

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def digits(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits of 14 × 14 pixels, each the mean of four."""
    images, labels = (part[:count] for part in zoo.examples("lenet", split))  # type: ignore[arg-type]
    return images.reshape(count, 14, 2, 14, 2).mean((2, 4)).reshape(count, 196), labels


def train(model: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    optimizer = optim.Adam(model.parameters(), lr=2e-3)

    @tt.compile
    def step(x: Any, y: Any) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    model.train()
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(images))
        for at in range(0, len(images) - 99, 100):
            step(images[order[at:at + 100]], labels[order[at:at + 100]])
    model.eval()


def accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    with tt.no_grad():
        return float((model(tt.tensor(images)).numpy().argmax(1) == labels).mean())


@pytest.mark.slow  # two training steps are compiled
def test_training_recovers_what_two_bits_lose() -> None:
    (images, labels), (test, answers) = (digits(split, count) for split, count in (("train", 2000), ("test", 1000)))
    tt.manual_seed(0)
    model = nn.Sequential(nn.Linear(196, 32), nn.ReLU(), nn.Linear(32, 10))
    train(model, images, labels, 12)
    exact = accuracy(model, test, answers)
    ready = quant.prepare(model, weight_bits=2)
    lost = accuracy(tt.quantize(model, images[:200], weight_bits=2), test, answers)
    train(ready, images, labels, 8)
    small = tt.quantize(ready)
    found = accuracy(small, test, answers)
    assert exact > 0.84 and lost < exact - 0.08 and found > lost + 0.05 and found > exact - 0.06, (exact, lost, found)
    assert len(np.unique(small.plan.layers["0"].weight)) == 3  # two bits: -1, 0, 1
    assert accuracy(ready, test, answers) == pytest.approx(found, abs=0.005)  # what was trained is what runs


def test_ranges_follow_batches_in_training_only() -> None:
    ready = quant.prepare(nn.Linear(3, 2), momentum=0.5)
    first, second = np.float32([[-1, 0, 4]]), np.float32([[-3, 0, 2]])
    ready(tt.tensor(first))
    seen = ready.seen()["weight"]
    assert (seen.low, seen.high) == (-1, 4)
    ready(tt.tensor(second))
    seen = ready.seen()["weight"]
    assert (seen.low, seen.high) == (-2, 3)
    ready.eval()(tt.tensor(10 * first))
    assert ready.seen()["weight"].high == 3
    assert list(ready.state_dict()) == ["range_weight", "model.weight", "model.bias"]


def test_gradients_pass_straight_through() -> None:
    model = nn.Linear(4, 3)
    ready = quant.prepare(model)
    x = numbers(5, 4)
    ready(tt.tensor(x)).sum().backward()
    found = model.weight.grad.numpy()
    model.zero_grad()
    model(tt.tensor(x)).sum().backward()
    np.testing.assert_allclose(found, model.weight.grad.numpy(), atol=0.05)
    assert not np.array_equal(ready(x).numpy(), model(x).numpy())  # it does round


def test_a_compiled_step_is_as_eager() -> None:
    def made() -> tuple[Any, Any]:
        tt.manual_seed(0)
        ready = quant.prepare(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), weight_bits=4)
        optimizer = optim.SGD(ready.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (ready(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        return ready, step

    x = numbers(8, 6)
    (ready, eager), (other, step) = made(), made()
    fast = tt.compile(step)
    for _ in range(3):
        assert float(eager(tt.tensor(x)).item()) == pytest.approx(float(fast(tt.tensor(x)).item()), rel=1e-4)
    for key, value in ready.state_dict().items():
        np.testing.assert_allclose(value.numpy(), other.state_dict()[key].numpy(), atol=1e-4, err_msg=key)


def test_convolution_with_batch_norm_runs_as_it_was_trained() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    ready, x = quant.prepare(model, weight_bits=4), numbers(8, 3, 4, 4)
    for _ in range(3):
        ready(tt.tensor(x)).sum().backward()
    small, y = tt.quantize(ready), ready.eval()(tt.tensor(x)).numpy()
    np.testing.assert_allclose(small(x).numpy(), y, atol=0.02 * np.abs(y).max())


def test_refusals() -> None:
    with pytest.raises(OpError, match="expected 2 to 8"):
        quant.prepare(nn.Linear(2, 2), weight_bits=1)
    with pytest.raises(OpError, match="expected a module"):
        quant.prepare(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has not been called yet"):
        tt.quantize(quant.prepare(nn.Linear(2, 2)))
