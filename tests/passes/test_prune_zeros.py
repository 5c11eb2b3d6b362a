"""`SkipZeroBlocks`: which layers it rewrites, which it leaves, and that nothing else changes."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.passes import FoldBatchNorm, SkipZeroBlocks
from tinytorch.prune import prune, skip_zeros

X = tt.Tensor(np.random.default_rng(0).standard_normal((3, 32, 4, 4)).astype("f4"))


def network() -> nn.Module:
    tt.manual_seed(0)
    return nn.Sequential(nn.Conv2d(32, 64, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 16, 3), nn.Flatten(),
                         nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)).eval()


def count(graph: tt.Graph) -> int:
    return [node.op.name for node in graph.nodes].count("sparse_linear")


@pytest.mark.parametrize("structure", ["blocks", "2:4", "1:4"])
def test_layers_with_blocks_of_zeros_are_rewritten_and_mean_the_same(structure: str) -> None:
    sparse = prune(network(), 0.75, structure, layers=["0", "3", "5"])
    fast = skip_zeros(sparse)
    assert count(fast.graph(X)) == 2  # a kernel of 3 × 3 is no product of matrices
    np.testing.assert_allclose(fast(X).numpy(), sparse(X).numpy(), rtol=1e-4, atol=1e-5)
    folded = skip_zeros(FoldBatchNorm()(tt.trace(sparse, X)))  # the weight that is known is w · s
    assert count(folded) == 2
    np.testing.assert_allclose(folded(X.numpy()), sparse(X).numpy(), rtol=1e-4, atol=1e-5)


def test_compiled() -> None:
    sparse = prune(nn.Sequential(nn.Conv2d(32, 64, 1, bias=False), nn.ReLU()), 0.75, "blocks")
    np.testing.assert_allclose(tt.compile(skip_zeros(sparse))(X).numpy(), sparse(X).numpy(), rtol=1e-4, atol=1e-5)


def test_scattered_zeros_gain_nothing_and_stay() -> None:
    graph = tt.trace(prune(network(), 0.8, "weights", layers=["0", "3", "5"], scope="layer"), X)
    assert SkipZeroBlocks()(graph) is graph


def test_weights_are_packed_once_for_all_sizes() -> None:
    fast = skip_zeros(prune(nn.Linear(64, 64), 0.75, "blocks"))
    sizes = []
    for rows in (1, 5):
        fast(tt.zeros(rows, 64))
        sizes.append([buffer.shape for buffer in fast.buffers()])
    assert sizes[0] == sizes[1] and sizes[0][0] == (4, 8, 32)
