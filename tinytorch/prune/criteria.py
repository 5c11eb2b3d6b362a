"""How important a weight is: its size, its size squared, or what the loss would lose without it.

    score("l1", "conv1.weight", parameter)     # an array of the parameter's shape; units sum it up
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.ir.errors import GradientError, OpError, ShapeError
from tinytorch.tensor import Tensor

Criterion = str | Callable[[str, np.ndarray], Any]


def score(criterion: Criterion, path: str, tensor: Tensor) -> np.ndarray:
    """The importance of each element, f64 of the shape of `tensor`.

    Args:
        criterion: "l1" |w|; "l2" w²; "taylor" |w · ∂loss/∂w|, the first term of what the loss changes by when w becomes
            0 (Molchanov et al., 2017), from the gradient that the parameter has; or a function of path and array.
    Raises:
        OpError: the criterion is unknown; GradientError: "taylor", and there is no gradient; ShapeError: a function
            gives something of another shape.
    """
    weight = np.asarray(tensor.numpy(), np.float64)
    if callable(criterion):
        found = np.asarray(criterion(path, tensor.numpy()), np.float64)
        if found.shape != weight.shape:
            raise ShapeError(f"prune: the criterion gives {found.shape} for {path}, expected a number for each of "
                             f"its elements, {weight.shape}")
        return found
    if criterion == "l1":
        return np.abs(weight)
    if criterion == "l2":
        return weight * weight
    if criterion != "taylor":
        raise OpError(f"prune(criterion={criterion!r}): expected 'l1', 'l2', 'taylor' or a function (path, array)")
    if tensor.grad is None:
        raise GradientError(f"prune(criterion='taylor'): {path} has no gradient; call loss.backward() on some batches "
                            "first (and do not forget the gradients)")
    return np.abs(weight * np.asarray(tensor.grad.numpy(), np.float64))
