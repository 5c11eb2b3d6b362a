"""Structured pruning: choose the least important channels, heads or neurons, and make the model smaller without them.

What belongs together is found on the graph of the model in evaluation mode (`tinytorch.passes.find_units`); the
importance of a unit is the sum over all its parameters, so layers that share a residual sum are judged together (Fang
et al., "DepGraph", 2023). The result is a copy of the model with smaller parameters, buffers and attributes; it is
traced again and compared with the model that has zeros in place of what was removed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.frontends.trace import trace
from tinytorch.frontends.tree import flatten
from tinytorch.ir import Graph, Value
from tinytorch.ir.errors import OpError, PassError, TinyTorchError, listing
from tinytorch.nn.module import Module, in_mode
from tinytorch.passes.prune_channels import Family, RemoveChannels, Unit, find_units
from tinytorch.tensor import Parameter, Tensor, as_tensor

from .attributes import refresh
from .criteria import Criterion, score

Amounts = Mapping[str, float]  # by layer


@dataclass(frozen=True)
class Analysis:
    """A model's graph in evaluation mode, and whose arrays are bound in it.

    Attributes:
        paths: for each bound value that belongs to the model, its path, such as "conv1.weight".
        tensors: the parameters and buffers by path.
        families: what could be removed.
    """

    graph: Graph
    paths: Mapping[Value, str]
    tensors: Mapping[str, Tensor]
    families: tuple[Family, ...]

    @classmethod
    def of(cls, model: Module | Graph, examples: Any) -> Analysis:
        """Trace `model` for arguments like `examples`, a tensor or a tuple of them; a graph is taken as it is."""
        if isinstance(model, Graph):
            paths = {value: model.names[value] for value in model.bound}
            tensors = {path: Tensor(model.bound[value]) for value, path in paths.items()}
            return cls(model, paths, tensors, find_units(model))
        if examples is None:
            raise OpError(f"prune({type(model).__name__}): structured pruning follows the graph of the model; pass "
                          "examples=x, a tensor (or a tuple of them) like those it is called with")
        arguments, tensors = as_arguments(examples), all_tensors(model)
        by_id = {id(tensor): path for path, tensor in reversed(tensors.items())}
        with in_mode(model, False):
            found = trace(model, arguments, handle=Tensor, names=by_id)
        bound = [value for value in found.graph.inputs if value in found.graph.bound]
        paths = {value: by_id[id(owner)] for value, owner in zip(bound, found.captured, strict=True)
                 if id(owner) in by_id}
        return cls(found.graph, paths, tensors, find_units(found.graph, tuple(paths)))

    def layers(self, family: Family) -> list[str]:
        """The layers that make what a family holds: "conv1" for "conv1.weight"; of a graph, names of arrays."""
        by_name = {self.graph.names[value]: path for value, path in self.paths.items()}
        return [by_name[name].rpartition(".")[0] or by_name[name] for name in family.made_by if name in by_name]


def as_arguments(examples: Any) -> tuple[Any, ...]:
    """Examples as the arguments of a call."""
    return tuple(examples) if isinstance(examples, (tuple, list)) else (examples,)


def all_tensors(model: Module) -> dict[str, Tensor]:
    """Parameters and buffers by path, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def prune_structured(model: Any, amount: float, structure: str, criterion: Criterion, layers: Any, examples: Any,
                     scope: str, least: int) -> Any:
    """A smaller model (or graph); see `prune`."""
    analysis = Analysis.of(model, examples)
    amounts = _amounts(analysis, amount, structure, layers)
    scores = {number: _scores(analysis, analysis.families[number], criterion) for number in amounts}
    if scope == "global":
        chosen = _weakest_of_all(analysis, amounts, scores, least)
    else:
        chosen = {number: _weakest(analysis, number, amounts[number], scores[number], least) for number in amounts}
    removed = [analysis.families[number].units[i] for number, places in chosen.items() for i in places]
    if isinstance(model, Graph):
        return _smaller_graph(analysis, removed)
    small = _smaller_model(model, analysis, removed)
    check(model, small, analysis, removed, as_arguments(examples))
    return small


