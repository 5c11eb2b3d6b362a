"""InsertKVCache: what new tokens give with caches is what the whole sequence gives; and what is not causal is refused.

Graphs run by their reference meaning here; compiled programs are in tests/generate/test_decoder.py.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir import Builder, Graph, f32, i64, ops, verify
from tinytorch.ir.errors import PassError
from tinytorch.ir.graph import substitute
from tinytorch.ir.ops.packed import pack, pack_groups
from tinytorch.nn import functional as F
from tinytorch.passes import InsertKVCache
from tinytorch.passes.time_axis import BATCH, ROWS, Factor, joined, plain, regroup, shape_of

VOCABULARY, CAPACITY, WIDTH, HEADS = 11, 12, 16, 2
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (3, CAPACITY))


def numbers(*shape: int, seed: int = 1) -> nn.Parameter:
    found = np.random.default_rng([seed, *shape]).standard_normal(shape) * 0.3
    return nn.Parameter(tt.tensor(found.astype(np.float32)))


class OneFile(nn.Module):
    """A decoder as people write one: everything by hand, two layers, with `attention` of q, k, v given."""

    def __init__(self, attention: Callable[..., Any], positions: bool = True) -> None:
        self.attention, self.positions = attention, positions
        self.table, self.places, self.norm = numbers(VOCABULARY, WIDTH), numbers(CAPACITY, WIDTH), nn.LayerNorm(WIDTH)
        self.enter = nn.ParameterList(numbers(3 * WIDTH, WIDTH, seed=n) for n in range(2))
        self.leave = nn.ParameterList(numbers(WIDTH, WIDTH, seed=n) for n in range(2))

    def forward(self, tokens: tt.Tensor) -> tt.Tensor:
        batch, time = tokens.shape
        x = F.embedding(tokens, self.table)
        x = x + self.places[:time] if self.positions else x
        for enter, leave in zip(self.enter, self.leave, strict=True):
            y = self.norm(x) @ enter.T
            q, k, v = (y[..., n * WIDTH:(n + 1) * WIDTH].reshape(batch, time, HEADS, -1).permute(0, 2, 1, 3)
                       for n in range(3))
            x = x + F.gelu(self.attention(q, k, v, time).permute(0, 2, 1, 3).reshape(batch, time, WIDTH) @ leave.T)
        return self.norm(x) @ self.table.T


def distance(time: int) -> tt.Tensor:
    """How far key j is behind query i, (i, j); negative for later ones."""
    place = tt.arange(time)
    return place[:, None] - place[None, :]


def scores(q: tt.Tensor, k: tt.Tensor) -> tt.Tensor:
    return q @ k.transpose(-2, -1) * 0.3


LOWER = tt.tril(tt.ones(16, 16)).reshape(1, 1, 16, 16)  # a buffer, longer than any sequence


def by_hand(q: Any, k: Any, v: Any, time: int) -> Any:
    s = tt.where(LOWER[:, :, :time, :time] == 0, float("-inf"), scores(q, k))
    e = (s - s.max(-1, keepdim=True)[0]).exp()
    return (e / e.sum(-1, keepdim=True)) @ v


def added(q: Any, k: Any, v: Any, time: int) -> Any:
    return F.softmax(scores(q, k) + tt.triu(tt.full((time, time), float("-inf")), 1), -1) @ v


def added_low(q: Any, k: Any, v: Any, time: int) -> Any:
    return F.softmax(scores(q, k) + (distance(time) < 0).to(tt.f32) * -1e9, -1) @ v


def filled_low(q: Any, k: Any, v: Any, time: int) -> Any:
    return F.softmax(tt.where(distance(time) < 0, -1e9, scores(q, k)), -1) @ v


def alibi(q: Any, k: Any, v: Any, time: int) -> Any:
    slopes = tt.tensor([0.5, 0.25]).reshape(HEADS, 1, 1)
    far = distance(time)
    return F.softmax(tt.where(far >= 0, scores(q, k) - slopes * far.to(tt.f32), float("-inf")), -1) @ v


def alibi_as_mask(q: Any, k: Any, v: Any, time: int) -> Any:
    far, slopes = distance(time), tt.tensor([0.5, 0.25]).reshape(HEADS, 1, 1)
    return F.scaled_dot_product_attention(q, k, v, tt.where(far >= 0, -slopes * far.to(tt.f32), float("-inf")))


def learned_bias(q: Any, k: Any, v: Any, time: int) -> Any:
    """A trained number for each distance and head, as in T5."""
    bias = DISTANCES[tt.clip(distance(time), 0, 4)].permute(2, 0, 1)
    return F.softmax(tt.where(distance(time) >= 0, scores(q, k) + bias, float("-inf")), -1) @ v


DISTANCES = numbers(5, HEADS)


def window(q: Any, k: Any, v: Any, time: int) -> Any:
    far = distance(time)
    return F.scaled_dot_product_attention(q, k, v, (far >= 0) & (far < 4))


def window_by_hand(q: Any, k: Any, v: Any, time: int) -> Any:
    far = distance(time)
    return F.softmax(tt.where((far >= 0) & (far < 4), scores(q, k), float("-inf")), -1) @ v


def stacked(q: Any, k: Any, v: Any, time: int) -> Any:
    """Batch and heads as one axis, as torch.bmm wants them; the mask repeated for all."""
    q, k, v = (t.reshape(-1, time, WIDTH // HEADS) for t in (q, k, v))
    seen = (distance(time) >= 0).expand(q.shape[0], time, time)
    return (F.softmax(tt.where(seen, scores(q, k), float("-inf")), -1) @ v).reshape(-1, HEADS, time, WIDTH // HEADS)


BIAS = numbers(6, CAPACITY, CAPACITY)


def own_bias(q: Any, k: Any, v: Any, time: int) -> Any:
    """A table for each sequence of the batch, and axes merged as above."""
    q, k, v = (t.reshape(-1, time, WIDTH // HEADS) for t in (q, k, v))
    biased = scores(q, k) + BIAS
    return (F.softmax(tt.where(distance(time) >= 0, biased, float("-inf")), -1) @ v).reshape(3, HEADS, time, -1)


def with_log_sums(q: Any, k: Any, v: Any, time: int) -> Any:
    """The second result of attention is looked at too: it is opened."""
    out, total = ops.attend(*(t.permute(0, 2, 1, 3) for t in (q, k, v)), causal=True)
    return (out * total.unsqueeze(-1)).permute(0, 2, 1, 3)


def average(q: Any, k: Any, v: Any, time: int) -> Any:
    weights = tt.tril(tt.ones(time, time))
    return (weights / weights.sum(1, keepdim=True)) @ v


def rotary(q: Any, k: Any, v: Any, time: int) -> Any:
    """Halves turned, with tables that are made on the way, as Hugging Face's Llama does."""
    rates = tt.tensor((100.0 ** (-np.arange(0, 8, 2) / 8)).astype(np.float32))
    angles = tt.arange(time).to(tt.f32)[:, None] * rates
    both = tt.concat([angles, angles], -1)

    def turn(x: Any) -> Any:
        return x * both.cos() + tt.concat([-x[..., 4:], x[..., :4]], -1) * both.sin()

    return F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)


