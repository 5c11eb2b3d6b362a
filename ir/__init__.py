"""What a program is: types, ops, graphs, and the one door through which every operation goes.

    >>> from tinytorch.ir import f32, Builder
    >>> from tinytorch.ir import ops
    >>> build = Builder("twice")
    >>> with build: y = ops.mul(build.input("x", f32[2, 3]), 2.0)
    >>> print(build.finish([y]))                                    # doctest: +SKIP

Everything here is plain NumPy: nothing in this folder knows about kernels, gradients or users.
"""

assert __name__ == "tinytorch.ir", "import tinytorch.ir, not the folder ir: every class would exist twice"

from . import config, errors, ops
from .cost import Cost, graph_cost, node_cost
from .dtypes import DType, as_dtype, bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8
from .graph import Graph, Node, Source, Value, evaluate
from .interp import Builder, Evaluate, Interpreter, Operand, Recorder, bind, current, is_tracing, using
from .op import Kind, Op, as_tuple, registry
from .plan import MemoryPlan
from .serialize import load_graph, save_graph
from .text import from_text, to_text
from .types import TensorType
from .verify import verify

__all__ = [
    "Builder", "Cost", "DType", "Evaluate", "Graph", "Interpreter", "Kind", "MemoryPlan", "Node", "Op", "Operand",
    "Recorder", "Source", "TensorType", "Value", "as_dtype", "as_tuple", "bf16", "bind", "bool_", "config", "current",
    "errors", "evaluate", "f16", "f32", "f64", "from_text", "graph_cost", "i8", "i16", "i32", "i64", "is_tracing",
    "load_graph", "node_cost", "ops", "registry", "save_graph", "to_text", "u8", "using", "verify",
]
