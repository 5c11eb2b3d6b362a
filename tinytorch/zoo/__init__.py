"""Small trained models that ship, to optimise, to measure and to play with: `zoo.lenet()`, `zoo.cnn()`, `zoo.gpt()`.

    >>> from tinytorch import zoo
    >>> model = zoo.lenet()                                    # trained, in evaluation mode
    >>> images, labels = zoo.examples("lenet", "test")         # the digits that ship, as the model wants them
    >>> zoo.score(model, images, labels)
    Score(accuracy=0.994, loss=0.015...)
    >>> print(zoo.CARDS["cnn"].about)
    Five convolutions with batch norm, for photographs 32×32 in ten classes.

What they were trained on, by which command, under which terms and what they reach stands in their cards, `zoo.CARDS`.
The weights are float32, as they were trained: nothing here was rounded before you do.
"""

from .cards import CARDS, Card
from .models import cnn, gpt, lenet, tokenizer
from .samples import Score, examples, score

__all__ = ["CARDS", "Card", "Score", "cnn", "examples", "gpt", "lenet", "score", "tokenizer"]
