"""Replace formulas that lose digits or overflow by ops that do not: one table of equations.

    Stabilize()(graph)
    tt.compile(f, passes=[Stabilize(), *passes.STANDARD])

`log(softmax(x))` is -inf where a chance is below 1e-38, and `log(1 + exp(x))` inf from 88 on; `log_softmax` and
`softplus` are neither. The equations hold for real numbers. In floating point the right side is the better one, so this
pass changes results, for the better, and is not among the standard passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinytorch.ir import Graph, Node, Operand, ops

from .rewrite import By, Edit, Rule, Table, rewrite


@dataclass(frozen=True)
class Stabilize:
    """No exponential that overflows, and no logarithm of what has been rounded to 0 or 1, where there is another way.

    >>> import tinytorch as tt
    >>> from tinytorch import passes
    >>> graph = tt.trace(lambda x: (1 + x.exp()).log(), tt.zeros(3))
    >>> [node.op.name for node in passes.Stabilize()(graph).nodes]
    ['softplus']
    """

    def __call__(self, graph: Graph, /) -> Graph:
        return rewrite(graph, TABLE)


def _log_softmax(node: Node, edit: Edit) -> Any:
    below = edit.made_by(node.inputs[0], ops.softmax)
    return below and ops.log_softmax(Operand(below.inputs[0]), **below.attrs)


def _logsumexp(node: Node, edit: Edit) -> Any:
    total = edit.made_by(node.inputs[0], ops.sum)
    e = total and edit.made_by(total.inputs[0], ops.exp)
    return e and total and ops.logsumexp(Operand(e.inputs[0]), **total.attrs)


def _softmax(node: Node, edit: Edit) -> Any:
    e, total = edit.made_by(node.inputs[0], ops.exp), edit.made_by(node.inputs[1], ops.sum)
    if e is None or total is None or total.inputs[0] is not e.output:
        return None
    axis, kept = total.attrs["axis"], total.attrs["keepdims"]
    return ops.softmax(Operand(e.inputs[0]), axis[0]) if kept and len(axis) == 1 else None


TABLE = Table((
    Rule("log(1 + x) = log1p(x)", lambda x: ops.log(1.0 + x), lambda x: ops.log1p(x)),
    Rule("eˣ - 1 = expm1(x)", lambda x: ops.exp(x) - 1.0, lambda x: ops.expm1(x)),
    Rule("log(1 + eˣ) = softplus(x)", lambda x: ops.log1p(ops.exp(x)), lambda x: ops.softplus(x)),
    Rule("log(eˣ + eʸ) = logaddexp(x, y)", lambda x, y: ops.log(ops.exp(x) + ops.exp(y)),
         lambda x, y: ops.logaddexp(x, y)),
    Rule("log σ(x) = -softplus(-x)", lambda x: ops.log(ops.sigmoid(x)), lambda x: -ops.softplus(-x)),
    Rule("1 - σ(x) = σ(-x)", lambda x: 1.0 - ops.sigmoid(x), lambda x: ops.sigmoid(-x)),
    By("log softmax(x) = log_softmax(x)", (ops.log,), _log_softmax),
    By("log Σ eˣ = logsumexp(x)", (ops.log,), _logsumexp),
    By("eˣ / Σ eˣ = softmax(x)", (ops.div,), _softmax),
))
