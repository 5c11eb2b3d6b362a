"""Run a model without its blocks of zeros: `skip_zeros(model)`."""

from __future__ import annotations

from typing import overload

from tinytorch.ir import Graph
from tinytorch.nn import Module, Rewritten
from tinytorch.passes.prune_zeros import SkipZeroBlocks


@overload
def skip_zeros(model: Module) -> Rewritten: ...
@overload
def skip_zeros(model: Graph) -> Graph: ...
def skip_zeros(model: Module | Graph) -> Module | Graph:
    """`model` in evaluation mode, computing with those blocks of its weights alone that are not zero.

    Of use after `prune(model, 0.75, "blocks")`, or a pattern such as "2:4": then a layer takes, and reads, about as
    much less as it has zeros. What was pruned element by element is not faster; see `tinytorch.passes.SkipZeroBlocks`.

    >>> import tinytorch as tt
    >>> from tinytorch import nn
    >>> from tinytorch.prune import prune, skip_zeros
    >>> sparse, x = prune(nn.Linear(64, 64), 0.75, "blocks"), tt.ones(2, 64)
    >>> fast = skip_zeros(sparse)
    >>> [node.op.name for node in fast.graph(x).nodes], bool((fast(x) - sparse(x)).abs().max() < 1e-5)
    (['sparse_linear', 'add'], True)
    """
    return SkipZeroBlocks()(model) if isinstance(model, Graph) else Rewritten(model, SkipZeroBlocks())
