"""Tokens one after the other: with the caches that our pass inserts, by recomputing, and with PyTorch's by hand.

What PyTorch runs is written as one would by hand for this one shape: caches made once, rows put in place, attention to
what is there. All sides give the logits of the same token at the same place, which are compared before they are timed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch import quant, zoo
from tinytorch.autograd import no_grad
from tinytorch.compile import compile
from tinytorch.generate import Decoder
from tinytorch.ir import ops
from tinytorch.look import units
from tinytorch.nn.gpt import GPT, GPTConfig
from tinytorch.nn.llama import Llama, LlamaConfig
from tinytorch.random import manual_seed
from tinytorch.tensor import tensor

from . import in_llama, limits, peers
from .rows import Row, Settings, Target, against
from .same import DifferentResults, check_same
from .timing import interval, paired

SMALL = GPTConfig(vocab_size=65, block_size=512, n_layer=4, n_head=4, n_embd=128, bias=False)  # examples/gpt_2018's
LARGE = GPTConfig(vocab_size=16384, block_size=512, n_layer=12, n_head=12, n_embd=768, bias=False)  # 98 million
LLAMA = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                    num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=512,
                    tie_word_embeddings=True)  # 135 million
ALIKE = 0.8  # correlation of logits of random weights, rounded to 4 bits in two ways; another model has none
ROW = 8  # tokens one after the other in each call, as in a text: a worker that is awake stays so
Forward = Callable[[Any, int], Any]  # of PyTorch: tokens (1, new) that stand from a position on, to logits


def decode(settings: Settings) -> Iterator[Row]:
    """One token of one sequence, against PyTorch eager with a cache, and against a compiled forward without one."""
    for name, config, place, target in (
            ("GPT of 4 layers, 128 wide, token 64", SMALL, 63, 3.0),
            ("GPT of 98 M parameters, token 256", LARGE, 255, 1.5), ("Llama of 135 M, token 256", LLAMA, 255, 1.5)):
        yield from _against_torch(name, config, place, target, settings)
    yield from _against_recomputing(settings)
    yield from _late_against_early(settings)


def packed(settings: Settings) -> Iterator[Row]:
    """Tokens from weights of 8 and 4 bits: against our f32, against the bandwidth of memory, against llama.cpp."""
    yield from _against_f32(settings)
    yield from _perplexity()
    yield from _against_llama(settings)


def _against_f32(settings: Settings) -> Iterator[Row]:
    tokens, place = _tokens(LARGE, 65), np.array([64])
    one = np.ascontiguousarray(tokens[:, -1:])
    model = _model(LARGE)
    models = {"f32": model, "int8": quant.quantize(model, method="int8"),
              "int4": quant.quantize(model, method="int4", group=32)}
    decoders = {name: Decoder(m, 1, 512, threads=settings.threads) for name, m in models.items()}
    limit = limits.reading(settings.threads)
    calls: dict[str, Callable[[], Any]] = {"reading": limit.call}
    for name, decoder in decoders.items():
        decoder.extend(tokens[:, :-1], [0], last=True)
        calls[name] = in_a_row(partial(decoder.extend, one, place))
    found = paired(calls, 2 * settings.seconds, settings.settle)
    for name, target in ("int8", 3.0), ("int4", 5.0):
        ratios = found[name].ratios(found["f32"])
        yield Row("packed", f"98 M decoder, {name} weights, {settings.with_threads}, against f32",
                  statistics.median(ratios), Target(target), found[name], {"f32": found["f32"]},
                  interval=interval(ratios), note=f"{ROW / found[name].median:,.0f} tokens/s")
    for name, decoder in decoders.items():
        nbytes = ROW * _weight_bytes(decoder)
        shares = limit.share(nbytes, found[name], found["reading"])
        rate, best = nbytes / found[name].median, limit.work / found["reading"].median
        yield Row("packed", f"98 M decoder, {name} weights, {settings.with_threads}: bandwidth",
                  statistics.median(shares), Target(0.75, "%"), found[name], unit="%", interval=interval(shares),
                  note=f"{units.nbytes(nbytes // ROW)} a token at {units.bandwidth(rate)} of {units.bandwidth(best)}")


def in_a_row(call: Callable[[], Any]) -> Callable[[], None]:
    """A call that computes `ROW` tokens (of which each is the same one, so that all take as long)."""
    def several() -> None:
        for _ in range(ROW):
            call()

    return several


def _perplexity() -> Iterator[Row]:
    """What rounding costs the GPT of the zoo, on the text that it has not seen."""
    model, (tokens, following) = zoo.gpt(), zoo.examples("gpt", "test")
    whole = zoo.score(compile(model, pipeline="infer"), tokens, following).perplexity
    for method, group, target in ("int8", None, 0.005), ("int4", 32, 0.03):
        small = quant.quantize(model, method=method, group=group)
        found = zoo.score(compile(small, pipeline="infer"), tokens, following).perplexity
        yield Row("packed", f"GPT of the zoo: perplexity more with {method} weights, rounded to the nearest",
                  found / whole - 1, Target(target, "percent", at_most=True), unit="percent",
                  note=f"{found:.4f} after {whole:.4f}")


def _weight_bytes(decoder: Decoder) -> int:
    """Bytes of the weights that each token reads: all but the tables of which it takes rows."""
    graph = decoder.graph
    taken = {node.inputs[0] for node in graph.nodes if node.op in (ops.take, ops.packed_rows)}
    read = {value for node in graph.nodes if node.op not in (ops.take, ops.packed_rows) for value in node.inputs}
    return sum(value.type.nbytes for value in graph.bound if value in read or value not in taken)


def _against_llama(settings: Settings) -> Iterator[Row]:
    """Decode and prefill of the 135 M Llama in 4 bits, the table of embeddings in 8, as llama.cpp has it."""
    config = replace(LLAMA, interleaved=True)
    model, prompt, one = _model(config), _tokens(config, 401)[0, :400], _tokens(config, 401)[:, 400:]
    small = quant.quantize(model, method="int4", group=32, layers={"model.embed_tokens": "int8"})
    decoder = Decoder(small, 1, 512, threads=settings.threads)
    decoder.extend(prompt[None, :64], [0], last=True)
    with tempfile.TemporaryDirectory() as folder:
        rival = in_llama.Llama(model, "q4_0", settings.threads, Path(folder)) if "llama.cpp" in settings.peers else None
        for case, tokens, place in ("decode, token 65", one, 64), ("prefill of 400 tokens", prompt[None], 0):
            calls: dict[str, Callable[[], Any]] = {
                "ours": partial(decoder.extend, tokens, [place], last=True)}
            if rival is not None:
                rival.extend(prompt[:64], 0)
                calls["llama.cpp"] = partial(rival.extend, tokens[0], place)
                _check_alike(calls)
            count = tokens.shape[1]
            if count == 1:
                calls, count = {name: in_a_row(call) for name, call in calls.items()}, ROW
            found = paired(calls, settings.seconds, settings.settle)
            rates = ", ".join(f"{name} {count / timing.median:,.0f}" for name, timing in found.items())
            yield against("packed", f"Llama of 135 M in 4 bits, {case}, {settings.with_threads}", found, "llama.cpp",
                          Target(2.0), f"tokens/s: {rates}")


def _check_alike(calls: Mapping[str, Callable[[], Any]]) -> None:
    """The weights of both are rounded, each in its way: their logits are alike, not equal."""
    ours, theirs = (np.ravel(call()) for call in calls.values())
    alike = float(np.corrcoef(ours, theirs)[0, 1])
    if not alike > ALIKE:
        raise DifferentResults(f"llama.cpp's logits correlate with ours by {alike:.3f}, expected more than {ALIKE}: "
                               "they must compute the same model, or their times mean nothing")


def _against_torch(name: str, config: GPTConfig | LlamaConfig, place: int, target: float,
                   settings: Settings) -> Iterator[Row]:
    model, tokens = _model(config), _tokens(config, place + 1)
    decoder = Decoder(model, 1, 512, threads=settings.threads)
    decoder.extend(tokens[:, :-1], [0], last=True)
    one, at = np.ascontiguousarray(tokens[:, -1:]), np.array([place])
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: decoder.extend(one, at)}
    if "torch" in settings.peers:
        torch = peers.torch(settings.threads)
        forward = (_gpt if isinstance(config, GPTConfig) else _llama)(torch, model, config)
        one_torch = torch.tensor(one)
        with torch.inference_mode():
            forward(torch.tensor(tokens[:, :-1]), 0)

        def theirs() -> Any:
            with torch.inference_mode():
                return forward(one_torch, place)

        calls["torch"] = theirs
    first = check_same(calls)
    found = paired({side: in_a_row(call) for side, call in calls.items()}, settings.seconds, settings.settle)
    yield against("decode", f"{name}, {settings.with_threads}", found, "torch", Target(target),
                  f"{ROW / found['ours'].median:,.0f} tokens/s; times are of {ROW} tokens", first)


def _against_recomputing(settings: Settings) -> Iterator[Row]:
    """Token 512, without a cache: all 512 are computed again."""
    model, tokens = _model(SMALL), _tokens(SMALL, 512)
    decoder, whole = Decoder(model, 1, 512, threads=settings.threads), compile(model, threads=settings.threads)
    decoder.extend(tokens[:, :-1], [0], last=True)
    one, at, given = np.ascontiguousarray(tokens[:, -1:]), np.array([511]), tensor(tokens)

    def recomputed() -> Any:
        with no_grad():
            return whole(given).numpy()[:, -1:]

    calls = {"ours": lambda: decoder.extend(one, at), "recomputing": recomputed}
    first = check_same(calls, room=1e-4)
    found = paired(calls, settings.seconds, settings.settle)
    ratio = found["ours"].faster_than(found["recomputing"])
    yield Row("decode", f"token 512 with a cache against recomputing, {settings.with_threads}", ratio, Target(20.0),
              found["ours"], {"recomputing": found["recomputing"]}, first=first)


def _late_against_early(settings: Settings) -> Iterator[Row]:
    """The last token of a long text against the first: only attention may make the difference."""
    decoder = Decoder(_model(LARGE), 1, 512, threads=settings.threads)
    one = _tokens(LARGE, 1)
    found = paired({name: lambda at=at: decoder.extend(one, at)  # type: ignore[misc]
                    for name, at in (("ours", np.array([511])), ("token 1", np.array([0])))},
                   settings.seconds, settings.settle)
    yield Row("decode", f"GPT of 98 M parameters, token 512 over token 1, {settings.with_threads}",
              found["token 1"].faster_than(found["ours"]), Target(1.25, at_most=True), found["ours"],
              {"token 1": found["token 1"]})


def _model(config: GPTConfig | LlamaConfig) -> GPT | Llama:
    manual_seed(0)
    model = GPT(config) if isinstance(config, GPTConfig) else Llama(config)
    model.eval()
    return model


def _tokens(config: GPTConfig | LlamaConfig, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, config.vocab_size, (1, count))


# -- PyTorch, by hand --------------------------------------------------------------------------------------------------


def _gpt(torch: Any, model: GPT | Llama, config: Any) -> Forward:
    """The same GPT, eager, with caches (1, heads, time, head_dim)."""
    F = torch.nn.functional
    w = {name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()}
    width, heads = config.n_embd, config.n_head
    caches = torch.zeros(config.n_layer, 2, 1, heads, config.block_size, width // heads)

    def forward(tokens: Any, at: int) -> Any:
        time = tokens.shape[1]
        x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][at:at + time]
        for number in range(config.n_layer):
            layer = f"transformer.h.{number}."
            y = F.layer_norm(x, (width,), w[layer + "ln_1.weight"])
            q, k, v = (part.view(1, time, heads, -1).transpose(1, 2)
                       for part in F.linear(y, w[layer + "attn.c_attn.weight"]).chunk(3, -1))
            y = _look(F, caches[number], q, k, v, at).transpose(1, 2).reshape(1, time, width)
            x = x + F.linear(y, w[layer + "attn.c_proj.weight"])
            y = F.layer_norm(x, (width,), w[layer + "ln_2.weight"])
            x = x + F.linear(F.gelu(F.linear(y, w[layer + "mlp.c_fc.weight"])), w[layer + "mlp.c_proj.weight"])
        return F.linear(F.layer_norm(x, (width,), w["transformer.ln_f.weight"]), w["lm_head.weight"])

    return forward


def _llama(torch: Any, model: GPT | Llama, config: Any) -> Forward:
    """The same Llama, eager, with caches (1, key heads, time, head_dim)."""
    F = torch.nn.functional
    w = {name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()}
    width, heads, key_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    dim = width // heads
    caches = torch.zeros(config.num_hidden_layers, 2, 1, key_heads, config.max_position_embeddings, dim)
    speeds = config.rope_theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(config.max_position_embeddings)[:, None] * speeds
    cos, sin = (f(torch.cat([angles, angles], 1)).float() for f in (torch.cos, torch.sin))

    def turned(x: Any, at: int, time: int) -> Any:
        low, high = x.chunk(2, -1)
        return x * cos[at:at + time] + torch.cat([-high, low], -1) * sin[at:at + time]

    def forward(tokens: Any, at: int) -> Any:
        time = tokens.shape[1]
        x = w["model.embed_tokens.weight"][tokens]
        for number in range(config.num_hidden_layers):
            layer = f"model.layers.{number}."
            y = F.rms_norm(x, (width,), w[layer + "input_layernorm.weight"], config.rms_norm_eps)
            q, k, v = (F.linear(y, w[f"{layer}self_attn.{name}_proj.weight"]).view(1, time, -1, dim).transpose(1, 2)
                       for name in "qkv")
            y = _look(F, caches[number], turned(q, at, time), turned(k, at, time), v, at)
            x = x + F.linear(y.transpose(1, 2).reshape(1, time, width), w[layer + "self_attn.o_proj.weight"])
            y = F.rms_norm(x, (width,), w[layer + "post_attention_layernorm.weight"], config.rms_norm_eps)
            gate, up = (F.linear(y, w[f"{layer}mlp.{name}_proj.weight"]) for name in ("gate", "up"))
            x = x + F.linear(F.silu(gate) * up, w[layer + "mlp.down_proj.weight"])
        return F.linear(F.rms_norm(x, (width,), w["model.norm.weight"], config.rms_norm_eps), w["lm_head.weight"])

    return forward


def _look(F: Any, cache: Any, q: Any, k: Any, v: Any, at: int) -> Any:
    """Put new rows into a layer's cache, and look at what is there: a prompt at 0, or one token anywhere."""
    end = at + k.shape[2]
    cache[0, :, :, at:end], cache[1, :, :, at:end] = k, v
    return F.scaled_dot_product_attention(q, cache[0, :, :, :end], cache[1, :, :, :end], is_causal=at == 0,
                                          enable_gqa=True)
