"""What a command is told to look at: `FILE.ttg`, `file.py:name` or `module:name`.

    # model.py
    model = tt.nn.Linear(3, 2)
    EXAMPLES = (tt.zeros(5, 3),)                # arguments for what is named; an attribute of it goes first

    def build():                                # or: a function without parameters, that gives both
        return model, tt.zeros(5, 3)

So `tito show model.py:model` and `tito show model.py:build` are the same. The file is yours: naming it runs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from tinytorch.compile import trace
from tinytorch.ir import Graph
from tinytorch.passes import PIPELINES, History, Pipeline

HELP = "[b]FILE.ttg[/b], [b]file.py:name[/b] or [b]module:name[/b]"
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help=HELP)]
CONVENTION = ("give it arguments: EXAMPLES = (x, …) in the file, or name a function without parameters that returns "
              "(callable, x, …)")


@dataclass(frozen=True)
class Target:
    """A callable with arguments, or a graph from a file."""

    name: str
    function: Callable[..., Any] | None
    examples: tuple[Any, ...]
    graph: Graph

    def history(self) -> History:
        """Every stage of the standard passes, the graph itself first."""
        return Pipeline(*PIPELINES["train"]).run(self.graph)[1]


def load(text: str) -> Target:
    """What `text` names, traced. Raises typer.BadParameter (exit status 2) where there is no such thing."""
    if text.endswith(".ttg"):
        graph = Graph.load(text)
        return Target(graph.name, None, (), graph)
    function, examples = load_callable(text)
    name = getattr(function, "__name__", type(function).__name__)
    return Target(name, function, examples, trace(function, *examples))


def load_callable(text: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The callable that `text` names, and its arguments."""
    module, name = load_module(text)
    return with_examples(getattr(module, name), getattr(module, "EXAMPLES", None), text)


def load_module(text: str) -> tuple[ModuleType, str]:
    """The module of `text`, file.py:name or module:name, and the name, which it has."""
    place, colon, name = text.rpartition(":")
    if not colon or not name or not place:
        raise typer.BadParameter(f"{text!r}: expected FILE.ttg, file.py:name or module:name", param_hint="TARGET")
    module = import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    if not hasattr(module, name):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise typer.BadParameter(f"{place} has no {name!r}; it has {', '.join(names) or 'no callables'}",
                                 param_hint="TARGET")
    return module, name


def with_examples(thing: Any, examples: Any, text: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Arguments for `thing`: its own EXAMPLES, what it returns if it takes nothing, or those of its module."""
    own = getattr(thing, "EXAMPLES", None)
    if own is None and inspect.isfunction(thing) and not inspect.signature(thing).parameters:
        made = thing()
        if not (isinstance(made, (tuple, list)) and made and callable(made[0])):
            raise typer.BadParameter(f"{text}() gave a {type(made).__name__}; expected (callable, x, …)",
                                     param_hint="TARGET")
        return made[0], _flat(made[1:])
    given = own if own is not None else examples
    if not callable(thing) or given is None:
        what = "is not callable" if not callable(thing) else f"needs arguments; {CONVENTION}"
        raise typer.BadParameter(f"{text} {what}", param_hint="TARGET")
    return thing, given if isinstance(given, tuple) else (given,)


def _flat(examples: Sequence[Any]) -> tuple[Any, ...]:
    """(x, y), also where it was returned as one tuple."""
    return tuple(examples[0]) if len(examples) == 1 and isinstance(examples[0], (tuple, list)) else tuple(examples)


def import_file(path: Path) -> ModuleType:
    """Run a file of the user's as a module, with its folder on the path as `python file.py` has it."""
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}", param_hint="TARGET")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"there is no module {error.name!r}", param_hint="TARGET") from None
