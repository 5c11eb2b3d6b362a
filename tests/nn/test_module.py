"""What a Module keeps and how it is found, hooks, containers; every public name of nn has an example."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import check_module, near

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import DTypeError, FormatError, OpError, TracingError

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


class Net(nn.Module):
    """Parameters, a buffer, a list, and weights that are shared."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(tt.ones(1))
        self.none = None
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3, bias=False))
        self.head[1].weight = self.blocks[0].weight
        self.register_buffer("seen", tt.zeros((), dtype="i64"))
        self.register_buffer("scratch", tt.zeros(2), persistent=False)

    def forward(self, x: Any) -> Any:
        """All of it."""
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x) * self.scale


def test_names_are_those_of_pytorch() -> None:
    net = Net()
    weights = ["scale", "blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]
    assert [name for name, _ in net.named_parameters()] == weights
    assert list(net.state_dict()) == ["scale", "seen", *weights[1:], "head.1.weight"]
    assert [name for name, _ in net.named_buffers()] == ["seen", "scratch"]
    assert [name for name, _ in net.named_modules()] == [
        "", "blocks", "blocks.0", "blocks.1", "head", "head.0", "head.1"]  # fmt: skip
    assert [name for name, _ in net.named_children()] == ["blocks", "head"]
    assert len(list(net.parameters())) == 5 and len(list(net.modules())) == 7 and len(list(net.children())) == 2
    assert len(list(net.buffers())) == 2


def test_training_flag_and_freezing_reach_all() -> None:
    net = Net()
    assert net.training and not net.eval().training and not net.head[0].training and net.train().head[0].training
    net.requires_grad_(False)
    assert not net(tt.zeros(1, 3)).requires_grad
    net.requires_grad_()
    net(tt.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_apply_and_init_reach_all() -> None:
    order: list[str] = []
    net = Net().apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear", "Linear", "ModuleList", "Dropout", "Linear", "Sequential", "Net"]
    net.apply(lambda m: nn.init.ones_(m.weight) if isinstance(m, nn.Linear) else None)
    assert (net.blocks[1].weight == 1).all()


def test_state_moves_both_ways(tmp_path: Path) -> None:
    one, two = Net(), Net()
    x = tt.tensor(floats(2, 3))
    one.eval(), two.eval()
    tt.save(one.state_dict(), tmp_path / "net.safetensors")
    memory = two.scale.numpy()
    assert two.load_state_dict(tt.load(tmp_path / "net.safetensors")) == ([], [])
    near(two(x), one(x))
    assert two.scale.numpy() is memory, "in place: optimisers and compiled code keep what they hold"
    state = one.state_dict()
    state["scale"].fill_(3)
    assert one.scale.item() == 3, "a state shares the memory of its module, as PyTorch's does"


def test_state_goes_to_pytorch(peer: Peer) -> None:
    torch = peer("torch")
    ours, theirs = (m.Sequential(m.Linear(3, 4), m.ReLU(), m.Linear(4, 2)) for m in (nn, torch.nn))
    theirs.load_state_dict({key: torch.tensor(value.numpy()) for key, value in ours.state_dict().items()})
    x = floats(5, 3)
    near(ours(tt.tensor(x)), theirs(torch.tensor(x)))


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    net, state = nn.Linear(3, 2), {"weight": tt.zeros(2, 3), "bias": tt.zeros(3), "gain": tt.zeros(1)}
    before = net.weight.tolist()
    with pytest.raises(FormatError, match=r"(?s)Linear.*bias: expected \(2,\), got \(3,\).*unexpected keys: gain"):
        net.load_state_dict(state)
    with pytest.raises(FormatError, match="missing keys: bias"):
        net.load_state_dict({"weight": tt.zeros(2, 3)})
    assert net.weight.tolist() == before
    assert net.load_state_dict({"weight": tt.zeros(2, 3), "more": tt.zeros(1)}, strict=False) == (["bias"], ["more"])
    assert net.weight.tolist() == [[0, 0, 0], [0, 0, 0]]
    with pytest.raises(FormatError, match="got"):
        net.load_state_dict({"weight": tt.zeros(3, 2)}, strict=False)


def test_conversion_keeps_identity_and_leaves_integers() -> None:
    net = Net().eval()
    parameters = list(net.parameters())
    net.to("f64")
    assert all(p is q and p.dtype is tt.f64 for p, q in zip(net.parameters(), parameters, strict=True))
    assert net.seen.dtype is tt.i64 and net(tt.zeros(1, 3, dtype="f64")).dtype is tt.f64
    with pytest.raises(DTypeError, match="floating"):
        net.to("i8")


def test_a_plain_tensor_does_not_replace_a_parameter() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"Linear\.weight is a parameter"):
        layer.weight = tt.zeros(2, 2)
    layer.weight = nn.Parameter(tt.zeros(2, 2))
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]


