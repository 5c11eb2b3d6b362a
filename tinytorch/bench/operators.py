"""Single operators against what bounds them: convolutions, attention, and what only moves memory.

A convolution's kernels are held against the multiply-add peak, launch by launch: the copies that turn the layout at
the borders of so small a function are told, and not counted, since inside a network there are none. FLOPs are those of
the direct method, whatever the kernels do, so Winograd's may pass the peak. What memory bounds is held against the rate
of a plain copy, as a whole call.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tinytorch.autograd import grad, value_and_grad
from tinytorch.compile import Compiled, compile
from tinytorch.look import units
from tinytorch.nn import functional as F
from tinytorch.tensor import Tensor

from . import limits, peers
from .rows import Row, Settings, Target, against
from .same import check_same
from .timing import Timing, interval, paired, seconds_of
from .work import inspect

IMAGES = 8  # of a convolution
CHANNELS = {32: 56, 64: 56, 128: 28, 256: 14}  # with height and width
PARTS = {"forward": 0.8, "gradient by input": 0.7, "gradient by weight": 0.7}  # with their targets
HEADS, HEAD_WIDTH = 8, 64
TIMES = (128, 256, 512, 1024, 2048)
ROWS, COLUMNS = 32768, 512  # 16 Mi elements
Function = Callable[..., Any]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers, the same each time."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convolution_functions() -> dict[str, Function]:
    """The three parts, as functions of input, weight and the gradient of the result."""
    dot: Function = lambda x, w, g: (F.conv2d(x, w, padding=1) * g).sum()
    return dict(zip(PARTS, (lambda x, w, g: F.conv2d(x, w, padding=1), grad(dot, 0), grad(dot, 1)), strict=True))


def convolution(settings: Settings) -> Iterator[Row]:
    """3×3, as many channels in as out, padding 1, against the multiply-add peak of as many threads."""
    peak, torch_calls = limits.peak(settings.threads), _torch_convolution(settings)
    for channels, size in CHANNELS.items():
        x, w = random(IMAGES, channels, size, size), random(channels, channels, 3, 3, seed=1) / channels
        flops = 2.0 * 9 * IMAGES * (size * channels) ** 2
        for part, function in convolution_functions().items():
            fast: Compiled = compile(function, threads=settings.threads)
            given = [Tensor(a) for a in (x, w, x)]
            ours: Callable[[], object] = lambda fast=fast, given=given: fast(*given)  # type: ignore[misc]
            sides = {"ours": ours} | {name: make(part, x, w) for name, make in torch_calls.items()}
            check_same(sides)
            found = paired(sides, settings.seconds / 4, settings.settle)
            kernels, best = _turns(fast, peak, settings)
            shares = peak.share(flops, kernels, best)
            note = (f"kernels {units.seconds(kernels.median)}, {units.rate(flops / kernels.median)} of "
                    f"{units.rate(peak.work / best.median)}; times are of the whole call")
            case = f"3×3 {part}, {channels} channels, {size}×{size}, {settings.with_threads}"
            yield Row("conv", case, statistics.median(shares), Target(PARTS[part], "%"), found.pop("ours"), found, "%",
                      note, interval(shares), work=inspect(fast, int(flops)))


def _turns(fast: Compiled, peak: limits.Limit, settings: Settings) -> tuple[Timing, Timing]:
    """Seconds of the launches that compute, and of the peak, in turns."""
    kernels, best = [], []
    for _ in range(5 if settings.quick else 15):
        kernels.append(sum(row.seconds for row in fast.explain(3).rows if row.cost.flops))
        best.append(min(seconds_of(peak.call) for _ in range(5)))  # in the first, workers may still have to wake
    return Timing(tuple(kernels)), Timing(tuple(best))


def _torch_convolution(settings: Settings) -> Mapping[str, Callable[..., Callable[[], Any]]]:
    if "torch" not in settings.peers:
        return {}
    torch = peers.torch(settings.threads)

    def make(part: str, x: np.ndarray, w: np.ndarray) -> Callable[[], Any]:
        image, weight, cotangent = torch.tensor(x), torch.tensor(w), torch.tensor(x)
        wanted = [part == "gradient by input", part == "gradient by weight", False]
        if not any(wanted):
            return lambda: torch.nn.functional.conv2d(image, weight, padding=1)
        backward = torch.ops.aten.convolution_backward
        return lambda: backward(cotangent, image, weight, [0], [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
                                wanted)[wanted.index(True)]

    return {"torch": make}


def attention(settings: Settings) -> Iterator[Row]:
    """Forward and backward, causal and not, against PyTorch's fused kernel; then how its memory grows with T."""
    memory = {}
    for causal in (True, False):
        for time in TIMES[::2] if settings.quick else TIMES:
            fast, sides = attention_sides(time, causal, settings)
            check_same(sides)
            found = paired(sides, settings.seconds, settings.settle)
            work = inspect(fast, HEADS * time, "rows")
            memory[time] = work.arena + work.scratch  # beside operands and results
            case = f"{'causal ' if causal else ''}attention, T {time}, forward and backward, {settings.with_threads}"
            yield against("attention", case, found, "torch", Target(1.3), work=work)
    small, large = TIMES[-3], TIMES[-1]
    yield Row("attention", f"extra memory, T {large} over T {small}", memory[large] / memory[small],
              Target(1.1 * large / small, at_most=True), note="linear: as T; quadratic: its square")


