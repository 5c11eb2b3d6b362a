"""The machine's limits are measured, plausible, remembered, and measured again when asked."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinytorch.runtime import build, measure, pool


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "_machines", {})
    monkeypatch.setattr(measure, "SECONDS", 0.01)
    monkeypatch.setattr(pool, "_threads", 2)


def saved() -> Path:
    return build.kernel_dir() / "machine_2.json"


def test_limits_are_plausible() -> None:
    limit = measure.machine()
    assert limit.threads == 2 and limit.vector_bits == build.vector_bits()
    lanes = limit.vector_bits // 32
    # Between 0.3 and 4 multiply-adds of full vectors a cycle, at 1 to 7 GHz.
    assert 2 * lanes * 0.3 < limit.gflops_one < 2 * lanes * 4 * 7
    assert 0.5 * limit.gflops_one < limit.gflops < 2.6 * limit.gflops_one
    assert 1 < limit.read_gbytes_one < 500 and 1 < limit.copy_gbytes_one < 500
    assert list(limit.caches) == sorted(limit.caches)


def test_no_matmul_is_faster_than_the_peak() -> None:
    peak = measure.machine().gflops_one
    a = np.ones((512, 512), "f4")
    best = np.inf
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    threads = os.cpu_count() or 1
    assert 2 * 512**3 / best / 1e9 < 1.2 * peak * threads


def test_remembered_and_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure.machine()
    assert measure.machine() is first
    assert json.loads(saved().read_text())["measured"] == first.measured
    monkeypatch.setattr(measure, "_machines", {})
    assert measure.machine() == first, "not read from the disk"
    monkeypatch.setattr(measure.time, "strftime", lambda _: "later")
    assert measure.machine(refresh=True).measured == "later" == json.loads(saved().read_text())["measured"]


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"cpu": 1, "caches": []}', "null", "other cpu", "zero", "text"])
def test_damaged_record_is_measured_anew(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure.machine()
    facts = dataclasses.asdict(first)
    changes: dict[str, dict[str, Any]] = {
        "other cpu": {"cpu": "Z80"}, "zero": {"gflops": 0}, "text": {"gflops": "fast"}}
    saved().write_text(json.dumps(facts | changes[damage]) if damage in changes else damage)
    monkeypatch.setattr(measure, "_machines", {})
    again = measure.machine()
    assert again.cpu == first.cpu and isinstance(again.gflops, float) and again.gflops > 0


def test_interpreted_kernels_measure_nothing() -> None:
    code = "from tinytorch.runtime import measure; measure.machine()"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "NUMBA_DISABLE_JIT" in ran.stderr and "RuntimeError" in ran.stderr


def test_chains_agree() -> None:
    assert f"CHAINS = {measure.CHAINS} " in Path(measure.__file__).with_name("probe.py").read_text()
