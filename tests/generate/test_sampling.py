"""Which tokens may be drawn, and how often: each rule against its definition, one token at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tinytorch.ir.errors import OpError
from tinytorch.nn.sampling import Sampling, pick

LOGITS = np.array([0.5, -1.0, 2.0, 0.0, 1.0, 2.0, -3.0])


def defined(logits: np.ndarray, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
            min_p: float | None = None) -> np.ndarray:
    """The probabilities, from the definitions; of equal tokens at an edge of top_k, all stay."""
    p = np.exp(logits / temperature)
    if top_k is not None:
        p[p < sorted(p)[-min(top_k, len(p))]] = 0
    p /= p.sum()
    if top_p is not None:
        mass = 0.0
        for token in np.argsort(-p, kind="stable"):
            p[token], mass = (0, mass) if mass >= top_p else (p[token], mass + p[token])
    p /= p.sum()
    if min_p is not None:
        p[p < min_p * p.max()] = 0
    return np.asarray(p / p.sum())


@pytest.mark.parametrize("options", [
    {}, {"temperature": 0.3}, {"temperature": 3.0}, {"top_k": 1}, {"top_k": 3}, {"top_k": 99}, {"top_p": 1.0},
    {"top_p": 0.1}, {"top_p": 0.6}, {"top_p": 0.95}, {"min_p": 0.3}, {"min_p": 1.0},
    {"temperature": 2.0, "top_k": 5, "top_p": 0.8, "min_p": 0.5}], ids=str)
def test_probabilities_are_those_of_the_definition(options: dict[str, Any]) -> None:
    rows = np.stack([LOGITS, LOGITS[::-1], np.zeros(7)])
    for row, found in zip(rows, Sampling(**options).probabilities(rows.astype(np.float32))):
        np.testing.assert_allclose(found, defined(row, **options), atol=1e-7)


def test_draws_are_as_frequent_as_they_are_likely() -> None:
    sampling = Sampling(temperature=1.5, top_p=0.9)
    uniform = np.random.default_rng(0).random(20_000)
    found = np.bincount(sampling.choose(np.tile(LOGITS, (20_000, 1)), uniform), minlength=7)
    p = defined(LOGITS, 1.5, top_p=0.9)
    assert not found[p == 0].any() and (p == 0).any()
    assert stats.chisquare(found[p > 0], 20_000 * p[p > 0]).pvalue > 1e-3


def test_a_draw_falls_on_no_token_without_weight() -> None:
    weights = np.array([[0.0, 0.3, 0.0, 0.7, 0.0]])
    for uniform, token in ((0.0, 1), (np.nextafter(0.3, 0), 1), (0.3, 3), (np.nextafter(1, 0), 3)):
        assert pick(weights, np.array([uniform])) == [token]


def test_a_penalty_makes_what_was_said_less_likely() -> None:
    logits = np.array([[2.0, -2.0, 1.0], [2.0, -2.0, 1.0]])
    found = Sampling(repetition_penalty=2.0).penalise(logits, [np.array([0, 1, 0]), np.array([2])])
    assert found.tolist() == [[1.0, -4.0, 1.0], [2.0, -2.0, 0.5]] and logits[0, 0] == 2.0


@pytest.mark.parametrize(("options", "says"), [
    ({"temperature": -1.0}, "temperature=-1.0: expected"), ({"temperature": float("nan")}, "temperature=nan"),
    ({"top_k": 0}, "top_k=0"), ({"top_p": 0.0}, "top_p=0.0: expected 0 < top_p"), ({"top_p": 1.5}, "top_p=1.5"),
    ({"min_p": -0.1}, "min_p=-0.1"), ({"repetition_penalty": 0.0}, "repetition_penalty=0.0")], ids=str)
def test_options_out_of_range_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OpError, match=says):
        Sampling(**options)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_refused(temperature: float) -> None:
    with pytest.raises(OpError, match="not finite"):
        Sampling(temperature).choose(np.array([[0.0, np.nan, 1.0]]), np.array([0.5]))