# -- which families ----------------------------------------------------------------------------------------------------


def _amounts(analysis: Analysis, amount: float, structure: str, layers: Any) -> dict[int, float]:
    """How much to remove of which families (by number)."""
    if layers is None:
        found = {number: amount for number, family in enumerate(analysis.families)
                 if family.kind == structure and family.reason is None}
        if not found:
            reasons = [f"{', '.join(analysis.layers(family))}: {family.reason}" for family in analysis.families
                       if family.kind == structure]
            raise PassError(f"prune: there are no {structure} of {analysis.graph.name} that could be removed"
                            + "".join(f"\n  {reason}" for reason in reasons))
        return found
    wanted = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, amount)
    made = {layer: number for number, family in enumerate(analysis.families) for layer in analysis.layers(family)}
    if unknown := sorted(set(wanted) - set(made)):
        raise OpError(f"prune(layers={unknown}): expected layers that have outputs to remove: {listing(made)}")
    found = {}
    for layer, share in wanted.items():
        family = analysis.families[made[layer]]
        if family.reason is not None:
            raise PassError(f"prune: nothing that {layer} gives can be removed: {family.reason}")
        if family.kind != structure:
            raise OpError(f"prune(structure={structure!r}): what {layer} gives are {family.kind}")
        found[made[layer]] = max(share, found.get(made[layer], 0.0))
    return found


# -- which units -------------------------------------------------------------------------------------------------------


def _scores(analysis: Analysis, family: Family, criterion: Criterion) -> np.ndarray:
    """The importance of each unit of a family: the sum over its parameters; infinite for those that must stay."""
    sums: dict[tuple[Value, int], np.ndarray] = {}
    for value, axis, _ in family.units[0].parts:
        tensor = analysis.tensors[analysis.paths[value]]
        if tensor.dtype.is_float and _is_parameter(tensor, analysis):
            values = score(criterion, analysis.paths[value], tensor)
            sums[value, axis] = values.sum(tuple(a for a in range(values.ndim) if a != axis))
    return np.array([np.inf if unit.reason is not None else
                     sum(sums[value, axis][list(places)].sum() for value, axis, places in unit.parts
                         if (value, axis) in sums) for unit in family.units])


def _is_parameter(tensor: Tensor, analysis: Analysis) -> bool:
    of_graph = not any(isinstance(other, Parameter) for other in analysis.tensors.values())
    return of_graph or isinstance(tensor, Parameter)


