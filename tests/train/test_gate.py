"""Gates and reports: what passes, what never does, what is printed and written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.ir.errors import OpError
from tinytorch.train import Gate, Report

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("value", "bounds", "reached"), [
    (0.98, {"at_least": 0.98}, True), (0.9799, {"at_least": 0.98}, False), (1.88, {"at_most": 1.88}, True),
    (1.881, {"at_most": 1.88}, False), (0.5, {"at_least": 0.4, "at_most": 0.6}, True),
    (0.7, {"at_least": 0.4, "at_most": 0.6}, False), (NAN, {"at_least": -INF}, False), (NAN, {"at_most": INF}, False),
    (NAN, {"at_least": 0.0, "at_most": 1.0}, False), (INF, {"at_least": 0.98}, True), (INF, {"at_most": 9.0}, False),
    (np.float32(1.0), {"at_least": 1}, True), (tt.tensor(0.25), {"at_most": 0.25}, True)])
def test_what_passes(value: Any, bounds: dict[str, float], reached: bool) -> None:
    gate = Gate("x", value, **bounds)
    assert gate.reached is reached and type(gate.value) is float
    assert str(gate).endswith("reached" if reached else "missed")


@pytest.mark.parametrize("bounds", [{}, {"at_least": NAN}, {"at_least": 2.0, "at_most": 1.0}])
def test_bounds_that_say_nothing_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(OpError, match="Gate"):
        Gate("x", 1.0, **bounds)


def test_a_report_is_missed_if_any_gate_is(tmp_path: Path, capsys: Any) -> None:
    good, bad = Gate("accuracy", 0.99, at_least=0.98), Gate("loss [nats]", NAN, at_most=1.0)
    figures = {"parameters": 101_770, "last": NAN, "speed": 1.5, "model": "MLP"}
    report = Report("lenet_1998/mlp", seed=3, seconds=12.3456, gates=[good, bad], figures=figures)
    assert (report.exit_code, Report("x", 0, 1.0, [good]).exit_code) == (1, 0)
    assert report.print() is report
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("lenet_1998/mlp", "seed 3", "reached", "missed", "loss [nats]", "101770"))

    path = report.write(tmp_path / "new")
    assert path.name == "lenet_1998-mlp.json" and path.read_text().count("\n") == 1
    row = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert row["reached"] is False and row["seconds"] == 12.346 and row["seed"] == 3
    assert [gate["reached"] for gate in row["gates"]] == [True, False]
    assert row["gates"][1]["value"] == "nan" and row["figures"] == {**figures, "last": "nan"}
    report.write(tmp_path / "new")
    assert [p.name for p in path.parent.iterdir()] == [path.name]
