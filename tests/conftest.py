"""What all tests share: peers and full data sets that may be absent, fixed randomness, and a header that tells."""

import importlib
import importlib.metadata
import importlib.util
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import numpy as np
import pytest

import tinytorch

# The same examples every time, however slow the machine.
hypothesis.settings.register_profile("house", derandomize=True, deadline=None, print_blob=False)
hypothesis.settings.load_profile("house")


def pytest_report_header() -> str:
    """Peers, threads and instruction set: what explains most differences between two runs."""
    peers = ", ".join(f"{name} {_version(name) or 'absent'}" for name in ("torch", "jax"))
    threads = os.environ.get("TINYTORCH_THREADS") or f"{os.cpu_count()} cores"
    return f"tinytorch: {peers} · threads: {threads} · isa: {_isa()} · data: {_full_data() or 'small'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Honour the markers: `peers` (torch unless named otherwise) and `full_data` skip what cannot run here."""
    for item in items:
        for mark in item.iter_markers("peers"):
            for name in mark.args or ("torch",):
                if importlib.util.find_spec(name) is None:
                    item.add_marker(pytest.mark.skip(reason=_absent(name)))
        if item.get_closest_marker("full_data") and _full_data() is None:
            item.add_marker(pytest.mark.skip(reason=_NO_DATA))


@pytest.fixture
def peer() -> Callable[[str], ModuleType]:
    """`torch = peer("torch")`: the peer, or the test is skipped, saying that it is absent."""

    def load(name: str) -> ModuleType:
        if importlib.util.find_spec(name) is None:
            pytest.skip(_absent(name))
        return importlib.import_module(name)

    return load


@pytest.fixture
def full_data() -> Path:
    """The folder of the full data sets, or the test is skipped, saying what to set."""
    folder = _full_data()
    if folder is None:
        pytest.skip(_NO_DATA)
    return folder


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """The same random numbers for each test, in whatever order and process it runs."""
    random.seed(0)
    np.random.seed(0)
    if seed := getattr(tinytorch, "manual_seed", None):
        seed(0)
    yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for each test."""
    return np.random.default_rng(0)


_NO_DATA = "the full data sets are absent: set TINYTORCH_DATA to a folder that holds mnist/"


def _full_data() -> Path | None:
    folder = os.environ.get("TINYTORCH_DATA")
    return Path(folder) if folder and (Path(folder) / "mnist").is_dir() else None


def _absent(name: str) -> str:
    return f"{name} is absent: `{'make torch' if name == 'torch' else f'pip install {name}'}` makes this test run"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _isa() -> str:
    import platform

    from llvmlite import binding

    features = binding.get_host_cpu_features()
    wide = [name for name in ("amx-int8", "avx512vnni", "avx512f", "avx2", "neon") if features.get(name)]
    return " ".join([platform.machine(), *wide])
