"""The one door: every operation goes to the current interpreter of its thread.

`Evaluate` computes at once with NumPy, `Builder` writes the operation down in a graph, `Recorder` does what the
interpreter below it does and keeps a list. Operands are handles: an `Operand` holds either an array (eager) or a
`Value` (traced), and its operators go through the door again, so that one gradient rule serves both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .dtypes import DType, as_dtype
from .errors import TinyTorchError, TracingError
from .graph import Graph, Node, Source, Value
from .op import Door, Op, as_tuple, bind, door, registry
from .types import Shape, TensorType

__all__ = ["Builder", "Evaluate", "Interpreter", "Operand", "Passing", "Record", "Recorder", "bind", "current",
           "is_tracing", "using"]


class Operand:
    """A handle on one tensor: its payload is a NumPy array or, while tracing, a `Value`."""

    __slots__ = ("__weakref__", "payload")
    is_constant = False  # whether a gradient rule may leave out this operand's cotangent, if that is costly
    __array_priority__ = 1000
    __array_ufunc__ = None  # NumPy: leave `array + operand` to us

    def __init__(self, payload: Any) -> None:
        self.payload = payload

    @classmethod
    def from_op(cls, payload: Any, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Operand:
        """The handle on a result of `op`; a subclass may remember where it came from."""
        return cls(payload)

    @classmethod
    def from_ops(cls, payloads: Sequence[Any], op: Op, operands: Sequence[Any],
                 attrs: Mapping[str, Any]) -> tuple[Operand, ...]:
        """The handles on the results of an `op` that gives several."""
        return tuple(cls.from_op(payload, op, operands, attrs) for payload in payloads)

    @property
    def shape(self) -> Shape:
        """Extents of the axes."""
        return self.payload.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return as_dtype(self.payload.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.payload.shape)

    @property
    def type(self) -> TensorType:
        """Element type and shape."""
        return TensorType(self.dtype, self.payload.shape)

    @property
    def is_traced(self) -> bool:
        """Whether this stands for a value of a graph being built, rather than for numbers."""
        return isinstance(self.payload, Value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.type}>"

    def __bool__(self) -> bool:
        if self.is_traced:
            raise TracingError(_branch_message(self.type))
        return bool(self.payload)

    def __add__(self, other: Any) -> Any: return registry["add"](self, other)
    def __radd__(self, other: Any) -> Any: return registry["add"](other, self)
    def __sub__(self, other: Any) -> Any: return registry["sub"](self, other)
    def __rsub__(self, other: Any) -> Any: return registry["sub"](other, self)
    def __mul__(self, other: Any) -> Any: return registry["mul"](self, other)
    def __rmul__(self, other: Any) -> Any: return registry["mul"](other, self)
    def __truediv__(self, other: Any) -> Any: return registry["div"](self, other)
    def __rtruediv__(self, other: Any) -> Any: return registry["div"](other, self)
    def __floordiv__(self, other: Any) -> Any: return registry["floor_div"](self, other)
    def __rfloordiv__(self, other: Any) -> Any: return registry["floor_div"](other, self)
    def __mod__(self, other: Any) -> Any: return registry["mod"](self, other)
    def __rmod__(self, other: Any) -> Any: return registry["mod"](other, self)
    def __pow__(self, other: Any) -> Any: return registry["pow"](self, other)
    def __rpow__(self, other: Any) -> Any: return registry["pow"](other, self)
    def __matmul__(self, other: Any) -> Any: return registry["matmul"](self, other)
    def __rmatmul__(self, other: Any) -> Any: return registry["matmul"](other, self)
    def __neg__(self) -> Any: return registry["neg"](self)
    def __abs__(self) -> Any: return registry["abs"](self)
    def __invert__(self) -> Any: return registry["logical_not" if self.dtype.kind == "b" else "bitwise_not"](self)
    def __lt__(self, other: Any) -> Any: return registry["lt"](self, other)
    def __le__(self, other: Any) -> Any: return registry["le"](self, other)
    def __gt__(self, other: Any) -> Any: return registry["gt"](self, other)
    def __ge__(self, other: Any) -> Any: return registry["ge"](self, other)
    def __and__(self, other: Any) -> Any: return registry["bitwise_and"](self, other)
    def __rand__(self, other: Any) -> Any: return registry["bitwise_and"](other, self)
    def __or__(self, other: Any) -> Any: return registry["bitwise_or"](self, other)
    def __ror__(self, other: Any) -> Any: return registry["bitwise_or"](other, self)
    def __xor__(self, other: Any) -> Any: return registry["bitwise_xor"](self, other)
    def __rxor__(self, other: Any) -> Any: return registry["bitwise_xor"](other, self)
    def __lshift__(self, other: Any) -> Any: return registry["left_shift"](self, other)
    def __rshift__(self, other: Any) -> Any: return registry["right_shift"](self, other)


def _branch_message(type_: TensorType) -> str:
    source = user_source()
    where = f"\n    {source.file}:{source.line}, in {source.function}\n        {source.text}" if source else ""
    return (f"Python cannot branch on a traced value ({type_}): while a function is traced its numbers are not "
            f"known.{where}\n  wrong:  if x.sum() > 0: y = a\n          else: y = b\n"
            "  right:  y = tt.where(x.sum() > 0, a, b)\n"
            "Branch on shapes, dtypes or ordinary Python values as you like; "
            "mark a Python argument static to trace once for each of its values.")


class Interpreter:
    """What to do with an operation. `process` takes canonical operands and attributes and gives handles back."""

    def process(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """Carry `op` out, in whatever sense."""
        raise NotImplementedError

    def assign(self, target: Operand, source: Operand) -> None:
        """Give the tensor `target` the value of `source`, in place."""
        raise TracingError(f"{type(self).__name__} cannot overwrite tensors")

    def update(self, op: Op, target: Operand, other: Operand) -> None:
        """Give `target` the value of op(target, other), of the same type, in place."""
        self.assign(target, self.process(op, (target, other), {}))

    def __enter__(self) -> Any:
        stack = door.__dict__.setdefault("stack", [])
        stack.append(door.interpreter)
        door.interpreter = self
        return self

    def __exit__(self, *exc: object) -> None:
        door.interpreter = door.__dict__["stack"].pop()


class Evaluate(Interpreter):
    """Compute at once, by each op's NumPy meaning. The handle class of the operands decides the handle class of the
    result."""

    def process(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        cls: type[Operand] = Operand
        arrays = []
        for operand in operands:
            payload = operand.payload
            if type(payload) is Value:
                raise TracingError(f"{op}: a traced value ({operand.type}) left the function it was traced in; "
                                   "return it instead of storing it")
            arrays.append(payload)
            if type(operand) is not Operand:
                cls = type(operand)
        try:
            result = op.eval(*arrays, **attrs)
        except (TypeError, ValueError, IndexError) as error:
            raise _explained(error, op, operands, attrs) from None
        if type(result) is tuple:
            return cls.from_ops(result, op, operands, attrs)
        return cls.from_op(result if type(result) is np.ndarray else np.asarray(result), op, operands, attrs)

    def assign(self, target: Operand, source: Operand) -> None:
        np.copyto(target.payload, source.payload)

    def update(self, op: Op, target: Operand, other: Operand) -> None:
        op.eval(target.payload, other.payload, out=target.payload)  # of a ufunc: no array is made


def _explained(error: Exception, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Exception:
    """What the type rule says of a call that NumPy refused; NumPy's own error if the types are right."""
    try:
        op.infer(*(operand.type for operand in operands), **attrs)
    except TinyTorchError as better:
        return better
    return error


