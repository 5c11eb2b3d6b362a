"""What a run says of itself: rows in memory, the same rows in `log.jsonl`, and curves as a picture.

    >>> log = Log("run/log.jsonl")
    >>> log.write({"step": 1, "epoch": 0, "loss": 2.5, "lr": 0.1})
    >>> log.write({"step": 1, "epoch": 0, "val_loss": float("nan")})
    >>> open("run/log.jsonl").read().splitlines()
    ['{"step": 1, "epoch": 0, "loss": 2.5, "lr": 0.1}', '{"step": 1, "epoch": 0, "val_loss": null}']

A row of training has `step`, `epoch`, `loss` (the mean over the samples since the row before), `lr` and `seconds`; one
of a validation has `val_loss` and the metrics as `val_…`.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.look.curves import loss_curves


class Log:
    """Rows, kept and written as they come.

    Args:
        path: a JSON lines file to add to, or None.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.rows: list[dict[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        """Keep a row, and add it to the file. A file that cannot be written is warned of once, and then left alone."""
        self.rows.append(dict(row))
        self._write("a", [row])

    def restart(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Hold exactly these rows, in the file too: what a killed run wrote after its last checkpoint comes again."""
        self.rows = [dict(row) for row in rows]
        self._write("w", rows)

    def _write(self, mode: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.path is None:
            return
        lines = [json.dumps({key: plain(value) for key, value in row.items()}, ensure_ascii=False) for row in rows]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode, encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
        except OSError as error:
            warnings.warn(f"{self.path}: the log cannot be written, going on without: {error.strerror}", stacklevel=3)
            self.path = None


def plain(value: Any) -> Any:
    """A value as JSON holds it: numbers and lists; None for what is not finite."""
    if getattr(value, "shape", ()):
        return np.asarray(value).tolist()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def draw_curves(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str = "loss") -> Path:
    """A picture (.png or .svg) of the losses of training and validation over the steps.

    >>> rows = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}, {"step": 20, "val_loss": 1.5}]
    >>> draw_curves(rows, "curves.svg").name
    'curves.svg'
    """
    series = {name: [(row["step"], row[key]) for row in rows if key in row]
              for name, key in (("training", "loss"), ("validation", "val_loss"))}
    drawn = {name: points for name, points in series.items() if points}
    return loss_curves({name: [value for _, value in points] for name, points in drawn.items()}, path, title=title,
                       x={name: [step for step, _ in points] for name, points in drawn.items()})
