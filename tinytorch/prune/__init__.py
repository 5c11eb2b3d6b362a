"""Fewer weights: zeros that stay zero, and models that are really smaller.

    half = tt.prune(model, 0.5, "channels", examples=x)    # smaller parameters, everywhere
    sparse = tt.prune(model, 0.9, "weights")               # zeros
    optimizer = KeepZeros(tt.optim.Adam(sparse.parameters()), sparse)

`structured` removes channels, heads and neurons through the graph; `weights` writes zeros; `training` keeps them, lets
them grow by a schedule, and rewinds.
"""

from tinytorch.passes.prune_channels import find_units

from .api import prune
from .training import Gradually, KeepZeros, cubic, iteratively, rewind
from .weights import sparsity, weights_of, zero_smallest

__all__ = ["Gradually", "KeepZeros", "cubic", "find_units", "iteratively", "prune", "rewind", "sparsity", "weights_of",
           "zero_smallest"]
