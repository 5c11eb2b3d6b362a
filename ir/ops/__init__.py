"""The vocabulary. `ops.add(x, y)` goes through the door: it computes, traces or records, as the current interpreter says.

Every name here is an `Op` of the registry (plus the dtypes, `inf`, `nan` and `donates`, so that the text of a graph runs as it stands).
"""

assert __name__ == "tinytorch.ir.ops", "import tinytorch.ir.ops, not the folder ir/ops: two copies of every op would not be equal"

from ..dtypes import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8
from ..op import registry as _registry
from . import composite as _composite, contract as _contract, fused as _fused, index as _index, pointwise as _pointwise
from . import random as _random, reduce as _reduce, source as _source, view as _view
from .composite import *  # noqa: F403
from .contract import *  # noqa: F403
from .fused import *  # noqa: F403
from .index import *  # noqa: F403
from .pointwise import *  # noqa: F403
from .random import *  # noqa: F403
from .reduce import *  # noqa: F403
from .source import *  # noqa: F403
from .view import *  # noqa: F403

inf, nan = float("inf"), float("nan")


def donates(**places: int):  # type: ignore[no-untyped-def]
    """Mark a function: its output of this number overwrites the input of this name (`@donates(w=1)`)."""
    def mark(function):  # type: ignore[no-untyped-def]
        function.donates = places
        return function

    return mark


__all__ = ["bf16", "bool_", "donates", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "inf", "nan", "u8", *_registry]
