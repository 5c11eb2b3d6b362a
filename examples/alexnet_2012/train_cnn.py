"""A deep convolutional network tells aeroplanes from frogs: 75 % of 10,000 photographs it has never seen.

In 2012 a network of five convolutions and three linear maps won the ImageNet contest by ten points over everything that
was not a network (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks").
Little in it was new but its size, and what made the size trainable: ReLU, dropout, many labelled photographs made more
by cropping and mirroring them at random, and a fast machine.

This is that network for photographs of 32 × 32 pixels: five convolutions in the same order, pooling after the first,
the second and the fifth. What is modernised: batch normalisation (Ioffe and Szegedy, 2015) for their local response
normalisation and their dropout, kernels of 3 × 3, one linear map for three, and a learning rate that rises and falls
once (Smith, 2018). So five epochs suffice; theirs took ninety, of larger photographs.

Look at what the filters of the first layer make of a photograph (filters.png): some see edges in one direction, some a
colour. Look at what is taken for what (confusion.png), and at the mistakes (mistakes.png), not all of which are the
network's. A run that is stopped, by Ctrl-C or otherwise, goes on where it was with --resume.

    python examples/alexnet_2012/train_cnn.py               # CIFAR-10, 5 epochs
    python examples/alexnet_2012/train_cnn.py --quick       # 1 epoch, 60 %
"""

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console

import tinytorch as tt
from tinytorch import data, nn, optim
from tinytorch.data import transforms
from tinytorch.train import Accuracy, ConfusionMatrix, Gate, Report, Trainer

NAME = "alexnet_2012/train_cnn"
GATE, QUICK_GATE = 0.75, 0.60
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training photographs, by channel
AS_NUMBERS = [transforms.ToFloat(), transforms.Normalize(MEAN, STD)]
AT_RANDOM = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]


def load(held_out: int = 2000) -> tuple[data.Dataset, data.Dataset, data.Dataset]:
    """Photographs (3, 32, 32) of uint8 with labels: to learn from, to watch the progress on, and to test with."""
    (images, labels), test = (data.cifar10(split, download=True) for split in ("train", "test"))
    learn, watch = data.random_split(photographs(images, labels), [len(labels) - held_out, held_out], seed=0)
    return learn, watch, photographs(*test)


def photographs(images: np.ndarray, labels: np.ndarray) -> data.TensorDataset:
    """A data set of arrays."""
    return data.TensorDataset(images, labels.astype(np.int64))


def build() -> nn.Module:
    """Logits (batch, 10) of photographs (batch, 3, 32, 32)."""
    return nn.Sequential(
        *convolution(3, 32), nn.MaxPool2d(2),  #     (32, 16, 16)
        *convolution(32, 64), nn.MaxPool2d(2),  #    (64, 8, 8)
        *convolution(64, 128),  #                    (128, 8, 8)
        *convolution(128, 128),
        *convolution(128, 96), nn.MaxPool2d(2),  #   (96, 4, 4)
        nn.Flatten(),
        nn.Linear(96 * 4 * 4, 10),
    )  # fmt: skip


