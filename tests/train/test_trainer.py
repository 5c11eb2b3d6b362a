"""`Trainer`: what it runs and when, what it gives back, what it writes, and what it says when it is used wrongly."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from small_runs import BATCHES, X, Y, loader, model, numbers, same, trainer

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.data import DataLoader, Draws, TensorDataset
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn import functional as F
from tinytorch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from tinytorch.train import Accuracy, Callback, EarlyStopping, LambdaCallback, TensorBoard, Trainer, accuracy
from tinytorch.train.batch import align
from tinytorch.train.loop import Limits
from tinytorch.train.progress import Lines, Silent, show_progress


def plain(net: Any = None, loss: Any = F.cross_entropy, lr: float = 0.1, **options: Any) -> Trainer:
    """A trainer with nothing on."""
    net = net or model(0.0)
    opt = optim.SGD(net.parameters(), lr=lr)
    return Trainer(net, opt, loss, compile=False, progress=False, **options)


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limits", "step", "epoch"), [
    ({"epochs": 2}, 8, 2), ({"steps": 3}, 3, 0), ({"steps": 4}, 4, 0), ({"epochs": 1, "steps": 99}, 4, 1),
    ({"epochs": 9, "steps": 5}, 5, 1)])
def test_limits(limits: dict[str, int], step: int, epoch: int) -> None:
    result = plain().fit(BATCHES, **limits)  # type: ignore[arg-type]
    assert (result.step, result.epoch, result.stopped, result.interrupted) == (step, epoch, None, False)
    assert Limits(**limits).total(4, 1) == (8 if "steps" not in limits else min(limits["steps"], 4 * limits.get(
        "epochs", 999)))


def test_loss_is_a_mean_over_samples_and_the_last_batch_is_smaller() -> None:
    run = plain(lr=0.0)
    expected = F.cross_entropy(run.model(tt.tensor(X)), tt.tensor(Y)).item()
    row = run.fit(BATCHES, epochs=1).history[0]
    assert row["loss"] == pytest.approx(expected, rel=1e-5) and row["step"] == 4
    said = run.model(tt.tensor(X)).numpy()
    run = plain(run.model, metrics=[Accuracy(), of_function], lr=0.0)
    found = run.evaluate(BATCHES)
    right = pytest.approx((said.argmax(1) == Y).mean())
    assert found == {"loss": pytest.approx(expected, rel=1e-5), "accuracy": right, "of_function": right}


def of_function(output: Any, target: Any) -> float:
    """A metric that is a function."""
    return accuracy(output, target)


def test_modes_are_put_back() -> None:
    net = model(0.9)
    net[1].eval()  # this dropout is to stay off outside of fit
    seen = []
    run = plain(net, callbacks=[LambdaCallback(on_step_end=lambda run: seen.append(net[1].training),
                                               on_validation_end=lambda run, found: seen.append("val"))])
    run.fit(BATCHES[:1], epochs=1, validation=BATCHES)
    assert seen == [True, "val"] and not net[1].training and net[0].training
    net.train()
    assert run.evaluate(BATCHES) == run.evaluate(BATCHES), "dropout is on while it is evaluated"
    assert net[1].training


def test_what_a_loader_may_give() -> None:
    x, y = BATCHES[0]
    expected = numbers_after([(x, y)])
    for batch in ([x, y], (tt.tensor(x), tt.tensor(y)), (x, y.tolist())):
        assert numbers_after([batch]) == expected
    run = plain(loss=None, loss_step=lambda m, batch: F.cross_entropy(m(batch[0]["x"]), batch[0]["y"]))
    run.fit([{"x": x, "y": y}], epochs=1)
    assert run.model[0].weight.numpy().tolist() == expected
    plain(nn.Linear(6, 1), loss=lambda output, target: (output - target).square().mean()).fit(
        [(x, np.zeros((8, 1), np.float32))], epochs=1)


def numbers_after(batches: Any) -> Any:
    """The first weights after an epoch."""
    run = plain()
    run.fit(batches, epochs=1)
    return run.model[0].weight.numpy().tolist()


def test_seed_and_loader_make_the_run(tmp_path: Path) -> None:
    first, again, other = trainer(), trainer(), trainer(seed=4)
    for run in (first, again, other):
        run.fit(loader(), epochs=1)
    assert all(np.array_equal(a, b) for a, b in zip(numbers(first).values(), numbers(again).values(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(numbers(first).values(), numbers(other).values(), strict=True))


@pytest.mark.peers("torch")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_language_models_work_with_the_usual_loss(compiled: bool, peer: Callable[[str], ModuleType]) -> None:
    torch = peer("torch")
    tokens = np.random.default_rng(0).integers(0, 11, (4, 6))
    net = nn.Sequential(nn.Embedding(11, 5), nn.Linear(5, 11))
    logits = net(tt.tensor(tokens)).numpy()
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits).flatten(0, 1), torch.tensor(tokens).flatten())
    run = Trainer(net, optim.SGD(net.parameters(), lr=0.0), nn.CrossEntropyLoss(), metrics=[Accuracy()],
                  compile=compiled, progress=False)
    assert run.evaluate([(tokens, tokens)]) == {
        "loss": pytest.approx(expected.item(), rel=1e-5),
        "accuracy": pytest.approx((logits.argmax(-1) == tokens).mean())}
    assert run.fit([(tokens, tokens)], steps=1).history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("output", "target", "flat"), [
    ((8, 3), (8,), None), ((2, 5, 7), (2, 5), (10, 7)), ((2, 7, 5), (2, 5), None), ((2, 3, 4, 6), (2, 4, 6), None),
    ((2, 3, 4, 6), (2, 3, 4), (24, 6)), ((2, 5), (2, 5), None)])
def test_align(output: Any, target: Any, flat: Any) -> None:
    found = align(tt.zeros(*output), tt.zeros(*target, dtype="i64"))
    assert (found[0].shape, found[1].shape) == ((flat, (flat[0],)) if flat else (output, target))


def test_align_does_not_guess() -> None:
    with pytest.raises(ShapeError, match="axis 1 or on the last"):
        align(tt.zeros(2, 5, 5), tt.zeros(2, 5, dtype="i64"))
    assert align(tt.zeros(2, 5, 5), tt.zeros(2, 5))[0].shape == (2, 5, 5)  # no labels


def test_predict() -> None:
    for compiled in (False, True):
        run = trainer(compile=compiled, dropout=0.5, ema=None)
        expected = run.model.eval()(tt.tensor(X)).numpy()
        run.model.train()
        ways = run.predict(X, batch_size=8), run.predict(tt.tensor(X)), run.predict(BATCHES), run.predict(
            [x for x, _ in BATCHES])
        for found in ways:
            np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


# -- schedulers, callbacks, early stopping -----------------------------------------------------------------------------


def test_schedulers() -> None:
    for every, expected in ("step", [0.4, 0.2, 0.2, 0.1, 0.1, 0.05]), ("epoch", [0.4, 0.4, 0.4, 0.4, 0.4, 0.2]):
        net, seen = model(), list[float]()
        opt = optim.SGD(net.parameters(), lr=0.4)
        scheduler = StepLR(opt, 2, 0.5)
        watch = LambdaCallback(on_step_end=lambda run, seen=seen: seen.append(run.lr))
        Trainer(net, opt, F.cross_entropy, scheduler=scheduler, schedule_every=every, compile=False, progress=False,
                callbacks=[watch]).fit(BATCHES, epochs=3)
        # by steps it is halved after 2, 4, …; by epochs after the second, which is step 8
        assert seen[1:7] == expected if every == "step" else seen[3:9] == expected


def test_reduce_on_plateau_gets_the_validation_loss() -> None:
    net = model(0.0)
    opt = optim.SGD(net.parameters(), lr=0.0)
    run = Trainer(net, opt, F.cross_entropy, scheduler=ReduceLROnPlateau(opt, patience=1), schedule_every="epoch",
                  compile=False, progress=False)
    run.fit(BATCHES, epochs=4, validation=BATCHES)
    assert run.scheduler.best == pytest.approx(run.history[-1]["val_loss"]) and run.scheduler.num_bad_epochs > 0
    with pytest.raises(OpError, match="validation"):
        run.fit(BATCHES, epochs=5)


class Recorder(Callback):
    """Writes down what is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_fit_begin(self, trainer: Trainer) -> None:
        self.calls.append("begin")

    def on_step_end(self, trainer: Trainer) -> None:
        assert np.isfinite(trainer.loss)
        self.calls.append(trainer.step)

    def on_validation_end(self, trainer: Trainer, metrics: Any) -> None:
        self.calls.append(sorted(metrics))

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.calls.append(f"epoch {trainer.epoch}")

    def on_fit_end(self, trainer: Trainer) -> None:
        self.calls.append("end")


