"""Models made smaller or cheaper, against the same as they were: static int8 (and ONNX Runtime's), half the channels,
blocks of zeros, bf16, a training step within half the memory."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tinytorch import data, nn, quant, zoo
from tinytorch.autograd import no_grad
from tinytorch.compile import compile, trace
from tinytorch.ir import graph_cost
from tinytorch.prune import prune, skip_zeros
from tinytorch.runtime.build import has
from tinytorch.store import save
from tinytorch.tensor import Tensor

from . import in_onnx
from .models import NETWORKS, trained, training_step
from .rows import Row, Settings, Target, against
from .same import check_same
from .timing import interval, paired
from .work import inspect

Array = np.ndarray
Split = Literal["train", "test"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # by channel, of what the trained ResNet-20 takes
CALIBRATION, BATCH = 512, 64  # images
SPARSE = ((512, 512), (1, 4096))  # rows of x, and the width of a layer


@dataclass(frozen=True)
class Case:
    """A trained model, with real images: (n, channels, height, width), and labels to score it on."""

    name: str
    make: Callable[[], Any]
    images: Callable[[Split], tuple[Array, Array]]


def _photographs(split: Split) -> tuple[Array, Array]:
    images, labels = data.cifar10(split)
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (MEAN, STD))
    return (images.astype(np.float32) / 255 - mean) / std, labels.astype(np.int64)


def _digits(split: Split) -> tuple[Array, Array]:
    try:
        return zoo.examples("lenet", split, full=True)
    except FileNotFoundError:
        return zoo.examples("lenet", split)


CASES = (Case("lenet", zoo.lenet, _digits),
         Case("cnn", zoo.cnn, lambda split: zoo.examples("cnn", split)),
         Case("resnet20", lambda: NETWORKS["resnet20"].make().eval(), _photographs))


def int8(settings: Settings) -> Iterator[Row]:
    """Each model: speed at batch 64, size of the file, accuracy; the ResNet against ONNX Runtime, too."""
    for case in CASES:
        try:
            images, _ = case.images("train")
        except FileNotFoundError as missing:
            yield Row("int8", f"{case.name}, int8", None, Target(2.0), note=f"no data: {str(missing).splitlines()[0]}")
            continue
        if case.name == "resnet20" and trained("resnet20") is None:
            yield Row("int8", "resnet20, int8", None, Target(2.0), note="the trained weights are not here")
            continue
        yield from _rows(case, images[:CALIBRATION], settings)


def _rows(case: Case, examples: Array, settings: Settings) -> Iterator[Row]:
    model = case.make()
    small = quant.quantize(model, examples)
    yield _speed(case.name, model, small, examples[:BATCH], settings)
    if case.name == "resnet20":
        for batch in (1, BATCH):
            yield _against_onnx(small, examples, batch, settings)
    yield _size(case.name, model, small)
    yield _accuracy(case, model, small)


def _speed(name: str, model: Any, small: Any, images: Array, settings: Settings) -> Row:
    x = Tensor(np.ascontiguousarray(images))
    fast, ours = (compile(m, pipeline="infer", threads=settings.threads) for m in (model, small))
    with no_grad():
        found = paired({"ours": lambda: ours(x), "f32": lambda: fast(x)}, settings.seconds, settings.settle)
        case = f"{name} in int8 against our f32, batch {len(images)}, {settings.with_threads}"
        return against("int8", case, found, "f32", Target(2.0), work=inspect(ours, len(images), "images"))


def _against_onnx(small: Any, examples: Array, batch: int, settings: Settings) -> Row:
    network = NETWORKS["resnet20"]
    x = Tensor(network.batch(batch)[0])
    ours = compile(small, pipeline="infer", threads=settings.threads)
    sides: dict[str, Callable[[], Any]] = {"ours": lambda: ours(x)}
    if "onnxruntime" in settings.peers:
        given = [examples[at:at + batch] for at in range(0, min(len(examples), 8 * batch), batch)]
        sides["onnxruntime"] = in_onnx.quantized(network, batch, settings.threads, given)
    with no_grad():
        found = paired(sides, settings.seconds, settings.settle)
    case = f"resnet20 in int8, batch {batch}, {settings.with_threads}, against ONNX Runtime in int8"
    return against("int8", case, found, "onnxruntime", Target(1.3))


def _size(name: str, model: Any, small: Any) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        whole, packed = Path(folder, "f32.safetensors"), Path(folder, "int8.safetensors")
        save(model.state_dict(), whole)
        quant.save(small, packed)
        before, after = whole.stat().st_size, packed.stat().st_size
    return Row("int8", f"{name}: file in f32 over file in int8", before / after, Target(3.8),
               note=f"{before:,} and {after:,} bytes")


def _accuracy(case: Case, model: Any, small: Any) -> Row:
    images, labels = case.images("test")
    whole, packed = (zoo.score(compile(m, pipeline="infer"), images, labels, batch=250).accuracy
                     for m in (model, small))
    return Row("int8", f"{case.name}: accuracy lost in int8, {len(images):,} test images", max(0.0, whole - packed),
               Target(0.005, "points", at_most=True), unit="points",
               note=f"{100 * whole:.2f} % in f32, {100 * packed:.2f} % in int8")


def pruned(settings: Settings) -> Iterator[Row]:
    """The CNN of the zoo with half the channels of each convolution (examples/prune_cnn trains them on), and layers
    that pass over blocks of zeros."""
    model, x = zoo.cnn(), Tensor(NETWORKS["cnn"].batch(BATCH)[0])
    small = prune(model, 0.5, "channels", examples=x)
    before, after = (graph_cost(trace(m, x)).flops for m in (model, small))
    yield Row("pruned", "cnn: FLOPs, over those with half the channels", before / after, Target(2.5),
              note=f"{before:,} and {after:,}")
    whole, half = (compile(m.eval(), pipeline="infer", threads=settings.threads) for m in (model, small))
    with no_grad():
        found = paired({"ours": lambda: half(x), "whole": lambda: whole(x)}, settings.seconds, settings.settle)
        yield against("pruned", f"cnn with half the channels, batch {BATCH}, {settings.with_threads}", found, "whole",
                      Target(2.0), work=inspect(half, BATCH, "images"))
    yield from _sparse(settings)


def _sparse(settings: Settings) -> Iterator[Row]:
    for rows, width in SPARSE:
        layer = prune(nn.Linear(width, width).eval(), 0.75, "blocks")
        x = Tensor(np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32))
        whole, few = (compile(m, pipeline="infer", threads=settings.threads) for m in (layer, skip_zeros(layer)))
        with no_grad():
            sides: dict[str, Callable[[], Any]] = {"ours": partial(few, x), "dense": partial(whole, x)}
            check_same(sides)
            found = paired(sides, settings.seconds, settings.settle)
        case = f"{rows} × {width} × {width}, 75 % of the weight's blocks zeros, against dense"
        yield against("pruned", f"{case}, {settings.with_threads}", found, "dense", Target(2.5))


def bf16(settings: Settings) -> Iterator[Row]:
    """Inference from bf16 operands against f32; the results must agree within what rounding allows."""
    told = "" if has("avx512bf16") else "this machine has no dot products of bf16"
    wide = nn.Sequential(nn.Linear(1024, 4096), nn.GELU(), nn.Linear(4096, 1024))
    inputs = np.random.default_rng(0).standard_normal((256, 1024)).astype(np.float32)
    gpt = NETWORKS["gpt"]
    for name, model, given in ("MLP 1024-4096-1024, batch 256", wide, inputs), (gpt.name, gpt.make(), gpt.batch(16)[0]):
        x = Tensor(given)
        whole, half = (compile(model.eval(), threads=settings.threads, precision=p) for p in ("f32", "bf16"))
        with no_grad():
            sides = {"ours": partial(half, x), "f32": partial(whole, x)}
            check_same(sides, room=0.05)
            found = paired(sides, settings.seconds, settings.settle)
        yield against("bf16", f"{name}, bf16 against f32, {settings.with_threads}", found, "f32",
                      None if told else Target(1.5), told)


def budget(settings: Settings) -> Iterator[Row]:
    """A GPT training step within half the memory of its intermediates."""
    network = NETWORKS["gpt"]
    x, labels = map(Tensor, network.batch(16))
    free, half = (compile(training_step(network.make(), network.classes), threads=settings.threads, memory=part)
                  for part in (None, 0.5))
    sides: dict[str, Callable[[], Any]] = {"ours": lambda: half(x, labels), "free": lambda: free(x, labels)}
    check_same(sides)
    found = paired(sides, settings.seconds, settings.settle)
    before, after = (f.program.plan.size for f in (free, half))
    ratios = [1 / ratio for ratio in found["ours"].ratios(found["free"])]
    yield Row("budget", "gpt training step: its arena within half", after / before, Target(0.5, "%", at_most=True),
              unit="%", note=f"{after:,} of {before:,} bytes")
    yield Row("budget", f"gpt training step within half the memory: time over that without, {settings.with_threads}",
              statistics.median(ratios), Target(1.35, at_most=True), found["ours"], {"free": found["free"]},
              interval=interval(ratios))
