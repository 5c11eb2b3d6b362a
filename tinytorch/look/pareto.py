"""A picture of a trade: how good each variant is against how fast, and which of them nothing beats in both.

    pareto([Point("f32", 1.9e-3, 0.993, 247_000), Point("int8", 0.7e-3, 0.992, 64_000)], "pareto.svg")

A variant on the line (the Pareto front) is such that whatever is faster is less good. The area of a disc is its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import units
from .curves import COLOURS, INK, SOFT, _axes, _save


@dataclass(frozen=True)
class Point:
    """A variant.

    Attributes:
        name: of the variant; group: its kind, which gives the colour.
        seconds: of a call; spread: its lower and upper quartile.
        quality: more is better (accuracy), or less with `less_is_better` (perplexity).
        size: bytes of its parameters.
    """

    name: str
    seconds: float
    quality: float
    size: int
    group: str = ""
    spread: tuple[float, float] | None = None


def front(points: Sequence[Point], less_is_better: bool = False) -> list[Point]:
    """Those that no other beats: none is as fast and as good, and in one of them better. Fastest first.

    >>> [p.name for p in front([Point("a", 1.0, 0.9, 1), Point("b", 2.0, 0.8, 1), Point("c", 3.0, 0.95, 1)])]
    ['a', 'c']
    """
    sign = -1.0 if less_is_better else 1.0
    best, found = float("-inf"), []
    for point in sorted(points, key=lambda p: (p.seconds, -sign * p.quality)):
        if sign * point.quality > best:
            best = sign * point.quality
            found.append(point)
    return found


def pareto(points: Sequence[Point], path: str | Path, title: str = "", quality: str = "accuracy",
           less_is_better: bool = False) -> Path:
    """Draw the points, numbered from the fastest on, and their front, with the names in bold.

    Args:
        points: one or more; path: a file ending in .svg or .png.
        quality: names the vertical axis, whose better end is up.
    """
    points = sorted(points, key=lambda point: point.seconds)
    line = front(points, less_is_better)
    figure, axes = _axes(title, 10.8, max(5.2, 1.2 + 0.24 * len(points)))
    axes.step([p.seconds for p in line], [p.quality for p in line], where="post", color=SOFT, linewidth=1.2, zorder=1)
    groups = list(dict.fromkeys(point.group for point in points))
    colours = {group: COLOURS[number % len(COLOURS)] for number, group in enumerate(groups)}
    largest = max(point.size for point in points)
    for point in sorted(points, key=lambda point: -point.size):  # the small ones above the large
        low, high = point.spread or (point.seconds, point.seconds)
        axes.plot([low, high], [point.quality] * 2, color=colours[point.group], linewidth=1.2, alpha=0.6, zorder=2)
        axes.scatter(point.seconds, point.quality, s=25 + 420 * point.size / largest, color=colours[point.group],
                     alpha=0.6, edgecolors="white", linewidths=0.8, zorder=3)
    _scales(axes, quality, less_is_better)
    _number(axes, points)
    _list(axes, points, colours, {point.name for point in line})
    return _save(figure, path)


def _scales(axes: Any, quality: str, less_is_better: bool) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    def ticks(value: float, _: object) -> str:
        return f"{100 * value:.4g} %" if quality == "accuracy" else f"{value:.4g}"

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(lambda seconds, _: units.seconds(seconds))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(ticks)
    axes.set_xlabel("time of a call", color=INK, fontsize=9)
    axes.set_ylabel(quality, color=INK, fontsize=9)
    axes.grid(color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(0.06, 0.1)
    if less_is_better:
        axes.invert_yaxis()


def _number(axes: Any, points: Sequence[Point]) -> None:
    """A number above each disc; discs that lie close together share one label, such as 4, 7–9."""
    axes.figure.canvas.draw()  # places in pixels are known now
    heaps: list[tuple[float, float, list[int]]] = []
    for number, point in enumerate(points, 1):
        x, y = axes.transData.transform((point.seconds, point.quality))
        near = [numbers for a, b, numbers in heaps if abs(x - a) < 36 and abs(y - b) < 18]
        if near:
            near[0].append(number)
        else:
            heaps.append((x, y, [number]))
    for _, _, numbers in heaps:
        first = points[numbers[0] - 1]
        axes.annotate(ranges(numbers), (first.seconds, first.quality), (0, 9), textcoords="offset points", ha="center",
                      fontsize=7.5, color=INK, zorder=5)


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers in words, neighbours together.

    >>> ranges([1, 4, 5, 6, 9])
    '1, 4–6, 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _list(axes: Any, points: Sequence[Point], colours: Mapping[str, str], bold: set[str]) -> None:
    """What the numbers stand for, at the right of the picture."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", markersize=6, color=colours[point.group], alpha=0.75,
                      label=f"{number}  {point.name}") for number, point in enumerate(points, 1)]
    legend = axes.legend(handles=handles, frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.01, 0.5),
                         handletextpad=0.2, labelspacing=0.55)
    for text, point in zip(legend.get_texts(), points, strict=True):
        text.set_fontweight("bold" if point.name in bold else "normal")
