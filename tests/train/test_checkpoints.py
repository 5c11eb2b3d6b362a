"""Checkpoints that meet trouble: a full disk, a damaged file, another model. Nothing is lost, and it is said."""

import contextlib
import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
from small_runs import BATCHES, loader, numbers, same, trainer

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import FormatError, OpError
from tinytorch.optim.lr_scheduler import StepLR
from tinytorch.train import CheckpointError, Checkpoints, ConfusionMatrix, LambdaCallback, NonFiniteError, Trainer
from tinytorch.train.checkpoint import read


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these runs."""
    monkeypatch.setattr("tinytorch.train.trainer.draw_curves", lambda *args: None)


def names(folder: Path) -> list[str]:
    """What stands in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    trainer(tmp_path, checkpoint_every=2, keep=2).fit(loader(), steps=9)
    assert names(tmp_path) == ["log.jsonl", "step-00000008.safetensors", "step-00000009.safetensors"]
    trainer(tmp_path / "all", checkpoint_every=1, keep=None).fit(loader(), steps=5)
    assert len(Checkpoints(tmp_path / "all").paths()) == 5
    trainer(tmp_path / "micro", checkpoint_every=1, keep=None, accumulate=3).fit(loader(), epochs=2)
    assert len(Checkpoints(tmp_path / "micro").paths()) == 4, "the update of an epoch's last batches has one, too"


