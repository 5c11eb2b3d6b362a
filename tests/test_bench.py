"""How times are taken and told: turns, medians, targets, absent peers; and the workloads that count, not time."""

import json
import textwrap
from collections.abc import Iterator

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.bench import compare, gemm, limits, peers, report, startup, timing
from tinytorch.bench.rows import Row, Settings, Target, against, row_from, shown
from tinytorch.bench.timing import Timing, interval, paired
from tinytorch.bench.work import Launch, Work
from tinytorch.bench.workloads import WORKLOADS, run
from tinytorch.runtime import measure

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


@pytest.mark.parametrize(("count", "ranks"), [(1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (9, (1, 7)), (20, (5, 14)),
                                              (100, (39, 60))])  # fmt: skip
def test_confidence_intervals_are_those_of_the_tables(count: int, ranks: tuple[int, int]) -> None:
    """Conover's table of order statistics around the median at 95 %."""
    samples = np.random.default_rng(0).permutation(count).astype(float).tolist()
    assert interval(samples) == ranks


def test_confidence_intervals_hold_what_they_promise() -> None:
    """Of 15 samples each, of a distribution as skewed as times are: the true median lies inside at least 95 %."""
    draws = np.random.default_rng(0).exponential(size=(2000, 15))
    inside = [low <= np.log(2) <= high for low, high in map(interval, draws.tolist())]
    assert 0.95 <= np.mean(inside) <= 0.98
    assert interval([3.0, 1.0, 2.0] * 4, confidence=0.5) == (2.0, 2.0)


# -- tt.bench ----------------------------------------------------------------------------------------------------------


def test_bench_times_eager_and_compiled() -> None:
    model = nn.Linear(8, 4)
    result = tt.bench(model, tt.rand(3, 8), repeats=5)
    assert len(result.eager.samples) == len(result.compiled.samples) == 5
    assert result.launches == 1 and {"trace", "passes"} < set(result.parts)
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


def test_a_row_is_against_the_fastest_of_several_peers() -> None:
    found = {"ours": Timing((1.0, 2.0, 1.0)), "torch": Timing((4.0, 4.0, 4.0)), "jax": Timing((2.0, 6.0, 1.5))}
    row = against("w", "case", found, ("torch", "jax", "torch-compile"), Target(2.0))
    assert row.figure == 2.0 and row.interval == (1.5, 3.0), "jax, by its median"
    assert set(row.peers) == {"torch", "jax", "torch-compile"} and isinstance(row.peers["torch-compile"], str)


def test_a_disturbed_ratio_says_so() -> None:
    """The median of 9, where a quiet machine would have told 2."""
    found = {"ours": Timing((1.0, 1.0, 1.0)), "torch": Timing((2.0, 9.0, 9.0))}
    row = against("w", "case", found, "torch", Target(1.0), "a note")
    assert row.note == "a note; disturbed: 2.00× by the least times"
    assert against("w", "case", {**found, "torch": Timing((2.0, 2.5, 2.5))}, "torch", Target(1.0)).note == ""


def test_rows_survive_json() -> None:
    work = Work(3, 2, 1000, 500, 64, 0, 8, "images", 1e-6, (Launch("matmul", 1000, 500, 2e-6),))
    row = Row("w", "case", 1.5, Target(1.3), Timing((1e-6, 3e-6)), {"jax": "left out", "torch": Timing((1e-6, 2e-6))},
              "×", "note", (1.25, 1.75), {"ours": 0.5}, work)
    again = row_from(json.loads(json.dumps(row.data())))
    assert again == row and again.throughput == (8 / 2e-6, "images") and again.roofline == pytest.approx(0.5)
    bare = Row("w", "case", None)
    assert row_from(json.loads(json.dumps(bare.data()))) == bare
    data = row.data()
    assert data["throughput"] == {"a second": 8 / 2e-6, "of": "images"} and data["work"]["launches"] == 3


def test_report_forms() -> None:
    rows = [Row("call", "some case", 2e-6, Target(15e-6, "s", True), Timing((1e-6, 2e-6)), unit="s", note="a note"),
            Row("step", "another", 0.5, Target(1.0), Timing((2.0,)), {"torch": Timing((1.0,))}, interval=(0.4, 0.6),
                work=Work(1, 1, 10, 5, 0, 0, 100, "images", 1.0))]  # fmt: skip
    page = report.markdown(rows, QUICK, {name: w.about for name, w in WORKLOADS.items()})
    assert "1 of 2 targets reached (a quick run)" in page and "{" not in page
    assert "| some case | 1.5 µs (1.25 µs – 1.75 µs) |  | 2 µs | ≤ 15 µs | yes | a note |" in page
    told = "0.50× (0.40 – 0.60) | ≥ 1.00× | no | 50 images/s; 50 % of the roofline; 1 launch, 0 B planned |"
    assert f"| another | 2 s (2 s – 2 s) | torch 1 s (1 s – 1 s) | {told}" in page
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
    code = textwrap.dedent(startup.FIRST_CALL).format(name="mlp", batch=8)
    startup.in_process(code)  # so that all kernels are in the cache
    assert startup.in_process(code)[2] == 0


def test_limits_are_near_what_the_machine_is_said_to_do() -> None:
    """Within a factor that no neighbour explains: a wrong count of work would be off by more."""
    peak, copying = limits.peak(1), limits.copying(1)
    machine = measure.machine()
    for limit, said, most in ((peak, machine.gflops_one, 2), (copying, machine.copy_gbytes_one, 3)):
        best = min(timing.seconds_of(limit.call) for _ in range(5))
        assert 0.2 < limit.work / best / 1e9 / said < most
    assert peak.share(2 * peak.work, Timing((4.0,)), Timing((1.0,))) == [0.5]


def test_workloads_say_what_they_are() -> None:
    names: Iterator[str] = iter(WORKLOADS)
    assert all(WORKLOADS[name].name == name and WORKLOADS[name].about and WORKLOADS[name].group for name in names)
