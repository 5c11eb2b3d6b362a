"""Every op against its definition, its twin in PyTorch, its derivatives and its text: all from samples.py.

The engines that must agree to the bit are in `ENGINES`: traced, printed and executed as Python, read back from text,
and composites opened; the compiled one must agree within rounding. Gradients are checked with a reverse mode of a few
lines that shares nothing with the product's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest
import samples as table
from samples import ENTRIES, SAMPLES, Bad, Sample, some

import tinytorch
from tinytorch.ir import (
    Builder,
    Cost,
    Graph,
    Kind,
    Node,
    Op,
    Operand,
    Recorder,
    TensorType,
    as_dtype,
    bf16,
    bool_,
    evaluate,
    f32,
    graph_cost,
    ops,
    registry,
    verify,
)
from tinytorch.ir.cost import expansion, node_cost
from tinytorch.ir.dtypes import ALL
from tinytorch.ir.errors import DTypeError, TinyTorchError
from tinytorch.passes.autodiff import reverse

Array = np.ndarray
every_op = pytest.mark.parametrize("name", sorted(registry))
TOLERANCE = {"f64": 1e-11, "f32": 3e-6, "f16": 4e-3, "bf16": 3e-2}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:.*degrees of freedom")  # of torch


def test_every_op_has_samples() -> None:
    assert not set(registry) - set(ENTRIES), "give these ops an entry in tests/samples.py"
    assert not set(ENTRIES) - set(registry), "these entries have no op"
    assert all(entry.samples and entry.bad for entry in ENTRIES.values())


# -- ways to run a call ------------------------------------------------------------------------------------------------


def listed(result: Any) -> list[Any]:
    """The results of an op, whether it gives one or several."""
    return list(result) if isinstance(result, tuple) else [result]


def arrays_of(sample: Sample) -> list[Array]:
    """The operands of a call that become inputs when it is traced."""
    return [a for a in sample.args if isinstance(a, Array)]


def apply(op: Op, sample: Sample, handles: Iterable[Any]) -> list[Any]:
    """The call, with these handles in place of its arrays."""
    given = iter(handles)
    return listed(op(*(next(given) if isinstance(a, Array) else a for a in sample.args), **sample.attrs))


def trace(op: Op, sample: Sample) -> Graph:
    """The call as a graph."""
    build = Builder("call")
    with build:
        outputs = apply(op, sample, [build.input("x", TensorType.of(a)) for a in arrays_of(sample)])
    return build.finish(outputs)


def eager(op: Op, sample: Sample) -> list[Array]:
    """The definition: NumPy, at once."""
    with np.errstate(all="ignore"):
        return [r.payload for r in apply(op, sample, map(Operand, arrays_of(sample)))]


def traced(op: Op, sample: Sample) -> list[Array]:
    """Traced, then run."""
    return listed(verify(trace(op, sample))(*arrays_of(sample)))


def executed(op: Op, sample: Sample) -> list[Array]:
    """Printed, pasted, run by Python."""
    graph = trace(op, sample)
    space: dict[str, Any] = {}
    exec(str(graph), space)
    with np.errstate(all="ignore"):
        return [r.payload for r in listed(space["call"](*map(Operand, arrays_of(sample))))]


def reread(op: Op, sample: Sample) -> list[Array]:
    """Printed, and read back as data."""
    graph = trace(op, sample)
    again = Graph.from_text(str(graph))
    assert again.same_as(graph) and str(Graph.from_text(str(again))) == str(again)
    return listed(verify(again)(*arrays_of(sample)))


def expanded(op: Op, sample: Sample) -> list[Array]:
    """With each composite opened, all the way down."""
    return evaluate(opened(trace(op, sample)), arrays_of(sample))


def opened(graph: Graph) -> Graph:
    """The graph with composites replaced by their expansions, and the bodies of fused nodes put in place."""
    nodes: list[Node] = []
    stands: dict[Any, Any] = {}
    for node in graph.nodes:
        operands = tuple(stands.get(v, v) for v in node.inputs)
        inner = (
            node.body
            if node.body
            else expansion(node.op, tuple(v.type for v in operands), node.attrs)
            if node.op.expand
            else None
        )
        if inner is None:
            nodes.append(Node(node.op, operands, node.attrs, node.outputs))
            continue
        inner = opened(inner)
        rename = dict(zip(inner.inputs, operands, strict=True))
        for step in inner.nodes:
            nodes.append(Node(step.op, tuple(rename.get(v, v) for v in step.inputs), step.attrs, step.outputs))
        stands |= dict(zip(node.outputs, (rename.get(v, v) for v in inner.outputs), strict=True))
    return Graph(graph.name, graph.inputs, tuple(nodes), tuple(stands.get(v, v) for v in graph.outputs), graph.bound)


ENGINES: list[Callable[[Op, Sample], list[Array]]] = [traced, executed, reread, expanded]


def same(actual: Sequence[Array], expected: Sequence[Array], note: object) -> None:
    """Equal to the last bit, nan for nan, zeros with their sign."""
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), note
        wide_a, wide_b = (np.asarray(c, np.float64 if c.dtype.kind not in "iub" else c.dtype) for c in (a, b))
        np.testing.assert_array_equal(wide_a, wide_b, str(note))
        assert wide_a.dtype.kind != "f" or (np.signbit(wide_a) == np.signbit(wide_b))[~np.isnan(wide_a)].all(), (
            f"{note}: -0.0"
        )


def near(actual: Array, expected: Array, note: object, tolerance: float = 0.0) -> None:
    """Equal within the precision of the less precise of the two."""
    assert actual.shape == expected.shape, note
    allowed = max(tolerance, *(TOLERANCE.get(as_dtype(a.dtype).name, 0.0) for a in (actual, expected)))
    wide = [np.asarray(a, np.float64) for a in (actual, expected)]
    np.testing.assert_allclose(*wide, rtol=allowed, atol=allowed, err_msg=str(note))


# -- meaning -----------------------------------------------------------------------------------------------------------


@every_op
def test_type_rule_gives_the_real_type(name: str) -> None:
    for sample in SAMPLES[name]:
        results = eager(registry[name], sample)
        assert all(type(r) is Array for r in results), "an array, not a NumPy scalar"
        graph = trace(registry[name], sample)
        assert [v.type for v in graph.outputs] == [TensorType.of(r) for r in results], sample
        for node in graph.nodes:  # the rule itself, not only what tracing made of it
            assert listed(node.op.infer(*(v.type for v in node.inputs), **node.attrs)) == [v.type for v in node.outputs]


@every_op
def test_engines_agree_to_the_bit(name: str) -> None:
    for sample in SAMPLES[name]:
        expected = eager(registry[name], sample)
        for engine in ENGINES:
            same(engine(registry[name], sample), expected, f"{engine.__name__}: {sample}")


@every_op
def test_file_round_trip(name: str, tmp_path: Path) -> None:
    for number, sample in enumerate(SAMPLES[name]):
        graph = trace(registry[name], sample)
        graph.save(tmp_path / f"{number}.ttg")
        again = Graph.load(tmp_path / f"{number}.ttg")
        assert again.same_as(graph), sample
        assert [n.source for n in again.nodes] == [n.source for n in graph.nodes]
        same(listed(again(*arrays_of(sample))), eager(registry[name], sample), sample)


@every_op
def test_meaning_in_numpy(name: str) -> None:
    meaning = ENTRIES[name].meaning
    if meaning is None:
        pytest.skip("compared with PyTorch")
    for sample in SAMPLES[name]:
        with np.errstate(all="ignore"):
            expected = listed(meaning(*sample.args, **sample.attrs))
        for a, b in zip(eager(registry[name], sample), expected, strict=True):
            near(a, np.asarray(b), sample, TOLERANCE.get(as_dtype(a.dtype).name, 0.0))


def test_every_op_has_an_equal_elsewhere() -> None:
    alone = [name for name, entry in ENTRIES.items() if isinstance(entry.torch, str) and entry.meaning is None]
    assert not alone, f"say in samples.py what these mean, in torch or in NumPy: {alone}"


def to_torch(array: Any) -> Any:
    """A torch tensor of the same numbers; other things as they are."""
    if not isinstance(array, Array):
        return array
    array = np.array(array)
    if array.dtype == ml_dtypes.bfloat16:
        return table.torch.from_numpy(array.astype(np.float32)).bfloat16()
    return table.torch.from_numpy(array)


def from_torch(tensor: Any) -> Array:
    """A NumPy array of the same numbers."""
    if tensor.dtype == table.torch.bfloat16:
        return tensor.detach().float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


@pytest.mark.peers
@every_op
def test_meaning_in_torch(name: str) -> None:
    function = ENTRIES[name].torch
    if isinstance(function, str):
        pytest.skip(function)
    for sample in SAMPLES[name]:
        if sample.torch:
            expected = function(*map(to_torch, sample.args), **sample.attrs)
            near(eager(registry[name], sample)[0], from_torch(expected), sample)


@pytest.mark.parametrize("name", [op.name for op in registry.values() if op.commutative])
def test_commutative_ops_commute(name: str) -> None:
    for sample in SAMPLES[name]:
        x, y = sample.args
        turned_round = Sample((y, x), sample.attrs)
        for a, b in zip(eager(registry[name], sample), eager(registry[name], turned_round), strict=True):
            near(a, b, sample)


@pytest.mark.parametrize("name", [op.name for op in registry.values() if op.kind is Kind.REDUCE])
def test_identity_changes_nothing(name: str) -> None:
    op = registry[name]
    nothing = np.zeros((2, 0), np.float32)
    if op.identity is None:
        with pytest.raises(TinyTorchError, match="there is no element"):
            op(nothing, 1)
    else:
        assert (op(nothing, 1).payload == op.identity).all()
        x = some(2, 3)
        same([op(np.insert(x, 1, op.identity, 1), 1).payload], [op(x, 1).payload], name)


# -- promotion ---------------------------------------------------------------------------------------------------------


UFUNCS = {op.name: op.eval for op in registry.values() if isinstance(op.eval, np.ufunc)}
ONES: list[Any] = (
    [np.ones(2, d.np) for d in ALL] + [np.ones((), d.np) for d in (as_dtype("f64"), as_dtype("i64"))] + [True, 2, 1.5]
)


def weak_beside_bf16(x: Any, other: Any) -> Any:
    """What NumPy must be given to treat a Python number as weak beside bf16, as it does beside its own types."""
    weak = type(x) in (int, float) and isinstance(other, Array) and other.dtype == bf16.np
    return np.asarray(x, bf16.np) if weak else x


@pytest.mark.parametrize("name", UFUNCS)
def test_promotion_is_numpys(name: str) -> None:
    ufunc = UFUNCS[name]
    for operands in (
        [(x,) for x in ONES]
        if ufunc.nin == 1
        else [(x, y) for x in ONES for y in ONES if isinstance(x, Array) or isinstance(y, Array)]
    ):
        try:
            expected = np.asarray(ufunc(*map(weak_beside_bf16, operands, reversed(operands)))).dtype
        except TypeError:
            with pytest.raises(DTypeError, match="is not defined for"):
                registry[name](*operands)
            continue
        if not all(isinstance(x, Array) for x in operands) and ufunc.nin == 1:
            continue  # a Python number alone is f32, i64 or bool here
        found = registry[name](*operands)
        assert found.dtype.np == expected, f"{name}{operands}: {found.dtype}, NumPy gives {expected}"


def test_python_numbers_are_weak_beside_bf16() -> None:
    x = np.ones(2, bf16.np)
    for number in (2, 2.0, np.float64(2.0)):
        for y in (ops.mul(x, number), ops.mul(number, x), ops.pow(x, number), ops.where(x > 0, x, number)):
            assert y.dtype is bf16, (type(number), y.dtype)
        assert ops.eq(x, number).dtype is bool_
    assert ops.mul(x, np.float32(2.0)).dtype is f32 and ops.mul(x, np.ones(2, np.float32)).dtype is f32
    with pytest.raises(DTypeError, match=r"bitwise_and is not defined for \(bf16, float\)"):
        ops.bitwise_and(x, 2.0)


@pytest.mark.parametrize("dtype", [d.name for d in ALL if not d.is_float and d.name != "bool"])
def test_a_number_that_does_not_fit_is_refused(dtype: str) -> None:
    with pytest.raises(DTypeError, match=f"1000000000000000000000 does not fit {dtype}"):
        ops.add(np.ones(2, as_dtype(dtype).np), 10**21)


# -- gradients ---------------------------------------------------------------------------------------------------------


def fit(g: Any, shape: tuple[int, ...]) -> Any:
    """`g` summed over the axes along which `shape` was broadcast."""
    extra = tuple(range(g.ndim - len(shape)))
    g = ops.sum(g, extra) if extra else g
    ones = tuple(a for a, n in enumerate(shape) if n == 1 and g.shape[a] != 1)
    g = ops.sum(g, ones, True) if ones else g
    return g if g.shape == shape else ops.broadcast_to(g, shape)


def pull(records: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """Reverse mode over what a Recorder saw: the cotangent of each wanted handle, None where nothing flows."""
    found: dict[int, Any] = {}

    def give(handle: Any, g: Any) -> None:
        if g is None or not handle.dtype.is_float:
            return
        g = ops.cast(fit(g, handle.shape), handle.dtype)
        found[id(handle)] = ops.add(found[id(handle)], g) if id(handle) in found else g

    for output, cotangent in zip(outputs, cotangents):
        give(output, cotangent)
    for record in reversed(records):
        given = [found.get(id(output)) for output in record.outputs]
        if any(g is not None for g in given):
            for operand, part in transposed(record, given):
                give(operand, part)
    return [found.get(id(handle)) for handle in wanted]


def transposed(record: Any, given: list[Any]) -> list[tuple[Any, Any]]:
    """The operands of one record with their parts of the cotangent; an op without a rule is opened."""
    op, operands = record.op, record.operands
    if op.vjp is not None:
        g, out = (given[0], record.outputs[0]) if len(given) == 1 else (tuple(given), record.outputs)
        return list(zip(operands, op.vjp(g, out, *operands, **record.attrs), strict=True))
    if op.expand is None:
        return []
    with Recorder() as tape:
        outputs = listed(op.expand(*operands, **record.attrs))
    distinct = list({id(operand): operand for operand in operands}.values())
    return list(zip(distinct, pull(tape.records, outputs, given, distinct), strict=True))


def weights(shape: tuple[int, ...], seed: int = 8) -> Any:
    """Fixed cotangents."""
    return Operand(some(*shape, dtype=np.float64, seed=seed))


Function = Callable[..., list[Any]]


def gradient_of(function: Function) -> Function:
    """The function that gives the gradients of Σ weights · outputs; it can be differentiated again."""

    def gradient(*handles: Any) -> list[Any]:
        with Recorder() as tape:
            outputs = [o for o in function(*handles) if o is not None and o.dtype.is_float]
        found = pull(tape.records, outputs, [weights(o.shape) for o in outputs], handles)
        return [
            ops.broadcast_to(Operand(np.zeros((), np.float64)), h.shape) if g is None else g
            for g, h in zip(found, handles)
        ]

    return gradient


def value_of(function: Function, arrays: Sequence[Array]) -> float:
    """Σ weights · outputs."""
    outputs = [o.payload for o in function(*map(Operand, arrays))]
    return float(sum((o * weights(o.shape).payload).sum() for o in outputs if o.dtype == np.float64))


def in_f64(name: str) -> list[tuple[Sample, list[int]]]:
    """The smooth samples of an op as f64 calls, each with the places of the arrays that gradients flow to."""
    found = []
    for sample in SAMPLES.get(name, ()):  # test_every_op_has_samples says it better than a KeyError
        floats = [n for n, a in enumerate(sample.args) if isinstance(a, Array) and as_dtype(a.dtype).is_float]
        narrow = [n for n in floats if sample.args[n].dtype.itemsize < 4]
        through = floats if ENTRIES[name].grad is None else [n for n in floats if n in ENTRIES[name].grad]
        if not sample.smooth or narrow or not through:
            continue
        double = Sample(
            tuple(a.astype(np.float64) if n in floats else a for n, a in enumerate(sample.args)),
            sample.attrs,
            torch=sample.torch,
        )
        result = eager(registry[name], double)[0]
        if result.dtype == np.float64 and np.isfinite(result).all():
            found.append((double, through))
    return found


def smooth_function(name: str, sample: Sample, through: list[int]) -> tuple[Function, list[Array]]:
    """The call as a function of the arrays that gradients flow to, and those arrays."""

    def function(*handles: Any) -> list[Any]:
        given = dict(zip(through, handles))
        return listed(registry[name](*(given.get(n, a) for n, a in enumerate(sample.args)), **sample.attrs))

    return function, [sample.args[n] for n in through]


def check_slopes(function: Function, arrays: list[Array], note: object) -> None:
    """Gradients against central differences along two directions of each operand."""
    with np.errstate(all="ignore"):
        gradients = [g.payload for g in gradient_of(function)(*map(Operand, arrays))]
    for place, (array, gradient) in enumerate(zip(arrays, gradients)):
        assert gradient.shape == array.shape and gradient.dtype == np.float64, note
        for seed in (5, 6):
            direction = weights(array.shape, seed).payload
            step = 1e-5
            plus, minus = ([*arrays[:place], array + s * step * direction, *arrays[place + 1 :]] for s in (1, -1))
            slope = (value_of(function, plus) - value_of(function, minus)) / (2 * step)
            size = np.abs(gradient * direction).sum()
            assert abs(slope - float((gradient * direction).sum())) <= 1e-6 + 1e-6 * size, (
                f"operand {place} of {note}: differences {slope}, rule {(gradient * direction).sum()}"
            )


DIFFERENTIABLE = [name for name in sorted(registry) if in_f64(name)]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_is_finite_differences(name: str) -> None:
    for sample, through in in_f64(name):
        check_slopes(*smooth_function(name, sample, through), sample)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_gradient_is_finite_differences(name: str) -> None:
    for sample, through in in_f64(name):
        function, arrays = smooth_function(name, sample, through)
        check_slopes(gradient_of(function), arrays, f"second order, {sample}")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_rule_is_linear(name: str) -> None:
    sample, through = in_f64(name)[0]
    function, arrays = smooth_function(name, sample, through)
    handles = [Operand(a) for a in arrays]
    with Recorder() as tape:
        outputs = function(*handles)
    a, b = ([weights(o.shape, seed) for o in outputs] for seed in (3, 4))
    mixed = [ops.add(ops.mul(x, 2.0), ops.mul(y, -0.5)) for x, y in zip(a, b)]
    for x, y, z in zip(*(pull(tape.records, outputs, c, handles) for c in (a, b, mixed))):
        near(2 * x.payload - 0.5 * y.payload, z.payload, sample)


@pytest.mark.parametrize("name", [n for n, entry in sorted(ENTRIES.items()) if entry.grad == ()])
def test_no_gradient_flows(name: str) -> None:
    for sample in SAMPLES[name]:
        floats = [n for n, a in enumerate(sample.args) if isinstance(a, Array) and as_dtype(a.dtype).is_float]
        function, arrays = smooth_function(name, sample, floats)
        handles = [Operand(a) for a in arrays]
        with Recorder() as tape:
            outputs = function(*handles)
        assert not [
            g for g in pull(tape.records, outputs, [weights(o.shape) for o in outputs], handles) if g is not None
        ], sample


@pytest.mark.peers
@pytest.mark.parametrize("name", [n for n in DIFFERENTIABLE if not isinstance(ENTRIES[n].torch, str)])
def test_gradient_is_torchs(name: str) -> None:
    for sample, through in in_f64(name):
        if sample.torch:
            function, arrays = smooth_function(name, sample, through)
            with np.errstate(all="ignore"):
                ours = gradient_of(function)(*map(Operand, arrays))
            for a, b in zip(ours, torch_gradient(name, sample, through)):
                near(a.payload, b, sample, 1e-9)


def torch_gradient(name: str, sample: Sample, through: list[int]) -> list[Array]:
    """The gradients of Σ weights · output by torch.autograd."""
    tensors = [to_torch(a) for a in sample.args]
    leaves = [tensors[n].requires_grad_() for n in through]
    output = ENTRIES[name].torch(*tensors, **sample.attrs)  # type: ignore[operator]
    return [
        from_torch(g)
        for g in table.torch.autograd.grad((output * to_torch(weights(tuple(output.shape)).payload)).sum(), leaves)
    ]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_of_the_product_is_this_one(name: str) -> None:
    for sample, through in in_f64(name):
        function, arrays = smooth_function(name, sample, through)
        handles = [Operand(a) for a in arrays]
        with Recorder() as tape:
            outputs = function(*handles)
        makers = {id(output): record for record in tape.records for output in record.outputs}
        seeds = [weights(o.shape) for o in outputs]
        found = reverse(outputs, seeds, lambda handle, makers=makers: makers.get(id(handle)))
        for handle, expected in zip(handles, pull(tape.records, outputs, seeds, handles)):
            assert (expected is None) == (id(handle) not in found), sample
            if expected is not None:
                near(found[id(handle)].payload, expected.payload, sample)


KINKS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("abs", [[0.0, -0.0]], {}),
    ("relu", [[0.0, -0.0]], {}),
    ("leaky_relu", [[0.0]], {}),
    ("maximum", [[1.0, 2.0], [1.0, 3.0]], {}),
    ("minimum", [[1.0, 2.0], [1.0, 3.0]], {}),
    ("clip", [[-1.0, 1.0, 2.0]], {"low": -1.0, "high": 1.0}),
    ("max", [[[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]]], {"axis": 1}),
    ("min", [[1.0, 1.0, 3.0]], {}),
    ("prod", [[0.0, 2.0, 3.0]], {}),
    ("prod", [[0.0, 0.0, 3.0]], {}),
    ("sqrt", [[0.0]], {}),
    ("max_pool2d", [[[[[1.0, 1.0], [1.0, 0.0]]]]], {"size": 2}),
    ("pow", [[0.0, 0.0, 2.0], [2.0, 1.0, 0.0]], {}),
    ("softplus", [[0.0, 800.0, -800.0]], {}),
    ("logsumexp", [[800.0, -math.inf, 1.0]], {}),
    ("sigmoid", [[-800.0, 800.0]], {}),
    ("tanh", [[-800.0, 800.0]], {}),
    ("softmax", [[800.0, -math.inf, 1.0]], {}),
    ("log_softmax", [[800.0, -800.0, 1.0]], {}),
]


@pytest.mark.peers
@pytest.mark.parametrize(("name", "operands", "attrs"), KINKS, ids=[k[0] for k in KINKS])
def test_gradient_at_kinks_and_extremes_is_torchs(name: str, operands: list[Any], attrs: dict[str, Any]) -> None:
    sample = Sample(tuple(np.array(o) for o in operands), attrs)
    through = list(range(len(operands)))
    function, arrays = smooth_function(name, sample, through)
    with np.errstate(all="ignore"):
        ours = gradient_of(function)(*map(Operand, arrays))
    for a, b in zip(ours, torch_gradient(name, sample, through)):
        near(a.payload, b, name)


def test_product_of_zeros_has_the_right_second_gradient() -> None:
    x = Operand(np.array([0.0, 2.0, 3.0]))
    gradient = gradient_of(lambda h: [ops.prod(h)])
    w, v = weights(()).payload, weights((3,)).payload
    found = gradient_of(gradient)(x)[0].payload
    hessian = np.array([[0, 3, 2], [3, 0, 0], [2, 0, 0]])  # of xyz at (0, 2, 3)
    np.testing.assert_allclose(found, w * (hessian @ v))


# -- cost --------------------------------------------------------------------------------------------------------------


@every_op
def test_cost_is_sane(name: str) -> None:
    for sample in SAMPLES[name]:
        graph = trace(registry[name], sample)
        for node in graph.nodes:
            cost = node_cost(node)
            assert min(cost.flops, cost.transcendentals) >= 0
            free = node.op.kind in (Kind.VIEW, Kind.SOURCE)
            assert cost.bytes_read == (0 if free else sum(v.type.nbytes for v in set(node.inputs))), sample
            assert cost.bytes_written == (0 if free else sum(v.type.nbytes for v in node.outputs)), sample
            assert not free or cost == Cost(), sample
        assert graph_cost(graph) == sum(map(node_cost, graph.nodes), Cost())


class Number:
    """A number that counts what is done to it."""

    flops: ClassVar[int] = 0
    transcendentals: ClassVar[int] = 0

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bool__(self) -> bool:
        Number.flops += 1  # a choice
        return bool(self.value)

    def __index__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)


def plain(thing: Any) -> Any:
    """The number itself."""
    return thing.value if isinstance(thing, Number) else thing


def counted(method: str, compares: bool = False) -> Callable[..., Any]:
    """An operator that counts as one FLOP."""

    def operate(self: Number, *others: Any) -> Any:
        Number.flops += 1
        with np.errstate(all="ignore"):
            result = getattr(np.asarray(self.value)[()], method)(*map(plain, others))
        return bool(result) if compares else Number(result)

    return operate


def transcendental(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method or operator that counts as one transcendental."""

    def operate(self: Number, *others: Any) -> Number:
        Number.transcendentals += 1
        return Number(function(self.value, *map(plain, others)))

    return operate


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift"):
    setattr(Number, f"__{_name}__", counted(f"__{_name}__"))
    setattr(Number, f"__r{_name}__", counted(f"__r{_name}__"))
