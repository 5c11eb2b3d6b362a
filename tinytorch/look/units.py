"""Numbers as people read them: `1.2 MFLOP`, `3.4 KiB`, `12.5 µs`, `83 %`.

>>> flops(1_234_567), nbytes(3481), seconds(1.25e-5), percent(0.834)
('1.2 MFLOP', '3.4 KiB', '12.5 µs', '83 %')
"""

from __future__ import annotations

DECIMAL = ("", "k", "M", "G", "T", "P")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def _scaled(number: float, step: int, prefixes: tuple[str, ...]) -> tuple[str, str]:
    """Two or three digits, and the prefix that goes with them."""
    place = 0
    while abs(number) >= step * 0.9995 and place < len(prefixes) - 1:
        number /= step
        place += 1
    whole = abs(number) >= 99.95 or (place == 0 and number == int(number))
    return f"{number:.0f}" if whole else f"{number:.1f}", prefixes[place]


def count(number: float) -> str:
    """Things: `950`, `1.2 M`."""
    text, prefix = _scaled(number, 1000, DECIMAL)
    return f"{text} {prefix}".rstrip()


def flops(number: float) -> str:
    """Floating point operations: `1.2 MFLOP`."""
    text, prefix = _scaled(number, 1000, DECIMAL)
    return f"{text} {prefix}FLOP"


def rate(flops_per_second: float) -> str:
    """Floating point operations a second: `98.9 GFLOP/s`."""
    return flops(flops_per_second) + "/s"


def nbytes(number: float) -> str:
    """Bytes, in powers of 1024: `3.4 KiB`."""
    text, prefix = _scaled(number, 1024, BINARY)
    return f"{text} {prefix}"


def bandwidth(bytes_per_second: float) -> str:
    """Bytes a second, in powers of 1000 as memory makers count: `8.1 GB/s`."""
    text, prefix = _scaled(bytes_per_second, 1000, DECIMAL)
    return f"{text} {prefix}B/s"


def seconds(number: float) -> str:
    """Time: `12.5 µs`, `3.42 ms`, `1.25 s`, `2 min 5 s`."""
    if abs(number) >= 120:
        return f"{int(number) // 60} min {int(number) % 60} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(number) >= size * 0.9995:
            return f"{number / size:.3g} {unit}"
    return f"{number * 1e9:.0f} ns" if number else "0 s"


def percent(fraction: float) -> str:
    """A fraction: `83 %`, below ten `3.1 %`."""
    return f"{100 * fraction:.0f} %" if abs(fraction) >= 0.0995 else f"{100 * fraction:.1f} %"


def change(before: float, after: float) -> str:
    """How a number changed, as a percentage with its sign; empty if it did not."""
    if before == after:
        return ""
    if not before:
        return "new"
    part = (after - before) / abs(before)
    return (
        "+<1 %"
        if 0 < part < 0.005
        else "−<1 %"
        if -0.005 < part < 0
        else f"{'+' if part > 0 else '−'}{abs(100 * part):.0f} %"
    )