def repeated(k: tt.Tensor) -> tt.Tensor:
    """One head for all queries, repeated as Hugging Face's Llama does."""
    return k[:, :1].unsqueeze(2).expand(-1, -1, HEADS, -1, -1).reshape(k.shape[0], HEADS, *k.shape[2:])


def repeated_heads(q: Any, k: Any, v: Any, time: int) -> Any:
    return F.scaled_dot_product_attention(q, repeated(k), repeated(v), is_causal=True)


def repeated_by_hand(q: Any, k: Any, v: Any, time: int) -> Any:
    return F.softmax(tt.where(distance(time) >= 0, scores(q, repeated(k)), float("-inf")), -1) @ repeated(v)


def tiled_heads(q: Any, k: Any, v: Any, time: int) -> Any:
    """Heads 0, 1, 0, 1: not the order of groups, so nothing can be kept once."""
    def narrow(x: Any) -> Any:
        return x.reshape(-1, HEADS, time, 2, 4).permute(0, 1, 3, 2, 4).reshape(-1, 4, time, 4)

    def tile(x: Any) -> Any:
        return narrow(x)[:, :2].unsqueeze(1).expand(-1, 2, -1, -1, -1).reshape(-1, 4, time, 4)

    y = F.scaled_dot_product_attention(narrow(q), tile(k), tile(v), is_causal=True)
    return y.reshape(-1, HEADS, 2, time, 4).permute(0, 1, 3, 2, 4).reshape(-1, HEADS, time, 8)


