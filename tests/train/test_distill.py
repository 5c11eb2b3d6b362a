"""Distillation: the loss is the paper's, gradients reach the student alone, and a student learns from the teacher."""

from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.train import Distillation, Trainer


def networks() -> tuple[nn.Module, nn.Module]:
    tt.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    return teacher, nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def batch(rows: int = 8) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return tt.tensor(rng.standard_normal((rows, 6)).astype("f4")), tt.tensor(rng.integers(0, 3, rows))


@pytest.mark.peers("torch")
def test_the_loss_is_that_of_the_paper(peer: Any) -> None:
    torch = peer("torch")
    teacher, student = networks()
    x, y = batch()
    loss, output, _ = Distillation(teacher, nn.CrossEntropyLoss(), temperature=3.0, alpha=0.7)(student, (x, y))
    z, t = (torch.tensor(a.detach().numpy()) for a in (output, teacher(x)))
    f = torch.nn.functional
    soft = f.kl_div(f.log_softmax(z / 3, 1), f.softmax(t / 3, 1), reduction="batchmean") * 9
    wanted = 0.7 * soft + 0.3 * f.cross_entropy(z, torch.tensor(y.numpy()))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_gradients_reach_the_student_and_projections_alone() -> None:
    teacher, student = networks()
    before = {name: t.numpy().copy() for name, t in teacher.state_dict().items()}
    project = nn.Linear(4, 16)
    distil = Distillation(teacher, None, features={"0": "2"}, projections={"0": project})
    distil(student, batch())[0].backward()
    assert all(p.grad is not None for p in (*student.parameters(), *project.parameters()))
    assert all(p.grad is None for p in teacher.parameters())
    assert all(np.array_equal(t.numpy(), before[name]) for name, t in teacher.state_dict().items())
    alone = Distillation(teacher, None)(student, batch())[0]
    assert distil(student, batch())[0].item() > alone.item()  # features count


@pytest.mark.parametrize("compiled", [False, True])
def test_a_student_learns_what_the_teacher_knows(compiled: bool) -> None:
    teacher, student = networks()
    x, y = batch(64)
    wrong = (y + 1) % 3  # labels that the teacher contradicts
    with tt.no_grad():
        teacher.eval()
        teacher[4].weight.mul_(20.0)
        opinion = teacher(x).argmax(-1)
    distil = Distillation(teacher, nn.CrossEntropyLoss(), temperature=2.0, alpha=0.95)
    run = Trainer(student, optim.Adam(student.parameters(), lr=0.05), loss_step=distil, compile=compiled,
                  progress=False)
    run.fit([(x, wrong)], steps=60)
    assert (student(x).argmax(-1) == opinion).numpy().mean() > 0.8
    assert not teacher.training


def test_bad_input_is_told_apart() -> None:
    teacher, student = networks()
    with pytest.raises(OpError, match="temperature > 0"):
        Distillation(teacher, None, temperature=0)
    with pytest.raises(AttributeError, match="no module '9'"):
        Distillation(teacher, None, features={"0": "9"})
    with pytest.raises(AttributeError, match="no module 'body'"):
        Distillation(teacher, None, features={"body": "0"})(student, batch())
    with pytest.raises(OpError, match="not among the features"):
        Distillation(teacher, None, projections={"0": nn.ReLU()})
    with pytest.raises(ShapeError, match=r"0 of the student gives f32\[8, 4\].*projections="):
        Distillation(teacher, None, features={"0": "0"})(student, batch())
    with pytest.raises(ShapeError, match="same classes"):
        Distillation(teacher, None)(nn.Linear(6, 5), batch())
