"""Optimisers: SGD, Adam, AdamW, with PyTorch's options and results.

    >>> import tinytorch as tt
    >>> w = tt.tensor([1.0, 2.0], requires_grad=True)
    >>> opt = tt.optim.SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> opt.step(); w
    tensor([0.8, 1.6], requires_grad=True)
"""

from .adam import Adam, AdamW
from .optimizer import Optimizer
from .sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
