"""The networks that are measured: the same numbers by every peer, and what their graphs cost, asserted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.bench import footprint, in_jax, in_onnx, in_torch, models, networks, operators
from tinytorch.bench.models import NETWORKS, Network, training_step
from tinytorch.bench.rows import Settings
from tinytorch.bench.same import DifferentResults, check_same
from tinytorch.bench.work import count

every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
SHARP = 1e-5  # the same formula with the same numbers; gelu by tanh and by erf differ by more
FEWER, MORE = 4, 1.35  # how far FLOPs may lie below (Winograd's F(4×4, 3×3)) and above those of the contractions

# Launches, MiB moved and MiB of arena at most, with one thread.
COUNTS = {
    ("train", "mlp", 64): (15, 3.8, 0.1),
    ("train", "cnn", 64): (55, 270, 34),
    ("train", "gpt", 16): (132, 270, 26),
    ("infer", "mlp", 64): (3, 0.8, 0.1),
    ("infer", "cnn", 64): (9, 60, 16.1),
    ("infer", "gpt", 16): (33, 59, 3.1),
    ("infer", "resnet20", 1): (25, 3.7, 0.2),
    ("infer", "resnet20", 64): (25, 121, 8.1),
    ("infer", "mobilenet", 1): (19, 5.9, 0.4),
    ("infer", "mobilenet", 64): (19, 175, 24.1),
}
# FLOPs of the convolutions and products of one example, worked out by hand from the layers; a step costs three times
# as many, less the gradient by the first layer's input.
GPT_BLOCK = 2 * 64 * 128 * (3 + 1 + 4 + 4) * 128
EXAMPLE = {
    "mlp": 2 * (784 * 128 + 128 * 64 + 64 * 10),
    "cnn": 2 * (9 * 1024 * (3 * 32 + 32 * 32) + 9 * 256 * (32 * 64 + 64 * 64) + 4096 * 256 + 256 * 10),
    "gpt": 4 * GPT_BLOCK + 2 * 64 * 128 * 65,
    "resnet20": 2 * 9 * 1024 * (3 * 16 + 6 * 16 * 16) + 2 * 9 * 256 * (16 * 32 + 5 * 32 * 32)
    + 2 * 9 * 64 * (32 * 64 + 5 * 64 * 64) + 2 * 640,
}


def eager(network: Network, batch: int) -> Any:
    """Our logits."""
    with tt.no_grad():
        return network.make().eval()(tt.tensor(network.batch(batch)[0]))


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No trained weights, wherever the tests run."""
    monkeypatch.setattr(models, "locate", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError))


# -- the same numbers --------------------------------------------------------------------------------------------------


@pytest.mark.peers
@every_network
def test_torch_infers_the_same(network: Network) -> None:
    check_same({"ours": lambda: eager(network, 2), "torch": in_torch.inference(network, 2, 1)}, room=SHARP)
    assert np.abs(eager(network, 2).numpy()).max() > 1e-2, "numbers that vanish compare with anything"


@pytest.mark.peers("jax")
@every_network
def test_jax_infers_the_same(network: Network) -> None:
    check_same({"ours": lambda: eager(network, 2), "jax": in_jax.inference(network, 2, 1)}, room=SHARP)


@pytest.mark.peers("onnxruntime", "onnx", "torch")
@every_network
def test_onnx_infers_the_same(network: Network) -> None:
    check_same({"ours": lambda: eager(network, 2), "onnxruntime": in_onnx.inference(network, 2, 1)}, room=SHARP)


def our_step(network: Network, batch: int) -> Callable[[], Any]:
    step, given = training_step(network.make(), network.classes), list(map(tt.tensor, network.batch(batch)))
    return lambda: step(*given)


@pytest.mark.peers
@pytest.mark.parametrize("name", networks.TRAINED)
def test_torch_trains_the_same(name: str) -> None:
    network = NETWORKS[name]
    check_same({"ours": our_step(network, 2), "torch": in_torch.training(network, 2, 1)}, networks.LOSSES, SHARP)


@pytest.mark.peers("jax")
def test_jax_trains_the_same() -> None:
    network = NETWORKS["mlp"]
    check_same({"ours": our_step(network, 2), "jax": in_jax.training(network, 2, 1)}, networks.LOSSES, SHARP)


