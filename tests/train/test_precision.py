"""Training in half precision: the loss scale goes as PyTorch's does, saves small gradients, and is in checkpoints."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from small_runs import BATCHES, numbers, same, trainer

import tinytorch as tt
from tinytorch import data, nn, optim
from tinytorch.ir.errors import DTypeError, FormatError, GradientError, OpError
from tinytorch.nn import functional as F
from tinytorch.passes import CastPrecision
from tinytorch.train import GradScaler, Trainer
from tinytorch.train.loss import UsualLoss
from tinytorch.train.step import Step

INF, NAN = float("inf"), float("nan")
GRADIENTS = ([1.0, 2.0], [1.0, INF], [3.0, 1.0], [2.0, 2.0], [1.0, 1.0], [NAN, 1.0], [1.0, 1.0])


def scales(lib: Any, scaler: Any, run: Callable[..., Any]) -> list[tuple[float, list[float]]]:
    """The scale and the parameter after each of a row of steps."""
    w = lib.tensor([1.0, 2.0], requires_grad=True)
    opt = lib.optim.SGD([w], lr=0.125, momentum=0.5)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = (w * x).sum()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        return loss.detach()

    fast, found = run(step), []
    for x in GRADIENTS:
        fast(lib.tensor(x))
        found.append((scaler.get_scale(), w.detach().numpy().tolist()))
    return found


@pytest.mark.parametrize("compiled", [False, True])
def test_scales_and_steps_are_those_of_pytorch(compiled: bool, peer: Callable[[str], ModuleType]) -> None:
    torch = peer("torch")
    theirs = scales(torch, torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2), lambda step: step)
    ours = scales(tt, GradScaler(init_scale=16.0, growth_interval=2), tt.compile if compiled else lambda step: step)
    assert ours == theirs and len({scale for scale, _ in ours}) > 1


def test_gradients_that_f16_cannot_hold_are_saved_by_a_scale() -> None:
    x = np.random.default_rng(0).standard_normal((8, 8)).astype("f4")
    moved = []
    for scaler in (None, GradScaler()):
        tt.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
        opt = optim.SGD(model.parameters(), lr=1e6)
        before = model[0].weight.numpy().copy()
        loss = lambda model, parts: (model(parts[0]) ** 2).mean() * 1e-7
        outcome = Step(model, opt, loss, scaler=scaler, precision="f16")((x,))
        assert outcome.updated and outcome.finite
        moved.append(np.abs(model[0].weight.numpy() - before).max())
    assert moved[0] == 0 < 1e-3 < moved[1], "gradients of 1e-9 are 0 in f16"


@pytest.mark.parametrize(("accumulate", "compiled"), [
    (1, False), (2, False), (1, True), pytest.param(2, True, marks=pytest.mark.slow)])
def test_a_step_that_overflows_changes_nothing_but_the_scale(compiled: bool, accumulate: int) -> None:
    tt.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    opt, scaler = optim.Adam(model.parameters()), GradScaler(init_scale=2.0**126)
    step = Step(model, opt, UsualLoss(nn.MSELoss()), scaler=scaler, compiled=compiled, accumulate=accumulate)
    parts = tt.randn(8, 4), tt.randn(8, 2) * 1e3

    def state() -> list[np.ndarray]:
        tensors = [*model.parameters(), *(t for _, t in opt.named_state())]
        return [np.array(t.numpy()) for t in tensors]

    before = state()
    outcomes = [step(parts) for _ in range(accumulate)]
    assert outcomes[-1].finite and not outcomes[-1].updated
    assert scaler.get_scale() == 2.0**125
    assert all(map(np.array_equal, before, state()))
    scaler.load_state_dict({"scale": 4.0, "good_steps": 0})
    outcomes = [step(parts) for _ in range(accumulate)]
    assert outcomes[-1].updated and not any(map(np.array_equal, before[:2], state()[:2]))


def test_a_scale_that_is_a_power_of_two_changes_no_bit() -> None:
    found = []
    for scaler in (None, GradScaler(init_scale=1024.0)):
        tt.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        step = Step(model, optim.Adam(model.parameters(), lr=0.1), UsualLoss(nn.CrossEntropyLoss()), scaler=scaler,
                    compiled=False, clip_norm=1.0)
        found.append(([step(parts).norm for parts in BATCHES[:3]], [p.numpy().copy() for p in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_gradients_that_are_never_finite_are_an_error() -> None:
    model = nn.Linear(2, 1)
    opt, scaler = optim.SGD(model.parameters(), lr=0.1), GradScaler(init_scale=2.0**-12)
    step = Step(model, opt, lambda model, parts: ((model(parts[0]) * 0.0).abs() ** 0.5).sum(), scaler=scaler,
                compiled=False)  # the gradient of √0 is infinite
    outcomes = [step((tt.ones(3, 2),)) for _ in range(4)]
    assert [outcome.finite for outcome in outcomes] == [True, True, False, False]
    assert not any(outcome.updated for outcome in outcomes[:2])


def test_a_trainer_in_f16_resumes_with_its_scale(tmp_path: Any) -> None:
    options = {"compile": True, "precision": "f16", "dropout": 0.0}
    whole = trainer(tmp_path / "whole", **options)
    whole.fit(BATCHES, steps=6)
    assert whole.scaler is not None and whole.scaler.good_steps.item() == 6
    first = trainer(tmp_path / "parts", **options)
    first.scaler.load_state_dict({"scale": 2.0**16, "good_steps": 0})
    first.fit(BATCHES, steps=4)
    second = trainer(tmp_path / "parts", **options)
    second.fit(BATCHES, steps=6, resume=True)
    assert same(numbers(whole), numbers(second)) and second.scaler.good_steps.item() == 6
    with pytest.raises(FormatError, match="it has a scaler, this trainer has none"):
        trainer(tmp_path / "parts").fit(BATCHES, steps=8, resume=True)


def test_losses_are_those_of_f32_on_digits() -> None:
    images, labels = data.mnist("train", small=True)
    batches = list(data.mnist_batches(images, labels, batch_size=64, seed=0))[:40]
    losses = {}
    for precision in ("f32", "bf16", "f16"):
        tt.manual_seed(0)
        model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
        run = Trainer(model, optim.Adam(model.parameters(), lr=0.003), nn.CrossEntropyLoss(), precision=precision,
                      progress=False, memory=1.0)
        run.fit(batches, epochs=2)
        losses[precision] = [F.cross_entropy(model(tt.tensor(x)), tt.tensor(y)).item() for x, y in batches[:8]]
        assert all(p.dtype is tt.f32 for p in model.parameters())
        whole = run.program.whole.history
        assert any(stage.name == CastPrecision.__name__ for stage in whole) is (precision != "f32")
    f32 = np.mean(losses["f32"])
    assert f32 < 0.5
    assert abs(np.mean(losses["bf16"]) - f32) < 0.02 and abs(np.mean(losses["f16"]) - f32) < 0.01
    assert losses["bf16"] != losses["f32"] != losses["f16"]


@pytest.mark.parametrize("options", [{"init_scale": 0.0}, {"growth_factor": 1.0}, {"backoff_factor": 1.0},
                                     {"growth_interval": 0}, {"init_scale": INF}])
def test_scales_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(OpError, match="expected a scale > 0, a growth > 1"):
        GradScaler(**options)


def test_steps_out_of_turn_are_refused() -> None:
    w = tt.tensor([1.0], requires_grad=True)
    opt, scaler = optim.SGD([w], lr=0.1), GradScaler()
    with pytest.raises(GradientError, match="no gradients were unscaled"):
        scaler.update()
    scaler.scale((w * 2.0).sum()).backward()
    scaler.unscale_(opt)
    with pytest.raises(GradientError, match="unscaled before"):
        scaler.unscale_(opt)


def test_precision_and_budgets_belong_to_compiled_steps() -> None:
    model = nn.Linear(2, 1)
    opt = optim.SGD(model.parameters(), lr=0.1)
    for options in ({"precision": "bf16"}, {"memory": 0.5}):
        with pytest.raises(OpError, match="leave compile=True"):
            Trainer(model, opt, nn.MSELoss(), compile=False, **options)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="cast to 'bf16' or 'f16'"):
        Trainer(model, opt, nn.MSELoss(), precision="i8")
