"""The benchmark of decoding compares logits with PyTorch's hand-written cache before it times them."""

import pytest

from tinytorch.bench import decoding
from tinytorch.bench.rows import Row, Settings
from tinytorch.bench.same import DifferentResults
from tinytorch.nn.gpt import GPTConfig
from tinytorch.nn.llama import LlamaConfig

SMALL = GPTConfig(vocab_size=13, block_size=512, n_layer=2, n_head=2, n_embd=32, bias=False)
LLAMA = LlamaConfig(vocab_size=13, hidden_size=48, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
                    num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=True)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows, of models that take no time."""
    pytest.importorskip("torch")
    for name, config in (("SMALL", SMALL), ("LARGE", SMALL), ("LLAMA", LLAMA)):
        monkeypatch.setattr(decoding, name, config)
    monkeypatch.setattr(Settings, "seconds", 0.01)
    return list(decoding.decode(Settings(1, frozenset({"torch"}), quick=True)))


@pytest.mark.peers
def test_all_sides_give_the_same_logits(rows: list[Row]) -> None:
    assert len(rows) == 5 and all(row.figure and row.figure > 0 and row.target for row in rows)
    assert all("tokens/s" in row.note for row in rows[:3]) and "recomputing" in rows[3].peers


@pytest.mark.peers
def test_another_cache_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    look = decoding._look
    monkeypatch.setattr(decoding, "_look", lambda F, cache, q, k, v, at: look(F, cache * 0, q, k, v, at))
    monkeypatch.setattr(decoding, "SMALL", SMALL)
    with pytest.raises(DifferentResults):
        next(decoding.decode(Settings(1, frozenset({"torch"}), quick=True)))
