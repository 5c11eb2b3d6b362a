"""A run that was killed and resumed ends in the same bits as one that was not; each part of a checkpoint matters."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
from small_runs import BATCHES, loader, numbers, same, trainer

from tinytorch.train import LambdaCallback, Trainer, state

STEPS = 12
MODES = [(compiled, accumulate) for compiled in (False, True) for accumulate in (1, 3)]
each_mode = pytest.mark.parametrize(("compiled", "accumulate"), MODES)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these runs."""
    monkeypatch.setattr("tinytorch.train.trainer.draw_curves", lambda *args: None)


class Killed(Exception):
    """Stands for a SIGKILL inside one process: nothing of the trainer is used afterwards."""


def killed_at(step: int) -> LambdaCallback:
    """A callback that ends the run amid a step."""

    def kill(run: Trainer) -> None:
        if run.step == step:
            raise Killed

    return LambdaCallback(on_step_end=kill)


def whole(compiled: bool, accumulate: int, tmp_path: Path, **options: Any) -> Trainer:
    """The run that nobody disturbs; it writes checkpoints as the other does."""
    run = trainer(tmp_path / "whole", compile=compiled, accumulate=accumulate, checkpoint_every=1, **options)
    run.fit(loader(), steps=STEPS, validation=BATCHES)
    return run


@each_mode
def test_killed_and_resumed_is_the_same_bit_for_bit(compiled: bool, accumulate: int, tmp_path: Path) -> None:
    undisturbed = whole(compiled, accumulate, tmp_path)
    kills = (2, 7) if compiled else (1, 2, 3, 4, 5, 8, 11)
    for kill in kills:  # step 4 ends an epoch of 4 batches, step 2 one of 2 updates (of 3 batches and of 1)
        folder = tmp_path / str(kill)
        with pytest.raises(Killed):
            trainer(folder, compile=compiled, accumulate=accumulate, checkpoint_every=1,
                    callbacks=[killed_at(kill)]).fit(loader(), steps=STEPS, validation=BATCHES)
        resumed = trainer(folder, compile=compiled, accumulate=accumulate, checkpoint_every=1)
        result = resumed.fit(loader(), steps=STEPS, validation=BATCHES, resume=True)
        assert result.step == STEPS and same(numbers(resumed), numbers(undisturbed)), f"killed at step {kill}"
        timeless = [[{key: value for key, value in row.items() if key != "seconds"} for row in run.history]
                    for run in (resumed, undisturbed)]
        assert timeless[0] == timeless[1]
        written = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in written] == [row["step"] for row in resumed.history]


def test_checkpoints_far_apart_and_at_epochs(tmp_path: Path) -> None:
    for every in (None, 5):
        undisturbed = trainer(tmp_path / f"whole{every}", checkpoint_every=every)
        undisturbed.fit(loader(), epochs=3, validation=BATCHES)
        folder = tmp_path / f"killed{every}"
        with pytest.raises(Killed):
            trainer(folder, checkpoint_every=every, callbacks=[killed_at(7)]).fit(loader(), epochs=3,
                                                                                  validation=BATCHES)
        resumed = trainer(folder, checkpoint_every=every)
        resumed.fit(loader(), epochs=3, validation=BATCHES, resume=True)
        assert resumed.step == STEPS and same(numbers(resumed), numbers(undisturbed))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_process_that_is_killed(compiled: bool, tmp_path: Path) -> None:
    undisturbed = whole(compiled, 1, tmp_path)

    def start(**said: Any) -> int:
        text = json.dumps({"directory": str(tmp_path / "run"), "compile": compiled, "steps": STEPS,
                           "options": {"checkpoint_every": 1}, **said})
        return subprocess.run([sys.executable, small_runs.__file__, text], capture_output=True).returncode

    assert start(kill=6) == -9
    assert start(resume=True, out=str(tmp_path / "end.npz")) == 0
    with np.load(tmp_path / "end.npz") as found:
        assert same(dict(found), numbers(undisturbed))


@pytest.mark.parametrize("part", ["model", "optimizer", "scheduler", "ema", "random", "data"])
def test_each_part_of_a_checkpoint_matters(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = whole(False, 1, tmp_path)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        trainer(folder, checkpoint_every=1, callbacks=[killed_at(6)]).fit(loader(), steps=STEPS, validation=BATCHES)
    resumed, gather = trainer(folder, checkpoint_every=1), state.gather
    taken = state._take
    monkeypatch.setattr(state, "_take", lambda run, kept: taken(run, {**kept, part: gather(run)[part]}))
    resumed.fit(loader(), steps=STEPS, validation=BATCHES, resume=True)
    assert not same(numbers(resumed), numbers(undisturbed)), f"the checkpoint need not have had {part}"


def test_going_further_than_the_first_limit(tmp_path: Path) -> None:
    undisturbed = whole(False, 1, tmp_path)
    trainer(tmp_path / "run").fit(loader(), steps=4)  # the limit falls on the end of an epoch
    further = trainer(tmp_path / "run")
    further.fit(loader(), steps=6, resume=True)
    further.fit(loader(), steps=STEPS, resume=True)  # the same trainer goes on, too
    assert same(numbers(further), numbers(undisturbed))
    assert further.fit(loader(), steps=STEPS, resume=True).step == STEPS


def test_a_plain_list_is_resumed_too(tmp_path: Path) -> None:
    undisturbed = trainer(tmp_path / "whole")
    undisturbed.fit(BATCHES, steps=STEPS)
    with pytest.raises(Killed):
        trainer(tmp_path / "run", checkpoint_every=1, callbacks=[killed_at(6)]).fit(BATCHES, steps=STEPS)
    resumed = trainer(tmp_path / "run")
    resumed.fit(BATCHES, steps=STEPS, resume=str(tmp_path / "run/step-00000005.safetensors"))
    assert same(numbers(resumed), numbers(undisturbed))