def test_repr_nests() -> None:
    assert repr(Net()) == """Net(
  (blocks): ModuleList(
    (0-1): 2 x Linear(in_features=3, out_features=3, bias=True)
  )
  (head): Sequential(
    (0): Dropout(p=0.5)
    (1): Linear(in_features=3, out_features=3, bias=False)
  )
)"""


def test_modules_can_be_pickled_by_multiprocessing() -> None:
    net = Net()
    twin, other = pickle.loads(pickle.dumps(net)), copy.deepcopy(net)
    for copied in (twin, other):
        assert list(copied.state_dict()) == list(net.state_dict())
        assert copied.head[1].weight is copied.blocks[0].weight is not net.blocks[0].weight
        near(copied.blocks[1].weight, net.blocks[1].weight)


def test_empty_batches() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2))
    y = model(tt.zeros(0, 3))
    y.sum().backward()
    assert y.shape == (0, 2) and all((p.grad == 0).all() for p in model[0].parameters())


def test_parts_by_path() -> None:
    net = Net()
    assert net.get_submodule("") is net and net.get_submodule("blocks.1") is net.blocks[1]
    assert net.get_parameter("blocks.1.weight") is net.blocks[1].weight and net.get_buffer("seen") is net.seen
    for call, words in (
        (lambda: net.get_submodule("blocks.7"), "ModuleList has no module '7'; it has 0, 1"),
        (lambda: net.get_submodule("scale.x"), "Net has no module 'scale'"),
        (lambda: net.get_parameter("blocks.1.gain"), "no parameter 'gain'; expected one of bias, weight"),
        (lambda: net.get_parameter("seen"), "no parameter 'seen'"),
        (lambda: net.get_buffer("blocks.0.weight"), "no buffer 'weight'; expected one of none"),
    ):
        with pytest.raises(AttributeError, match=words):
            call()


def test_own_parts_and_prefixes(peer: Peer) -> None:
    torch, net = peer("torch"), Net()
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert list(net.parameters(recurse=False)) == [net.scale] and list(net.buffers(recurse=False)) == [
        net.seen, net.scratch]  # fmt: skip
    ours, theirs = (m.Sequential(m.Linear(2, 2), m.Sequential(m.Linear(2, 1))) for m in (nn, torch.nn))
    for listing in ("named_parameters", "named_buffers", "named_modules"):
        assert [name for name, _ in getattr(ours, listing)(prefix="net")] == [
            name for name, _ in getattr(theirs, listing)(prefix="net")]  # fmt: skip


def test_registering_by_name() -> None:
    module = nn.Module()
    module.register_parameter("gain", nn.Parameter(tt.ones(2)))
    module.register_parameter("bias", None)
    module.add_module("inner", nn.ReLU())
    module.add_module("inner", nn.Tanh())
    module.register_buffer("count", tt.zeros(()))
    assert list(module.state_dict()) == ["gain", "count"] and module.bias is None and repr(module.inner) == "Tanh()"
    del module.count
    assert list(module.state_dict()) == ["gain"]
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: module.register_parameter("x", tt.ones(2)), TypeError, "expected nn.Parameter"),  # type: ignore
        (lambda: module.add_module("x", 3), TypeError, "expected a module, got int"),  # type: ignore[arg-type]
        (lambda: module.add_module("a.b", nn.ReLU()), OpError, "without a dot"),
        (lambda: module.add_module("", nn.ReLU()), OpError, "without a dot"),
        (lambda: module.add_module("training", nn.ReLU()), OpError, "has an attribute 'training' already"),
        (lambda: module.register_buffer("forward", tt.ones(2)), OpError, "has an attribute 'forward' already"),
        (lambda: nn.Module()(1), NotImplementedError, "forward"),
    ]
    for call, error, words in wrong:
        with pytest.raises(error, match=words):
            call()


def test_conversions_by_name() -> None:
    net = Net()
    for method, dtype in (("half", tt.f16), ("bfloat16", tt.bf16), ("double", tt.f64), ("float", tt.f32)):
        assert getattr(net, method)() is net and net.scale.dtype is net.scratch.dtype is dtype


