"""Fusion: what becomes one kernel, what must not, and that the graph stays sound."""

from typing import Any

import numpy as np
import pytest
from programs import program

import tinytorch as tt
from tinytorch.ir import Graph, TensorType, f32, i64, ops, verify
from tinytorch.ir.domain import find_domain
from tinytorch.passes import ExpandComposites, Fuse, MergeCommon, Simplify, check_same_meaning
from tinytorch.passes.fuse import MOST_NODES, PRODUCTS
from tinytorch.runtime.emit import WITH_EPILOGUE


def fused(function: Any, *types: TensorType, step: Fuse | None = None) -> Graph:
    """The fused graph of a function, checked."""
    graph = MergeCommon()(Simplify()(ExpandComposites()(program(function, *types))))
    after = verify((step or Fuse())(graph))
    check_same_meaning(graph, after, np.random.default_rng(1))
    return after


def kernels(graph: Graph) -> list[str]:
    """What runs, by style or name."""
    free = ("constant", "iota", "broadcast_to", "reshape", "transpose")
    return [n.attrs["style"] if n.body else n.op.name for n in graph.nodes if n.op.name not in free]


def test_what_takes_an_epilogue_has_an_emitter_with_one() -> None:
    assert set(PRODUCTS) == set(WITH_EPILOGUE)


MATRIX = f32[64, 128]
MOST_A_BLOCK = 32  # kernels of a training step


@pytest.mark.parametrize(("function", "types", "expected"), [
    (lambda x: ops.softmax(x), [MATRIX], ["reduce"]),
    (lambda x: ops.log_softmax(x), [MATRIX], ["reduce"]),
    (lambda x: ops.layer_norm(x), [MATRIX], ["reduce"]),
    (lambda x: ops.layer_norm(ops.gelu(x * 2)), [MATRIX], ["reduce"]),
    (lambda x, y: ops.tanh(x + y) * 2 - x, [MATRIX, f32[(128,)]], ["pointwise"]),
    (lambda x, w, b: ops.relu(ops.linear(x, w, b)), [MATRIX, f32[32, 128], f32[(32,)]], ["contract"]),
    (lambda x, w: ops.matmul(x, w) * ops.sigmoid(ops.matmul(x, w)), [MATRIX, f32[128, 32]], ["contract"]),
    (lambda x: (ops.sum(x, 1), ops.sum(x, 0)), [MATRIX], ["sum", "sum"]),
    (lambda x: ops.mean(x * x), [MATRIX], ["reduce"]),
    (lambda x, i: ops.exp(ops.take(x * 2, i, 0)) + 1, [MATRIX, i64[(3,)]], ["pointwise", "take", "pointwise"]),
])  # fmt: skip
def test_what_becomes_one_kernel(function: Any, types: list[TensorType], expected: list[str]) -> None:
    assert kernels(fused(function, *types)) == expected


def test_a_long_chain_is_several_kernels() -> None:
    def chain(x: Any) -> Any:
        for _ in range(150):
            x = ops.maximum(x * 1.01 + 0.1, 0.0)
        return x

    bodies = [node.body for node in fused(chain, f32[4]).nodes if node.body is not None]
    assert len(bodies) > 1
    assert all(sum(node.op is not ops.constant for node in body.nodes) <= MOST_NODES for body in bodies)
    x = tt.ones(4)
    np.testing.assert_array_equal(tt.compile(chain)(x).numpy(), chain(x).numpy())


def test_options_switch_kinds_off() -> None:
    def function(x: Any, w: Any) -> Any:
        return ops.softmax(ops.relu(ops.matmul(x, w)) * 2)

    types = f32[8, 8], f32[8, 8]
    assert "contract" not in kernels(fused(function, *types, step=Fuse(epilogues=False)))
    assert "reduce" not in kernels(fused(function, *types, step=Fuse(reductions=False)))
    unfused = kernels(fused(function, *types, step=Fuse(False, False, False)))
    assert not {"reduce", "contract", "pointwise"} & set(unfused)


def test_a_path_that_leaves_and_comes_back_is_not_closed_in() -> None:
    """y feeds the last add directly, and through a cumulative sum that no nest can hold."""
    graph = fused(lambda x: ops.cumsum(ops.exp(x) * 2, 0) + ops.exp(x) * 2, f32[8, 8])
    assert kernels(graph) == ["pointwise", "cumsum", "add"] or kernels(graph)[1] == "cumsum"


def test_a_product_whose_operand_the_group_makes_is_not_its_epilogue() -> None:
    def function(x: Any, w: Any, g: Any) -> Any:
        t = ops.tanh(ops.matmul(x, w))
        h = g * x * (1 - t * t)
        return g * t + ops.matmul(h, w, False, True), ops.matmul(x, h, True)

    fused(function, f32[2, 3], f32[3, 3], f32[()])


def test_a_product_that_is_read_again_by_its_epilogue() -> None:
    assert "contract" not in kernels(fused(lambda x: ops.matmul(x, x) + x, f32[8, 8]))
    assert kernels(fused(lambda x, y: ops.matmul(x, y) + ops.transpose(ops.matmul(x, y)), f32[8, 8], f32[8, 8]))


