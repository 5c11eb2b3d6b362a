"""Removing channels through graphs: the smaller graph computes what the greater one does with zeros there.

The networks are made at random of what channels can meet on their way: norms, residual sums, concatenations, grouped
and depthwise convolutions, gates of two halves, pools, features made of channels.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import PassError
from tinytorch.passes import Family, RemoveChannels, Unit, find_units
from tinytorch.passes.prune_labels import Labels
from tinytorch.passes.prune_rules import blocks


class Random(nn.Module):
    """Layers drawn at random, on images (2, 3, 8, 8)."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.layers = nn.ModuleList()
        self.plan: list[Callable[[Any], Any]] = []
        width = 8
        self._add(nn.Conv2d(3, width, 3, padding=1))
        for kind in self.random.permutation(6)[:4]:
            width = [self.residual, self.grouped, self.joined, self.gate, self.normed, self.transposed][kind](width)
        self._add(nn.MaxPool2d(2))
        self._add(nn.Flatten())
        self._add(nn.Linear(width * 16, 12))
        self._add(nn.Tanh())
        self._add(nn.Linear(12, 4))

    def _add(self, layer: nn.Module) -> None:
        self.layers.append(layer)
        self.plan.append(layer)

    def _own(self, *layers: nn.Module) -> Any:
        self.layers.extend(layers)
        return layers

    def residual(self, width: int) -> int:
        a, b = self._own(nn.Conv2d(width, 6, 3, padding=1), nn.Conv2d(6, width, 1, bias=False))
        self.plan.append(lambda x: x + b(a(x).relu()))
        return width

    def grouped(self, width: int) -> int:
        a, b = self._own(nn.Conv2d(width, 2 * width, 3, padding=1, groups=width // 2),
                         nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width))
        self.plan.append(lambda x: b(a(x)))
        return 2 * width

    def joined(self, width: int) -> int:
        a, b = self._own(nn.Conv2d(width, 4, 1), nn.Conv2d(width, 6, 1))
        self.plan.append(lambda x: tt.concat([a(x), x, b(x).sigmoid()], 1))
        return width + 10

    def gate(self, width: int) -> int:
        (a,) = self._own(nn.Conv2d(width, 12, 1))

        def halves(x: Any) -> Any:
            y = a(x)
            half = y.shape[1] // 2
            return y[:, :half] * y[:, half:].sigmoid() * y.mean((2, 3), True)[:, :half]
        self.plan.append(halves)
        return 6

    def normed(self, width: int) -> int:
        self._add(nn.BatchNorm2d(width))
        self._add(nn.GroupNorm(2, width))
        self._add(nn.PReLU(width))
        return width

    def transposed(self, width: int) -> int:
        self._add(nn.ConvTranspose2d(width, 8, 3, padding=1, groups=2))
        return 8

    def forward(self, x: Any) -> Any:
        for step in self.plan:
            x = step(x)
        return x


