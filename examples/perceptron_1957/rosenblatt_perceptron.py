"""The perceptron: a weight for each pixel, one sum, one threshold. It learns to tell a 1 from a 7.

In 1957 Frank Rosenblatt described a machine that learns; in the one that was built, electric motors turned the weights.
Its rule knows no derivatives: show it an example; if it is right, change nothing; if it is wrong, add the example to
the weights, or subtract it.

    fires  =  w · x + b ≥ 0
    w      ←  w + (target - fires) · x          target, fires: 0 or 1

If a line can separate the two classes, the rule ends after finitely many mistakes (Novikoff, 1962); if none can, it
never comes to rest. Gradient descent on a smooth loss, which has become the way to train everything else, asks instead
how much each weight matters, and so also learns from examples that are right by a hair.

Look at the mistakes per epoch, at how many test digits each gets right, and at weights.png: the two sets of weights are
pictures of "ink here speaks for a 7" (red) and "… for a 1" (blue). Then try a pair that no line separates so well:

    python examples/perceptron_1957/rosenblatt_perceptron.py
    python examples/perceptron_1957/rosenblatt_perceptron.py --digits 3 8      # misses the gate
    python examples/perceptron_1957/rosenblatt_perceptron.py --quick           # the digits that ship with tinytorch

Source: F. Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the brain",
Psychological Review 65 (1958).
"""

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.progress import track

import tinytorch as tt
from tinytorch import data, nn, optim
from tinytorch.nn import functional as F
from tinytorch.train import Gate, Report

NAME = "perceptron_1957/rosenblatt_perceptron"
GATE, QUICK_GATE = 0.98, 0.96  # of the test digits


def watch(things: Iterable) -> Iterable:
    """The things, with a progress bar on a terminal."""
    return track(things, "learning", transient=True, disable=not sys.stdout.isatty())


def load(split: str, digits: tuple[int, int], small: bool) -> data.TensorDataset:
    """Two of the ten digits: pixels (n, 784) in 0..1, and targets (n, 1), 0 for the first and 1 for the second."""
    images, labels = data.mnist(split, small=small, download=True)
    chosen = np.isin(labels, digits)
    x = images[chosen].reshape(-1, 784).astype(np.float32) / 255
    return data.TensorDataset(x, (labels[chosen] == digits[1]).astype(np.float32)[:, None])


def perceptron_rule(unit: nn.Linear, digits: data.Dataset, epochs: int, seed: int, eager: bool = False) -> float:
    """Rosenblatt's rule, one digit at a time. Gives the seconds that the first call took longer, to compile."""
    examples = data.DataLoader(digits, shuffle=True, seed=seed)

    @tt.compile
    def step(pixels, target):  # (1, 784), (1, 1)
        with tt.no_grad():
            fires = (unit(pixels) >= 0).float()
            error = target - fires  # 0: right; 1: should have fired; -1: should not have
            unit.weight.add_(error * pixels)
            unit.bias.add_(error[0])
        return error.abs().sum()

    run = step.function if eager else step
    for epoch in range(1, epochs + 1):
        mistakes = sum(run(x, y).item() for x, y in watch(examples))
        print(f"  epoch {epoch}: {mistakes:.0f} mistakes in {len(digits):,} digits")
    return 0.0 if eager else sum(step.seconds.values())


def gradient_descent(unit: nn.Linear, digits: data.Dataset, epochs: int, seed: int, eager: bool = False) -> float:
    """The same unit, trained as networks are today: the threshold becomes a sigmoid, and the loss has a slope."""
    batches = data.DataLoader(digits, batch_size=32, shuffle=True, drop_last=True, seed=seed)
    optimizer = optim.SGD(unit.parameters(), lr=0.5)

    @tt.compile
    def step(pixels, targets):  # (batch, 784), (batch, 1)
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(unit(pixels), targets)
        loss.backward()
        optimizer.step()
        return loss

    run = step.function if eager else step
    for epoch in range(1, epochs + 1):
        losses = [run(x, y).item() for x, y in watch(batches)]
        print(f"  epoch {epoch}: loss {np.mean(losses):.4f}")
    return 0.0 if eager else sum(step.seconds.values())


def accuracy(unit: nn.Linear, digits: data.TensorDataset) -> float:
    """The share of digits on the right side of the line."""
    x, y = digits.tensors
    with tt.no_grad():
        fires = unit(x).numpy() >= 0
    return float(np.mean(fires == y))


def picture(units: dict[str, nn.Linear], digits: tuple[int, int], path: Path) -> None:
    """The weights, as pictures of 28 × 28 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(units), 4.2), layout="constrained")
    for axes, (name, unit) in zip(figure.subplots(1, len(units)), units.items()):
        weights = unit.weight.numpy().reshape(28, 28)
        most = np.abs(weights).max()
        axes.imshow(weights, cmap="RdBu_r", vmin=-most, vmax=most)
        axes.set_title(name)
        axes.axis("off")
    figure.suptitle(f"red: ink here speaks for a {digits[1]}, blue: for a {digits[0]}")
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> int:
    """Train both, compare, and say whether the gate is reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--digits", type=int, nargs=2, default=(1, 7), choices=range(10), metavar="0-9",
                        help="the two to tell apart (1 7)")
    parser.add_argument("--epochs", type=int, default=5, help="times through the digits (5)")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and the order (0)")
    parser.add_argument("--quick", action="store_true", help="the few digits that ship with tinytorch")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", NAME), help="for all it writes")
    args = parser.parse_args(argv)
    if args.epochs < 1 or args.digits[0] == args.digits[1]:
        parser.error("expected two different digits, and at least one epoch")
    args.output.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    try:
        digits, test = (load(split, tuple(args.digits), args.quick) for split in ("train", "test"))
    except ConnectionError as error:
        parser.exit(2, f"{error}\nor: --quick, which needs no download\n")
    units, first_calls = {}, 0.0
    for name, learn in {"perceptron rule": perceptron_rule, "gradient descent": gradient_descent}.items():
        print(name)
        tt.manual_seed(args.seed)
        units[name] = nn.Linear(784, 1)
        first_calls += learn(units[name], digits, args.epochs, args.seed, args.eager)
    picture(units, args.digits, args.output / "weights.png")
    print(f"the weights: {args.output / 'weights.png'}")

    wanted = QUICK_GATE if args.quick else GATE
    gates = [Gate(f"test accuracy, {name}", accuracy(unit, test), at_least=wanted)
             for name, unit in units.items()]
    figures = {"digits to learn from": len(digits), "test digits": len(test), "first call, s": first_calls}
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began, gates=gates, figures=figures)
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
