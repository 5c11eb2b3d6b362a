"""Charts of a run, as PNG or SVG files (by the path's ending), drawn by matplotlib without a display.

loss_curves({"eager": losses, "compiled": losses}, "loss.svg")
bars({"eager": 1.9, "compiled": 0.23}, "time.png", title="seconds an epoch", show=units.seconds)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = ("#c2703d", "#2f6fd0", "#3a9159", "#8a5fbf", "#b8405e", "#6b7686")
INK, SOFT = "#1b2330", "#8a94a3"


def _axes(title: str, width: float, height: float) -> tuple[Any, Any]:
    """A figure and its axes, without the frame lines that say nothing."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


def _save(figure: Any, path: str | Path) -> Path:
    import matplotlib

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "tinytorch"}):  # the same chart gives the same file
        figure.savefig(target, dpi=144, facecolor="white", metadata={"Date": None} if target.suffix == ".svg" else None)
    return target


def loss_curves(
    series: Mapping[str, Sequence[float]],
    path: str | Path,
    title: str = "training loss",
    xlabel: str = "step",
    ylabel: str = "loss",
    x: Mapping[str, Sequence[float]] | None = None,
) -> Path:
    """One line a series. Lines that lie on each other stay visible: each is thinner than the one below it.

    Args:
        series: values by name, in drawing order.
        path: where to write, `.png` or `.svg`.
        title: the heading; also `xlabel` and `ylabel`.
        x: places of the values by name, such as seconds since the start; 0, 1, 2, … by default.
    """
    figure, axes = _axes(title, 7.2, 3.8)
    for number, (name, values) in enumerate(series.items()):
        places = x[name] if x is not None else range(len(values))
        axes.plot(
            places,
            values,
            label=name,
            color=COLOURS[number % len(COLOURS)],
            marker="o" if len(values) == 1 else None,  # a line through one point shows nothing
            linewidth=max(3.6 - 1.9 * number, 1.2),
            linestyle="--" if number % 2 else "-",
            alpha=1.0 if number % 2 else 0.6,
        )
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel(ylabel, color=INK, fontsize=9)
    axes.grid(axis="y", color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
    if series:
        axes.legend(frameon=False, fontsize=9)
    return _save(figure, path)


def bars(
    values: Mapping[str, float], path: str | Path, title: str = "", show: Callable[[float], str] = "{:.3g}".format
) -> Path:
    """Horizontal bars, the first on top, each with its value at its end as `show` writes it."""
    figure, axes = _axes(title, 7.2, 0.9 + 0.42 * max(len(values), 1))
    places = range(len(values))
    drawn = axes.barh(places, list(values.values()), color=[COLOURS[n % len(COLOURS)] for n in places], height=0.62)
    axes.bar_label(drawn, labels=[show(value) for value in values.values()], padding=5, fontsize=9, color=INK)
    axes.set_yticks(list(places), list(values))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.14 * max((*values.values(), 0.0)) or 1.0)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _save(figure, path)
