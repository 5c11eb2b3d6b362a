"""A draft changes how long it takes, and nothing else: the same greedy tokens, the same probabilities."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats
from toy_gpt import make_gpt

import tinytorch as tt
from tinytorch import nn, text
from tinytorch.generate import generate, speculative
from tinytorch.nn.sampling import Sampling

PROMPTS = [[1, 2, 3, 4], [7]]


@pytest.mark.parametrize(("draft", "ahead"), [("itself", 3), ("other", 3), ("other", 1)])
def test_greedy_tokens_are_those_without_a_draft(gpt: nn.GPT, draft: str, ahead: int) -> None:
    model = gpt if draft == "itself" else make_gpt(layers=1)
    expected = generate(gpt, PROMPTS, 11, temperature=0, repetition_penalty=1.3, logprobs=True)
    found = generate(gpt, PROMPTS, 11, temperature=0, repetition_penalty=1.3, logprobs=True, draft=model, ahead=ahead)
    assert [t.tolist() for t in found.tokens] == [t.tolist() for t in expected.tokens]
    assert found.logprobs is not None and expected.logprobs is not None
    np.testing.assert_allclose(np.concatenate(found.logprobs), np.concatenate(expected.logprobs), atol=1e-4)


def test_proposals_that_are_right_save_calls(gpt: nn.GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    judge = speculative._judge
    monkeypatch.setattr(speculative, "_judge", lambda *given: [kept.append(len(r := judge(*given))), r][1])
    generate(gpt, [1, 2], 12, temperature=0, draft=gpt, ahead=3)
    assert set(kept) == {4}  # all three, and one more
    kept.clear()
    generate(gpt, [1, 2], 12, temperature=0, draft=make_gpt(seed=9), ahead=3)
    assert min(kept) == 1


def test_stops_end_within_a_round(gpt: nn.GPT) -> None:
    letters = text.CharTokenizer.train("abcdefghijk")
    options = {"temperature": 0, "tokenizer": letters}
    whole = generate(gpt, [1, 2], 12, **options).tokens[0].tolist()
    found = generate(gpt, [1, 2], 12, stop=whole[6], draft=gpt, **options)
    assert found.tokens[0].tolist() == whole[:whole.index(whole[6])] and found.reasons == ["stop"]


def test_sequences_are_as_frequent_as_the_model_alone_makes_them() -> None:
    model, draft = make_gpt(3, seed=3), make_gpt(3, seed=5)
    sampling, count = Sampling(temperature=0.7, top_p=0.85), 2000
    p = {}
    for tokens in product(range(3), repeat=3):
        with tt.no_grad():
            logits = model(tt.tensor([[0, *tokens[:2]]])).numpy()[0]
        p[tokens] = float(np.prod([row[t] for row, t in zip(sampling.probabilities(logits), tokens)]))
    found = generate(model, [[0]], 3, num_return=count, seed=0, temperature=0.7, top_p=0.85, draft=draft, ahead=2)
    counted = dict.fromkeys(p, 0)
    for tokens in found.tokens:
        counted[tuple(tokens.tolist())] += 1
    likely = [tokens for tokens in p if p[tokens] * count > 5]
    assert len(likely) > 8 and not any(counted[tokens] for tokens in p if p[tokens] == 0)
    rare = count - sum(counted[t] for t in likely)
    expected = [p[t] * count for t in likely]
    observed = [counted[t] for t in likely]
    if count - sum(expected) > 1:
        observed, expected = [*observed, rare], [*expected, count - sum(expected)]
    scale = sum(observed) / sum(expected)
    assert stats.chisquare(observed, np.array(expected) * scale).pvalue > 1e-3