def attention_sides(time: int, causal: bool, settings: Settings) -> tuple[Compiled, dict[str, Callable[[], object]]]:
    """Ours compiled, and a call for each side that gives the result and the three gradients."""
    arrays = [random(1, HEADS, time, HEAD_WIDTH, seed=seed) for seed in range(4)]

    def loss(q: Any, k: Any, v: Any, g: Any) -> Any:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return (y * g).sum(), y

    both = value_and_grad(loss, (0, 1, 2), has_aux=True)

    def forward_and_backward(q: Any, k: Any, v: Any, g: Any) -> Any:
        (_, y), grads = both(q, k, v, g)
        return (y, *grads)

    fast: Compiled = compile(forward_and_backward, threads=settings.threads)
    given = list(map(Tensor, arrays))
    sides: dict[str, Callable[[], object]] = {"ours": lambda: fast(*given)}
    if "torch" in settings.peers:
        torch = peers.torch(settings.threads)
        *operands, cotangent = map(torch.tensor, arrays)
        for operand in operands:
            operand.requires_grad_()

        def theirs() -> object:
            y = torch.nn.functional.scaled_dot_product_attention(*operands, is_causal=causal)
            return (y.detach(), *torch.autograd.grad(y, operands, cotangent))

        sides["torch"] = theirs
    return fast, sides


def bandwidth_functions() -> dict[str, tuple[int, Function, Function]]:
    """By name: how many operands of 16 Mi elements it reads, ours, and PyTorch's with the module in front."""
    return {
        "copy": (1, lambda x: x.clone(), lambda torch, x: x.clone()),
        "transposed copy": (1, lambda x: x.transpose(0, 1).contiguous(), lambda torch, x: x.T.contiguous()),
        "sum of two": (2, lambda x, y: x + y, lambda torch, x, y: x + y),
        "multiply, add, ReLU": (1, lambda x: F.relu(x * 2 + 1), lambda torch, x: torch.relu(x * 2 + 1)),
        "GELU (tanh)": (1, lambda x: F.gelu(x, approximate="tanh"),
                        lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh")),
        "softmax": (1, lambda x: F.softmax(x, -1), lambda torch, x: torch.softmax(x, -1)),
        "layer norm": (1, lambda x: F.layer_norm(x, COLUMNS),
                       lambda torch, x: torch.nn.functional.layer_norm(x, (COLUMNS,))),
    }


def bandwidth(settings: Settings) -> Iterator[Row]:
    """Each over 16 Mi elements, (32768, 512), against a plain copy by as many threads."""
    copying = limits.copying(settings.threads)
    arrays = [random(ROWS, COLUMNS, seed=seed) for seed in (0, 1)]
    for name, (operands, function, theirs) in bandwidth_functions().items():
        fast: Compiled = compile(function, threads=settings.threads)
        given = [Tensor(array) for array in arrays[:operands]]
        sides: dict[str, Callable[[], object]] = {"ours": lambda fast=fast, given=given: fast(*given)}  # type: ignore[misc]
        if "torch" in settings.peers:
            torch = peers.torch(settings.threads)
            others = [torch.from_numpy(array) for array in arrays[:operands]]
            sides["torch"] = lambda torch=torch, theirs=theirs, others=others: theirs(torch, *others)  # type: ignore[misc]
        check_same(sides)
        found = paired(sides | {"copying": copying.call}, settings.seconds, settings.settle)
        moved = (operands + 1) * arrays[0].nbytes
        shares = copying.share(moved, found["ours"], found["copying"])
        yield Row("bandwidth", f"{name}, {settings.with_threads}", statistics.median(shares), Target(0.8, "%"),
                  found["ours"], {n: t for n, t in found.items() if n == "torch"}, "%", _rates(found, moved, copying),
                  interval(shares), work=inspect(fast, ROWS * COLUMNS, "elements"))


def _rates(found: Mapping[str, Timing], moved: int, copying: limits.Limit) -> str:
    ours, best = moved / found["ours"].median, copying.work / found["copying"].median
    return f"{units.bandwidth(ours)} of {units.bandwidth(best)}"
