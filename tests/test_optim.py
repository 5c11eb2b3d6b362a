"""Optimisers: ten steps beside PyTorch's, options, groups, and state in both directions."""

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import FormatError, GradientError, OpError

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(4)
X, Y = RNG.standard_normal((16, 6)).astype(np.float32), RNG.integers(0, 4, 16)

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3}),
    ("Adam", {"lr": 0.02, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.02, "betas": (0.0, 0.5)}),
    ("AdamW", {"lr": 0.02}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.02, "amsgrad": True, "betas": (0.5, 0.6)}),
    ("AdamW", {"lr": 0.02, "amsgrad": True, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {"centered": True, "eps": 1e-4}),
    ("RMSprop", {"lr": 0.005, "centered": True, "momentum": 0.8, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.3, "initial_accumulator_value": 0.2, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "eps": 0.1, "maximize": True}),
    ("Muon", {"lr": 0.05}),
    ("Muon", {"lr": 0.05, "weight_decay": 0.0, "nesterov": False, "momentum": 0.8}),
    ("Muon", {"lr": 0.05, "ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5), "adjust_lr_fn": "match_rms_adamw"}),
]
every_optimiser = pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda x: str(x))


def build(m: Any) -> Any:
    """The same small model, of either library."""
    return m.Sequential(m.Linear(6, 8), m.Tanh(), m.Linear(8, 4))


def make(m: Any, name: str, model: Any, options: dict[str, Any]) -> Any:
    """An optimiser of either library for a model; Muon for its matrices."""
    return getattr(m, name)([p for p in model.parameters() if name != "Muon" or p.ndim == 2], **options)


def pair(torch: Any, name: str, options: dict[str, Any]) -> tuple[Any, ...]:
    """Both models with the same weights, and both optimisers."""
    torch.manual_seed(0)
    ours, theirs = build(nn), build(torch.nn)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, make(optim, name, ours, options), make(torch.optim, name, theirs, options)


@pytest.fixture(autouse=True)
def exact_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's Muon iterates in bf16; here in f32, so that results can be compared to rounding."""
    if importlib.util.find_spec("torch") is not None:
        monkeypatch.setattr("torch.Tensor.bfloat16", lambda x: x.clone())


def advance(model: Any, opt: Any, x: Any, y: Any, loss: Any) -> float:
    """One step of training, of either library."""
    opt.zero_grad()
    value = loss(model(x), y)
    value.backward()
    opt.step()
    return float(value.item())


def together(torch: Any, ours: Any, opt: Any, theirs: Any, theirs_opt: Any) -> None:
    """One step of both with PyTorch's gradients; those of each may differ by rounding, which Adagrad would magnify."""
    theirs_opt.zero_grad()
    torch.nn.CrossEntropyLoss()(theirs(torch.tensor(X)), torch.tensor(Y)).backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.grad = tt.tensor(q.grad.numpy())
    opt.step()
    theirs_opt.step()


def same_weights(ours: Any, theirs: Any, tolerance: float = 2e-6) -> None:
    """Equal parameters, within rounding."""
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance)


@every_optimiser
def test_ten_steps_are_pytorchs(name: str, options: dict[str, Any], peer: Peer) -> None:
    torch = peer("torch")
    ours, theirs, opt, theirs_opt = pair(torch, name, options)
    for step in range(10):
        if step == 5:
            opt.lr = opt.lr / 2
            theirs_opt.param_groups[0]["lr"] /= 2
        together(torch, ours, opt, theirs, theirs_opt)
        same_weights(ours, theirs)


@every_optimiser
def test_state_goes_on_where_it_was(name: str, options: dict[str, Any], peer: Peer) -> None:
    torch = peer("torch")
    ours, theirs, opt, theirs_opt = pair(torch, name, options)
    for _ in range(3):
        advance(ours, opt, tt.tensor(X), tt.tensor(Y), nn.CrossEntropyLoss())
    # from here to PyTorch ...
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    state = opt.state_dict()
    slots = {n: {k: torch.tensor(v.numpy()) for k, v in s.items()} for n, s in state["state"].items()}
    theirs_opt.load_state_dict({**state, "state": slots})
    for _ in range(3):
        together(torch, ours, opt, theirs, theirs_opt)
    same_weights(ours, theirs)
    # ... and back, into new ones
    again = build(nn)
    again.load_state_dict(theirs.state_dict())
    opt_again = make(optim, name, again, {**options, "lr": 9.0})
    opt_again.load_state_dict(theirs_opt.state_dict())
    assert opt_again.lr == opt.lr
    for _ in range(3):
        together(torch, again, opt_again, theirs, theirs_opt)
    same_weights(again, theirs)


