"""`tt.prune`: a model with fewer weights, channels, heads or neurons."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tinytorch.ir import Graph
from tinytorch.ir.errors import OpError
from tinytorch.nn.module import Module

from .criteria import Criterion
from .structured import prune_structured
from .weights import Blocks, Elements, NOfM, Pattern, zero_smallest

Model = TypeVar("Model", Module, Graph)
SMALLER = ("channels", "heads", "neurons")
ZEROED = ("weights", "blocks")


def prune(model: Model, amount: float = 0.5, structure: str = "weights", criterion: Criterion = "l1", *,
          layers: Sequence[str] | Mapping[str, float] | None = None, examples: Any = None, scope: str | None = None,
          multiple: int = 1, block: tuple[int, int] = (8, 32)) -> Model:
    """A copy of `model` without what matters least. Train it on afterwards.

    Args:
        model: a module, or a graph (for what shrinks it).
        amount: the share that goes, 0 < amount < 1; an "N:M" says it itself.
        structure: "channels" (of convolutions), "heads" (of attention; whole groups where queries share keys) or
            "neurons" (between linear maps): the model becomes smaller, with all that depends on them; its class stays,
            and it trains, saves and compiles like any other. "weights", "blocks" or such as "2:4": they become zeros.
        criterion: "l1", "l2", "taylor" or a function (path, array) -> scores; see `criteria.score`. The importance of a
            channel is the sum over all parameters that go with it.
        layers: names of the layers whose outputs (or weights) are to go, as in `named_modules`; a mapping gives each
            its own amount, where the structure shrinks the model. By default all that can.
        examples: for what shrinks the model: a tensor, or a tuple of them, such as it is called with.
        scope: "layer": the same share of each layer; "global": the least important of all, channels measured against
            the mean of their layer. By default "global" for weights, else "layer".
        multiple: channels, heads or neurons that are left are a multiple of this (kernels like those of 16).
        block: inputs and outputs of a block of "blocks"; of an "N:M" pattern, so many outputs share it.
    Raises:
        OpError: an argument makes no sense, there is no such layer.
        PassError: a layer must stay as it is (the message says why: an op without a rule and its line, outputs of the
            model), a layer would be emptied, the model's code relies on sizes that changed.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> from tinytorch.prune import prune
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 10))
    >>> prune(model, 0.5, "channels", examples=tt.zeros(1, 3, 4, 4))
    Sequential(
      (0): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
      (1): BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
      (2): ReLU()
      (3): Flatten(start_dim=1, end_dim=-1)
      (4): Linear(in_features=16, out_features=10, bias=True)
    )
    """
    ratio = re.fullmatch(r"(\d+):(\d+)", structure)
    if structure not in (*SMALLER, *ZEROED) and ratio is None:
        known = ", ".join((*SMALLER, *ZEROED))
        raise OpError(f"prune(structure={structure!r}): expected one of {known}, or such as '2:4'")
    shares = [amount, *(layers.values() if isinstance(layers, Mapping) else ())]
    if not all(0 < share <= 1 for share in shares) or multiple < 1 or min(block) < 1:
        raise OpError(f"prune(amount={shares}, multiple={multiple}, block={block}): expected 0 < amount < 1, and "
                      "counts of 1 or more")
    if scope not in (None, "layer", "global"):
        raise OpError(f"prune(scope={scope!r}): expected 'layer' or 'global'")
    if isinstance(layers, str):
        raise OpError(f"prune(layers={layers!r}): expected a list of names, [{layers!r}]")
    if structure in SMALLER:
        return prune_structured(model, amount, structure, criterion, layers, examples, scope or "layer", multiple)
    if isinstance(model, Graph) or isinstance(layers, Mapping):
        raise OpError(f"prune(structure={structure!r}): expected a module, and layers as a list of names")
    found = copy.deepcopy(model)
    zero_smallest(found, _pattern(structure, ratio, amount, scope, block), criterion, layers)
    return found


def _pattern(structure: str, ratio: re.Match[str] | None, amount: float, scope: str | None,
             block: tuple[int, int]) -> Pattern:
    if structure == "weights":
        return Elements(amount, scope != "layer")
    if ratio is None:
        return Blocks(amount, *block, scope == "global")
    n, m = map(int, ratio.groups())
    if not 0 < n <= m:
        raise OpError(f"prune(structure={structure!r}): expected N:M with 0 < N ≤ M, such as '2:4'")
    return NOfM(n, m, block[1])
