"""Run a model without training it: its loss and metrics over a loader, its outputs for arrays.

    >>> import tinytorch as tt
    >>> from tinytorch.train import Accuracy
    >>> from tinytorch.train.loss import UsualLoss
    >>> model = tt.nn.Linear(3, 2)
    >>> runner = Runner(model, UsualLoss(tt.nn.CrossEntropyLoss()), [Accuracy()], compiled=False)
    >>> sorted(runner.evaluate([(tt.zeros(4, 3), tt.zeros(4, dtype="i64"))]))
    ['accuracy', 'loss']
    >>> runner.predict(tt.zeros(10, 3), batch_size=4).shape
    (10, 2)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.compile import compile as compile_function
from tinytorch.ir.errors import OpError
from tinytorch.nn import Module
from tinytorch.nn.module import in_mode
from tinytorch.tensor import Tensor

from .batch import as_parts, from_its_start, size_of
from .loss import Loss, loss_alone, modules_of
from .metrics import Mean, Metric


class Runner:
    """The functions that evaluate a model, compiled or not.

    Args:
        loss_of: (model, parts) -> the loss, or (loss, output), or (loss, output, target).
        metrics: what is measured besides the loss.
    """

    def __init__(self, model: Module, loss_of: Loss, metrics: Sequence[Metric | Callable[..., Any]] = (),
                 compiled: bool = True) -> None:
        self.model = model
        self.metrics = [m if isinstance(m, Metric) else FunctionMetric(m) for m in metrics]
        names = [metric.name for metric in self.metrics]
        if len({"loss", *names}) != len(names) + 1:
            raise OpError(f"metrics named {names}: expected different names, other than 'loss'")
        modules, wants_output = modules_of(model, loss_of), bool(self.metrics)

        def evaluation_step(*parts: Any) -> tuple[Any, Any, Any]:
            result = loss_of(modules[0], parts)
            given = result if isinstance(result, tuple) else (result,)
            output, target = (*given[1:3], None, None)[:2] if wants_output else (None, None)
            return loss_alone(result), output, parts[-1] if wants_output and len(given) == 2 else target

        def forward(*inputs: Any) -> Any:
            return modules[0](*inputs)

        self.step: Callable[..., Any] = compile_function(evaluation_step) if compiled else evaluation_step
        self.forward: Callable[..., Any] = compile_function(forward) if compiled else forward

    def evaluate(self, loader: Iterable[Any], stops: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        """The loss, as a mean over samples, and each metric; None if `stops` said so on the way."""
        mean = Mean()
        for metric in self.metrics:
            metric.reset()
        with no_grad(), in_mode(self.model, False), from_its_start(loader):
            for batch in loader:
                parts = as_parts(batch)
                loss, output, target = self.step(*parts)
                if self.metrics and output is None:
                    raise OpError("metrics need the output of the model: let loss_step return (loss, output), or "
                                  "(loss, output, target)")
                mean.update(float(loss.payload), size_of(parts))
                for metric in self.metrics:
                    metric.update(output, target)
                if stops():
                    return None
        if not mean.weight:
            raise OpError("evaluate: the loader gave no batch; one that can be gone through only once is used up by "
                          "the first validation: give a list, or a DataLoader")
        return {"loss": mean.compute(), **{metric.name: metric.compute() for metric in self.metrics}}

    def predict(self, data: Any, batch_size: int = 256) -> np.ndarray:
        """The outputs for an array or tensor (samples, …), or for all batches of a loader, one after the other."""
        outputs: list[np.ndarray] = []
        with no_grad(), in_mode(self.model, False), from_its_start(data):
            for parts in _inputs(data, batch_size):
                output = self.forward(*parts)
                if not isinstance(output, Tensor):
                    raise OpError(f"predict: the model gives a {type(output).__name__}, expected one tensor")
                outputs.append(output.numpy())
        if not outputs:
            raise OpError("predict: there is no batch")
        return np.concatenate(outputs)


class FunctionMetric(Mean):
    """A function (output, target) -> number as a metric: the mean over batches, weighted by their size."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.function, self.name = function, getattr(function, "__name__", "metric")

    def update(self, output: Any, target: Any = None) -> None:
        """Measure a batch."""
        super().update(float(self.function(output, target)), size_of((output,)))


def _inputs(data: Any, batch_size: int) -> Iterator[tuple[Any, ...]]:
    if isinstance(data, (Tensor, np.ndarray)):
        array = data.numpy() if isinstance(data, Tensor) else data
        for start in range(0, len(array), batch_size):
            yield (Tensor(array[start:start + batch_size]),)
        return
    for batch in data:
        parts = as_parts(batch)
        yield parts[:-1] if len(parts) > 1 else parts
