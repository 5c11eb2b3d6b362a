"""tt.quantize: methods, choices, refusals, files; and that the gate on accuracy is one that fails."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, quant, zoo
from tinytorch.ir.errors import DataError, DTypeError, FormatError, OpError, ShapeError
from tinytorch.ir.serialize import read_tensors, write_tensors
from tinytorch.passes.quantize_layers import IntegerLayer
from tinytorch.quant.observers import OBSERVERS
from tinytorch.quant.plan import decibels, make_grid, on_grid

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


class Net(nn.Module):
    """All that may stand between layers: batch norm, a residual sum, pools, a concatenation, a depthwise layer."""

    def __init__(self) -> None:
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.norm(self.first(x)).relu()
        x = x + self.second(x)
        x = tt.concat([x, self.depthwise(x)], 1).relu()
        return self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))


def made() -> Net:
    tt.manual_seed(0)
    model = Net()
    for _ in range(3):
        model(numbers(16, 3, 8, 8))  # statistics that are not 0 and 1
    return model


IMAGES = numbers(40, 3, 8, 8)


def sqnr(model: Any, small: Any, x: np.ndarray = IMAGES) -> float:
    with tt.no_grad():
        return decibels(model.eval()(tt.tensor(x)).numpy(), small(tt.tensor(x)).numpy())


@pytest.mark.parametrize("options", [
    {}, {"symmetric": True}, {"method": "dynamic"}, {"layers": {"second": "dynamic", "head": "int8"}},
    {"observer": "mse"}, {"observer": "percentile"}, {"observer": "entropy"}], ids=str)
def test_every_method_is_near(options: dict[str, Any]) -> None:
    model = made()
    small = tt.quantize(model, IMAGES, **options)
    assert 25 < sqnr(model, small) < 80, "near, and not the same"
    assert small(IMAGES[:7]).shape == (7, 5)  # any batch size
    np.testing.assert_array_equal(small(IMAGES[:7]).numpy(), small(IMAGES).numpy()[:7])


def test_report_names_layers_as_users_do() -> None:
    small = tt.quantize(made(), IMAGES, layers={"second": "f32"})
    rows = {row.name: row for row in small.report().rows}
    assert {name: row.method for name, row in rows.items()} == {
        "first": "static", "second": "f32", "depthwise": "f32", "head": "static"}
    assert rows["first"].low == pytest.approx(IMAGES.min(), abs=0.05) and 35 < rows["first"].total_db < 60
    assert "few channels a group" in str(small.report()) and "first" in str(small.report())


def test_data_may_be_batches_with_labels_or_come_once() -> None:
    model = made()
    wanted = tt.quantize(model, IMAGES).plan.layers["first"].grid
    parts = [(IMAGES[at:at + 10], np.zeros(10)) for at in range(0, 40, 10)]
    for data in (parts, iter(parts), (images for images, _ in parts), tt.tensor(IMAGES)):
        assert tt.quantize(model, data).plan.layers["first"].grid == wanted


def test_dynamic_needs_no_data() -> None:
    model = made()
    small = tt.quantize(model, method="dynamic")
    with pytest.raises(OpError, match="has not been called yet"):
        small.report()
    assert sqnr(model, small) > 25 and small.report().rows[0].method == "dynamic"
    np.testing.assert_array_equal(tt.quantize(model, IMAGES, method="dynamic")(IMAGES).numpy(), small(IMAGES).numpy())


def test_model_is_left_alone_and_forgotten() -> None:
    model = made()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    small = tt.quantize(model, IMAGES)
    y = small(IMAGES[:2]).numpy()
    assert all(np.array_equal(value.numpy(), before[key]) for key, value in model.state_dict().items())
    with tt.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.0)
    np.testing.assert_array_equal(small(IMAGES[:2]).numpy(), y)


def test_graphs_become_graphs() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = numbers(10, 6)
    graph = tt.trace(model, tt.tensor(x))
    small = tt.quantize(graph, [x])
    assert isinstance(small, tt.Graph)
    assert [node.op.name for node in small.nodes].count("quad_matmul") == 2
    assert decibels(graph(x), small(x)) > 30
    w = numbers(6, 4)
    product = tt.quantize(tt.trace(lambda x: x @ tt.tensor(w), tt.tensor(x)), method="dynamic")
    assert decibels(x @ w, product(x)) > 30


def test_a_weight_used_twice_has_two_ranges() -> None:
    layer = nn.Linear(4, 4)
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    small = tt.quantize(twice, 10 * numbers(50, 4))
    first, second = small.report().rows
    assert (first.key, second.key) == ("0", "0#2") and first.high > second.high


# -- numbers that are hard ---------------------------------------------------------------------------------------------


def test_channels_of_zeros_and_constant_inputs() -> None:
    model = nn.Linear(4, 3)
    with tt.no_grad():
        model.weight.copy_(np.array([[0, 0, 0, 0], [1e-41, 0, 0, 0], [1, -2, 3, 4]], np.float32))
        model.bias.copy_(np.array([0.3, -7.0, 0.0], np.float32))
    x = numbers(20, 4)
    small = tt.quantize(model, x)
    layer = small.plan.layers["weight"]
    assert (layer.scale >= np.finfo(np.float32).tiny).all() and (layer.step >= np.finfo(np.float32).tiny).all()
    np.testing.assert_allclose(small(x).numpy(), model(x).numpy(), atol=0.1)
    np.testing.assert_allclose(small(x).numpy()[:, :2], np.broadcast_to([0.3, -7.0], (20, 2)), rtol=1e-5)
    for constant in (0.0, 2.5, -1e-30):
        y = np.full((5, 4), constant, np.float32)
        np.testing.assert_allclose(tt.quantize(model, y)(y).numpy(), model(y).numpy(), atol=0.05)


def test_grids_hold_zero_and_cover_the_range() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0), (-1e-38, 0.0)):
        for symmetric in (False, True):
            grid = make_grid(low, high, symmetric)
            assert 0 <= grid.zero <= 255 and grid.scale >= 1e-30
            x = np.linspace(low, high, 50).astype(np.float32)
            assert np.abs(on_grid(x, grid) - x).max() <= 0.51 * grid.scale and on_grid(np.zeros(1), grid)[0] == 0


def test_observers() -> None:
    x = RNG.standard_normal(200_000).astype(np.float32)
    found: dict[str, tuple[float, float]] = {}
    for name, make in OBSERVERS.items():
        watch = make()
        for part in (x[:1000] / 100, x[:100_000], x[100_000:]):  # the first is too small to guess the range from
            watch.look(part)
        found[name] = watch.range()
    assert found["minmax"] == (float(x.min()), float(x.max()))
    assert found["percentile"] == pytest.approx(np.quantile(x, [1e-4, 1 - 1e-4]), abs=0.05)
    errors = {name: float(((on_grid(x, make_grid(*ends)) - x) ** 2).mean()) for name, ends in found.items()}
    assert errors["mse"] <= min(errors.values()) * 1.02
    for name in ("entropy", "percentile"):  # one number far away must not take the whole grid
        watch = OBSERVERS[name]()
        watch.look(np.append(x, np.float32(100)))
        assert watch.range()[1] < 30, name
    few = np.append(np.zeros(200), np.linspace(1, 49, 80)).astype(np.float32)  # as after relu
    for sign, name in itertools.product((1, -1), OBSERVERS):
        for y in (few, np.full(10, 0.0668), np.array([0, 1e-42])):
            watch = OBSERVERS[name]()
            watch.look((sign * y).astype(np.float32))
            assert np.abs(watch.range()).max() > 0.6 * y.max(), name


# -- refusals ----------------------------------------------------------------------------------------------------------

POISONED = IMAGES.copy()
POISONED[3, 1, 2, 2] = np.nan


@pytest.mark.parametrize(("data", "options", "error", "message"), [
    (None, {}, DataError, "needs data"),
    (IMAGES[:0], {}, DataError, "data are empty"),
    ([], {}, DataError, "data are empty"),
    ({"x": IMAGES}, {}, DataError, "data is a dict: expected an array"),
    (3.0, {}, DataError, "data is a float: expected an array"),
    (POISONED, {}, DataError, r"nan at \(3, 1, 2, 2\)"),
    (IMAGES.astype("f8"), {}, DTypeError, "the data are float64"),
    (IMAGES[:, :2], {}, ShapeError, "channels"),
    (IMAGES, {"layers": {"third": "f32"}}, OpError, "no layer third; there are depthwise, first, head, second"),
    (IMAGES, {"layers": {"first": "int4"}}, OpError, "first is a convolution"),
    (IMAGES, {"layers": {"first": "int3"}}, OpError, "int3 is no method"),
    (IMAGES, {"method": "f32"}, OpError, "nothing to quantise"),
    (IMAGES, {"observer": "guess"}, OpError, "expected one of entropy, minmax"),
    (IMAGES, {"weight_bits": 9}, OpError, "expected 2 to 8"),
    (IMAGES, {"group": 3}, OpError, "no option group"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_refusals(data: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tt.quantize(made(), data, **options)


def test_more_refusals() -> None:
    with pytest.raises(OpError, match="nothing to quantise"):
        tt.quantize(nn.ReLU(), numbers(2, 3))
    with pytest.raises(OpError, match=r"expected a module or a graph; tt\.trace"):
        tt.quantize(lambda x: x, numbers(2, 3))
    model = nn.Linear(3, 3)
    with tt.no_grad():
        model.weight.mul_(np.inf)
    with pytest.raises(DataError, match="NaN or infinities: train"):
        tt.quantize(model, numbers(2, 3))


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"layers": {"first": "dynamic", "head": "int4"}}], ids=str)
def test_saved_and_loaded(tmp_path: Path, options: dict[str, Any]) -> None:
    small = tt.quantize(made(), IMAGES, **options)
    quant.save(small, tmp_path / "small")
    again = quant.load(tmp_path / "small", Net())
    np.testing.assert_array_equal(again(IMAGES).numpy(), small(IMAGES).numpy())
    assert [row.name for row in again.report().rows] == ["first", "second", "depthwise", "head"]
    arrays, _ = read_tensors(tmp_path / "small")
    assert "first.weight" not in arrays and "depthwise.weight" in arrays


def test_weights_alone_are_saved_too(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 5))
    x = numbers(3, 64)
    for options in ({"method": "int4"}, {"method": "int4", "symmetric": False, "group": 32}, {"method": "int8"}):
        small = tt.quantize(model, **options)
        with pytest.raises(OpError, match="has not been called"):
            quant.save(small, tmp_path / "small")
        y = small(x).numpy()
        quant.save(small, tmp_path / "small")
        again = quant.load(tmp_path / "small", nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 5)))
        np.testing.assert_array_equal(again(x).numpy(), y)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "small"
    quant.save(tt.quantize(made(), IMAGES), path)
    arrays, metadata = read_tensors(path)
    with pytest.raises(FormatError, match="depthwise.bias, depthwise.weight, which Linear does not have"):
        quant.load(path, nn.Linear(3, 3))
    plan = json.loads(metadata["plan"])
    del plan["grids"]
    for found, about, message in (
            ({}, metadata, "damaged"), (arrays, {**metadata, "plan": json.dumps(plan)}, "damaged"),
            (arrays, {**metadata, "plan": "{"}, "damaged"), (arrays, {"format": "x"}, "not a quantised model")):
        write_tensors(path, found, about)
        with pytest.raises(FormatError, match=message):
            quant.load(path, Net())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="safetensors"):
        quant.load(path, Net())
    with pytest.raises(OpError, match="expected what quantize gives"):
        quant.save(nn.Linear(2, 2), path)  # type: ignore[arg-type]


# -- accuracy ----------------------------------------------------------------------------------------------------------


def lenet_gate(change: Callable[[str, IntegerLayer], IntegerLayer] = lambda key, layer: layer) -> bool:
    """Whether a quantised LeNet reads 200 digits within 0.5 points of the model, and gives its logits within 5 %."""
    model = zoo.lenet()
    plan = tt.quantize(model, zoo.examples("lenet", "train")[0][:64]).plan
    small = quant.Quantized(model, replace(plan, layers={k: change(k, layer) for k, layer in plan.layers.items()}))
    images, labels = (part[:200] for part in zoo.examples("lenet", "test"))
    exact, found = (zoo.score(m, images, labels).accuracy for m in (model, small))
    return found >= exact - 0.005 and sqnr(model, small, images[:50]) > 26


def test_lenet_keeps_its_accuracy(tmp_path: Path) -> None:
    assert lenet_gate()
    small = tt.quantize(zoo.lenet(), zoo.examples("lenet", "train")[0][:64])
    quant.save(small, tmp_path / "small")
    write_tensors(tmp_path / "model", {k: v.numpy() for k, v in zoo.lenet().state_dict().items()})
    assert (tmp_path / "model").stat().st_size > 3.8 * (tmp_path / "small").stat().st_size


@pytest.mark.parametrize("fault", [
    lambda key, layer: replace(layer, scale=layer.scale * 2),
    lambda key, layer: replace(layer, scale=layer.scale * 2) if key == "7" else layer,
    lambda key, layer: replace(layer, weight=np.zeros_like(layer.weight)),
    lambda key, layer: replace(layer, bias=np.zeros_like(layer.bias)),
    lambda key, layer: replace(layer, grid=layer.grid._replace(scale=layer.grid.scale / 3)),
], ids=["scales", "scales of one", "zeros", "no bias", "cut"])
def test_faults_are_caught(fault: Callable[[str, Any], Any]) -> None:
    assert not lenet_gate(fault)


@pytest.mark.slow
@pytest.mark.full_data
def test_cnn_keeps_its_accuracy() -> None:
    model, (images, labels) = zoo.cnn(), zoo.examples("cnn", "test")
    small = tt.quantize(model, zoo.examples("cnn", "train")[0][:1000])
    exact, found = (zoo.score(tt.compile(m, pipeline="infer"), images, labels).accuracy for m in (model, small))
    assert found >= exact - 0.005