def test_callbacks_in_order() -> None:
    val = ["val_accuracy", "val_loss"]
    recorder = Recorder()
    plain(metrics=[Accuracy()], callbacks=[recorder]).fit(BATCHES[:2], epochs=2, validation=BATCHES)
    assert recorder.calls == ["begin", 1, 2, val, "epoch 1", 3, 4, val, "epoch 2", "end"]
    recorder = Recorder()
    plain(metrics=[Accuracy()], callbacks=[recorder]).fit(BATCHES, steps=5, validation=BATCHES, validate_every=3)
    assert recorder.calls == ["begin", 1, 2, 3, val, 4, "epoch 1", 5, val, "end"], "and once more at the end"
    recorder = Recorder()
    plain(accumulate=3, callbacks=[recorder]).fit(BATCHES, epochs=2)
    assert recorder.calls == ["begin", 1, 2, "epoch 1", 3, 4, "epoch 2", "end"]


class Fake:
    """Stands for a trainer in tests of callbacks."""

    def __init__(self) -> None:
        self.step, self.reason, self.interrupted = 0, "", False

    def stop(self, reason: str) -> None:
        self.reason = self.reason or f"{self.step}: {reason}"


@pytest.mark.parametrize(("values", "options", "stop", "best"), [
    ([3, 2, 2, 2, 2], {"patience": 2}, 4, 2), ([3, 2, 2.5, 1, 2, 2], {"patience": 2}, 6, 1),
    ([1, 2, 3, 3, 3], {"patience": 2, "mode": "max"}, 5, 3), ([3, 2.95, 2.9], {"patience": 2, "min_delta": 0.2}, 3, 3),
    ([np.nan, np.nan], {"patience": 2}, 2, None), ([3, 2, 1], {"patience": 1}, None, 1)])
