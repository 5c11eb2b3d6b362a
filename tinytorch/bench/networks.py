"""Whole networks against every peer: training steps (`train`) and inference (`infer`).

All sides begin with the same weights, get the same batch and must give the same losses or logits before any of them is
timed. Then all take turns in one run, and the figure is against the fastest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tinytorch.autograd import no_grad
from tinytorch.compile import Compiled, compile
from tinytorch.tensor import Tensor

from . import in_jax, in_onnx, in_torch, models
from .models import NETWORKS, Network
from .rows import Row, Settings, Target, Workload, against
from .same import check_same
from .timing import paired
from .work import inspect

Call = Callable[[], object]
TRAINED = {"mlp": 64, "cnn": 64, "gpt": 16}  # with their batches
INFERRED = {**{name: (size,) for name, size in TRAINED.items()}, "resnet20": (1, 64), "mobilenet": (1, 64)}
FRAMEWORKS = ("torch", "torch-compile", "jax")
LOSSES = 3  # steps whose losses are compared


def training_sides(network: Network, batch: int, settings: Settings) -> tuple[Compiled, dict[str, Call]]:
    """Our compiled step, and a call for each side that does a step and gives the loss."""
    fast: Compiled = compile(models.training_step(network.make(), network.classes), threads=settings.threads)
    x, labels = map(Tensor, network.batch(batch))
    makers: Mapping[str, Callable[[], Call]] = {
        "torch": lambda: in_torch.training(network, batch, settings.threads),
        "torch-compile": lambda: in_torch.training(network, batch, settings.threads, compiled=True),
        "jax": lambda: in_jax.training(network, batch, settings.threads)}
    sides: dict[str, Call] = {"ours": lambda: fast(x, labels)}
    return fast, sides | {name: make() for name, make in makers.items() if name in settings.peers}


def inference_sides(network: Network, batch: int, settings: Settings) -> tuple[Compiled, dict[str, Call]]:
    """Our compiled network, and a call for each side that gives the logits."""
    fast: Compiled = compile(network.make().eval(), pipeline="infer", threads=settings.threads)
    x = Tensor(network.batch(batch)[0])

    def ours() -> object:
        with no_grad():
            return fast(x)

    makers: Mapping[str, Callable[[], Call]] = {
        "torch": lambda: in_torch.inference(network, batch, settings.threads),
        "torch-compile": lambda: in_torch.inference(network, batch, settings.threads, compiled=True),
        "jax": lambda: in_jax.inference(network, batch, settings.threads),
        "onnxruntime": lambda: in_onnx.inference(network, batch, settings.threads)}
    sides: dict[str, Call] = {"ours": ours}
    return fast, sides | {name: make() for name, make in makers.items() if name in settings.peers}


def train(name: str) -> Workload:
    """A whole Adam step, compiled."""
    network, batch = NETWORKS[name], TRAINED[name]

    def run(settings: Settings) -> Iterator[Row]:
        fast, sides = training_sides(network, batch, settings)
        first = check_same(sides, LOSSES)
        found = paired(sides, settings.seconds, settings.settle)
        work = inspect(fast, batch * network.items, network.unit)
        case = f"{network.name} training step, batch {batch}, {settings.with_threads}"
        yield against(f"train-{name}", case, found, FRAMEWORKS, Target(1.5), first=first, work=work)

    return Workload(f"train-{name}", f"an Adam step: {network.about}", run, "Training steps")


def infer(name: str) -> Workload:
    """Logits."""
    network = NETWORKS[name]

    def run(settings: Settings) -> Iterator[Row]:
        for batch in INFERRED[name]:
            fast, sides = inference_sides(network, batch, settings)
            first = check_same(sides)
            found = paired(sides, settings.seconds, settings.settle)
            work = inspect(fast, batch * network.items, network.unit)
            case = f"{network.name} inference, batch {batch}, {settings.with_threads}"
            note = "" if name != "resnet20" or models.trained(name) else "random weights: the trained ones are not here"
            yield against(f"infer-{name}", case, found, FRAMEWORKS, Target(1.3), note, first, work)
            yield against(f"infer-{name}", f"{case}, against ONNX Runtime", found, "onnxruntime", Target(1.0), note)

    return Workload(f"infer-{name}", f"inference: {network.about}", run, "Inference")
