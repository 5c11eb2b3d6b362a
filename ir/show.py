"""Put a graph before somebody's eyes: a file, a browser, a notebook."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import import_module
from pathlib import Path

from .graph import Graph
from .page import Stage, stages_of, write_page
from .picture import to_svg


def to_html(graph: Graph, path: str | Path | None = None, history: Sequence[Stage] | None = None) -> str:
    """The page about `graph` (and how it came about, if there is a history); with `path`, also written there."""
    return write_page(path, stages_of(graph, history), graph.name)


def show(graph: Graph, path: str | Path | None = None, history: Sequence[Stage] | None = None) -> Path:
    """Write `<name>.svg` and `<name>.html` into the folder `path`, and show the page.

    Without `path` the folder is a temporary one, the same for the whole process: showing is for looking, and should not
    leave files in your project. A notebook shows the page inline; an interactive session on a machine with a display
    opens the browser; otherwise a line on the error stream says where the page is.

    Returns:
        The path of the HTML file.
    """
    folder = Path(path) if path is not None else _temporary_folder()
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]", "_", graph.name) or "graph"
    (folder / f"{name}.svg").write_text(to_svg(graph), encoding="utf-8")
    target = (folder / f"{name}.html").resolve()
    text = to_html(graph, target, history)
    if not (_show_in_notebook(text) or _open_browser(target)):
        print(f"tinytorch: {graph.name} is drawn in {target}", file=sys.stderr)
    return target


@cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tinytorch-graphs-"))


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def _show_in_notebook(text: str) -> bool:
    if not in_notebook():
        return False
    display = import_module("IPython.display")  # a notebook has it; nothing else of ours needs it
    style = "width:100%;height:640px;border:1px solid #8884;border-radius:6px"
    display.display(display.HTML(f'<iframe srcdoc="{escape(text)}" style="{style}"></iframe>'))
    return True


def _open_browser(target: Path) -> bool:
    interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)
    display = sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return interactive and display and "CI" not in os.environ and webbrowser.open(target.as_uri())


# -- what notebooks ask for: never raises, whatever is wrong with the graph or the machine -----------------------------


def repr_svg(graph: Graph) -> str | None:
    """The picture, or None where there can be none."""
    try:
        return to_svg(graph)
    except Exception:
        return None


def repr_html(graph: Graph) -> str:
    """The picture with the text under it; without a picture the text, and without a text the summary."""
    text = _text(graph)
    picture = repr_svg(graph)
    if picture is None:
        return f"<pre>{text}</pre>"
    return (
        f'<div style="overflow:auto;max-height:640px">{picture}</div><details><summary>{escape(repr(graph))}</summary>'
        f'<pre style="overflow:auto">{text}</pre></details>'
    )


def _text(graph: Graph) -> str:
    try:
        return escape(str(graph))
    except Exception:
        return escape(repr(graph))
