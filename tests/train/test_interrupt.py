"""Ctrl-C: the first ends the step, saves and returns; the second stops at once."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import small_runs
from small_runs import BATCHES, loader, numbers, same, trainer

from tinytorch.optim.lr_scheduler import ReduceLROnPlateau
from tinytorch.train import LambdaCallback, Trainer
from tinytorch.train.interrupt import patience


def test_ctrl_c_saves_tells_where_and_exits_cleanly(tmp_path: Path) -> None:
    text = json.dumps({"directory": str(tmp_path), "kill": 5, "signal": "SIGINT", "steps": 100})
    run = subprocess.run([sys.executable, small_runs.__file__, text], capture_output=True, text=True)
    assert run.returncode == 0 and "Ctrl-C again stops at once" in run.stderr, run.stderr
    assert "step 5 interrupted True" in run.stdout and "step-00000005.safetensors has all of it" in run.stdout

    undisturbed, resumed = trainer(compile=True), trainer(tmp_path, compile=True)
    undisturbed.fit(loader(), steps=9, validation=BATCHES)
    resumed.fit(loader(), steps=9, validation=BATCHES, resume=True)
    assert same(numbers(resumed), numbers(undisturbed))


def test_second_ctrl_c_is_immediate(tmp_path: Path) -> None:
    def twice(run: Trainer) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert run.step == 3
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second Ctrl-C waits")

    run = trainer(tmp_path, callbacks=[LambdaCallback(on_step_end=twice, every=3)])
    with pytest.raises(KeyboardInterrupt):
        run.fit(loader(), steps=9)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_amid_a_validation_and_amid_an_accumulation(tmp_path: Path) -> None:
    def batches() -> object:
        for number, batch in enumerate(BATCHES):
            if number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch
        pytest.fail("the validation goes on")

    result = trainer().fit(BATCHES, epochs=2, validation=batches())  # type: ignore[arg-type]
    assert result.interrupted and (result.step, result.epoch) == (4, 0), "the end of the epoch is still due"
    assert not [row for row in result.history if "val_loss" in row]

    class Loader(list[tuple[np.ndarray, np.ndarray]]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for number, batch in enumerate(super().__iter__()):
                if number == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    run = trainer(accumulate=2)
    assert run.fit(Loader(BATCHES), epochs=2).step == 1 and run.samples == 16  # the update is completed first


def test_other_threads_and_handlers_are_left_alone() -> None:
    seen = []

    def inside() -> None:
        with patience() as asked:
            seen.append(asked.to_stop)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [False]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with patience():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_validation_that_was_broken_off_is_made_up_for(every: int | None, accumulate: int, tmp_path: Path) -> None:
    class Validation(list[tuple[np.ndarray, np.ndarray]]):
        seen = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            self.seen += 1
            for batch in super().__iter__():
                if self.seen == 2:
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    def run(folder: Path, **how: object) -> Trainer:
        made = trainer(folder, accumulate=accumulate, scheduler=None, schedule_every="epoch")
        made.scheduler = ReduceLROnPlateau(made.optimizer, patience=0, factor=0.5)
        made.fit(loader(), epochs=5, validate_every=every, **{"validation": BATCHES, **how})  # type: ignore[arg-type]
        return made

    undisturbed = run(tmp_path / "whole")
    assert run(tmp_path / "run", validation=Validation(BATCHES)).interrupted
    resumed = run(tmp_path / "run", resume=True)
    assert same(numbers(resumed), numbers(undisturbed))
    rows = [[{**row, "seconds": 0} for row in made.history] for made in (undisturbed, resumed)]
    assert rows[0] == rows[1]
