"""The element types. `f32[64, 784]` is the type of a tensor; `as_dtype` takes what users write.

Promotion is NumPy's own (`np.result_type`, with Python scalars weak as in NEP 50), so there is no table here.
f16 and bf16 are storage types: kernels compute in f32 and round when they store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from .errors import DTypeError, listing

if TYPE_CHECKING:
    from .types import TensorType


@dataclass(frozen=True, eq=False)
class DType:
    """One element type: `name` as printed, NumPy's dtype of the same meaning in `np`."""

    name: str
    np: np.dtype[Any]
    kind: str  # "f" float, "i" signed, "u" unsigned, "b" bool

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.np.itemsize

    @property
    def is_float(self) -> bool:
        """Whether gradients flow through values of this type."""
        return self.kind == "f"

    def __getitem__(self, shape: int | tuple[int, ...]) -> TensorType:
        from .types import TensorType

        return TensorType(self, shape if isinstance(shape, tuple) else (shape,))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)


f32 = DType("f32", np.dtype(np.float32), "f")
f64 = DType("f64", np.dtype(np.float64), "f")
f16 = DType("f16", np.dtype(np.float16), "f")
bf16 = DType("bf16", np.dtype(ml_dtypes.bfloat16), "f")
i8 = DType("i8", np.dtype(np.int8), "i")
i16 = DType("i16", np.dtype(np.int16), "i")
i32 = DType("i32", np.dtype(np.int32), "i")
i64 = DType("i64", np.dtype(np.int64), "i")
u8 = DType("u8", np.dtype(np.uint8), "u")
bool_ = DType("bool", np.dtype(np.bool_), "b")

ALL = (f32, f64, f16, bf16, i8, u8, i16, i32, i64, bool_)
_BY_KEY: dict[Any, DType] = {d.name: d for d in ALL} | {d.np: d for d in ALL}
_BY_KEY |= {"float32": f32, "float64": f64, "float16": f16, "bfloat16": bf16, "int8": i8, "int16": i16, "int32": i32,
            "int64": i64, "uint8": u8, float: f32, int: i64, bool: bool_}


def as_dtype(spec: object) -> DType:
    """The DType that `spec` names: a DType, "f32", "float32", np.float32, np.dtype, or float (f32), int (i64), bool.

    Raises:
        DTypeError: there is no such element type here.
    """
    if isinstance(spec, DType):
        return spec
    found = _BY_KEY.get(spec)
    if found is None:
        try:
            found = _BY_KEY.get(np.dtype(spec))  # type: ignore[call-overload]
        except TypeError:
            found = None
    if found is None:
        raise DTypeError(f"{spec!r} is not a dtype of tinytorch; expected one of {listing(d.name for d in ALL)}")
    return found
