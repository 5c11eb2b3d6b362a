"""The program that `tito demo` trains, as the user's own file: written into the demo's folder and run from there."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from .target import import_file

PROGRAM = '''\
"""What `tito demo` trained; now it is yours to change. Try

    tito show model.py:example                  tito profile model.py:example --run
    tito show model.py:training_example         tito bench model.py:training_example
"""

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.nn import functional as F


class MLP(nn.Module):
    """784 pixels in, 10 logits out."""

    def __init__(self):
        self.first = nn.Linear(784, 128)
        self.second = nn.Linear(128, 64)
        self.third = nn.Linear(64, 10)

    def forward(self, pixels):
        h = F.relu(self.first(pixels))
        h = F.relu(self.second(h))
        return self.third(h)


def training_step(model, lr=1e-3):
    optimizer = optim.Adam(model.parameters(), lr=lr)

    def step(pixels, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(pixels), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def example():
    return MLP(), tt.zeros(64, 784)


def training_example():
    return training_step(MLP()), tt.zeros(64, 784), tt.zeros(64, dtype="i64")
'''


def write_program(folder: Path) -> ModuleType:
    """Write `model.py` into the folder, and import it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return import_file(path)
