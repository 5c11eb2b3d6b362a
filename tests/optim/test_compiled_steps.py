"""Optimisers inside compiled steps: what eager steps do, with the learning rate an input, in few launches."""

from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import optim

RNG = np.random.default_rng(11)
X = RNG.standard_normal((8, 6)).astype(np.float32)
START = [RNG.standard_normal((6, 4)).astype(np.float32), RNG.standard_normal((4, 3)).astype(np.float32)]

# name, options, launches of the compiled step: one for the update of each group of weights that are alike
OPTIONS: list[tuple[str, dict[str, Any], int]] = [
    ("SGD", {"lr": 0.05}, 12),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True}, 12),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3}, 12),
    ("Adam", {"lr": 0.02, "weight_decay": 0.1}, 12),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.3, "amsgrad": True}, 13),
    ("RMSprop", {"lr": 0.01, "weight_decay": 0.1}, 12),
    ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.5, "eps": 1e-3}, 12),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}, 12),
    ("Lion", {"lr": 0.01, "weight_decay": 0.1}, 13),
    ("Muon", {"lr": 0.05, "ns_steps": 2}, 35),
]


def steps(name: str, options: dict[str, Any]) -> tuple[Any, Any, list[Any]]:
    """An optimiser, a step of it, and its parameters."""
    weights = [tt.tensor(start, requires_grad=True) for start in START]
    opt = getattr(optim, name)(weights, **options)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = (((x @ weights[0]).tanh() @ weights[1]) ** 2).mean()
        loss.backward()
        norm = optim.clip_grad_norm_(weights, 0.5)
        opt.step()
        return loss, norm

    return opt, step, weights


@pytest.mark.parametrize(("name", "options", "launches"), OPTIONS, ids=str)
def test_a_compiled_step_is_the_eager_one(name: str, options: dict[str, Any], launches: int) -> None:
    eager, slow, expected = steps(name, options)
    opt, step, weights = steps(name, options)
    fast, x = tt.compile(step), tt.tensor(X)
    for number in range(10):
        if number == 5:
            eager.lr = opt.lr = options["lr"] / 4
        for a, b in zip(fast(x), slow(x), strict=True):
            assert a.item() == pytest.approx(b.item(), rel=1e-5)
    for p, q in zip(weights, expected, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-5)
    for (key, mine), (same, theirs) in zip(opt.named_state(), eager.named_state(), strict=True):
        assert key == same
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5, err_msg=key)
    assert opt.param_groups[0]["step"].item() == 10 and opt.lr == options["lr"] / 4
    assert sum(map(len, fast.entries.values())) == 1, "a new learning rate is no new program"
    assert len(fast.program.steps) <= launches, [n.op.name for n in fast.graph.nodes]
    assert all(p.grad is None for p in weights)


def test_a_compiled_step_method_sees_new_gradients() -> None:
    p, q = (tt.zeros(2, requires_grad=True) for _ in range(2))
    opt = optim.SGD([p, q], lr=1.0)
    fast = tt.compile(opt.step)
    for number in (1.0, 10.0, 100.0):
        opt.zero_grad()
        (p * number + q * 2).sum().backward()
        fast()
    assert p.tolist() == [-111, -111] and q.tolist() == [-6, -6]
    assert sum(map(len, fast.entries.values())) == 1


def test_inputs_of_a_step_have_names() -> None:
    a_optimiser, weights = optim.Adam([tt.ones(2, requires_grad=True)]), tt.ones(2, requires_grad=True)
    a_optimiser.add_param_group({"params": weights})

    def step() -> None:
        a_optimiser.zero_grad()
        (weights * weights).sum().backward()
        a_optimiser.step()

    names = {value.hint for value in tt.trace(step).inputs}
    assert {"weights", "a_optimiser_lr_1", "a_optimiser_step_1", "a_optimiser_exp_avg_1"} <= names, names


def test_an_option_that_was_changed_is_noticed() -> None:
    p = tt.zeros(1, requires_grad=True)
    opt = optim.SGD([p], lr=1.0)
    saved = opt.state_dict()

    @tt.compile
    def step() -> None:
        opt.zero_grad()
        p.sum().backward()
        opt.step()

    step()
    opt.param_groups[0]["weight_decay"] = 2.0
    step()
    assert p.item() == -1 - 1 + 2 and sum(map(len, step.entries.values())) == 2
    opt.load_state_dict(saved)
    step()
    assert p.item() == -1 and sum(map(len, step.entries.values())) == 2, "the first program, again"
    q = tt.zeros(1, requires_grad=True)
    opt.add_param_group({"params": [q]})
    q.grad = tt.ones(1)
    step()
    assert p.item() == -2 and sum(map(len, step.entries.values())) == 3
