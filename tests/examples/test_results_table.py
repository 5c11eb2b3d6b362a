"""`make examples`: what it runs, what it stores, and that docs/results.md and examples/README.md tell the same."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
BOUND = re.compile(r"[≥≤] \d+(?:\.\d+)?")
README = {
    match[1]: line
    for line in (ROOT / "examples" / "README.md").read_text().splitlines()
    if (match := re.match(r"\| \[([\w/]+\.py)\]\(\1\) \|", line))
}
PERCEPTRON, MLP = "perceptron_1957/rosenblatt_perceptron.py", "lenet_1998/train_mlp.py"
LENET = "lenet_1998/train_lenet.py"
SCRIPTS = sorted(str(path.relative_to(ROOT / "examples")) for path in (ROOT / "examples").glob("*/[!_]*.py"))


def load_runner() -> ModuleType:
    """scripts/examples.py as a module of its own."""
    spec = importlib.util.spec_from_file_location("run_examples", ROOT / "scripts" / "examples.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_examples"] = module  # where dataclasses look annotations up
    spec.loader.exec_module(module)
    return module


RUNNER = load_runner()


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The runner in a folder of its own, with three scripts that take no time: one reaches, one misses, one crashes."""
    report = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--output", type=pathlib.Path)
parser.add_argument("--value", type=float, default=0.5)
args = parser.parse_args()
gate = {"name": "accuracy", "value": args.value, "at_least": 0.75, "at_most": None, "reached": args.value >= 0.75}
row = {"name": "x", "seed": 3, "reached": gate["reached"], "gates": [gate], "figures": {"first call, s": 1.25}}
(args.output / "x.json").write_text(json.dumps(row))
raise SystemExit(0 if gate["reached"] else 1)
"""
    for name, text in {"learns/a.py": report, "crashes/b.py": "raise RuntimeError('no')"}.items():
        path = tmp_path / "examples" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / "docs").mkdir()
    made = RUNNER.Example
    for name, value in {
        "ROOT": tmp_path,
        "RESULTS": tmp_path / "docs" / "results.md",
        "STORE": tmp_path / "build" / "results",
        "EXAMPLES": (made("good", "learns/a.py", ("--value", "0.8"), minutes=1), made("bad", "learns/a.py"),
                     made("broken", "crashes/b.py"), made("slow", "learns/a.py", ("--value", "0.9"), minutes=1e-6)),
        "machine": lambda: "a machine",
    }.items():
        monkeypatch.setattr(RUNNER, name, value)
    return RUNNER


def rows_of(path: Path) -> dict[str, list[str]]:
    """The cells of the table by the name of the run."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ")][2:]
    return {cells[0]: cells for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}


def test_all_are_run_and_each_verdict_is_told(runner: ModuleType) -> None:
    assert runner.main([]) == 1
    rows = rows_of(runner.RESULTS)
    assert list(rows) == ["good", "bad", "broken", "slow"] and {len(cells) for cells in rows.values()} == {8}
    assert rows["good"][2:4] == ["accuracy 0.8 (≥ 0.75)", "3"] and rows["good"][5:7] == ["1.2 s", "a machine"]
    assert rows["bad"][2] == "**missed**<br>**accuracy 0.5 (≥ 0.75)**"
    assert rows["broken"][2] == "**broke off with exit status 1**"
    assert rows["slow"][2].startswith("**too slow**<br>accuracy 0.9")


def test_some_are_run_and_the_other_lines_stay(runner: ModuleType) -> None:
    assert runner.main(["good"]) == 0
    assert rows_of(runner.RESULTS)["bad"][2] == "not run"
    assert runner.main(["bad"]) == 1
    first = rows_of(runner.RESULTS)
    (runner.STORE / "good.json").unlink()  # as after `make clean`: the line in the table is all there is
    assert runner.main(["--table"]) == 0
    assert rows_of(runner.RESULTS) == first and first["good"][2] == "accuracy 0.8 (≥ 0.75)"


def test_rows_are_stored_as_json(runner: ModuleType) -> None:
    runner.main(["good"])
    row: dict[str, Any] = json.loads((runner.STORE / "good.json").read_text())
    assert row["status"] == "reached" and row["report"]["seed"] == 3 and row["seconds"] > 0 and row["version"]


def test_unknown_word_is_an_error_that_names_the_others(runner: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        runner.main(["good", "nothing"])
    assert stopped.value.code == 2 and "'nothing'; there are good, bad, broken, slow" in capsys.readouterr().err


# --- the real table and the real README


def test_every_script_is_run_and_stands_in_the_readme() -> None:
    assert SCRIPTS == sorted({example.script for example in RUNNER.EXAMPLES}) == sorted(README)


def test_results_have_a_line_for_each_run() -> None:
    rows = rows_of(ROOT / "docs" / "results.md")
    assert list(rows) == [example.name for example in RUNNER.EXAMPLES], "make examples ARGS=--table"
    for example in RUNNER.EXAMPLES:
        assert rows[example.name][1] == f"`{example.command}`"
        assert "**" not in rows[example.name][2], f"{example.name} missed what it must reach"


def test_readme_names_the_gates_that_the_runs_had() -> None:
    rows = rows_of(ROOT / "docs" / "results.md")
    for example in RUNNER.EXAMPLES:
        for bound in BOUND.findall(rows[example.name][2]):
            assert bound in README[example.script], f"examples/README.md: {example.script} must reach {bound}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_explain_themselves(script: str, example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        example(script).main(["--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0 and all(f"--{option}" in told for option in ("seed", "quick", "eager", "output"))


@pytest.mark.parametrize("wrong", [["--digits", "3", "3"], ["--digits", "1", "12"], ["--epochs", "0"]])
def test_perceptron_wants_two_digits_and_an_epoch(wrong: list[str], example: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        example(PERCEPTRON).main(["--quick", *wrong])
    assert stopped.value.code == 2


@pytest.mark.parametrize("script", [PERCEPTRON, MLP, LENET])
def test_without_data_and_network_a_script_says_what_to_do(
    script: str, example: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*args: Any, **options: Any) -> None:
        assert options["download"]
        raise ConnectionError("train-images could not be downloaded")

    monkeypatch.setattr("tinytorch.data.mnist", unreachable)
    with pytest.raises(SystemExit) as stopped:
        example(script).main(["--output", str(tmp_path)])
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and "could not be downloaded" in told and "--quick" in told
