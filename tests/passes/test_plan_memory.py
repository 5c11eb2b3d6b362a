"""Plans are run in a simulated arena: one block of bytes, a slot for each value, views by strides,
elementwise ops in place."""

import functools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from programs import program
from random_graphs import graphs
from realistic_graphs import mlp_step, transformer_block

import tinytorch as tt
from tinytorch.bench import models
from tinytorch.ir import Builder, Graph, Kind, MemoryPlan, Node, Value, f32, ops
from tinytorch.ir.layout import layouts
from tinytorch.passes import PIPELINES, ExpandComposites, MergeCommon, Pipeline, RemoveDead, Simplify, plan_memory
from tinytorch.passes.compare import compare_results, random_inputs
from tinytorch.passes.plan_memory import ALIGNMENT, most_alive

OPEN = Pipeline(ExpandComposites(), Simplify(), MergeCommon(), RemoveDead())


class Arena:
    """Runs a graph as the runtime would: every value in the slot that the plan gives it."""

    def __init__(self, graph: Graph, plan: MemoryPlan, inputs: list[np.ndarray]) -> None:
        self.graph, self.plan, self.where = graph, plan, layouts(graph)
        self.bytes = np.random.default_rng(0).integers(0, 255, plan.size, np.uint8)  # whatever an earlier run left
        self.outside: dict[Value, np.ndarray] = {v: np.array(a, v.dtype.np, order="C")
                                                 for v, a in zip(graph.inputs, inputs, strict=True)}
        self.fresh = {v for number, v in enumerate(graph.outputs) if number not in graph.donated}

    def run(self) -> list[np.ndarray]:
        for node in self.graph.nodes:
            if node.op.kind is Kind.VIEW and self.where[node.output].root is not node.output:
                continue
            if len(node.outputs) == 1 and node.op.kind is Kind.POINTWISE and node.output.shape:
                self.by_rows(node)
            else:
                result = node.op.eval(*map(self.read, node.inputs), **node.attrs)
                results = result if isinstance(result, tuple) else (result,)
                for value, array in zip(node.outputs, [np.array(a) for a in results], strict=True):
                    self.slot(value)[...] = array
        return self.finish()

    def by_rows(self, node: Node) -> None:
        """Element by element along the first axis, stored at once:
        reading at another index than one writes would show."""
        out = self.slot(node.output)
        operands = [np.broadcast_to(self.read(v), out.shape) for v in node.inputs]
        for row in range(out.shape[0]):
            out[row] = node.op.eval(*(a[row] for a in operands), **node.attrs)

    def finish(self) -> list[np.ndarray]:
        """All outputs that are not written where they belong are read first, and copied then:
        one may be a view of what another overwrites."""
        found = [self.read(v).copy() for v in self.graph.outputs]
        for number, place in self.graph.donated.items():
            target, value = self.graph.inputs[place], self.graph.outputs[number]
            if self.address(value) is not target or self.where[value].root is target:
                self.outside[target][...] = found[number]
            found[number] = self.outside[target]
        return found

    def address(self, value: Value) -> Value:
        """The value in whose memory `value` lies, all takeovers followed."""
        root = self.where[value].root
        while root in self.plan.reuses:
            root = self.plan.reuses[root]
        return root

    def slot(self, value: Value) -> np.ndarray:
        owner = self.address(value)
        if owner in self.plan.offsets:
            at = self.plan.offsets[owner]
            assert at % ALIGNMENT == 0 and at + value.type.nbytes <= self.plan.size
            return self.bytes[at:at + value.type.nbytes].view(value.dtype.np).reshape(value.shape)
        if owner not in self.outside:
            node = self.graph.producer[owner]
            assert owner in self.fresh or node.op.kind is Kind.SOURCE, f"no place for the result of {node.op}"
            self.outside[owner] = np.empty(owner.shape, owner.dtype.np)
        return self.outside[owner].reshape(value.shape)

    def read(self, value: Value) -> np.ndarray:
        layout = self.where[value]
        flat = self.slot(layout.root).reshape(-1)
        if value.type.size == 0:
            return np.empty(value.shape, value.dtype.np)
        strides = tuple(s * value.dtype.itemsize for s in layout.strides)
        return np.lib.stride_tricks.as_strided(flat[layout.offset:], value.shape, strides)


