"""Half the channels of a trained network go, and it hardly notices: less than 1.5 points of 10,000 photographs.

A trained convolutional network has more channels than its answers need; training needed them, to have a choice. Here
the half of each layer's channels with the smallest weights is removed, through the graph: the batch norm after a
convolution, the inputs of the next one, the blocks of 4 × 4 features that the last linear map reads. What is left is an
ordinary network of half the width, with the weights that matter, where a new one of that size would have random ones.
It is trained on for some epochs, with the network that it comes from as its teacher (Hinton et al., 2015).

Look at the table: right after the cut the answers are little better than guesses, whichever channels go; after training
they are nearly what they were, at a quarter of the arithmetic. And look at what the clock says, which is the point.

    python examples/prune_cnn/prune_channels.py               # CIFAR-10, 6 epochs
    python examples/prune_cnn/prune_channels.py --quick       # 1 epoch, 4 points

Source: Li, Kadav, Durdanovic, Samet, Graf, "Pruning filters for efficient ConvNets" (2017).
"""

import argparse
import time
from pathlib import Path

import numpy as np

import tinytorch as tt
from tinytorch import data, nn, optim, zoo
from tinytorch.data import transforms
from tinytorch.prune import prune
from tinytorch.train import Accuracy, Distillation, Gate, Report, Trainer

NAME = "prune_cnn/prune_channels"
POINTS, QUICK_POINTS = 1.5, 4.0  # of accuracy that may be lost
FEWER, FASTER = 2.5, 2.0  # FLOPs, and time of a batch of 64
AT_RANDOM = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])


def load() -> tuple[data.TensorDataset, data.TensorDataset]:
    """Photographs (3, 32, 32) of uint8 with labels: to learn from, and to test with."""
    learn, test = (data.cifar10(split, download=True) for split in ("train", "test"))
    return tuple(data.TensorDataset(images, labels.astype(np.int64)) for images, labels in (learn, test))


def batches(samples: data.Dataset, size: int, *first: transforms.Transform, **options) -> data.DataLoader:
    """As the network wants them."""
    numbers = [transforms.ToFloat(), transforms.Normalize(zoo.samples.MEAN, zoo.samples.STD)]
    return data.DataLoader(samples, size, transform=transforms.Compose([*first, *numbers]), **options)


def cut(model: nn.Module) -> nn.Module:
    """The network without half of its channels."""
    return prune(model, 0.5, "channels", examples=tt.zeros(1, 3, 32, 32))


def train(small: nn.Module, teacher: nn.Module, learn: data.Dataset, epochs: int, *, seed: int = 0, lr: float = 0.05,
          **options) -> Trainer:
    """Train the small one, from the labels and from what the other one says."""
    loader = batches(learn, 64, AT_RANDOM, shuffle=True, drop_last=True, seed=seed, num_workers=1)
    optimizer = optim.SGD(small.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = optim.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * len(loader), pct_start=0.2)
    loss = Distillation(teacher, nn.CrossEntropyLoss(), temperature=3.0, alpha=0.7)
    trainer = Trainer(small.train(), optimizer, loss_step=loss, scheduler=schedule, metrics=[Accuracy()], **options)
    trainer.fit(loader, epochs=epochs)
    return trainer


def accuracy(model: nn.Module, test: data.Dataset) -> float:
    """The fraction that it gets right."""
    fast, right = tt.compile(model.eval()), 0
    with tt.no_grad():
        for images, labels in batches(test, 500):
            right += int((fast(images).numpy().argmax(1) == np.asarray(labels)).sum())
    return right / len(test)


def times(models: list[nn.Module], rounds: int = 15) -> list[float]:
    """Seconds for a batch of 64, compiled: the best of many, taken in turns."""
    x, best = tt.randn(64, 3, 32, 32), [float("inf")] * len(models)
    fast = [tt.compile(model.eval()) for model in models]
    for _ in range(rounds):
        for number, function in enumerate(fast):
            function(x)
            began = time.perf_counter()
            function(x)
            best[number] = min(best[number], time.perf_counter() - began)
    return best


def main(argv: list[str] | None = None) -> int:
    """Cut, train, measure, and say whether the gates are reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="times through the photographs (6; with --quick 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--quick", action="store_true", help="one epoch")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", NAME), help="for all it writes")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    try:
        learn, test = load()
    except ConnectionError as error:
        parser.exit(2, f"{error}\n")
    tt.manual_seed(args.seed)
    whole, x = zoo.cnn(), tt.zeros(64, 3, 32, 32)
    small = cut(whole)
    before, at_once = accuracy(whole, test), accuracy(small, test)
    print(f"test accuracy {before:.2%}; right after the cut {at_once:.2%}")
    train(small, whole, learn, args.epochs or (1 if args.quick else 6), seed=args.seed, compile=not args.eager)
    after = accuracy(small, test)
    sizes = [nn.summary(model, x) for model in (whole, small)]
    slow, fast = times([whole, small])
    tt.save(small.state_dict(), args.output / "small.safetensors")

    gates = [Gate("points of accuracy lost", 100 * (before - after), at_most=QUICK_POINTS if args.quick else POINTS),
             Gate("times fewer FLOPs", sizes[0].flops / sizes[1].flops, at_least=FEWER),
             Gate("times faster, batch 64", slow / fast, at_least=FASTER)]
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began, gates=gates,
                    figures={"accuracy before": before, "accuracy after the cut": at_once, "accuracy": after,
                             "parameters": sizes[1].parameters, "ms for 64, before": 1e3 * slow,
                             "ms for 64": 1e3 * fast})
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
