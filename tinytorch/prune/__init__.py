"""Fewer weights: zeros that stay zero, and models that are really smaller.

    half = tt.prune(model, 0.5, "channels", examples=x)    # smaller parameters, everywhere
    sparse = tt.prune(model, 0.9, "weights")               # zeros
    fast = skip_zeros(tt.prune(model, 0.75, "blocks"))     # zeros that are not multiplied
    optimizer = KeepZeros(tt.optim.Adam(sparse.parameters()), sparse)

`structured` removes channels, heads and neurons through the graph; `weights` writes zeros; `training` keeps them, lets
them grow by a schedule, and rewinds.
"""

from typing import TYPE_CHECKING, Any

from tinytorch.passes.prune_channels import find_units

from .api import prune
from .skip import skip_zeros
from .training import KeepZeros, cubic, iteratively, rewind
from .weights import Blocks, Elements, NOfM, sparsity, weights_of, zero_smallest

if TYPE_CHECKING:
    from .gradual import Gradually

__all__ = ["Blocks", "Elements", "Gradually", "KeepZeros", "NOfM", "cubic", "find_units", "iteratively", "prune",
           "rewind", "skip_zeros", "sparsity", "weights_of", "zero_smallest"]


def __getattr__(name: str) -> Any:
    """`Gradually` is for trainers, which are imported when it is asked for."""
    if name == "Gradually":
        from .gradual import Gradually

        return Gradually
    raise AttributeError(f"module 'tinytorch.prune' has no attribute {name!r}")
