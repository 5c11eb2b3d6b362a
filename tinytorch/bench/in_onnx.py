"""The networks of `models` in ONNX Runtime, for inference: `inference(NETWORKS["resnet20"], batch=1, threads=2)`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from . import in_torch
from .models import Network


def inference(wanted: Network, batch: int, threads: int) -> Callable[[], Any]:
    """Logits of `wanted.batch(batch)`: all graph optimisations, as many threads within an operator, one operator at a
    time, which are its defaults for the CPU but for the number."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(in_torch.onnx_model(wanted, batch), options, ["CPUExecutionProvider"])
    x = wanted.batch(batch)[0]
    return lambda: session.run(None, {"x": x})[0]
