"""Nine of ten weights of LeNet-5 become zero, and stay zero while the others learn to do without: within half a point.

The smallest weights of a trained network go first, in rounds: zero some, train on, zero some more (Han, Pool, Tran and
Dally, "Learning both weights and connections for efficient neural networks", 2015). Zeros would come back to life with
the next gradient, so the optimiser keeps them: the mask is the weights themselves.

Look at where the zeros are: the first convolution keeps most of its weights, the widest linear map loses nearly all.

    python examples/prune_cnn/prune_weights.py
    python examples/prune_cnn/prune_weights.py --quick      # the 5,000 digits that ship with tinytorch, seconds
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np

import tinytorch as tt
from tinytorch import data, nn, optim, zoo
from tinytorch.prune import KeepZeros, iteratively, sparsity, weights_of
from tinytorch.train import Gate, Report, Trainer

NAME = "prune_cnn/prune_weights"
AMOUNT, ROUNDS = 0.9, 3
POINTS, QUICK_POINTS = 0.5, 1.5  # of accuracy that may be lost


def train(model: nn.Module, digits: data.Dataset, epochs: int, *, lr: float = 2e-3, seed: int = 0,
          eager: bool = False) -> None:
    """Train, and leave zeros as they are."""
    loader = data.DataLoader(digits, 100, shuffle=True, drop_last=True, seed=seed)
    optimizer = KeepZeros(optim.Adam(model.parameters(), lr=lr), model)
    schedule = optim.CosineAnnealingLR(optimizer, epochs * len(loader))
    trainer = Trainer(model.train(), optimizer, nn.CrossEntropyLoss(), scheduler=schedule, compile=not eager,
                      progress=False)
    trainer.fit(loader, epochs=epochs)
    model.eval()


def accuracy(model: nn.Module, digits: tuple[np.ndarray, np.ndarray]) -> float:
    """The fraction that it gets right."""
    return zoo.score(tt.compile(model.eval()), *digits).accuracy


def main(argv: list[str] | None = None) -> int:
    """Prune, train, wind back, train again, and say whether the gates are reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="times through the digits after each round (3; with --quick 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--quick", action="store_true", help="the digits that ship")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", NAME), help="for all it writes")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    tt.manual_seed(args.seed)
    digits = data.TensorDataset(*zoo.examples("lenet", "train", full=not args.quick))
    test, epochs = zoo.examples("lenet", "test", full=not args.quick), args.epochs or (8 if args.quick else 3)
    whole = zoo.lenet()
    before, points = accuracy(whole, test), QUICK_POINTS if args.quick else POINTS

    sparse = copy.deepcopy(whole)
    iteratively(sparse, lambda model: train(model, digits, epochs, seed=args.seed, eager=args.eager), AMOUNT, ROUNDS)
    after = accuracy(sparse, test)
    print(f"{sparsity(sparse):.1%} zeros: test accuracy {before:.2%} before, {after:.2%} after")

    gates = [Gate("points of accuracy lost", 100 * (before - after), at_most=points),
             Gate("zeros", sparsity(sparse), at_least=AMOUNT - 0.001)]
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began, gates=gates,
                    figures={"accuracy before": before, "accuracy": after,
                             **{f"zeros of {path}": float((p.numpy() == 0).mean())
                                for path, p in weights_of(sparse).items()}})
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
