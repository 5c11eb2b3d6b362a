"""Kernels of convolutions, by windows and by tiles, and of their gradients: values, errors, threads, instruction sets.

Run as a script, it checks the values for the instruction set that the environment names.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from again import OTHER_ISAS, run_again

import tinytorch as tt
from tinytorch.ir import ops
from tinytorch.ir.types import TensorType
from tinytorch.passes import PIPELINES, FilterMinimally

# images, height, width, channels, outputs, and the attributes of the convolution
CONVOLUTIONS: list[tuple[int, int, int, int, int, tuple[int, int], dict[str, Any]]] = [
    (2, 7, 9, 5, 40, (3, 3), {"low": 1, "high": 1}),
    (3, 8, 8, 16, 16, (3, 3), {"low": (1, 0), "high": (0, 2)}),  # whole tiles in an image: one table for all
    (2, 11, 6, 3, 33, (5, 2), {"stride": (2, 1), "low": 2, "high": 2}),
    (1, 12, 13, 8, 18, (3, 3), {"dilation": (2, 3), "low": 2, "high": 3}),
    (2, 6, 5, 12, 24, (3, 3), {"groups": 3, "low": 1, "high": 1}),
    (2, 5, 4, 6, 10, (3, 3), {"spread": 2, "low": 1, "high": 2}),  # the gradient of a strided one, by x
    (1, 3, 5, 7, 17, (2, 4), {"spread": (3, 2), "dilation": (1, 2), "low": (0, 3), "high": (2, 1)}),
    (2, 9, 7, 4, 6, (2, 2), {"low": -1, "high": (0, -2)}),
    (1, 4, 4, 9, 8, (1, 1), {"stride": 2}),
    (2, 4, 6, 9, 34, (1, 1), {}),
    (1, 2, 2, 3, 5, (3, 3), {"low": 2, "high": 2}),  # most of each window is padding
]
TILES = [(2, 8, 8, 16, 32), (3, 9, 7, 32, 16), (1, 5, 6, 48, 64), (1, 33, 20, 32, 32)]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def compiled(function: Any, *arrays: np.ndarray, pipeline: str = "none",
             threads: int = 1) -> tuple[np.ndarray, list[str]]:
    """What `function` gives, and the names of the kernels that computed it."""
    fast = tt.compile(function, pipeline=pipeline, threads=threads)
    result = fast(*map(tt.tensor, arrays)).numpy()
    return result, [step.kernel.name for step in fast.program.steps]


def meaning(op: Any, *arrays: np.ndarray, **attrs: Any) -> np.ndarray:
    """The definition, in float64."""
    return np.asarray(op(*(tt.tensor(a.astype(np.float64)) for a in arrays), **attrs).numpy())


def check_values(plain: bool = False) -> None:
    chosen = CONVOLUTIONS[1:6:2] if plain else CONVOLUTIONS
    for n, h, w, c, o, (kh, kw), attrs in chosen:
        x, weight = random(n, h, w, c), random(kh, kw, c // attrs.get("groups", 1), o, seed=1)
        expected = meaning(ops.convolve, x, weight, **attrs)
        found, kernels = compiled(partial(ops.convolve, **attrs), x, weight)
        assert kernels[-1] == "convolve"
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.sqrt(kh * kw * c), err_msg=f"{attrs}")
        if "spread" not in attrs:
            g = random(*expected.shape, seed=2)
            more = {k: v for k, v in attrs.items() if k != "high"} | {"size": (kh, kw), "parts": n}
            found, kernels = compiled(partial(ops.window_products, **more), x, g)
            assert kernels[-1] == "window_products"
            np.testing.assert_allclose(found, meaning(ops.window_products, x, g, **more),
                                       atol=2e-5 * np.sqrt(h * w), err_msg=f"{more}")
    for n, h, w, c, o in TILES[:1] if plain else TILES:
        x, weight = random(n, h, w, c), random(3, 3, c, o, seed=1)
        found, kernels = compiled(lambda x, w: ops.convolve(x, w, 1, 1, (0, 1)), x, weight, pipeline="train")
        assert kernels[-1] == "filter_tiles"
        expected = meaning(ops.convolve, x, weight, low=1, high=(0, 1))
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.sqrt(9 * c))


def test_values() -> None:
    check_values()


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_instruction_sets(isa: str) -> None:
    run_again(__file__, {"TINYTORCH_ISA": isa})


def test_plain_python() -> None:
    run_again(__file__, {"NUMBA_DISABLE_JIT": "1"}, "plain")


def layer(x: Any, weight: Any, bias: Any, more: Any) -> Any:
    """A convolution with all that its epilogue may hold."""
    return ops.maximum(ops.convolve(x, weight, 1, 1, 1) + bias, 0.0) + more


@pytest.mark.parametrize("pipeline", ["none", "train"])
def test_results_are_the_same_from_run_to_run_and_for_any_number_of_threads(pipeline: str) -> None:
    arrays = random(4, 32, 32, 16), random(3, 3, 16, 32, seed=1), random(32, seed=2), random(4, 32, 32, 32, seed=3)
    once, _ = compiled(layer, *arrays, pipeline=pipeline)
    for threads in (1, 2, 4):
        np.testing.assert_array_equal(compiled(layer, *arrays, pipeline=pipeline, threads=threads)[0], once)
    g = random(4, 32, 32, 32, seed=4)
    products = [compiled(lambda x, g: ops.window_products(x, g, 3, 1, 1, parts=4), arrays[0], g, threads=n)[0]
                for n in (1, 2, 4)]
    np.testing.assert_array_equal(products[0], products[1])
    np.testing.assert_array_equal(products[0], products[2])


@pytest.mark.parametrize("channels", [16, 8])
def test_bias_activation_and_residual_are_in_the_epilogue(channels: int) -> None:
    """By tiles (16 channels are enough) and by windows; the weight is all that is prepared besides."""
    x, weight = random(2, 6, 6, channels), random(3, 3, channels, 32, seed=1)
    arrays = x, weight, random(32, seed=2), random(2, 6, 6, 32, seed=3)
    found, kernels = compiled(layer, *arrays, pipeline="train")
    name = "filter_tiles" if channels == 16 else "convolve"
    assert kernels[-1] == f"{name}_add_maximum_add" and len(kernels) == (2 if channels == 16 else 1)
    wide = meaning(ops.convolve, *arrays[:2], low=1, high=1)
    np.testing.assert_allclose(found, np.maximum(wide + arrays[2], 0) + arrays[3], atol=1e-4)


def test_error_is_no_greater_than_torchs(peer: Any) -> None:
    """Of the convolution, by windows and by tiles, and of both its gradients, against float64; root mean squares."""
    torch = peer("torch")

    def ours(x: Any, w: Any, g: Any) -> Any:
        y = tt.nn.functional.conv2d(x, w, padding=1)
        (y * g).sum().backward()
        return y, x.grad, w.grad

    def theirs(*arrays: np.ndarray) -> list[np.ndarray]:
        x, w, g = (torch.tensor(a) for a in arrays)
        y = torch.nn.functional.conv2d(x.requires_grad_(), w.requires_grad_(), padding=1)
        (y * g).sum().backward()
        return [t.detach().numpy() for t in (y, x.grad, w.grad)]

    for c, o in ((32, 64), (8, 24)):
        arrays = random(4, c, 16, 16), random(o, c, 3, 3, seed=1), random(4, o, 16, 16, seed=2)
        exact = theirs(*(a.astype(np.float64) for a in arrays))
        fast = tt.compile(ours)
        found = fast(*(tt.tensor(a, requires_grad=i < 2) for i, a in enumerate(arrays)))
        for mine, other, right in zip(found, theirs(*arrays), exact, strict=True):
            error, bound = (np.sqrt(np.mean((a - right) ** 2)) for a in (mine.detach().numpy(), other))
            assert error <= 1.1 * bound


def test_layout_copies_nothing_inside_a_network_and_a_step_is_that_of_eager() -> None:
    """Transposes stand at the borders alone: pictures are read as they come, the gradient of features is turned."""
    def stepping() -> tuple[Any, Any]:
        tt.manual_seed(1)
        model = tt.nn.Sequential(
            tt.nn.Conv2d(3, 16, 3, padding=1), tt.nn.BatchNorm2d(16), tt.nn.ReLU(), tt.nn.MaxPool2d(2),
            tt.nn.Conv2d(16, 16, 3, stride=2, padding=1), tt.nn.ReLU(), tt.nn.AvgPool2d(2), tt.nn.Flatten(),
            tt.nn.Linear(64, 10))
        optimiser = tt.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            optimiser.zero_grad()
            loss = tt.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimiser.step()
            return loss

        return model, step

    (model, step), (twin, its_step) = stepping(), stepping()
    fast, batch = tt.compile(step), (tt.tensor(random(4, 3, 16, 16)), tt.tensor(np.arange(4)))
    np.testing.assert_allclose(fast(*batch).item(), its_step(*batch).item(), rtol=1e-5)
    for name, value in twin.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name].numpy(), value.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    copies = [node for node in fast.graph.nodes if node.op is ops.detach]
    assert [node.output.shape for node in copies if node.output.shape[0] == 4] == [(4, 2, 2, 16)]


def test_minimal_filtering_is_chosen_where_it_fits() -> None:
    def chosen(c: int, o: int, kernel: int = 3, **attrs: Any) -> bool:
        graph = tt.trace(lambda x, w: ops.convolve(x, w, **attrs), random(1, 8, 8, c), random(kernel, kernel, c, o))
        return any(node.op is ops.filter_tiles for node in FilterMinimally()(graph).nodes)

    assert chosen(16, 16) and chosen(16, 32, low=1, high=1)
    assert not chosen(8, 32) and not chosen(24, 32) and not chosen(32, 32, 1)
    assert not chosen(32, 32, stride=2) and not chosen(32, 32, dilation=2) and not chosen(32, 32, low=-1)
    assert FilterMinimally() in PIPELINES["train"] and FilterMinimally() in PIPELINES["infer"]


def test_a_kernel_serves_all_sizes() -> None:
    from tinytorch.runtime import build

    compiled(layer, random(2, 6, 6, 16), random(3, 3, 16, 32), random(32), random(2, 6, 6, 32), pipeline="train")
    before = build.stats().compiled
    compiled(layer, random(1, 9, 12, 48), random(3, 3, 48, 64), random(64), random(1, 9, 12, 64), pipeline="train")
    assert build.stats().compiled == before


def test_types_follow_the_definition() -> None:
    weight = TensorType.of(random(3, 3, 4, 8))
    assert ops.convolve.infer(TensorType.of(random(2, 9, 9, 4)), weight, stride=(2, 2), low=(1, 1), high=(1, 1),
                              dilation=(1, 1), spread=(1, 1), groups=1).shape == (2, 5, 5, 8)


if __name__ == "__main__":
    check_values("plain" in sys.argv)
