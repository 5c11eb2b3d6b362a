"""What ours is compared with, where it is installed: PyTorch, torch.compile, JAX, ONNX Runtime, llama.cpp.

The work they do stands in `in_torch`, `in_jax`, `in_onnx` and `in_llama`. PyTorch's threads are set by
`torch.set_num_threads`, ONNX Runtime's by each session, llama.cpp's by each model. JAX has no such call: its CPU client
uses the cores of the process, so `jax()` imports it with `XLA_FLAGS` for one thread, or leaves it all cores.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

# By name, what must be importable; ONNX Runtime gets its models from PyTorch's exporter, which needs onnx.
PEERS = {"torch": ("torch",), "torch-compile": ("torch",), "jax": ("jax",),
         "onnxruntime": ("onnxruntime", "torch", "onnx"), "llama.cpp": ("llama_cpp", "gguf")}
# Whose versions figures depend on.
PACKAGES = ("numpy", "numba", "torch", "jax", "onnxruntime", "llama_cpp_python", "threadpoolctl")


def version(package: str) -> str | None:
    """The version that is installed, or None; nothing is imported."""
    from importlib import metadata  # slow enough that `import tinytorch` should not wait for it

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def missing(peer: str) -> list[str]:
    """What a peer of `PEERS` needs and is not installed."""
    return [package for package in PEERS[peer] if importlib.util.find_spec(package) is None]


def installed(peer: str) -> bool:
    """Whether a peer of `PEERS` can be imported."""
    return not missing(peer)


def torch(threads: int) -> Any:
    """The module, with its threads set."""
    module = importlib.import_module("torch")
    module.set_num_threads(threads)
    return module


def jax(threads: int) -> Any:
    """The module, set up for the CPU."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads == 1:
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    return importlib.import_module("jax")