class Encoder(nn.Module):
    """PyTorch's own encoder, made causal by a mask; time may be the first axis."""

    def __init__(self, batch_first: bool) -> None:
        self.table, self.places, self.batch_first = numbers(VOCABULARY, WIDTH), numbers(32, WIDTH), batch_first
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, dropout=0.0, batch_first=batch_first)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: tt.Tensor) -> tt.Tensor:
        time = tokens.shape[1]
        x = F.embedding(tokens, self.table) + self.places[:time]
        mask = tt.triu(tt.full((time, time), float("-inf")), 1)
        if self.batch_first:
            return self.head(self.encoder(x, mask))
        return self.head(self.encoder(x.transpose(0, 1), mask).transpose(0, 1))


class SameDocument(OneFile):
    """Attention within documents, which token 0 ends: a mask that is made of tokens."""

    def forward(self, tokens: tt.Tensor) -> tt.Tensor:
        start = tokens == 0
        self.attention = lambda q, k, v, time: F.softmax(tt.where(
            (start[:, None, :, None] == start[:, None, None, :]) & (distance(time) >= 0), scores(q, k), float("-inf")),
            -1) @ v
        return super().forward(tokens)


class Packed(OneFile):
    """Weights of 4 bits: the table of embeddings, and the last map, which is the same."""

    def __init__(self) -> None:
        super().__init__(added)
        values = np.random.default_rng(0).integers(-8, 8, (VOCABULARY, WIDTH))
        self.packed = [tt.tensor(t) for t in (pack(values, 4), pack_groups(np.full((VOCABULARY, 2), 0.125)))]
        self.sizes = {"bits": 4, "group": 8, "outputs": VOCABULARY}

    def forward(self, tokens: tt.Tensor) -> tt.Tensor:
        x = ops.packed_rows(tokens, *self.packed, **self.sizes, depth=WIDTH) + self.places[:tokens.shape[1]]
        q, k, v = (t.unsqueeze(1) for t in (x, x * 2.0, x + 1.0))
        return ops.packed_linear(added(q, k, v, tokens.shape[1])[:, 0], *self.packed, **self.sizes)


def llama(interleaved: bool) -> nn.Module:
    return nn.Llama(nn.LlamaConfig(VOCABULARY, 32, 48, 2, 4, 2, max_position_embeddings=16, interleaved=interleaved))


BY_HAND = {f.__name__: f for f in (by_hand, added, added_low, filled_low, window, window_by_hand, stacked, own_bias,
                                   with_log_sums, average, tiled_heads, learned_bias, rotary, repeated_heads,
                                   repeated_by_hand)}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt": lambda: nn.GPT(nn.GPTConfig(VOCABULARY, 16, n_layer=2, n_head=2, n_embd=32)),
    "llama": lambda: llama(False), "llama interleaved": lambda: llama(True),
    **{name: (lambda f=f: OneFile(f)) for name, f in BY_HAND.items()},
    "alibi": lambda: OneFile(alibi, False), "alibi as a mask": lambda: OneFile(alibi_as_mask, False),
    "encoder": lambda: Encoder(True), "encoder, time first": lambda: Encoder(False),
    "packed": Packed, "documents": lambda: SameDocument(by_hand),
}


@cache
def traced(name: str, batch: int = 3) -> tuple[Graph, np.ndarray]:
    """A model's graph at full length, and its logits for TOKENS."""
    tt.manual_seed(0)
    graph = tt.trace(MODELS[name]().eval(), tt.tensor(TOKENS[:batch]))
    return graph, graph(TOKENS[:batch])


