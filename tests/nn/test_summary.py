"""`nn.summary`: numbers against definitions and against `tt.profile`; the model stays as it was."""

from typing import Any

import numpy as np
import pytest
from against_torch import near

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import TracingError
from tinytorch.nn import functional as F


class Net(nn.Module):
    """A shared layer, a frozen one, one that is never called, dropout, statistics, a tuple of results."""

    def __init__(self) -> None:
        self.stem = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5))
        self.twice = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.twice.weight
        self.frozen = nn.Linear(4, 2).requires_grad_(False)
        self.unused = nn.Linear(7, 7)
        self.register_buffer("mean", tt.zeros(4))
        self.latest: Any = None

    def forward(self, x: Any) -> Any:
        """All of it."""
        x = self.tied(self.twice(self.twice(self.stem(x)))) * 2.0
        self.mean.copy_(x.detach().mean(0))
        self.latest = x
        return self.frozen(x), x


def test_rows_say_what_is_there() -> None:
    net, x = Net(), tt.zeros(5, 3)
    found = nn.summary(net, x)
    rows = {row.path: row for row in found.rows}
    assert list(rows) == [path for path, _ in net.named_modules()]
    assert {path: (row.trained, row.frozen, row.shared) for path, row in rows.items()} == {
        "": (0, 0, 0), "stem": (0, 0, 0), "stem.0": (16, 0, 0), "stem.1": (0, 0, 0), "stem.2": (0, 0, 0),
        "twice": (20, 0, 0), "tied": (0, 0, 16), "frozen": (0, 10, 0), "unused": (56, 0, 0)}  # fmt: skip
    assert {path: (row.output, row.calls) for path, row in rows.items()} == {
        "": ("(5, 2), (5, 4)", 1), "stem": ("(5, 4)", 1), "stem.0": ("(5, 4)", 1), "stem.1": ("(5, 4)", 1),
        "stem.2": ("(5, 4)", 1), "twice": ("(5, 4)", 2), "tied": ("(5, 4)", 1), "frozen": ("(5, 2)", 1),
        "unused": ("", 0)}  # fmt: skip
    assert rows["stem.0"].flops == 5 * 4 * (2 * 3 + 1) and rows["twice"].flops == 2 * 5 * 4 * (2 * 4 + 1)
    assert rows["frozen"].flops == 5 * 2 * (2 * 4 + 1) and rows[""].flops == 5 * 4 + 5 * 4 + 4, "· 2, mean"
    assert rows["tied"].flops == 5 * 4 * 2 * 4 and rows["stem.1"].transcendentals == 20 and rows["stem"].flops == 0
    assert (found.trained, found.frozen, found.parameters) == (92, 10, 102)
    assert found.parameters == sum(p.size for p in net.parameters())


def test_totals_are_those_of_a_profile() -> None:
    net, x = Net(), tt.zeros(5, 3)
    found, report = nn.summary(net, x), tt.profile(net, x)
    assert (found.flops, found.transcendentals) == (report.flops, report.transcendentals)
    assert nn.summary(net.eval(), x).flops < found.flops, "the mode is the model's"


def test_depth_adds_up() -> None:
    net, x = Net(), tt.zeros(5, 3)
    full, parts, whole = nn.summary(net, x), nn.summary(net, x, depth=1), nn.summary(net, x, depth=0)
    assert [row.path for row in parts.rows] == ["", "stem", "twice", "tied", "frozen", "unused"]
    assert [row.path for row in whole.rows] == [""] and whole.rows[0].shared == 16
    for other in (parts, whole):
        assert (other.trained, other.frozen, other.flops, other.transcendentals) == (
            full.trained, full.frozen, full.flops, full.transcendentals)  # fmt: skip


def test_the_model_stays_as_it_was() -> None:
    net, x = Net(), tt.randn(5, 3)
    net.stem.eval()
    handle = net.twice.register_forward_hook(lambda module, args, y: y)
    attributes = [dict(vars(module)) for module in net.modules()]
    numbers = {key: np.array(value.numpy()) for key, value in net.state_dict().items()}
    y = net(x)[0].sum()  # what was recorded before can be differentiated after
    attributes[0]["latest"], numbers["mean"] = net.latest, net.mean.numpy().copy()
    state, tensors = tt.random.default_generator.state, [*net.buffers(), tt.random.default_generator.state]
    number, versions = state.item(), [t.version for t in tensors]
    nn.summary(net, x)
    assert state.item() == number and [t.version for t in tensors] == versions
    assert all(vars(m) == before for m, before in zip(net.modules(), attributes, strict=True))
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), numbers[key])
    y.backward()
    assert net.stem[0].weight.grad is not None and net.twice._hooks == (handle,)
    near(net(x)[1], net.latest)


def test_a_model_that_cannot_be_traced_stays_as_it_was_too() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.layer(x) if self.layer(x).sum() > 0 else x

    net = Branches()
    with pytest.raises(TracingError, match="cannot branch"):
        nn.summary(net, tt.zeros(3, 2))
    assert net._hooks == () == net.layer._hooks


def test_how_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = nn.summary(Net(), tt.zeros(5, 3))
    text = str(found)
    assert "(5, 4) × 2" in text and "+16" in text and "shared" in text and "frozen" in text and "102" in text
    assert text.splitlines()[-1].startswith("total")
    html = found._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == len(found.rows) + 2 and "<td>stem.0</td>" in html
    assert repr(found).startswith("<Summary: 102 parameters")
    found.print()
    assert "stem.0" in capsys.readouterr().out
    bare = str(nn.summary(nn.Linear(2, 3)))
    assert "FLOPs" not in bare and "output" not in bare and "frozen" not in bare and "9" in bare


def test_inputs_of_several_kinds() -> None:
    class Pick(nn.Module):
        def __init__(self) -> None:
            self.table = nn.Embedding(5, 2)

        def forward(self, at: Any, scale: float, flip: bool) -> Any:
            return {"rows": F.relu(self.table(at) * scale), "flip": flip}

    found = nn.summary(Pick(), np.array([1, 2, 3]), 2.0, True)
    assert [row.output for row in found.rows] == ["(3, 2)", "(3, 2)"] and found.flops > 0
