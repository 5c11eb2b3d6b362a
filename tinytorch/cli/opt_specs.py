"""What `--passes` says, as steps: `quantize:static,observer=mse`, `prune:channels=0.5`, `file.py:MyPass,depth=2`.

    steps = parse("fold,quantize:int4,group=64")      # Step("fold"), Step("quantize:int4,group=64")
    smaller = steps[0](model, given)                  # a module for a module, a graph for a graph

Steps are separated by commas; `name=value` without a colon is a setting of the step before it.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import typer

from tinytorch import passes
from tinytorch.ir import Graph
from tinytorch.nn import Module, Rewritten
from tinytorch.passes import Pipeline
from tinytorch.prune import prune
from tinytorch.quant import quantize
from tinytorch.quant.weights import quantize_weights

from .target import load_module

HINT = "--passes"


@dataclass(frozen=True)
class Given:
    """What steps may need: an example of each argument, inputs to calibrate with, and to learn from again."""

    examples: tuple[Any, ...]
    calibration: np.ndarray | None = None
    tune: Callable[[Module, int, float], Module] | None = None


@dataclass(frozen=True)
class Step:
    """One step: its text, what it is, its bare words and its settings."""

    text: str
    run: Callable[..., Any]
    words: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, target: Any, given: Given) -> Any:
        """The target after this step.

        Raises:
            BadParameter: it takes no such settings, or needs what is not there; what the step itself refuses it with.
        """
        try:
            inspect.signature(self.run).bind(target, given, *self.words, **self.settings)
        except TypeError as error:
            raise typer.BadParameter(f"{self.text}: {error}; {about(self)}", param_hint=HINT) from None
        return self.run(target, given, *self.words, **self.settings)


# -- the steps that have names -----------------------------------------------------------------------------------------


def _quantize(target: Any, given: Given, method: str = "static", **settings: Any) -> Any:
    """all int8: static or dynamic, observer=percentile, symmetric=True; weights alone: int8 or int4, group=64"""
    weights = method in ("int8", "int4")
    function, fixed = (quantize_weights, {"bits": int(method[3:])}) if weights else (quantize, {"method": method})
    known = [name for name in list(inspect.signature(function).parameters)[1:] if name not in ("data", *fixed)]
    if unknown := [name for name in settings if name not in known]:
        raise typer.BadParameter(f"quantize:{method}: there is no setting {unknown[0]!r}; there are {', '.join(known)}",
                                 param_hint=HINT)
    wanted = settings.get("rounding") == "gptq" if weights else method == "static"
    if wanted and given.calibration is None:
        raise typer.BadParameter("quantize: numbers must be seen to know their range: --data FILE.npz with inputs, or "
                                 "quantize:dynamic, quantize:int8, quantize:int4", param_hint=HINT)
    return function(target, data=_batches(target, given) if wanted else None, **fixed, **settings)


def _prune(target: Any, given: Given, kind: str | None = None, criterion: str = "l1", multiple: int = 1,
           **amounts: float) -> Any:
    """smaller: channels=0.5, heads=0.5 or neurons=0.5; zeros: weights=0.5, blocks=0.5 or 2:4; criterion=l2"""
    if len(amounts) + (kind is not None) != 1:
        raise typer.BadParameter("prune: expected one structure with its share, as in prune:channels=0.5, or prune:2:4",
                                 param_hint=HINT)
    structure, amount = next(iter(amounts.items())) if kind is None else (kind, 0.5)
    return prune(target, amount, structure, criterion, multiple=multiple, examples=given.examples)


def _tune(target: Any, given: Given, steps: int = 200, lr: float = 0.002) -> Any:
    """train on, after prune: steps=200 batches, lr=0.002 (models of the zoo)"""
    if given.tune is None:
        raise typer.BadParameter("tune: there are no data to train on; it is for models of the zoo", param_hint=HINT)
    if not isinstance(target, Module) or isinstance(target, Rewritten):
        raise typer.BadParameter("tune: what passes have rewritten is not trained; tune before fold, quantize, bf16",
                                 param_hint=HINT)
    return given.tune(target, steps, lr)


def _half(dtype: str) -> Callable[..., Any]:
    def run(target: Any, given: Given, least: int = 32) -> Any:
        return through(target, passes.CastPrecision(dtype, weights=True, least=least))

    run.__doc__ = f"matrix products and convolutions in {dtype}, weights held in it"
    return run


def _fold(target: Any, given: Given) -> Any:
    """batch norms into the layer before them"""
    return through(target, passes.FoldBatchNorm())


NAMED: dict[str, Callable[..., Any]] = {
    "quantize": _quantize, "prune": _prune, "tune": _tune, "bf16": _half("bf16"), "f16": _half("f16"), "fold": _fold}


def through(target: Any, *steps: Callable[[Graph], Graph]) -> Any:
    """The target rewritten by passes: a graph for a graph, else a module."""
    return Pipeline(*steps)(target) if isinstance(target, Graph) else Rewritten(target, *steps)


def _batches(target: Any, given: Given) -> Any:
    """Calibration data, in batches as the target takes them."""
    data, size = given.calibration, len(given.examples[0])
    assert data is not None
    if not isinstance(target, Graph):
        return data
    return [data[at : at + size] for at in range(0, len(data) - size + 1, size)]


# -- reading ----------------------------------------------------------------------------------------------------------


def parse(text: str) -> list[Step]:
    """The steps of a text.

    Raises:
        BadParameter: an unknown name (it tells the nearest), or no step at all.
    """
    parts: list[list[str]] = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        if "=" in part.partition(":")[0] and parts:
            parts[-1].append(part)
        else:
            parts.append([part])
    if not parts:
        raise typer.BadParameter(f"there is no pass; {listing()}", param_hint=HINT)
    return [_step(part) for part in parts]


def _step(parts: list[str]) -> Step:
    name, _, first = parts[0].partition(":")
    text = ",".join(parts)
    if name not in NAMED and ":" in parts[0]:
        return _users_own(text, parts)
    run = NAMED.get(name) or _of_ours(name)
    options = [option for option in (first, *parts[1:]) if option]
    return Step(text, run, tuple(o for o in options if "=" not in o), _settings(o for o in options if "=" in o))


def _settings(options: Any) -> dict[str, Any]:
    return {key.strip(): _value(value.strip()) for key, _, value in (option.partition("=") for option in options)}


def _value(text: str) -> Any:
    """A number or a truth value; else the text itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _of_ours(name: str) -> Callable[..., Any]:
    """A pass of ours, as a step."""
    if name.lower() in OURS:
        return _as_step(OURS[name.lower()])
    near = difflib.get_close_matches(name.lower(), (*NAMED, *OURS), 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise typer.BadParameter(f"there is no pass {name!r}{hint}\n{listing()}", param_hint=HINT)


OURS: dict[str, Any] = {step.__name__.lower(): step for step in (
    passes.ExpandComposites, passes.FoldConstants, passes.MergeCommon, passes.RemoveDead, passes.Simplify,
    passes.SinkTransposes, passes.Stabilize)}


def _users_own(text: str, parts: list[str]) -> Step:
    """`file.py:Name` or `module:Name`: a class of passes, a pass, or a function from graph to graph."""
    module, name = load_module(parts[0])
    return Step(text, _as_step(getattr(module, name)), (), _settings(parts[1:]))


def _as_step(found: Any) -> Callable[..., Any]:
    def run(target: Any, given: Given, **settings: Any) -> Any:
        if isinstance(found, type):
            return through(target, found(**settings))
        return through(target, found)

    if isinstance(found, type):
        keyword = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(found).parameters.values()]
        run.__signature__ = inspect.signature(run).replace(  # type: ignore[attr-defined]
            parameters=[*list(inspect.signature(run).parameters.values())[:2], *keyword])
    run.__doc__ = found.__doc__
    return run


def about(step: Step) -> str:
    """What settings a step takes."""
    takes = [str(p).partition(":")[0] + (f"={p.default}" if p.default is not p.empty else "")
             for p in list(inspect.signature(step.run).parameters.values())[2:]]
    return f"it takes {', '.join(takes)}" if takes else "it takes no settings"


def listing() -> str:
    """The steps that there are, for messages and help."""
    lines = [f"  {name:9} {(run.__doc__ or '').strip()}" for name, run in NAMED.items()]
    return "\n".join(("there are", *lines, f"  or {', '.join(OURS)},",
                      "  or one of your own: file.py:Name, module:Name"))
