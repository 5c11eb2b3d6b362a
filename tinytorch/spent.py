"""Where the time of a first call goes: `print(fast.report())`.

    first call of step: 1.05 s
      import    41.2 ms  the runtime
      trace     44.3 ms  1931 nodes
      passes     412 ms  387 nodes left; Fuse 263 ms, Simplify 22.9 ms, …, checking types 31.4 ms
      plan      24.8 ms  46.5 MiB of intermediates
      emit      64.0 ms  kernels launched: 243
      compile       0 s  kernels: 0
      load      12.9 ms  kernels from the cache: 43, known already: 200

`fast.seconds` has the same as numbers. The parts do not overlap, and add up to what was spent before the first run.
`TINYTORCH_DEBUG=1` prints the report after each first call.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from tinytorch.ir import config
from tinytorch.passes import History

from .look import units


class Spent:
    """The parts of a first call, each ended by a `lap`; what kernels cost counts as theirs, whoever asked for them."""

    def __init__(self) -> None:
        began = time.perf_counter()
        from tinytorch.runtime import build, program  # noqa: F401  heavy: not at import

        self._stats = build.stats
        self._before, self._last = build.stats(), time.perf_counter()
        self.seconds = {"import": self._last - began}
        self.compiled = self.loaded = self.found = 0

    def lap(self, part: str) -> None:
        """What has happened since the last lap was this part."""
        now, stats, before = time.perf_counter(), self._stats(), self._before
        compiling, kernels = stats.compiling - before.compiling, stats.seconds - before.seconds
        shares = {part: now - self._last - kernels, "compile": compiling, "load": kernels - compiling}
        for name, seconds in shares.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + max(0.0, seconds)  # other threads may compile as well
        self.compiled += stats.compiled - before.compiled
        self.loaded += stats.loaded - before.loaded
        self.found += stats.found - before.found
        self._before, self._last = stats, now

    def report(self, name: str, history: History, program: Any) -> str:
        """The parts as lines; see the top of this file."""
        dearest = sorted(history[1:], key=lambda stage: -stage.seconds)[:4]
        named = ", ".join(f"{stage.name} {units.seconds(stage.seconds)}" for stage in dearest)
        checks = units.seconds(max(0.0, self.seconds["passes"] - history.seconds))
        notes = {"import": "the runtime", "trace": f"{len(history[0].graph.nodes)} nodes",
                 "passes": f"{len(history[-1].graph.nodes)} nodes left; {named}, checking types {checks}",
                 "plan": f"{units.nbytes(program.arena_bytes)} of intermediates",
                 "emit": f"kernels launched: {len(program.steps)}", "compile": f"kernels: {self.compiled}",
                 "load": f"kernels from the cache: {self.loaded}, known already: {self.found}"}
        parts = ("import", "trace", "passes", "plan", "emit", "compile", "load")
        lines = [f"  {part:8} {units.seconds(self.seconds[part]):>8}  {notes[part]}" for part in parts]
        return "\n".join([f"first call of {name}: {units.seconds(sum(self.seconds.values()))}", *lines])

    def tell(self, name: str, history: History, program: Any) -> None:
        """Print the report if `TINYTORCH_DEBUG` asks for timings."""
        if config.debug() >= 1:
            print(self.report(name, history, program), file=sys.stderr)
