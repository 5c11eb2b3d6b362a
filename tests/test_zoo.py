"""The models that ship: they are what their cards say, as good as their cards say, and data come as they want them."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, zoo
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.ir.serialize import read_tensors

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "tinytorch" / "zoo" / "weights"
NAMES = sorted(zoo.CARDS)


def model(name: str) -> nn.Module:
    """A model of the zoo, by name."""
    return getattr(zoo, name)()


def reached(name: str, *, full: bool) -> float:
    """The figure of a model's card, measured; of a fifth of the windows of text, unless `full`."""
    inputs, targets = zoo.examples(name, "test", full=full)
    if name == "gpt" and not full:
        inputs, targets = inputs[::5], targets[::5]
    return getattr(zoo.score(tt.compile(model(name), pipeline="infer"), inputs, targets, 200), zoo.CARDS[name].metric)


@pytest.mark.parametrize("name", [name for name in NAMES if zoo.CARDS[name].shipped is not None])
def test_on_what_ships_they_reach_what_their_card_says(name: str) -> None:
    assert reached(name, full=False) == pytest.approx(zoo.CARDS[name].shipped, abs=1e-4 if name != "gpt" else 0.02)


@pytest.mark.parametrize("name", ["lenet", "cnn", "gpt"])
def test_on_all_data_they_reach_what_their_card_says(name: str, full_data: Path) -> None:
    if name == "cnn" and not (full_data / "cifar-10-batches-bin").is_dir():
        pytest.skip("CIFAR-10 is not under TINYTORCH_DATA")
    assert reached(name, full=True) == pytest.approx(zoo.CARDS[name].figure, abs=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_training_measured_is_in_the_card(name: str) -> None:
    figures = json.loads(read_tensors(WEIGHTS / f"{name}.safetensors")[1]["figures"])
    measured = figures["test_accuracy" if zoo.CARDS[name].metric == "accuracy" else "validation_loss"]
    assert zoo.CARDS[name].figure == pytest.approx(measured, abs=5e-5) and zoo.CARDS[name].name == name


@pytest.mark.parametrize("name", NAMES)
def test_each_call_gives_a_model_of_its_own(name: str) -> None:
    first, second = model(name), model(name)
    assert not first.training
    with tt.no_grad():
        next(first.parameters()).zero_()
    assert next(second.parameters()).numpy().any() and next(model(name).parameters()).numpy().any()


def test_the_examples_build_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for folder, script, name in (("lenet_1998", "train_lenet", "lenet"), ("alexnet_2012", "train_cnn", "cnn")):
        sys.path.insert(0, str(ROOT / "examples" / folder))
        theirs = runpy.run_path(str(ROOT / "examples" / folder / f"{script}.py"))["build"]()
        assert repr(theirs) == repr(model(name)).replace("eval", "train")


def test_samples_and_scores_refuse_nonsense() -> None:
    with pytest.raises(OpError, match="lenet, cnn, gpt"):
        zoo.examples("resnet")
    with pytest.raises(OpError, match="'train' or 'test'"):
        zoo.examples("lenet", "valid")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="and some"):
        zoo.score(lambda x: x, np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ShapeError, match="do not go with"):
        zoo.score(lambda x: x, np.zeros((4, 2, 3), "f4"), np.zeros(4, int))


def test_a_score_is_accuracy_and_cross_entropy() -> None:
    logits, targets = np.random.default_rng(0).normal(size=(7, 5)), np.arange(7) % 5
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = zoo.score(lambda x: x, logits, targets, batch=3)
    assert found.loss == pytest.approx(-np.log(chances[range(7), targets]).mean())
    assert found.accuracy == np.mean(logits.argmax(1) == targets) and found.perplexity == np.exp(found.loss)
