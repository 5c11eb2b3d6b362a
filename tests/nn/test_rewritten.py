"""`nn.Rewritten`: a model seen through passes is a module like any other, at any sizes, and has only what it reads."""

import gc
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, passes
from tinytorch.ir import Graph, Value, ops
from tinytorch.ir.errors import TracingError
from tinytorch.ir.graph import substitute
from tinytorch.ir.interp import make_node
from tinytorch.passes.fold_constants import frozen


@dataclass(frozen=True)
class Halve:
    """Bind f16 copies of the matrices, and cast them back where they are read."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, graph: Graph) -> Graph:
        nodes, same, extra = [], {}, {}
        for value, array in graph.bound.items():
            if len(value.shape) == 2:
                name = graph.names[value]
                half = Value(tt.f16[value.shape], f"{name}_half")
                extra[half] = self.arrays.setdefault(name, frozen(array.astype(np.float16)))
                nodes.append(make_node(ops.cast, (half,), {"dtype": value.dtype}))
                same[value] = nodes[-1].output
        nodes += substitute(graph.nodes, same)
        return passes.RemoveDead()(graph.with_(inputs=(*(v for v in graph.inputs if v not in same), *extra),
                                               nodes=tuple(nodes),
                                               bound={**{v: a for v, a in graph.bound.items() if v not in same},
                                                      **extra}))


def model() -> nn.Module:
    tt.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def nbytes(module: nn.Module) -> int:
    return sum(t.payload.nbytes for t in module.state_dict().values())


def test_it_runs_what_the_passes_make_at_every_size_and_in_every_way() -> None:
    original = model()
    halved = nn.Rewritten(original, Halve())
    fast = tt.compile(halved)
    for rows in (1, 4, 4, 7):
        x = tt.randn(rows, 6)
        wanted = original.eval()(x).numpy()
        for way in (halved, fast, tt.compile(lambda t: halved(t) * 1.0)):
            np.testing.assert_allclose(way(x).numpy(), wanted, atol=2e-3)
            assert np.abs(way(x).numpy() - wanted).max() > 0  # f16 was really read
    assert "cast" in {node.op.name for node in halved.graph(x).nodes}
    assert halved(x[:2]).shape == (2, 3)


def test_it_holds_only_what_it_reads_and_is_apart_from_the_model() -> None:
    original = model().eval()
    wanted = original(tt.ones(2, 6)).numpy()
    halved = nn.Rewritten(original, Halve())
    halved(tt.ones(2, 6))
    shapes = {name: (t.dtype.name, t.shape) for name, t in halved.state_dict().items()}
    assert shapes["_0_weight_half"] == ("f16", (8, 6)) and "_0_weight" not in shapes and "_0_bias" in shapes
    with tt.no_grad():
        for tensor in original.state_dict().values():
            tensor.zero_()
    np.testing.assert_allclose(halved(tt.ones(2, 6)).numpy(), wanted, atol=2e-3)


def test_parameters_that_are_not_read_any_more_are_freed() -> None:
    original = nn.Sequential(nn.Linear(64, 64, bias=False))
    memory = weakref.ref(original[0].weight.payload)
    halved = nn.Rewritten(original, Halve())
    halved(tt.ones(2, 64))
    del original
    gc.collect()
    assert memory() is None and nbytes(halved) == 64 * 64 * 2


def test_what_is_prepared_of_packed_weights_is_prepared_once() -> None:
    fast = tt.compile(nn.Rewritten(model(), passes.FoldBatchNorm()))
    for _ in range(3):
        fast(tt.ones(2, 6))
    assert fast.preparation is not None and fast.preparation.runs == 1


def test_its_state_is_saved_and_loaded(tmp_path: Any) -> None:
    x = tt.randn(3, 6)
    first, second = (nn.Rewritten(model(), Halve()) for _ in range(2))
    wanted, _ = first(x), second(x)
    tt.save(first.state_dict(), tmp_path / "m.safetensors")
    for tensor in second.parameters():
        with tt.no_grad():
            tensor.copy_(tensor * 0)
    assert not np.array_equal(second(x).numpy(), wanted.numpy())
    second.load_state_dict(tt.load(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(second(x).numpy(), wanted.numpy())


def test_rewritten_twice() -> None:
    original = model().eval()
    twice = nn.Rewritten(nn.Rewritten(original, passes.FoldBatchNorm()), Halve())
    np.testing.assert_allclose(twice(tt.ones(2, 6)).numpy(), original(tt.ones(2, 6)).numpy(), atol=2e-3)


def test_results_of_any_structure_and_functions() -> None:
    weight = tt.randn(3, 3)
    function = nn.Rewritten(lambda x, scale: {"y": x @ weight, "z": (x * scale, "text")}, Halve())
    out = function(tt.ones(2, 3), 2.0)
    np.testing.assert_allclose(out["y"].numpy(), np.ones((2, 3)) @ weight.numpy(), atol=1e-2)
    assert out["z"][1] == "text" and out["z"][0].tolist() == [[2.0] * 3] * 2


def test_what_overwrites_tensors_is_refused() -> None:
    count = tt.zeros(1)

    def counting(x: Any) -> Any:
        count.add_(1.0)
        return x + count

    with pytest.raises(TracingError, match="overwrites tensors"):
        nn.Rewritten(counting)(tt.ones(1))
    with pytest.raises(TracingError, match="no training mode"):
        nn.Rewritten(model()).train()
