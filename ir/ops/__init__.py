"""The vocabulary. `ops.add(x, y)` goes through the door: it computes, traces or records, as the interpreter says.

Every name here is an `Op` of the registry (plus the dtypes, `inf`, `nan` and `donates`, so that the text of a graph
runs as it stands).
"""

assert __name__ == "tinytorch.ir.ops", "import tinytorch.ir.ops, not the folder ir/ops: every op would exist twice"

from ..dtypes import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8
from ..op import registry as _registry
from .attention import *
from .cache import *
from .composite import *
from .contract import *
from .convolve import *
from .fused import *
from .index import *
from .integer import *
from .interleave import *
from .packed import *
from .pointwise import *
from .pool import *
from .quantize import *
from .random import *
from .reduce import *
from .source import *
from .sparse import *
from .view import *

inf, nan = float("inf"), float("nan")


def donates(**places: int):  # type: ignore[no-untyped-def]
    """Mark a function: its output of this number overwrites the input of this name (`@donates(w=1)`)."""
    def mark(function):  # type: ignore[no-untyped-def]
        function.donates = places
        return function

    return mark


__all__ = ["bf16", "bool_", "donates", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "inf", "nan", "u8", *_registry]
