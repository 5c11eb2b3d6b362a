"""What each model of the zoo is: `CARDS["lenet"]` says what it was trained on, how, and how good it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        name: of the function of `zoo` that gives the model.
        about: what it is.
        data: what it was trained on, from whom.
        terms: under which terms weights and data stand.
        metric: what `figure` is: "accuracy" (a fraction) or "loss" (nats a token); `on`: what it was measured on.
        figure: what the shipped weights reach there.
        shipped: the same on the data that ship, None if none do.
        inputs: what it takes and gives.
        made_by: the command that trained it; `seconds`: how long that took on two cores.

    >>> from tinytorch import zoo
    >>> zoo.CARDS["lenet"].figure > 0.99
    True
    """

    name: str
    about: str
    data: str
    terms: str
    metric: str
    on: str
    figure: float
    shipped: float | None
    inputs: str
    made_by: str
    seconds: int


_WEIGHTS = "The weights are passed on under tinytorch's MIT licence."

CARDS = {card.name: card for card in (
    Card("lenet", "LeNet-5 with ReLU and max pooling, for handwritten digits 28×28.",
         "MNIST, 60,000 digits, nine tenths to learn from (Y. LeCun, C. Cortes, C. Burges).",
         f"{_WEIGHTS} MNIST is given as CC BY-SA 3.0.",
         "accuracy", "the 10,000 test digits of MNIST", 0.9930, 0.9940,
         "f32 (n, 1, 28, 28), (pixel / 255 - 0.1307) / 0.3081; gives logits (n, 10)",
         "python scripts/train_zoo.py lenet", 32),
    Card("cnn", "Five convolutions with batch norm, for photographs 32×32 in ten classes.",
         "CIFAR-10, 50,000 photographs, 48,000 to learn from (A. Krizhevsky, 2009).",
         f"{_WEIGHTS} CIFAR-10 is published without a statement of terms, for research.",
         "accuracy", "the 10,000 test photographs of CIFAR-10", 0.8191, None,
         "f32 (n, 3, 32, 32), pixel / 255 less the mean of the channel over its deviation; gives logits (n, 10)",
         "python scripts/train_zoo.py cnn", 124),
    Card("gpt", "A GPT of 4 layers, 128 wide, that writes like Shakespeare, a character at a time.",
         "tinyshakespeare, the first 90 % of a million characters (A. Karpathy, 2015).",
         f"{_WEIGHTS} The plays are in the public domain.",
         "loss", "the last 10 % of tinyshakespeare, which ships", 1.7721, 1.7721,
         "tokens (n, up to 64) of `zoo.tokenizer()`; gives logits (n, time, 65)",
         "python scripts/train_zoo.py gpt", 33),
)}