def test_updates_come_after_the_last_reader() -> None:
    """The new value of w may be written in its place only when everything that reads the old one has run."""
    graph = program(lambda w, x: (w * 0.5, ops.cumsum(w + x, 0)), f32[8, 8], f32[8, 8])
    graph = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, graph.bound, {0: 0})
    after = Fuse()(graph)
    writer = next(i for i, n in enumerate(after.nodes) if after.outputs[0] in n.outputs)
    readers = [i for i, n in enumerate(after.nodes) if after.inputs[0] in n.inputs]
    assert writer == max(readers)


def test_what_others_read_too_is_one_kernel_with_who_can_take_it() -> None:
    """exp(x) is read by the next op, by a running sum, and by the caller: it is written, and not read again."""
    graph = fused(lambda x: (ops.exp(x) * 2, ops.cumsum(ops.exp(x), 1), ops.exp(x)), f32[4, 5])
    assert sorted(kernels(graph)) == ["cumsum", "pointwise"]


@pytest.mark.parametrize(("function", "types", "expected"), [
    # the norm's parts that its gradient reads
    (lambda x: (ops.layer_norm(x), ops.cumsum(x - ops.mean(x, -1, True), 0)), [MATRIX], ["reduce", "cumsum"]),
    # an epilogue whose operand another product reads
    (lambda x, w: (h := ops.matmul(x, w), ops.matmul(ops.relu(h), w), ops.matmul(ops.tanh(h), w))[1:],
     [f32[8, 8], f32[8, 8]], ["contract", "matmul", "matmul"]),
    # one thread alone would write what the sum reads
    (lambda x: (ops.exp(x), ops.sum(ops.exp(x))), [f32[2, 30_000]], ["exp", "sum"]),
    (lambda x: (ops.exp(x), ops.sum(ops.exp(x), 0)), [f32[30_000, 10]], ["exp", "sum"]),
    (lambda x: (ops.exp(x), ops.sum(ops.exp(x), 0)), [f32[3_000, 100]], ["reduce"]),
    (lambda x: (ops.exp(x), ops.sum(ops.exp(x))), [f32[20, 30]], ["reduce"]),
    # two folds of one value read it once; not so over different axes
    (lambda x: (ops.sum(x, 0), ops.sum(x * x, 0)), [MATRIX], ["reduce"]),
    (lambda x, y: (ops.sum(x * y, 0) + 1, ops.max(x, 0)), [MATRIX, MATRIX], ["reduce"]),
    (lambda x: (ops.sum(x * 2, 0), ops.sum(x * x, 1)), [MATRIX], ["reduce", "reduce"]),
    # nor where one waits for the other
    (lambda x: (y := ops.sum(x, 0), ops.sum(x * ops.cumsum(y, 0), 0)), [MATRIX], ["sum", "cumsum", "reduce"]),
    # two products that read one value: neither takes it
    (lambda x, w: (h := ops.relu(x), ops.matmul(h, w), ops.matmul(w, h))[1:], [f32[8, 8], f32[8, 8]],
     ["pointwise", "matmul", "matmul"]),
])  # fmt: skip
def test_readers_outside_cost_no_kernel(function: Any, types: list[TensorType], expected: list[str]) -> None:
    assert kernels(fused(function, *types)) == expected


@pytest.mark.slow  # two training steps are compiled
def test_kernels_of_a_training_step_of_a_transformer() -> None:
    """What one more block costs: 4 products and attention, with their gradients, 2 norms, and updates of 12 parameters,
    most of which happen where the gradient is made."""
    def kernels_of(layers: int) -> int:
        model = tt.nn.GPT(tt.nn.GPTConfig(vocab_size=11, block_size=8, n_layer=layers, n_head=2, n_embd=32))
        optimiser = tt.optim.SGD(model.parameters(), 0.1)

        def step(x: Any, y: Any) -> Any:
            loss = tt.nn.functional.cross_entropy(model(x).reshape(-1, 11), y.reshape(-1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            return loss

        fast = tt.compile(step)
        tokens = tt.tensor(np.arange(32).reshape(4, 8) % 11)
        fast(tokens, tokens)
        return len(fast.program.steps)

    assert kernels_of(2) - kernels_of(1) <= MOST_A_BLOCK


# -- the nest ----------------------------------------------------------------------------------------------------------


def test_domains() -> None:
    domain = find_domain(program(lambda x, y: ops.sum(x * y, 1), f32[4, 1, 3], f32[5, 3]))
    assert domain is not None and domain.extents == (4, 5, 3) and domain.reduced == {1}
    assert find_domain(program(lambda x: x * ops.sum(x, 0), f32[3, 3])) is not None
    assert find_domain(program(lambda x, y: x + ops.reshape(y, (3, 1)), f32[3, 3], f32[(3,)])) is not None


def test_axes_that_would_be_walked_twice_or_in_two_orders() -> None:
    both = program(lambda x, y: x * ops.reshape(y, (3, 1)) * y, f32[3, 3], f32[(3,)])
    assert find_domain(both) is None
    crossed = program(lambda x: ops.reshape(ops.sum(x, 0), (3, 1)) * ops.reshape(ops.sum(x, 1), (1, 3)), f32[3, 3])
    assert find_domain(crossed) is None


def test_a_view_that_others_read_too_is_no_way_out_of_sight() -> None:
    def function(x: Any, w: Any) -> Any:
        a = x + 1.0
        rows = ops.reshape(a * 2.0, (64, 1, 32))  # read by the product, and by what follows the product
        return ops.reshape(a, (64, 1, 32)) * ops.matmul(rows, w) + rows

    fused(function, TensorType(f32, (64, 32)), TensorType(f32, (32, 32)))  # no circle of groups
