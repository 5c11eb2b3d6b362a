"""Distillation: a small model learns from a big one, from labels and from what the big one makes of the same inputs.

    distil = Distillation(teacher, nn.CrossEntropyLoss(), temperature=4.0, features={"body.2": "body.5"})
    trainer = Trainer(student, optimizer, loss_step=distil)

The teacher runs in evaluation mode and without gradients. In a compiled step it is part of the program, optimised as
for inference (its norms are folded into its weights, what depends on weights alone is prepared once); an eager step
calls a compiled teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tinytorch.autograd import no_grad
from tinytorch.compile import compile as compile_function
from tinytorch.ir import is_tracing
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn import Module
from tinytorch.nn import functional as F
from tinytorch.tensor import Tensor

from .batch import align, inputs_and_target


class Distillation(Module):
    """The loss of a student, as `Trainer(loss_step=…)` takes it (Hinton et al., "Distilling the knowledge in a neural
    network", 2015):

        (1 - alpha) · loss(student, target) + alpha · T² · KL(softmax(teacher / T) ‖ softmax(student / T))
            + feature_weight · mean over pairs of the mean squared difference of features

    Args:
        teacher: a model of the student's inputs and classes; it is set to evaluation mode.
        loss: `loss(output, target)` with labels; None if there are none to learn from (then alpha is 1).
        temperature: T, above 1 to see how the teacher ranks the wrong classes; alpha: the share of its opinion, 0 to 1.
        features: paths of the student's modules whose outputs are to be like those of the teacher's, by path
            (Romero et al., "FitNets", 2015).
        projections: for student paths, a module that brings its features to the teacher's shape; give its parameters to
            the optimiser, too.
        feature_weight: the weight of that part.
    Raises:
        OpError: options that make no sense; AttributeError: a path names no module.
        ShapeError: when called, if outputs or features of the two do not have one shape.

    >>> import tinytorch as tt
    >>> distil = Distillation(tt.nn.Linear(3, 2), tt.nn.CrossEntropyLoss(), temperature=2.0)
    >>> loss, output, target = distil(tt.nn.Linear(3, 2), (tt.ones(4, 3), tt.zeros(4, dtype="i64")))
    >>> loss.shape, output.shape
    ((), (4, 2))
    """

    def __init__(self, teacher: Module, loss: Callable[[Any, Any], Any] | None, *, temperature: float = 4.0,
                 alpha: float = 0.9, features: Mapping[str, str] | None = None,
                 projections: Mapping[str, Module] | None = None, feature_weight: float = 1.0) -> None:
        if not temperature > 0 or not 0 <= alpha <= 1 or feature_weight < 0:
            raise OpError(f"Distillation(temperature={temperature}, alpha={alpha}, feature_weight={feature_weight}): "
                          "expected a temperature > 0, an alpha from 0 to 1 and a weight ≥ 0")
        if extra := set(projections or ()) - set(features or ()):
            raise OpError(f"Distillation: projections of {', '.join(sorted(extra))}, which are not among the features "
                          f"({', '.join(features or ()) or 'none'})")
        self.teacher, self.loss, self.temperature = teacher.eval(), loss, temperature
        self.alpha = alpha if loss is not None else 1.0
        self.features, self.feature_weight = dict(features or {}), feature_weight
        self.projections = dict(projections or {})
        for path in self.features.values():
            teacher.get_submodule(path)
        self._watched = _Watched(teacher, list(self.features.values()))
        self._compiled = compile_function(self._watched)

    def forward(self, model: Module, parts: tuple[Any, ...]) -> tuple[Tensor, Tensor, Any]:
        """The loss, the student's output and the target, of a batch whose last part is the target."""
        inputs, target = inputs_and_target(parts)
        with no_grad():
            opinion, known = (self._watched if is_tracing() else self._compiled)(*inputs)
        output, found = _Watched(model, list(self.features))(*inputs)
        if output.shape != opinion.shape:
            raise ShapeError(f"Distillation: the student gives {output.type}, the teacher {opinion.type}; expected the "
                             "same classes")
        (output, aligned), (opinion, _) = align(output, target), align(opinion, target)
        total = soft_cross_entropy(output, opinion, self.temperature) * self.alpha
        if self.loss is not None and self.alpha < 1:
            total = total + self.loss(output, aligned) * (1 - self.alpha)
        for (path, other), feature, wanted in zip(self.features.items(), found, known, strict=True):
            projected = self.projections[path](feature) if path in self.projections else feature
            if projected.shape != wanted.shape:
                raise ShapeError(f"Distillation: {path} of the student gives {projected.type}, {other} of the teacher "
                                 f"{wanted.type}; give projections={{{path!r}: a module from one to the other}}")
            total = total + F.mse_loss(projected, wanted) * (self.feature_weight / len(self.features))
        return total, output, aligned


def soft_cross_entropy(output: Tensor, opinion: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(opinion / T) ‖ softmax(output / T)), averaged over all but the axis of classes, which is axis 1
    (the only one, of a vector). T² keeps the gradient's size the same for every T."""
    axis = min(1, output.ndim - 1)
    wanted = F.log_softmax(opinion / temperature, axis)
    log_p = F.log_softmax(output / temperature, axis)
    count = output.size // output.shape[axis]
    return F.kl_div(log_p, wanted, reduction="sum", log_target=True) * (temperature ** 2 / count)


class _Watched:
    """A model as a function that also gives what some of its modules gave."""

    def __init__(self, model: Module, paths: Sequence[str]) -> None:
        self.model, self.paths = model, paths

    def __call__(self, *inputs: Any) -> tuple[Any, list[Any]]:
        seen: dict[str, Any] = {}
        with ExitStack() as stack:
            for path in self.paths:
                def keep(module: Module, args: Any, output: Any, path: str = path) -> None:
                    seen[path] = output

                stack.enter_context(self.model.get_submodule(path).register_forward_hook(keep))
            result = self.model(*inputs)
        if missing := [path for path in self.paths if path not in seen]:
            raise OpError(f"Distillation: {', '.join(missing)} of {type(self.model).__name__} was not called")
        return result, [seen[path] for path in self.paths]
