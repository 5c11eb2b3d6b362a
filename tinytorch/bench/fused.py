"""Pointwise islands and reductions as one kernel, against PyTorch eager: GELU, softmax, layer norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinytorch.compile import Compiled, compile
from tinytorch.nn import functional as F
from tinytorch.tensor import Tensor

from . import peers
from .rows import Row, Settings, Target, against
from .timing import paired


def gelu(settings: Settings) -> Iterator[Row]:
    """4 Mi elements: what memory and a vectorised tanh allow."""
    x = _random(2048, 2048)
    yield from _compare("gelu", f"GELU (tanh), 4 Mi elements, {settings.threads} threads", settings, x, Target(3.0),
                        lambda x: F.gelu(x, approximate="tanh"),
                        lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh"))


def rows(settings: Settings) -> Iterator[Row]:
    """Softmax and layer norm over 4096 rows of 512: one kernel each."""
    x = _random(4096, 512)
    scale, shift = _random(512), _random(512)
    yield from _compare("rows", "softmax (4096, 512)", settings, x, Target(1.5), lambda x: F.softmax(x, -1),
                        lambda torch, x: torch.softmax(x, -1), kernels=1)
    yield from _compare("rows", "layer norm (4096, 512)", settings, x, Target(1.5),
                        lambda x: F.layer_norm(x, 512, Tensor(scale), Tensor(shift)),
                        lambda torch, x: torch.nn.functional.layer_norm(x, (512,), torch.from_numpy(scale),
                                                                        torch.from_numpy(shift)), kernels=1)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _compare(workload: str, case: str, settings: Settings, x: np.ndarray, target: Target, ours: Callable[[Any], Any],
             theirs: Callable[[Any, Any], Any], kernels: int | None = None) -> Iterator[Row]:
    fast: Compiled = compile(ours, threads=settings.threads)
    given = Tensor(x)
    result = fast(given).numpy()
    calls: dict[str, Callable[[], object]] = {"ours": lambda: fast(given)}
    if "torch" in settings.peers:
        torch = peers.torch(settings.threads)
        other = torch.from_numpy(x)
        np.testing.assert_allclose(result, theirs(torch, other).numpy(), rtol=1e-4, atol=1e-5)
        calls["torch"] = lambda: theirs(torch, other)
    found = paired(calls, settings.seconds, settings.settle)
    yield against(workload, case, found, "torch", target)
    if kernels is not None:
        yield Row(workload, f"{case}: kernels", len(fast.program.steps), Target(kernels, "", at_most=True), unit="")


