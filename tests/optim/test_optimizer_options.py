"""Optimisers by their definitions where PyTorch has none, and what their states and options do."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import FormatError, OpError

Peer = Callable[[str], ModuleType]
EVERY = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion", "Muon"]


def given(opt: Any, p: Any, grad: Any) -> None:
    """One step with this gradient."""
    p.grad = tt.tensor(grad)
    opt.step()


@pytest.mark.parametrize("options", [{}, {"lr": 0.1, "betas": (0.5, 0.7), "weight_decay": 0.2},
                                     {"lr": 0.1, "maximize": True}], ids=str)
def test_ten_steps_of_lion_are_the_papers(options: dict[str, Any], rng: np.random.Generator) -> None:
    start = rng.standard_normal((3, 4))
    p = tt.tensor(start.astype(np.float32), requires_grad=True)
    opt = optim.Lion([p], **options)
    lr, decay = options.get("lr", 1e-4), options.get("weight_decay", 0.0)
    (beta1, beta2), sign = options.get("betas", (0.9, 0.99)), -1 if options.get("maximize") else 1
    theta, m = start.astype(np.float32).astype(np.float64), np.zeros((3, 4))
    for step in range(10):
        grad = rng.standard_normal((3, 4)).astype(np.float32) if step != 4 else np.zeros((3, 4), np.float32)
        given(opt, p, grad)
        c = beta1 * m + (1 - beta1) * sign * grad
        theta = theta - lr * (np.sign(c) + decay * theta)  # algorithm 2 of the paper
        m = beta2 * m + (1 - beta2) * sign * grad
        np.testing.assert_allclose(p.numpy(), theta, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(opt.state[p]["exp_avg"].numpy(), m, rtol=1e-5, atol=1e-6)


def test_lion_does_not_move_what_never_had_a_gradient() -> None:
    p = tt.ones(2, requires_grad=True)
    given(optim.Lion([p], lr=0.5), p, np.zeros(2, np.float32))
    assert p.tolist() == [1, 1], "sign(0) is 0"


@pytest.mark.parametrize("shape", [(4, 4), (12, 5), (5, 12), (1, 6), (6, 1)])
def test_orthogonalized_matrices_have_singular_values_near_1(shape: tuple[int, int], rng: np.random.Generator) -> None:
    matrix = rng.standard_normal(shape).astype(np.float32) * 100
    u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    found = optim.orthogonalized(tt.tensor(matrix))
    values = np.diag(u.T @ found.numpy() @ v.T)
    assert ((values > 0.6) & (values < 1.2)).all() and (s > 1).all()
    np.testing.assert_allclose(u @ np.diag(values) @ v, found.numpy(), atol=1e-4)  # the singular vectors stay
    precise = optim.orthogonalized(tt.tensor(matrix), (1.875, -1.25, 0.375), steps=40)  # coefficients that converge
    np.testing.assert_allclose(precise.numpy(), u @ v, atol=1e-4)
    assert not optim.orthogonalized(tt.zeros(*shape)).numpy().any()


def test_steps_of_muon_are_pytorchs_in_bf16_within_its_precision(peer: Peer, rng: np.random.Generator) -> None:
    torch = peer("torch")
    start = rng.standard_normal((16, 8)).astype(np.float32)
    p, q = tt.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    opt, other = optim.Muon([p], lr=0.1), torch.optim.Muon([q], lr=0.1)
    for _ in range(10):
        grad = rng.standard_normal((16, 8)).astype(np.float32)
        mine, theirs = p.numpy().copy(), q.detach().numpy().copy()
        given(opt, p, grad)
        q.grad = torch.tensor(grad)
        other.step()
        mine, theirs = p.numpy() - mine, q.detach().numpy() - theirs
        assert np.linalg.norm(mine - theirs) < 0.04 * np.linalg.norm(theirs)


def test_muon_is_for_matrices() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(OpError, match=r"expected matrices, got a parameter of type f32\[2\]; give it to optim.AdamW"):
        optim.Muon(model.parameters())
    with pytest.raises(OpError, match=r"f32\[2, 3, 1, 1\]"):
        optim.Muon([tt.ones(2, 3, 1, 1, requires_grad=True)])
    opt = optim.Muon([model.weight])
    with pytest.raises(OpError, match="AdamW"):
        opt.add_param_group({"params": [model.bias]})
    assert len(opt.param_groups) == 1 and model.bias not in opt.state


# -- states ------------------------------------------------------------------------------------------------------------


def fresh(name: str, **options: Any) -> tuple[Any, Any]:
    """An optimiser of one matrix, and the matrix."""
    p = tt.ones(2, 3, requires_grad=True)
    return getattr(optim, name)([p], **options), p


@pytest.mark.parametrize("name", EVERY)
def test_a_state_goes_on_bit_for_bit(name: str, tmp_path: Any, rng: np.random.Generator) -> None:
    grads = rng.standard_normal((4, 2, 3)).astype(np.float32)
    extra = {"SGD": {"momentum": 0.9, "dampening": 0.5}, "RMSprop": {"momentum": 0.5, "centered": True},
             "Adam": {"amsgrad": True}}.get(name, {})
    one, p = fresh(name, lr=0.1, **extra)
    two, q = fresh(name)  # options come with the state
    given(one, p, grads[0])
    given(one, p, grads[1])
    tt.save(one.state_dict(), tmp_path / "state")
    two.load_state_dict(tt.load(tmp_path / "state"))
    with tt.no_grad():
        q.copy_(p)
    for grad in grads[2:]:
        given(one, p, grad)
        given(two, q, grad)
    assert (p.numpy() == q.numpy()).all() and two.lr == 0.1
    assert {k: v for k, v in two.param_groups[0].items() if k not in ("params", "lr", "step")} == {
        k: v for k, v in one.param_groups[0].items() if k not in ("params", "lr", "step")}
    assert [n for n, _ in two.named_state()] == [n for n, _ in one.named_state()]


@pytest.mark.parametrize("name", EVERY)
def test_a_state_from_before_the_first_step_starts_anew(name: str, rng: np.random.Generator) -> None:
    extra = {"initial_accumulator_value": 0.25} if name == "Adagrad" else {}
    one, p = fresh(name, **extra)
    initial = one.state_dict()["param_groups"]
    memory = {key: slot.numpy() for key, slot in one.state[p].items()}
    given(one, p, rng.standard_normal((2, 3)).astype(np.float32))
    one.load_state_dict({"state": {}, "param_groups": initial})
    assert one.param_groups[0]["step"].item() == 0
    for key, slot in one.state[p].items():
        assert slot.numpy() is memory[key], "in place: compiled steps hold these tensors"
        assert (slot.numpy() == (0.25 if name == "Adagrad" else 0)).all()


def test_a_state_of_pytorchs_that_counts_no_steps_is_not_a_first_step(peer: Peer, rng: np.random.Generator) -> None:
    torch = peer("torch")
    grads = rng.standard_normal((3, 4)).astype(np.float32)
    q = torch.ones(4, requires_grad=True)
    other = torch.optim.SGD([q], lr=0.1, momentum=0.9, dampening=0.5)
    p = tt.ones(4, requires_grad=True)
    opt = optim.SGD([p], lr=0.1, momentum=0.9, dampening=0.5)
    for step, grad in enumerate(grads):
        if step == 2:
            opt.load_state_dict(other.state_dict())
            with tt.no_grad():
                p.copy_(tt.tensor(q.detach().numpy()))
        q.grad = torch.tensor(grad)
        other.step()
    given(opt, p, grads[2])
    np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-6)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    opt, p = fresh("Adam")
    given(opt, p, np.ones((2, 3), np.float32))
    before = {key: slot.numpy().copy() for key, slot in opt.named_state()}
    good = opt.state_dict()
    wrong_shape = {**good, "state": {0: {**good["state"][0], "exp_avg_sq": tt.ones(3, 2), "exp_avg": tt.ones(2, 3)}}}
    wrong_option = {**good, "param_groups": [{**good["param_groups"][0], "lr": 7.0, "betas": (0.9, 1.5)}]}
    with pytest.raises(FormatError, match=r"0\.exp_avg_sq: expected \(2, 3\), got \(3, 2\)"):
        opt.load_state_dict(wrong_shape)
    with pytest.raises(OpError, match=r"betas=\(0\.9, 1\.5\)"):
        opt.load_state_dict(wrong_option)
    for key, slot in opt.named_state():
        assert (slot.numpy() == before[key]).all(), key


# -- options -----------------------------------------------------------------------------------------------------------


def test_a_closure_works_out_the_gradients() -> None:
    p = tt.tensor([3.0], requires_grad=True)
    opt = optim.SGD([p], lr=0.5)

    def closure() -> Any:
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with tt.no_grad():
        assert opt.step(closure).item() == 9
    assert p.item() == 0 and opt.step() is None


def test_a_centered_variance_is_never_negative() -> None:
    opt, p = fresh("RMSprop", centered=True, alpha=0.5, lr=1e-3)
    for _ in range(60):
        given(opt, p, np.full((2, 3), 0.3, np.float32))
    assert np.isfinite(p.numpy()).all()


def test_a_group_shares_a_step_count_and_groups_do_not() -> None:
    """What the documentation says of parameters that have no gradient in some steps."""
    a, b, c = (tt.zeros(1, requires_grad=True) for _ in range(3))
    opt = optim.Adam([{"params": [a, b]}, {"params": [c]}], lr=1.0, eps=0.0)
    one = np.ones(1, np.float32)
    for _ in range(3):
        a.grad, b.grad, c.grad = tt.tensor(one), None, None
        opt.step()
    b.grad = tt.tensor(one)
    opt.step()
    assert b.item() == pytest.approx(-(0.1 / (1 - 0.9 ** 4)) / np.sqrt(0.001 / (1 - 0.999 ** 4)), rel=1e-5)
    assert [g["step"].item() for g in opt.param_groups] == [4, 4] and c.item() == 0


def test_options_may_be_changed_between_eager_steps() -> None:
    p, q = (tt.zeros(1, requires_grad=True) for _ in range(2))
    one = np.ones(1, np.float32)
    opt, other = optim.SGD([p], lr=1.0), optim.SGD([q], lr=1.0, momentum=0.5)
    given(opt, p, one)
    assert p.item() == -1
    opt.param_groups[0]["momentum"] = 0.5
    for _ in range(3):
        given(opt, p, one)
        given(other, q, one)
    assert p.item() == q.item() - 1
    assert "momentum_buffer" in opt.state_dict()["state"][0]
    opt.param_groups[0]["momentum"] = 0.0
    assert list(opt.state_dict()["state"][0]) == ["step"]
    opt.load_state_dict(other.state_dict())
    given(opt, p, one)
    given(other, q, one)
    assert p.item() == q.item() - 1


def test_options_are_told() -> None:
    opt, _ = fresh("Lion", lr=0.01, weight_decay=0.5)
    assert repr(opt) == "Lion(lr=0.01, betas=(0.9, 0.99), weight_decay=0.5, maximize=False: 1 parameters)"


def test_wrong_options_say_what_is_wrong() -> None:
    p = tt.ones(2, 2, requires_grad=True)
    nan = float("nan")
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: optim.SGD([p], lr=nan), r"SGD\(lr=nan\): expected a learning rate ≥ 0"),
        (lambda: optim.RMSprop([p], alpha=-0.1), r"RMSprop\(alpha=-0.1\)"),
        (lambda: optim.RMSprop([p], momentum=-0.1), r"momentum=-0.1"),
        (lambda: optim.Adagrad([p], lr_decay=-1), r"lr_decay=-1"),
        (lambda: optim.Adagrad([p], initial_accumulator_value=-1), r"initial_accumulator_value=-1"),
        (lambda: optim.Lion([p], betas=(0.9, 1.0)), r"Lion\(betas=\(0.9, 1.0\)\)"),
        (lambda: optim.Lion([p], betas=(0.9,)), "expected two numbers"),  # type: ignore[arg-type]
        (lambda: optim.Lion([p], weight_decay=-1), "weight_decay=-1"),
        (lambda: optim.Muon([p], adjust_lr_fn="mine"), "'original', 'match_rms_adamw'"),
        (lambda: optim.Muon([p], ns_steps=100), "from 0 to 99"),
        (lambda: optim.Muon([p], ns_coefficients=(1.0, 2.0)), "three numbers"),  # type: ignore[arg-type]
        (lambda: optim.Muon([p], eps=-1.0), "eps=-1.0"),
        (lambda: optim.Adam([p], amsgrad=True).add_param_group({"params": [tt.ones(1, requires_grad=True)],
                                                               "nesterov": True}), "no option nesterov"),
    ]
    for call, words in cases:
        with pytest.raises(OpError, match=words):
            call()
    for name in EVERY:
        with pytest.raises(OpError, match=f"{name}: there is nothing to optimise"):
            getattr(optim, name)([])


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad"])
def test_ten_steps_in_f64_are_pytorchs_in_f64(name: str, peer: Peer, rng: np.random.Generator) -> None:
    """The learning rate and the step count are as wide as the parameters."""
    torch = peer("torch")
    start = rng.standard_normal(5)
    ours, theirs = tt.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    pairs = [(getattr(o.optim, name)([w], lr=0.1), w) for o, w in ((tt, ours), (torch, theirs))]
    for _ in range(10):
        for optimizer, w in pairs:
            optimizer.zero_grad()
            (w * w * w).sum().backward()
            optimizer.step()
    assert ours.dtype is tt.f64
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-12)
    assert pairs[0][0].lr == 0.1


@pytest.mark.parametrize(("act", "says"), [
    (lambda w: tt.optim.SGD(tt.nn.Linear(2, 2)), r"model.parameters\(\), got Linear"),  # type: ignore[arg-type]
    (lambda w: tt.optim.SGD([w], lr="fast"), "lr=fast"),  # type: ignore[arg-type]
    (lambda w: tt.optim.Lion([w], betas=None), "betas=None"),  # type: ignore[arg-type]
    (lambda w: tt.optim.Adam([w], betas=0.9), "betas=0.9"),  # type: ignore[arg-type]
    (lambda w: tt.optim.Adam([w], betas=(0.9, "x")), "betas"),  # type: ignore[arg-type]
])
def test_what_is_no_number_is_an_error(act: Any, says: str) -> None:
    with pytest.raises(OpError, match=says):
        act(tt.ones(2, requires_grad=True))


def test_a_state_of_something_else_is_an_error() -> None:
    with pytest.raises(FormatError, match="param_groups, state missing"):
        tt.optim.SGD([tt.ones(2, requires_grad=True)]).load_state_dict({"weight": 1})
