"""What a function or module costs, counted without running it: `tt.profile(model, x)`.

    report = tt.profile(model, x)
    report.print()                                  # totals, memory, modules, and a line for each node
    report.flops, report.memory.peak                # numbers
    report.to_html("profile.html"); report.to_json()

It is traced for the types of the examples, and compiled. Nodes are counted as written, composites such as softmax
whole; memory and kernels are those of the compiled program. FLOPs count each addition, multiplication, division,
comparison or choice of an element as one, a transcendental (exp, tanh, …) apart, bytes what crosses a node's border.
The tests hold every estimate against a measurement: FLOPs against a run on numbers that count what is done to them,
memory against the highest byte that a run writes.

    >>> import tinytorch as tt
    >>> report = tt.profile(tt.nn.Linear(3, 2), tt.zeros(5, 3))
    >>> report.parameters, report.flops
    (8, 70)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytorch.compile import Compiled, compile
from tinytorch.entry import Entry
from tinytorch.ir import Cost, Graph, Value, graph_cost, node_cost
from tinytorch.ir.drawing import is_scalar_constant
from tinytorch.look import terminal, units
from tinytorch.passes import History, launches
from tinytorch.tensor import Tensor

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


MANY = 24  # nodes: of more, the terminal shows the costliest


@dataclass(frozen=True)
class NodeRow:
    """One operation as written: name of its result, op, type, cost, and the user's line."""

    name: str
    op: str
    type: str
    flops: int
    transcendentals: int
    bytes: int
    source: str


@dataclass(frozen=True)
class ModuleRow:
    """A module with parameters of its own, and the operations that read them."""

    path: str
    kind: str
    parameters: int
    bytes: int
    flops: int


@dataclass(frozen=True)
class Memory:
    """Bytes that one call of the compiled program needs.

    Attributes:
        parameters: tensors with gradients that the function finds; state: others that it finds (buffers, optimiser
            state, the random generator) and large constants.
        inputs, outputs: arguments and fresh results (what is updated in place has none).
        arena: intermediates, planned ahead; scratch: workspace of the kernels, all threads together.
        named: (what, name, bytes) for each parameter, state tensor, input and output.
    """

    parameters: int
    state: int
    inputs: int
    outputs: int
    arena: int
    scratch: int
    named: tuple[tuple[str, str, int], ...]

    @property
    def peak(self) -> int:
        """All together: what is alive while the program runs."""
        return self.parameters + self.state + self.inputs + self.outputs + self.arena + self.scratch


@dataclass(frozen=True)
class Totals:
    """A graph in a few numbers; `intensity` is FLOPs for each byte."""

    nodes: int
    kernels: int
    flops: int
    transcendentals: int
    bytes: int
    intensity: float


@dataclass(frozen=True)
class Report:
    """What `profile` found.

    Attributes:
        parameters: how many numbers are trained.
        written, compiled: totals of the graph as traced, and as it runs.
        nodes, modules: a row for each; memory: see `Memory`.
        kernels: the names of the compiled program's kernels, one for each launch.
        waves: in how many groups those launches are started: those of a group run side by side.
    """

    name: str
    parameters: int
    written: Totals
    compiled: Totals
    memory: Memory
    nodes: tuple[NodeRow, ...]
    modules: tuple[ModuleRow, ...]
    kernels: tuple[str, ...]
    waves: int
    graph: Graph
    history: History

    @property
    def flops(self) -> int:
        """Floating point operations as written."""
        return self.written.flops

    @property
    def transcendentals(self) -> int:
        """Transcendental calls as written."""
        return self.written.transcendentals

    @property
    def bytes(self) -> int:
        """Bytes read and written as the program runs: fused nodes touch less than what is written."""
        return self.compiled.bytes

    def to_json(self, path: str | Path | None = None) -> str:
        """All numbers as JSON text; also written to `path`."""
        fields = ("name", "parameters", "kernels", "waves")
        data = {name: getattr(self, name) for name in fields}
        data |= {name: asdict(getattr(self, name)) for name in ("written", "compiled", "memory")}
        data["memory"]["peak"] = self.memory.peak
        data |= {name: [asdict(row) for row in getattr(self, name)] for name in ("nodes", "modules")}
        text = json.dumps(data, indent=1)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_html(self, path: str | Path | None = None) -> str:
        """A page to step through the stages of the graph, every node with its cost; also written to `path`."""
        from tinytorch.ir.page import write_page

        return write_page(path, self.history, self.name)

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        short = len(self.nodes) <= MANY
        parts: list[RenderableType] = [terminal.graph_table(self.graph) if short else self._costliest_table()]
        if self.modules:
            parts.append(self._modules_table())
        return Group(*parts, self._totals_table(), self._memory_table())

    def __repr__(self) -> str:
        return (f"<Report {self.name}: {self.parameters:,} parameters, {units.flops(self.flops)}, "
                f"peak {units.nbytes(self.memory.peak)}>")

    def print(self) -> None:
        """Tables, in the terminal."""
        from rich.console import Console

        Console().print(self)

    def _costliest_table(self) -> Table:
        shown = sorted(self.nodes, key=lambda row: -(row.flops + row.bytes))[:MANY]
        rows = [(n.name, n.op, n.type, n.source, units.flops(n.flops), units.nbytes(n.bytes)) for n in shown]
        title = f"{self.name}: the {MANY} costliest of {len(self.nodes)} nodes"
        return _table(title, ("name", "op", "type", "source", "FLOPs", "bytes"), rows, left=4)

    def _modules_table(self) -> Table:
        rows = [(m.path, m.kind, f"{m.parameters:,}", units.nbytes(m.bytes), units.flops(m.flops))
                for m in self.modules]
        return _table("modules", ("module", "kind", "parameters", "bytes", "FLOPs"), rows, left=2)

    def _totals_table(self) -> Table:
        rows = [(what, str(t.nodes), str(t.kernels), units.flops(t.flops), units.count(t.transcendentals),
                 units.nbytes(t.bytes), f"{t.intensity:.1f}")
                for what, t in (("as written", self.written), ("as compiled", self.compiled))]
        header = ("", "nodes", "kernels", "FLOPs", "transcendentals", "bytes", "FLOP/byte")
        return _table("totals", header, rows, left=1)

    def _memory_table(self) -> Table:
        memory = self.memory
        counts: Mapping[str, int] = {f"{self.parameters:,} parameters": memory.parameters, "state": memory.state,
                                     "inputs": memory.inputs, "outputs": memory.outputs, "arena": memory.arena,
                                     "scratch": memory.scratch, "peak": memory.peak}
        rows = [(what, units.nbytes(size)) for what, size in counts.items() if size or what == "peak"]
        return _table("memory of a call", ("", "bytes"), rows, left=1)


