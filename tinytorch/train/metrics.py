"""Measure a model: accuracy, top-k accuracy, confusion matrix, perplexity, and means weighted by batch size.

    >>> from tinytorch.train import Accuracy
    >>> metric = Accuracy()
    >>> metric.update([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    >>> metric.update([[0.3, 0.7]], [1])
    >>> round(metric.compute(), 4)
    0.6667

A metric gathers counts batch by batch (`update`), gives the number for all of them (`compute`), and starts anew
(`reset`). So a smaller last batch counts for as much as it holds. Outputs are scores with the classes on axis 1, as a
loss takes them: (batch, classes) or (batch, classes, …), with integer labels (batch, …). Without data the result is
NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.ir.errors import DTypeError, OpError, ShapeError

if TYPE_CHECKING:
    from rich.table import Table

Array = np.ndarray


class Metric:
    """The base: `update` with each batch, `compute` at the end, `reset` to start again.

    Attributes:
        name: the key under which `Trainer.evaluate` gives the result.

    >>> issubclass(Accuracy, Metric), Accuracy().name
    (True, 'accuracy')
    """

    name = "metric"

    def update(self, output: Any, target: Any) -> None:
        """Count a batch: scores (batch, classes, …) and labels (batch, …), as tensors, arrays or lists."""
        raise NotImplementedError

    def compute(self) -> Any:
        """The result for all batches since `reset`."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError


class Mean(Metric):
    """Σ weight · value / Σ weight: of losses, with the batch size as weight.

    >>> mean = Mean(); mean.update(1.0, 3); mean.update(5.0, 1); mean.compute()
    2.0
    """

    name = "mean"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.total = self.weight = 0.0

    def update(self, output: Any, target: Any = 1.0) -> None:
        """Add the value `output`, which counts `target` times."""
        self.total += float(output) * float(target)
        self.weight += float(target)

    def compute(self) -> float:
        """The mean; NaN if there is nothing."""
        return self.total / self.weight if self.weight else float("nan")


class TopKAccuracy(Mean):
    """The share of labels that are among the k classes with the highest scores; among equal scores the first win.

    Args:
        k: how many classes count.
        ignore_index: labels that are not counted, as in `cross_entropy`.

    >>> metric = TopKAccuracy(2)
    >>> metric.update([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1]], [1, 2]); metric.compute()
    0.5
    """

    def __init__(self, k: int = 5, ignore_index: int = -100) -> None:
        if k < 1:
            raise OpError(f"TopKAccuracy(k={k}): expected k ≥ 1")
        super().__init__()
        self.k, self.ignore_index, self.name = k, ignore_index, f"top_{k}_accuracy"

    def update(self, output: Any, target: Any = None) -> None:
        """Count a batch of scores (batch, classes, …) and labels (batch, …)."""
        scores, labels = rows(output, target, self.ignore_index)
        if self.k == 1:
            hits = scores.argmax(1) == labels
        else:
            best = np.argsort(-scores, axis=1, kind="stable")[:, :self.k]
            hits = (best == labels[:, None]).any(1)
        self.total += float(hits.sum())
        self.weight += len(labels)


class Accuracy(TopKAccuracy):
    """The share of labels that have the highest score. One score a sample (batch,) or (batch, 1) is a logit of two
    classes: above 0 means class 1.

    >>> metric = Accuracy(); metric.update([[0.1, 0.9], [0.8, 0.2]], [1, 1]); metric.compute()
    0.5
    """

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__(1, ignore_index)
        self.name = "accuracy"


class ConfusionMatrix(Metric):
    """How often label i (row) was taken for class j (column), as integers (classes, classes).

    Args:
        classes: their names, or how many there are.
        ignore_index: labels that are not counted.

    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, 1]); matrix.compute()
    array([[0, 0],
           [1, 2]])
    """

    name = "confusion_matrix"

    def __init__(self, classes: int | Sequence[str], ignore_index: int = -100) -> None:
        self.labels = [str(i) for i in range(classes)] if isinstance(classes, int) else [str(c) for c in classes]
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """All counts are 0 again."""
        self.counts = np.zeros((len(self.labels),) * 2, np.int64)

    def update(self, output: Any, target: Any) -> None:
        """Count a batch of scores (batch, classes, …) and labels (batch, …)."""
        scores, labels = rows(output, target, self.ignore_index)
        size = len(self.labels)
        if scores.shape[1] != size:
            raise ShapeError(f"ConfusionMatrix of {size} classes: the scores are for {scores.shape[1]}")
        pairs = labels * size + scores.argmax(1)
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def compute(self) -> Array:
        """The counts so far."""
        return self.counts.copy()

    def table(self) -> Table:
        """For the terminal: right answers green, mistakes red, and how many of each label were recognised.

        Long names stand before the rows, with the numbers that head the columns; of more than 12 classes each row tells
        the most frequent mistakes.
        """
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        wide, short = len(self.labels) > 12, all(len(label) <= 5 for label in self.labels)
        heads = ["taken for"] if wide else self.labels if short else [str(i) for i in range(len(self.labels))]
        made.add_column("true" if wide else Text("true \\ said"))
        for head in ("recall", *heads) if wide else (*heads, "recall"):
            made.add_column(Text(head), justify="left" if head == "taken for" else "right", no_wrap=not wide)
        for i, (label, counts) in enumerate(zip(self.labels, self.counts, strict=True)):
            recall = f"{100 * counts[i] / counts.sum():.1f} %" if counts.sum() else "–"
            name = Text(label if wide or short else f"{i} {label}", "bold")
            if wide:
                made.add_row(name, recall, Text(self._mistakes(i), "red"))
                continue
            cells = [Text(str(n), "green" if i == j else "red" if n else "dim") for j, n in enumerate(counts)]
            made.add_row(name, *cells, recall)
        return made

    def _mistakes(self, i: int) -> str:
        """What label i was most often taken for."""
        wrong = [j for j in np.argsort(-self.counts[i], kind="stable")[:4] if j != i and self.counts[i, j]]
        return ", ".join(f"{self.labels[j]} {self.counts[i, j]}" for j in wrong[:3])

    def picture(self, path: str | Path) -> Path:
        """Draw it, each row as shares of its label, into a .png or .svg file; without numbers if there are many."""
        from matplotlib.figure import Figure

        size = len(self.labels)
        shares = self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)
        figure = Figure(figsize=(min(max(3.0, 0.5 * size + 1.5), 16.5),) * 2, layout="constrained")
        axes = figure.add_subplot(xlabel="said", ylabel="true")
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        shown = range(0, size, -(-size // 60))  # more names would lie on each other
        axes.set_xticks(shown, [self.labels[i] for i in shown], rotation=45, ha="right")
        axes.set_yticks(shown, [self.labels[i] for i in shown])
        for i, j in np.argwhere(self.counts) if size <= 30 else ():
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(self.counts[i, j]), ha="center", va="center", color=colour, fontsize=8)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=144)
        return target


