"""One self-contained HTML file that tells about a run: headings, paragraphs, numbers, tables, pictures, code.

    report("report.html", "Training an MLP", [
        Section("Speed", "The same loss.", Facts({"eager": "1.9 s", "compiled": "0.23 s"}), Image("loss.svg")),
        Section("Graph", Svg(graph.to_svg()), Code(str(graph), "the graph as text", folded=True)),
    ])

Parts that are plain strings are paragraphs. Everything is escaped; pictures are inside the file; nothing is loaded from
anywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from tinytorch.ir.files import write_atomically

IMAGE_TYPES = {
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
}


@dataclass(frozen=True)
class Facts:
    """A few numbers that matter, large, by name."""

    facts: Mapping[str, str]

    def html(self) -> str:
        """This part as HTML."""
        cards = "".join(
            f"<div><b>{escape(str(value))}</b><span>{escape(name)}</span></div>" for name, value in self.facts.items()
        )
        return f'<div class="facts">{cards}</div>'


@dataclass(frozen=True)
class Table:
    """Rows under a header; numbers, and strings that begin like numbers, stand at the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def html(self) -> str:
        """This part as HTML."""
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        right = [
            bool(self.rows) and all(_numeric(row[place]) for row in self.rows) for place in range(len(self.header))
        ]
        head = "".join(f"<th{_side(r)}>{escape(str(cell))}</th>" for cell, r in zip(self.header, right, strict=True))
        body = "".join(
            "<tr>"
            + "".join(f"<td{_side(r)}>{escape(str(cell))}</td>" for cell, r in zip(row, right, strict=True))
            + "</tr>"
            for row in self.rows
        )
        return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _numeric(cell: Any) -> bool:
    return isinstance(cell, (int, float)) or (
        isinstance(cell, str) and (cell[:1].isdigit() or cell[:1] in ("", "–", "−", "-", "+"))
    )


def _side(right: bool) -> str:
    return ' class="n"' if right else ""


@dataclass(frozen=True)
class Svg:
    """A picture that is markup already, such as `graph.to_svg()`. It is not escaped: give it only what you made."""

    svg: str
    caption: str = ""

    def html(self) -> str:
        """This part as HTML."""
        return _figure(self.svg[max(self.svg.find("<svg"), 0) :], self.caption)


@dataclass(frozen=True)
class Image:
    """A PNG, SVG, JPEG or GIF file, taken into the report."""

    path: str | Path
    caption: str = ""

    def html(self) -> str:
        """This part as HTML."""
        path = Path(self.path)
        kind = IMAGE_TYPES.get(path.suffix.lower())
        if kind is None:
            raise ValueError(f"Image({str(path)!r}): expected a file ending in {', '.join(IMAGE_TYPES)}")
        data = base64.b64encode(path.read_bytes()).decode()
        return _figure(f'<img alt="{escape(self.caption or path.stem)}" src="data:{kind};base64,{data}">', self.caption)


@dataclass(frozen=True)
class Code:
    """Text in a fixed width; `folded` shows it when its title is clicked."""

    text: str
    title: str = ""
    folded: bool = False

    def html(self) -> str:
        """This part as HTML."""
        pre = f"<pre>{escape(self.text)}</pre>"
        if self.folded:
            return f"<details><summary>{escape(self.title or 'show')}</summary>{pre}</details>"
        return (f"<h3>{escape(self.title)}</h3>" if self.title else "") + pre


@dataclass(frozen=True)
class Page:
    """A whole HTML page in a frame, such as `graph.to_html(history=…)`."""

    page: str
    height: int = 760

    def html(self) -> str:
        """This part as HTML."""
        return f'<iframe sandbox="allow-scripts" style="height:{self.height}px" srcdoc="{escape(self.page)}"></iframe>'


Part = str | Facts | Table | Svg | Image | Code | Page


class Section:
    """A heading and what stands under it."""

    def __init__(self, title: str, *parts: Part) -> None:
        self.title = title
        self.parts = parts

    def html(self) -> str:
        """This section as HTML."""
        parts = (f"<p>{escape(part)}</p>" if isinstance(part, str) else part.html() for part in self.parts)
        return f"<section><h2>{escape(self.title)}</h2>{''.join(parts)}</section>"


def _figure(inside: str, caption: str) -> str:
    return f"<figure>{inside}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def report(path: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write the report and return its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(section.html() for section in sections)
    write_atomically(target, (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    ).encode())
    return target.resolve()


CSS = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5a6577;--line:#dfe3ea}
@media (prefers-color-scheme:dark){:root{--page:#12151b;--card:#1a1f28;--ink:#e7ebf2;--soft:#98a3b5;--line:#2d3541}}
*{box-sizing:border-box}
body{margin:0 auto;padding:28px 22px 60px;max-width:1180px;background:var(--page);color:var(--ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}
h1{font-size:26px;margin:0 0 18px}h2{font-size:18px;margin:0 0 8px}
h3{font-size:13px;color:var(--soft);margin:14px 0 4px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 22px;margin:0 0 16px}
p{max-width:75ch;margin:8px 0}
.facts{display:flex;flex-wrap:wrap;gap:12px;margin:10px 0}
.facts div{border:1px solid var(--line);border-radius:8px;padding:8px 18px}
.facts b{display:block;font-size:21px;font-variant-numeric:tabular-nums}.facts span{color:var(--soft);font-size:13px}
.wide{overflow-x:auto;margin:10px 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:4px}
th,td{padding:5px 16px 5px 0;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-size:13px}.n{text-align:right}
figure{margin:12px 0;overflow:auto;max-height:900px}figcaption{color:var(--soft);font-size:13px}
img,figure>svg{max-width:100%;height:auto;border-radius:6px}
pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
  background:var(--page);border:1px solid var(--line);
  border-radius:6px;padding:10px 12px;overflow:auto;max-height:560px;tab-size:4}
summary{cursor:pointer;color:var(--soft);margin:8px 0}
iframe{width:100%;border:1px solid var(--line);border-radius:8px}
"""
