"""Text of kernels from templates: `fill(template, body=lines)` puts blocks of lines where they are named.

    >>> from tinytorch.runtime.template import fill
    >>> print(fill("for i in range(<count>):\\n    <body>", count=3, body="a = i\\nb = a"), end="")
    for i in range(3):
        a = i
        b = a
"""

from __future__ import annotations

from textwrap import indent


def fill(template: str, **blocks: object) -> str:
    """The template with each `<name>` replaced; alone on its line, by a block of lines, indented alike, and an empty
    block leaves no line. A name that is not given stays, for another `fill`."""
    lines = []
    for line in template.splitlines():
        name = line.strip()
        if name.startswith("<") and name.endswith(">") and name[1:-1] in blocks:
            block = str(blocks[name[1:-1]]).rstrip("\n")
            lines += [indent(block, line[:len(line) - len(name)])] if block else []
            continue
        for key, value in blocks.items():
            line = line.replace(f"<{key}>", str(value))
        lines.append(line)
    return "\n".join(lines) + "\n"
