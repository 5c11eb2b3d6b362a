"""Train the models that ship as `tinytorch.zoo`, with the examples' own functions, on the full data.

    TINYTORCH_DATA=/data python scripts/train_zoo.py                 all three, about four minutes on two cores
    TINYTORCH_DATA=/data python scripts/train_zoo.py gpt --output .  one of them, elsewhere

Writes NAME.safetensors: the weights as float32, and in its metadata what was measured on the test data. Seeds are
fixed; the same machine gives the same bytes.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.serialize import write_tensors

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "examples" / folder) for folder in ("lenet_1998", "alexnet_2012", "gpt_2018")]

Trained = tuple[nn.Module, dict[str, Any]]


def lenet() -> Trained:
    """As examples/lenet_1998/train_lenet.py."""
    import train_lenet as example
    from train_mlp import load

    digits, test = load("train", small=False), load("test", small=False)
    tt.manual_seed(0)
    model = example.build()
    shift = example.transforms.RandomCrop(28, padding=1, fill=-example.MEAN / example.STD)
    example.train(model, digits, 10, 4e-3, 0, distort=shift)
    return model, {"test_accuracy": example.accuracy(example.predict(model, test), test)}


def cnn() -> Trained:
    """As examples/alexnet_2012/train_cnn.py."""
    import train_cnn as example

    learn, watch, test = example.load()
    tt.manual_seed(0)
    model = example.build()
    with tempfile.TemporaryDirectory() as folder:
        trainer = example.train(model, learn, watch, 5, directory=folder)
    logits = trainer.predict(example.as_they_are(test))
    return model, {"test_accuracy": float(np.mean(logits.argmax(1) == test.tensors[1]))}


def gpt() -> Trained:
    """As examples/gpt_2018/train_gpt.py."""
    import train_gpt as example

    tokenizer, learn, validate = example.load()
    tt.manual_seed(0)
    model = example.build(tokenizer, example.CPU)
    with tempfile.TemporaryDirectory() as folder:
        trainer = example.train(model, learn, validate, example.CPU, every=example.CPU.steps, directory=folder)
    return model, {"validation_loss": trainer.validation["val_loss"],
                   "vocabulary": tokenizer.decode(range(tokenizer.vocab_size))}


MODELS: dict[str, Callable[[], Trained]] = {"lenet": lenet, "gpt": gpt, "cnn": cnn}


def main() -> None:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"some of {', '.join(MODELS)} (all)")
    parser.add_argument("--output", type=Path, default=ROOT / "tinytorch" / "zoo" / "weights")
    args = parser.parse_args()
    if unknown := set(args.models) - set(MODELS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.models or MODELS:
        began = time.perf_counter()
        model, figures = MODELS[name]()
        figures["seconds"] = round(time.perf_counter() - began, 1)
        state = {key: value.numpy() for key, value in model.state_dict().items()}
        state.pop("lm_head.weight", None)  # the table of embeddings once more
        write_tensors(args.output / f"{name}.safetensors", state, {"figures": json.dumps(figures)})
        print(name, figures)


if __name__ == "__main__":
    main()