@dataclass(slots=True)
class Record:
    """One operation that was carried out, with handles: what reverse mode walks over.

    `targets` are the handles that the operands' cotangents belong to, if those are not the operands themselves.
    """

    op: Op
    operands: Sequence[Any]
    attrs: Mapping[str, Any]
    outputs: tuple[Any, ...]
    targets: Sequence[Any] | None = None


class Passing(Interpreter):
    """Does what the interpreter does that was current when this one was made; a subclass changes what it wants."""

    def __init__(self) -> None:
        self.below = current()

    def process(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        return self.below.process(op, operands, attrs)

    def assign(self, target: Operand, source: Operand) -> None:
        self.below.assign(target, source)


class Recorder(Passing):
    """Keeps the records of what is done in `self.records`."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def process(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        result = self.below.process(op, operands, attrs)
        self.records.append(Record(op, operands, attrs, as_tuple(result)))
        return result


class Builder(Interpreter):
    """Writes operations down: a graph under construction.

    Arrays that meet traced values become constants (small ones) or bound inputs; `capture` decides for handles of a
    subclass, so that parameters can become inputs that stay connected to their owner. With `sources`, each node knows
    the user's line that asked for it.
    """

    def __init__(self, name: str = "graph", handle: type[Operand] = Operand, sources: bool = True) -> None:
        self.name = name
        self.handle = handle
        self.sources = sources
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.bound: dict[Value, np.ndarray] = {}
        self._lifted: dict[int, tuple[Any, Value]] = {}  # the handle is kept so that its id stays its own

    def input(self, name: str, type_: TensorType, bound: np.ndarray | None = None) -> Any:
        """A new input; with `bound`, one that has a value already."""
        value = Value(type_, name)
        self.inputs.append(value)
        if bound is not None:
            self.bound[value] = bound
        return self.handle(value)

    def process(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        inputs = tuple(o.payload if type(o.payload) is Value else self.lift(o) for o in operands)
        node = make_node(op, inputs, attrs, user_source() if self.sources else None)
        self.nodes.append(node)
        if len(node.outputs) > 1:
            return self.handle.from_ops(node.outputs, op, operands, attrs)
        return self.handle.from_op(node.output, op, operands, attrs)

    def emit(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any],
             source: Source | None = None) -> tuple[Value, ...]:
        """Write down one node directly on values."""
        node = make_node(op, inputs, attrs, source)
        self.nodes.append(node)
        return node.outputs

    def lift(self, operand: Operand) -> Value:
        """The value that stands for a handle with numbers in it."""
        found = self._lifted.get(id(operand))
        if found is None:
            self._lifted[id(operand)] = found = (operand, self.capture(operand))
        return found[1]

    def capture(self, operand: Operand) -> Value:
        """A fresh value for an array: a constant if it has few elements, a bound input otherwise."""
        array: np.ndarray = operand.payload
        if array.size <= MAX_INLINE:
            return self.emit(registry["constant"], (), constant_attrs(array))[0]
        return self.input("constant", TensorType.of(array), bound=array).payload

    def finish(self, outputs: Sequence[Any], donated: Mapping[int, Value] | None = None) -> Graph:
        """The graph, with these handles as its outputs; `donated` says which inputs the outputs of these numbers
        overwrite."""
        values = tuple(o.payload if type(o.payload) is Value else self.lift(o) for o in outputs)
        inputs = [v for v in self.inputs if v not in self.bound] + [v for v in self.inputs if v in self.bound]
        places = {value: number for number, value in enumerate(inputs)}
        targets = {output: places[value] for output, value in (donated or {}).items()}
        return Graph(self.name, tuple(inputs), tuple(self.nodes), values, dict(self.bound), targets)


MAX_INLINE = 16  # elements of an array that is written into the program itself


def constant_attrs(array: np.ndarray) -> dict[str, Any]:
    """The attributes of a `constant` node that gives `array`."""
    return {"value": nested_tuple(array), "dtype": as_dtype(array.dtype), "shape": array.shape}


def nested_tuple(array: np.ndarray) -> Any:
    """The elements as Python numbers: one, or nested tuples of them."""
    def freeze(item: Any) -> Any:
        return tuple(map(freeze, item)) if isinstance(item, list) else item

    wide = array.astype(np.float32) if as_dtype(array.dtype).name == "bf16" else array
    return freeze(wide.tolist())


def make_node(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any], source: Source | None = None) -> Node:
    """A node with fresh outputs, typed by the op's rule."""
    outputs = tuple(Value(t, op.name) for t in as_tuple(op.infer(*(v.type for v in inputs), **attrs)))
    return Node(op, inputs, dict(attrs), outputs, source)


def current() -> Interpreter:
    """The interpreter that the next operation of this thread goes to."""
    return door.interpreter


def is_tracing() -> bool:
    """Whether operations are written down as a graph instead of being evaluated: inside a traced function."""
    interpreter = current()
    while isinstance(interpreter, Passing):
        interpreter = interpreter.below
    return isinstance(interpreter, Builder)


@contextmanager
def using(interpreter: Interpreter) -> Iterator[Interpreter]:
    """Make `interpreter` current inside a `with` block."""
    with interpreter:
        yield interpreter


_PACKAGE = str(Path(__file__).resolve().parents[1])
_OURS = tuple(str(Path(_PACKAGE) / room) + "/" for room in ("ir", "passes", "runtime", "frontends", "tinytorch")) if (
    Path(_PACKAGE, "pyproject.toml").exists()) else (_PACKAGE + "/",)
_is_ours: dict[str, bool] = {}


def user_source() -> Source | None:
    """The innermost line on the stack that is not tinytorch's own."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        ours = _is_ours.get(file)
        if ours is None:
            ours = _is_ours[file] = file.startswith((*_OURS, "<frozen"))
        if not ours:
            return Source(file, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


Door.interpreter = Evaluate()

# Eager code makes and drops large arrays all the time. Having freed one block of 16 MB (untouched, so it costs
# nothing), glibc's malloc keeps the memory of smaller ones for the next, instead of handing it back to the system and
# taking page faults: a training step in half the time.
np.empty(1 << 24, np.uint8)