def error(graph: Graph, whole: np.ndarray, steps: Sequence[int] = (5, 1, 1, 3), fill: float = 3e4,
          change: Callable[[Graph], Graph] = lambda graph: graph, **options: Any) -> float:
    """The greatest difference between logits of the whole, and of tokens that come in steps; sequences are of
    different length after the first, so some tokens come twice. Rows of caches begin as `fill`."""
    batch = whole.shape[0]
    places, caches, worst = np.zeros(batch, np.int64), None, 0.0
    for count in steps:
        extend = InsertKVCache(count, **options)(graph)
        verify(extend)
        if caches is None:
            caches = [np.full(v.shape, fill if v.dtype.is_float else 99).astype(v.dtype.np) for v in extend.free[2:]]
        rows = places[:, None] + np.arange(count)
        logits, *caches = change(extend)(np.take_along_axis(TOKENS[:batch], rows, 1), places, *caches)
        apart = np.abs(logits - np.take_along_axis(whole, rows[..., None], 1)).max()
        worst = float(np.maximum(worst, apart))  # nan too
        places = places + count - (np.arange(batch) if count == steps[0] else 0)
    return worst


@pytest.mark.parametrize("name", MODELS)
def test_new_tokens_give_what_the_whole_sequence_gives(name: str) -> None:
    assert error(*traced(name), fill=1e20) < 1e-5


@pytest.mark.parametrize("name", ["llama", "by_hand", "alibi", "stacked"])
def test_one_sequence_alone(name: str) -> None:
    assert error(*traced(name, 1)) < 1e-5


def test_ops_that_work_by_rows_stay_whole() -> None:
    names = {node.op.name for node in InsertKVCache(2)(traced("packed")[0]).nodes}
    assert names >= {"packed_rows", "packed_linear"} and not names & {"right_shift", "floor_div"}


def test_tables_of_literals_are_made_once() -> None:
    graph = traced("rotary")[0]
    flow = InsertKVCache.follow(graph)
    first, second = (InsertKVCache(steps).extend(flow) for steps in (1, 2))
    made = [[array for value, array in extend.bound.items() if value not in graph.bound] for extend in (first, second)]
    assert len(made[0]) == 1 and made[0][0] is made[1][0] and not made[0][0].flags.writeable
    tables = [node for node in first.nodes if node.op.kind.launches and node.output.shape[0] == CAPACITY]
    assert not tables, "nothing is computed for all positions"


def test_heads_that_are_repeated_are_kept_once() -> None:
    for name in ("repeated_heads", "repeated_by_hand"):
        kept = [v.type.size for v in InsertKVCache(1)(traced(name)[0]).free[2:]]
        assert min(kept) == 3 * CAPACITY * WIDTH // HEADS, name


@pytest.mark.parametrize(("name", "dtype", "bound"), [
    ("llama", "i8", 2e-3), ("llama", "f16", 2e-4), ("llama", "bf16", 2e-3), ("by_hand", "i8", 5e-2)])
def test_smaller_types_of_caches(name: str, dtype: str, bound: float) -> None:
    exact, found = error(*traced(name)), error(*traced(name), cache_dtype=dtype)
    assert exact < found < bound
    kept = {v.dtype.name for v in InsertKVCache(1, cache_dtype=dtype)(traced(name)[0]).free[2:]}
    assert kept == ({"i8", "f32"} if dtype == "i8" else {dtype})


@pytest.mark.parametrize("dtype", ["f32", "i8"])
def test_models_of_another_type(dtype: str) -> None:
    tt.manual_seed(0)
    model = llama(False).to("f64").eval()
    graph = tt.trace(model, tt.tensor(TOKENS))
    assert error(graph, graph(TOKENS), cache_dtype=dtype) < (1e-12 if dtype == "f32" else 2e-3)


def test_window_that_is_asked_for() -> None:
    limited = error(traced("window")[0], traced("window")[1], window=4)
    narrow, wide = (error(*traced("llama"), window=size) for size in (2, CAPACITY))
    assert limited < 1e-5 and wide < 1e-5 < narrow


