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
    assert result.interrupted and (result.step, result.epoch) == (4, 1)
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
