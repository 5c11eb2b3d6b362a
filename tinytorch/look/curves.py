"""Charts of a run, as PNG or SVG files (by the path's ending), drawn by matplotlib without a display.

loss_curves({"eager": losses, "compiled": losses}, "loss.svg")
bars({"eager": 1.9, "compiled": 0.23}, "time.png", title="seconds an epoch", show=units.seconds)
tradeoff({"GPT step": [(26.6, 32.5), (13.0, 34.9)]}, "memory.svg", "time against memory", "MB", "ms")
ratio_bars({"GPT step": {"torch": Ratio(2.0, 1.9, 2.1)}}, "ratios.svg", targets={"GPT step": 1.5})
roofline({"kernels": [(2.0, 60.0)]}, "roofline.svg", peak=480.0, bandwidths={"memory": 45.0})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


def tradeoff(
    series: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    title: str,
    xlabel: str,
    ylabel: str,
) -> Path:
    """Lines through points (x, y), each point marked: what one quantity costs in the other. Both axes begin at 0.

    Args:
        series: points by name.
        path: where to write, `.png` or `.svg`.
        title, xlabel, ylabel: texts, with units.
    """
    figure, axes = _axes(title, 7.2, 3.8)
    for number, (name, points) in enumerate(series.items()):
        axes.plot(*zip(*sorted(points), strict=True), label=name, color=COLOURS[number % len(COLOURS)], marker="o",
                  markersize=4, linewidth=1.6)
    axes.margins(0.08)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel(ylabel, color=INK, fontsize=9)
    axes.grid(color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
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


class Ratio(NamedTuple):
    """How many times as fast, and where that lies with confidence."""

    figure: float
    low: float
    high: float


def ratio_bars(
    ratios: Mapping[str, Mapping[str, Ratio]],
    path: str | Path,
    title: str = "",
    targets: Mapping[str, float] | None = None,
) -> Path:
    """Bars from 1× to each ratio on a logarithmic axis: to the right is faster, to the left slower.

    A group for each case with a bar for each peer, a thin line for where the ratio lies with confidence, and a mark
    where the target of the case is.
    """
    peers = list(dict.fromkeys(name for group in ratios.values() for name in group))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(peers)}
    rows = sum(len(group) for group in ratios.values()) + 0.8 * len(ratios)
    figure, axes = _axes(title, 11.0, 1.1 + 0.14 * rows)
    place, middles = 0.0, []
    for case, group in ratios.items():
        middles.append(place + (len(group) - 1) / 2)
        if targets and case in targets:
            axes.plot([targets[case]] * 2, [place - 0.6, place + len(group) - 0.4], color=INK, linewidth=1.4, zorder=4)
        for name, ratio in group.items():
            axes.barh(place, ratio.figure - 1, left=1, height=0.8, color=colours[name])
            axes.plot([ratio.low, ratio.high], [place, place], color=INK, linewidth=0.9, zorder=3)
            end, shift, side = (ratio.high, 4, "left") if ratio.figure >= 1 else (ratio.low, -4, "right")
            axes.annotate(f"{ratio.figure:.2f}", (end, place), (shift, 0), textcoords="offset points", ha=side,
                          va="center", fontsize=7, color=INK)
            place += 1
        place += 0.8
    _ratio_axis(axes, [number for group in ratios.values() for ratio in group.values() for number in ratio])
    axes.set_yticks(middles, list(ratios), fontsize=8)
    axes.set_ylim(place, -1)
    axes.legend(handles=[_patch(colours[name], name) for name in peers], frameon=False, fontsize=8, loc="lower right")
    return _save(figure, path)


def _ratio_axis(axes: Any, numbers: Sequence[float]) -> None:
    """Logarithmic, with 1 in it, and ticks that people read."""
    low, high = min((0.5, *numbers)) / 1.25, max((2.0, *numbers)) * 1.25
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100) if low <= tick <= high]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.axvline(1, color=SOFT, linewidth=1)
    axes.grid(axis="x", color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _label(axes: Any, labels: Mapping[tuple[float, float], str], top: float) -> None:
    """Texts in a column beside the axes, each with a line to its point, far enough from each other to be read."""
    place, column = top, 1.15 * axes.get_xlim()[1]
    for point, text in sorted(labels.items(), key=lambda item: -item[0][1]):
        place = min(place / 1.28, point[1])
        axes.annotate(text, point, (column, place), fontsize=7, color=INK, va="center", zorder=9, annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.5})


def roofline(
    series: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    peak: float,
    bandwidths: Mapping[str, float],
    title: str = "",
    labels: Mapping[tuple[float, float], str] | None = None,
) -> Path:
    """Points under the roof of a machine (Williams, Waterman, Patterson, 2009), both axes logarithmic.

    Args:
        series: by name, points (FLOPs a byte, GFLOP/s); the first name is drawn faintly, below the others.
        path: where to write, `.png` or `.svg`.
        peak: GFLOP/s at most; bandwidths: GB/s by name, each a slanted line up to the peak.
        title: the heading.
        labels: a text beside some of the points.
    """
    figure, axes = _axes(title, 11.0, 5.6)
    reach = [x for points in series.values() for x, _ in points] or [1.0]
    left, right = min(0.1, *reach) / 1.5, max(100.0, *reach) * 1.5
    for number, (name, rate) in enumerate(bandwidths.items()):
        xs = [left, peak / rate, right] if not number else [left, peak / rate]
        axes.plot(xs, [min(x * rate, peak) for x in xs], color=INK, linewidth=1.6, linestyle="--" if number else "-",
                  label=f"{name}, {rate:.0f} GB/s" + ("" if number else f"; peak {peak:.0f} GFLOP/s"))
    for number, (name, points) in enumerate(series.items()):
        size, colour, alpha = (42, COLOURS[(number - 1) % len(COLOURS)], 0.9) if number else (14, SOFT, 0.55)
        axes.scatter([x for x, _ in points], [y for _, y in points], s=size, color=colour, alpha=alpha, linewidths=0,
                     zorder=2 + number, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(top=2 * peak)
    _label(axes, labels or {}, peak)
    axes.set_xlabel("FLOPs a byte", color=INK, fontsize=9)
    axes.set_ylabel("GFLOP/s", color=INK, fontsize=9)
    axes.grid(color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _save(figure, path)
