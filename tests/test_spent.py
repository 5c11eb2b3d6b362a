"""A first call tells where its time went."""

import time

import numpy as np
import pytest

import tinytorch as tt

PARTS = ["import", "trace", "passes", "plan", "emit", "compile", "load"]


def test_the_parts_of_a_first_call_add_up() -> None:
    fast = tt.compile(lambda x: (x * 2.0 + 1.0).exp().sum())
    begin = time.perf_counter()
    fast(tt.ones(8, 8))
    whole = time.perf_counter() - begin
    assert sorted(fast.seconds) == sorted(PARTS) and all(seconds >= 0 for seconds in fast.seconds.values())
    assert 0 < fast.seconds["passes"] < sum(fast.seconds.values()) <= whole
    assert fast.seconds["passes"] >= fast.history.seconds


def test_the_report_names_parts_and_counts_kernels() -> None:
    def scaled(x: tt.Tensor) -> tt.Tensor:
        return x * 3.0 - 1.25

    x = tt.tensor(np.ones((4, 4), np.float32))
    first, second = tt.compile(scaled), tt.compile(scaled)
    first(x), second(x)
    lines = second.report().splitlines()
    assert lines[0].startswith("first call of scaled: ") and [line.split()[0] for line in lines[1:]] == PARTS
    assert "kernels: 0" in lines[6] and "known already: 1" in lines[7] and "Fuse" in second.report()
    assert second.latest.spent.compiled == 0 and first.latest.spent.compiled + first.latest.spent.loaded <= 1


def test_debug_prints_the_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TINYTORCH_DEBUG", "1")
    fast = tt.compile(lambda x: x + 1.0)
    fast(tt.ones(3))
    assert fast.report() in capsys.readouterr().err
