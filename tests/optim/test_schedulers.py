"""Schedulers: 50 steps beside PyTorch's, state that goes on, and learning rates that compiled steps take."""

import json
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import tinytorch as tt
from tinytorch import optim
from tinytorch.ir.errors import FormatError, OpError, TracingError

Peer = Callable[[str], ModuleType]
STEPS = 50


def one_cycle(s: Any, o: Any, max_lr: Any = 0.5, **options: Any) -> Any:
    """Without momentum, which ours leaves alone."""
    return s.OneCycleLR(o, max_lr, cycle_momentum=False, **options)


# name -> (schedulers of a library, optimiser) -> scheduler
SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "step": lambda s, o: s.StepLR(o, 7, gamma=0.5),
    "step every epoch": lambda s, o: s.StepLR(o, 1),
    "multi-step": lambda s, o: s.MultiStepLR(o, [20, 3, 3, 40], gamma=0.3),
    "multi-step at once": lambda s, o: s.MultiStepLR(o, [0, 2]),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.9),
    "lambda": lambda s, o: s.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "lambdas": lambda s, o: s.LambdaLR(o, [lambda epoch: 0.9 ** epoch, lambda epoch: 2.0]),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 50),
    "cosine up and down": lambda s, o: s.CosineAnnealingLR(o, 9, eta_min=0.01),
    "cosine of one": lambda s, o: s.CosineAnnealingLR(o, 1, eta_min=0.01),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 10),
    "growing restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, eta_min=0.02),
    "restarts of one": lambda s, o: s.CosineAnnealingWarmRestarts(o, 1, 3),
    "linear": lambda s, o: s.LinearLR(o),
    "linear down": lambda s, o: s.LinearLR(o, 1.0, 0.0, 30),
    "one cycle": lambda s, o: one_cycle(s, o, total_steps=STEPS),
    "one cycle, straight": lambda s, o: one_cycle(s, o, [0.5, 0.1], epochs=10, steps_per_epoch=6, pct_start=0.45,
                                                  anneal_strategy="linear", div_factor=5.0, final_div_factor=7.0),
    "one cycle in three": lambda s, o: one_cycle(s, o, total_steps=STEPS + 3, pct_start=0.2, three_phase=True),
    "one cycle from the top": lambda s, o: one_cycle(s, o, total_steps=STEPS, pct_start=0.0),
    "two at once": lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.1, total_iters=20), s.ExponentialLR(o, 0.95)]),
    "three at once": lambda s, o: s.ChainedScheduler(
        [s.LinearLR(o, 0.5), s.CosineAnnealingLR(o, 12, 0.003), s.MultiStepLR(o, [5, 30])], o),
    "warm-up, cosine": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.01, total_iters=8), s.CosineAnnealingLR(o, 42, eta_min=0.001)], [8]),
    "four in turn": lambda s, o: s.SequentialLR(
        o, [s.ExponentialLR(o, 0.8), s.StepLR(o, 3), s.CosineAnnealingWarmRestarts(o, 4, 2),
            s.LambdaLR(o, lambda epoch: 0.99 ** epoch)], [5, 15, 33]),
}
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


def ours() -> Any:
    """An optimiser of two groups."""
    a, b = (tt.ones(2, requires_grad=True) for _ in range(2))
    return optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.02}], lr=0.1)


def theirs(torch: Any) -> Any:
    """The same in PyTorch."""
    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    return torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.02}], lr=0.1)


def rates(opt: Any) -> list[float]:
    """The learning rates that the next step uses."""
    return [float(group["lr"].item() if isinstance(group["lr"], tt.Tensor) else group["lr"])
            for group in opt.param_groups]


def run(opt: Any, schedule: Any, steps: int) -> list[list[float]]:
    """The learning rates before each step."""
    seen = []
    for _ in range(steps):
        seen.append(schedule.get_last_lr())
        assert rates(opt) == pytest.approx(seen[-1], rel=1e-6, abs=1e-12)
        opt.step()
        schedule.step()
    return seen


@every_schedule
def test_learning_rates_are_pytorchs(name: str, peer: Peer) -> None:
    torch = peer("torch")
    mine, other = ours(), theirs(torch)
    found = run(mine, SCHEDULES[name](optim.lr_scheduler, mine), STEPS)
    expected = run(other, SCHEDULES[name](torch.optim.lr_scheduler, other), STEPS)
    for step, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12), f"step {step}"