def test_a_fresh_run_does_not_overwrite_an_older_one(tmp_path: Path) -> None:
    trainer(tmp_path).fit(loader(), steps=2)
    with pytest.raises(OpError, match="resume=True"):
        trainer(tmp_path).fit(loader(), steps=2)
    assert names(tmp_path) == ["log.jsonl", "step-00000002.safetensors"]
    trainer(tmp_path).fit(loader(), steps=1, overwrite=True)
    assert names(tmp_path) == ["log.jsonl", "step-00000001.safetensors"]
    trainer(tmp_path).fit(loader(), steps=3, overwrite=True, resume=True)  # to resume comes first
    assert len(names(tmp_path)) == 3
    assert trainer(tmp_path / "none yet").fit(loader(), steps=2, resume=True).step == 2
    with pytest.raises(OpError, match="directory"):
        trainer().fit(loader(), steps=2, resume=True)
    with pytest.raises(FormatError, match="cannot be read"):
        trainer().fit(loader(), steps=2, resume=tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_of_damaged_checkpoints_the_one_before_is_used(damage: str, tmp_path: Path) -> None:
    trainer(tmp_path, checkpoint_every=2).fit(loader(), steps=6)
    newest = Checkpoints(tmp_path).paths()[0]
    content = newest.read_bytes()
    middle = len(content) - 40  # among the tensors
    newest.write_bytes({"truncated": content[:middle], "empty": b"",
                        "altered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]}[damage])
    with pytest.raises(FormatError):
        read(newest)
    resumed = trainer(tmp_path)
    with pytest.warns(UserWarning, match=r"damaged, going on from step-00000004"):
        resumed.fit(loader(), steps=8, resume=True)
    assert resumed.step == 8
    for path in Checkpoints(tmp_path).paths():
        path.write_bytes(b"")
    with pytest.raises(FormatError, match="no checkpoint is whole"):
        trainer(tmp_path).fit(loader(), steps=8, resume=True)


def other_runs() -> dict[str, Trainer]:
    """Runs that a checkpoint of the usual one does not fit, each in another part."""

    def build(net: Any, parameters: Any) -> Trainer:
        opt = optim.AdamW(parameters, lr=0.01)
        return Trainer(net, opt, nn.CrossEntropyLoss(), progress=False, ema=0.8, scheduler=StepLR(opt, 3))

    wide, deep, usual = nn.Sequential(nn.Linear(6, 9)), nn.Sequential(*small_runs.model(), nn.ELU()), small_runs.model()
    return {"expected (9, 6), got": build(wide, wide.parameters()),
            "nothing was changed": build(nn.ModuleList([deep]), deep.parameters()),
            "groups": build(usual, list(usual.parameters())[:2]),
            "a ema": trainer(ema=None), "a scheduler": trainer(scheduler=None)}


@pytest.mark.parametrize("words", other_runs())
def test_checkpoint_of_another_run_changes_nothing(words: str, tmp_path: Path) -> None:
    trainer(tmp_path).fit(loader(), steps=3)
    path = Checkpoints(tmp_path).paths()[0]
    other = other_runs()[words]
    before, random = numbers(other), tt.random.default_generator.state.item()
    with pytest.raises(FormatError, match=rf"nothing was changed(.|\n)*{re.escape(words)}|{words}"):
        other.fit(loader(), steps=9, resume=path)
    assert {name for name, array in numbers(other).items() if not np.array_equal(array, before[name])} == set()
    assert tt.random.default_generator.state.item() == random


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    tt.save({"weight": tt.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(FormatError, match="not a checkpoint"):
        trainer().load(tmp_path / "weights.safetensors")


def test_a_rejected_checkpoint_leaves_the_log_alone(tmp_path: Path) -> None:
    trainer(tmp_path).fit(loader(), steps=4)
    written = (tmp_path / "log.jsonl").read_text()
    with pytest.raises(FormatError):
        trainer(tmp_path, ema=None).fit(loader(), steps=6, resume=True)
    assert written and (tmp_path / "log.jsonl").read_text() == written


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(tmp_path, checkpoint_every=2)
    run.fit(loader(), steps=4)
    kept, content = names(tmp_path), Checkpoints(tmp_path).paths()[0].read_bytes()
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write(path, content[:len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(CheckpointError, match=r"No space left.*newest is step-00000004") as caught:
            run.fit(loader(), steps=8, resume=True)
    assert caught.value.errno == errno.ENOSPC and isinstance(caught.value, OSError)
    assert names(tmp_path) == kept and Checkpoints(tmp_path).paths()[0].read_bytes() == content
    assert run.step == 6 and run.save().name == "step-00000006.safetensors"  # there is room again
    other = trainer(tmp_path)
    other.load(tmp_path / "step-00000006.safetensors")
    assert same(numbers(other), numbers(run))


def test_a_limit_of_the_system(tmp_path: Path) -> None:
    text = json.dumps({"directory": str(tmp_path), "compile": False, "options": {"checkpoint_every": 2, "keep": None}})
    code = ("import resource, sys, small_runs; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); "
            "small_runs.main(sys.argv[1])")
    run = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True,
                         cwd=Path(small_runs.__file__).parent)
    assert run.returncode == 1 and "CheckpointError" in run.stderr and "cannot be written" in run.stderr
    assert names(tmp_path) == ["log.jsonl"]


def test_half_written_files_are_swept_and_a_broken_log_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.safetensors.1.2.part").write_bytes(b"half")
    (tmp_path / "notes.part").write_text("not ours")
    (tmp_path / "log.jsonl").mkdir()
    with pytest.warns(UserWarning, match="log cannot be written"):
        trainer(tmp_path).fit(loader(), steps=2)
    assert names(tmp_path) == ["log.jsonl", "notes.part", "step-00000002.safetensors"]


def test_a_model_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.fit(loader(), steps=2)
    with tt.no_grad():
        run.model[3].weight[0, 0] = np.inf
    with pytest.raises(NonFiniteError, match=r"3\.weight of module 3 \(Linear\) has 1 inf among 24"):
        run.save()
    assert len(Checkpoints(tmp_path).paths()) == 1


def test_arrays_in_the_history(tmp_path: Path) -> None:
    runs = [trainer(tmp_path, metrics=[ConfusionMatrix(3)]) for _ in range(2)]
    for run in runs:
        run.fit(loader(), epochs=1, validation=BATCHES, resume=True)
        matrix = run.history[-1]["val_confusion_matrix"]
        assert type(matrix) is np.ndarray and matrix.sum() == 26
        row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
        assert row["val_confusion_matrix"] == matrix.tolist()


def test_a_picture_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tinytorch.train.trainer.draw_curves", fails)
    with pytest.warns(UserWarning, match=r"curves.png.*No space left"):
        assert trainer(tmp_path).fit(loader(), steps=1).checkpoint is not None


def test_callbacks_are_found_again_by_class(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.fit(loader(), epochs=2, validation=BATCHES)
    seen: Any = trainer(tmp_path).callbacks[0]
    second = trainer(tmp_path)
    second.callbacks.insert(0, small_runs.LambdaCallback())
    second.fit(loader(), epochs=2, validation=BATCHES, resume=True)
    assert second.callbacks[1].best == first.callbacks[0].best is not None and seen.best is None  # type: ignore[attr-defined]


def test_one_run_at_a_time_in_a_directory(tmp_path: Path) -> None:
    def second(run: Trainer) -> None:
        with pytest.raises(OpError, match="another run trains in"):
            trainer(tmp_path).fit(loader(), steps=2, resume=True)

    first = trainer(tmp_path, callbacks=[LambdaCallback(on_step_end=second)])
    assert first.fit(loader(), steps=2).step == 2
    assert trainer(tmp_path).fit(loader(), steps=3, resume=True).step == 3  # the claim has ended with the run


def test_a_directory_that_cannot_be_written_is_known_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    run = trainer(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"no checkpoint can be written there.*directory=…"):
        run.fit(loader(), steps=2)
    assert run.step == 0


def test_any_altered_bit_of_names_and_values_is_noticed(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save({"a": [1, (2.5, None)], "weight": tt.ones(2)}, 1)
    whole = path.read_bytes()
    for place in range(8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        with contextlib.suppress(FormatError):
            found = read(path)
            parts = found["a"], found["weight"].tolist(), list(found)
            assert parts == ([1, (2.5, None)], [1.0, 1.0], ["a", "weight"]), place
