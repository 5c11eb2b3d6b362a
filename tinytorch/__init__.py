"""tinytorch: a small graph compiler for machine learning that one can read, and a framework like PyTorch on top of it.

    >>> import tinytorch as tt
    >>> f = tt.compile(lambda x: (x * 2).exp().sum())
    >>> f(tt.tensor([0.0, 0.0]))
    tensor(2.)
"""

assert __name__ == "tinytorch", "import tinytorch, installed with pip install -e ."

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinytorch.ir import Graph, bf16, bool_, errors, f16, f32, f64, i8, i16, i32, i64, u8

from . import nn, optim
from .autograd import enable_grad, grad, is_grad_enabled, no_grad, value_and_grad
from .bench import bench
from .compile import compile, trace
from .creation import (arange, eye, from_numpy, full, full_like, linspace, ones, ones_like, rand, randint, randn,
                       randperm, tril, triu, zeros, zeros_like)
from .functional import (abs, argmax, cat, clip, concat, cos, exp, log, logaddexp, maximum, mean, minimum, sigmoid, sin,
                         softmax, sqrt, stack, sum, tanh, where)
from .generate import generate, stream
from .memory import memory_curve
from .profile import profile
from .prune import prune
from .random import manual_seed
from .store import load, save
from .tensor import Parameter, Tensor, as_tensor, matmul, tensor
from .transforms import hvp, jvp, vmap

if TYPE_CHECKING:
    from . import data, quant, text, train, zoo
    from .quant import quantize

__all__ = [
    "Graph", "Parameter", "Tensor", "abs", "arange", "argmax", "as_tensor", "bench", "bf16", "bool_", "cat", "clip",
    "compile", "concat", "cos", "data", "enable_grad", "errors", "exp", "eye", "f16", "f32", "f64", "from_numpy",
    "full", "full_like", "generate", "grad", "hvp", "i8", "i16", "i32", "i64", "is_grad_enabled", "jvp", "linspace",
    "load", "log", "logaddexp", "manual_seed", "matmul", "maximum", "mean", "memory_curve", "minimum", "nn",
    "no_grad", "ones", "ones_like", "optim", "profile", "prune", "quant", "quantize", "rand", "randint", "randn",
    "randperm", "save", "sigmoid", "sin", "softmax", "sqrt", "stack", "stream", "sum", "tanh", "tensor", "text",
    "trace", "train", "tril", "triu", "u8", "value_and_grad", "vmap", "where", "zeros", "zeros_like",
    "zoo",
]

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """`tt.data`, `tt.quant`, `tt.text`, `tt.train` and `tt.zoo` are imported when they are first asked for."""
    if name in ("data", "quant", "text", "train", "zoo"):
        return import_module(f"tinytorch.{name}")
    if name == "quantize":
        return import_module("tinytorch.quant").quantize
    raise AttributeError(f"module 'tinytorch' has no attribute {name!r}")
