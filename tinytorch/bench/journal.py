"""What a run of `tito bench` has finished, on disk, so that `--resume` goes on where an interrupted one stopped.

There is a file for each kind of run (workloads, threads, peers, quick or not, versions) beside the kernels of this
machine. It is written whole or not at all after each workload, and goes away when a run comes to its end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tinytorch.runtime import build

from . import peers
from .rows import Row, Settings, row_from


class Journal:
    """The finished workloads of a run of `names`; without `resume` it begins empty."""

    def __init__(self, folder: Path, names: Sequence[str], settings: Settings, resume: bool) -> None:
        versions = {name: peers.version(name) for name in peers.PACKAGES}
        kind = [names, settings.threads, sorted(settings.peers), settings.quick, versions]
        self.path = folder / f"bench-{hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:16]}.json"
        self.rows: dict[str, list[Row]] = self._read() if resume else {}

    def _read(self) -> dict[str, list[Row]]:
        """Nothing, where there is no file or a broken one."""
        try:
            return {name: [row_from(row) for row in rows] for name, rows in json.loads(self.path.read_text()).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def finish(self, name: str, rows: Sequence[Row]) -> None:
        """Write down that a workload is finished."""
        self.rows[name] = list(rows)
        data = {name: [row.data() for row in rows] for name, rows in self.rows.items()}
        build.write_cached(self.path, json.dumps(data).encode())

    def close(self) -> None:
        """All is measured and written: there is nothing to resume."""
        self.path.unlink(missing_ok=True)
