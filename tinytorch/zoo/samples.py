"""Data as the models of the zoo take them, and how good a model is on them.

    >>> from tinytorch import zoo
    >>> tokens, following = zoo.examples("gpt", "test")
    >>> tokens.shape, following.shape                              # windows of 64 characters, and what comes next
    ((1742, 64), (1742, 64))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tinytorch import data
from tinytorch.autograd import no_grad
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.tensor import Tensor, as_tensor

from .models import tokenizer

Array = npt.NDArray[Any]
Split = Literal["train", "test"]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training photographs, by channel
WINDOW = 64  # characters


def examples(name: str, split: Split = "test", *, full: bool = False) -> tuple[Array, Array]:
    """Inputs and the right answers for a model of the zoo.

    Args:
        name: "lenet": f32 (n, 1, 28, 28) and i64 (n,), the digits that ship unless `full`; "cnn": f32 (n, 3, 32, 32)
            and i64 (n,), for which CIFAR-10 must be there (`TINYTORCH_DATA`); "gpt": i64 (n, 64), twice.
        split: what the model has learned from, or what it has not.
        full: all of MNIST, which must be there too.
    Raises:
        OpError: no such model or split; FileNotFoundError: the data are not there, with what to do.

    >>> from tinytorch import zoo
    >>> zoo.examples("lenet", "test")[0].shape
    (1000, 1, 28, 28)
    """
    if split not in ("train", "test"):
        raise OpError(f"zoo.examples({name!r}, {split!r}): there is no such split; it is 'train' or 'test'")
    if name not in _READ:
        raise OpError(f"zoo.examples({name!r}): there is no such model; there are {', '.join(_READ)}")
    return _READ[name](split, full)


def _digits(split: Split, full: bool) -> tuple[Array, Array]:
    images, labels = data.mnist(split, small=not full)
    pixels = (images.astype(np.float32) / 255 - np.float32(0.1307)) / np.float32(0.3081)
    return pixels[:, None], labels.astype(np.int64)


def _photographs(split: Split, full: bool) -> tuple[Array, Array]:
    images, labels = data.cifar10(split)
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (MEAN, STD))
    return (images.astype(np.float32) / 255 - mean) / std, labels.astype(np.int64)


def _windows(split: Split, full: bool) -> tuple[Array, Array]:
    ids = tokenizer().encode(data.tinyshakespeare()).astype(np.int64)
    cut = len(ids) * 9 // 10
    part = ids[:cut] if split == "train" else ids[cut:]
    count = (len(part) - 1) // WINDOW
    return (part[: count * WINDOW].reshape(count, WINDOW), part[1 : count * WINDOW + 1].reshape(count, WINDOW))


_READ: dict[str, Callable[[Split, bool], tuple[Array, Array]]] = {
    "lenet": _digits, "cnn": _photographs, "gpt": _windows}


class Score(NamedTuple):
    """How good answers are: the fraction that is right, and the mean of -log p(right answer), in nats.

    >>> from tinytorch import zoo
    >>> zoo.Score(accuracy=0.99, loss=0.02).accuracy
    0.99
    """

    accuracy: float
    loss: float

    @property
    def perplexity(self) -> float:
        """exp(loss): among how many equally likely answers the model hesitates.

        >>> from tinytorch import zoo
        >>> round(zoo.Score(0.5, 0.6931472).perplexity, 3)
        2.0
        """
        return math.exp(self.loss)


def score(forward: Callable[[Any], Any], inputs: Any, targets: Any, batch: int = 100) -> Score:
    """How well `forward` (a module, a compiled or rewritten one, a function) predicts.

    Args:
        forward: gives logits (n, …, classes) of inputs (n, …).
        inputs: (n, …); targets: class numbers (n, …), as many as there are rows of logits.
        batch: how many inputs at a time; the last may be fewer.
    Raises:
        ShapeError: there are no inputs, or not as many targets.

    >>> import numpy as np
    >>> from tinytorch import zoo
    >>> zoo.score(lambda x: x, np.eye(3, dtype="f4") * 50, np.array([0, 1, 1]))
    Score(accuracy=0.66..., loss=16.66...)
    """
    if len(inputs) != len(targets) or not len(inputs):
        raise ShapeError(f"score: {len(inputs)} inputs and {len(targets)} targets; expected as many, and some")
    right, loss, count = 0, 0.0, 0
    for begin in range(0, len(inputs), batch):
        x, y = inputs[begin : begin + batch], np.asarray(targets[begin : begin + batch])
        with no_grad():
            logits = as_tensor(forward(Tensor(np.ascontiguousarray(x)))).numpy().astype(np.float64)
        if logits.shape[:-1] != y.shape:
            raise ShapeError(f"score: logits {logits.shape} do not go with targets {y.shape}")
        shifted = logits - logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(shifted, y[..., None], -1)[..., 0]
        loss += float((np.log(np.exp(shifted).sum(-1)) - chosen).sum())
        right += int((logits.argmax(-1) == y).sum())
        count += y.size
    return Score(right / count, loss / count)