@pytest.mark.peers
def test_operators_of_ours_and_torch_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(1, frozenset({"torch"}), quick=True)
    monkeypatch.setattr(operators, "ROWS", 4)
    x, w = operators.random(2, 3, 5, 5), operators.random(3, 3, 3, 3, seed=1)
    make = operators._torch_convolution(settings)["torch"]
    for part, function in operators.convolution_functions().items():
        check_same({"ours": lambda function=function: function(*map(tt.tensor, (x, w, x))), part: make(part, x, w)})
    fast, sides = operators.attention_sides(16, True, settings)
    assert len(list(sides)) == 2 and check_same(sides).keys() == sides.keys() and fast.latest is not None
    for name, (operands, ours, theirs) in operators.bandwidth_functions().items():
        import torch

        given = [operators.random(4, operators.COLUMNS, seed=seed) for seed in range(operands)]
        check_same({"ours": lambda ours=ours, given=given: ours(*map(tt.tensor, given)),
                    name: lambda theirs=theirs, given=given: theirs(torch, *map(torch.tensor, given))})


def test_sides_that_differ_are_told() -> None:
    ours = tt.tensor([1.0, 2.0])
    check_same({"ours": lambda: (ours, [ours]), "theirs": lambda: [np.array([1.0, 2.001]), np.array([1.0, 2.0])]})
    with pytest.raises(DifferentResults, match="theirs and ours differ by up to 0.1 in result 0"):
        check_same({"ours": lambda: ours, "theirs": lambda: np.array([1.1, 2.0])})
    with pytest.raises(DifferentResults, match="nan"):
        check_same({"ours": lambda: ours, "theirs": lambda: np.array([np.nan, 2.0])})
    with pytest.raises(DifferentResults, match="shapes"):
        check_same({"ours": lambda: ours, "theirs": lambda: np.array([1.0])})


def test_trained_weights_are_used_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    network = NETWORKS["resnet20"]
    assert models.trained("resnet20") is None and models.trained("cnn") is None
    save_file({key: value + 1 for key, value in network.weights().items()}, tmp_path / "model.safetensors")
    before = network.weights()["linear.bias"]
    monkeypatch.setattr(models, "locate", lambda *_, **__: [tmp_path / "model.safetensors"])
    np.testing.assert_array_equal(network.weights()["linear.bias"], before + 1)


# -- what a call costs -------------------------------------------------------------------------------------------------


FEW_KERNELS = ("mlp", "cnn")  # the others have many to compile


@pytest.mark.parametrize(("kind", "name", "batch"), [
    pytest.param(*case, marks=[] if case[1] in FEW_KERNELS else [pytest.mark.slow]) for case in COUNTS])
def test_counts(kind: str, name: str, batch: int) -> None:
    """What `tito bench --json` tells of each network, with one thread."""
    make = networks.training_sides if kind == "train" else networks.inference_sides
    fast, sides = make(NETWORKS[name], batch, Settings(1, frozenset()))
    sides["ours"]()
    work = count(fast)
    most_launches, most_moved, most_arena = COUNTS[kind, name, batch]
    assert work.kernels <= work.launches <= most_launches
    assert work.bytes <= most_moved * 2**20 and work.arena <= most_arena * 2**20
    if name in EXAMPLE:
        steps = 1 if kind == "infer" else 2 if name == "mlp" else 2.9
        assert EXAMPLE[name] * batch * steps / FEWER <= work.flops <= EXAMPLE[name] * batch * steps * MORE


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not footprint.STATUS.exists(), reason="this system does not tell what is resident")
def test_memory_of_a_step_is_what_was_planned_and_little_more() -> None:
    """Measured in a process of its own: at least what lies in memory, and not twice as much."""
    code = ("from tinytorch.bench import footprint as f; import json; from tinytorch.bench.models import NETWORKS; "
            "print(json.dumps(f._rise('ours', NETWORKS['mlp'], 8000, 1)))")
    found = footprint.in_process(code)
    planned = sum(found["planned"].values())
    assert 8000 * 4 * (784 + 128) < planned <= found["grown"] < 2.5 * planned
