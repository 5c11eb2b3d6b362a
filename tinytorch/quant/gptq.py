"""Round a weight so that what the layer computes changes least: GPTQ (Frantar et al., 2022).

    values = gptq_round(weight, hessian(x), grid)

Nearest rounding makes Σ(w - ŵ)² least. What counts is the layer's result, Σ‖x (w - ŵ)‖² = (w - ŵ)ᵀ H (w - ŵ) with
H = Xᵀ X of calibration inputs: an error in one element can be made good by the elements that are not rounded yet. The
elements of each output are rounded one after the other, and after each the rest is moved to where the error is least:

    w_rest -= (w_k - ŵ_k) / U_kk · U_k,rest        Uᵀ U = H⁻¹, U upper triangular (Cholesky)

All outputs go at once, for H is the same for all. Elements that meet the greatest inputs go first, when most of the
others can still follow; scales are chosen before, of the weight as it was, so that the order does not matter to them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinytorch.ir.errors import DataError

BLOCK = 128      # elements whose errors are carried over to all later ones at once
DAMPING = 0.01   # of the mean of H's diagonal, added to it

# (elements (outputs,), their place along the depth) -> (whole numbers, what they stand for)
Rounder = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


class Hessian:
    """Collects Σ xᵀ x over the rows of calibration inputs.

    >>> import numpy as np
    >>> h = Hessian(2); h.add(np.array([[1.0, 2.0]])); h.matrix.tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """

    def __init__(self, depth: int) -> None:
        self.matrix = np.zeros((depth, depth))

    def add(self, x: np.ndarray) -> None:
        """Rows (…, depth) of what goes into the layer.

        Raises:
            DataError: a number is NaN or infinite.
        """
        rows = x.reshape(-1, x.shape[-1])
        if not np.isfinite(rows).all():
            raise DataError("what goes into a layer holds NaN or infinities: the model overflows on the calibration "
                            "data, or they hold such numbers; leave those examples out")
        self.matrix += (rows.T @ rows).astype(np.float64)


def gptq_round(weight: np.ndarray, hessian: np.ndarray, rounder: Rounder) -> np.ndarray:
    """Whole numbers i8 (outputs, depth) for a weight (outputs, depth).

    Args:
        hessian: (depth, depth), Σ xᵀ x; inputs that were always 0 do no harm.
        rounder: rounds the elements of all outputs at one place along the depth.
    Raises:
        DataError: the Hessian is all 0 (the layer saw nothing), or cannot be factored.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    upper = _inverse_factor(hessian[np.ix_(order, order)])
    left = weight[:, order].astype(np.float64)
    values = np.empty(weight.shape, np.int8)
    depth = len(order)
    for begin in range(0, depth, BLOCK):
        end = min(begin + BLOCK, depth)
        errors = np.empty((len(left), end - begin))
        for k in range(begin, end):
            values[:, order[k]], rounded = rounder(left[:, k], int(order[k]))
            error = (left[:, k] - rounded) / upper[k, k]
            left[:, k + 1:end] -= np.outer(error, upper[k, k + 1:end])
            errors[:, k - begin] = error
        left[:, end:] -= errors @ upper[begin:end, end:]
    return values


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """U, upper triangular, with Uᵀ U the inverse of the damped Hessian."""
    mean = float(np.diag(hessian).mean())
    if not mean > 0:
        raise DataError("rounding='gptq': what goes into a layer is 0 in all calibration examples; expected examples "
                        "like those that the model will see, or rounding='nearest'")
    damped = hessian + DAMPING * mean * np.eye(len(hessian))
    inverse = np.linalg.inv(damped)
    try:
        return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T)
    except np.linalg.LinAlgError:
        raise DataError("rounding='gptq': the inputs of a layer differ so much in size that their products cannot be "
                        "inverted; use rounding='nearest' for it") from None
