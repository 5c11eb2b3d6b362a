"""Stabilize: each equation of its table against the exact function, where the left side fails and where it does not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import program
from scipy import special

from tinytorch.ir import f32, ops, verify
from tinytorch.passes import Stabilize
from tinytorch.passes.stabilize import TABLE

Function = Callable[[Any], Any]
X = np.array([[-100.0, -50.0, -1e-9, 0.0], [1e-9, 0.5, 60.0, 100.0]])  # e¹⁰⁰ is no number of f32


def _softmax(x: Any) -> Any:
    e = ops.exp(x)
    return e / ops.sum(e, 1, True)


# What a user writes, what is left of it, and what it means.
CASES: dict[str, tuple[Function, list[str], Function]] = {
    "log(1 + x) = log1p(x)": (lambda x: ops.log(1.0 + ops.abs(x)), ["abs", "log1p"], lambda x: np.log1p(np.abs(x))),
    "eˣ - 1 = expm1(x)": (lambda x: ops.exp(-ops.abs(x)) - 1.0, ["abs", "neg", "expm1"],
                          lambda x: np.expm1(-np.abs(x))),
    "log(1 + eˣ) = softplus(x)": (lambda x: ops.log(ops.exp(x) + 1.0), ["softplus"], lambda x: np.logaddexp(x, 0)),
    "log(eˣ + eʸ) = logaddexp(x, y)": (lambda x: ops.log(ops.exp(x) + ops.exp(-x)), ["neg", "logaddexp"],
                                       lambda x: np.logaddexp(x, -x)),
    "log σ(x) = -softplus(-x)": (lambda x: ops.log(ops.sigmoid(x)), ["neg", "softplus", "neg"], special.log_expit),
    "1 - σ(x) = σ(-x)": (lambda x: 1.0 - ops.sigmoid(x), ["neg", "sigmoid"], lambda x: special.expit(-x)),
    "log softmax(x) = log_softmax(x)": (lambda x: ops.log(ops.softmax(x, 1)), ["log_softmax"],
                                        lambda x: special.log_softmax(x, 1)),
    "log Σ eˣ = logsumexp(x)": (lambda x: ops.log(ops.sum(ops.exp(x), 0, True)), ["logsumexp"],
                                lambda x: special.logsumexp(x, 0, keepdims=True)),
    "eˣ / Σ eˣ = softmax(x)": (_softmax, ["softmax"], lambda x: special.softmax(x, 1)),
}


def test_each_equation_has_a_case() -> None:
    assert {rule.text for rule in TABLE.rules} == set(CASES)


@pytest.mark.parametrize("text", CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_right_side_is_exact_where_the_left_is_not(text: str) -> None:
    written, expected, exact = CASES[text]
    before, x = program(written, f32[2, 4]), X.astype("f4")
    after = verify(Stabilize()(before))
    assert [node.op.name for node in after.nodes] == expected
    near = {"rtol": 4e-6, "atol": 1e-44}
    np.testing.assert_allclose(after(x), exact(x.astype("f8")), **near)
    assert not np.allclose(before(x), exact(x.astype("f8")), **near), "there was nothing to mend"


@pytest.mark.parametrize("written", [
    lambda x: ops.exp(x) / ops.sum(ops.exp(x * 2.0), 1, True),  # another sum
    lambda x: (lambda e: e / ops.sum(e, None, True))(ops.exp(x)),  # over several axes
    lambda x: (lambda e: e / ops.sum(e, 0))(ops.exp(x)),  # of an axis that is gone
    lambda x: ops.log(ops.sum(x, 0)), lambda x: ops.log(2.0 + x), lambda x: ops.exp(x) - 2.0,
])
def test_what_only_looks_like_it_is_left_alone(written: Function) -> None:
    graph = program(written, f32[2, 4])
    assert Stabilize()(graph) is graph