def random_units(families: tuple[Family, ...], seed: int) -> list[Unit]:
    """About half of what can be removed, never all of a family."""
    random, found = np.random.default_rng(seed), []
    for family in families:
        free = [unit for unit in family.units if unit.reason is None]
        count = min(len(free) - (len(free) == len(family.units)), len(family.units) // 2)
        found += [free[i] for i in random.permutation(len(free))[:max(count, 0)]]
    return found


def removed(graph: tt.Graph, units: list[Unit]) -> RemoveChannels:
    """The pass, told one part of each."""
    seeds: dict[str, tuple[int, list[int]]] = {}
    for unit in units:
        value, axis, places = unit.parts[-1]
        before = seeds.setdefault(f"{graph.names[value]}", (axis, []))
        if before[0] == axis:
            before[1].extend(places)
        else:
            value, axis, places = unit.parts[0]
            seeds.setdefault(graph.names[value], (axis, []))[1].extend(places)
    return RemoveChannels(seeds)


def zeroed(graph: tt.Graph, units: list[Unit]) -> tt.Graph:
    arrays = {value: array.copy() for value, array in graph.bound.items()}
    for unit in units:
        for value, axis, places in unit.parts:
            arrays[value][(np.s_[:],) * axis + (list(places),)] = 0
    return graph.with_(bound=arrays)


def size(graph: tt.Graph) -> int:
    return sum(array.size for array in graph.bound.values())


@pytest.mark.parametrize("seed", range(12))
def test_smaller_networks_compute_the_same_as_with_zeros(seed: int) -> None:
    tt.manual_seed(seed)
    x = tt.Tensor(np.random.default_rng(seed).standard_normal((2, 3, 8, 8)).astype("f4"))
    graph = tt.trace(Random(seed).eval(), x)
    units = random_units(find_units(graph), seed)
    small = removed(graph, units)(graph)
    assert size(small) < 0.75 * size(graph)
    wanted = zeroed(graph, units)(x.numpy())
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(small(x.numpy()), wanted, rtol=1e-4, atol=1e-5)


def decoder(kind: str) -> nn.Module:
    if kind == "gpt":
        return nn.GPT(nn.GPTConfig(17, 8, 1, 4, 16))
    return nn.Llama(nn.LlamaConfig(17, 16, 24, 1, 4, 2, 8))


@pytest.mark.parametrize(("kind", "heads"), [("gpt", 4), ("llama", 2)])
def test_heads_go_whole_and_neurons_with_their_gates(kind: str, heads: int) -> None:
    tokens = tt.tensor([[1, 2, 3, 16, 0]])
    graph = tt.trace(decoder(kind).eval(), tokens)
    families = [family for family in find_units(graph) if family.reason is None]
    assert [(family.kind, len(family.units)) for family in families] == [
        ("heads", heads), ("neurons", 64 if kind == "gpt" else 24)]
    rows = {graph.names[value].split("_")[-3]: len(places) for value, _, places in families[0].units[0].parts}
    assert kind == "gpt" or rows == {"q": 8, "k": 4, "v": 4, "o": 8}  # two queries for each key
    units = random_units(tuple(families), 0)
    small = removed(graph, units)(graph)
    np.testing.assert_allclose(small(tokens.numpy()), zeroed(graph, units)(tokens.numpy()), rtol=1e-4, atol=1e-5)


class Blocked(nn.Module):
    """Eight features that something needs all of."""

    def __init__(self, step: Callable[[Any], Any]) -> None:
        self.first, self.last, self.step = nn.Linear(3, 8), nn.Linear(8, 2), step

    def forward(self, x: Any) -> Any:
        return self.last(self.step(self.first(x)))


@pytest.mark.parametrize(("step", "reason"), [
    (lambda y: y.cumsum(1), r"there is no rule for cumsum in `\(lambda y: y.cumsum"),
    (lambda y: y.softmax(-1), "max in .* needs all of it"),
    (lambda y: (y @ y.permute(1, 0)) @ y, "no weight can go with it"),
    (lambda y: y + tt.arange(8.0), "add in .* pairs it with what stays"),
    (lambda y: y[:, :4].relu() @ tt.ones(4, 8), "takes a part of it"),
    (lambda y: tt.concat([y[:, ::2], y[:, ::2]], 1), "takes a part of it"),
])
def test_what_must_stay_says_why(step: Callable[[Any], Any], reason: str) -> None:
    graph = tt.trace(Blocked(step).eval(), tt.ones(2, 3))
    first = next(family for family in find_units(graph) if "first_weight" in family.made_by)
    assert re.search(reason, str(first.reason)), first.reason


def test_the_pass_refuses() -> None:
    graph = tt.trace(Blocked(lambda y: y.relu()).eval(), tt.ones(2, 3))
    with pytest.raises(PassError, match="no bound value 'second'; it has first_bias, first_weight"):
        RemoveChannels({"second": (0, [1])})(graph)
    with pytest.raises(PassError, match=r"first_weight: f32\[8, 3\] has no elements \[8\] on axis 0"):
        RemoveChannels({"first_weight": (0, [8])})(graph)
    with pytest.raises(PassError, match="element 1 of axis 0 of last_weight must stay: it is output 0 of blocked"):
        RemoveChannels({"last_weight": (0, [1])})(graph)
    with pytest.raises(PassError, match="nothing of .* would be left"):
        RemoveChannels({"first_weight": (0, range(8))})(graph)


@pytest.mark.parametrize(("before", "after", "expected"), [
    ((2, 3, 4), (2, 12), [([0], [0]), ([1, 2], [1])]),
    ((2, 12), (2, 3, 4), [([0], [0]), ([1], [1, 2])]),
    ((6, 4), (4, 6), [([0, 1], [0, 1])]),
    ((1, 6), (6,), [([0], []), ([1], [0])]),
])
def test_blocks_of_a_reshape(before: tuple[int, ...], after: tuple[int, ...],
                             expected: list[tuple[list[int], list[int]]]) -> None:
    assert [(list(old), list(new)) for old, new in blocks(before, after)] == expected


def test_labels_of_heads_become_slabs() -> None:
    labels = Labels()
    mark = labels.fresh(6).reshape(3, 2)
    labels.unite(mark[0, 0], mark[1, 1])
    while labels.straighten(mark):
        pass
    roots = labels.roots(mark)
    assert (roots[0] == roots[1]).all() and roots[2, 0] != roots[0, 0]