for _name in ("neg", "abs", "invert"):
    setattr(Number, f"__{_name}__", counted(f"__{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Number, f"__{_name}__", counted(f"__{_name}__", compares=True))
for _name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh"):
    setattr(Number, _name, transcendental(getattr(np, _name)))
Number.__pow__ = transcendental(np.power)  # type: ignore[attr-defined]
Number.__rpow__ = transcendental(lambda x, y: np.power(y, x))  # type: ignore[attr-defined]


def one_flop(function: Callable[..., Any]) -> Callable[[Number], Number]:
    """A method that counts as one FLOP."""

    def operate(self: Number) -> Number:
        Number.flops += 1
        return Number(function(self.value))

    return operate


for _name, _function in (("sqrt", np.sqrt), ("rint", np.rint), ("__floor__", np.floor), ("__ceil__", np.ceil)):
    setattr(Number, _name, one_flop(_function))


def numbers(array: Array, shape: tuple[int, ...]) -> Array:
    """The array, broadcast, as counting numbers."""
    out = np.empty(shape, object)
    for place, value in zip(np.ndindex(*shape), np.broadcast_to(array, shape).ravel()):
        out[place] = Number(value)
    return out


def count(graph: Graph, arrays: Sequence[Array]) -> tuple[int, int]:
    """FLOPs and transcendentals of running a graph of primitive ops; what cannot be counted is as predicted."""
    values: dict[Any, Array] = dict(zip(graph.inputs, arrays, strict=True))
    total = [0, 0]
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs]
        with np.errstate(all="ignore"):
            values |= zip(node.outputs, listed(node.op.eval(*operands, **node.attrs)))
        entry, cost = ENTRIES[node.op.name], node_cost(node)
        found = (
            (cost.flops, cost.transcendentals)
            if entry.counted or node.op.kind is Kind.VIEW
            else count_node(node, operands)
        )
        total = [a + b for a, b in zip(total, found)]
        if entry.starts and math.prod(
            node.inputs[0].shape
        ):  # NumPy starts from the first element, a kernel from the identity
            total[0] += node.output.type.size
    return total[0], total[1]


def count_node(node: Node, operands: list[Array]) -> tuple[int, int]:
    """One op, on counting numbers; positions stay integers."""
    wide = node.op.kind is Kind.POINTWISE
    given = [
        a
        if v.dtype.kind in "iu" and node.op.kind is Kind.INDEX and place == 1
        else numbers(a, node.output.shape if wide else a.shape)
        for place, (v, a) in enumerate(zip(node.inputs, operands))
    ]
    Number.flops = Number.transcendentals = 0
    node.op.eval(*given, **node.attrs)
    return Number.flops, Number.transcendentals


@every_op
def test_counting_run_finds_the_predicted_flops(name: str) -> None:
    uncounted = ENTRIES[name].counted
    for sample in SAMPLES[name]:
        if uncounted in (table.ADDS_ONLY, table.PRODUCTS_ONLY):
            assert 0 < sum(node_cost(n).flops for n in trace(registry[name], sample).nodes) < sum(
                node_cost(n).flops for n in opened(trace(registry[name], sample)).nodes), sample
            continue
        if uncounted:  # nothing, or one for each element, by definition
            node = trace(registry[name], sample).nodes[-1]
            cost = node_cost(node)
            assert cost.flops + cost.transcendentals == (0 if uncounted == table.MOVES else node.output.type.size), (
                sample
            )
        elif not sample.smooth or sum(a.size for a in arrays_of(sample)) > 500:
            continue
        graph = trace(registry[name], sample)
        if any(set(node.attrs.get("spread", ())) - {1} for node in graph.nodes):
            continue  # an expansion multiplies the zeros that are spread in between, a kernel leaves them out
        predicted = graph_cost(graph)
        assert count(opened(graph), arrays_of(sample)) == (predicted.flops, predicted.transcendentals), sample


# -- errors ------------------------------------------------------------------------------------------------------------


BAD = [
    pytest.param(name, bad, id=f"{name}-{number}")
    for name, entry in ENTRIES.items()
    for number, bad in enumerate(entry.bad)
]


@pytest.mark.parametrize(("name", "bad"), BAD)
def test_bad_call_is_refused_eagerly(name: str, bad: Bad) -> None:
    with pytest.raises(bad.error, match=bad.message) as caught:
        eager(registry[name], Sample(bad.args, bad.attrs))
    assert isinstance(caught.value, TinyTorchError), "an error of our own"


@pytest.mark.parametrize(("name", "bad"), BAD)
def test_bad_call_is_refused_while_tracing(name: str, bad: Bad) -> None:
    with pytest.raises(bad.error, match=bad.message) as caught:
        trace(registry[name], Sample(bad.args, bad.attrs))
    assert isinstance(caught.value, TinyTorchError), "an error of our own"


@pytest.mark.parametrize("position", [3, -4])
@pytest.mark.parametrize("name", ["take", "take_along", "scatter_add", "put_along"])
def test_position_out_of_range_is_an_index_error(name: str, position: int) -> None:
    updates = [np.ones(1, np.float32)] if name in ("scatter_add", "put_along") else []
    with pytest.raises(IndexError, match=f"{position}"):
        registry[name](np.zeros(3, np.float32), np.array([position]), *updates)


# -- randomness --------------------------------------------------------------------------------------------------------


def test_random_numbers_have_the_right_moments() -> None:
    key = Operand(np.array(11))
    u, n = ops.random_uniform(key, (100000,), "f64").payload, ops.random_normal(key, (100000,), "f64").payload
    np.testing.assert_allclose([u.mean(), u.var(), n.mean(), n.var()], [1 / 2, 1 / 12, 0, 1], atol=0.015)
    np.testing.assert_allclose([(n**3).mean(), (n**4).mean()], [0, 3], atol=0.15)
    assert 0 <= u.min() and u.max() < 1 and abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.02
    kept = ops.dropout(np.ones(20000), key, 0.3).payload
    assert set(np.unique(kept)) == {0.0, 1 / 0.7} and abs((kept == 0).mean() - 0.3) < 0.02


# -- compiled ----------------------------------------------------------------------------------------------------------


def is_shared_structure(name: str, sample: Sample) -> bool:
    """Whether a call shows only what it has in common with `add`: how pointwise kernels broadcast and convert.

    A kernel takes a twentieth of a second to compile, so one op shows that for all.
    """
    arrays = arrays_of(sample)
    alike = len({a.shape for a in arrays}) == 1 and len({a.dtype for a in arrays}) == 1
    binary = len(arrays) > 1 and registry[name].kind is Kind.POINTWISE and name not in ("add", "where")
    return binary and sample.smooth and not alike


IN_FULL = ("add", "cast", "sum")  # they show for all ops how elements of each type are read, converted and written
COMMON = {"float32", "int64", "bool"}
LIGHT = (Kind.SOURCE, Kind.POINTWISE, Kind.REDUCE, Kind.VIEW, Kind.INDEX)


def telling(name: str, samples: list[Sample]) -> list[Sample]:
    """The samples whose kernels show most: those in f32 (positions, masks), and one of another type.

    Of contractions and of composites, whose kernels take the longest to compile and have tests of their own, one each.
    """
    if name in IN_FULL:
        return samples
    kept: list[Sample] = []
    seen: set[bool] = set()
    for sample in samples:
        common = all(str(a.dtype) in COMMON for a in arrays_of(sample))
        if common not in seen or (common and registry[name].kind in LIGHT):
            kept.append(sample)
        seen.add(common)
    return kept


@every_op
def test_compiled_is_eager(name: str) -> None:
    compare_compiled(name, telling(name, compilable(name)))


@pytest.mark.slow  # half a thousand kernels more
@pytest.mark.parametrize("name", sorted(set(registry) - set(IN_FULL)))
def test_compiled_is_eager_in_all_samples(name: str) -> None:
    compare_compiled(name, compilable(name))


def compilable(name: str) -> list[Sample]:
    """The samples of an op that say something of their own when they are compiled."""
    return [s for s in SAMPLES[name] if "body" not in s.attrs and not is_shared_structure(name, s)]


def compare_compiled(name: str, samples: list[Sample]) -> None:
    """Samples of an op in one compiled function: special values, strided operands and empty ones among them."""
    def every(*handles: Any) -> Any:
        given = iter(handles)
        return tuple(
            result for s in samples for result in apply(registry[name], s, [next(given) for _ in arrays_of(s)])
        )

    results = iter(tinytorch.compile(every)(*(a for s in samples for a in arrays_of(s))))
    for sample in samples:
        for expected in eager(registry[name], sample):
            found = next(results)
            near(
                np.asarray(found.numpy() if hasattr(found, "numpy") else found),
                expected,
                f"compiled: {sample}",
                4 * TOLERANCE.get(as_dtype(expected.dtype).name, 0.0),
            )
