"""The step: compiled as eager, as PyTorch's, micro-batches as one batch, and never traced again for a learning rate."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from small_runs import BATCHES, X, Y, loader, model, numbers, trainer

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import FormatError, OpError, ShapeError
from tinytorch.train import ExponentialMovingAverage, Trainer

Peer = Callable[[str], ModuleType]
CROSS_ENTROPY = nn.CrossEntropyLoss()


def close(a: dict[str, Any], b: dict[str, Any], tolerance: float = 2e-5) -> None:
    """Fail unless all numbers are nearly the same."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], tolerance, tolerance, err_msg=name)


@pytest.mark.parametrize("options", [
    {}, {"accumulate": 3, "clip_norm": 0.5},
    pytest.param({"clip_norm": 0.5, "clip_value": 0.2}, marks=pytest.mark.slow)], ids=str)
def test_compiled_is_eager(options: dict[str, Any]) -> None:
    runs = [trainer(compile=compiled, **options) for compiled in (False, True)]
    losses = [[row["loss"] for row in run.fit(loader(), epochs=3).history] for run in runs]
    np.testing.assert_allclose(*losses, 1e-5)
    close(*map(numbers, runs))
    program = runs[1].program  # 8 rows and 2; a learning rate that falls every third step costs no program
    assert [sum(map(len, f.entries.values())) for f in (program.whole, program.micro, program.apply)] == (
        [0, 2, 1] if "accumulate" in options else [2, 0, 0])
    evaluated = [run.evaluate(BATCHES) for run in runs]
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-5)
    np.testing.assert_allclose(*(run.predict(X) for run in runs), 1e-4, 1e-5)


@pytest.mark.peers("torch")
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.3}, {"clip_value": 0.05}], ids=str)
def test_as_a_loop_in_pytorch(options: dict[str, Any], peer: Peer) -> None:
    torch = peer("torch")
    ours, theirs = model(0.0), torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.0), torch.nn.ReLU(),
                                                   torch.nn.Linear(8, 3))
    theirs.load_state_dict({key: torch.tensor(value.numpy().copy()) for key, value in ours.state_dict().items()})
    opt = torch.optim.Adam(theirs.parameters(), lr=0.05)
    average = torch.optim.swa_utils.AveragedModel(theirs, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8))
    average.update_parameters(theirs)  # ours begins with the parameters as they are
    for _ in range(2):
        for x, y in BATCHES:
            opt.zero_grad()
            torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y)).backward()
            if "clip_norm" in options:
                torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.3)
            if "clip_value" in options:
                torch.nn.utils.clip_grad_value_(theirs.parameters(), 0.05)
            opt.step()
            average.update_parameters(theirs)
    run = Trainer(ours, optim.Adam(ours.parameters(), lr=0.05), CROSS_ENTROPY, ema=0.8, compile=False, progress=False,
                  **options)
    run.fit(BATCHES, epochs=2)
    found = {name: t.detach().numpy() for name, t in theirs.named_parameters()}
    close({name: p.numpy() for name, p in ours.named_parameters()}, found)
    shadows = {name: t.detach().numpy() for name, t in average.module.named_parameters()}
    close({name: t.numpy() for name, t in run.ema.shadow.items()}, shadows)  # type: ignore[union-attr]


@pytest.mark.parametrize("compiled", [False, True])
def test_micro_batches_are_one_batch(compiled: bool) -> None:
    whole = trainer(compile=False, dropout=0.0)
    whole.fit([(X, Y)], epochs=3)
    micro = trainer(compile=compiled, dropout=0.0, accumulate=4)  # 8, 8, 8 and 2 samples, each weighted by its size
    micro.fit(BATCHES, epochs=3)
    assert (micro.step, micro.samples) == (3, 78) == (whole.step, whole.samples)
    close(numbers(micro), numbers(whole))
    assert micro.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-5)


def test_parameters_without_a_gradient_stay() -> None:
    for options in ({}, {"accumulate": 2}):
        net = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])
        opt = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        before = net[1].weight.numpy().copy()
        run = Trainer(net, opt, loss_step=lambda m, batch: CROSS_ENTROPY(m[0](batch[0]), batch[1]), compile=False,
                      progress=False, **options)  # type: ignore[arg-type]
        run.fit(BATCHES, epochs=1)
        np.testing.assert_array_equal(net[1].weight.numpy(), before)


