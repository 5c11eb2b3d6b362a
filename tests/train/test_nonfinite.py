"""A loss that is NaN or infinite: the step is not made, and the error says where it began."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import BATCHES, model, numbers, same, trainer

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.train import NonFiniteError, Trainer
from tinytorch.train.nonfinite import find

NAN = float("nan")
CROSS_ENTROPY = nn.CrossEntropyLoss()


class Scale(nn.Module):
    """x · factor, then a function."""

    def __init__(self, factor: float, function: Any = lambda x: x) -> None:
        self.factor, self.function = factor, function

    def forward(self, x: Any) -> Any:
        """See the class."""
        return self.function(x * self.factor)


class Between(nn.Module):
    """Breaks between two modules, in code of its own."""

    def __init__(self) -> None:
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        """See the class."""
        return self.last(self.first(x) / 0.0)


def made(*middle: Any) -> Any:
    """A classifier with modules in its middle."""
    tt.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Linear(8, 3))


def mean(output: Any, target: Any) -> Any:
    """A loss that lets everything through."""
    return output.mean()


# The model, the loss, what is not finite first, in which module, and words of the message.
CASES: dict[str, tuple[Any, Any, str, str | None, str]] = {
    "module": (made(Scale(1.0, lambda x: (x - 100.0).log())), CROSS_ENTROPY, "output", "1", r"module 1 \(Scale\)"),
    "overflow": (made(Scale(1e38), Scale(1e5)), CROSS_ENTROPY, "output", "2", r"module 2 \(Scale\).* inf"),
    "between": (Between(), CROSS_ENTROPY, "output", "", r"the model itself \(Between\).*input for last"),
    "loss": (made(), lambda output, target: (output * 0).log().mean(), "loss", None, "the model's output is finite"),
    "gradient": (made(Scale(0.0, lambda x: (x * x).sqrt())), mean, "gradient", "1", r"gradient of module 1 \(Scale\)"),
    "loss gradient": (made(), lambda output, target: (output * 0.0).abs().sqrt().mean(), "gradient", None,
                      r"after the model itself"),
}


@pytest.mark.parametrize(("name", "compiled"), [
    *((name, False) for name in CASES), ("module", True),
    *(pytest.param(name, True, marks=pytest.mark.slow) for name in CASES if name != "module")])
def test_the_error_names_the_place(name: str, compiled: bool) -> None:
    net, loss, kind, module, words = CASES[name]
    run = Trainer(net, optim.Adam(net.parameters()), loss, compile=compiled, progress=False, clip_norm=1.0)
    before = numbers(run)
    with pytest.raises(NonFiniteError, match=words) as caught, np.errstate(all="ignore"):
        run.fit(BATCHES[:1], steps=3)
    error = caught.value
    assert (error.step, error.kind, error.module) == (1, kind, module) and isinstance(error, FloatingPointError)
    assert same(numbers(run), before) and all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(("compiled", "accumulate"), [
    (False, 1), (True, 1), (False, 2), pytest.param(True, 2, marks=pytest.mark.slow)])
def test_everything_is_as_before_the_step(compiled: bool, accumulate: int, tmp_path: Path) -> None:
    x, y = BATCHES[0]
    bad = np.where(np.arange(6) == 2, NAN, x).astype(np.float32)
    run = trainer(tmp_path, compile=compiled, accumulate=accumulate, checkpoint_every=1)
    good = trainer(compile=compiled, accumulate=accumulate)
    good.fit([(x, y)] * (2 * accumulate), epochs=1)
    expected = numbers(good), tt.random.default_generator.state.item()
    with pytest.raises(NonFiniteError, match=r"step 3: the loss is nan.*part 0 of the batch has 8 nan.*step-00000002"):
        run.fit([(x, y)] * (2 * accumulate) + [(bad, y)], epochs=1)
    assert same(numbers(run), expected[0]) and tt.random.default_generator.state.item() == expected[1]
    assert run.step == 2


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_gradient_that_was_added_up(compiled: bool) -> None:
    net = made(Scale(0.0, lambda x: (x * x).sqrt()))
    run = Trainer(net, optim.Adam(net.parameters()), mean, compile=compiled, accumulate=2, clip_norm=1.0,
                  progress=False)
    before = numbers(run)
    with pytest.raises(NonFiniteError, match=r"norm nan.*module 1 \(Scale\)"), np.errstate(all="ignore"):
        run.fit(BATCHES[:2], steps=3)
    assert same(numbers(run), before) and all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("compiled", [False, True])
def test_neither_the_step_nor_the_search_moves_anything(compiled: bool) -> None:
    broken = Scale(1.0, lambda x: (x - 100.0).log())
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), broken, nn.Linear(8, 3))
    run = Trainer(net, optim.SGD(net.parameters()), CROSS_ENTROPY, compile=compiled, progress=False)
    state = {**dict(net.named_buffers()), "random": tt.random.default_generator.state}
    before = {name: np.array(tensor.numpy()) for name, tensor in state.items()}
    with pytest.raises(NonFiniteError, match=r"module 3 \(Scale\)"), np.errstate(all="ignore"):
        run.fit(BATCHES, steps=1)
    assert same({name: tensor.numpy() for name, tensor in state.items()}, before)


def test_a_parameter_that_was_broken_before_is_named() -> None:
    net = model()
    with tt.no_grad():
        net[3].bias[1] = NAN
    run = Trainer(net, optim.SGD(net.parameters()), CROSS_ENTROPY, compile=False, progress=False)
    with pytest.raises(NonFiniteError, match=r"3\.bias of module 3 \(Linear\) has 1 nan among 3.*earlier") as caught:
        run.fit(BATCHES, steps=1)
    assert (caught.value.kind, caught.value.module) == ("parameter", "3")


def test_nothing_to_find() -> None:
    net = model()
    found = find(net, tuple(map(tt.tensor, BATCHES[0])), lambda m, parts: CROSS_ENTROPY(m(parts[0]), parts[1]))
    assert found.kind == "unknown" and not any(module._hooks for module in net.modules())
