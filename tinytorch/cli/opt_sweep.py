"""`tito opt MODEL --sweep`: many settings, measured in turns, and which of them nothing beats.

Settings that do not suit a model (channels of one without convolutions) are left out, and it is said why.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from tinytorch.ir.errors import TinyTorchError
from tinytorch.look import report, units
from tinytorch.look.pareto import Point, front, pareto

from . import opt_report
from .opt_measure import Measured, apply, measure
from .opt_specs import parse
from .opt_subject import Subject

SETTINGS: dict[str, tuple[str, ...]] = {
    "f32": ("fold",),
    "half": ("bf16", "f16"),
    "weights": ("quantize:int8", "quantize:int4,group=128", "quantize:int4,group=32", "quantize:int4,symmetric=False",
                "quantize:int4,rounding=gptq"),
    "int8": ("quantize", "quantize:static,observer=percentile", "quantize:static,observer=mse",
             "quantize:static,observer=entropy", "quantize:dynamic"),
    "pruned": ("prune:channels=0.25,tune", "prune:channels=0.5,tune", "prune:neurons=0.25,tune",
               "prune:neurons=0.5,tune", "prune:heads=0.25,tune"),
    "pruned, int8": ("prune:channels=0.5,tune,quantize", "prune:neurons=0.5,tune,quantize"),
}
START = "as it is"


def run(subject: Subject, seconds: float, samples: int | None, json_file: Path | None, html: Path | None,
        picture: Path | None) -> None:
    """Apply all settings, measure what comes out, and show it.

    Raises:
        BadParameter: there is nothing to judge the answers by.
    """
    if subject.test is None:
        raise typer.BadParameter("a sweep needs right answers: --data FILE.npz with inputs and targets",
                                 param_hint="--sweep")
    made, refused = variants(subject)
    found = measure(made, subject, seconds * len(made) / 2, None, samples)
    points = [_point(name, each, found[START], subject) for name, each in found.items()]
    if not opt_report.deliver(opt_report.as_json(subject, "sweep", found), json_file):
        _print(found, points, refused, subject)
    if picture is not None:
        typer.echo(f"picture  {_draw(points, picture, subject)}", err=True)
    if html is not None:
        typer.echo(f"page     {_page(html, found, points, refused, subject)}", err=True)


def variants(subject: Subject) -> tuple[dict[str, Any], dict[str, str]]:
    """What comes out of each setting, and for those that were refused the reason."""
    from rich.console import Console
    from rich.progress import track

    made: dict[str, Any] = {START: subject.target}
    refused: dict[str, str] = {}
    texts = [text for texts in SETTINGS.values() for text in texts]
    for text in track(texts, "settings", console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()):
        start = next((name for name in made if text.startswith(f"{name},")), START)  # half of the way is known
        rest = text if start == START else text.removeprefix(f"{start},")
        try:
            made[text], _ = apply(parse(rest), replace(subject, target=made[start]))
        except (TinyTorchError, typer.BadParameter) as error:
            refused[text] = str(error).splitlines()[0]
    return made, refused


def _group(name: str) -> str:
    return next((group for group, texts in SETTINGS.items() if name in texts), "f32")


def _point(name: str, each: Measured, first: Measured, subject: Subject) -> Point:
    """Its time is the first variant's, divided by the median ratio of turns: neighbours slow both sides of that."""
    assert each.score is not None
    seconds = first.timing.median
    ratio, low, high = opt_report.speedup(first, each)
    quality = each.score.perplexity if opt_report.is_language(subject) else each.score.accuracy
    return Point(name, seconds / ratio, quality, each.size.parameters, _group(name), (seconds / high, seconds / low))


def _draw(points: list[Point], path: Path, subject: Subject) -> Path:
    language = opt_report.is_language(subject)
    return pareto(points, path, f"{subject.name}, batch {subject.batch}: discs are as large as the parameters",
                  "perplexity" if language else "accuracy", less_is_better=language)


def _rows(found: Mapping[str, Measured], points: list[Point], subject: Subject) -> list[tuple[str, ...]]:
    best = {point.name for point in front(points, opt_report.is_language(subject))}
    rows: list[tuple[str, ...]] = []
    first = next(iter(found.values()))
    for point in sorted(points, key=lambda point: point.seconds):
        each = found[point.name]
        ratio, low, high = opt_report.speedup(first, each)
        quality = f"{point.quality:.4f}" if opt_report.is_language(subject) else f"{100 * point.quality:.2f} %"
        rows.append((point.name, units.seconds(point.seconds), f"{ratio:.2f}×", f"{low:.2f}–{high:.2f}", quality,
                     f"{first.size.parameters / point.size:.1f}×", "yes" if point.name in best else ""))
    return rows


HEADER = ("setting", "time", "faster", "with 95 % confidence", "quality", "smaller", "unbeaten")


def _print(found: Mapping[str, Measured], points: list[Point], refused: dict[str, str], subject: Subject) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    made = Table(title=f"{subject.name}, batch {subject.batch}", box=SIMPLE_HEAD, title_justify="left",
                 title_style="bold", header_style="bold", pad_edge=False, caption="bold: nothing is faster and as good",
                 caption_justify="left")
    shown = [number for number, name in enumerate(HEADER) if name not in ("with 95 % confidence", "unbeaten")]
    for number in shown:
        name = HEADER[number].replace("quality", _quality(subject))
        made.add_column(name, justify="left" if name == "setting" else "right", no_wrap=True)
    for row in _rows(found, points, subject):
        made.add_row(*(row[number] for number in shown), style="bold" if row[-1] else "")
    console.print(made)
    for text, why in refused.items():
        console.print(f"[dim]left out: {text}: {why}[/dim]", highlight=False, markup=True)


def _quality(subject: Subject) -> str:
    return "perplexity" if opt_report.is_language(subject) else "accuracy"


def _page(path: Path, found: Mapping[str, Measured], points: list[Point], refused: dict[str, str],
          subject: Subject) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        drawn = report.Svg(_draw(points, Path(folder) / "pareto.svg", subject).read_text(encoding="utf-8"))
    header = tuple(name.replace("quality", _quality(subject)) for name in HEADER)
    left_out = [report.Table(("left out", "because"), list(refused.items()))] if refused else []
    return report.report(path, f"{subject.name}: {_quality(subject)} against speed", [
        report.Section("The trade", "On the line lies what nothing beats: whatever is faster is less good. Times are "
                       "taken in turns; the area of a disc is the size of the parameters.", drawn),
        report.Section("All settings", report.Table(header, _rows(found, points, subject)), *left_out)])
