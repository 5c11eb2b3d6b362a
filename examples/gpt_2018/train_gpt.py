"""A small GPT learns to write like Shakespeare, one character after the other.

In 2018 Radford, Narasimhan, Salimans and Sutskever trained a transformer (Vaswani et al., 2017) on nothing but the next
word of thousands of books, and found that it had learned much else ("Improving language understanding by generative
pre-training"). What came after was above all larger.

This one reads 40,000 lines of plays, a million characters. It begins knowing nothing, not even that there are words.
Watch the samples that it writes while it learns: first the letters that are frequent, then words, then the form of a
play, with names in capitals, then nearly grammar. The loss is in nats a character: guessing among 65 costs ln 65 =
4.17, knowing how frequent each is 3.3, pairs of them 2.5.

The default is nanoGPT's recipe for a CPU (Karpathy, 2022): 4 layers, 128 wide, 64 characters of context, 2,000 batches
of 12 windows, which reaches 1.88 on the tenth of the text that was held out; the learning rate is three times theirs.
--long is a larger model with more context and dropout, for the patience of a long coffee. A run that is stopped, by
Ctrl-C or otherwise, goes on where it was with --resume.

    python examples/gpt_2018/train_gpt.py
    python examples/gpt_2018/train_gpt.py --long
    python examples/gpt_2018/train_gpt.py --quick          # a tiny model, seconds
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tinytorch as tt
from tinytorch import data, nn, optim
from tinytorch.text import CharTokenizer
from tinytorch.train import Gate, LambdaCallback, Report, Trainer

NAME = "gpt_2018/train_gpt"


@dataclass(frozen=True)
class Recipe:
    """Sizes of the model, of a batch, and of the run."""

    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    block_size: int = 64  # characters of context
    dropout: float = 0.0
    batch: int = 12
    steps: int = 2000
    lr: float = 3e-3
    gate: float = 1.88  # nats a character on the held-out text


CPU = Recipe()
LONG = Recipe(n_layer=6, n_head=6, n_embd=192, block_size=128, dropout=0.1, batch=32, steps=2500, lr=1.5e-3, gate=1.55)
QUICK = Recipe(n_layer=2, n_embd=64, block_size=32, batch=16, steps=1000, lr=6e-3, gate=2.15)


def load() -> tuple[CharTokenizer, np.ndarray, np.ndarray]:
    """The tokeniser, and the text as ids: the first 90 % to learn from, the rest to validate on."""
    text = data.tinyshakespeare()
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    cut = len(ids) * 9 // 10
    return tokenizer, ids[:cut], ids[cut:]


def build(tokenizer: CharTokenizer, recipe: Recipe) -> nn.GPT:
    """The model, with weights of its own."""
    return nn.GPT(nn.GPTConfig(tokenizer.vocab_size, recipe.block_size, recipe.n_layer, recipe.n_head, recipe.n_embd,
                               recipe.dropout, bias=False))


def train(model: nn.GPT, learn: np.ndarray, validate: np.ndarray, recipe: Recipe, *, seed: int = 0,
          every: int = 500, resume: bool = False, **options) -> Trainer:
    """AdamW as in GPT-3: weights of matrices decay, the learning rate warms up and falls along a cosine.

    Gives the trainer back, which takes the other options.
    """
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                            lr=recipe.lr, betas=(0.9, 0.99))
    schedule = optim.warmup_cosine(optimizer, warmup_steps=100, total_steps=recipe.steps, final=0.03)
    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), scheduler=schedule, clip_norm=1.0, **options)
    windows = data.DataLoader(data.TokenDataset(learn, recipe.block_size), recipe.batch, shuffle=True, seed=seed)
    trainer.fit(windows, steps=recipe.steps, validation=held_out(validate, recipe), validate_every=every, resume=resume,
                overwrite=not resume)
    return trainer


def held_out(ids: np.ndarray, recipe: Recipe) -> data.DataLoader:
    """All of a text, each character predicted once."""
    return data.DataLoader(data.TokenDataset(ids, recipe.block_size, stride=recipe.block_size), 32)


def write(model: nn.GPT, tokenizer: CharTokenizer, length: int, forward=None) -> str:
    """New text, after a line break."""
    start = tokenizer.encode("\n")[None].astype(np.int64)
    return tokenizer.decode(model.generate(start, length, temperature=0.8, top_k=40, forward=forward).numpy()[0])


def main(argv: list[str] | None = None) -> int:
    """Train, write, and say whether the gate is reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--long", action="store_true", help="the larger model, to a loss of 1.55")
    length.add_argument("--quick", action="store_true", help="a tiny model, to 2.15, in seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and the samples (0)")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    parser.add_argument("--resume", action="store_true", help="go on where a run of the same options stopped")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", NAME), help="for all it writes")
    args = parser.parse_args(argv)
    name, recipe = ("long", LONG) if args.long else ("quick", QUICK) if args.quick else ("cpu", CPU)
    checkpoints = args.output / name

    began = time.perf_counter()
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer, learn, validate = load()
    tt.manual_seed(args.seed)
    model = build(tokenizer, recipe)
    forward = None if args.eager else tt.compile(model, pipeline="infer")
    sample = LambdaCallback(on_validation_end=lambda trainer, metrics: print(write(model, tokenizer, 150, forward)))
    trainer = train(model, learn, validate, recipe, seed=args.seed, compile=not args.eager, callbacks=[sample],
                    directory=checkpoints, checkpoint_every=250, resume=args.resume)
    if trainer.interrupted:
        print("--resume goes on from there")
        return 130

    text = write(model, tokenizer, 1000, forward)
    (args.output / "sample.txt").write_text(text)
    print(text, f"\n\nthis text: {args.output / 'sample.txt'}, curves: {checkpoints / 'curves.png'}")

    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began,
                    gates=[Gate("validation loss", trainer.validation["val_loss"], at_most=recipe.gate)],
                    figures={"parameters": sum(p.size for p in model.parameters()),
                             "first call, s": trainer.compile_seconds})
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
