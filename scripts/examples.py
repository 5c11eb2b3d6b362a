"""Run the examples on the full data, one after another, and write what they reached into docs/results.md.

    make examples                              all of them
    make examples ARGS="perceptron xor"        those whose name or script contains one of these words
    make examples ARGS=--list                  which there are
    make examples ARGS=--table                 none: only write the table again, from what is stored

Each runs in a process of its own, with an empty kernel cache, so that "first call" is what a newcomer waits for. What a
run reports is stored in build/results, and the table is made of that; of an example that has not been run here, the
line that stands in docs/results.md stays. Exit status 1 if a gate or a time is missed, or a run breaks off.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results.md"
STORE = ROOT / "build" / "results"


@dataclass(frozen=True)
class Example:
    """A run: its name in the table, the script under examples/, its arguments, and the minutes that it may take."""

    name: str
    script: str
    args: tuple[str, ...] = ()
    minutes: float | None = None  # on two cores; None: as long as it likes

    @property
    def command(self) -> str:
        """How a reader runs it."""
        return " ".join(("python", f"examples/{self.script}", *self.args))


EXAMPLES = (
    Example("perceptron", "perceptron_1957/rosenblatt_perceptron.py", minutes=1),
    Example("xor", "xor_1969/minsky_xor_problem.py", minutes=1),
    Example("mlp", "lenet_1998/train_mlp.py", minutes=2),
    Example("lenet", "lenet_1998/train_lenet.py", minutes=2),
    Example("names", "bengio_2003/train_names.py", minutes=2),
    Example("cnn-quick", "alexnet_2012/train_cnn.py", ("--quick",), minutes=2.5),
    Example("cnn", "alexnet_2012/train_cnn.py", minutes=12),
    Example("gpt", "gpt_2018/train_gpt.py", minutes=2.5),
    Example("gpt-long", "gpt_2018/train_gpt.py", ("--long",)),
    Example("story", "stories/tell_story.py", minutes=1),
    Example("prune-channels", "prune_cnn/prune_channels.py"),
    Example("prune-weights", "prune_cnn/prune_weights.py"),
)

HEAD = """# What the examples reach

Written by `make examples` from the runs themselves; do not edit. Every run has a process of its own and the full data;
its kernel cache is empty at first, and "first call" is the time that its training steps took to be traced, optimised
and compiled. The time is that of the whole command, from the start of Python to the last picture. Gates are those of
[the scripts](../examples/README.md); an accuracy is the share of test data that is right, a loss is in nats.

| run | | reached | seed | time | first call | on | date, version |
| --- | --- | --- | ---: | ---: | ---: | --- | --- |
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for, and write the table after each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="run only what contains one of these words in its name or script")
    parser.add_argument("--list", action="store_true", help="name the runs, and run none")
    parser.add_argument("--table", action="store_true", help="write the table from what is stored, and run none")
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(f"{example.name:<12} {example.command}" for example in EXAMPLES))
        return 0
    try:
        chosen = choose(args.words)
    except ValueError as error:
        parser.error(str(error))
    rows = [] if args.table else [run_and_store(example) for example in chosen]
    write_table()
    print("\n".join(f"{row['name']:<12} {row['status']} in {row['seconds']:.0f} s" for row in rows))
    print(f"the table: {RESULTS.relative_to(ROOT)}")
    return 0 if all(row["status"] == "reached" for row in rows) else 1


def choose(words: Sequence[str]) -> list[Example]:
    """The examples that contain one of the words, all where there are none; ValueError for a word that finds none."""
    for word in words:
        if not any(word in example.name or word in example.script for example in EXAMPLES):
            raise ValueError(f"no example is called {word!r}; there are {', '.join(e.name for e in EXAMPLES)}")
    return [e for e in EXAMPLES if not words or any(word in e.name or word in e.script for word in words)]


def run_and_store(example: Example) -> dict[str, Any]:
    """Run one, and keep its row under build/results; the table is renewed, so that a later crash loses nothing."""
    from rich.console import Console

    Console().rule(f"{example.name}: {example.command}", align="left")
    row = run(example)
    STORE.mkdir(parents=True, exist_ok=True)
    (STORE / f"{example.name}.json").write_text(json.dumps(row, indent=1) + "\n")
    write_table()
    return row


def run(example: Example) -> dict[str, Any]:
    """The row of one run: what the script reported, and what only somebody outside of it can tell."""
    output = ROOT / "build" / "examples" / example.name
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("*.json"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="tinytorch-cache-") as cache:
        command = [sys.executable, str(ROOT / "examples" / example.script), *example.args, "--output", str(output)]
        began = time.perf_counter()
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, "TINYTORCH_CACHE": cache}).returncode
        seconds = time.perf_counter() - began
    written = (json.loads(path.read_text()) for path in output.glob("*.json"))
    report = next((row for row in written if "gates" in row), None)
    return {"name": example.name, "status": judge(example, status, seconds, report), "seconds": round(seconds, 2),
            "report": report, "machine": machine(), "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "version": version()}


def judge(example: Example, status: int, seconds: float, report: dict[str, Any] | None) -> str:
    """In a word or two, how it went."""
    if report is None or status not in (0, 1):
        return f"broke off with exit status {status}"
    if status == 1 or not report["reached"]:
        return "missed"
    return "reached" if example.minutes is None or seconds <= 60 * example.minutes else "too slow"


def machine() -> str:
    """Processor, cores and vectors, as `tito doctor` finds them."""
    from tinytorch.cli.doctor import examine

    found = examine()
    cpu = found["machine"]["cpu"] if found["machine"] else found["platform"]
    return f"{cpu}, {found['threads']} of {found['cores']} cores, {found['isa']['vector_bits']} bit vectors"


def version() -> str:
    """Of tinytorch."""
    import tinytorch

    return tinytorch.__version__


def write_table() -> None:
    """Write docs/results.md: stored rows, and else the lines that stand there."""
    old = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    lines = []
    for example in EXAMPLES:
        stored, begin = STORE / f"{example.name}.json", f"| {example.name} |"
        kept = (line for line in old if line.startswith(begin))
        empty = f"{begin} `{example.command}` | not run | | | | | |"
        lines.append(line_of(example, json.loads(stored.read_text())) if stored.exists() else next(kept, empty))
    RESULTS.write_text(HEAD + "\n".join(lines) + "\n")


def line_of(example: Example, row: dict[str, Any]) -> str:
    """The line of the table for a stored row."""
    report = row["report"] or {"gates": [], "seed": None, "figures": {}}
    reached = "<br>".join(map(gate_in_words, report["gates"]))
    if row["status"] != "reached":
        reached = f"**{row['status']}**" + (f"<br>{reached}" if reached else "")
    first = report["figures"].get("first call, s")
    limit = "" if example.minutes is None else f" (≤ {example.minutes:g} min)"
    cells = (example.name, f"`{example.command}`", reached, report["seed"], f"{row['seconds']:.0f} s{limit}",
             None if first is None else f"{first:.1f} s", row["machine"], f"{row['date']}, {row['version']}")
    return "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"


def gate_in_words(gate: dict[str, Any]) -> str:
    """`test accuracy 0.9855 (≥ 0.98)`; what is missed, in bold."""
    bounds = [f"{sign} {gate[key]:g}" for sign, key in (("≥", "at_least"), ("≤", "at_most")) if gate[key] is not None]
    value = gate["value"] if isinstance(gate["value"], str) else f"{gate['value']:.4g}"
    text = f"{gate['name']} {value} ({' and '.join(bounds)})"
    return text if gate["reached"] else f"**{text}**"


if __name__ == "__main__":
    raise SystemExit(main())
