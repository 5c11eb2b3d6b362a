"""The pictures and the one HTML report that a demo leaves behind."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from tinytorch.explain import Explanation
from tinytorch.ir.page import page
from tinytorch.ir.picture import to_svg
from tinytorch.look import curves, units
from tinytorch.look.report import Code, Facts, Image, Page, Section, Svg, Table, report
from tinytorch.runtime import build

from .race import BATCH

if TYPE_CHECKING:
    from .demo import Outcome


def save(outcome: Outcome, why: Explanation, folder: Path) -> dict[str, Path]:
    """Write everything into `folder`; gives what each file is."""
    folder.mkdir(parents=True, exist_ok=True)
    runners = (outcome.eager, outcome.compiled)
    losses = curves.loss_curves({r.name: r.losses for r in runners}, folder / "loss.png", title="loss, step by step")
    clock = curves.loss_curves({r.name: _smooth(r.losses) for r in runners}, folder / "race.png",
                               title="loss over seconds of computing", xlabel="seconds",
                               x={r.name: r.seconds for r in runners})
    model, step = folder / "model.svg", folder / "step.svg"
    model.write_text(to_svg(outcome.graph), encoding="utf-8")
    step.write_text(to_svg(why.history[-1].graph), encoding="utf-8")
    path = report(folder / "report.html", "tinytorch: an MLP learns to read digits", [
        _summary(outcome, losses, clock),
        _model(outcome, model),
        _passes(why),
        _kernels(why),
        _about(outcome),
    ])
    files = {"loss curves": losses, "the race": clock, "model": model, "step": step}
    return {"report": path, **{what: file.resolve() for what, file in files.items()}}


def _summary(outcome: Outcome, losses: Path, clock: Path) -> Section:
    eager, compiled = outcome.eager, outcome.compiled
    facts = Facts({
        "an eager step": units.seconds(eager.per_step(0.1)), "a compiled step": units.seconds(compiled.per_step(0.1)),
        "times as fast": f"{outcome.speedup:.1f}", "of the test digits right": f"{100 * outcome.accuracies[1]:.1f} %",
        "greatest difference of the losses": f"{outcome.difference:.1g}",
    })
    rows = [(r.name, *map(units.seconds, (r.first, r.rest, r.per_step(), r.per_step(0.1))), f"{r.losses[-1]:.4f}",
             f"{100 * right:.1f} %") for r, right in zip((eager, compiled), outcome.accuracies, strict=True)]
    header = ("", "first step", "the others", "median step", "fastest tenth", "last loss", "test digits right")
    text = (f"One model, trained twice on the same {outcome.train:,} digits from the same start and in the same order, "
            f"{len(eager.losses)} steps of {BATCH}: eager, operation by operation, and compiled, one call a step. Both "
            "take turns of equal length on the same machine; each has its own clock. The first compiled step holds the "
            "compilation. The large figures are of the fastest tenth of the steps, which other programs on the machine "
            "disturb least.")
    smoothed = "The same losses, each the mean of the last 20 steps, over the seconds that each side computed."
    return Section("The outcome", text, facts, Table(header, rows), Image(losses, "The two curves lie on each other."),
                   Image(clock, smoothed))


def _model(outcome: Outcome, picture: Path) -> Section:
    text = "Traced from ordinary code, for a batch of 64. The text is Python: it can be pasted into a file and run."
    return Section("The model", text, Code(str(outcome.graph)), Svg(picture.read_text(encoding="utf-8")))


def _passes(why: Explanation) -> Section:
    rows = [(row.name, row.nodes, row.kernels, units.flops(row.flops), units.nbytes(row.bytes),
             units.nbytes(row.peak or 0), f"{row.seconds * 1e3:.1f}") for row in why.history.table(peak=True)]
    table = Table(("pass", "nodes", "kernels", "FLOPs", "bytes", "peak memory", "ms"), rows)
    text = ("Forward, backward and the Adam update are one graph. Each pass takes a graph and gives one; step through "
            "what they did with the arrow keys, click on nodes, and read kernels in the last tab. Peak memory is that "
            "of the intermediates, planned ahead into one arena.")
    steps = page(why.history, "the training step", why.kernel_rows())
    return Section("The training step, pass by pass", text, table, Page(steps, 900))


def _kernels(why: Explanation) -> Section:
    rows = [(_short(row.kernel, 27), _short(", ".join(row.ops), 30), units.seconds(row.seconds),
             units.flops(row.cost.flops), units.nbytes(row.cost.bytes), units.rate(row.gflops * 1e9),
             units.bandwidth(row.gbytes * 1e9),
             units.percent(row.roofline) if row.roofline is not None else "–")
            for row in sorted(why.rows, key=lambda row: -row.seconds)]
    table = Table(("kernel", "holds", "time", "FLOPs", "bytes", "rate", "bandwidth", "roofline"), rows)
    sources = {row.path: row.source for row in why.rows}
    codes = [Code(source, path.name, folded=True) for path, source in sources.items()]
    note = ("The roofline is the least time that the machine's arithmetic peak and bandwidth allow, over the time it "
            "took.")
    return Section("Kernels", *why.summary().splitlines(), note, table, *codes)


def _smooth(losses: list[float], window: int = 20) -> list[float]:
    """Each loss with those before it, averaged."""
    return [sum(losses[max(0, n - window + 1):n + 1]) / min(n + 1, window) for n in range(len(losses))]


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length - 1] + "…"


def _about(outcome: Outcome) -> Section:
    return Section("This run", Table(("", ""), [
        ("machine", f"{platform.platform()}, {build.vector_bits()} bit vectors ({build.isa()})"),
        ("Python", platform.python_version()),
        ("digits", f"{outcome.train:,} + {outcome.test:,} of MNIST (LeCun, Cortes, Burges)"),
        ("kernels", f"{outcome.kernels_compiled} compiled in this run, in {build.kernel_dir()}"),
    ]))