def test_early_stopping(values: Any, options: Any, stop: int | None, best: Any) -> None:
    fake, stopping = Fake(), EarlyStopping("val_loss", **options)
    for value in values:
        fake.step += 1
        stopping.on_validation_end(fake, {"val_loss": value})  # type: ignore[arg-type]
        again = EarlyStopping("val_loss", **options)  # after a restart
        again.load_state_dict(stopping.state_dict())
        stopping = again
        if fake.reason:
            break
    assert (int(fake.reason.split(":")[0]) if fake.reason else None, stopping.best) == (stop, best)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_weights_come_back(ema: float | None, tmp_path: Path) -> None:
    kept: dict[int, float] = {}
    watch = LambdaCallback(on_validation_end=lambda run, found: kept.update({run.step: found["val_loss"]}))
    stopping = EarlyStopping(patience=2, restore_best=True)
    run = trainer(tmp_path, callbacks=[stopping, watch], ema=ema, dropout=0.0, scheduler=None)
    run.optimizer.lr = 3.0  # it overshoots
    result = run.fit(loader(), epochs=30, validation=BATCHES)
    assert result.stopped and "val_loss has not improved for 2 validations" in result.stopped and result.step < 120
    best = min(kept.values())
    assert stopping.best == best < list(kept.values())[-1]
    assert run.evaluate(BATCHES)["loss"] == pytest.approx(best, rel=1e-6)
    again = trainer(tmp_path, callbacks=[EarlyStopping(patience=2, restore_best=True)], ema=ema, dropout=0.0,
                    scheduler=None).fit(loader(), epochs=30, validation=BATCHES, resume=True)
    assert (again.step, again.stopped) == (result.step, result.stopped), "what has ended does not go on"


def test_stopping_from_a_callback() -> None:
    run = plain(callbacks=[LambdaCallback(on_step_end=lambda run: run.stop("enough") if run.step == 2 else None)])
    result = run.fit(BATCHES, epochs=9)
    assert (result.step, result.stopped, result.interrupted) == (2, "enough", False)
    assert run.fit(BATCHES, steps=1).stopped is None  # a new run


# -- what is shown and written -----------------------------------------------------------------------------------------