@every_schedule
def test_a_schedule_goes_on_where_it_was(name: str) -> None:
    first = ours()
    schedule = SCHEDULES[name](optim, first)
    run(first, schedule, 23)
    state, of_optimiser = json.loads(json.dumps(schedule.state_dict())), first.state_dict()
    second = ours()
    again = SCHEDULES[name](optim, second)
    second.load_state_dict(of_optimiser)
    again.load_state_dict(state)
    assert again.state_dict() == schedule.state_dict()
    assert run(second, again, STEPS - 23) == run(first, schedule, STEPS - 23)


@pytest.mark.parametrize("name", ["step", "multi-step", "exponential", "lambda", "cosine up and down",
                                  "growing restarts", "linear"])
def test_states_move_to_pytorch_and_back(name: str, peer: Peer) -> None:
    torch = peer("torch")
    mine, other, again = ours(), theirs(torch), ours()
    schedule = SCHEDULES[name](optim, mine)
    run(mine, schedule, 11)
    their_schedule = SCHEDULES[name](torch.optim.lr_scheduler, other)
    run(other, their_schedule, 11)
    new = SCHEDULES[name](optim, again)
    again.load_state_dict(other.state_dict())
    new.load_state_dict(their_schedule.state_dict())
    assert [rate for row in run(again, new, 20) for rate in row] == pytest.approx(
        [rate for row in run(mine, schedule, 20) for rate in row], rel=1e-9)


def test_a_schedule_resumes_from_the_optimiser_alone(peer: Peer) -> None:
    torch = peer("torch")
    mine, other = ours(), theirs(torch)
    for opt, library in ((mine, optim), (other, torch.optim.lr_scheduler)):
        run(opt, library.CosineAnnealingLR(opt, 20), 8)
        resumed = library.CosineAnnealingLR(opt, 20, last_epoch=8)
        run(opt, resumed, 5)
    assert mine.lr == pytest.approx(other.param_groups[0]["lr"], rel=1e-9)


PLATEAUS: list[dict[str, Any]] = [
    {"patience": 2},
    {"patience": 0, "cooldown": 3, "factor": 0.5},
    {"patience": 1, "mode": "max", "threshold": 0.2},
    {"patience": 1, "mode": "max", "threshold": 0.5, "threshold_mode": "abs", "min_lr": [1e-3, 1e-2]},
    {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "min_lr": 1e-4, "eps": 1e-3},
]


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_reduce_on_plateau_is_pytorchs(options: dict[str, Any], peer: Peer) -> None:
    torch = peer("torch")
    mine, other = ours(), theirs(torch)
    schedule = optim.ReduceLROnPlateau(mine, **options)
    their_schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options)
    measures = [3 + math.sin(i * i) - 0.05 * i for i in range(STEPS)]
    measures[4] = math.nan
    seen = set()
    for step, measure in enumerate(measures):
        if step == 20:  # go on in a new one
            state = json.loads(json.dumps(schedule.state_dict()))
            schedule = optim.ReduceLROnPlateau(mine, **options)
            schedule.load_state_dict(state)
        if step == 30:  # ... and in one that takes PyTorch's state
            schedule = optim.ReduceLROnPlateau(mine, **options)
            schedule.load_state_dict(their_schedule.state_dict())
        schedule.step(tt.tensor(measure) if step % 2 else measure)
        their_schedule.step(float(tt.tensor(measure).item()) if step % 2 else measure)
        assert schedule.get_last_lr() == pytest.approx(their_schedule.get_last_lr(), rel=1e-9), f"step {step}"
        assert schedule.num_bad_epochs == their_schedule.num_bad_epochs
        seen.add(schedule.get_last_lr()[0])
    assert len(seen) > 1, "the learning rate was reduced"


def test_warmup_cosine_by_its_definition() -> None:
    opt = ours()
    schedule = optim.warmup_cosine(opt, warmup_steps=4, total_steps=10, final=0.1)
    found = [row[0] / 0.1 for row in run(opt, schedule, 14)]
    expected = [0.2, 0.4, 0.6, 0.8, *(0.1 + 0.9 * (1 + math.cos(math.pi * s / 6)) / 2 for s in range(6)), *[0.1] * 4]
    assert found == pytest.approx(expected, rel=1e-12)


def test_sequences_may_stand_in_sequences() -> None:
    opt = ours()
    inner = optim.SequentialLR(opt, [optim.LinearLR(opt, 0.5, total_iters=2), optim.ExponentialLR(opt, 0.5)], [3])
    chained = optim.ChainedScheduler([optim.ExponentialLR(opt, 0.5), optim.StepLR(opt, 2, 0.1)])
    schedule = optim.SequentialLR(opt, [optim.LambdaLR(opt, lambda epoch: 7.0), inner, chained], [2, 7])
    found = [row[0] / 0.1 for row in run(opt, schedule, 11)]
    assert found == pytest.approx([7, 7, 0.5, 0.75, 1, 1, 0.5, 1, 0.5, 0.025, 0.0125])


