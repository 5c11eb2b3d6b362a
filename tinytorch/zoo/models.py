"""The models of the zoo, built and filled with their weights: `lenet()`, `cnn()`, `gpt()`.

They are those of the examples, layer by layer; `scripts/train_zoo.py` trains them with the examples' own functions.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import as_file, files
from typing import TypeVar

from tinytorch import nn
from tinytorch.ir.serialize import read_tensors
from tinytorch.tensor import Tensor
from tinytorch.text import CharTokenizer

M = TypeVar("M", bound=nn.Module)


def lenet() -> nn.Module:
    """LeNet-5 (LeCun et al., 1998), trained on MNIST: logits (n, 10) of normalised digits f32 (n, 1, 28, 28).

    >>> from tinytorch import zoo
    >>> sum(p.size for p in zoo.lenet().parameters())
    61706
    """
    return _filled("lenet", nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),  # (6, 14, 14)
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),  #           (16, 5, 5)
        nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)))


def cnn() -> nn.Module:
    """The CNN of examples/alexnet_2012, trained on CIFAR-10: logits (n, 10) of photographs f32 (n, 3, 32, 32).

    >>> from tinytorch import zoo
    >>> sum(p.size for p in zoo.cnn().parameters())
    367338
    """
    return _filled("cnn", nn.Sequential(
        *_convolution(3, 32), nn.MaxPool2d(2),  #  (32, 16, 16)
        *_convolution(32, 64), nn.MaxPool2d(2),  # (64, 8, 8)
        *_convolution(64, 128), *_convolution(128, 128),
        *_convolution(128, 96), nn.MaxPool2d(2),  # (96, 4, 4)
        nn.Flatten(),
        nn.Linear(96 * 4 * 4, 10)))


def gpt() -> nn.GPT:
    """A character GPT (Radford et al., 2018), trained on tinyshakespeare: logits (n, time, 65) of up to 64 tokens.

    >>> from tinytorch import zoo
    >>> print(zoo.tokenizer().decode(zoo.gpt().generate(zoo.tokenizer().encode("KING RICH")[None], 7, 0.0).numpy()[0]))
    KING RICHARD III
    """
    config = nn.GPTConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, bias=False)
    return _filled("gpt", nn.GPT(config), tied=("lm_head.weight",))


def tokenizer() -> CharTokenizer:
    """The tokeniser of `gpt`: the 65 characters of tinyshakespeare.

    >>> from tinytorch import zoo
    >>> zoo.tokenizer().vocab_size
    65
    """
    return CharTokenizer(json.loads(_read("gpt")[1]["figures"])["vocabulary"])


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


@cache
def _read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with as_file(files(__package__).joinpath("weights", f"{name}.safetensors")) as path:
        arrays, metadata = read_tensors(path)
    return {key: Tensor(array) for key, array in arrays.items()}, metadata


def _filled(name: str, model: M, tied: tuple[str, ...] = ()) -> M:
    """`model` with the weights of that name; `tied` are others' tensors, so that the file has them once."""
    keys = model.load_state_dict(_read(name)[0], strict=not tied)
    assert set(keys.missing_keys) <= set(tied) and not keys.unexpected_keys, keys
    return model.eval()
