"""The benchmarks by name: `tito bench NAME`."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence

from tinytorch.ir import config

from . import decoding, footprint, fused, gemm, networks, operators, smaller, startup, training
from .rows import Row, Settings, Workload

WORKLOADS = {workload.name: workload for workload in (
    *(networks.train(name) for name in networks.TRAINED),
    *(networks.infer(name) for name in networks.INFERRED),
    Workload("conv", "3×3 convolutions of 32 to 256 channels and their gradients, against the multiply-add peak",
             operators.convolution, "Operators"),
    Workload("attention", "attention of 8 heads of 64, forward and backward, against PyTorch's fused kernel",
             operators.attention, "Operators"),
    Workload("bandwidth", "pointwise, softmax, layer norm and copies over 16 Mi elements, against a plain copy",
             operators.bandwidth, "Operators"),
    Workload("int8", "trained networks in static int8, against our f32 and ONNX Runtime's int8, and what they lose",
             smaller.int8, "Smaller models"),
    Workload("pruned", "a CNN with half its channels, against the whole one", smaller.pruned, "Smaller models"),
    Workload("bf16", "inference from bf16 operands, against our f32", smaller.bf16, "Smaller models"),
    Workload("budget", "a GPT training step within half of its memory, against the same with all of it",
             smaller.budget, "Start-up and memory"),
    Workload("decode", "one more token of a decoder, against PyTorch eager with a hand-written cache", decoding.decode,
             "Decoding"),
    Workload("packed", "one more token from weights of 8 and 4 bits, against f32, memory and llama.cpp",
             decoding.packed, "Decoding"),
    Workload("first-call", "the first training step of a new process, with a cold and a warm kernel cache",
             startup.first_call, "Start-up and memory"),
    Workload("overhead", "what a training step takes beside its kernels", startup.overhead, "Start-up and memory"),
    Workload("memory", "peak memory of the CNN and GPT training steps, against PyTorch eager", footprint.memory,
             "Start-up and memory"),
    Workload("import", "import tinytorch", startup.importing, "Start-up and memory"),
    Workload("call", "the cost of calling a compiled graph of ten tiny nodes", startup.call, "Start-up and memory"),
    Workload("gemm-peak", "matrix products of one thread against the measured multiply-add peak", gemm.gemm_peak,
             "Products and small steps"),
    Workload("gemm-numpy", "matrix products of many shapes and layouts against NumPy's BLAS", gemm.gemm_numpy,
             "Products and small steps"),
    Workload("gelu", "GELU over 4 Mi elements as one kernel, against PyTorch eager", fused.gelu,
             "Products and small steps"),
    Workload("rows", "softmax and layer norm over (4096, 512), against PyTorch eager", fused.rows,
             "Products and small steps"),
    Workload("step", "a whole Adam step of an MLP, compiled, against PyTorch eager, torch.compile and JAX jit",
             training.step, "Products and small steps"),
    Workload("eager", "the same step, eager, against PyTorch eager", training.eager, "Products and small steps"),
)}


def run(names: Sequence[str], settings: Settings) -> Iterator[Row]:
    """The rows of these workloads, as they come."""
    for name in names:
        yield from WORKLOADS[name].run(settings)


def attempt(name: str, settings: Settings) -> tuple[list[Row], bool]:
    """The rows of a workload, and whether it came to its end: an error is a row too, so that the others go on."""
    rows: list[Row] = []
    try:
        rows += WORKLOADS[name].run(settings)
    except Exception as error:
        if config.debug():
            traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        return [*rows, Row(name, "failed", None, note=f"{type(error).__name__}: {first}")], False
    return rows, True
