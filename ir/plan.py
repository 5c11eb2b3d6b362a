"""Where each intermediate value of a graph lives: what the memory planner decides and the runtime obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .graph import Value


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets into one arena.

    `offsets` places every value that owns memory; `reuses` maps a value to the one whose memory it takes over in place;
    `size` is the arena's bytes, which is the predicted peak of the intermediates.
    """

    offsets: Mapping[Value, int]
    size: int
    reuses: Mapping[Value, Value] = field(default_factory=dict)