# -- a prompt ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt", "llama interleaved", "by_hand", "alibi", "stacked", "encoder, time first"])
@pytest.mark.parametrize("prefill", [False, True])
def test_last_rows_of_prompts(name: str, prefill: bool) -> None:
    graph, whole = traced(name)
    extend, single = InsertKVCache(8, last=True, prefill=prefill)(graph), InsertKVCache(1)(graph)
    last = np.array([7, 3, 5])
    caches = [np.full(v.shape, 1e20, v.dtype.np) for v in extend.free[3:]]
    logits, *caches = extend(TOKENS[:, :8], np.zeros(3, np.int64), last, *caches)
    np.testing.assert_allclose(logits[:, 0], whole[np.arange(3), last], atol=1e-5)
    logits, *caches = single(TOKENS[np.arange(3), last + 1][:, None], last + 1, *caches)
    np.testing.assert_allclose(logits[:, 0], whole[np.arange(3), last + 1], atol=1e-5)


def test_what_caches_do_not_need_is_computed_for_last_rows_only() -> None:
    extend = InsertKVCache(8, last=True)(traced("llama")[0])
    products = [node.output.shape[1] for node in extend.nodes if node.op is ops.linear]
    first, second = products[:7], products[7:-1]
    assert first == [8] * 7  # q, k, v, o, gate, up, down of the first layer
    assert sorted(second) == [1, 1, 1, 1, 1, 8, 8] and products[-1] == 1  # of the second, only k and v


def test_prefill_looks_at_new_rows_only() -> None:
    names = [[node.op.name for node in InsertKVCache(8, prefill=prefill)(traced("gpt")[0]).nodes]
             for prefill in (False, True)]
    assert [n.count("attend_cached") for n in names] == [2, 0] and [n.count("attend") for n in names] == [0, 2]


# -- refusals ----------------------------------------------------------------------------------------------------------


def twice(x: tt.Tensor) -> tt.Tensor:
    return tt.concat([x, x], 2)


