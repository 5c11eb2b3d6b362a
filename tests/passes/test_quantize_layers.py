"""QuantizeLayers and MoveGrids: exact integers against NumPy, bytes that stay bytes, on graphs of anybody's making."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import program

import tinytorch as tt
from tinytorch.ir import Graph, f32, ops
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.passes import Pipeline
from tinytorch.passes.find_layers import canonical, find_layers
from tinytorch.passes.quantize_layers import Grid, IntegerLayer, QuantizeLayers
from tinytorch.passes.quantize_moves import MoveGrids
from tinytorch.passes.quantize_simulate import SimulateLayers

RNG = np.random.default_rng(0)
Array = np.ndarray


def numbers(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


GRID = Grid(0.03, 77)


def integers(*shape: int, grid: Grid | None = GRID) -> IntegerLayer:
    """A layer with any weight of this shape."""
    weight = RNG.integers(-127, 128, shape).astype(np.int8)
    return IntegerLayer(weight, RNG.uniform(0.001, 0.01, shape[0]).astype("f4"), numbers(shape[0]), grid)


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


# -- the oracle: integers by the book, one output at a time ------------------------------------------------------------


def rounded(x: Array, grid: Grid) -> Array:
    return np.clip(np.rint(x * (np.float32(1) / np.float32(grid.scale))) + grid.zero, 0, 255).astype(np.int64)


def sums(q: Array, layer: IntegerLayer, stride: int = 1, padding: int = 0, dilation: int = 1,
         groups: int = 1) -> Array:
    """Σ (q - zero) v, in int64, of images (n, c, h, w) or rows (…, in)."""
    assert layer.grid is not None
    x, w = q - layer.grid.zero, layer.weight.astype(np.int64)
    if w.ndim == 2:
        return x @ w.T
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    out, inner, kh, kw = w.shape
    high, wide = ((n - (k - 1) * dilation - 1) // stride + 1 for n, k in zip(x.shape[2:], (kh, kw), strict=True))
    y = np.zeros((len(x), out, high, wide), np.int64)
    for o in range(out):
        first = o // (out // groups) * inner
        for p, r in np.ndindex(kh, kw):
            rows, columns = (slice(a * dilation, a * dilation + stride * (n - 1) + 1, stride)
                             for a, n in ((p, high), (r, wide)))
            y[:, o] += np.einsum("nchw,c->nhw", x[:, first:first + inner, rows, columns], w[o, :, p, r])
    return y


def result(total: Array, layer: IntegerLayer) -> Array:
    """f32 of the sums, the bias rounded to their unit."""
    step = layer.scale * np.float32(layer.grid.scale)  # type: ignore[union-attr]
    along = (-1, 1, 1) if total.ndim == 4 else (-1,)
    bias = np.rint(layer.bias / step.astype(np.float64)).astype(np.int64)
    return (total + bias.reshape(along)).astype(np.float32) * step.reshape(along)


def layer_graph(op: Callable[..., Any], x: Any, layer: IntegerLayer, bias: bool, **attrs: Any) -> Graph:
    """The f32 graph that `layer` takes the place of."""
    shape = layer.weight.shape
    along = (-1, 1, 1) if len(shape) == 4 else (-1,)
    return program(lambda x, w, b: op(x, w, **attrs) + (ops.reshape(b, along) if bias else 0.0), x, f32[shape],
                   f32[shape[:1]], bound={1: numbers(*shape), 2: layer.bias})


CONVOLUTIONS = [{}, {"stride": 2, "padding": 1}, {"padding": 2, "dilation": 2}, {"groups": 2, "padding": 1}]


@pytest.mark.parametrize("attrs", CONVOLUTIONS, ids=str)
def test_convolution_is_exact(attrs: dict[str, int]) -> None:
    layer = integers(6, 4 // attrs.get("groups", 1), 3, 3)
    graph = layer_graph(ops.conv2d, f32[2, 4, 7, 6], layer, True, **attrs)
    x = 3 * numbers(2, 4, 7, 6)
    wanted = result(sums(rounded(x, layer.grid), layer, **attrs), layer)
    np.testing.assert_array_equal(QuantizeLayers({"x1": layer})(graph)(x), wanted)


@pytest.mark.parametrize("shape", [(5, 10), (2, 3, 10), (10,)], ids=str)
def test_linear_is_exact(shape: tuple[int, ...]) -> None:
    layer = integers(7, 10)
    graph = layer_graph(ops.linear, f32[shape], layer, True)
    x = numbers(*shape)
    found = QuantizeLayers({"x1": layer})(graph)
    np.testing.assert_array_equal(found(x), result(sums(rounded(x, layer.grid), layer), layer))


def test_a_product_with_a_known_matrix_is_a_layer_too() -> None:
    layer, x = integers(7, 10), numbers(5, 10)
    graph = program(lambda x, w: x @ w, f32[5, 10], f32[10, 7], bound={1: numbers(10, 7)})
    layer = IntegerLayer(layer.weight, layer.scale, np.zeros(7, np.float32), layer.grid)
    found = QuantizeLayers({"x1": layer})(graph)
    np.testing.assert_array_equal(found(x), result(sums(rounded(x, layer.grid), layer), layer))


# -- a whole network: residual, pool, concatenation --------------------------------------------------------------------

LAYERS = {"x1": integers(4, 3, 3, 3), "x2": integers(4, 4, 3, 3, grid=Grid(0.02, 0)),
          "x3": integers(8, 4, 1, 1, grid=Grid(0.05, 100)), "x4": integers(5, 36, grid=Grid(0.05, 0))}


def network(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    x = ops.relu(ops.conv2d(x, a, padding=1))
    x = ops.conv2d(x, b, padding=1) + x
    y = ops.conv2d(x, c)
    y = ops.max_pool2d(ops.relu(ops.concat(y, ops.slice(y, (0, 0, 0, 0), (2, 1, 6, 6)), axis=1)), 3)
    return ops.linear(ops.reshape(y, (2, 36)), d)


def whole() -> Graph:
    shapes = [layer.weight.shape for layer in LAYERS.values()]
    return program(network, f32[2, 3, 6, 6], *(f32[s] for s in shapes),
                   bound={n: numbers(*s) for n, s in enumerate(shapes, 1)})


def oracle(x: Array) -> Array:
    """The network on integers, in NumPy."""
    layers = {k: IntegerLayer(v.weight, v.scale, np.zeros_like(v.bias), v.grid) for k, v in LAYERS.items()}
    y = np.maximum(result(sums(rounded(x, layers["x1"].grid), layers["x1"], padding=1), layers["x1"]), 0)
    q = rounded(y, layers["x2"].grid)
    y = result(sums(q, layers["x2"], padding=1), layers["x2"]) + q.astype("f4") * np.float32(layers["x2"].grid.scale)
    y = result(sums(rounded(y, layers["x3"].grid), layers["x3"]), layers["x3"])
    q = rounded(np.maximum(np.concatenate([y, y[:, :1]], 1), 0), layers["x4"].grid)
    q = q.reshape(2, 9, 2, 3, 2, 3).max((3, 5)).reshape(2, 36)
    return result(sums(q, layers["x4"]), layers["x4"])


def without_bias() -> dict[str, IntegerLayer]:
    return {k: IntegerLayer(v.weight, v.scale, np.zeros_like(v.bias), v.grid) for k, v in LAYERS.items()}


@pytest.mark.parametrize("moves", [(), (MoveGrids(scales=False),)], ids=["plain", "moved"])
def test_network_is_exact(moves: tuple[Any, ...]) -> None:
    x = numbers(2, 3, 6, 6)
    np.testing.assert_array_equal(Pipeline(QuantizeLayers(without_bias()), *moves)(whole())(x), oracle(x))


def test_compiled_is_exact_and_scales_join() -> None:
    x = numbers(2, 3, 6, 6)
    graph = Pipeline(QuantizeLayers(without_bias()), MoveGrids())(whole())
    wide = np.abs(oracle(x)).max()
    assert np.abs(graph(x) - oracle(x)).max() <= 0.02 * wide  # a scale is rounded where a product was
    from tinytorch.quant.calibrate import runner

    np.testing.assert_array_equal(runner(graph)(x)[0].numpy(), graph(x))


def test_bytes_stay_bytes() -> None:
    graph = Pipeline(QuantizeLayers(without_bias()), MoveGrids())(whole())
    moved = [node for node in graph.nodes if node.op.name in ("max_pool2d", "concat", "slice", "reshape")
             and node.output.type.size > 64]
    assert {node.output.dtype.name for node in moved} == {"u8"}
    assert names(graph).count("quantize") == 4 + 1  # the concatenation has two parts, each quantised where it is made
    assert names(graph).count("dequantize") == 1  # for the residual sum
    assert "relu" not in names(graph)  # zero points of 0 do it


def test_padding_is_the_zero_point() -> None:
    layer = integers(4, 6, 3, 3, grid=Grid(0.03, 9))
    graph = program(lambda x, w: ops.conv2d(ops.pad(ops.transpose(x, (0, 1, 3, 2)), (0, 1, 0, 0), (0, 1, 0, 0)), w),
                    f32[1, 4, 5, 5], f32[4, 6, 3, 3], bound={1: numbers(4, 6, 3, 3)})
    layer = IntegerLayer(layer.weight, layer.scale, np.zeros(4, np.float32), layer.grid)
    found = Pipeline(QuantizeLayers({"x1": layer}), MoveGrids())(graph)
    [pad] = [node for node in found.nodes if node.op is ops.pad]
    assert pad.output.dtype.name == "u8" and pad.attrs["value"] == 9
    x = numbers(1, 4, 5, 5)
    q = rounded(np.pad(x.swapaxes(2, 3), ((0, 0), (1, 1), (0, 0), (0, 0))), layer.grid)
    np.testing.assert_array_equal(found(x), result(sums(q, layer), layer))


def test_simulation_computes_what_integers_do() -> None:
    x, layers = numbers(2, 3, 6, 6), without_bias()
    simulated = SimulateLayers(layers)(whole())
    exact = whole()
    wide = np.abs(oracle(x)).max()
    np.testing.assert_allclose(simulated(x, np.ones(4, "f4")), oracle(x), atol=0.02 * wide)
    off = simulated(x, np.zeros(4, "f4"))
    assert off.shape == exact(x).shape


def test_dynamic_grids_follow_each_row_and_image() -> None:
    for op, x, shape in ((ops.linear, numbers(4, 12), (5, 12)), (ops.conv2d, numbers(3, 4, 5, 5), (5, 4, 3, 3))):
        weight = numbers(*shape)
        scale = np.abs(weight.reshape(5, -1)).max(1) / 127
        along = (-1, *(1,) * (weight.ndim - 1))
        layer = IntegerLayer(np.rint(weight / scale.reshape(along)).astype("i1"), scale, numbers(5), None)
        graph = program(lambda x, w, b, op=op: op(x, w) + ops.reshape(b, (-1, 1, 1) if op is ops.conv2d else (-1,)),
                        f32[x.shape], f32[shape], f32[5], bound={1: weight, 2: layer.bias})
        found = QuantizeLayers({"x1": layer})(graph)
        x = x * np.logspace(-3, 3, len(x), dtype="f4").reshape(-1, *(1,) * (x.ndim - 1))  # each its own size
        y, wanted = found(x), graph(x)
        rest = tuple(range(1, y.ndim))
        bias = layer.bias.reshape((1, -1) + (1,) * (y.ndim - 2))
        assert (np.abs(y - wanted).max(rest) < 0.02 * np.abs(wanted - bias).max(rest)).all()
        x[1] = 0
        np.testing.assert_array_equal(found(x)[1], np.broadcast_to(bias, wanted.shape)[1])


# -- names and refusals ------------------------------------------------------------------------------------------------


def test_keys_are_names_of_parameters() -> None:
    model = tt.nn.Sequential(tt.nn.Linear(3, 3), tt.nn.Linear(3, 3))
    twice = tt.trace(lambda x: model(model[0](x)), tt.zeros(2, 3))
    assert [layer.key for layer in find_layers(twice)] == ["0", "0#2", "1"]
    assert canonical("layer1.0.conv2.weight") == canonical("layer1_0_conv2") == "layer1_0_conv2"


def test_layers_of_another_model_are_refused() -> None:
    graph = whole()
    with pytest.raises(OpError, match="has no layer head"):
        QuantizeLayers({"head": LAYERS["x1"]})(graph)
    with pytest.raises(ShapeError, match="were they made for another model"):
        QuantizeLayers({"x1": LAYERS["x2"]})(graph)
