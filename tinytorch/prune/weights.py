"""Unstructured and half-structured pruning: zeros where weights matter least.

    zero_smallest(model, Elements(0.9))                    # in place: the nine tenths nearest to zero
    zero_smallest(model, Blocks(0.75, 4, 16))              # blocks of 4 inputs by 16 outputs
    zero_smallest(model, NOfM(2, 4))                       # 2 of each 4 inputs stay

Which weights: those of two axes or more in layers (embeddings are tables, and left alone), or those of `layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tinytorch.ir.errors import OpError, listing
from tinytorch.nn.layers import Embedding
from tinytorch.nn.module import Module
from tinytorch.tensor import Parameter
from tinytorch.watch import touch

from .criteria import Criterion, score


class Pattern(Protocol):
    """Which elements of weights stay."""

    def keep(self, scores: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Scores by path, of a weight's shape each -> where they stay."""


@dataclass(frozen=True)
class Elements:
    """Single elements: the lowest scores of each weight, or of all together (`whole`).

    Attributes:
        amount: the share that goes.

    >>> from tinytorch.prune import Elements
    >>> Elements(0.5).keep({"w": np.array([[3.0, 1.0], [0.5, 2.0]])})["w"].tolist()
    [[True, False], [False, True]]
    """

    amount: float
    whole: bool = True

    def keep(self, scores: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `Pattern`."""
        if not self.whole:
            return {path: _above(values, self.amount) for path, values in scores.items()}
        flat = _above(np.concatenate([values.ravel() for values in scores.values()]), self.amount)
        ends = np.cumsum([values.size for values in scores.values()])[:-1]
        return {path: part.reshape(scores[path].shape)
                for path, part in zip(scores, np.split(flat, ends), strict=True)}


@dataclass(frozen=True)
class Blocks:
    """Blocks of `depth` inputs by `columns` outputs, of each weight or of all together (`whole`).

    The kernels of `sparse_linear` pass over blocks of zeros, one panel of outputs after the other. Blocks at the edges
    are smaller.

    >>> from tinytorch.prune import Blocks
    >>> Blocks(0.5, depth=2, columns=1).keep({"w": np.array([[3.0, 1.0, 0.5, 2.0]])})["w"].tolist()
    [[True, True, False, False]]
    """

    amount: float
    depth: int = 8
    columns: int = 32
    whole: bool = False

    def keep(self, scores: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `Pattern`."""
        means = {path: self._sums(values) / self._sums(np.ones_like(values)) for path, values in scores.items()}
        kept = Elements(self.amount, self.whole).keep(means)
        return {path: self._spread(kept[path], scores[path]) for path in scores}

    def _sums(self, values: np.ndarray) -> np.ndarray:
        rows = values.reshape(values.shape[0], -1)
        over = np.add.reduceat(rows, np.arange(0, rows.shape[0], self.columns), 0)
        return np.add.reduceat(over, np.arange(0, rows.shape[1], self.depth), 1)

    def _spread(self, kept: np.ndarray, values: np.ndarray) -> np.ndarray:
        rows = values.reshape(values.shape[0], -1)
        spread = kept.repeat(self.columns, 0)[:rows.shape[0]].repeat(self.depth, 1)[:, :rows.shape[1]]
        return spread.reshape(values.shape)


@dataclass(frozen=True)
class NOfM:
    """`n` of each `m` neighbouring inputs stay (N:M), the same ones for `columns` outputs, the panel of a kernel.

    `columns=1` chooses for each output by itself, as hardware with sparse products wants it (Mishra et al., 2021).

    >>> from tinytorch.prune import NOfM
    >>> NOfM(1, 2).keep({"w": np.array([[3.0, 1.0, 0.5, 2.0]])})["w"].tolist()
    [[True, False, False, True]]
    """

    n: int
    m: int
    columns: int = 32

    def keep(self, scores: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `Pattern`."""
        return {path: self._keep(path, values) for path, values in scores.items()}

    def _keep(self, path: str, values: np.ndarray) -> np.ndarray:
        rows = values.reshape(values.shape[0], -1)
        if rows.shape[1] % self.m:
            raise OpError(f"prune(structure='{self.n}:{self.m}'): {path} has {rows.shape[1]} inputs, which do not "
                          f"divide by {self.m}; name the layers that do with layers=[…]")
        panels = np.add.reduceat(rows, np.arange(0, rows.shape[0], self.columns), 0)
        groups = panels.reshape(len(panels), -1, self.m)
        order = np.argsort(-groups, -1, kind="stable")
        kept = np.zeros(groups.shape, bool)
        np.put_along_axis(kept, order[..., :self.n], True, -1)
        spread = kept.reshape(panels.shape).repeat(self.columns, 0)[:rows.shape[0]]
        return spread.reshape(values.shape)


def _above(values: np.ndarray, amount: float) -> np.ndarray:
    """Where the values stand that are not among the lowest share `amount`; of equals, the first ones go first."""
    kept = np.ones(values.size, bool)
    kept[np.argsort(values, axis=None, kind="stable")[:round(values.size * amount)]] = False
    return kept.reshape(values.shape)


def weights_of(model: Module, layers: Any = None) -> dict[str, Parameter]:
    """The weights by path that can hold zeros: those of two axes or more; of all layers but embeddings, or of `layers`.

    Raises:
        OpError: a layer has no such weight.

    >>> from tinytorch import nn
    >>> from tinytorch.prune import weights_of
    >>> list(weights_of(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))))
    ['1.weight']
    """
    skipped = {id(p) for module in model.modules() if isinstance(module, Embedding) for p in module.parameters(False)}
    found = {path: p for path, p in model.named_parameters() if p.ndim >= 2 and p.dtype.is_float}
    if layers is None:
        return {path: p for path, p in found.items() if id(p) not in skipped}
    inside = {layer: {path: p for path, p in found.items() if path == layer or path.startswith(f"{layer}.")}
              for layer in layers}
    if unknown := [layer for layer, inner in inside.items() if not inner]:
        names = [path for path, _ in model.named_modules() if path]
        raise OpError(f"prune(layers={unknown}): expected layers with weights of two axes or more: {listing(names)}")
    return {path: p for inner in inside.values() for path, p in inner.items()}


def zero_smallest(model: Module, pattern: Pattern, criterion: Criterion = "l1", layers: Any = None) -> None:
    """Write zeros into the weights of `model`, in place, where `pattern` says so. What is zero already goes first.

    Args:
        pattern: `Elements`, `Blocks`, `NOfM`, or anything with their method `keep`.
        criterion, layers: see `prune`.
    Raises:
        OpError: there are no such weights, or nothing of one would be left.

    >>> from tinytorch import nn
    >>> from tinytorch.prune import Elements, sparsity, zero_smallest
    >>> model = nn.Linear(8, 8)
    >>> zero_smallest(model, Elements(0.75)); sparsity(model)
    0.75
    """
    weights = weights_of(model, layers)
    if not weights:
        raise OpError(f"prune: {type(model).__name__} has no weights of two axes or more")
    scores = {path: score(criterion, path, p) * (p.numpy() != 0) for path, p in weights.items()}
    for path, kept in pattern.keep(scores).items():
        if not kept.any():
            raise OpError(f"prune: nothing of {path} would be left; remove less, or scope='layer'")
        weight = weights[path]
        weight.payload[...] = np.where(kept, weight.payload, 0)
        touch(weight.payload)


def sparsity(model: Module, layers: Any = None) -> float:
    """The share of zeros in the weights (of two axes or more) of `model`, from 0 to 1.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> from tinytorch.prune import KeepZeros, prune, rewind, sparsity
    >>> model = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 5))
    >>> sparsity(prune(model, 0.8, "weights"))
    0.8
    """
    weights = weights_of(model, layers).values()
    return sum(int((p.numpy() == 0).sum()) for p in weights) / max(sum(p.numpy().size for p in weights), 1)