def simulate(graph: Graph, plan: MemoryPlan) -> None:
    """Raise if running in the arena gives anything but what the graph means."""
    free = random_inputs(graph, np.random.default_rng(0))
    expected = graph(*free)
    expected = list(expected) if len(graph.outputs) != 1 else [expected]
    given = iter(free)
    inputs = [graph.bound[v] if v in graph.bound else next(given) for v in graph.inputs]
    compare_results(expected, Arena(graph, plan, inputs).run(), graph, 1e-6)


@settings(max_examples=150)
@given(graph=graphs(max_nodes=16))
def test_random_graphs_run_in_their_arena(graph: Graph) -> None:
    for each in (graph, OPEN(graph)):
        for in_place in (True, False):
            plan = plan_memory(each, in_place=in_place)
            simulate(each, plan)
            no_two_live_buffers_overlap(each, plan)


@settings(max_examples=150)
@given(graph=graphs(max_nodes=16, steps=("unary", "binary", "number", "transpose", "reshape", "slice", "broadcast"),
                    dtypes=(f32,)))
def test_elementwise_graphs_run_in_place(graph: Graph) -> None:
    simulate(graph, plan_memory(graph))


def no_two_live_buffers_overlap(graph: Graph, plan: MemoryPlan) -> None:
    """By brute force: at every node, the blocks of all live roots are disjoint, but for those that were taken over."""
    where = layouts(graph)
    made = {v: number for number, node in enumerate(graph.nodes) for v in node.outputs if where[v].root is v}
    last = dict(made)
    for number, node in enumerate(graph.nodes):
        if node.op.kind is not Kind.VIEW or where[node.output].root is node.output:
            last |= {where[v].root: number for v in node.inputs}
    last |= {where[v].root: len(graph.nodes) for v in graph.outputs}

    def block(value: Value) -> Any:
        owner = value
        while owner in plan.reuses:
            owner = plan.reuses[owner]
        return (plan.offsets[owner], plan.offsets[owner] + value.type.nbytes) if owner in plan.offsets else None

    for number in range(len(graph.nodes) + 1):
        live = [v for v in made if made[v] <= number <= last[v] and block(v) and v.type.nbytes]
        for i, a in enumerate(live):
            for b in live[i + 1:]:
                disjoint = block(a)[1] <= block(b)[0] or block(b)[1] <= block(a)[0]
                shared = plan.reuses.get(a) is b or plan.reuses.get(b) is a
                assert disjoint or shared, f"{graph.names[a]} and {graph.names[b]}\n{graph}"


@pytest.mark.parametrize("make", [mlp_step, transformer_block], ids=lambda f: f.__name__)
def test_plans_are_near_the_least_possible(make: Any) -> None:
    graph = OPEN(make())
    for in_place in (True, False):
        plan = plan_memory(graph, in_place=in_place)
        assert most_alive(graph, plan) <= plan.size <= 1.1 * most_alive(graph, plan)
    assert plan_memory(graph).size <= plan.size
    simulate(graph, plan_memory(graph))


@functools.cache
def training_graph(name: str) -> Graph:
    """What `tt.compile` runs for an Adam step of one of the networks that are measured."""
    network = models.NETWORKS[name]
    x, labels = network.batch({"mlp": 64, "cnn": 64, "gpt": 16}[name])
    traced = tt.trace(models.training_step(network.make(), network.classes), tt.tensor(x), tt.tensor(labels))
    return Pipeline(*PIPELINES["train"])(traced)


TRAINED = pytest.mark.parametrize("name", ["mlp", "cnn", "gpt"])


@TRAINED
def test_training_steps_need_no_more_than_what_lives_at_once(name: str) -> None:
    graph = training_graph(name)
    plan = plan_memory(graph)
    assert 0 < most_alive(graph, plan) <= plan.size <= 1.1 * most_alive(graph, plan)
    assert plan.size <= plan_memory(graph, in_place=False).size


