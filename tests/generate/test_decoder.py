"""Decoder: compiled programs with caches give what the model gives of the whole sequence, in whatever pieces."""

from functools import cache

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.generate.decoder import Decoder
from tinytorch.ir.errors import OpError, PassError, ShapeError
from tinytorch.passes import InsertKVCache

CAPACITY, VOCABULARY = 32, 11
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (2, CAPACITY))


@cache
def model() -> nn.Module:
    tt.manual_seed(0)
    config = nn.LlamaConfig(VOCABULARY, 32, 48, 2, 2, 1, max_position_embeddings=CAPACITY)
    return nn.Llama(config)


@cache
def shared() -> Decoder:
    """One for all tests, so that its few programs are compiled once."""
    return Decoder(model(), batch=2, capacity=CAPACITY)


def whole() -> np.ndarray:
    return np.asarray(model()(tt.tensor(TOKENS)).numpy())


@pytest.fixture
def decoder() -> Decoder:
    """With caches in which every row that should not be read would be noticed."""
    found = shared()
    found.reset()
    for each in found.caches:
        each.fill(np.nan)
    return found


def test_tokens_in_pieces(decoder: Decoder) -> None:
    expected, lengths = whole(), np.array([16, 11])
    logits = decoder.extend(TOKENS[:, :16], [0, 0], lengths=lengths, last=True)
    np.testing.assert_allclose(logits, expected[[0, 1], lengths - 1], atol=1e-5)
    places = lengths
    for count in (1, 1, 4, 1, 3):
        rows = places[:, None] + np.arange(count)
        logits = decoder.extend(np.take_along_axis(TOKENS, rows, 1), places)
        np.testing.assert_allclose(logits, np.take_along_axis(expected, rows[..., None], 1), atol=1e-5)
        places = places + count


def test_going_back_and_changing_places(decoder: Decoder) -> None:
    expected = whole()
    decoder.extend(TOKENS[:, :4], [0, 0])
    decoder.extend(TOKENS[::-1, 4:5], [4, 4])  # the wrong tokens: others take their place
    np.testing.assert_allclose(decoder.extend(TOKENS[:, 4:5], [4, 4])[:, 0], expected[:, 4], atol=1e-5)
    decoder.reorder([1, 1])
    np.testing.assert_allclose(decoder.extend(TOKENS[[1, 1], 5:6], [5, 5])[:, 0], expected[[1, 1], 5], atol=1e-5)


def test_parameters_are_read_anew(decoder: Decoder) -> None:
    weight = model().lm_head.weight  # type: ignore[attr-defined]
    before = decoder.extend(TOKENS[:, :1], [0, 0])
    weight.payload = weight.payload * 2
    np.testing.assert_allclose(decoder.extend(TOKENS[:, :1], [0, 0]), before * 2, rtol=1e-5)
    weight.payload = weight.payload / 2


def test_the_mode_of_the_model_is_left_as_it_is() -> None:
    net = nn.GPT(nn.GPTConfig(VOCABULARY, CAPACITY, 1, 2, 32, dropout=0.5)).train()
    assert not {"random_uniform", "dropout"} & {node.op.name for node in Decoder(net, 1, 8).graph.nodes}
    assert all(module.training for module in net.modules())


def test_there_are_few_programs() -> None:
    pieces = shared()._pieces
    assert pieces(1, 0) == [(0, 1, 1)] and pieces(5, 0) == [(0, 5, 8)] and pieces(32, 0) == [(0, 32, 32)]
    assert pieces(5, 25) == [(0, 4, 4), (4, 1, 1)]  # eight would not fit
    assert pieces(7, 25) == [(0, 4, 4), (4, 2, 2), (6, 1, 1)]


def test_last_rows_in_pieces(decoder: Decoder) -> None:
    expected = whole()
    decoder.extend(TOKENS[:, :16], [0, 0], last=True)
    decoder.extend(TOKENS[:, 16:20], [16, 16])
    for at in range(20, 27):
        decoder.extend(TOKENS[:, at:at + 1], [at, at])
    logits = decoder.extend(TOKENS[:, 27:], [27, 27], lengths=[5, 2], last=True)  # 4 and 1
    np.testing.assert_allclose(logits, expected[[0, 1], [31, 28]], atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    decoder = shared()
    for tokens, places, error, message in (
            (TOKENS[:, :3], [30, 0], ShapeError, "do not fit a capacity of 32"),
            (TOKENS[:, :1], [-1, 0], ShapeError, "do not fit"),
            (TOKENS[:1, :1], [0], ShapeError, r"expected \(2, new\)"),
            (TOKENS[:, :1], [0], ShapeError, "expected"),
            (TOKENS[:, :1] * 1.0, [0, 0], OpError, "expected integers")):
        with pytest.raises(error, match=message):
            decoder.extend(tokens, places)
    with pytest.raises(ShapeError, match="numbers, 1 … 3"):
        decoder.extend(TOKENS[:, :3], [0, 0], lengths=[0, 3])
    with pytest.raises(ShapeError, match="expected 2 numbers of sequences"):
        decoder.reorder([0, 2])
    with pytest.raises(OpError, match="expected at least one sequence"):
        Decoder(model(), 0, 8)
    with pytest.raises(ShapeError, match="max_position_embeddings"):
        Decoder(model(), 1, 64)
    with pytest.raises(PassError, match="expected logits"):
        Decoder(lambda tokens: tt.ones(2), 2, 8)


def test_numbers_that_follow_from_the_length_are_refused() -> None:
    table = tt.tensor(np.eye(VOCABULARY, dtype=np.float32))

    def scaled(tokens: tt.Tensor) -> tt.Tensor:
        return nn.functional.embedding(tokens, table) * (1 / tokens.shape[1])

    def averaged(tokens: tt.Tensor) -> tt.Tensor:
        x, place = nn.functional.embedding(tokens, table), tt.arange(tokens.shape[1])
        return tt.where((place[:, None] >= place)[..., None], x[:, None] - x[:, :, None], 0.0).mean(2)

    for function, op in ((scaled, "mul"), (averaged, "div")):
        with pytest.raises(PassError, match=f"{op}.*a number follows from the length.*at 4 tokens"):
            Decoder(function, 2, 8)
    for make in (lambda time: np.linspace(0, 1, time), lambda time: np.arange(time)[::-1].copy()):
        with pytest.raises(PassError, match="numbers of a table.*follow from the length"):
            Decoder(lambda tokens: nn.functional.embedding(tokens, table) + tt.tensor(
                make(tokens.shape[1]).astype(np.float32))[:, None], 2, 8)  # noqa: B023


def test_masks_may_be_made_of_the_length() -> None:
    table = tt.tensor(np.eye(VOCABULARY, dtype=np.float32))

    def masked(tokens: tt.Tensor) -> tt.Tensor:
        x, time = nn.functional.embedding(tokens, table), tokens.shape[1]
        return tt.softmax(tt.where(tt.tensor(np.tri(time) > 0), x @ x.transpose(1, 2), -1e9), -1) @ x

    graphs = [tt.trace(masked, tt.tensor(np.zeros((2, time), np.int64))) for time in (8, 4, 5)]
    assert InsertKVCache.follow(*graphs).cached


def test_a_token_outside_the_vocabulary_leaves_caches_as_they_were(decoder: Decoder) -> None:
    decoder.extend(TOKENS[:, :4], [0, 0])
    before = [cache.copy() for cache in decoder.caches]
    with pytest.raises(IndexError, match="out of range"):
        decoder.extend([[VOCABULARY], [0]], [4, 4])
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, decoder.caches, strict=True))
