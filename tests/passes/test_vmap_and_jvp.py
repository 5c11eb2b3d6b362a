"""`vmap`, `jvp` and `hvp`: the rule of every op against a loop over samples, tangents against cotangents, both against
PyTorch, and per-sample gradients of whole networks."""

from typing import Any

import numpy as np
import pytest
from samples import SAMPLES, Sample

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir import Builder, Graph, TensorType, registry, verify
from tinytorch.ir.errors import GradientError, OpError, ShapeError, TracingError
from tinytorch.nn import functional as F
from tinytorch.passes import Jvp, Vmap

SIZE = 3
RANDOM = {"random_uniform", "random_normal", "dropout"}  # by a key that all samples share
ORDERED = {"sparse_linear"}  # its integers say where parts begin: in another order they are not valid
calls = [(name, sample) for name in sorted(registry) for sample in SAMPLES.get(name, ())[:6]]
every_call = pytest.mark.parametrize(("name", "sample"), calls, ids=[f"{name}({sample})" for name, sample in calls])
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def call_graph(name: str, sample: Sample) -> tuple[Graph, list[np.ndarray]]:
    arrays = [a for a in sample.args if isinstance(a, np.ndarray)]
    build = Builder(name)
    with build:
        handles = [build.input("x", TensorType.of(a)) for a in arrays]
        given = iter(handles)
        out = registry[name](*(next(given) if isinstance(a, np.ndarray) else a for a in sample.args), **sample.attrs)
    return build.finish(out if isinstance(out, tuple) else (out,)), arrays


def listed(result: Any) -> list[np.ndarray]:
    return list(result) if isinstance(result, tuple) else [result]


def rolled(a: np.ndarray) -> np.ndarray:
    """Samples that hold the same numbers in other places, so that each is as valid as the first."""
    return np.stack([np.roll(a.ravel(), n).reshape(a.shape) for n in range(SIZE)])


@every_call
def test_the_rule_of_every_op_is_a_loop_over_samples(name: str, sample: Sample) -> None:
    graph, arrays = call_graph(name, sample)
    choices = {(True,) * len(arrays)} | {tuple(i == j for j in range(len(arrays))) for i in range(len(arrays))}
    for mapped in sorted(choices - {()}):
        if name in RANDOM and any(m for v, m in zip(graph.inputs, mapped, strict=True) if v.dtype.kind in "iu"):
            with pytest.raises(OpError, match="cannot be mapped"):
                Vmap(SIZE, mapped)(graph)
            continue
        if name in ORDERED and any(m for v, m in zip(graph.inputs, mapped, strict=True) if v.dtype.kind in "iu"):
            continue
        many = verify(Vmap(SIZE, mapped)(graph))
        given = [rolled(a) if m else a for a, m in zip(arrays, mapped, strict=True)]
        samples = [[x[i] if m else x for x, m in zip(given, mapped, strict=True)] for i in range(SIZE)]
        one_by_one = [listed(graph(*arguments)) for arguments in samples]
        for found, *wanted in zip(listed(many(*given)), *one_by_one, strict=True):
            tolerance = 1e-2 if found.dtype.itemsize < 4 else 1e-5
            np.testing.assert_allclose(found.astype("f8"), np.stack(wanted).astype("f8"), tolerance, tolerance)


@every_call
def test_the_tangent_of_every_op_is_the_transpose_of_its_gradient(name: str, sample: Sample) -> None:
    graph, arrays = call_graph(name, sample)
    floats = tuple(i for i, v in enumerate(graph.inputs) if v.dtype.name in ("f32", "f64"))
    smooth = [i for i, v in enumerate(graph.outputs) if v.dtype.name in ("f32", "f64")]
    if not sample.smooth or not floats or not smooth or any(a.size == 0 for a in arrays):
        return
    rng = np.random.default_rng(0)
    tangents = [rng.normal(size=arrays[i].shape).astype(arrays[i].dtype) for i in floats]
    xs = [tt.tensor(a, requires_grad=i in floats) for i, a in enumerate(arrays)]
    given = iter(xs)
    out = registry[name](*(next(given) if isinstance(a, np.ndarray) else a for a in sample.args), **sample.attrs)
    outs = list(out) if isinstance(out, tuple) else [out]
    cotangents = [rng.normal(size=outs[i].shape).astype(outs[i].dtype.np) for i in smooth]
    total = sum((outs[i] * tt.tensor(c)).sum().to("f64") for i, c in zip(smooth, cotangents, strict=True))
    pushed = listed(verify(Jvp(floats)(graph))(*arrays, *tangents))[len(graph.outputs):]
    if not total.requires_grad:  # then nothing moves either
        assert all(not pushed[i].any() for i in smooth)
        return
    total.backward()
    pulled = sum(float((xs[i].grad.numpy().astype("f8") * t).sum())
                 for i, t in zip(floats, tangents, strict=True) if xs[i].grad is not None)
    forward = sum(float((pushed[i].astype("f8") * c).sum()) for i, c in zip(smooth, cotangents, strict=True))
    if np.isfinite(pulled):
        assert forward == pytest.approx(pulled, rel=2e-4, abs=2e-4)


