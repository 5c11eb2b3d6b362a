"""FoldBatchNorm: where a batch norm disappears into the layer before it, where it must not, and how exact that is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import program

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir import Graph, Kind, TensorType, f16, f32, f64, ops
from tinytorch.passes import check_same_meaning
from tinytorch.passes.fold_batch_norm import FoldBatchNorm

IMAGES, ROWS = f32[2, 3, 6, 5], f32[5, 4]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def bound(function: Callable[..., Any], x: TensorType, w: TensorType, free: tuple[int, ...] = ()) -> Graph:
    """The graph of a function of x, a weight, and mean, variance, weight, bias and another vector, which are bound but
    for those in `free`."""
    vector = TensorType(w.dtype, w.shape[:1])
    types = [x, w, *[vector] * 5]
    rng = np.random.default_rng(1)
    arrays = {n: np.asarray(rng.uniform(0.5, 1.5, t.shape)).astype(t.dtype.np) for n, t in enumerate(types)}
    return program(function, *types, bound={n: a for n, a in arrays.items() if n and n not in free})


def norm(y: Any, *given: Any) -> Any:
    return ops.batch_norm(y, *given[:4])


def along(c: Any) -> Any:
    return ops.reshape(c, (-1, 1, 1))


FOLDED: dict[str, tuple[Callable[..., Any], TensorType, TensorType]] = {
    "convolution": (lambda x, w, *g: norm(ops.conv2d(x, w), *g), IMAGES, f32[4, 3, 3, 3]),
    "strided": (lambda x, w, *g: norm(ops.conv2d(x, w, stride=2, padding=1, dilation=2), *g), IMAGES, f32[4, 3, 3, 2]),
    "depthwise": (lambda x, w, *g: norm(ops.conv2d(x, w, groups=3), *g), IMAGES, f32[6, 1, 3, 3]),
    "with a bias": (lambda x, w, *g: norm(ops.conv2d(x, w) + along(g[4]), *g), IMAGES, f32[4, 3, 1, 1]),
    "bias on the left": (lambda x, w, *g: norm(along(g[4]) + ops.conv2d(x, w), *g), IMAGES, f32[4, 3, 1, 1]),
    "linear": (lambda x, w, *g: norm(ops.linear(x, w), *g), ROWS, f32[6, 4]),
    "linear with a bias": (lambda x, w, *g: norm(ops.linear(x, w, g[4]), *g), ROWS, f32[6, 4]),
    "linear with two": (lambda x, w, *g: norm(ops.linear(x, w, g[4]) + g[4], *g), ROWS, f32[6, 4]),
    "numbers": (lambda x, w, *g: ops.batch_norm(ops.conv2d(x, w), g[0], g[1], 1.0, 0.0), IMAGES, f32[4, 3, 1, 1]),
    "numbers only": (lambda x, w, *g: ops.batch_norm(ops.conv2d(x, w), 0.5, 2.0, 1.0, 0.0), IMAGES, f32[4, 3, 1, 1]),
    "in double": (lambda x, w, *g: norm(ops.conv2d(x, w), *g), f64[2, 3, 5, 5], f64[4, 3, 3, 3]),
    "a weight that is made": (lambda x, w, *g: norm(ops.conv2d(x, w * w), *g), IMAGES, f32[4, 3, 3, 3]),
}


@pytest.mark.parametrize("name", FOLDED)
def test_it_disappears(name: str) -> None:
    graph = bound(*FOLDED[name])
    after = FoldBatchNorm()(graph)
    assert "batch_norm" in names(graph) and "batch_norm" not in names(after)
    assert [n.op for n in after.users[after.inputs[0]]] == [n.op for n in graph.users[graph.inputs[0]]]
    check_same_meaning(graph, after, np.random.default_rng(0), 1e-11 if name == "in double" else 2e-6)


CONV = f32[4, 3, 3, 3]
LEFT: dict[str, tuple[Callable[..., Any], TensorType, TensorType, tuple[int, ...]]] = {
    "another reader": (lambda x, w, *g: (norm(y := ops.conv2d(x, w), *g), y), IMAGES, CONV, ()),
    "statistics of x": (lambda x, w, *g: ops.batch_norm(y := ops.conv2d(x, w), ops.mean(y, (0, 2, 3)),
                                                        ops.var(y, (0, 2, 3)), g[2], g[3]), IMAGES, CONV, ()),
    "a weight that is given": (FOLDED["convolution"][0], IMAGES, CONV, (1,)),
    "a variance that is given": (FOLDED["convolution"][0], IMAGES, CONV, (3,)),
    "a bias that is given": (FOLDED["with a bias"][0], IMAGES, f32[4, 3, 1, 1], (6,)),
    "something in between": (lambda x, w, *g: norm(ops.relu(ops.conv2d(x, w)), *g), IMAGES, CONV, ()),
    "a residual": (lambda x, w, *g: norm(ops.conv2d(x, w, padding=1) + x, *g), f32[2, 4, 5, 5], f32[4, 4, 3, 3], ()),
    "half precision": (FOLDED["convolution"][0], f16[2, 3, 5, 5], f16[4, 3, 3, 3], ()),
    "a stack": (lambda x, w, *g: norm(ops.linear(x, w), *g), f32[3, 6, 4], f32[6, 4], ()),
}


@pytest.mark.parametrize("name", LEFT)
def test_it_stays(name: str) -> None:
    function, x, w, free = LEFT[name]
    graph = bound(function, x, w, free)
    assert FoldBatchNorm()(graph) is graph


def test_what_a_graph_overwrites_is_not_known() -> None:
    graph = bound(FOLDED["convolution"][0], IMAGES, CONV)
    graph = graph.with_(outputs=(*graph.outputs, graph.inputs[2]), donated={1: 3})
    assert FoldBatchNorm()(graph) is graph


def net(seed: int = 0) -> Any:
    """conv, norm, relu, twice and with a bias; then linear and norm. Statistics are not those of a new module."""
    tt.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 32), nn.BatchNorm1d(32), nn.ReLU())  # fmt: skip
    rng = np.random.default_rng(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.ndim == 1:
            drawn = rng.uniform(0.3, 3.0, tensor.shape) if name.endswith(("var", "weight")) else rng.normal(
                size=tensor.shape)
            tensor.detach().copy_(drawn.astype(np.float32))
    return model.eval()


X = numbers(4, 3, 8, 8)


def test_launches_of_a_network_in_evaluation() -> None:
    model = net()
    fast = tt.compile(model)
    for _ in range(3):
        y = fast(tt.tensor(X))
    np.testing.assert_allclose(y.numpy(), model(tt.tensor(X)).numpy(), 1e-4, 1e-5)
    products = [node for node in fast.graph.nodes if node.op.kind is Kind.CONTRACT
                or (node.body is not None and node.attrs["style"] == "contract")]
    assert len(products) == 3 and all(node.body is not None and "maximum" in names(node.body) for node in products)
    assert len(fast.program.steps) <= 3 + 2, "but for the layouts of what comes in and of what is flattened"
    assert fast.preparation.runs == 1 and not {"rsqrt", "batch_norm"} & {
        name for node in fast.graph.nodes for name in names(node.body or fast.graph)}


def test_training_folds_nothing_and_evaluation_after_it_is_right() -> None:
    model = net()
    fast = tt.compile(model)
    optimizer = tt.optim.SGD(model.parameters(), lr=0.1)
    x = tt.tensor(X)
    for _ in range(3):
        model.train()
        assert "batch_norm" not in names(tt.trace(model, x)) and model(x).size
        (model(x) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        np.testing.assert_allclose(fast(x).numpy(), model(x).numpy(), 1e-4, 1e-5)


def test_no_less_exact_than_pytorch(peer: Callable[[str], Any]) -> None:
    """Errors against float64, relative to the greatest result, over several networks."""
    torch = peer("torch")
    ours, theirs = [], []
    for seed in range(5):
        model = net(seed)
        state = {key: np.array(value.numpy()) for key, value in model.state_dict().items()}
        other = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
            torch.nn.Conv2d(16, 16, 3, padding=1, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(256, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU()).eval()  # fmt: skip
        other.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        with torch.no_grad():
            rough = other(torch.from_numpy(X)).numpy()
            exact = other.double()(torch.from_numpy(X).double()).numpy()
        found = tt.compile(model)(tt.tensor(X)).numpy()
        for errors, result in ((ours, found), (theirs, rough)):
            errors.append(np.sqrt(((result - exact) ** 2).mean()) / np.abs(exact).max())
    assert np.mean(ours) < 1e-6 and np.mean(ours) <= 1.1 * np.mean(theirs), (ours, theirs)