def test_a_learning_rate_keeps_pythons_precision() -> None:
    opt = ours()
    schedule = optim.CosineAnnealingLR(opt, 2000, eta_min=0.09)  # up again in f32, errors would grow a millionfold
    for _ in range(4000):
        schedule.step()
    assert opt.lr == pytest.approx(0.1, rel=1e-7)
    opt.lr = 1 / 3
    assert opt.lr == 1 / 3 and opt.state_dict()["param_groups"][0]["lr"] == 1 / 3
    opt.param_groups[0]["lr"].copy_(0.2)
    assert opt.lr == 0.2, "the tensor is what counts"


# -- with compiled steps -----------------------------------------------------------------------------------------------


def test_schedulers_compile_nothing() -> None:
    w = tt.ones(3, requires_grad=True)
    opt = optim.SGD([w], lr=1.0)
    warm, cosine = optim.LinearLR(opt, 0.25, total_iters=3), optim.CosineAnnealingLR(opt, 4)
    schedule = optim.SequentialLR(opt, [warm, cosine], [3])
    expected = 1.0

    @tt.compile
    def step() -> Any:
        opt.zero_grad()
        w.sum().backward()
        opt.step()
        return opt.param_groups[0]["lr"] * 1

    for _ in range(7):
        expected -= opt.lr
        assert step().item() == pytest.approx(opt.lr, rel=1e-6)
        schedule.step()
    assert w.numpy() == pytest.approx(expected, rel=1e-5)
    assert sum(map(len, step.entries.values())) == 1


def test_a_learning_rate_may_be_an_argument_of_a_step() -> None:
    w = tt.ones(3, requires_grad=True)
    opt = optim.SGD([w], lr=9.0)

    @tt.compile
    def step(lr: Any) -> None:
        opt.zero_grad()
        w.sum().backward()
        opt.lr = lr
        opt.step()

    for lr in (0.5, 0.25, 0.125):
        step(lr)
        assert opt.lr == lr
    assert w.tolist() == [0.125] * 3 and sum(map(len, step.entries.values())) == 1