def test_training_of_a_class_that_calls_super() -> None:
    class Polite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    assert Polite()(tt.zeros(3, 2)).shape == (3, 1)


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_hooks_see_and_replace_as_pytorchs(peer: Peer) -> None:
    """The same hooks on both; what they saw, and what came out."""
    torch = peer("torch")
    found: list[Any] = []
    for m, make in ((nn, tt.tensor), (torch.nn, torch.tensor)):
        class Doubled(m.Module):  # type: ignore[name-defined,misc]
            def forward(self, x: Any, times: float = 2.0) -> Any:
                return x * times

        module, order = Doubled(), []

        def note(what: str, gives: Any = None, order: list[Any] = order) -> Any:
            return lambda module, *seen: order.append((what, len(seen))) or (gives(*seen) if gives else None)

        handles = [
            module.register_forward_hook(note("after", lambda args, y: y + args[0])),
            module.register_forward_pre_hook(note("before", lambda args: args[0] + 1)),
            module.register_forward_pre_hook(note("as a tuple", lambda args: (args[0] * 10,))),
            module.register_forward_pre_hook(note("first"), prepend=True),
            module.register_forward_hook(note("kwargs", lambda args, kwargs, y: y * kwargs["times"]), with_kwargs=True),
            module.register_forward_pre_hook(
                note("kwargs before", lambda args, kwargs: (args, {"times": 3.0})), with_kwargs=True),
            module.register_forward_hook(note("last but first"), prepend=True),
        ]
        results = [module(make([1.0, 2.0]), times=5.0).tolist()]
        handles.pop(1).remove()
        results.append(module(make([1.0, 2.0])).tolist())
        with handles.pop():
            pass
        for handle in handles:
            handle.remove()
            handle.remove()
        results.append(module(make([1.0, 2.0])).tolist())
        found.append((order, results))
    assert found[0] == found[1]
    assert found[0][1][-1] == [2.0, 4.0]


def test_hooks_in_traced_and_compiled_code_run_while_it_is_traced() -> None:
    layer, x, calls = nn.Linear(3, 2), tt.tensor(floats(4, 3)), []
    plain = layer(x)
    handle = layer.register_forward_hook(lambda module, args, y: calls.append(y.shape) or y * 2)
    fast = tt.compile(layer)
    near(fast(x), plain * 2)
    near(fast(x), layer(x))
    assert calls == [(4, 2)] * 2, "traced once, and called once eagerly"
    near(tt.trace(layer, x)(x.numpy()), plain * 2)
    handle.remove()
    with (layer.register_forward_hook(lambda module, args, y: print(y.sum().item())),
          pytest.raises(TracingError, match="numbers are not known")):  # fmt: skip
        tt.compile(layer)(x)
    assert layer._hooks == ()


def test_a_compiled_function_notices_hooks_that_come_and_go() -> None:
    layer, x = nn.Identity(), tt.ones(2)
    fast = tt.compile(layer)
    assert fast(x).tolist() == [1, 1]
    with layer.register_forward_hook(lambda module, args, y: y * 2):
        assert fast(x).tolist() == [2, 2]
    assert fast(x).tolist() == [1, 1]


def test_a_compiled_function_notices_parts_that_come_and_go() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    fast, x = tt.compile(net), tt.ones(1, 2)
    near(fast(x), net(x))
    net[1] = nn.Linear(2, 3)
    near(fast(x), net(x))
    net[0].weight = nn.Parameter(tt.ones(2, 2))
    near(fast(x), net(x))
    net.append(nn.ReLU())
    near(fast(x), net(x))
    net[0].weight = net[0].weight
    near(fast(x), net(x))
    assert repr(fast).endswith(": 4 programs>")


# -- containers --------------------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Uses each kind of container."""

    def __init__(self, m: Any, tensor: Callable[[Any], Any]) -> None:
        self.scales = m.ParameterList([tensor([1.0, 2.0]), tensor([3.0, 4.0])])
        self.named = m.ParameterDict({"shift": tensor([5.0, 6.0])})
        self.acts = m.ModuleDict({"tanh": m.Tanh(), "relu": m.ReLU()})
        self.layers = m.ModuleList([m.Linear(2, 2), m.Linear(2, 2)])

    def forward(self, x: Any) -> Any:
        """All of it."""
        for layer, scale in zip(self.layers, self.scales, strict=True):
            x = self.acts["tanh"](layer(x)) * scale
        return self.acts["relu"](x + self.named["shift"])


