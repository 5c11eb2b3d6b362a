"""Beam search against every sequence there is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from toy_gpt import make_gpt

import tinytorch as tt
from tinytorch import nn, text
from tinytorch.generate import generate

VOCABULARY, LENGTH = 4, 3


@pytest.fixture(scope="module")
def model() -> nn.GPT:
    """With a vocabulary that can be tried out."""
    return make_gpt(VOCABULARY, seed=5)


def everything(model: nn.GPT, prompt: list[int], stop: int | None, penalty: float) -> list[tuple[float, list[int]]]:
    """Every sequence of LENGTH tokens, or that ends before, with its score; the best first."""
    def grow(tokens: list[int], total: float) -> Iterator[tuple[float, list[int]]]:
        if len(tokens) == LENGTH:
            yield total / LENGTH ** penalty, tokens
            return
        with tt.no_grad():
            logits = model(tt.tensor([prompt + tokens])).numpy()[0, -1].astype(np.float64)
        logits -= logits.max() + np.log(np.exp(logits - logits.max()).sum())
        for token, logprob in enumerate(logits):
            if token == stop:
                yield (total + logprob) / (len(tokens) + 1) ** penalty, tokens
            else:
                yield from grow([*tokens, token], total + logprob)

    return sorted(grow([], 0.0), key=lambda pair: -pair[0])


@pytest.mark.parametrize(("stop", "penalty"), [(None, 1.0), (2, 0.0), (2, 1.0), (0, 2.0)])
def test_many_beams_find_the_best_of_all(model: nn.GPT, stop: int | None, penalty: float) -> None:
    prompts = [[1, 3], [2]]
    found = generate(model, prompts, LENGTH, temperature=0, beams=VOCABULARY ** 2, num_return=3, length_penalty=penalty,
                     stop=() if stop is None else stop, logprobs=True)
    assert found.scores is not None and found.logprobs is not None
    for number, prompt in enumerate(prompts):
        best = everything(model, prompt, stop, penalty)[:3]
        own = slice(3 * number, 3 * number + 3)
        assert [t.tolist() for t in found.tokens[own]] == [tokens for _, tokens in best]
        np.testing.assert_allclose(found.scores[own], [score for score, _ in best], atol=1e-4)
        assert [r == "stop" for r in found.reasons[own]] == [len(tokens) < LENGTH for _, tokens in best]
    np.testing.assert_allclose(found.logprobs[0].sum() / len(found.logprobs[0]) ** penalty, found.scores[0])


def test_two_beams_are_better_than_greed(model: nn.GPT) -> None:
    letters = text.CharTokenizer.train("abcd")
    for prompt in ([0], [1], [2], [3]):
        scores = {}
        for beams in (2, 6):
            found = generate(model, prompt, 8, temperature=0, beams=beams, tokenizer=letters)
            assert found.scores is not None and found.text == [letters.decode(found.tokens[0])]
            scores[beams] = found.scores[0]
        greedy = generate(model, prompt, 8, temperature=0, logprobs=True)
        assert greedy.logprobs is not None
        assert scores[6] + 1e-6 >= scores[2] and scores[6] + 1e-6 >= greedy.logprobs[0].mean()
