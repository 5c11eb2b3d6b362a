"""Products of rounded operands keep within the stated bound; all else stays f32, and weights take half the memory."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from random_graphs import graphs
from realistic_graphs import mlp_step, transformer_block

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir import Builder, Graph, Kind, bf16, f32, f64, ops, verify
from tinytorch.ir.errors import DTypeError
from tinytorch.passes import CastPrecision, FoldBatchNorm, Pipeline, with_precision
from tinytorch.passes.compare import same_signature
from tinytorch.passes.standard import STANDARD

ROUNDING = {"bf16": 2.0**-8, "f16": 2.0**-11}
RNG = np.random.default_rng(0)

PRODUCTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[[Any, Any], Any]]] = {
    "matrix": ((5, 8), (8, 7), ops.matmul),
    "stack of matrices": ((2, 5, 8), (8, 7), ops.matmul),
    "turned": ((8, 5), (7, 8), lambda x, w: ops.matmul(x, w, True, True)),
    "odd depth": ((5, 7), (7, 6), ops.matmul),
    "linear": ((2, 3, 8), (6, 8), ops.linear),
    "images": ((2, 4, 6, 5), (6, 4, 3, 3), lambda x, w: ops.conv2d(x, w, stride=2, padding=1)),
    "three channels": ((1, 3, 6, 6), (4, 3, 3, 3), lambda x, w: ops.conv2d(x, w, padding=1)),
    "groups": ((1, 4, 5, 5), (6, 2, 3, 3), lambda x, w: ops.conv2d(x, w, dilation=2, groups=2, padding=1)),
    "depthwise": ((1, 4, 5, 5), (4, 1, 3, 3), lambda x, w: ops.conv2d(x, w, groups=4)),
    "second product of stacks": ((2, 3, 4, 6), (2, 3, 6, 4), ops.matmul),
}


def product(name: str) -> Graph:
    """A graph of one product; the weight is bound."""
    x_shape, w_shape, function = PRODUCTS[name]
    build = Builder(name.replace(" ", "_"))
    x, w = build.input("x", f32[x_shape]), build.input("w", f32[w_shape], RNG.standard_normal(w_shape).astype("f4"))
    with build:
        y = function(x, w)
    return build.finish([y])


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_result_is_within_the_stated_bound(name: str, dtype: str, weights: bool) -> None:
    graph = product(name)
    after = verify(CastPrecision(dtype, weights=weights)(graph))
    x, [w] = RNG.standard_normal(graph.free[0].shape).astype("f4"), graph.bound.values()
    _, _, function = PRODUCTS[name]
    exact, size = (function(change(x.astype("f8")), change(w.astype("f8"))).payload for change in (np.array, np.abs))
    u = ROUNDING[dtype]
    error = np.abs(after(x) - exact)
    assert (error <= (2 * u + u * u + 1e-6) * size).all()
    left = dtype == "bf16" and name in ("odd depth", "depthwise", "second product of stacks")  # no pairs
    assert left or error.max() > u * size.max() / 50, "nothing was rounded"


def half_readers(graph: Graph) -> set[str]:
    """The ops that read or make numbers in half precision, but for those that only lay them out."""
    half = {v for node in graph.nodes for v in node.outputs if v.dtype.itemsize == 2}
    return {node.op.name for node in graph.nodes if node.op.kind is not Kind.VIEW
            and not half.isdisjoint((*node.inputs, *node.outputs))}


def test_only_products_are_rounded() -> None:
    graph = transformer_block()
    assert half_readers(CastPrecision("bf16")(graph)) == {"cast", "pack_pairs", "pair_matmul"}
    after = CastPrecision("f16")(graph)
    assert half_readers(after) == {"cast"}
    whole = {node.op.name for node in after.nodes}
    assert {"layer_norm", "gelu", "attention"} <= whole, "norms, activations and attention are as they were"


def test_a_training_step_has_f32_parameters_and_updates() -> None:
    graph = mlp_step(64, (64, 48, 40, 10))
    after, _ = Pipeline(*with_precision(STANDARD[:10], "bf16")).run(graph)
    assert [v.type for v in after.outputs] == [v.type for v in graph.outputs] and after.donated == graph.donated
    products = [node for node in after.nodes if node.op is ops.pair_matmul]
    assert len(products) == 5, "two forward, one for what is below, two for weights; those with 10 columns stay f32"
    assert sum(node.op is ops.matmul for node in after.nodes) == 3
    assert all(node.output.dtype is f32 for node in products)


def test_rewritten_models_hold_half_as_much_and_no_f32_weights() -> None:
    model = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3),
                          nn.Flatten(), nn.Linear(512, 64)).eval()
    small = nn.Rewritten(model, FoldBatchNorm(), CastPrecision("bf16", weights=True))
    for batch in (3, 5):  # the second time the f32 weights are gone
        x = tt.randn(batch, 4, 6, 6)
        error = (small(x) - model(x)).abs().max().item()
        assert 0 < error < 0.01 * model(x).abs().max().item()
    sizes = [sum(t.numpy().nbytes for t in m.state_dict().values()) for m in (model, small)]
    assert sizes[1] < 0.52 * sizes[0]
    assert all(t.dtype is bf16 for t in small.state_dict().values() if t.numel() > 100)


def test_compiled_products_are_those_of_the_pass() -> None:
    model = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 40)).eval()
    x = tt.randn(33, 64)
    fast = tt.compile(model, precision="bf16")
    expected = CastPrecision("bf16")(tt.trace(model, x))(x.numpy())
    np.testing.assert_allclose(fast(x).numpy(), expected, rtol=1e-2, atol=2e-3)  # a gelu may round the other way
    assert np.abs(fast(x).numpy() - expected).mean() < 1e-4
    assert any(v.dtype is bf16 for v in fast.graph.bound), "weights are prepared as pairs"
    np.testing.assert_array_equal(tt.compile(model, precision="f32")(x).numpy(), tt.compile(model)(x).numpy())


def test_errors_are_no_greater_than_those_of_autocast(peer: Callable[[str], ModuleType]) -> None:
    torch = peer("torch")
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 32)).eval()
    theirs = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 64), torch.nn.GELU(),
                                 torch.nn.Linear(64, 32))
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in model.state_dict().items()})
    x = RNG.standard_normal((40, 32)).astype("f4")
    ours = CastPrecision("bf16")(tt.trace(model, x))(x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        other = theirs(torch.tensor(x)).float().numpy()
    exact = model(tt.tensor(x)).numpy()
    assert 0 < np.abs(ours - exact).mean() <= np.abs(other - exact).mean()


def test_small_products_of_two_results_stay_f32() -> None:
    build = Builder("two")
    x, y = build.input("x", f32[64, 64]), build.input("y", f32[64, 16])
    with build:
        z = ops.matmul(x, y)
    graph = build.finish([z])
    assert CastPrecision("bf16")(graph) is graph
    assert CastPrecision("bf16", least=16)(graph) is not graph


@pytest.mark.parametrize("dtype", ["f32", "f64", "i8", "half", None])
def test_what_is_no_half_precision_is_refused(dtype: Any) -> None:
    with pytest.raises(DTypeError, match="cast to 'bf16' or 'f16'"):
        CastPrecision(dtype)


def test_double_precision_is_left_alone() -> None:
    build = Builder("double")
    with build:
        y = ops.linear(build.input("x", f64[4, 8]), build.input("w", f64[3, 8]))
    graph = build.finish([y])
    assert CastPrecision("bf16")(graph) is graph and CastPrecision("f16")(graph) is graph


@settings(max_examples=40)
@given(graph=graphs(max_nodes=16))
def test_random_graphs_stay_sound(graph: Graph) -> None:
    for dtype in ("bf16", "f16"):
        after = verify(CastPrecision(dtype, least=1)(graph))
        assert same_signature(graph, after)


@settings(max_examples=40)
@given(graph=graphs(max_nodes=10, steps=("matmul", "transpose", "reshape"), dtypes=(f32,), donate=False))
def test_random_products_of_positive_numbers_keep_the_bound(graph: Graph) -> None:
    arrays = [np.abs(RNG.standard_normal(v.shape)).astype("f4") + 0.5 for v in graph.free]
    count = sum(node.op is ops.matmul for node in graph.nodes)
    for dtype, u in ROUNDING.items():
        found, expected = (g(*arrays) for g in (CastPrecision(dtype, least=1)(graph), graph))
        pairs = zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, expected)), strict=True)
        for a, b in pairs:
            # Each operand of a product has gone through at most as many products as there are in all.
            if np.isfinite(b).all() and b.max(initial=0) < 6e4:
                np.testing.assert_allclose(a, b, rtol=(1 + 2.1 * u) ** (2**min(count, 8)) - 1 + 1e-6, atol=1e-6)
