"""The networks of `models` in PyTorch, eager or through torch.compile, and as ONNX files.

    infer = inference(NETWORKS["cnn"], batch=64, threads=2)
    step = training(NETWORKS["gpt"], batch=16, threads=2, compiled=True)         # a call gives the loss
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from . import peers
from .models import CONTEXT, HEADS, LAYERS, VOCABULARY, WIDTH, Network, cnn, mlp, mobilenet, resnet20

Call = Callable[[], Any]


def network(wanted: Network, torch: Any) -> Any:
    """The module, in training mode, with the weights that ours begins with."""
    builders: Mapping[str, Callable[[Any], Any]] = {"mlp": mlp, "cnn": cnn, "mobilenet": mobilenet,
                                                    "resnet20": resnet20}
    model = _gpt(torch) if wanted.name == "gpt" else builders[wanted.name](torch.nn)
    weights = {key: torch.tensor(value) for key, value in wanted.weights().items()}
    left = model.load_state_dict(weights, strict=False)
    missing = [key for key in left.missing_keys if not key.endswith("num_batches_tracked")]
    assert not missing and not left.unexpected_keys, f"{wanted.name}: {missing}, {left.unexpected_keys}"
    return model


def inference(wanted: Network, batch: int, threads: int, compiled: bool = False) -> Call:
    """Logits of `wanted.batch(batch)`."""
    torch = peers.torch(threads)
    model, x = network(wanted, torch).eval(), torch.tensor(wanted.batch(batch)[0])
    fast = torch.compile(model) if compiled else model

    def call() -> Any:
        with torch.no_grad():
            return fast(x)

    return call


def training(wanted: Network, batch: int, threads: int, compiled: bool = False) -> Call:
    """A whole Adam step on `wanted.batch(batch)`. Compiled: loss and update both."""
    torch = peers.torch(threads)
    model = network(wanted, torch)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, labels = map(torch.tensor, wanted.batch(batch))
    criterion = torch.nn.functional.cross_entropy
    loss_of: Callable[..., Any] = lambda x, labels: criterion(model(x).reshape(-1, wanted.classes), labels.reshape(-1))
    update = optimiser.step
    if compiled:
        loss_of, update = torch.compile(loss_of), torch.compile(optimiser.step)

    def step() -> Any:
        optimiser.zero_grad()
        loss = loss_of(x, labels)
        loss.backward()
        update()
        return loss

    return step


def onnx_model(wanted: Network, batch: int) -> bytes:
    """The network for inference as an ONNX file, by PyTorch's exporter of traced programs."""
    torch = peers.torch(1)
    model, x = network(wanted, torch).eval(), torch.tensor(wanted.batch(batch)[0])
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells that it is the older of two exporters
        torch.onnx.export(model, (x,), file, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)
    return file.getvalue()


def _gpt(torch: Any) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.attn = nn.ModuleDict({"c_attn": nn.Linear(WIDTH, 3 * WIDTH), "c_proj": nn.Linear(WIDTH, WIDTH)})
            self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "c_proj": nn.Linear(4 * WIDTH, WIDTH)})

        def forward(self, x: Any) -> Any:
            batch, time, width = x.shape
            q, k, v = (part.view(batch, time, HEADS, width // HEADS).transpose(1, 2)
                       for part in self.attn["c_attn"](self.ln_1(x)).chunk(3, -1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, time, width)
            x = x + self.attn["c_proj"](y)
            return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))

    class GPT(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.ModuleDict({
                "wte": nn.Embedding(VOCABULARY, WIDTH), "wpe": nn.Embedding(CONTEXT, WIDTH),
                "h": nn.ModuleList(Block() for _ in range(LAYERS)), "ln_f": nn.LayerNorm(WIDTH)})
            self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)

        def forward(self, tokens: Any) -> Any:
            parts = self.transformer
            x = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.shape[1]))
            for block in parts["h"]:
                x = block(x)
            return self.lm_head(parts["ln_f"](x))

    return GPT()