class Perplexity(Mean):
    """exp of the mean negative log likelihood, of logits (batch, classes, …) and labels (batch, …).

    >>> metric = Perplexity(); metric.update([[0.0, 0.0, 0.0, 0.0]], [2]); metric.compute()
    4.0
    """

    name = "perplexity"

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def update(self, output: Any, target: Any = None) -> None:
        """Count a batch of logits (batch, classes, …) and labels (batch, …)."""
        scores, labels = rows(output, target, self.ignore_index)
        scores = scores.astype(np.float64)
        top = scores.max(1, keepdims=True, initial=-np.inf)
        logs = np.log(np.exp(scores - top).sum(1)) + top[:, 0]  # log Σ eˢ
        self.total += float((logs - np.take_along_axis(scores, labels[:, None], 1)[:, 0]).sum())
        self.weight += len(labels)

    def compute(self) -> float:
        """The perplexity; NaN if there is nothing."""
        return float(np.exp(super().compute()))


def accuracy(output: Any, target: Any) -> float:
    """The share of right answers in one batch.

    >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    return _of_one(Accuracy(), output, target)


def top_k_accuracy(output: Any, target: Any, k: int = 5) -> float:
    """The share of one batch whose label is among the k highest scores.

    >>> top_k_accuracy([[0.1, 0.2, 0.7]], [1], k=2)
    1.0
    """
    return _of_one(TopKAccuracy(k), output, target)


def confusion_matrix(output: Any, target: Any) -> Array:
    """Counts (label, class said) of one batch.

    >>> confusion_matrix([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    array([[0, 0],
           [1, 1]])
    """
    metric = ConfusionMatrix(max(2, np.shape(np.asarray(output))[1] if np.ndim(output) > 1 else 2))
    metric.update(output, target)
    return metric.compute()


def perplexity(output: Any, target: Any) -> float:
    """exp of the mean negative log likelihood of one batch.

    >>> perplexity([[0.0, 0.0]], [1])
    2.0
    """
    return _of_one(Perplexity(), output, target)


def rows(output: Any, target: Any, ignore_index: int = -100) -> tuple[Array, Array]:
    """Scores (n, classes) and labels (n,), one row for each label that counts.

    Raises:
        ShapeError: scores and labels do not belong together.
        DTypeError: labels are not integers.
        IndexError: a label is not one of the classes.
    """
    scores, labels = np.asarray(output), np.asarray(target)
    if labels.dtype.kind not in "iub":
        raise DTypeError(f"a metric over labels of {labels.dtype}: expected integers, the numbers of classes")
    if scores.ndim <= 1 or (scores.shape == (*labels.shape[:1], 1) and labels.ndim == 1):  # logits of two classes
        scores = np.stack([np.zeros_like(scores), scores], -1).reshape(-1, 2)
    else:
        scores = np.moveaxis(scores, 1, -1)
        if scores.shape[:-1] != labels.shape:
            raise ShapeError(f"a metric over scores {np.shape(output)} and labels {labels.shape}: expected "
                             "(batch, classes, …) and (batch, …)")
        scores = scores.reshape(-1, scores.shape[-1])
    labels = labels.reshape(-1).astype(np.int64)
    if len(labels) != len(scores):
        raise ShapeError(f"a metric over scores {np.shape(output)} and labels {np.shape(target)}: not the same number")
    counted = labels != ignore_index
    scores, labels = scores[counted], labels[counted]
    if len(labels) and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise IndexError(f"a metric over labels {labels.min()} … {labels.max()}: there are {scores.shape[1]} classes")
    return scores, labels


def _of_one(metric: Metric, output: Any, target: Any) -> float:
    metric.update(output, target)
    return float(metric.compute())