def test_state_is_saved_and_copied(tmp_path: Any) -> None:
    model = build(nn)
    opt = optim.Adam(model.parameters())
    advance(model, opt, tt.tensor(X), tt.tensor(Y), nn.CrossEntropyLoss())
    tt.save(opt.state_dict(), tmp_path / "opt.safetensors")
    other = optim.Adam(build(nn).parameters(), lr=5.0)
    other.load_state_dict(tt.load(tmp_path / "opt.safetensors"))
    assert other.lr == 0.001 and other.param_groups[0]["step"].item() == 1
    for mine, yours in zip(opt.state.values(), other.state.values(), strict=True):
        assert (mine["exp_avg"] == yours["exp_avg"]).all() and mine["exp_avg"] is not yours["exp_avg"]
    assert [name for name, _ in opt.named_state()][:4] == ["lr", "step", "exp_avg_0", "exp_avg_sq_0"]


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    small, large = (optim.SGD(nn.Linear(n, 2).parameters(), lr=0.1, momentum=0.9) for n in (3, 4))
    with pytest.raises(FormatError, match=r"0\.momentum_buffer: expected \(2, 3\), got \(2, 4\)"):
        small.load_state_dict(large.state_dict())
    one = optim.SGD([tt.ones(2, requires_grad=True)])
    with pytest.raises(FormatError, match=r"groups of \[1\] parameters, got \[2\]"):
        one.load_state_dict(small.state_dict())


# -- options -----------------------------------------------------------------------------------------------------------


def test_groups_have_options_of_their_own() -> None:
    a, b, c = (tt.ones(2, requires_grad=True) for _ in range(3))
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    opt.add_param_group({"params": [c], "lr": 2.0, "weight_decay": 1.0})
    for p in (a, b, c):
        (p * 3).sum().backward()
    opt.step()
    np.testing.assert_allclose([p.numpy()[0] for p in (a, b, c)], [0.7, -0.5, -7], rtol=1e-6)
    opt.param_groups[1]["lr"] = 0.25
    assert [float(g["lr"].item()) for g in opt.param_groups] == [pytest.approx(0.1), 0.25, 2.0]
    tensors = [id(g["lr"]) for g in opt.param_groups]
    opt.lr = 0.3
    assert [id(g["lr"]) for g in opt.param_groups] == tensors and opt.lr == 0.3, "in place"


def test_a_parameter_without_gradient_stays() -> None:
    a, b = tt.ones(1, requires_grad=True), tt.ones(1, requires_grad=True)
    opt = optim.Adam([a, b], lr=0.1)
    a.sum().backward()
    opt.step()
    assert a.item() == pytest.approx(0.9) and b.item() == 1 and not opt.state[b]["exp_avg"].numpy().any()


def test_zero_grad() -> None:
    a = tt.ones(2, requires_grad=True)
    opt = optim.SGD([a])
    a.sum().backward()
    opt.zero_grad(set_to_none=False)
    assert a.grad is not None and a.grad.tolist() == [0, 0]
    opt.zero_grad()
    assert a.grad is None
    opt.zero_grad(set_to_none=False)
    assert a.grad is None


def test_steps_keep_memory_and_dtype_and_are_not_recorded() -> None:
    for dtype in (tt.f64, tt.f16, tt.bf16):
        p = tt.Parameter(tt.ones(3, dtype=dtype))
        memory, opt = p.numpy(), optim.AdamW([p], lr=0.1)
        p.sum().backward()
        opt.step()
        assert p.numpy() is memory and p.dtype is dtype and p.is_leaf and p.requires_grad
        np.testing.assert_allclose(memory.astype("f8"), 0.9, rtol=2e-2 if dtype is not tt.f64 else 2e-3)


def test_bias_correction_is_exact_from_the_first_step() -> None:
    p = tt.zeros(1, requires_grad=True)
    opt = optim.Adam([p], lr=1.0, betas=(0.9, 0.999999), eps=0.0)
    (p * 3).sum().backward()
    opt.step()
    assert p.item() == pytest.approx(-1, abs=3e-7), "lr · m̂ / √v̂ is lr · sign(g), whatever the betas"


def test_wrong_options_say_what_is_wrong() -> None:
    p = tt.ones(2, requires_grad=True)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: optim.SGD([]), OpError, "nothing to optimise"),
        (lambda: optim.SGD([p], lr=-1), OpError, "learning rate"),
        (lambda: optim.SGD([p], momentum=-1), OpError, "≥ 0"),
        (lambda: optim.SGD([p], nesterov=True), OpError, "momentum > 0"),
        (lambda: optim.Adam([p], betas=(0.9, 1.0)), OpError, "beta < 1"),
        (lambda: optim.Adam([p], eps=-1.0), OpError, "eps=-1.0.*≥ 0"),
        (lambda: optim.SGD([p, p]), OpError, "twice"),
        (lambda: optim.SGD([{"params": [p], "speed": 3}]), OpError, "no option speed"),
        (lambda: optim.SGD([tt.ones(2)]), GradientError, "requires_grad=True"),
        (lambda: optim.SGD([p * 2]), GradientError, "nothing computed"),
        (lambda: optim.SGD([3]), GradientError, "got 3"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()


def test_training_learns() -> None:
    x = RNG.standard_normal((256, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)  # exclusive or
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    opt = optim.Adam(model.parameters(), lr=0.03)
    losses = [advance(model, opt, tt.tensor(x), tt.tensor(y), nn.CrossEntropyLoss()) for _ in range(120)]
    accuracy = (model(tt.tensor(x)).argmax(1).numpy() == y).mean()
    assert losses[-1] < losses[0] / 4 and accuracy > 0.95