def test_containers_are_pytorchs(peer: Peer) -> None:
    torch = peer("torch")

    class Theirs(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            Scaled.__init__(self, torch.nn, torch.tensor)  # type: ignore[arg-type]

        forward = Scaled.forward

    check_module(lambda m: Scaled(nn, tt.tensor) if m is nn else Theirs(), [floats(3, 2)], torch, same_repr=False)
    named = lambda m: m.Sequential({"a": m.Linear(2, 3), "b": m.ELU()}) if m is nn else m.Sequential(
        __import__("collections").OrderedDict(a=m.Linear(2, 3), b=m.ELU()))
    check_module(named, [floats(4, 2)], torch, compiled=False)


EDITS: list[Callable[[Any, Any], Any]] = [
    lambda m, s: s.append(m.Tanh()),
    lambda m, s: s.extend([m.Tanh(), m.ELU()]),
    lambda m, s: s.insert(1, m.Tanh()),
    lambda m, s: s.insert(0, m.Tanh()),
    lambda m, s: s.__setitem__(-1, m.Tanh()),
    lambda m, s: s.__delitem__(0),
    lambda m, s: s.__delitem__(slice(0, 3, 2)),
    lambda m, s: s.pop(1),
    lambda m, s: s.__iadd__(m.ModuleList([m.Tanh()]) if isinstance(s, m.ModuleList) else m.Sequential(m.Tanh())),
]


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_lists_are_edited_as_pytorchs(kind: str, peer: Peer) -> None:
    torch = peer("torch")

    def make(m: Any) -> Any:
        parts = [m.ReLU(), m.ReLU(), m.Sigmoid(), m.GELU(), m.GELU()]
        return m.Sequential(*parts) if kind == "Sequential" else m.ModuleList(parts)

    for edit in EDITS:
        ours, theirs = make(nn), make(torch.nn)
        edit(nn, ours)
        edit(torch.nn, theirs)
        assert repr(ours) == repr(theirs)
    ours, theirs = make(nn), make(torch.nn)
    for part in (slice(1, None), slice(None, -1), slice(None, None, 2), slice(5, 9)):
        assert repr(ours[part]) == repr(theirs[part])
    assert repr(ours + ours) == repr(theirs + theirs) and repr(type(ours)()) == repr(type(theirs)())
    assert len(ours) == 5 and ours[-1] is list(ours)[4] and ours[2] in ours
    for index in (5, -6):
        for wrong in (ours.__getitem__, ours.pop, ours.__delitem__, lambda i: ours.__setitem__(i, nn.ReLU())):
            with pytest.raises(IndexError, match="it holds 5"):
                wrong(index)


def test_dicts_behave_as_dicts() -> None:
    acts = nn.ModuleDict([("a", nn.ReLU()), ("b", nn.Tanh())])
    acts["c"] = nn.ELU()
    acts["a"] = nn.GELU()
    assert list(acts) == list(acts.keys()) == ["a", "b", "c"] and len(acts) == 3 and "b" in acts
    assert [repr(v) for v in acts.values()] == [repr(v) for _, v in acts.items()]
    assert repr(acts.pop("b")) == "Tanh()" and repr(acts) == (
        "ModuleDict(\n  (a): GELU(approximate='none')\n  (c): ELU(alpha=1.0)\n)")  # fmt: skip
    acts.clear()
    assert len(acts) == 0
    gains = nn.ParameterDict({"x": tt.ones(2, 3)})
    gains.update({"y": np.zeros(2, np.float32)})
    assert repr(gains) == ("ParameterDict(\n    (x): Parameter containing: [f32 of size 2x3]\n"
                           "    (y): Parameter containing: [f32 of size 2]\n)")


def test_wrong_parts_say_what_is_wrong() -> None:
    named = nn.Sequential({"a": nn.ReLU(), "b": nn.ReLU()})
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: nn.Sequential(nn.ReLU(), 3), TypeError, "Sequential: expected modules, got int"),
        (lambda: nn.ModuleList([nn.ReLU]), TypeError, "ModuleList: expected modules, got type"),  # type: ignore
        (lambda: nn.ModuleDict({"a": 3}), TypeError, "ModuleDict: expected modules, got int"),
        (lambda: nn.ParameterList([3]), TypeError, "expected parameters or tensors, got int"),
        (lambda: nn.ModuleDict({"keys": nn.ReLU()}), OpError, "has an attribute 'keys' already"),
        (lambda: nn.ModuleDict({"a.b": nn.ReLU()}), OpError, "without a dot"),
        (lambda: nn.ModuleDict({1: nn.ReLU()}), OpError, "expected a string"),
        (lambda: nn.ModuleDict()["x"], KeyError, "it has nothing"),
        (lambda: named.insert(0, nn.ReLU()), OpError, r"names of its own \(a, b\)"),
    ]
    for call, error, words in wrong:
        with pytest.raises(error, match=words):
            call()
