"""From samples to batches: `collate([(x0, y0), (x1, y1)])` gives `(x, y)`, and `as_tensors` makes tensors of arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinytorch.creation import from_numpy
from tinytorch.ir.errors import ShapeError


def collate(samples: Sequence[Any]) -> Any:
    """Put samples together, field by field: tuples and dicts stay what they are, of arrays `(n, ...)`.

    Arrays, tensors and numbers are stacked; as in `tensor`, Python floats become f32 and integers i64. Strings and
    whatever else make a list. Raises `ShapeError` for samples of different shapes or lengths.

    >>> collate([(1, 0.5, "a"), (2, 1.5, "b")])
    (array([1, 2]), array([0.5, 1.5], dtype=float32), ['a', 'b'])
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        if len({len(sample) for sample in samples}) > 1:
            raise ShapeError(f"samples of {sorted({len(sample) for sample in samples})} fields in one batch; {_HELP}")
        return rebuild(first, [collate(field) for field in zip(*samples)])
    if isinstance(first, int | float) and not isinstance(first, np.generic):
        numbers = np.array(samples)
        return numbers.astype(np.float32) if numbers.dtype == np.float64 else numbers
    if hasattr(first, "__array__"):  # ours, NumPy's, and those of other libraries
        arrays = [np.asarray(sample) for sample in samples]
        if len({array.shape for array in arrays}) > 1:
            shapes = ", ".join(str(shape) for shape in sorted({array.shape for array in arrays})[:4])
            raise ShapeError(f"samples of different shapes in one batch: {shapes}; {_HELP}")
        return np.stack(arrays)
    return list(samples)


_HELP = "make them alike in the data set, or say with collate_fn=... how to put them together"


def as_tensors(batch: Any) -> Any:
    """The batch with every array in it as a Tensor that shares its memory.

    >>> as_tensors({"x": np.ones(2, np.float32), "name": ["a", "b"]})
    {'x': tensor([1., 1.]), 'name': ['a', 'b']}
    """
    if isinstance(batch, np.ndarray):
        return from_numpy(np.asarray(batch, order="C"))
    if isinstance(batch, dict):
        return {key: as_tensors(value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return rebuild(batch, [as_tensors(field) for field in batch])
    return [as_tensors(field) for field in batch] if isinstance(batch, list) else batch


def rebuild(like: Any, fields: Sequence[Any]) -> Any:
    """A tuple of these fields, of the same class where `like` is a NamedTuple.

    >>> rebuild([0, 0], [1, 2])
    (1, 2)
    """
    return type(like)(*fields) if hasattr(like, "_fields") else tuple(fields)
