"""Zeros: where patterns put them (by their definitions), what keeps them in training, schedules, rewinding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import FormatError, OpError
from tinytorch.prune import Gradually, KeepZeros, cubic, iteratively, prune, rewind, sparsity, weights_of
from tinytorch.train import Trainer

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((24, 6)).astype("f4"), RNG.integers(0, 3, 24)
BATCHES = [(X[i:i + 8], Y[i:i + 8]) for i in range(0, 24, 8)]


def network() -> nn.Sequential:
    tt.manual_seed(0)
    return nn.Sequential(nn.Embedding(4, 6), nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))


def classifier() -> nn.Sequential:
    tt.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def weights(model: nn.Module) -> list[np.ndarray]:
    return [p.numpy().copy() for p in weights_of(model).values()]


# -- where -------------------------------------------------------------------------------------------------------------


def test_the_smallest_of_all_or_of_each() -> None:
    model = network()
    model[3].weight.payload[...] *= 2
    before = weights(model)
    whole = np.concatenate([w.ravel() for w in before])
    bound = np.sort(np.abs(whole))[round(0.7 * whole.size)]
    for found, was in zip(weights(prune(model, 0.7)), before, strict=True):
        np.testing.assert_array_equal(found, np.where(np.abs(was) >= bound, was, 0))
    for found, was in zip(weights(prune(model, 0.7, scope="layer")), before, strict=True):
        bound = np.sort(np.abs(was), axis=None)[round(0.7 * was.size)]
        np.testing.assert_array_equal(found, np.where(np.abs(was) >= bound, was, 0))
    assert sparsity(model) == 0 and [w.shape for w in before] == [(40, 6), (3, 40)]  # tables are left alone


@pytest.mark.parametrize(("structure", "block"), [("blocks", (2, 16)), ("blocks", (4, 32)), ("2:4", (1, 32)),
                                                  ("1:2", (1, 1))])
def test_blocks_and_patterns(structure: str, block: tuple[int, int]) -> None:
    model = nn.Sequential(nn.Linear(8, 40), nn.Linear(40, 20))
    sparse = prune(model, 0.5, structure, block=block)
    for found, was in zip(weights(sparse), weights(model), strict=True):
        np.testing.assert_array_equal(found[found != 0], was[found != 0])
        size = block[0] if structure == "blocks" else int(structure[-1])
        for top in range(0, len(was), block[1]):
            kept = (found[top:top + block[1]] != 0).reshape(-1, was.shape[1] // size, size)
            if structure == "blocks":
                assert (kept.all((0, 2)) == kept.any((0, 2))).all()
                continue
            sums = np.abs(was[top:top + block[1]]).sum(0).reshape(-1, size)
            some = int(structure[0])
            assert (kept.all(0) == (sums >= np.sort(sums)[:, -some, None])).all()
    assert sparsity(sparse) == pytest.approx(0.5, abs=0.1)  # blocks at the edges are smaller


@pytest.mark.parametrize(("options", "match"), [
    ({"layers": ["2"]}, r"layers=\['2'\]\): expected layers with weights of two axes or more: 0, 1, 2, 3"),
    ({"layers": {"1": 0.5}}, "layers as a list of names"),
    ({"structure": "3:2"}, "expected N:M"),
    ({"structure": "2:4", "layers": ["1"]}, "1.weight has 6 inputs, which do not divide by 4"),
    ({"amount": 1.0}, "nothing of 1.weight would be left"),
    ({"amount": 0.0}, "expected 0 < amount < 1"),
])
def test_refusals(options: dict[str, Any], match: str) -> None:
    with pytest.raises(OpError, match=match):
        prune(network(), **options)


# -- how long ----------------------------------------------------------------------------------------------------------


def trained(model: nn.Module, optimizer: Any, *, compile: bool = False, directory: Path | None = None, steps: int = 4,
            **options: Any) -> nn.Module:
    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), compile=compile, directory=directory, progress=False,
                      **options)
    trainer.fit(BATCHES, steps=steps, resume=directory is not None and any(directory.iterdir()))
    return model


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_zeros_stay_while_the_others_learn(compile: bool) -> None:
    model = prune(classifier(), 0.8, scope="layer")
    before = weights(model)
    opt = KeepZeros(optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1), model)
    trained(model, opt, compile=compile)
    for found, was in zip(weights(model), before, strict=True):
        assert ((found == 0) == (was == 0)).all() and (found[was != 0] != was[was != 0]).all()


def test_zeros_stay_in_a_compiled_step() -> None:
    model = prune(nn.Linear(6, 4), 0.5)
    zero, opt = model.weight.numpy() == 0, KeepZeros(optim.SGD(model.parameters(), lr=0.1), model)

    @tt.compile
    def step(x: Any) -> None:
        opt.zero_grad()
        model(x).sum().backward()
        opt.step()

    before = model.weight.numpy().copy()
    step(X[:8])
    step(X[8:16])
    np.testing.assert_array_equal(model.weight.numpy() == 0, zero)
    assert (model.weight.numpy()[~zero] != before[~zero]).all()


def test_without_it_they_do_not() -> None:
    """Knock-out: the same training, with nobody to keep the zeros."""
    model = prune(classifier(), 0.8, scope="layer")
    trained(model, optim.AdamW(model.parameters(), lr=0.1))
    assert sparsity(model) < 0.2


def test_zeros_survive_a_checkpoint(tmp_path: Path) -> None:
    model = prune(classifier(), 0.8, scope="layer")
    trained(model, KeepZeros(optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model), directory=tmp_path, steps=3)
    fresh = classifier()  # without zeros, until the checkpoint is there
    trained(fresh, KeepZeros(optim.SGD(fresh.parameters(), lr=0.1, momentum=0.9), fresh), directory=tmp_path, steps=6)
    whole = prune(classifier(), 0.8, scope="layer")
    trained(whole, KeepZeros(optim.SGD(whole.parameters(), lr=0.1, momentum=0.9), whole), steps=6)
    assert sparsity(fresh) == pytest.approx(0.8, abs=0.01)
    for a, b in zip(weights(fresh), weights(whole), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (10, 0.1), (20, 0.9 - 0.8 * 0.125), (30, 0.9), (99, 0.9)])
def test_the_cubic_schedule(step: int, share: float) -> None:
    assert cubic(step, 10, 30, 0.9, 0.1) == pytest.approx(share)


def test_sparsity_grows_while_a_trainer_trains() -> None:
    model = classifier()
    seen: list[float] = []

    class Look(Gradually):
        def on_step_end(self, trainer: Any) -> None:
            super().on_step_end(trainer)
            seen.append(round(sparsity(model), 2))

    grow = Look(model, 0.75, begin=2, end=8, every=3, scope="layer")
    trained(model, KeepZeros(optim.SGD(model.parameters(), lr=0.1), model), callbacks=[grow], steps=9)
    assert seen == pytest.approx([0, 0, 0, 0, *[cubic(5, 2, 8, 0.75)] * 3, 0.75, 0.75], abs=0.01)
    with pytest.raises(OpError, match="0 ≤ begin < end"):
        Gradually(model, 0.5, 5, 5)


def test_rewinding_brings_back_what_was_and_keeps_the_zeros() -> None:
    model = classifier()
    early = {key: value.clone() for key, value in model.state_dict().items()}
    ticket = prune(trained(model, optim.Adam(model.parameters(), lr=0.1)), 0.5, scope="layer")
    zeros = [w == 0 for w in weights(ticket)]
    rewind(ticket, early)
    for found, zero, was in zip(weights(ticket), zeros, weights(classifier()), strict=True):
        np.testing.assert_array_equal(found, np.where(zero, 0, was))
    np.testing.assert_array_equal(ticket[0].bias.numpy(), early["0.bias"].numpy())
    with pytest.raises(FormatError, match="it has no 0.bias, 0.weight"):
        rewind(ticket, {"1.weight": early["0.weight"]})


def test_rounds() -> None:
    model, seen = classifier(), []
    early = {key: value.clone() for key, value in model.state_dict().items()}

    def train(model: nn.Module) -> None:
        seen.append(round(sparsity(model), 2))
        np.testing.assert_array_equal(*(np.abs(w[w != 0]).sum() for w in (
            weights(model)[0], np.where(weights(model)[0] == 0, 0, early["0.weight"].numpy()))))
        trained(model, KeepZeros(optim.SGD(model.parameters(), lr=0.1), model))

    iteratively(model, train, 0.875, 3, early, scope="layer")
    assert seen == [0.5, 0.75, 0.88] and sparsity(model) == pytest.approx(0.875, abs=0.01)
    with pytest.raises(OpError, match="a round at least"):
        iteratively(model, train, 0.5, 0)