def test_inside_a_traced_function_numbers_are_errors() -> None:
    w = tt.ones(3, requires_grad=True)
    opt = optim.SGD([w], lr=1.0)
    schedule, plateau = optim.StepLR(opt, 1), optim.ReduceLROnPlateau(opt)
    combined = [optim.SequentialLR(opt, [optim.StepLR(opt, 5)], []), optim.ChainedScheduler([optim.StepLR(opt, 5)])]

    def assign() -> None:
        opt.lr = 0.5

    def assign_to_group() -> None:
        opt.param_groups[0]["lr"] = 0.5

    cases: list[tuple[Callable[[], Any], str]] = [
        (schedule.step, r"StepLR\.step\(\) inside a traced"),
        (lambda: plateau.step(1.0), r"ReduceLROnPlateau\.step\(\)"),
        *((one.step, type(one).__name__) for one in combined),
        (lambda: optim.StepLR(opt, 1), "inside a traced"),
        (lambda: schedule.load_state_dict({}), "load_state_dict of a scheduler"),
        (lambda: opt.load_state_dict({}), "load_state_dict of an optimiser"),
        (assign, r'a number for group\["lr"\]'),
        (assign_to_group, "do it outside"),
        (lambda: w * opt.lr, "as a Python number"),
    ]
    rate, epoch = opt.lr, schedule.last_epoch
    for call, words in cases:
        def step(call: Callable[[], Any] = call) -> Any:
            call()
            return w * 1

        with pytest.raises(TracingError, match=words):
            tt.compile(step)()
        with pytest.raises(TracingError, match=words):
            tt.trace(step)
    assert opt.lr == rate and schedule.last_epoch == epoch, "nothing happened"


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_wrong_arguments_say_what_is_wrong() -> None:
    opt, other = ours(), ours()
    step = optim.StepLR(opt, 3)
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: optim.StepLR("adam", 3), "expected an optimiser, got 'adam'"),  # type: ignore[arg-type]
        (lambda: optim.StepLR(opt, 0), "step_size=0"),
        (lambda: optim.StepLR(ours(), 2, last_epoch=4), "never had a scheduler"),
        (lambda: optim.LambdaLR(opt, [math.cos]), "expected one value, or 2"),
        (lambda: optim.LinearLR(opt, 0.0), "0 < start_factor"),
        (lambda: optim.LinearLR(opt, total_iters=0), "total_iters ≥ 1"),
        (lambda: optim.CosineAnnealingLR(opt, 0), "T_max=0"),
        (lambda: optim.CosineAnnealingWarmRestarts(opt, 0), "T_0=0"),
        (lambda: optim.CosineAnnealingWarmRestarts(opt, 2, 1.5), "whole numbers"),  # type: ignore[arg-type]
        (lambda: optim.OneCycleLR(opt, 0.1), "expected total_steps"),
        (lambda: optim.OneCycleLR(opt, 0.1, epochs=3), "steps_per_epoch=None"),
        (lambda: optim.OneCycleLR(opt, 0.1, 10, pct_start=1.5), "from 0 to 1"),
        (lambda: optim.OneCycleLR(opt, 0.1, 10, anneal_strategy="steep"), "'cos' or 'linear'"),
        (lambda: optim.OneCycleLR(opt, [0.1], 10), "one for each parameter group; got 1"),
        (lambda: optim.OneCycleLR(opt, 0.1, 10, cycle_momentum=True), "constants of a compiled step"),
        (lambda: [s.step() for s in [optim.OneCycleLR(opt, 0.1, 3)] for _ in range(4)], "the cycle of 3 steps is over"),
        (lambda: optim.ReduceLROnPlateau(opt, mode="best"), "mode='best'"),
        (lambda: optim.ReduceLROnPlateau(opt, factor=1.0), "a factor < 1"),
        (lambda: optim.ReduceLROnPlateau(opt, threshold_mode="none"), "'rel' or 'abs'"),
        (lambda: optim.ReduceLROnPlateau(opt, min_lr=[0.1]), "expected one value, or 2"),
        (lambda: optim.SequentialLR(opt, [], []), "one fewer than schedulers|at least one"),
        (lambda: optim.SequentialLR(opt, [step], [3]), "one fewer than schedulers"),
        (lambda: optim.SequentialLR(opt, [step, step, step], [4, 2]), "in order"),
        (lambda: optim.SequentialLR(opt, [step, optim.StepLR(other, 1)], [3]), "StepLR is of another"),
        (lambda: optim.SequentialLR(opt, [optim.ReduceLROnPlateau(opt)], []), "step.. takes nothing"),
        (lambda: optim.ChainedScheduler([]), "at least one"),
        (lambda: optim.warmup_cosine(opt, 5, 5), "warmup_steps < total_steps"),
    ]
    for call, words in cases:
        with pytest.raises(OpError, match=words):
            call()


def test_groups_come_before_schedulers() -> None:
    opt = ours()
    parts = [optim.ExponentialLR(opt, 0.5), optim.CosineAnnealingLR(opt, 3)]
    schedulers = [*parts, optim.SequentialLR(opt, parts, [2]), optim.ChainedScheduler(parts)]
    plateau = optim.ReduceLROnPlateau(opt)
    opt.add_param_group({"params": [tt.ones(1, requires_grad=True)]})
    for step in (*(schedule.step for schedule in schedulers), lambda: plateau.step(1.0)):
        with pytest.raises(OpError, match="made for 2 parameter groups, the optimiser has 3"):
            step()


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    opt = ours()
    single = optim.SGD([tt.ones(1, requires_grad=True)], lr=0.1)
    cosine, step = optim.CosineAnnealingLR(opt, 5), optim.StepLR(opt, 5)
    both = optim.SequentialLR(opt, [optim.StepLR(opt, 2), optim.CosineAnnealingLR(opt, 3)], [4])
    other = optim.SequentialLR(opt, [optim.StepLR(opt, 3), optim.StepLR(opt, 3)], [4])
    cases: list[tuple[Any, Any, str]] = [
        (cosine, step.state_dict(), "T_max, eta_min missing; is it of another scheduler"),
        (step, {**optim.StepLR(single, 7).state_dict(), "last_epoch": 9}, "expected 2 .*, got 1"),
        (both, step.state_dict(), "_schedulers missing|missing"),
        (both, {**other.state_dict(), "last_epoch": 9}, "T_max"),
        (both, {**other.state_dict(), "_schedulers": []}, "expected 2 _schedulers, got 0"),
    ]
    for schedule, state, words in cases:
        before = schedule.state_dict()
        with pytest.raises(FormatError, match=words):
            schedule.load_state_dict(state)
        assert schedule.state_dict() == before
