"""XOR: four points that no line can separate, and a hidden layer that does it.

In 1969 Marvin Minsky and Seymour Papert proved what a perceptron cannot do. The smallest example is "exclusive or":

    (0, 0) → 0     (0, 1) → 1     (1, 0) → 1     (1, 1) → 0

A unit that adds up its inputs draws one line, and whichever line it is, at least one of the four points lies on the
wrong side: 75 % is the best that it can do. Interest in neural networks faded, although the way out was known: units
between input and output, each with a line of its own, and a last one that combines them. What was missing was a way to
train such hidden units, which back-propagation brought (Rumelhart, Hinton and Williams, 1986).

Look at boundary.png: what the lines and the network answer all over the plane (black: undecided), then what each hidden
unit says. Gradient descent finds no line at all, since to say "maybe" everywhere is a line's least loss. And look at
the bend: with nn.Identity() in place of nn.Tanh(), two layers are one line again.

    python examples/xor_1969/minsky_xor_problem.py
    python examples/xor_1969/minsky_xor_problem.py --hidden 2   # two units suffice, with some luck (--seed 4 has none)

Source: M. Minsky, S. Papert, "Perceptrons: an introduction to computational geometry", MIT Press (1969).
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from rich.progress import track

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.nn import functional as F
from tinytorch.train import Gate, Report

NAME = "xor_1969/minsky_xor_problem"
LINE_GATE, GATE = 0.75, 1.0  # a line gets at most so many right, a hidden layer at least
POINTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
TARGETS = np.array([[0], [1], [1], [0]], np.float32)


def build_line() -> nn.Module:
    """A perceptron: w · x + b."""
    return nn.Linear(2, 1)


def build_network(hidden: int) -> nn.Module:
    """The same with a layer between: lines, bent by tanh, then added up."""
    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 1))


def train(model: nn.Module, name: str, steps: int, eager: bool = False) -> float:
    """Gradient descent (Adam) on all four points at once. Gives the seconds that the first call took to compile."""
    optimizer = optim.Adam(model.parameters(), lr=0.05)

    @tt.compile
    def step(points, targets):  # (4, 2), (4, 1)
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(points), targets)
        loss.backward()
        optimizer.step()
        return loss

    run = step.function if eager else step
    for _ in track(range(steps), name, transient=True, disable=not sys.stdout.isatty()):
        loss = run(POINTS, TARGETS)
    print(f"{name}: loss {loss.item():.4f} after {steps} steps", "(ln 2 = 0.6931 is guessing)")
    return 0.0 if eager else sum(step.seconds.values())


def evaluate(name: str, model: nn.Module) -> float:
    """The share of the four points that are right: a positive answer means 1."""
    with tt.no_grad():
        answers = model(POINTS).numpy() > 0
    told = ", ".join(f"{a:.0f} xor {b:.0f} = {answer:.0f}" for (a, b), (answer,) in zip(POINTS, answers))
    print(f"{name}: {told}")
    return float(np.mean(answers == TARGETS))


def best_line(directions: int = 360, offsets: int = 401) -> nn.Module:
    """The best of all lines, tried one by one: that 75 % is the end is not for want of training."""
    angles = np.linspace(0, 2 * np.pi, directions, endpoint=False)
    weights = np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)  # (2, directions)
    biases = np.linspace(-2, 2, offsets, dtype=np.float32)
    answers = (POINTS @ weights)[:, :, None] + biases  # (4, directions, offsets)
    right = np.mean((answers > 0) == TARGETS[:, :, None], axis=0)
    margin = np.abs(answers).min(axis=0)  # of equally good ones, that which stays farthest from the points
    direction, offset = np.unravel_index((right + 0.01 * margin).argmax(), right.shape)
    line = build_line()
    line.load_state_dict({"weight": tt.tensor(weights[:, direction][None]), "bias": tt.tensor(biases[[offset]])})
    return line


def picture(models: dict[str, nn.Module], path: Path) -> None:
    """What each model answers all over the plane, and what each hidden unit says."""
    from matplotlib.figure import Figure

    ticks = np.linspace(-0.5, 1.5, 101, dtype=np.float32)
    plane = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)  # (101 · 101, 2)
    with tt.no_grad():
        maps = {name: model(plane).sigmoid().numpy()[:, 0] for name, model in models.items()}
        first, bend, _ = models["a hidden layer"]
        units = (bend(first(plane)).numpy() + 1) / 2  # (101 · 101, hidden), from -1..1 to 0..1
    maps |= {f"hidden unit {number}": unit for number, unit in enumerate(units.T, 1)}
    rows = -(-len(maps) // 4)
    figure = Figure(figsize=(11, 2.9 * rows), layout="constrained")
    for place, (name, surface) in enumerate(maps.items(), 1):
        axes = figure.add_subplot(rows, 4, place)
        axes.contourf(ticks, ticks, surface.reshape(101, 101), levels=np.linspace(0, 1, 21), cmap="RdBu_r")
        if surface.min() < 0.5 < surface.max():
            axes.contour(ticks, ticks, surface.reshape(101, 101), levels=[0.5], colors="black")
        axes.scatter(*POINTS.T, c=TARGETS[:, 0], cmap="RdBu_r", edgecolors="white", linewidths=2, s=110, vmin=0, vmax=1)
        axes.set(title=name, xticks=[0, 1], yticks=[0, 1])
    figure.suptitle("red: 1, blue: 0, black line: undecided; the points have the colours of the right answers")
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> int:
    """Train a line and a network, and say whether each does what theory says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", type=int, default=8, help="units in the hidden layer (8)")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights (0)")
    parser.add_argument("--quick", action="store_true", help="300 steps of gradient descent in place of 1,000")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", NAME), help="for all it writes")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    tt.manual_seed(args.seed)
    models = {"a line": build_line(), "a hidden layer": build_network(args.hidden)}
    steps = 300 if args.quick else 1000
    first_calls = sum(train(model, name, steps, args.eager) for name, model in models.items())
    models = {"the best of all lines": best_line(), **models}
    reached = {name: evaluate(name, model) for name, model in models.items()}
    picture(models, args.output / "boundary.png")
    print(f"the boundaries: {args.output / 'boundary.png'}")

    gates = [Gate("accuracy, a line", reached["a line"], at_most=LINE_GATE),
             Gate("accuracy, the best of all lines", reached["the best of all lines"], at_most=LINE_GATE),
             Gate("accuracy, a hidden layer", reached["a hidden layer"], at_least=GATE)]
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began, gates=gates,
                    figures={"first call, s": first_calls})
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