def convolution(inputs: int, outputs: int) -> list[nn.Module]:
    """3 × 3 pixels at a time; batch norm adds the bias."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def train(model: nn.Module, learn: data.Dataset, watch: data.Dataset, epochs: int, *, seed: int = 0,
          lr: float = 0.1, batch: int = 64, resume: bool = False, **options) -> Trainer:
    """Train with a `Trainer`, which takes the other options; gives it back."""
    batches = data.DataLoader(learn, batch, shuffle=True, drop_last=True, seed=seed, num_workers=1,
                              transform=transforms.Compose(AT_RANDOM + AS_NUMBERS))
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = optim.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * len(batches), pct_start=0.2)
    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), scheduler=schedule, metrics=[Accuracy()], **options)
    trainer.fit(batches, epochs=epochs, validation=as_they_are(watch), resume=resume, overwrite=not resume)
    return trainer


def as_they_are(samples: data.Dataset) -> data.DataLoader:
    """Batches without crops and mirrors."""
    return data.DataLoader(samples, 500, transform=transforms.Compose(AS_NUMBERS))


def show_filters(model: nn.Module, test: data.TensorDataset, path: Path) -> Path:
    """The 32 kernels of the first layer, 3 × 3 pixels in colour, and what each finds in one photograph."""
    from matplotlib.figure import Figure

    maps, _ = next(iter(as_they_are(data.Subset(test, [1]))))
    with tt.no_grad():
        for layer in list(model.eval())[:3]:  # convolution, batch norm, ReLU
            maps = layer(maps)  # (1, 32, 32, 32)
    kernels = model[0].weight.numpy().transpose(0, 2, 3, 1)  # (32, 3, 3, rgb)
    figure = Figure(figsize=(11.5, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 4))
    whole = left.subplots()
    whole.imshow(test.tensors[0][1].transpose(1, 2, 0))
    whole.axis("off")
    for axes, kernel, feature in zip(right.subplots(4, 8).flat, kernels, maps.numpy()[0]):
        axes.imshow(feature, cmap="gray_r")
        axes.axis("off")
        corner = axes.inset_axes((0, 0.66, 0.34, 0.34))
        corner.imshow((kernel - kernel.min()) / np.ptp(kernel))
        corner.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)
    return path


def show_mistakes(logits: np.ndarray, test: data.TensorDataset, path: Path) -> Path:
    """The wrong answers given with the greatest confidence."""
    from matplotlib.figure import Figure

    (images, labels), names = test.tensors, data.CIFAR10_CLASSES
    chances, answers = tt.tensor(logits).softmax().numpy().max(1), logits.argmax(1)
    wrong = np.flatnonzero(answers != labels)
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axes, index in zip(figure.subplots(3, 8).flat, wrong[np.argsort(-chances[wrong])]):
        axes.imshow(images[index].transpose(1, 2, 0))
        axes.set_title(f"{names[labels[index]]},\nnot {names[answers[index]]}", fontsize=9)
        axes.axis("off")
    figure.suptitle("wrong, and most sure of it: what it is, not what the network says")
    figure.savefig(path, dpi=100)
    return path


def main(argv: list[str] | None = None) -> int:
    """Train, test, and say whether the gate is reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="times through the photographs (5; with --quick 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order (0)")
    parser.add_argument("--quick", action="store_true", help="one epoch")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    parser.add_argument("--resume", action="store_true", help="go on where a run of the same options stopped")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", NAME), help="for all it writes")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    try:
        learn, watch, test = load()
    except ConnectionError as error:
        parser.exit(2, f"{error}\n")
    tt.manual_seed(args.seed)
    model = build()
    checkpoints = args.output / ("quick" if args.quick else "full")
    trainer = train(model, learn, watch, args.epochs or (1 if args.quick else 5), seed=args.seed,
                    compile=not args.eager, resume=args.resume, directory=checkpoints, checkpoint_every=200)
    if trainer.interrupted:
        print("--resume goes on from there")
        return 130

    confusion = ConfusionMatrix(data.CIFAR10_CLASSES)
    logits = trainer.predict(as_they_are(test))
    confusion.update(logits, test.tensors[1])
    Console().print(confusion.table())
    print("pictures:", checkpoints / "curves.png", confusion.picture(args.output / "confusion.png"),
          show_filters(model, test, args.output / "filters.png"),
          show_mistakes(logits, test, args.output / "mistakes.png"), sep="\n  ")

    accuracy = np.trace(confusion.counts) / confusion.counts.sum()
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began,
                    gates=[Gate("test accuracy", accuracy, at_least=QUICK_GATE if args.quick else GATE)],
                    figures={"held-out accuracy": trainer.validation["val_accuracy"],
                             "first call, s": trainer.compile_seconds})
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
