"""Every error that tinytorch raises on purpose: it names the thing, says what was expected, and what to try.

All derive from `TinyTorchError`, and from the built-in class that Python users would catch (`TypeError`, `ValueError`,
`IndexError`).
"""


class TinyTorchError(Exception):
    """The base class."""


class SettingError(TinyTorchError, ValueError):
    """An environment variable holds something that is not a setting."""


class DTypeError(TinyTorchError, TypeError):
    """A dtype that does not exist, or that an op does not take."""


class ShapeError(TinyTorchError, ValueError):
    """Shapes that do not fit together."""


class OpError(TinyTorchError, TypeError):
    """An op called with the wrong number or kind of operands or attributes."""


class UnknownOpError(TinyTorchError, KeyError):
    """An op name that is not in the vocabulary."""

    def __str__(self) -> str:
        return str(self.args[0])


class TracingError(TinyTorchError, TypeError):
    """Something that cannot be done with a value that is being traced, such as branching on it."""


class GradientError(TinyTorchError, RuntimeError):
    """A gradient that does not exist, or that was asked for in the wrong way."""


class VerifyError(TinyTorchError, ValueError):
    """A graph that breaks the rules of the language; the message shows the graph around the fault."""


class PassError(TinyTorchError, RuntimeError):
    """A pass that broke a graph or changed its meaning; the message names the pass."""


class BudgetError(PassError):
    """A memory budget that cannot be met; `smallest` is the least that can, in bytes."""

    def __init__(self, message: str, smallest: int) -> None:
        super().__init__(message)
        self.smallest = smallest


class FormatError(TinyTorchError, ValueError):
    """A file or text that is not what it should be."""


class DataError(TinyTorchError, RuntimeError):
    """A sample that cannot be read, or a worker that died; the message names the sample."""


class CompileError(TinyTorchError, RuntimeError):
    """A kernel that could not be made, with the graph and the source it was made from."""


def listing(names: object, limit: int = 12) -> str:
    """`a, b, c, … (20 in all)`, for messages."""
    items = sorted(str(name) for name in names)  # type: ignore[attr-defined]
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown}, … ({len(items)} in all)"
