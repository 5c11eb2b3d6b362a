"""Weights of 8 and 4 bits: what the pass makes of graphs, how weights are rounded, whole models, refusals."""

from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, zoo
from tinytorch.ir import ops
from tinytorch.ir.errors import DataError, OpError, PassError
from tinytorch.nn import functional as F
from tinytorch.quant.gptq import Hessian, gptq_round
from tinytorch.quant.weights import Rounding, quantize_weights, round_weight

RANDOM = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype("f4")


class Net(nn.Module):
    """Every kind of product with a known weight, a tied table, a convolution."""

    def __init__(self) -> None:
        tt.manual_seed(0)
        self.table = nn.Embedding(40, 24)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.biased = nn.Linear(24, 36)
        self.turned = nn.Parameter(tt.randn(36, 24))
        self.head = nn.Linear(24, 40, bias=False)
        self.head.weight = self.table.weight
        self.other = nn.Embedding(7, 24)

    def forward(self, idx: Any) -> Any:
        x = self.table(idx) + self.other(idx % 7)
        x = self.conv(x[:, None])[:, 0]
        return self.head(F.relu(self.biased(x)) @ self.turned)


IDX = tt.tensor(RANDOM.integers(0, 40, (2, 5)))


def kinds(small: Any, *args: Any) -> list[str]:
    return [node.op.name for node in small.graph(*args).nodes]


@pytest.mark.parametrize(("bits", "symmetric", "embeddings"), [(8, True, False), (4, False, True), (4, True, False)])
def test_the_model_computes_with_the_numbers_that_its_weights_stand_for(bits: int, symmetric: bool,
                                                                        embeddings: bool) -> None:
    net = Net().eval()
    small = quantize_weights(net, bits, group=8 if bits == 4 else None, symmetric=symmetric, embeddings=embeddings)
    found = [small(IDX).numpy(), tt.compile(small)(IDX).numpy()]
    assert sorted(small.weights) == sorted(["biased", "table", "turned"] + ["other"] * embeddings)
    names = kinds(small, IDX)
    assert names.count("packed_linear") == 3 and names.count("packed_rows") == 1 + embeddings
    assert not {"linear", "matmul"} & set(names) and "conv2d" in names
    for name, parameter in net.named_parameters():
        key = name.replace(".", "_").removesuffix("_weight")
        if key in small.weights:
            whole = small.weights[key].dequantized()
            assert 0 < np.abs(parameter.numpy() - (whole.T if key == "turned" else whole)).max() < 0.4
            with tt.no_grad():
                parameter.copy_(tt.Tensor(whole.T if key == "turned" else whole))
    for array in found:
        np.testing.assert_allclose(array, net(IDX).numpy(), rtol=1e-4, atol=1e-4)


def test_a_tied_table_is_stored_once_and_floats_are_freed() -> None:
    small = quantize_weights(Net(), 8)
    small(IDX), small(IDX[:1])
    sizes = {name: tensor.payload.nbytes for name, tensor in small.state_dict().items()}
    assert sum("packed" in name for name in sizes) == 3
    assert sum(sizes.values()) < 64 * 24 + 64 * 24 + 32 * 36 + 4 * (7 * 24 + 36 + 10) + 2 * (64 + 64 + 32) + 1
    report = small.report()
    assert (report.before, report.after) == (4 * (40 * 24 + 36 * 24 * 2), 64 * 26 + 64 * 26 + 32 * 38)
    assert "turned" in str(report) and f"{report.after:,}" in str(report)


def test_a_graph_becomes_a_graph_and_layers_may_be_chosen() -> None:
    graph = tt.trace(Net().eval(), IDX)
    small = quantize_weights(graph, 4, layers={"biased": "int8", "turned": "f32"})
    packed = {node.attrs["bits"] for node in small.nodes if node.op is ops.packed_linear}
    assert packed == {8, 4} and [node.op.name for node in small.nodes].count("matmul") == 1
    assert np.abs(small(IDX.numpy()) - graph(IDX.numpy())).max() < 30


def test_depths_that_fill_no_word_and_no_group() -> None:
    model = nn.Sequential(nn.Linear(13, 5), nn.ReLU(), nn.Linear(5, 3))
    x = tt.randn(4, 13)
    for bits, most in ((8, 0.05), (4, 0.5)):
        small = quantize_weights(model, bits)
        assert np.abs(tt.compile(small)(x).numpy() - model(x).numpy()).max() < most


# -- rounding ----------------------------------------------------------------------------------------------------------


def test_nearest_is_nearest() -> None:
    weight = random(20, 48)
    weight[3] = 0
    weight[4, :16] = 0
    for bits, symmetric in ((8, True), (8, False), (4, False), (4, True)):
        packed = round_weight(weight, Rounding(bits, 16, symmetric))
        numbers = np.arange(-(1 << bits - 1), 1 << bits - 1)
        shift = 0 if packed.offset is None else packed.offset.repeat(16, 1)[..., None]
        grid = numbers * packed.scale.repeat(16, 1)[..., None] + shift
        best = np.abs(grid - weight[..., None]).min(-1)
        np.testing.assert_allclose(np.abs(packed.dequantized() - weight), best, atol=1e-6)
        assert (packed.dequantized()[3] == 0).all()
        assert packed.decibels == pytest.approx(
            10 * np.log10(np.square(weight).sum() / np.square(packed.dequantized() - weight).sum()), rel=1e-4)