def small_net() -> nn.Module:
    tt.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))


def test_gradients_per_sample_are_those_of_each_sample_alone() -> None:
    net, x, labels = small_net(), tt.randn(4, 2, 6, 6), tt.tensor([0, 1, 2, 4])
    names = [name for name, _ in net.named_parameters()]
    values = [p.detach() for p in net.parameters()]

    def loss(weights: list[Any], image: Any, label: Any) -> Any:
        conv_w, conv_b, lin_w, lin_b = weights
        h = F.max_pool2d(F.relu(F.conv2d(image.unsqueeze(0), conv_w, conv_b, padding=1)), 2)
        return F.cross_entropy(F.linear(h.flatten(1), lin_w, lin_b), label.unsqueeze(0))

    per_sample = tt.vmap(tt.grad(loss), in_axes=(None, 0, 0))
    for found in (per_sample(values, x, labels), tt.compile(per_sample)(values, x, labels)):
        for i in range(4):
            alone = tt.grad(loss)(values, x[i], labels[i])
            for name, g, wanted in zip(names, found, alone, strict=True):
                assert g.shape[0] == 4, name
                np.testing.assert_allclose(g[i].numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.peers("torch")
def test_against_functions_of_the_same_name(peer: Any, rng: np.random.Generator) -> None:
    torch = peer("torch")
    x, v, w = (rng.normal(size=s).astype("f4") for s in ((5, 4), (5, 4), (4, 3)))

    def ours(a: Any) -> Any:
        return (a @ tt.tensor(w)).tanh().exp().sum(-1).log().sum()

    def theirs(a: Any) -> Any:
        return (a @ torch.tensor(w)).tanh().exp().sum(-1).log().sum()

    t = torch.tensor
    for found, wanted in [
        (tt.jvp(ours, (tt.tensor(x),), (tt.tensor(v),)), torch.func.jvp(theirs, (t(x),), (t(v),))),
        ([tt.hvp(ours, tt.tensor(x), tt.tensor(v))], [torch.autograd.functional.hvp(theirs, t(x), t(v))[1]]),
        ([tt.vmap(tt.grad(ours), out_axes=1)(tt.tensor(x))],
         [torch.func.vmap(torch.func.grad(theirs), out_dims=1)(t(x))]),
        ([tt.vmap(tt.vmap(lambda a, b: a * b, (0, None)), (None, 0))(tt.tensor(x[0]), tt.tensor(x[:, 0]))],
         [t(x[:, :1] * x[:1])]),
    ]:
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-6)


def test_they_compose_and_gradients_flow_through_them() -> None:
    x = tt.tensor([0.3, -0.7, 1.1], requires_grad=True)
    directional = tt.jvp(lambda t: t.sin(), (x,), (tt.ones(3),))[1]
    directional.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), -np.sin(x.detach().numpy()), rtol=1e-6)
    rows = tt.vmap(lambda e: tt.jvp(lambda t: t ** 3, (x.detach(),), (e,))[1])(tt.eye(3))
    np.testing.assert_allclose(rows.numpy(), np.diag(3 * x.detach().numpy() ** 2), rtol=1e-6)
    third = tt.jvp(lambda t: tt.hvp(lambda u: (u ** 4).sum(), t, tt.ones(3)), (x.detach(),), (tt.ones(3),))[1]
    np.testing.assert_allclose(third.numpy(), 24 * x.detach().numpy(), rtol=1e-5)


def test_bad_input_is_told_apart() -> None:
    x = tt.ones(3, 2)
    with pytest.raises(ShapeError, match="argument 0 has 3, argument 1 has 2"):
        tt.vmap(lambda a, b: a + b)(x, tt.ones(2, 2))
    with pytest.raises(ShapeError, match="no axis 5"):
        tt.vmap(lambda a: a, in_axes=5)(x)
    with pytest.raises(ShapeError, match="2 axes for 1 arguments"):
        tt.vmap(lambda a: a, in_axes=(0, 0))(x)
    with pytest.raises(ShapeError, match="{'a': 0} is no axis"):
        tt.vmap(lambda a: a["a"], in_axes=({"a": 0},))({"a": x})  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="no argument is mapped"):
        tt.vmap(lambda a: a, in_axes=None)(x)
    with pytest.raises(GradientError, match="in another structure"):
        tt.jvp(lambda a: a, (x,), ((x, x),))
    with pytest.raises(GradientError, match=r"tangent 0 is f32\[2\]"):
        tt.jvp(lambda a: a, (x,), (tt.ones(2),))
    total = tt.zeros(2)
    with pytest.raises(TracingError, match="overwrites tensors"):
        tt.vmap(lambda a: total.add_(a))(x)
    with pytest.raises(IndexError):
        tt.vmap(lambda table, i: table[i])(tt.ones(2, 4), tt.tensor([[1, 2], [4, 0]]))
