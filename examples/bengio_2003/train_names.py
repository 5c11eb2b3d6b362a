"""The neural language model from which today's descend: it learns how names are spelled, and makes up new ones.

Language models used to count: how often does "a" follow "mm"? Counts say nothing about contexts that were never seen.
Bengio, Ducharme, Vincent and Jauvin gave each symbol a vector, learned with everything else, and let a network predict
the next symbol from the vectors of those before. What is known about one context then holds for similar ones, because
similar symbols get similar vectors. All of today's language models begin with such a table.

    e  =  the vectors of the last n symbols, side by side
    y  =  b + W e + U tanh(d + H e)                  logits of the next symbol

The symbols here are letters, in the paper words. Look at the loss in nats per letter: guessing uniformly costs ln 27 =
3.30, counting pairs of letters 2.46. Look at the names that it invents while it learns, and at letters.png, where those
letters are neighbours that tell the hidden layer the same: nobody told it what a vowel is.

    python examples/bengio_2003/train_names.py
    python examples/bengio_2003/train_names.py --quick      # seconds

Source: Y. Bengio, R. Ducharme, P. Vincent, C. Jauvin, "A neural probabilistic language model", JMLR 3 (2003).
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from rich.progress import track

import tinytorch as tt
from tinytorch import data, nn, optim
from tinytorch.nn import functional as F
from tinytorch.train import Gate, Report

NAME = "bengio_2003/train_names"
GATE, QUICK_GATE = 2.15, 2.22  # nats per letter of the validation names
LETTERS = ".abcdefghijklmnopqrstuvwxyz"  # the dot stands before a name begins, and where it ends
CONTEXT = 8


class LanguageModel(nn.Module):
    """Contexts (batch, CONTEXT) of symbols to logits (batch, 27); the names of the weights are the paper's."""

    def __init__(self, width: int = 24, hidden: int = 256) -> None:
        self.C = nn.Embedding(len(LETTERS), width)
        self.H = nn.Linear(CONTEXT * width, hidden)  # with d
        self.U = nn.Linear(hidden, len(LETTERS))  # with b
        self.W = nn.Linear(CONTEXT * width, len(LETTERS), bias=False)

    def forward(self, context):
        e = self.C(context).flatten(1)  # (batch, CONTEXT · width)
        return self.W(e) + self.U(self.H(e).tanh())


def load(seed: int) -> list[data.TensorDataset]:
    """Contexts and the letters that follow them: of 80 % of the names to train, 10 % to validate, 10 % to test."""
    names = list(dict.fromkeys(data.names()))  # those of girls and boys alike stand there twice: no name in two parts
    return [windows(list(part)) for part in data.random_split(names, [0.8, 0.1, 0.1], seed)]


def windows(names: list[str]) -> data.TensorDataset:
    """Each letter of each name, and the dot after, with the CONTEXT symbols before it: (n, CONTEXT) and (n,)."""
    ids = {letter: index for index, letter in enumerate(LETTERS)}
    rows = []
    for name in names:
        padded = [0] * CONTEXT + [ids[letter] for letter in name] + [0]
        rows += [padded[place : place + CONTEXT + 1] for place in range(len(name) + 1)]
    table = np.array(rows, np.int64)
    return data.TensorDataset(np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1]))


def train(model: nn.Module, letters: data.Dataset, held_out: data.Dataset, epochs: int, lr: float, seed: int,
          eager: bool = False) -> dict:
    """The loop. Gives figures for the report."""
    batches = data.DataLoader(letters, batch_size=256, shuffle=True, drop_last=True, seed=seed)
    optimizer = optim.AdamW(model.parameters(), weight_decay=0.1)
    schedule = optim.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * len(batches))  # up to lr, then down to 0

    @tt.compile
    def step(x, y):  # (256, CONTEXT), (256,)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = step.function if eager else step
    for epoch in range(1, epochs + 1):
        began, losses = time.perf_counter(), []
        for x, y in track(batches, f"epoch {epoch}", transient=True, disable=not sys.stdout.isatty()):
            losses.append(run(x, y).item())
            schedule.step()
        print(f"epoch {epoch:2}: loss {np.mean(losses):.4f}, validation {nll(model, held_out):.4f}, "
              f"{time.perf_counter() - began:.1f} s   {', '.join(invent(model, 5, seed))}")
    return {"first call, s": 0.0 if eager else sum(step.seconds.values())}


def nll(model: nn.Module, letters: data.Dataset) -> float:
    """The mean negative log-likelihood of the next letter, in nats."""
    with tt.no_grad():
        sums = [F.cross_entropy(model(x), y, reduction="sum").item()
                for x, y in data.DataLoader(letters, batch_size=4096)]
    return sum(sums) / len(letters)


def invent(model: nn.Module, count: int, seed: int) -> list[str]:
    """New names, all drawn letter by letter at once; a name that has ended only gets more dots."""
    rng = np.random.default_rng(seed)
    text = np.zeros((count, CONTEXT), np.int64)
    for _ in range(20):
        with tt.no_grad():
            chances = model(text[:, -CONTEXT:]).softmax().numpy()  # (count, 27)
        drawn = (chances.cumsum(1) < rng.random((count, 1))).sum(1).clip(max=len(LETTERS) - 1)
        ended = (text[:, -1] == 0) & (text.shape[1] > CONTEXT)
        text = np.concatenate([text, np.where(ended, 0, drawn)[:, None]], axis=1)
    return ["".join(LETTERS[symbol] for symbol in row if symbol) for row in text]


def show_letters(model: nn.Module, path: Path) -> None:
    """What each letter, when it is the last one, adds to the hidden units, in its first two principal components."""
    from matplotlib.figure import Figure

    vectors = model.C.weight.numpy()[1:]  # (26, width)
    told = vectors @ model.H.weight.numpy()[:, -vectors.shape[1] :].T  # (26, hidden)
    centred = told - told.mean(0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T  # (26, 2)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*plane.T, alpha=0)
    for letter, place in zip(LETTERS[1:], plane):
        axes.annotate(letter, place, ha="center", va="center", fontsize=16,
                      color="firebrick" if letter in "aeiouy" else "black")
    axes.set_title("what each letter tells the hidden layer (vowels in red)")
    axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> int:
    """Train, invent, and say whether the gate is reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="times through the names (10; with --quick 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order (0)")
    parser.add_argument("--quick", action="store_true", help="one epoch")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", NAME), help="for all it writes")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    letters, held_out, test = load(args.seed)
    tt.manual_seed(args.seed)
    model = LanguageModel()
    figures = train(model, letters, held_out, args.epochs or (1 if args.quick else 10), 3e-3, args.seed, args.eager)
    known = set(data.names())
    print("new names:", ", ".join(name for name in invent(model, 60, args.seed) if name not in known))
    show_letters(model, args.output / "letters.png")
    print(f"the letters: {args.output / 'letters.png'}")

    gate = Gate("validation NLL", nll(model, held_out), at_most=QUICK_GATE if args.quick else GATE)
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began, gates=[gate],
                    figures={"test NLL": nll(model, test), **figures})
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
