"""How times are taken and told: turns, medians, targets, absent peers; and the workloads that count, not time."""

import json
from collections.abc import Iterator

import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.bench import compare, gemm, peers, report, startup, timing, training
from tinytorch.bench.rows import Row, Settings, Target, against, shown
from tinytorch.bench.timing import Timing, paired
from tinytorch.bench.workloads import WORKLOADS, run

QUICK = Settings(threads=1, peers=frozenset(), quick=True)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement takes as long as it must, not longer."""
    monkeypatch.setattr(Settings, "seconds", 0.01)


# -- times -------------------------------------------------------------------------------------------------------------


def test_calls_take_turns_in_a_new_order_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TURN", 0.0)
    said: list[str] = []
    found = paired({name: lambda name=name: said.append(name) for name in "abc"}, rounds=4)  # type: ignore[misc]
    assert "".join(said[-12:]) == "abcbcacababc"
    assert [len(timing.samples) for timing in found.values()] == [4, 4, 4]


def test_settling_calls_once_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TURN", 0.0)
    calls = [0]
    paired({"a": lambda: calls.__setitem__(0, calls[0] + 1)}, rounds=5, settle=1e-4)
    assert calls[0] == 3 + 2 * 5


def test_timing() -> None:
    slow, fast = Timing((4.0, 8.0, 6.0, 2.0, 10.0)), Timing((2.0, 2.0, 2.0, 2.0, 2.0))
    assert slow.median == 6.0 and slow.quartiles == (4.0, 8.0)
    assert fast.faster_than(slow) == 3.0 and Timing((1.0,)).quartiles == (1.0, 1.0)
    assert str(slow) == "6 s (4 s – 8 s)"


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """A neighbour that slows a whole round changes no ratio."""
    assert Timing((1.0, 100.0, 2.0)).faster_than(Timing((3.0, 300.0, 6.0))) == 3.0


# -- tt.bench ----------------------------------------------------------------------------------------------------------


def test_bench_times_eager_and_compiled() -> None:
    model = nn.Linear(8, 4)
    result = tt.bench(model, tt.rand(3, 8), repeats=5)
    assert len(result.eager.samples) == len(result.compiled.samples) == 5
    assert result.launches == 1 and set(result.parts) == {"trace", "passes", "kernels"}
    assert result.first >= sum(result.parts.values()) > 0
    data = json.loads(result.to_json())
    assert data["speedup"] == result.speedup > 0 and data["eager"]["rounds"] == 5
    assert "times as fast" in str(result)


def test_bench_of_what_is_compiled_leaves_it_alone(capsys: pytest.CaptureFixture[str]) -> None:
    fast = tt.compile(lambda x: x * 2 + 1, pipeline="none")
    result = compare.bench(fast, tt.ones(3), repeats=2)
    result.print()
    assert result.launches == 2 and fast.latest is None
    assert "2 launches" in capsys.readouterr().out


# -- rows --------------------------------------------------------------------------------------------------------------


def test_targets() -> None:
    least, most = Target(2.0), Target(15e-6, "s", at_most=True)
    assert least.met(2.0) and not least.met(1.99) and most.met(15e-6) and not most.met(16e-6)
    assert (str(least), str(most), str(Target(0.9, "%"))) == ("≥ 2.00×", "≤ 15 µs", "≥ 90 %")
    assert shown(16, "") == "16" and shown(0.853, "%") == "85 %"
    assert not least.met(float("nan")), "no figure is no success"


def test_a_row_without_a_peer_is_not_reached_and_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed", lambda peer: False)
    row = against("step", "case", {"ours": Timing((1.0,))}, "torch", Target(2.0))
    assert row.reached is None and row.peers == {"torch": "not installed"}
    both = against("step", "case", {"ours": Timing((1.0,)), "torch": Timing((1.5,))}, "torch", Target(2.0))
    assert both.figure == 1.5 and both.reached is False
    assert report.summary([row, both, Row("w", "told", 1.0)]) == "0 of 2 targets reached, 1 not measured"


def test_report_forms() -> None:
    rows = [Row("call", "some case", 2e-6, Target(15e-6, "s", True), Timing((1e-6, 2e-6)), unit="s", note="a note"),
            Row("step", "another", 0.5, Target(1.0), Timing((2.0,)), {"torch": Timing((1.0,))})]  # fmt: skip
    page = report.markdown(rows, QUICK, {name: w.about for name, w in WORKLOADS.items()})
    assert "1 of 2 targets reached (a quick run)" in page and "{" not in page
    assert "| some case | 1.5 µs (1.25 µs – 1.75 µs) |  | 2 µs | ≤ 15 µs | yes | a note |" in page
    assert "| another | 2 s (2 s – 2 s) | torch 1 s (1 s – 1 s) | 0.50× | ≥ 1.00× | no |  |" in page
    data = json.loads(report.to_json(rows, QUICK))
    assert data["environment"]["threads"] == 1 and [row["reached"] for row in data["rows"]] == [True, False]
    assert data["rows"][1]["peers"]["torch"]["median"] == 1.0
    from rich.console import Console

    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table(rows))
    assert "a note" in console.export_text()


# -- workloads ---------------------------------------------------------------------------------------------------------


def test_the_step_launches_few_kernels_and_compiles_none_for_a_new_batch() -> None:
    rows = {row.case: row for row in run(["step"], QUICK)}
    for case in ("kernels launched in that step", "arena: highest byte written, of those predicted"):
        assert rows[case].reached, rows[case]
    assert rows["the first call at another batch size"].note == "0 kernels compiled"


def test_rows_take_one_kernel_each() -> None:
    kernels = [row for row in run(["rows"], QUICK) if row.case.endswith("kernels")]
    assert len(kernels) == 2 and all(row.reached for row in kernels)


@pytest.mark.parametrize("name", ["call", "gelu", "gemm-peak"])
def test_workloads_run(name: str) -> None:
    rows = list(run([name], QUICK))
    assert rows and all(row.workload == name and row.target for row in rows)
    assert all((row.figure is None) == (row.peers != {}) for row in rows), "without peers, what needs none"


def test_calling_costs_little() -> None:
    """Generously: a figure for a busy machine; `tito bench call` has the sharp one."""
    assert all(row.figure is not None and row.figure < 150e-6 for row in run(["call"], QUICK))


def test_gemm_compares_with_numpy() -> None:
    pytest.importorskip("threadpoolctl")
    found = gemm.against_numpy((7, 33, 1), "tn", 1, 0.0, 0.0)
    assert set(found) == {"ours", "numpy"}


def test_gemm_measures_the_worst_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("threadpoolctl")
    asked: list[float] = []

    def slower(shape: gemm.Shape, layout: str, threads: int, seconds: float, settle: float) -> dict[str, Timing]:
        asked.append(seconds)
        return {"ours": Timing((1.0,)), "numpy": Timing((0.5 if len(asked) == 1 else 1.5,))}

    monkeypatch.setattr(gemm, "against_numpy", slower)
    rows = list(gemm._groups({"layers": gemm.LAYERS}, ("nn",), 1, 0.1, 0.0))
    assert asked.count(0.8) == gemm.AGAIN and [row.figure for row in rows] == [1.5, 1.5]


def test_a_new_process_imports_lightly_and_finds_its_kernels() -> None:
    seconds, modules, heavy = startup.in_process(startup.IMPORT)
    assert heavy == [] and modules > 10 and seconds < 10
    next(training.step(QUICK))  # so that all kernels are in the cache
    assert startup.in_process(startup.FIRST_CALL)[2] <= 12, "at most those of the other thread count"
    assert startup.in_process(startup.FIRST_CALL)[2] == 0


@pytest.mark.peers
def test_peers_compute_the_same() -> None:
    x, y = training.batch(8)
    step = peers.torch_step(*training.weights(), x, y, 1, False)
    ours = training.our_step()
    for _ in range(3):
        assert ours(tt.tensor(x), tt.tensor(y)).item() == pytest.approx(step().item(), rel=1e-4)


@pytest.mark.peers("jax")
def test_jax_computes_the_same() -> None:
    x, y = training.batch(8)
    step, ours = peers.jax_step(*training.weights(), x, y, 2), training.our_step()
    for _ in range(3):
        assert ours(tt.tensor(x), tt.tensor(y)).item() == pytest.approx(float(step()), rel=1e-4)


def test_workloads_say_what_they_are() -> None:
    names: Iterator[str] = iter(WORKLOADS)
    assert all(WORKLOADS[name].name == name and WORKLOADS[name].about for name in names)
