"""`summary`: what a model is made of, as a table: modules, shapes, parameters, FLOPs.

    nn.summary(model, x).print()       # and in a notebook, the summary itself shows as a table
    nn.summary(model)                  # without inputs: parameters only

The model is traced for the types of the inputs, not run: no number is computed, drawn or updated. Hooks on each module
note where in the trace its call begins and ends; the cost of the nodes in between is what `tinytorch.ir.cost` says.

    >>> import tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(784, 128), tt.nn.ReLU(), tt.nn.Linear(128, 10))
    >>> found = tt.nn.summary(model, tt.zeros(64, 784))
    >>> found.parameters, found.flops, [row.output for row in found.rows[1:]]
    (101770, 13025920, ['(64, 128)', '(64, 128)', '(64, 10)'])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from html import escape
from typing import TYPE_CHECKING, Any

from tinytorch.autograd import no_grad
from tinytorch.frontends.trace import trace
from tinytorch.frontends.tree import flatten
from tinytorch.ir import Cost, current, node_cost
from tinytorch.look import units
from tinytorch.random import default_generator
from tinytorch.tensor import Tensor

from .module import Module

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Summary", "summary"]


@dataclass(frozen=True)
class Row:
    """A module; numbers are its own, without those of modules inside that have a row, so that columns add up.

    Attributes:
        path: as in `named_modules`, "" for the model itself; kind: the class.
        output: the shape of what its last call gave, "" if it was not called; calls: how often it was.
        trained, frozen: numbers in parameters that require a gradient, and that do not.
        shared: those that an earlier row counts.
        flops, transcendentals: of all its calls together, as `tinytorch.profile` counts them.
    """

    path: str
    kind: str
    output: str = ""
    calls: int = 0
    trained: int = 0
    frozen: int = 0
    shared: int = 0
    flops: int = 0
    transcendentals: int = 0


COUNTS = [field.name for field in fields(Row) if field.name not in ("path", "kind", "output", "calls")]


@dataclass(frozen=True)
class Summary:
    """What `summary` found: a row for each module, in order, and totals.

    >>> import tinytorch as tt
    >>> print(tt.nn.summary(tt.nn.Linear(3, 2), tt.zeros(5, 3)))
    module     class    output   parameters     FLOPs
    ─────────────────────────────────────────────────
    (itself)   Linear   (5, 2)            8   70 FLOP
    ─────────────────────────────────────────────────
    total                                 8   70 FLOP
    """

    rows: tuple[Row, ...]

    @property
    def trained(self) -> int:
        """How many numbers are trained; shared ones count once."""
        return sum(row.trained for row in self.rows)

    @property
    def frozen(self) -> int:
        """How many numbers are in parameters that are not trained."""
        return sum(row.frozen for row in self.rows)

    @property
    def parameters(self) -> int:
        """Trained and frozen."""
        return self.trained + self.frozen

    @property
    def flops(self) -> int:
        """Floating point operations of one call; a multiply-add is two."""
        return sum(row.flops for row in self.rows)

    @property
    def transcendentals(self) -> int:
        """Calls of exp, tanh and their like, which are not among the FLOPs."""
        return sum(row.transcendentals for row in self.rows)

    def print(self) -> None:
        """The table, in the terminal."""
        from rich.console import Console

        Console().print(self)

    def __rich__(self) -> Table:
        from rich.box import SIMPLE
        from rich.table import Table

        header, *lines, total = self._cells()
        table = Table(box=SIMPLE, pad_edge=False, show_footer=True)
        for name, foot in zip(header, total, strict=True):
            table.add_column(name, foot, justify="left" if name in LEFT else "right", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=max(80, 12 + sum(map(max, zip(*([len(c) + 3 for c in row] for row in self._cells()))))))
        with console.capture() as capture:
            console.print(self.__rich__())
        return "\n".join(line.strip() for line in capture.get().splitlines() if line.strip())

    def __repr__(self) -> str:
        return f"<Summary: {self.parameters:,} parameters, {units.flops(self.flops)}>"

    def _repr_html_(self) -> str:
        """The table, in a notebook."""
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._cells()]
        rows[0], rows[-1] = (row.replace("td>", "th>") for row in (rows[0], rows[-1]))
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"

    def _cells(self) -> list[tuple[str, ...]]:
        """The table as text: header, rows, totals; columns that say nothing are left out."""
        rows = [(row.path or "(itself)", row.kind, row.output + (f" × {row.calls}" if row.calls > 1 else ""),
                 f"+{row.shared:,}" if row.shared else "", f"{row.trained + row.frozen:,}", f"{row.frozen:,}",
                 units.flops(row.flops)) for row in self.rows]
        total = ("total", "", "", "", f"{self.parameters:,}", f"{self.frozen:,}", units.flops(self.flops))
        called = any(row.calls for row in self.rows)
        wanted = (True, True, called, any(row.shared for row in self.rows), True, self.frozen > 0, called)
        return [tuple(cell for cell, keep in zip(row, wanted, strict=True) if keep) for row in (HEADER, *rows, total)]


LEFT = ("module", "class", "output")
HEADER = (*LEFT, "shared", "parameters", "frozen", "FLOPs")


def summary(model: Module, *example_inputs: Any, depth: int | None = None) -> Summary:
    """What `model` is made of, module by module; the model, its mode and the random generator stay as they are.

    Args:
        example_inputs: what the model would be called with; only types matter. Without any, shapes and FLOPs are left
            out.
        depth: how far to look into modules: 0 for the model alone, 1 for its parts, …; None for all. The numbers of
            deeper ones are added to the module that they are inside of.
    Raises:
        TracingError: the model's forward wants to know numbers, as tracing it finds.

    >>> import tinytorch as tt
    >>> model = tt.nn.Sequential(tt.nn.Linear(3, 4), tt.nn.Linear(4, 2).requires_grad_(False))
    >>> print(tt.nn.summary(model))
    module     class        parameters   frozen
    ───────────────────────────────────────────
    (itself)   Sequential            0        0
    0          Linear               16        0
    1          Linear               10       10
    ───────────────────────────────────────────
    total                           26       10
    """
    calls = _Calls(model)
    if example_inputs:
        calls.watch(example_inputs)
    counted: set[int] = set()
    rows: list[Row] = []
    for path, module in model.named_modules():
        trained, frozen, shared = _parameters(module, counted)
        row = replace(calls.rows[id(module)], path=path, kind=type(module).__name__,
                      trained=trained, frozen=frozen, shared=shared)
        if depth is None or _depth(path) <= depth:
            rows.append(row)
            continue
        above = ".".join(path.split(".")[:depth])
        place = max(i for i, found in enumerate(rows) if found.path == above)
        sums = {name: getattr(rows[place], name) + getattr(row, name) for name in COUNTS}
        rows[place] = replace(rows[place], **sums)
    return Summary(tuple(rows))


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _parameters(module: Module, counted: set[int]) -> tuple[int, ...]:
    """(trained, frozen, shared): how many numbers the parameters directly inside have; `counted` ones are shared."""
    sizes = {"trained": 0, "frozen": 0, "shared": 0}
    for parameter in module.parameters(recurse=False):
        what = "shared" if id(parameter) in counted else "trained" if parameter.requires_grad else "frozen"
        sizes[what] += parameter.size
        counted.add(id(parameter))
    return tuple(sizes.values())


class _Calls:
    """Follows the calls of all modules in a trace: each new node of the graph belongs to the innermost one."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.rows = {id(module): Row("", "") for module in model.modules()}
        self.stack: list[int] = []
        self.nodes: Sequence[Any] = ()
        self.seen = 0

    def watch(self, inputs: Sequence[Any]) -> None:
        """Trace a call of the model."""
        with _untouched(self.model), no_grad():
            for module in self.model.modules():
                module.register_forward_pre_hook(self._enter, prepend=True)
                module.register_forward_hook(self._leave)
            trace(self._run, inputs, handle=Tensor)

    def _run(self, *inputs: Any) -> None:
        self.nodes = current().nodes  # type: ignore[attr-defined]
        self.model(*inputs)

    def _charge(self) -> None:
        """The nodes since the last time belong to the module that is running."""
        if self.stack:
            cost = sum(map(node_cost, self.nodes[self.seen:]), Cost())
            self._add(flops=cost.flops, transcendentals=cost.transcendentals)
        self.seen = len(self.nodes)

    def _add(self, **more: int) -> None:
        row = self.rows[self.stack[-1]]
        self.rows[self.stack[-1]] = replace(row, **{name: getattr(row, name) + n for name, n in more.items()})

    def _enter(self, module: Module, args: Any) -> None:
        self._charge()
        self.stack.append(id(module))

    def _leave(self, module: Module, args: Any, output: Any) -> None:
        self._charge()
        self._add(calls=1)
        shapes = [str(leaf.shape) for leaf in flatten(output)[0] if isinstance(leaf, Tensor)]
        key = self.stack.pop()
        self.rows[key] = replace(self.rows[key], output=", ".join(shapes))


@contextmanager
def _untouched(model: Module) -> Iterator[None]:
    """Attributes of all modules, and versions of tensors, are afterwards as they were."""
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    tensors = [*model.parameters(), *model.buffers(), default_generator.state]
    versions = [tensor.version for tensor in tensors]
    try:
        yield
    finally:
        for module, before in attributes:
            vars(module).clear()
            vars(module).update(before)
        for tensor, version in zip(tensors, versions, strict=True):
            tensor.version = version
