"""A tiny run with all that a checkpoint must keep: dropout, shuffling, a schedule, averages; and a script to kill:

    python small_runs.py '{"directory": "run", "compile": true, "kill": 7}'      see `main`
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.data import DataLoader, TensorDataset
from tinytorch.optim.lr_scheduler import StepLR
from tinytorch.train import Accuracy, EarlyStopping, LambdaCallback, Trainer

RNG = np.random.default_rng(7)
X, Y = RNG.standard_normal((26, 6)).astype(np.float32), RNG.integers(0, 3, 26)
BATCHES = [(X[i:i + 8], Y[i:i + 8]) for i in range(0, 26, 8)]  # the last has 2 samples


def loader(seed: int = 5) -> Any:
    """The samples in another order each epoch."""
    return DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True, seed=seed)


def model(dropout: float = 0.3) -> Any:
    """A small classifier, the same each time."""
    tt.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(dropout), nn.ReLU(), nn.Linear(8, 3))


def trainer(directory: Any = None, *, compile: bool = False, callbacks: Any = (), dropout: float = 0.3,
            **options: Any) -> Trainer:
    """A trainer of a new model with everything on."""
    made = model(dropout)
    opt = optim.AdamW(made.parameters(), lr=0.05)
    options = {"scheduler": StepLR(opt, 3, 0.7), "ema": 0.8, "metrics": [Accuracy()], "seed": 3, "log_every": 2,
               "progress": False, "callbacks": [EarlyStopping(patience=50, restore_best=False), *callbacks], **options}
    return Trainer(made, opt, nn.CrossEntropyLoss(), compile=compile, directory=directory, **options)


def numbers(run: Trainer) -> dict[str, Any]:
    """Parameters, averages and optimiser state, copied."""
    tensors = {**dict(run.model.named_parameters()), **dict(run.optimizer.named_state()),
               **(dict(run.ema.named_state()) if run.ema else {})}
    return {name: np.array(tensor.numpy()) for name, tensor in tensors.items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether all numbers are the same, bit for bit."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def main(text: str) -> None:
    """Train in `directory` for `steps`; at step `kill` send oneself `signal` (SIGKILL); write the numbers to `out`."""
    said = {"steps": 12, "compile": True, "kill": None, "signal": "SIGKILL", "resume": False, "out": None,
            "options": {}, **json.loads(text)}

    def kill(run: Trainer) -> None:
        if run.step == said["kill"]:
            os.kill(os.getpid(), getattr(signal, said["signal"]))

    run = trainer(said["directory"], compile=said["compile"], callbacks=[LambdaCallback(on_step_end=kill)],
                  progress=True, **said["options"])
    result = run.fit(loader(), steps=said["steps"], validation=BATCHES, resume=said["resume"])
    print(f"step {result.step} interrupted {result.interrupted}")
    if said["out"]:
        np.savez(Path(said["out"]), **numbers(run))


if __name__ == "__main__":
    main(sys.argv[1])
