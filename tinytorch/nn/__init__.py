"""Layers, losses and what they are made of. Names, conventions and state_dict keys are PyTorch's.

    >>> from tinytorch import nn
    >>> nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    Sequential(
      (0): Linear(in_features=784, out_features=128, bias=True)
      (1): ReLU()
      (2): Linear(in_features=128, out_features=10, bias=True)
    )
"""

from tinytorch.tensor import Parameter

from . import (
    activations, attention, containers, convolution, functional, gpt, init, layers, llama, losses, module,
    normalization, pooling, positional, recurrent, rewritten, summarize, transformer, utils,
)
from .activations import *
from .attention import *
from .containers import *
from .convolution import *
from .gpt import *
from .layers import *
from .llama import *
from .losses import *
from .module import *
from .normalization import *
from .pooling import *
from .positional import *
from .recurrent import *
from .rewritten import *
from .summarize import *
from .transformer import *

__all__ = ["Parameter", "functional", "init", "utils"]  # and what each file lists
__all__ += activations.__all__
__all__ += attention.__all__
__all__ += containers.__all__
__all__ += convolution.__all__
__all__ += gpt.__all__
__all__ += layers.__all__
__all__ += llama.__all__
__all__ += losses.__all__
__all__ += module.__all__
__all__ += normalization.__all__
__all__ += pooling.__all__
__all__ += positional.__all__
__all__ += recurrent.__all__
__all__ += rewritten.__all__
__all__ += summarize.__all__
__all__ += transformer.__all__
