"""Sizes that modules keep in attributes, after their tensors have shrunk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tinytorch.ir.types import Shape
from tinytorch.nn.activations import PReLU
from tinytorch.nn.attention import MultiheadAttention
from tinytorch.nn.convolution import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from tinytorch.nn.layers import Embedding, Linear
from tinytorch.nn.module import Module
from tinytorch.nn.normalization import BatchNorm1d, BatchNorm2d, GroupNorm

COUNT = re.compile(r"(|.*_)n?_?heads?")  # num_heads, n_head, num_kv_heads, heads; not head_dim


def refresh(model: Module, before: Mapping[str, Shape], heads: Sequence[tuple[Sequence[str], int, int]]) -> None:
    """Write the new sizes into the attributes of the modules inside.

    Args:
        before: the shapes of all tensors as they were, by path.
        heads: (layers, heads before, heads now) of each attention that has lost some. Whole numbers in attributes such
            as `num_heads` of the module around these layers shrink in proportion.
    """
    for path, module in model.named_modules():
        old = {name.rpartition(".")[2]: shape for name, shape in before.items() if name.rpartition(".")[0] == path}
        if any(getattr(module, name).shape != shape for name, shape in old.items()):
            _sizes(module, old)
    for layers, total, left in heads:
        _heads(model, layers, total, left)


def _heads(model: Module, layers: Sequence[str], total: int, left: int) -> None:
    """Shrink the counts of the innermost module around `layers` that has any."""
    path, *others = [layer.split(".") for layer in layers]
    while any(other[:len(path)] != path for other in others):
        path = path[:-1]
    for end in range(len(path), -1, -1):
        module = model.get_submodule(".".join(path[:end]))
        counts = {name: value for name, value in vars(module).items() if COUNT.fullmatch(name)
                  and type(value) is int and value % total == 0}
        for name, value in counts.items():
            setattr(module, name, value // total * left)
        if counts:
            return


def _sizes(module: Module, old: Mapping[str, Shape]) -> None:
    weight = getattr(module, "weight", None)
    if isinstance(module, Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, (Conv1d, Conv2d)):
        out, inner = module.weight.shape[:2]
        module.groups = module.groups * out // old["weight"][0] if module.groups > 1 else 1
        module.in_channels, module.out_channels = inner * module.groups, out
    elif isinstance(module, (ConvTranspose1d, ConvTranspose2d)):
        rows, part = module.weight.shape[:2]
        module.groups = module.groups * rows // old["weight"][0] if module.groups > 1 else 1
        module.in_channels, module.out_channels = rows, part * module.groups
    elif isinstance(module, (BatchNorm1d, BatchNorm2d)):
        module.num_features = next(getattr(module, name).shape[0] for name in old if len(old[name]) == 1)
    elif isinstance(module, GroupNorm) and weight is not None:
        module.num_groups = module.num_groups * weight.shape[0] // old["weight"][0]
        module.num_channels = weight.shape[0]
    elif isinstance(module, PReLU) and weight is not None:
        module.num_parameters = weight.shape[0]
    elif isinstance(module, MultiheadAttention):
        name = "in_proj_weight" if module.in_proj_weight is not None else "q_proj_weight"
        total, rows = old[name][0], getattr(module, name).shape[0]
        queries, keys, values = (size * rows // total for size in module.sizes)
        module.sizes = queries, keys, values
