"""Do two graphs mean the same? Evaluate both on the same random inputs, and compare.

    check_same_meaning(before, after, np.random.default_rng(0))     # returns, or raises PassError

Floating point inputs are drawn from the normal distribution, integers are 0 or 1 (valid as indices and labels nearly
everywhere), and bound inputs keep their own arrays. A pass may add and reorder floating point operations, so results
are compared up to a few roundings of their dtype, relative to the greatest number of each output; nan equals nan, and
infinities must be the same.

    >>> from tinytorch.ir import Builder, f32
    >>> build = Builder()
    >>> with build: y = build.input("x", f32[2]) * 1.0
    >>> check_same_meaning(build.finish([y]), build.finish([y]))
"""

from __future__ import annotations

import numpy as np

from tinytorch.ir import DType, Graph
from tinytorch.ir.errors import PassError, TinyTorchError

TOLERANCE = {"f64": 1e-9, "f32": 2e-4, "f16": 2e-2, "bf16": 1e-1}


def check_same_meaning(before: Graph, after: Graph, rng: np.random.Generator | None = None,
                       tolerance: float | None = None) -> None:
    """Raise PassError if `before` and `after` differ on random inputs.

    Args:
        before, after: graphs of the same signature (free inputs and outputs).
        rng: where inputs are drawn from; seed 0 if None.
        tolerance: allowed error relative to the greatest element of each output; None: a few roundings of its dtype.
    Raises:
        PassError: the signatures differ, `after` fails where `before` does not, or an output differs; names it with its
        greatest error.
    """
    if not same_signature(before, after):
        raise PassError(f"signatures differ: {before!r} {_signature(before)} and {after!r} {_signature(after)}")
    arrays, expected = _evaluate_somehow(before, rng or np.random.default_rng(0))
    if expected is not None:
        compare_results(expected, results(after, arrays), after, tolerance)


def compare_results(expected: list[np.ndarray], found: list[np.ndarray], graph: Graph,
                    tolerance: float | None = None) -> None:
    """Raise PassError naming the first of `graph`'s outputs whose `found` value is not the `expected` one."""
    for number, (want, got) in enumerate(zip(expected, found, strict=True)):
        value = graph.outputs[number]
        error = difference(want, got)
        limit = TOLERANCE.get(value.dtype.name, 0.0) if tolerance is None else tolerance
        if want.shape != got.shape or want.dtype != got.dtype or error > limit:
            raise PassError(f"output {number} ({graph.names[value]}: {value.type}) differs by {error:.3g} of its "
                            f"greatest element "
                            f"({want.dtype}{want.shape} expected, {got.dtype}{got.shape} found)\n{excerpt(graph)}")


def difference(want: np.ndarray, got: np.ndarray) -> float:
    """The greatest difference, relative to the greatest finite number in `want` (or 1);
    inf where nan or infinities disagree."""
    if want.shape != got.shape:
        return np.inf
    if want.dtype.kind in "iub":
        return float(np.count_nonzero(want != got))
    a, b = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
        return np.inf
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(1.0, np.abs(a[finite]).max()))


def same_signature(before: Graph, after: Graph) -> bool:
    """Whether both take the same free inputs and give the same outputs, by type."""
    return _signature(before) == _signature(after)


def _signature(graph: Graph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(str(v.type) for v in graph.free), tuple(str(v.type) for v in graph.outputs)


def random_inputs(graph: Graph, rng: np.random.Generator, greatest_integer: int = 1) -> list[np.ndarray]:
    """An array for each free input of `graph`."""
    return [random_array(v.dtype, v.shape, rng, greatest_integer) for v in graph.free]


def random_array(dtype: DType, shape: tuple[int, ...], rng: np.random.Generator,
                 greatest_integer: int = 1) -> np.ndarray:
    """Normal numbers, or integers from 0 to `greatest_integer`, or truth values."""
    if dtype.is_float:
        return np.asarray(rng.standard_normal(shape)).astype(dtype.np)
    greatest = 1 if dtype.kind == "b" else greatest_integer
    return np.asarray(rng.integers(0, greatest, shape, endpoint=True)).astype(dtype.np)


def results(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of `graph`, as a list even if there is one."""
    found = graph(*arrays)
    return list(found) if len(graph.outputs) != 1 else [found]


def _evaluate_somehow(graph: Graph, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Inputs that `graph` accepts and its results: integers are 0 where 1 is no valid index;
    None if it takes neither."""
    arrays: list[np.ndarray] = []
    for greatest in (1, 0):
        arrays = random_inputs(graph, rng, greatest)
        try:
            return arrays, results(graph, arrays)
        except (IndexError, TinyTorchError):
            continue
    return arrays, None


def excerpt(graph: Graph, lines: int = 60) -> str:
    """The text of a graph, cut in the middle if it is long."""
    text = str(graph).splitlines()
    if len(text) > lines:
        text = [*text[: lines // 2], f"    … {len(text) - lines} lines …", *text[-lines // 2:]]
    return "\n".join(text)
