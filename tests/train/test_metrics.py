"""Metrics against NumPy and PyTorch, in batches of different sizes, with odd labels and bad input."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import tinytorch as tt
from tinytorch.ir.errors import DTypeError, OpError, ShapeError
from tinytorch.train import (
    Accuracy,
    ConfusionMatrix,
    Mean,
    Perplexity,
    TopKAccuracy,
    accuracy,
    confusion_matrix,
    perplexity,
    top_k_accuracy,
)

RNG = np.random.default_rng(3)
SCORES, LABELS = RNG.standard_normal((50, 7)).astype(np.float32), RNG.integers(0, 7, 50)
CUTS = (0, 20, 40, 50)


def gathered(metric: Any, scores: Any = SCORES, labels: Any = LABELS) -> Any:
    """The result over unequal batches, as tensors; after a reset, of what was there before nothing is left."""
    metric.update(scores[:3], labels[:3])
    metric.reset()
    for start, stop in pairwise(CUTS):
        metric.update(tt.tensor(scores[start:stop]), tt.tensor(labels[start:stop]))
    return metric.compute()


@pytest.mark.peers("torch")
@pytest.mark.parametrize("k", [1, 2, 5, 7, 9])
def test_top_k(k: int, peer: Callable[[str], ModuleType]) -> None:
    torch = peer("torch")
    best = torch.tensor(SCORES).topk(min(k, 7), dim=1).indices
    expected = (best == torch.tensor(LABELS)[:, None]).any(1).double().mean().item()
    assert gathered(TopKAccuracy(k)) == pytest.approx(expected, abs=1e-12)
    assert top_k_accuracy(SCORES, LABELS, k) == pytest.approx(expected, abs=1e-12)
    if k == 1:
        assert gathered(Accuracy()) == accuracy(SCORES, LABELS) == pytest.approx(expected)


def test_top_k_counts_the_first_of_equal_scores() -> None:
    assert [top_k_accuracy(np.zeros((1, 4)), [label], 2) for label in range(4)] == [1, 1, 0, 0]


@pytest.mark.peers("torch")
def test_perplexity_with_time_and_ignored_labels(peer: Callable[[str], ModuleType]) -> None:
    torch = peer("torch")
    logits, labels = RNG.standard_normal((50, 7, 4)).astype(np.float32) * 30, RNG.integers(0, 7, (50, 4))
    labels[::3, 1] = -100
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels))
    assert gathered(Perplexity(), logits, labels) == pytest.approx(loss.exp().item(), rel=1e-6)
    assert perplexity(logits, labels) == pytest.approx(loss.exp().item(), rel=1e-6)
    said = logits.argmax(1)
    assert gathered(Accuracy(), logits, labels) == pytest.approx((said == labels)[labels != -100].mean())


def test_confusion_matrix(tmp_path: Path) -> None:
    expected = np.zeros((7, 7), int)
    for label, said in zip(LABELS, SCORES.argmax(1), strict=True):
        expected[label, said] += 1
    matrix = ConfusionMatrix([f"[{c}]" for c in "abcdefg"])
    np.testing.assert_array_equal(gathered(matrix), expected)
    np.testing.assert_array_equal(confusion_matrix(SCORES, LABELS), expected)
    assert expected.trace() / 50 == pytest.approx(accuracy(SCORES, LABELS))

    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(matrix.table())
    head, first = [line.split() for line in console.export_text().splitlines() if "[a]" in line]
    assert head == ["true", "\\", "said", *(f"[{c}]" for c in "abcdefg"), "recall"]
    recall = f"{100 * expected[0, 0] / expected[0].sum():.1f}"
    assert first == ["[a]", *map(str, expected[0]), recall, "%"]
    for name in "m.png", "m.svg":
        assert matrix.picture(tmp_path / "new" / name).stat().st_size > 1000


def test_logits_of_two_classes() -> None:
    for scores in (np.array([-1.0, 2.0, 3.0]), np.array([[-1.0], [2.0], [3.0]])):
        assert accuracy(scores, np.array([0, 1, 0])) == pytest.approx(2 / 3)
    assert accuracy([1.0, -1.0], np.array([True, True])) == 0.5


def test_weighted_mean_and_nothing() -> None:
    mean = Mean()
    assert np.isnan(mean.compute()) and np.isnan(Accuracy().compute()) and np.isnan(Perplexity().compute())
    for value, weight in (2.0, 30), (4.0, 10):
        mean.update(tt.tensor(value), weight)
    assert mean.compute() == 2.5
    empty = Accuracy()
    empty.update(np.zeros((0, 3)), np.zeros(0, int))
    assert np.isnan(empty.compute())


@pytest.mark.parametrize(("scores", "labels", "error"), [
    (SCORES, LABELS[:9], ShapeError), (SCORES, LABELS + 7, IndexError), (SCORES, LABELS - 3, IndexError),
    (SCORES, LABELS.astype(float), DTypeError), (SCORES[:, :, None], LABELS, ShapeError),
    (np.zeros(4), np.zeros(3, int), ShapeError)])
@pytest.mark.parametrize("metric", [Accuracy(), TopKAccuracy(2), Perplexity(), ConfusionMatrix(7)])
def test_bad_input(scores: Any, labels: Any, error: type[Exception], metric: Any) -> None:
    with pytest.raises(error, match="metric|ConfusionMatrix"):
        metric.update(scores, labels)


def test_bad_options() -> None:
    with pytest.raises(OpError):
        TopKAccuracy(0)
    with pytest.raises(ShapeError, match="3 classes"):
        ConfusionMatrix(3).update(SCORES, LABELS)


LONG, MANY = ["Ankle boot", "T-shirt/top", *map(str, range(8))], [f"class {i}" for i in range(40)]


@pytest.mark.parametrize("names", [LONG, MANY])
def test_a_table_of_long_names_or_many_classes_fits_into_80_columns(names: list[str]) -> None:
    from rich.console import Console

    matrix = ConfusionMatrix(names)
    matrix.counts[:] = 1
    np.fill_diagonal(matrix.counts, 900)
    matrix.counts[1, 0] = 77
    console = Console(width=80, record=True, quiet=False)
    with console.capture() as shown:
        console.print(matrix.table())
    assert names[0] in shown.get() and names[1] in shown.get() and "77" in shown.get() and "…" not in shown.get()
    assert all(len(line.rstrip()) <= 80 for line in shown.get().splitlines())
    assert len(shown.get().splitlines()) <= len(names) + 4, "a row of the matrix is a line"


def test_a_picture_of_many_classes_stays_a_picture(tmp_path: Path) -> None:
    from matplotlib.image import imread

    matrix = ConfusionMatrix([f"class {i}" for i in range(300)])
    matrix.counts[:] = 1
    assert max(imread(matrix.picture(tmp_path / "many.png")).shape) <= 2500