def test_log_and_curves(tmp_path: Path) -> None:
    run = trainer(tmp_path, clip_norm=1.0)
    result = run.fit(loader(), epochs=2, validation=BATCHES)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == json.loads(json.dumps(result.history))
    assert [(row["step"], *(key for key in row if "loss" in key)) for row in rows] == [
        (2, "loss"), (4, "loss"), (4, "val_loss"), (6, "loss"), (8, "loss"), (8, "val_loss")]
    assert set(rows[0]) == {"step", "epoch", "loss", "lr", "seconds", "grad_norm"}
    assert rows[0]["lr"] == 0.05 and rows[1]["lr"] == pytest.approx(0.035) and rows[2]["val_accuracy"] >= 0
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_lines_where_there_is_no_terminal(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lines, "pause", 0.0)
    trainer(tmp_path, progress=True).fit(loader(), epochs=2, validation=BATCHES)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("step 8/8  epoch 2  loss") and lines[-1].endswith("samples/s")
    assert any(line.startswith("step 4: val_loss") for line in lines)
    assert all("\x1b" not in line for line in lines)
    with show_progress(3, wanted=False) as silent:
        assert type(silent) is Silent and (silent.update(1, 0, 1.0, 1.0, 1.0) or not silent.due)  # type: ignore[func-returns-value]
    assert capsys.readouterr().out == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    trainer(progress=True).fit(loader(), epochs=1, validation=BATCHES)
    out = capsys.readouterr().out
    assert "4/4" in out and "epoch 1" in out and "samples/s" in out and "lr 0.035" in out and "step 4: val_loss" in out


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            seen.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, step))

        def close(self) -> None:
            seen.append("closed")

    monkeypatch.setattr("tinytorch.train.tensorboard._writer_class", lambda: Writer)
    trainer(callbacks=[TensorBoard("runs")]).fit(loader(), epochs=1, validation=BATCHES)
    assert seen[0] == ("runs", None) and seen[-1] == "closed"
    assert {("loss", 2), ("loss", 4), ("val_loss", 4), ("val_accuracy", 4), ("lr", 2)} <= set(seen)
    monkeypatch.undo()
    monkeypatch.setattr("tinytorch.train.tensorboard.WRITERS", ("no_such_module",))
    with pytest.raises(OpError, match="pip install tensorboardX"):
        TensorBoard("runs")


# -- wrong use ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "words"), [
    ({"loss": None}, "loss"), ({"loss_step": lambda m, b: 0}, "not both"), ({"schedule_every": "day"}, "schedule"),
    ({"checkpoint_every": 0}, "checkpoint_every"), ({"log_every": 0}, "log_every"), ({"ema": 1.5}, "decay"),
    ({"metrics": [Accuracy(), Accuracy()]}, "different names"), ({"directory": "x", "keep": 0}, "keep")])
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OpError, match=words):
        plain(**options)


@pytest.mark.parametrize(("batches", "options", "words"), [
    (BATCHES, {}, "epochs=… or steps"), (BATCHES, {"steps": 0}, "steps=0"), (BATCHES, {"epochs": 1.5}, "epochs=1.5"),
    ([], {"epochs": 1}, "no batch"), (iter(BATCHES[:2]), {"epochs": 2}, "only once"), ([X], {"steps": 1}, "one part"),
    (BATCHES, {"steps": 1, "validation": []}, "no batch")])
def test_bad_calls(batches: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OpError, match=words):
        plain().fit(batches, **options)


def test_bad_callbacks() -> None:
    for build in (lambda: LambdaCallback(on_step=print), lambda: LambdaCallback(every=0),
                  lambda: EarlyStopping(patience=0), lambda: EarlyStopping(mode="lower")):
        with pytest.raises(OpError):
            build()
    with pytest.raises(OpError, match="the validation gives val_loss"):
        plain(callbacks=[EarlyStopping("val_accuracy")]).fit(BATCHES, epochs=1, validation=BATCHES)
    with pytest.raises(OpError, match="need the output"):
        plain(loss=None, loss_step=lambda m, b: F.cross_entropy(m(b[0]), b[1]), metrics=[accuracy]).evaluate(BATCHES)
    with pytest.raises(OpError, match="no directory"):
        plain().save()


def test_an_endless_loader_is_fine() -> None:
    assert plain().fit(itertools.cycle(BATCHES), steps=11).step == 11


def test_an_evaluation_is_the_same_each_time_and_does_not_move_the_training() -> None:
    def shifted(pictures: np.ndarray, draws: Draws) -> np.ndarray:
        return (pictures + draws.uniform()[:, None]).astype(np.float32)

    data = DataLoader(TensorDataset(X, Y), 8, shuffle=True, transform=shifted)
    looks: list[float] = []
    peek = LambdaCallback(on_step_end=lambda run: looks.append(run.evaluate(data)["loss"]))
    quiet, watched = trainer(), trainer(callbacks=[peek])
    assert quiet.evaluate(data) == quiet.evaluate(data)
    assert (data.epoch, data.position) == (0, 0)
    quiet.fit(data, steps=9)
    data.set_epoch(0)
    watched.fit(data, steps=9)
    assert len(looks) == 9 and same(numbers(quiet), numbers(watched))
