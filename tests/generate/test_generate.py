"""`generate` against the whole model, computed anew for each token; texts, endings, streams, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from toy_gpt import make_gpt

import tinytorch as tt
from tinytorch import nn, text
from tinytorch.generate import Decoder, Token, generate, stream
from tinytorch.generate.sequence import Detokenizer
from tinytorch.ir.errors import OpError, PassError, ShapeError

Logits = Callable[[list[int]], np.ndarray]
PROMPTS = [[1, 2, 3, 4, 5], [10, 0], [7]]
LETTERS = text.CharTokenizer.train("abcdefghijk")  # eleven: the vocabulary of `gpt`


def greedy(logits_of: Logits, prompt: list[int], count: int, penalty: float = 1.0) -> list[int]:
    """The likeliest tokens, one by one."""
    tokens = list(prompt)
    for _ in range(count):
        logits = logits_of(tokens)
        for token in set(tokens):
            logits[token] *= 1 / penalty if logits[token] > 0 else penalty
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt):]


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_tokens_are_those_of_the_whole_model(gpt: nn.GPT, logits_of: Logits, penalty: float) -> None:
    found = generate(gpt, PROMPTS, 9, temperature=0, repetition_penalty=penalty, logprobs=True)
    assert [t.tolist() for t in found.tokens] == [greedy(logits_of, p, 9, penalty) for p in PROMPTS]
    assert found.reasons == ["length"] * 3 and found.new_tokens == 27 and found.prompt_tokens == 8
    assert found.text is None and found.reading_rate > 0 and found.writing_rate > 0
    assert found.logprobs is not None and all(len(set(t.tolist())) > 2 for t in found.tokens)
    if penalty == 1:
        logits = logits_of(PROMPTS[0])
        expected = logits.max() - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        np.testing.assert_allclose(found.logprobs[0][0], expected, atol=1e-4)


def test_prompts_come_in_many_forms(gpt: nn.GPT) -> None:
    expected = [t.tolist() for t in generate(gpt, [[1, 2], [3, 4]], 4, temperature=0).tokens]
    for prompt in (np.array([[1, 2], [3, 4]]), tt.tensor([[1, 2], [3, 4]]), ["bc", "de"],
                   [np.array([1, 2], np.int8), [3, 4]]):
        found = generate(gpt, prompt, 4, temperature=0, tokenizer=LETTERS)
        assert [t.tolist() for t in found.tokens] == expected
        assert found.text == [LETTERS.decode(t) for t in expected]
    for alone in ([1, 2], np.array([1, 2]), "bc"):
        found = generate(gpt, alone, 4, temperature=0, tokenizer=LETTERS)
        assert [t.tolist() for t in found.tokens] == expected[:1]


def test_chance_depends_on_the_seed_alone(gpt: nn.GPT) -> None:
    def drawn(seed: int | None, **options: Any) -> list[list[int]]:
        return [t.tolist() for t in generate(gpt, [[1, 2]], 6, seed=seed, num_return=2, **options).tokens]

    hot = {"temperature": 6.0}
    assert drawn(3, **hot) == drawn(3, **hot) != drawn(4, **hot)
    assert drawn(3, **hot)[0] != drawn(3, **hot)[1]
    tt.manual_seed(5)
    first = drawn(None, **hot)
    assert drawn(None, **hot) != first
    tt.manual_seed(5)
    assert drawn(None, **hot) == first
    assert drawn(3, temperature=6.0, top_k=1) == drawn(4, temperature=0)


def test_tokens_and_texts_end_a_sequence(gpt: nn.GPT) -> None:
    whole = generate(gpt, [[1, 2]], 12, temperature=0, tokenizer=LETTERS)
    assert whole.text is not None
    tokens, words = whole.tokens[0].tolist(), whole.text[0]
    end = tokens[4]
    for options in ({"stop": end}, {"stop": [end, 99]}, {"eos": end}):
        found = generate(gpt, [[1, 2]], 12, temperature=0, tokenizer=LETTERS, **options)
        place = tokens.index(end)
        assert found.tokens[0].tolist() == tokens[:place] and found.reasons == ["stop"]
        assert found.text == [words[:place]]
    stop = words[5:8]
    found = generate(gpt, [[1, 2], [3]], 12, temperature=0, tokenizer=LETTERS, stop=(stop, "aaaaaaaaa"))
    assert found.text is not None and found.text[0] == words[:words.index(stop)] and found.reasons[0] == "stop"
    assert found.tokens[0].tolist() == tokens[:words.index(stop) + 3]
    pieces = [t.text for t in stream(gpt, [1, 2], 12, temperature=0, tokenizer=LETTERS, stop=stop)]
    assert "".join(pieces) == found.text[0]


def test_what_was_held_back_is_shown_at_the_end(gpt: nn.GPT) -> None:
    words = (generate(gpt, [1, 2], 6, temperature=0, tokenizer=LETTERS).text or [""])[0]
    found = list(stream(gpt, [1, 2], 6, temperature=0, tokenizer=LETTERS, stop=words[-2:] + "zz"))
    assert "".join(t.text for t in found) == words and found[-1].token is None and found[-1].text == words[-2:]


def test_streams_give_each_token_as_it_comes(gpt: nn.GPT) -> None:
    seen: list[Token] = []
    found = generate(gpt, PROMPTS, 5, temperature=0, stream=seen.append)
    for number, tokens in enumerate(found.tokens):
        assert [t.token for t in seen if t.sequence == number] == tokens.tolist()
    assert [t.sequence for t in seen[:3]] == [0, 1, 2]
    endless = stream(gpt, [1], 20, temperature=0)
    first = [next(endless).token for _ in range(3)]
    assert first == generate(gpt, [1], 20, temperature=0).tokens[0][:3].tolist()  # beside one that is not at its end


def test_characters_are_shown_when_they_are_whole() -> None:
    tokenizer = text.BPETokenizer.train("", vocab_size=256)
    said = "né 東京 🙂!" * 12
    words = Detokenizer(tokenizer, tokenizer.encode("東").tolist()[:-1])
    shown = [words.add(int(token)) for token in [*tokenizer.encode("東")[-1:], *tokenizer.encode(said)]]
    assert "".join(shown).endswith(said) and "\ufffd" not in "".join(shown[1:]) and "🙂" in shown
    broken = Detokenizer(tokenizer, [])
    assert broken.add(int(tokenizer.encode("é")[0])) == "" and broken.rest() == "\ufffd"


def test_calls_share_their_decoder_and_see_new_weights() -> None:
    model = make_gpt(seed=1)
    first = generate(model, [1], 6, temperature=0)
    with tt.no_grad():
        model.lm_head.weight.copy_(-model.lm_head.weight)
    second = generate(model, [1], 6, temperature=0)
    assert first.tokens[0][0] != second.tokens[0][0]
    assert second.seconds_reading + second.seconds_writing < first.seconds_reading + first.seconds_writing
    model.lm_head = nn.Linear(16, 7)
    assert generate(model, [1], 6, temperature=0).tokens[0].max() < 7  # another model now


def test_calls_see_new_settings() -> None:
    class Signed(nn.Module):
        def __init__(self) -> None:
            self.table, self.sign = nn.Embedding(5, 5), 1.0

        def forward(self, tokens: tt.Tensor) -> Any:
            return self.table(tokens) * self.sign

    model = Signed()
    weight, found = model.table.weight.numpy()[3], []
    for model.sign in (1.0, -1.0):
        found.append(generate(model, [3], 1, temperature=0).tokens[0][0])
    assert found == [weight.argmax(), weight.argmin()]


def test_a_window_sees_the_latest_tokens_only(gpt: nn.GPT) -> None:
    one = nn.GPT(nn.GPTConfig(vocab_size=11, block_size=32, n_layer=1, n_head=2, n_embd=16)).eval()
    near, far = (generate(one, [[start, 3, 4, 5]], 1, temperature=0, window=2, logprobs=True) for start in (1, 9))
    assert near.logprobs is not None and far.logprobs is not None
    np.testing.assert_allclose(near.logprobs[0], far.logprobs[0], atol=1e-6)


class Bidirectional(nn.Module):
    """Attention without a mask."""

    def __init__(self) -> None:
        self.table, self.head = nn.Embedding(11, 16), nn.Linear(16, 11)

    def forward(self, idx: Any) -> tt.Tensor:
        x = self.table(idx)[:, None]
        return self.head(nn.functional.scaled_dot_product_attention(x, x, x)[:, 0])


@pytest.mark.parametrize(("prompt", "options", "error", "says"), [
    ([[1], []], {}, ShapeError, "prompt 1 is empty"),
    ([], {}, ShapeError, "prompt 0 is empty|no prompt"),
    ("abc", {}, OpError, "a text needs tokenizer"),
    ([1.5], {}, OpError, "expected integers"),
    ([[1, 11]], {}, IndexError, "token 11 of prompt 0 is none of the model's, 0 … 10"),
    ([[-1]], {}, IndexError, "token -1 "),
    ([1], {"capacity": 5}, ShapeError, r"capacity=5\): the longest prompt and max_new_tokens need 7"),
    ([1] * 30, {}, ShapeError, "block_size=32"),
    ([1], {"temperature": -1.0}, OpError, "temperature"),
    ([1], {"max_new_tokens": 0}, OpError, "max_new_tokens=0"),
    ([1], {"num_return": 0}, OpError, "num_return=0"),
    ([1], {"stop": "ab"}, OpError, "to stop at a text needs tokenizer"),
    ([1], {"stop": [1.5]}, OpError, "expected tokens"),
    ([1], {"beams": 2}, OpError, "beams are searched, not drawn"),
    ([1], {"beams": 2, "temperature": 0, "stream": print}, OpError, "no stream"),
    ([1], {"beams": 2, "temperature": 0, "num_return": 3}, OpError, "num_return of 1 to beams"),
    ([1], {"beams": 2, "temperature": 0, "stop": "a", "tokenizer": text.CharTokenizer.train("abcd")}, OpError,
     "beams end at tokens"),
    ([1], {"draft": make_gpt(7)}, OpError, "its vocabulary is 7 tokens, the model's 11"),
    ([1], {"cache_dtype": "i4"}, PassError, "cache_dtype"),
], ids=lambda value: str(value)[:40])
def test_what_makes_no_sense_is_refused(gpt: nn.GPT, prompt: Any, options: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        generate(gpt, prompt, **{"max_new_tokens": 6, **options})


def test_a_model_that_sees_the_future_is_refused() -> None:
    with pytest.raises(PassError):
        generate(Bidirectional(), [1, 2], 3)


def test_a_decoder_of_another_size_is_refused(gpt: nn.GPT) -> None:
    decoder = Decoder(gpt, batch=1, capacity=16)
    assert len(generate(decoder, [1, 2], 14, temperature=0).tokens[0]) == 14
    for prompt, count in (([[1], [2]], 3), ([1, 2], 15)):
        with pytest.raises(ShapeError, match="are needed"):
            generate(decoder, prompt, count)


def test_logits_of_nothing_are_told() -> None:
    model = make_gpt(seed=2)
    with tt.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight * math.nan)
    with pytest.raises(OpError, match="not finite"):
        generate(model, [1], 3, temperature=0)
