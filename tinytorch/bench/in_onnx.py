"""The networks of `models` in ONNX Runtime, for inference: `inference(NETWORKS["resnet20"], batch=1, threads=2)`.

`quantized` is the same in static int8: u8 activations, i8 weights with a scale for each channel, in the QDQ format, the
setting that ONNX Runtime's documentation recommends for x86 with VNNI.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import in_torch
from .models import Network


def inference(wanted: Network, batch: int, threads: int) -> Callable[[], Any]:
    """Logits of `wanted.batch(batch)`: all graph optimisations, as many threads within an operator, one operator at a
    time, which are its defaults for the CPU but for the number."""
    x = wanted.batch(batch)[0]
    session = _session(in_torch.onnx_model(wanted, batch), threads)
    return lambda: session.run(None, {"x": x})[0]


def quantized(wanted: Network, batch: int, threads: int, examples: Sequence[np.ndarray]) -> Callable[[], Any]:
    """Logits of `wanted.batch(batch)` in int8, with ranges from `examples`, arrays of inputs of that batch."""
    tools = importlib.import_module("onnxruntime.quantization")
    onnx = importlib.import_module("onnx")
    logging.getLogger().addFilter(_no_hint)
    model = onnx.load_model_from_string(in_torch.onnx_model(wanted, batch))
    with tempfile.TemporaryDirectory() as folder:
        source, ready, found = (f"{folder}/{name}.onnx" for name in ("source", "ready", "int8"))
        onnx.save(model, source)
        tools.shape_inference.quant_pre_process(source, ready)  # folds batch norms, as its documentation asks for
        tools.quantize_static(ready, found, _Reader(examples), quant_format=tools.QuantFormat.QDQ, per_channel=True,
                              activation_type=tools.QuantType.QUInt8, weight_type=tools.QuantType.QInt8)
        session = _session(found, threads)
    x = wanted.batch(batch)[0]
    return lambda: session.run(None, {"x": x})[0]


class _Reader:
    """Inputs one after the other, as its calibration wants them."""

    def __init__(self, examples: Sequence[np.ndarray]) -> None:
        self.left = iter(examples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next, or None at the end."""
        x = next(self.left, None)
        return None if x is None else {"x": x}


def _no_hint(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()


def _session(model: Any, threads: int) -> Any:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model, options, ["CPUExecutionProvider"])