def backwards(x: tt.Tensor, time: int) -> tt.Tensor:
    return x[:, :, list(range(time - 1, -1, -1))]


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "no mask": (lambda q, k, v, time: F.scaled_dot_product_attention(q, k, v), "attend.*this attention has no mask"),
    "no mask, by hand": (lambda q, k, v, time: F.softmax(scores(q, k), -1) @ v, "max.*keys are not masked.*-inf"),
    "one key too many": (lambda q, k, v, time: F.softmax(tt.where(
        distance(time) >= -1, scores(q, k), float("-inf")), -1) @ v, "max.*looks at later tokens.*unknown numbers"),
    "one key too many, as a mask": (lambda q, k, v, time: F.scaled_dot_product_attention(
        q, k, v, distance(time) >= -1), "max.*looks at later tokens"),
    "a mask for one head only": (lambda q, k, v, time: F.softmax(tt.where(
        (distance(time) >= 0) | (tt.arange(HEADS) == 1)[:, None, None], scores(q, k), float("-inf")), -1) @ v,
        "looks at later tokens"),
    "a mild mask": (lambda q, k, v, time: F.softmax(scores(q, k) + (distance(time) < 0).to(tt.f32) * -10, -1) @ v,
                    "looks at later tokens"),
    "masked after softmax": (lambda q, k, v, time: tt.where(
        distance(time) >= 0, F.softmax(scores(q, k), -1), 0.0) @ v, "max.*looks at later tokens"),
    "no softmax, no mask": (lambda q, k, v, time: scores(q, k) @ v, "matmul.*looks at later tokens"),
    "a fixed average of all": (lambda q, k, v, time: tt.full((time, time), 1 / time) @ v, "matmul"),
    "axes that do not fit": (lambda q, k, v, time: F.softmax(
        (q.unsqueeze(3).expand(-1, -1, -1, time, -1) * k.unsqueeze(2).expand(-1, -1, time, -1, -1)).sum(-1), -1) @ v,
        "mul.*axes meet that do not belong together"),
    "pairs of sequences": (lambda q, k, v, time: v + (v.unsqueeze(0) - v.unsqueeze(1)).sum(0), "pairs sequences"),
    "triples": (lambda q, k, v, time: v + (scores(q, k).unsqueeze(4) * v.reshape(-1, HEADS, 1, 1, time, 8)[..., 0]).sum(
        (3, 4)).unsqueeze(-1), "or three times"),
    "running sums": (lambda q, k, v, time: v.cumsum(2), "cumsum along time"),
    "mean over time": (lambda q, k, v, time: v - v.mean(2, keepdim=True), "sum.*takes the sum over time"),
    "state over all of time": (lambda q, k, v, time: q @ (k.transpose(-2, -1) @ v), "sums over all of time"),
    "time reversed": (lambda q, k, v, time: backwards(v, time), "takes elements along time"),
    "every second token": (lambda q, k, v, time: twice(v[:, :, ::2]), "takes a part of time"),
    "time cut": (lambda q, k, v, time: twice(v.reshape(-1, HEADS, 2, time // 2, 8).amax(2)), "time is cut into pieces"),
    "mixed sequences": (lambda q, k, v, time: v - v.mean(0, keepdim=True), "over the sequences of the batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_op_the_line_and_the_reason(name: str) -> None:
    attention, message = REFUSED[name]
    graph = tt.trace(OneFile(attention).eval(), tt.tensor(TOKENS))
    with pytest.raises(PassError, match=f"(?s)no cache can be inserted.*{message}.*test_insert_kv_cache.py:"):
        InsertKVCache(1)(graph)


def test_graphs_of_another_kind_are_refused() -> None:
    build = Builder("features")
    with build:
        x = build.input("x", f32[2, 8, 4]) * 2.0
    with pytest.raises(PassError, match="features.*expected a graph of one input, tokens"):
        InsertKVCache(1)(build.finish([x]))
    build = Builder("scores")
    with build:
        tokens = build.input("tokens", i64[2, 8])
        pairs = ops.eq(ops.reshape(tokens, (2, 8, 1)), ops.reshape(tokens, (2, 1, 8)))
    with pytest.raises(PassError, match="result 0 .*has an axis for the time of keys"):
        InsertKVCache(1)(build.finish([pairs]))
    graph = traced("gpt")[0]
    for options, message in (({"steps": 13}, "expected 1 to 12 steps"), ({"cache_dtype": "f64"}, "expected one of"),
                             ({"window": 0}, "expected 1 or more")):
        with pytest.raises(PassError, match=message):
            InsertKVCache(**options)(graph)  # type: ignore[arg-type]
    with pytest.raises(PassError, match="masks of its own"):
        InsertKVCache(window=3)(traced("by_hand")[0])


# -- knock-outs --------------------------------------------------------------------------------------------------------


def never_written(graph: Graph) -> Graph:
    """The caches stay as they were given."""
    same = {node.output: node.inputs[0] for node in graph.nodes if node.op is ops.write_rows}
    outputs = tuple(same.get(value, value) for value in graph.outputs)
    return graph.with_(nodes=tuple(substitute(graph.nodes, same)), outputs=outputs, donated={})


def test_a_cache_that_is_never_written_is_noticed() -> None:
    assert error(*traced("llama"), fill=0) < 1e-5
    assert error(*traced("llama"), fill=0, change=never_written) > 1e-3


# -- where axes lie ----------------------------------------------------------------------------------------------------


def test_regrouped_axes() -> None:
    lay = ((Factor(2, BATCH),), (Factor(8, ROWS),), (Factor(6),))
    merged = regroup(lay, (16, 6))
    assert merged == ((Factor(2, BATCH), Factor(8, ROWS)), (Factor(6),))
    assert regroup(merged, (2, 8, 1, 3, 2)) == (*lay[:2], (), (Factor(3),), (Factor(2),))
    assert regroup(lay, (2, 48)) == (lay[0], (Factor(8, ROWS), Factor(6)))
    assert regroup(lay, (2, 4, 12)) is None and regroup(lay, (32, 3)) == ((*merged[0], Factor(2)), (Factor(3),))
    assert regroup(plain((4, 3)), (3, 4)) == plain((3, 4))
    assert shape_of(merged, {ROWS: 3}) == (6, 6) and joined((Factor(2), Factor(1, BATCH), Factor(3))) == (Factor(6),)