@TRAINED
def test_training_steps_overwrite_parameters_and_copy_none(name: str) -> None:
    graph = training_graph(name)
    plan, where = plan_memory(graph), layouts(graph)
    for output, place in graph.donated.items():
        value = where[graph.outputs[output]].root
        assert plan.reuses.get(value) is graph.inputs[place], f"{graph.names[graph.inputs[place]]} is updated in a copy"
    copied = sum(node.output.type.nbytes for node in graph.nodes if node.op in (ops.detach, ops.reshape, ops.transpose)
                 and where[node.output].root is node.output and where[node.inputs[0]].root in graph.bound)
    filters = sum(v.type.nbytes for v in graph.bound if len(v.shape) == 4)  # stored (out, in, …): turned before use
    assert copied <= filters


@TRAINED
def test_training_steps_keep_little_more_than_their_peers_would(name: str) -> None:
    """Floats of intermediates an item: what the layers' results come to, and the widest gradient."""
    graph = training_graph(name)
    most = {"mlp": 64 * 450, "cnn": 64 * 152_000, "gpt": 16 * 64 * 13_000}[name]
    assert plan_memory(graph).size <= 4 * most


def test_planning_is_fast() -> None:
    graph = OPEN(mlp_step())
    times = []
    for _ in range(5):
        began = time.perf_counter()
        plan_memory(graph)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.005 * max(1, len(graph.nodes) / 100)


# -- one rule at a time ------------------------------------------------------------------------------------------------


def build(function: Any, *shapes: tuple[int, ...], donate: dict[int, int] | None = None) -> tuple[Graph, list[Value]]:
    """The graph of a function that gives (outputs, values to ask about)."""
    builder = Builder()
    inputs = [builder.input("x", f32[shape]) for shape in shapes]
    with builder:
        outputs, asked = function(*inputs)
    graph = builder.finish(outputs, {o: inputs[i].payload for o, i in (donate or {}).items()})
    return graph, [h.payload for h in asked]


def test_a_dying_operand_is_taken_over() -> None:
    def function(x: Any) -> Any:
        a = ops.sin(x)
        b = ops.cos(a)
        return [ops.sum(b)], [a, b]

    graph, (a, b) = build(function, (4, 5))
    plan = plan_memory(graph)
    assert plan.reuses == {b: a} and plan.size == 128
    assert plan_memory(graph, in_place=False).reuses == {}


@pytest.mark.parametrize("function", [
    lambda a: a + ops.transpose(a),  # reads another index
    lambda a: a + ops.slice(a, (3, 3), (4, 4), (-1, -1)),
    lambda a: ops.slice(a, (0, 0), (1, 4)) + a,
], ids=["transposed", "reversed", "first row"])
def test_reading_at_another_index_is_not_in_place(function: Any) -> None:
    def whole(x: Any) -> Any:
        a = ops.sin(x)
        b = function(a)
        return [ops.sum(b)], [b]

    graph, (b,) = build(whole, (4, 4))
    assert b not in plan_memory(graph).reuses
    simulate(graph, plan_memory(graph))


def test_a_value_that_a_view_keeps_alive_is_not_taken_over() -> None:
    def function(x: Any) -> Any:
        a = ops.sin(x)
        b = ops.cos(a)
        return [ops.sum(b), ops.sum(ops.transpose(a))], [b]

    graph, (b,) = build(function, (4, 4))
    assert b not in plan_memory(graph).reuses


def test_an_output_overwrites_the_input_it_is_given() -> None:
    graph, (new,) = build(lambda w, g: ([new := w - g * 0.1], [new]), (4,), (4,), donate={0: 0})
    plan = plan_memory(graph)
    assert plan.reuses[new] is graph.inputs[0] and new not in plan.offsets
    simulate(graph, plan)


def test_a_matrix_product_cannot_overwrite_its_operand() -> None:
    graph, (new,) = build(lambda w: ([new := ops.matmul(w, w)], [new]), (4, 4), donate={0: 0})
    plan = plan_memory(graph)
    assert new in plan.offsets and not plan.reuses
    simulate(graph, plan)


def test_an_input_that_is_read_later_or_given_back_is_not_overwritten() -> None:
    for function in (lambda w, g: ([new := w - g, ops.sum(w * 2.0)], [new]),
                     lambda w, g: ([new := w - g, ops.transpose(w)], [new])):
        graph, (new,) = build(function, (4, 4), (4, 4), donate={0: 0})
        assert new in plan_memory(graph).offsets
        simulate(graph, plan_memory(graph))


