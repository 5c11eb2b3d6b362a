"""LeNet-5 reads handwritten digits: 99 % of 10,000 it has never seen, with an eighth of the weights of that MLP.

A picture is not a list of numbers: pixels have neighbours, and a stroke is a stroke wherever it stands. LeNet-5 has
that built in. A convolution looks at 5 × 5 pixels at a time, everywhere with the same 25 weights; subsampling makes
what it found matter more than where exactly. It read cheques for banks.

What is modernised here: ReLU for the scaled tanh, max pooling for trainable averages, every feature map of the second
layer sees all of the first (theirs left some out to save time), ten logits with cross-entropy for ten radial basis
functions, Adam for their second-order method, digits shifted by a pixel at random for their distorted ones. Layers and
sizes are theirs.

The data and the training loop are those of train_mlp.py: build() and the shifts are what differs. Look at what the six
filters of the first layer have become, at what they make of a digit (filters.png), and at the mistakes (mistakes.png).

    python examples/lenet_1998/train_lenet.py
    python examples/lenet_1998/train_lenet.py --quick      # the 5,000 digits that ship with tinytorch, seconds

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86 (1998).
"""

import time
from pathlib import Path

import numpy as np
from train_mlp import MEAN, STD, accuracy, predict, prepare, show_mistakes, train

import tinytorch as tt
from tinytorch import nn
from tinytorch.data import transforms
from tinytorch.train import Gate, Report

NAME = "lenet_1998/train_lenet"
GATE, QUICK_GATE = 0.99, 0.94  # of the test digits


def build() -> nn.Module:
    """LeNet-5; the names of its layers as in the paper."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(),  # C1: (6, 28, 28)
        nn.MaxPool2d(2),  #                          S2: (6, 14, 14)
        nn.Conv2d(6, 16, 5), nn.ReLU(),  #           C3: (16, 10, 10)
        nn.MaxPool2d(2),  #                          S4: (16, 5, 5)
        nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(),  #           C5
        nn.Linear(120, 84), nn.ReLU(),  #            F6
        nn.Linear(84, 10),
    )  # fmt: skip


def show_filters(model: nn.Module, picture: np.ndarray, path: Path) -> None:
    """The six filters of the first layer, and the feature maps that they make of one picture (1, 28, 28)."""
    from matplotlib.figure import Figure

    first, bend = model[0], model[1]
    with tt.no_grad():
        maps = bend(first(picture[None])).numpy()[0]  # (6, 28, 28)
    filters = first.weight.numpy()[:, 0]  # (6, 5, 5)
    most = np.abs(filters).max()
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    above, below = figure.subplots(2, 7)
    above[0].imshow(picture[0], cmap="gray_r")
    above[0].set_title("a digit", fontsize=9)
    for number, (kernel, feature) in enumerate(zip(filters, maps), 1):
        above[number].imshow(kernel, cmap="RdBu_r", vmin=-most, vmax=most)
        above[number].set_title(f"filter {number}", fontsize=9)
        below[number].imshow(feature, cmap="gray_r")
    for axes in (*above, *below):
        axes.axis("off")
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> int:
    """Train, test, and say whether the gate is reached."""
    began = time.perf_counter()
    args, digits, test = prepare(argv, NAME, __doc__, epochs=10)
    tt.manual_seed(args.seed)
    model = build()
    shift = transforms.RandomCrop(28, padding=1, fill=-MEAN / STD)  # what comes in at the border is paper
    figures = train(model, digits, args.epochs, 4e-3, args.seed, args.eager, shift)
    chances = predict(model, test, args.eager)
    show_filters(model, test.tensors[0][0], args.output / "filters.png")
    show_mistakes(chances, test, args.output / "mistakes.png")
    print(f"pictures: {args.output / 'filters.png'}, {args.output / 'mistakes.png'}")

    gate = Gate("test accuracy", accuracy(chances, test), at_least=QUICK_GATE if args.quick else GATE)
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began, gates=[gate], figures=figures)
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
