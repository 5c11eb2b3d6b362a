"""A multi-layer perceptron reads handwritten digits: 98 % of 10,000 it has never seen.

Back-propagation (Rumelhart, Hinton and Williams, 1986) made hidden layers trainable, and the digits of MNIST (1998)
became what everyone trained on. This network knows nothing about pictures: shuffle the pixels, in one way for all
digits, and it learns just as well. The comparison that made history stands beside it in train_lenet.py: the same data,
the same loop, and a model that knows that pixels have neighbours. (In 1998 such a network made 2.95 % errors, LeNet-5
0.95 %: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition".)

Read main() first, then train(): forward, loss, backward, step, as in any PyTorch script; `@tt.compile` turns all four
into one program. One tenth of the training digits is held out to watch the progress on; the test digits are looked at
once, at the end. mistakes.png shows those it got wrong with the greatest confidence.

    python examples/lenet_1998/train_mlp.py
    python examples/lenet_1998/train_mlp.py --quick        # the 5,000 digits that ship with tinytorch, seconds
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.progress import track

import tinytorch as tt
from tinytorch import data, nn, optim
from tinytorch.nn import functional as F
from tinytorch.train import Gate, Report

NAME = "lenet_1998/train_mlp"
GATE, QUICK_GATE = 0.98, 0.9  # of the test digits
MEAN, STD = 0.1307, 0.3081  # of the pixels of the training digits


def load(split: str, small: bool) -> data.TensorDataset:
    """Pixels (n, 1, 28, 28), scaled to mean 0 and deviation 1, and labels (n,)."""
    images, labels = data.mnist(split, small=small, download=True)
    pixels = (images.astype(np.float32) / 255 - MEAN) / STD
    return data.TensorDataset(pixels[:, None], labels.astype(np.int64))


def build() -> nn.Module:
    """784 pixels, two hidden layers, 10 logits. Dropout (2012) keeps so many weights from learning by heart."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, 10),
    )  # fmt: skip


def train(model: nn.Module, digits: data.Dataset, epochs: int, lr: float, seed: int, eager: bool = False,
          distort: Callable | None = None) -> dict:
    """The loop: `epochs` times through nine tenths of the digits. Gives figures for the report."""
    held_out, rest = data.random_split(digits, [0.1, 0.9], seed=seed)
    batches = data.DataLoader(rest, batch_size=128, shuffle=True, drop_last=True, seed=seed, transform=distort)
    optimizer = optim.Adam(model.parameters())
    schedule = optim.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * len(batches))  # up to lr, then down to 0

    @tt.compile
    def step(x, y):  # (128, 1, 28, 28), (128,)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = step.function if eager else step
    for epoch in range(1, epochs + 1):
        began, losses = time.perf_counter(), []
        model.train()
        for x, y in track(batches, f"epoch {epoch}", transient=True, disable=not sys.stdout.isatty()):
            losses.append(run(x, y).item())
            schedule.step()
        right = accuracy(predict(model, held_out, eager), held_out)
        print(f"epoch {epoch:2}: loss {np.mean(losses):.4f}, held-out accuracy {right:.4f}, "
              f"{time.perf_counter() - began:.1f} s")
    return {"held-out accuracy": right, "first call, s": 0.0 if eager else sum(step.seconds.values())}


def predict(model: nn.Module, digits: data.Dataset, eager: bool = False) -> np.ndarray:
    """The probability of each class, (n, 10)."""
    model.eval()
    forward = model if eager else tt.compile(model, pipeline="infer")
    with tt.no_grad():
        logits = [forward(x).softmax().numpy() for x, _ in data.DataLoader(digits, batch_size=500)]
    return np.concatenate(logits)


def accuracy(chances: np.ndarray, digits: data.Dataset) -> float:
    """The share of digits whose likeliest class is the right one."""
    return float(np.mean(chances.argmax(1) == labels_of(digits)))


def labels_of(digits: data.Dataset) -> np.ndarray:
    """The right answers, (n,)."""
    return np.concatenate([y.numpy() for _, y in data.DataLoader(digits, batch_size=500)])


def show_mistakes(chances: np.ndarray, digits: data.TensorDataset, path: Path) -> None:
    """The wrong answers given with the greatest confidence."""
    from matplotlib.figure import Figure

    pixels, labels = digits.tensors
    answers = chances.argmax(1)
    wrong = np.flatnonzero(answers != labels)
    wrong = wrong[np.argsort(-chances[wrong, answers[wrong]])][:32]
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axes, index in zip(figure.subplots(4, 8).flat, [*wrong, *[None] * 32]):
        axes.axis("off")
        if index is not None:
            axes.imshow(pixels[index, 0], cmap="gray_r")
            axes.set_title(f"{labels[index]}, not {answers[index]}", fontsize=9)
    figure.suptitle("wrong, and most sure of it: what it is, not what the network says")
    figure.savefig(path, dpi=100)


def prepare(argv: list[str] | None, name: str, about: str,
            epochs: int) -> tuple[argparse.Namespace, data.TensorDataset, data.TensorDataset]:
    """The arguments, the digits to learn from, and those to test with."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--epochs", type=int, help=f"times through the digits ({epochs}; with --quick 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the digits (0)")
    parser.add_argument("--quick", action="store_true", help="the few digits that ship with tinytorch")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", name), help="for all it writes")
    args = parser.parse_args(argv)
    args.epochs = args.epochs or (5 if args.quick else epochs)
    args.output.mkdir(parents=True, exist_ok=True)
    try:
        return args, load("train", args.quick), load("test", args.quick)
    except ConnectionError as error:
        parser.exit(2, f"{error}\nor: --quick, which needs no download\n")


def main(argv: list[str] | None = None) -> int:
    """Train, test, and say whether the gate is reached."""
    began = time.perf_counter()
    args, digits, test = prepare(argv, NAME, __doc__, epochs=10)
    tt.manual_seed(args.seed)
    model = build()
    figures = train(model, digits, args.epochs, 3e-3, args.seed, args.eager)
    chances = predict(model, test, args.eager)
    show_mistakes(chances, test, args.output / "mistakes.png")
    print(f"mistakes: {args.output / 'mistakes.png'}")

    gate = Gate("test accuracy", accuracy(chances, test), at_least=QUICK_GATE if args.quick else GATE)
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began, gates=[gate], figures=figures)
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
