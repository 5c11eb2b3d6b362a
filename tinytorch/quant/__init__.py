"""Models on integers: `tt.quantize`, and what belongs to it.

    small = tt.quantize(model, images)           # bytes in, bytes out; see `quantize` for methods and choices
    small.report()
"""

from .quantized import Quantized, Report, quantize
from .sensitivity import Sensitivity, sensitivity
from .store import load, save
from .training import Prepared, prepare
from .weights import SmallerWeights, quantize_weights

__all__ = ["Prepared", "Quantized", "Report", "Sensitivity", "SmallerWeights", "load", "prepare", "quantize",
           "quantize_weights", "save", "sensitivity"]
