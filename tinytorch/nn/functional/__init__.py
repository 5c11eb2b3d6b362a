"""Layers as plain functions: `from tinytorch.nn import functional as F`. Names and conventions are PyTorch's.

    >>> import tinytorch as tt
    >>> from tinytorch.nn import functional as F
    >>> F.relu(tt.tensor([-1.0, 2.0]))
    tensor([0., 2.])
"""

from . import (
    activations, attention, convolution, layers, losses, normalization, pooling, positional, recurrent,
)
from .activations import *
from .attention import *
from .convolution import *
from .layers import *
from .losses import *
from .normalization import *
from .pooling import *
from .positional import *
from .recurrent import *

__all__: list[str] = []  # and what each file lists
__all__ += activations.__all__
__all__ += attention.__all__
__all__ += convolution.__all__
__all__ += layers.__all__
__all__ += losses.__all__
__all__ += normalization.__all__
__all__ += pooling.__all__
__all__ += positional.__all__
__all__ += recurrent.__all__
