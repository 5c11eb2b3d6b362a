"""The benchmarks by name: `tito bench NAME`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import fused, gemm, startup, training
from .rows import Row, Settings, Workload

WORKLOADS = {workload.name: workload for workload in (
    Workload("gemm-peak", "matrix products of one thread against the measured multiply-add peak", gemm.gemm_peak),
    Workload("gemm-numpy", "matrix products of many shapes and layouts against NumPy's BLAS", gemm.gemm_numpy),
    Workload("gelu", "GELU over 4 Mi elements as one kernel, against PyTorch eager", fused.gelu),
    Workload("rows", "softmax and layer norm over (4096, 512), against PyTorch eager", fused.rows),
    Workload("step", "a whole Adam step of an MLP, compiled, against PyTorch eager, torch.compile and JAX jit",
             training.step),
    Workload("eager", "the same step, eager, against PyTorch eager", training.eager),
    Workload("call", "the cost of calling a compiled graph of ten tiny nodes", startup.call),
    Workload("first-call", "the first step of a new process, with a cold and a warm kernel cache", startup.first_call),
    Workload("import", "import tinytorch", startup.importing),
)}


def run(names: Sequence[str], settings: Settings) -> Iterator[Row]:
    """The rows of these workloads, as they come."""
    for name in names:
        yield from WORKLOADS[name].run(settings)
