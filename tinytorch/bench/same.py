"""All sides must compute the same before they are timed: `check_same({"ours": f, "torch": g})`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tinytorch.ir.errors import TinyTorchError

from .timing import seconds_of

ROOM = 1e-3  # of the largest number: an order of sums may differ, a formula not


class DifferentResults(TinyTorchError, ValueError):
    """Two sides of a comparison that do not compute the same; their times would mean nothing."""


def check_same(sides: Mapping[str, Callable[[], Any]], times: int = 1, room: float = ROOM) -> dict[str, float]:
    """Call each side `times` times; gives the seconds of each first call, in which it may compile.

    Results are tensors or arrays of any side, or tuples and lists of them. Raises DifferentResults where those of a
    side are not those of "ours" within the part `room` of the largest number.
    """
    first, given = {}, {}
    for name, call in sides.items():
        results: list[Any] = []
        first[name] = seconds_of(lambda call=call, results=results: results.append(call()))  # type: ignore[misc]
        results += [call() for _ in range(times - 1)]
        given[name] = [array for result in results for array in arrays(result)]
    for name, numbers in given.items():
        _compare(name, numbers, given["ours"], room)
    return first


def _compare(name: str, numbers: list[np.ndarray], ours: list[np.ndarray], room: float) -> None:
    shapes, expected = [array.shape for array in numbers], [array.shape for array in ours]
    if shapes != expected:
        raise DifferentResults(f"{name} gives results of shapes {shapes}, ours of {expected}: they must compute the "
                               "same, or their times mean nothing")
    for number, (array, own) in enumerate(zip(numbers, ours, strict=True)):
        off = float(np.max(np.abs(array - own), initial=0.0))
        if not off <= room * max(float(np.max(np.abs(own), initial=0.0)), 1e-30):
            raise DifferentResults(f"{name} and ours differ by up to {off:.3g} in result {number}, more than {room:g} "
                                   "of the largest number: they must compute the same, or their times mean nothing")


def arrays(result: Any) -> Iterator[np.ndarray]:
    """The numbers of a result of any side, as float64."""
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from arrays(part)
        return
    result = result.detach() if hasattr(result, "detach") else result
    yield np.asarray(result.numpy() if hasattr(result, "numpy") else result, np.float64)