def distilled(teacher: Any) -> Any:
    """A loss that asks another model."""
    return lambda output, x: -(teacher(x).softmax(-1) * output.log_softmax(-1)).sum(-1).mean()


@pytest.mark.parametrize(("compiled", "accumulate"), [(False, 1), (True, 1), (False, 2), (True, 2)])
def test_frozen_and_foreign_parameters(compiled: bool, accumulate: int) -> None:
    """What the optimiser does not have stays, no gradient piles up; a loss may see other modules, in their modes."""
    batches = [(x, x) for x, _ in BATCHES]
    net, teacher = model(0.0), model(0.5)
    loss = distilled(teacher)
    run = Trainer(net, optim.SGD(net[3].parameters(), lr=0.1), loss, compile=compiled, accumulate=accumulate,
                  progress=False)
    before = net[0].weight.numpy().copy()
    run.fit(batches, epochs=2)
    run.evaluate(batches)  # the teacher drops out, in here too
    np.testing.assert_array_equal(net[0].weight.numpy(), before)
    assert all(p.grad is None for p in (*net.parameters(), *teacher.parameters()))
    teacher.eval()
    run.optimizer.lr = 0.0
    expected = pytest.approx(loss(net(tt.tensor(X)), tt.tensor(X)).item(), rel=1e-5)
    assert run.fit(batches, epochs=1).history[0]["loss"] == expected == run.evaluate(batches)["loss"]


def test_a_loss_step_may_see_other_modules() -> None:
    net, teacher = model(0.0), model(0.5)
    loss_step = nested(teacher)
    run = Trainer(net, optim.SGD(net.parameters(), lr=0.0), loss_step=loss_step, progress=False)
    run.fit(BATCHES[:1], steps=1)
    assert all(p.grad is None for p in teacher.parameters())
    teacher.eval()
    expected = loss_step(net, (tt.tensor(BATCHES[0][0]),)).item()
    assert run.fit(BATCHES[:1], steps=1).history[0]["loss"] == pytest.approx(expected, rel=1e-5)


def nested(teacher: Any) -> Any:
    """A loss step that has the other model in its closure."""
    return lambda m, batch: -(teacher(batch[0]).softmax(-1) * m(batch[0]).log_softmax(-1)).sum(-1).mean()


def test_averages_are_swapped_not_copied() -> None:
    net = model()
    ema = ExponentialMovingAverage(net, 0.5)
    fast = tt.compile(net.eval())
    with tt.no_grad():
        for p in net.parameters():
            p.copy_(p * 3)
    ema.update()
    own, x = net[0].weight.payload, tt.tensor(X)
    trained = fast(x).numpy()
    with ema.applied():
        assert net[0].weight.payload is not own
        np.testing.assert_allclose(net[0].weight.numpy(), own * (2 / 3), 1e-6)
        np.testing.assert_allclose(fast(x).numpy(), net(x).numpy(), 1e-5, 1e-6)
        assert np.abs(fast(x).numpy() - trained).max() > 0.01
    assert net[0].weight.payload is own
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    assert net[0].weight.payload is own
    with pytest.raises(FormatError, match="nothing was changed"):
        ema.load_state_dict({"decay": 0.1, "shadow": {"weight": np.zeros(3)}})
    for decay in (-0.1, 1.0, float("nan")):
        with pytest.raises(OpError):
            ExponentialMovingAverage(net, decay)


@pytest.mark.parametrize("options", [{"accumulate": 0}, {"clip_norm": 0.0}, {"clip_value": -1.0},
                                     {"clip_norm": np.nan}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(OpError, match="Trainer"):
        trainer(**options)


def test_a_loss_that_is_no_number() -> None:
    net = model()
    run = Trainer(net, optim.SGD(net.parameters()), nn.CrossEntropyLoss(reduction="none"), progress=False)
    with pytest.raises(ShapeError, match=r"the loss is of shape \(8,\)"):
        run.fit(BATCHES, epochs=1)