def _count(total: int, amount: float, least: int) -> int:
    """How many of so many units to remove, so that a multiple of `least` is left."""
    left = total - int(total * amount)
    return max(0, total - -(-left // least) * least)


def _weakest(analysis: Analysis, number: int, amount: float, scores: np.ndarray, least: int) -> list[int]:
    """The places of the units with the lowest scores."""
    family, total = analysis.families[number], len(scores)
    count, free = _count(total, amount, least), int(np.isfinite(scores).sum())
    if count >= total or count > free:
        held = "" if free == total else f", {total - free} of which must stay: {_first_reason(family)}"
        raise PassError(f"prune(amount={amount}): {', '.join(analysis.layers(family))} has {total} "
                        f"{family.kind}{held}; {count} cannot be removed; remove less")
    return [int(place) for place in np.argsort(scores, kind="stable")[:count]]


def _first_reason(family: Family) -> str:
    return next(unit.reason for unit in family.units if unit.reason is not None)


def _weakest_of_all(analysis: Analysis, amounts: Mapping[int, float], scores: Mapping[int, np.ndarray],
                    least: int) -> dict[int, list[int]]:
    """The lowest of all families, each measured against the mean of its own; every family keeps one at least."""
    ranked = sorted((value / max(float(values[np.isfinite(values)].mean()), 1e-30), number, place)
                    for number, values in scores.items() for place, value in enumerate(values) if np.isfinite(value))
    goal = int(len(ranked) * max(amounts.values()))
    if goal >= len(ranked):
        raise PassError(f"prune(amount={max(amounts.values())}): nothing would be left; remove less")
    chosen: dict[int, list[int]] = {number: [] for number in scores}
    for _, number, place in ranked:
        if sum(map(len, chosen.values())) < goal and len(chosen[number]) < len(scores[number]) - 1:
            chosen[number].append(place)
    return {number: places[:_count(len(scores[number]), len(places) / len(scores[number]) + 1e-9, least)]
            for number, places in chosen.items()}


# -- making it smaller -------------------------------------------------------------------------------------------------


def _places(removed: Sequence[Unit]) -> dict[Value, dict[int, list[int]]]:
    """For each value and axis, the elements that go."""
    found: dict[Value, dict[int, list[int]]] = {}
    for unit in removed:
        for value, axis, places in unit.parts:
            found.setdefault(value, {}).setdefault(axis, []).extend(places)
    return found


def _smaller_graph(analysis: Analysis, removed: Sequence[Unit]) -> Graph:
    """One part of a unit is enough for the pass to find the others."""
    seeds: dict[str, tuple[int, list[int]]] = {}
    graph = analysis.graph
    for unit in removed:
        value, axis, places = unit.parts[0]
        seeds.setdefault(graph.names[value], (axis, []))[1].extend(places)
    return RemoveChannels(seeds)(graph)


def _smaller_model(model: Module, analysis: Analysis, removed: Sequence[Unit]) -> Module:
    small = copy.deepcopy(model)
    tensors = all_tensors(small)
    before = {path: tensor.shape for path, tensor in tensors.items()}
    for value, by_axis in _places(removed).items():
        tensor = tensors[analysis.paths[value]]
        array = tensor.numpy()
        for axis, places in by_axis.items():
            array = np.delete(array, places, axis)
        tensor.payload, tensor.grad = np.ascontiguousarray(array), None
        tensor.version += 1
    gone = set(map(id, removed))
    heads = [(analysis.layers(family), len(family.units), sum(id(unit) in gone for unit in family.units))
             for family in analysis.families if family.kind == "heads"]
    refresh(small, before, [(layers, total, total - lost) for layers, total, lost in heads if lost])
    return small


def zeroed(model: Module, analysis: Analysis, removed: Sequence[Unit]) -> Module:
    """A copy with zeros in place of what is removed."""
    same = copy.deepcopy(model)
    tensors = all_tensors(same)
    for value, by_axis in _places(removed).items():
        tensor = tensors[analysis.paths[value]]
        array = tensor.numpy().copy()
        for axis, places in by_axis.items():
            array[(np.s_[:],) * axis + (places,)] = 0
        tensor.payload = array
    return same


def check(model: Module, small: Module, analysis: Analysis, removed: Sequence[Unit], arguments: Sequence[Any]) -> None:
    """Complain (PassError) unless the smaller model computes what the model does with zeros in what was removed."""
    with no_grad():
        wanted = _results(zeroed(model, analysis, removed).eval(), arguments)
        try:
            found = _results(copy.deepcopy(small).eval(), arguments)
        except (TinyTorchError, ValueError, IndexError, AssertionError) as error:
            raise PassError(f"prune: {type(model).__name__} cannot be called without what was removed; are there sizes "
                            f"in its code that ought to come from shapes?\n  {error}") from error
    for a, b in zip(wanted, found, strict=True):
        scale = float(np.abs(a).max(initial=1.0))
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-3, atol=1e-3 * scale, equal_nan=True):
            raise PassError(f"prune: the smaller {type(model).__name__} computes something else than the model does "
                            "with zeros in what was removed; are there sizes in its code that ought to come from "
                            "shapes, or numbers of heads in attributes whose names do not end in 'head' or 'heads'?")


def _results(model: Callable[..., Any], arguments: Sequence[Any]) -> list[np.ndarray]:
    leaves, _ = flatten(model(*(as_tensor(x) for x in arguments)))
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, Tensor)]
