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

from . import functional, init
from .activations import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from .containers import ModuleList, Sequential
from .layers import Dropout, Embedding, Flatten, Identity, LayerNorm, Linear
from .losses import CrossEntropyLoss, MSELoss
from .module import Module

__all__ = [
    "GELU", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten", "Identity", "LayerNorm", "LeakyReLU", "Linear",
    "LogSoftmax", "MSELoss", "Module", "ModuleList", "Parameter", "ReLU", "Sequential", "SiLU", "Sigmoid", "Softmax",
    "Softplus", "Tanh", "functional", "init",
]