def profile(target: Callable[..., Any], *examples: Any, **keywords: Any) -> Report:
    """Count what a call of `target` costs: parameters, FLOPs, bytes, peak memory, node by node. Nothing is run.

    Args:
        target: a function, module, training step, or what `tt.compile` made of one.
        examples, keywords: arguments; only their types matter.

    >>> import tinytorch as tt
    >>> report = tt.profile(tt.nn.Linear(3, 2), tt.zeros(5, 3))
    >>> report.parameters, report.flops
    (8, 70)
    """
    fast = target if isinstance(target, Compiled) else compile(target)
    fresh = Compiled(fast.function, fast.pipeline, fast.static, fast.threads)
    entry = fresh._prepare(examples, keywords)
    traced = entry.traced.graph
    owners = dict(_owners(entry))
    parameters = {value: owner for value, owner in owners.items() if getattr(owner, "requires_grad", False)}
    return Report(
        fast.__name__,
        sum(value.type.size for value in parameters),
        _totals(traced),
        _totals(entry.program.graph),
        _memory(entry, parameters),
        tuple(_node_rows(traced)),
        tuple(_module_rows(fast.function, traced, parameters)),
        tuple(step.kernel.name for step in entry.program.steps),
        len(entry.program.waves),
        traced,
        entry.history,
    )


def _owners(entry: Entry) -> Iterator[tuple[Value, Any]]:
    """Each bound input of the traced graph with the tensor behind it."""
    graph = entry.traced.graph
    return zip((v for v in graph.inputs if v in graph.bound), entry.traced.captured, strict=True)


def _totals(graph: Graph) -> Totals:
    cost: Cost = graph_cost(graph)
    return Totals(len(graph.nodes), launches(graph), cost.flops, cost.transcendentals, cost.bytes, cost.intensity)


def _memory(entry: Entry, parameters: Mapping[Value, Any]) -> Memory:
    program, graph = entry.program, entry.program.graph
    named = []
    for number, value in enumerate(graph.inputs):
        bound = number >= len(entry.args)
        what = "inputs" if not bound else "parameters" if value in parameters else "state"
        named.append((what, graph.names[value], value.type.nbytes))
    named += [("outputs", graph.names[graph.outputs[i]], graph.outputs[i].type.nbytes) for i in program.fresh]
    named += [("state", "constant", array.nbytes) for array in program.constants]
    sizes = {what: sum(size for kind, _, size in named if kind == what)
             for what in ("parameters", "state", "inputs", "outputs")}
    return Memory(**sizes, arena=program.arena_bytes, scratch=program.scratch_bytes, named=tuple(named))


def _node_rows(graph: Graph) -> Iterator[NodeRow]:
    for node in graph.nodes:
        if is_scalar_constant(node):
            continue
        cost = node_cost(node)
        names, types = [graph.names[v] for v in node.outputs], [str(v.type) for v in node.outputs]
        yield NodeRow(", ".join(names), node.op.name, ", ".join(types), cost.flops, cost.transcendentals, cost.bytes,
                      str(node.source or ""))


def _module_rows(function: Any, graph: Graph, parameters: Mapping[Value, Tensor]) -> Iterator[ModuleRow]:
    """The modules inside a module, with what is done to their own parameters."""
    if not hasattr(function, "named_modules"):
        return
    value_of = {id(owner): value for value, owner in parameters.items()}
    for path, module in function.named_modules():
        own = [value_of[id(t)] for t in vars(module).values() if id(t) in value_of]
        if own:
            nodes = dict.fromkeys(node for value in own for node in graph.users[value])
            yield ModuleRow(path or "(itself)", type(module).__name__, sum(v.type.size for v in own),
                            sum(v.type.nbytes for v in own), sum(node_cost(node).flops for node in nodes))


def _table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
