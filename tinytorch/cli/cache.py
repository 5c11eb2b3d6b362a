"""`tito cache`: the compiled kernels on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tinytorch.look import units
from tinytorch.runtime import build

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="The compiled kernels on disk: look, or clear.")


def facts() -> dict[str, Any]:
    """Folder, bytes, kernels in all and for this machine and version."""
    return {"folder": str(build.cache_dir()), "bytes": build.cache_size(),
            "kernels": sum(1 for _ in kernels(build.cache_dir())),
            "kernels_here": sum(1 for _ in build.kernel_dir().glob("*.o")), "folder_here": str(build.kernel_dir())}


def kernels(folder: Path) -> Iterator[Path]:
    """The object files of all machines and versions."""
    return folder.glob("*/*.o")


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Where the cache is, and how large."""
    found = facts()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    typer.echo(f"{found['folder']}\n{found['kernels']} kernels, {units.nbytes(found['bytes'])}; "
               f"{found['kernels_here']} of them for this machine and version")


@app.command()
def clear() -> None:
    """Delete all compiled kernels; they are compiled anew when they are needed."""
    before = facts()
    build.clear_cache()
    freed = units.nbytes(before["bytes"] - build.cache_size())
    typer.echo(f"{before['kernels']} kernels deleted, {freed} freed in {before['folder']}")