def test_scales_of_four_bits_are_better_than_the_largest_elements() -> None:
    weight = random(50, 64)
    packed = round_weight(weight, Rounding(4, 32, True))
    scale = np.abs(weight.reshape(50, 2, 32)).max(-1).repeat(32, 1) / 7
    plain = np.rint(weight / scale) * scale
    assert np.square(packed.dequantized() - weight).sum() < 0.85 * np.square(plain - weight).sum()


def loss(weight: np.ndarray, values: np.ndarray, x: np.ndarray) -> float:
    return float(np.square(x @ (weight - values).T).sum())


def test_gptq_makes_the_error_of_results_smaller() -> None:
    weight = random(24, 160)
    x = random(300, 40) @ random(40, 160) + 0.1 * random(300, 160)
    x[:, 7] = 0  # an input that never shows
    hessian = Hessian(160)
    hessian.add(x[:100].reshape(10, 10, 160))
    hessian.add(x[100:])
    np.testing.assert_allclose(hessian.matrix, x.T.astype(float) @ x, rtol=1e-3, atol=1e-2)
    for rounding in (Rounding(4, 32, True), Rounding(4, 160, False)):
        nearest, better = (round_weight(weight, rounding, h) for h in (None, hessian.matrix))
        assert loss(weight, better.dequantized(), x) < 0.4 * loss(weight, nearest.dequantized(), x)
        assert better.decibels < nearest.decibels


def test_gptq_of_inputs_that_have_nothing_to_do_with_each_other_is_the_nearest() -> None:
    weight = random(9, 200)
    rounding = Rounding(4, 40, True)
    diagonal = np.diag(RANDOM.uniform(1, 5, 200))
    nearest, other = (round_weight(weight, rounding, hessian).values for hessian in (None, diagonal))
    np.testing.assert_array_equal(other, nearest)


def test_gptq_of_a_model() -> None:
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    data = random(400, 8) @ random(8, 32)
    wanted = model(tt.Tensor(data)).numpy()
    errors = [np.square(quantize_weights(model, 4, 32, rounding=way, data=data)(tt.Tensor(data)).numpy() - wanted).sum()
              for way in ("nearest", "gptq")]
    assert errors[1] < 0.5 * errors[0]


# -- refusals ----------------------------------------------------------------------------------------------------------

LINEAR = nn.Sequential(nn.Linear(8, 8))
BROKEN = np.full((4, 8), np.nan, "f4")


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"bits": 3}, OpError, "expected 8 or 4"), ({"group": 12}, OpError, "a multiple of 8"),
    ({"rounding": "up"}, OpError, "expected one of gptq, nearest"),
    ({"layers": {"1.weight": "int8"}}, OpError, "there is no layer 1; there are 0"),
    ({"layers": {"0": "int2"}}, OpError, "int2 is no method"),
    ({"rounding": "gptq"}, DataError, "needs data"),
    ({"rounding": "gptq", "data": BROKEN}, DataError, "hold nan"),
    ({"rounding": "gptq", "data": np.zeros((0, 8), "f4")}, DataError, "empty"),
    ({"rounding": "gptq", "data": np.zeros((3, 8), "f4")}, DataError, "is 0 in all"),
], ids=lambda value: str(value)[:40] if isinstance(value, dict) else "")
def test_refusals(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quantize_weights(LINEAR, **options)


def test_other_refusals() -> None:
    with pytest.raises(OpError, match="expected a module or a graph"):
        quantize_weights(lambda x: x)
    with pytest.raises(PassError, match="has no linear layer"):
        quantize_weights(nn.Sequential(nn.Conv2d(1, 2, 3)), 8)(tt.ones(1, 1, 4, 4))
    with pytest.raises(DataError, match="holds NaN"):
        round_weight(np.full((3, 8), np.inf, "f4"), Rounding(8, 8, True))
    with pytest.raises(DataError, match="overflows on the calibration"):
        Hessian(2).add(np.array([[1.0, np.inf]]))
    with pytest.raises(DataError, match="is 0 in all"):
        gptq_round(np.ones((2, 8)), np.zeros((8, 8)), lambda x, k: (x, x))


@pytest.mark.slow
def test_perplexity_of_the_trained_gpt() -> None:
    model, (x, y), (learned, _) = zoo.gpt(), zoo.examples("gpt", "test"), zoo.examples("gpt", "train")
    x, y = x[::4], y[::4]
    plain = zoo.score(tt.compile(model), x, y).perplexity

    def ratio(*args: Any, **kwargs: Any) -> float:
        return zoo.score(tt.compile(quantize_weights(model, *args, **kwargs)), x, y).perplexity / plain

    assert abs(ratio(8) - 1) < 0.005
    nearest, better = ratio(4, 32), ratio(4, 32, rounding="gptq", data=learned[:512:4])
    assert better < nearest < 1.03
