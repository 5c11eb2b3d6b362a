"""Models on integers: `tt.quantize`, and what belongs to it.

    small = tt.quantize(model, images)           # bytes in, bytes out; see `quantize` for methods and choices
    small.report()
"""

from .quantized import Quantized, Report, quantize
from .store import load, save

__all__ = ["Quantized", "Report", "load", "quantize", "save"]
