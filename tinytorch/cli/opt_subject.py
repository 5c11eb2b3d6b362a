"""What `tito opt` is told to optimise, and with which data: `subject("lenet", …)`, a graph from a file, your own model.

A model of the zoo brings its data along: what it has not learned from to test with, what it has to calibrate and to
tune. For others a file of NumPy arrays (.npz) brings them: `inputs` (n, …), `targets` (n, …), and maybe `calibration`.
"""

from __future__ import annotations

import copy
import difflib
import itertools
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import typer

from tinytorch import zoo
from tinytorch.compile import compile, trace
from tinytorch.data import DataLoader, TensorDataset
from tinytorch.ir import Graph
from tinytorch.nn import Module
from tinytorch.nn import functional as F
from tinytorch.optim import Adam, OneCycleLR
from tinytorch.prune import KeepZeros
from tinytorch.tensor import Tensor, as_tensor

from .opt_specs import Given
from .target import load_callable

MODEL_HELP = "A model of the zoo ([b]{}[/b]), [b]FILE.ttg[/b], [b]file.py:name[/b] or [b]module:name[/b]."
BATCH = {"gpt": 8}  # what one call is given; else 64
CALIBRATION = 1024  # inputs
Test = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A model with what is needed to judge it.

    Attributes:
        target: a module or a graph; examples: arguments for one call.
        given: what steps may use.
        test: inputs and right answers, if there are any.
    """

    name: str
    target: Module | Graph
    examples: tuple[Any, ...]
    given: Given
    test: Test | None

    @property
    def batch(self) -> int:
        """How many inputs a call takes."""
        return len(self.examples[0])


def subject(text: str, data: Path | None, batch: int | None, full: bool) -> Subject:
    """The subject that the command line names.

    Raises:
        BadParameter: there is no such model, no such file, or it does not hold what is needed.
    """
    arrays = _read(data) if data is not None else {}
    if text in zoo.CARDS:
        return _from_zoo(text, arrays, batch or BATCH.get(text, 64), full)
    if ":" not in text and not text.endswith(".ttg"):
        near = difflib.get_close_matches(text, zoo.CARDS, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise typer.BadParameter(f"there is no model {text!r}; {hint}The zoo has {', '.join(zoo.CARDS)}; others are "
                                 "FILE.ttg, file.py:name, module:name", param_hint="MODEL")
    target, examples = _from_user(text)
    calibration = arrays.get("calibration", arrays.get("inputs"))
    if calibration is not None:
        examples = (_example(arrays["inputs"], target, examples, batch),)
    test = (arrays["inputs"], arrays["targets"]) if "targets" in arrays else None
    name = Path(text).stem if text.endswith(".ttg") else text.rpartition(":")[2]
    return Subject(name, target, examples, Given(examples, calibration), test)


def _from_zoo(name: str, arrays: dict[str, np.ndarray], batch: int, full: bool) -> Subject:
    model: Module = getattr(zoo, name)()
    try:
        test = (arrays["inputs"], arrays["targets"]) if arrays else zoo.examples(name, "test", full=full)
        learned = zoo.examples(name, "train", full=full)
    except FileNotFoundError as error:
        raise typer.BadParameter(f"{error}\nfor {name}", param_hint="MODEL") from None
    examples = (Tensor(test[0][:batch]),)
    if len(test[0]) < batch:
        raise typer.BadParameter(f"there are {len(test[0])} inputs, fewer than a batch of {batch}",
                                 param_hint="--batch")
    return Subject(name, model, examples, Given(examples, learned[0][:CALIBRATION], partial(_tune, learned)), test)


def _from_user(text: str) -> tuple[Module | Graph, tuple[Any, ...]]:
    if text.endswith(".ttg"):
        if not Path(text).is_file():
            raise typer.BadParameter(f"there is no file {text}", param_hint="MODEL")
        graph = Graph.load(text)
        rng = np.random.default_rng(0)
        return graph, tuple(Tensor(_noise(rng, value.type)) for value in graph.free)
    function, examples = load_callable(text)
    target = function.eval() if isinstance(function, Module) else trace(function, *examples)
    return target, tuple(map(as_tensor, examples))


def _example(inputs: np.ndarray, target: Module | Graph, examples: tuple[Any, ...], batch: int | None) -> Tensor:
    """The first of the data, as many as a call takes."""
    size = batch or len(examples[0])
    if len(examples) != 1 or inputs.shape[1:] != examples[0].shape[1:] or len(inputs) < size:
        raise typer.BadParameter(f"inputs are {inputs.shape}; a call takes {', '.join(str(x.shape) for x in examples)}",
                                 param_hint="--data")
    if isinstance(target, Graph) and size != len(examples[0]):
        raise typer.BadParameter(f"a graph has fixed sizes, this one is for {len(examples[0])} inputs",
                                 param_hint="--batch")
    return Tensor(inputs[:size])


def _noise(rng: np.random.Generator, type_: Any) -> np.ndarray:
    """Numbers for an input of which nothing is known: normal, or 0 and 1 for integers."""
    if type_.dtype.is_float:
        return rng.standard_normal(type_.shape).astype(type_.dtype.np)
    return rng.integers(0, 2, type_.shape).astype(type_.dtype.np)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a data file."""
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}", param_hint="--data")
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (ValueError, OSError, AttributeError) as error:
        raise typer.BadParameter(f"{path} is no .npz file of NumPy arrays: {error}", param_hint="--data") from None
    inputs = arrays.get("inputs", np.zeros(0))
    alike = len(inputs) == len(arrays.get("targets", inputs)) > 0
    if not alike or set(arrays) - {"inputs", "targets", "calibration"}:
        raise typer.BadParameter(f"{path} holds {', '.join(f'{k} {v.shape}' for k, v in arrays.items()) or 'nothing'}; "
                                 "expected inputs (n, …), targets (n, …) and maybe calibration", param_hint="--data")
    return arrays


def _tune(learned: Test, model: Module, steps: int, lr: float) -> Module:
    """A copy of the model, trained on for so many batches of 64; what is 0 stays 0."""
    tuned = copy.deepcopy(model).train()
    loader = DataLoader(TensorDataset(*learned), 64, shuffle=True, drop_last=True, seed=0)
    inner = Adam(tuned.parameters(), lr=lr)
    schedule = OneCycleLR(inner, max_lr=lr, total_steps=steps)
    optimizer = KeepZeros(inner, tuned)

    @compile
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        logits = tuned(x)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    batches = itertools.chain.from_iterable(itertools.repeat(loader))  # epoch after epoch
    for x, y in itertools.islice(batches, steps):
        step(x, y)
        schedule.step()
    return tuned.eval()