def test_a_result_that_lies_the_other_way_round_is_copied_over_the_input() -> None:
    for view in (ops.transpose, lambda h: ops.slice(h, (3, 0), (4, 4), (-1, 1))):
        graph, (h,) = build(lambda w, g: ([view(h := ops.sin(g))], [h]), (4, 4), (4, 4), donate={0: 0})  # noqa: B023
        assert h in plan_memory(graph).offsets
        simulate(graph, plan_memory(graph))


def test_an_input_that_is_overwritten_by_a_view_of_itself() -> None:
    graph, _ = build(lambda w: ([ops.transpose(w)], []), (3, 3), donate={0: 0})
    assert not plan_memory(graph).reuses
    simulate(graph, plan_memory(graph))


def test_inputs_that_change_places() -> None:
    graph, _ = build(lambda a, b: ([b, a], []), (3,), (3,), donate={0: 0, 1: 1})
    simulate(graph, plan_memory(graph))


def test_nothing_needs_nothing() -> None:
    graph, _ = build(lambda x: ([x], []), (3,))
    assert plan_memory(graph) == MemoryPlan({}, 0, {})


@pytest.mark.parametrize("inner, in_place", [
    (lambda a: ops.exp(a) + a, True),
    (lambda a: ops.exp(a) + ops.transpose(a), False),
    (lambda a: ops.exp(a) + ops.broadcast_to(ops.slice(a, (0, 0), (1, 4)), (4, 4)), False),
], ids=["same index", "transposed inside", "first row inside"])
def test_a_fused_node_is_in_place_if_its_body_is_elementwise(inner: Any, in_place: bool) -> None:
    body = program(inner, f32[4, 4])

    def whole(x: Any) -> Any:
        a = ops.sin(x)
        b = ops.fused(a, body=body, style="pointwise")
        return [ops.sum(b)], [a, b]

    graph, (a, b) = build(whole, (4, 4))
    assert plan_memory(graph).reuses == ({b: a} if in_place else {})


def test_a_fused_reduction_overwrites_what_it_reads_for_the_last_time() -> None:
    """Each row is folded, then walked again: what the second walk writes may take the place of what it reads."""
    def reuses(*results: Any) -> list[tuple[int, str]]:
        body = program(lambda a: tuple(result(a) for result in results), f32[4, 4])

        def whole(x: Any) -> Any:
            found = ops.fused(ops.sin(x), body=body, style="reduce")
            return [ops.sum(y) for y in (found if isinstance(found, tuple) else (found,))], []

        graph, _ = build(whole, (4, 4))
        node = next(n for n in graph.nodes if n.body is not None)
        return [(node.outputs.index(v), operand.hint) for v, operand in plan_memory(graph).reuses.items()]

    shifted: Any = lambda a: a - ops.max(a, 1, True)
    assert reuses(shifted) == [(0, "sin")]
    assert reuses(ops.exp, shifted) == [(1, "sin")], "the first walk writes exp(a), and the second reads a again"


def test_two_results_of_a_node_do_not_take_over_one_operand() -> None:
    body = program(lambda a: (ops.exp(a), ops.cos(a)), f32[4, 4])

    def whole(x: Any) -> Any:
        b, c = ops.fused(ops.sin(x), body=body, style="pointwise")
        return [ops.sum(b), ops.sum(c)], [b, c]

    graph, (b, c) = build(whole, (4, 4))
    plan = plan_memory(graph)
    assert b in plan.reuses and c in plan.offsets
    simulate(graph, plan)


def test_constants_inputs_and_outputs_lie_outside() -> None:
    graph, _ = build(lambda x: ([b := ops.iota((4,), dtype="f32") + x, ops.sin(b)], []), (4,))
    plan = plan_memory(graph)
    assert plan.size == 0 and not plan.offsets and not plan.reuses
    simulate(graph, plan)


def test_the_root_of_an_output_that_is_a_view_lives_until_the_end() -> None:
    graph, (a,) = build(lambda x: ([ops.transpose(a := ops.sin(x)), ops.sum(ops.cos(ops.exp(x)))], [a]), (4, 4))
    plan = plan_memory(graph)
    assert a in plan.offsets and plan.size == 2 * 64
    simulate(graph, plan)
