"""What the tests of data share: a server that misbehaves, and a machine without data sets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from misbehaving import Site, served


@pytest.fixture
def site() -> Iterator[Site]:
    """A server of one's own."""
    with served() as site:
        yield site


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data set anywhere; the folder returned is the user's data folder."""
    monkeypatch.delenv("TINYTORCH_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", lambda *args, **kwargs: tmp_path / "user")
    return tmp_path / "user"
