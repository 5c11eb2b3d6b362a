"""Modules against PyTorch's of the same name and weights: results, gradients, buffers; eager = traced = compiled."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

import tinytorch as tt
from tinytorch import nn


def near(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Equal in shape and, within rounding, numbers."""
    actual, expected = (np.asarray(t.detach().numpy() if hasattr(t, "detach") else t) for t in (actual, expected))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def leaves(results: Any) -> list[Any]:
    """All tensors in nested tuples of results, None left out."""
    if isinstance(results, (tuple, list)):
        return [leaf for part in results for leaf in leaves(part)]
    return [] if results is None else [results]


def check_module(make: Callable[[Any], Any], inputs: Sequence[np.ndarray], torch: ModuleType, *,
                 train: bool = True, tolerance: float = 2e-5, compiled: bool = True, same_repr: bool = True) -> None:
    """`make(nn)` against `make(torch.nn)`: repr, state_dict keys, results, gradients of inputs and parameters, buffers.

    Args:
        make: builds the module from `nn` or `torch.nn`.
        inputs: arrays for forward; those of floating point are differentiated.
        train: the mode of both modules.
        compiled: whether to run it compiled too (each new kernel costs compile time when the cache is cold).
    """
    torch.manual_seed(0)
    ours, theirs = make(nn).train(train), make(torch.nn).train(train)
    assert not same_repr or repr(ours) == repr(theirs).replace(", inplace=False", "")
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    for b in theirs.buffers():  # as training leaves them: any numbers, above 0 since some are variances
        if b.is_floating_point():
            torch.nn.init.uniform_(b, 0.5, 2.0)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    start = {key: np.array(value.numpy()) for key, value in ours.state_dict().items()}
    given, theirs_given = [tt.tensor(x) for x in inputs], [torch.tensor(x) for x in inputs]
    for x, t in zip(given, theirs_given, strict=True):
        if x.dtype.is_float:
            x.requires_grad_()
            t.requires_grad_()
    results, expected = leaves(ours(*given)), leaves(theirs(*theirs_given))
    assert len(results) == len(expected)
    for y, e in zip(results, expected, strict=True):
        near(y, e, tolerance)
    _gradients(ours, given, results, theirs, theirs_given, expected, tolerance * 5)
    _buffers(ours, theirs, tolerance)
    for run in [_traced, *([tt.compile] if compiled else [])]:
        ours.load_state_dict(start)
        for y, e in zip(leaves(run(ours)(*[tt.tensor(x) for x in inputs])), expected, strict=True):
            near(y, e, tolerance)
        if run is tt.compile:
            _buffers(ours, theirs, tolerance)


def _traced(module: Any) -> Callable[..., Any]:
    """The reference meaning of the traced graph; what it writes into buffers comes after the results."""

    def run(*inputs: Any) -> Any:
        results = tt.trace(module, *inputs)(*[x.numpy() for x in inputs])
        return results if not isinstance(results, (tuple, list)) else results[:_count(module, inputs)]

    return run


def _count(module: Any, inputs: Sequence[Any]) -> int:
    state = {key: np.array(value.numpy()) for key, value in module.state_dict().items()}
    count = len(leaves(module(*inputs)))
    module.load_state_dict(state)
    return count


def _gradients(ours: Any, given: Sequence[Any], results: Sequence[Any], theirs: Any, theirs_given: Sequence[Any],
               expected: Sequence[Any], tolerance: float) -> None:
    random = np.random.default_rng(1)
    pairs = [(y, e) for y, e in zip(results, expected, strict=True) if e.requires_grad]
    if not pairs:
        return
    total: Any = 0.0
    theirs_total: Any = 0.0
    for y, e in pairs:
        assert y.requires_grad
        weights = random.standard_normal(y.shape).astype(y.dtype.np)
        total = total + (y * tt.tensor(weights)).sum()
        theirs_total = theirs_total + (e * e.new_tensor(weights)).sum()
    total.backward()
    theirs_total.backward()
    for p, q in zip([*given, *ours.parameters()], [*theirs_given, *theirs.parameters()], strict=True):
        assert (p.grad is None) == (q.grad is None)
        if q.grad is not None:
            near(p.grad, q.grad, tolerance)


def _buffers(ours: Any, theirs: Any, tolerance: float) -> None:
    for (name, b), (other, q) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert name == other
        near(b, q, tolerance)
