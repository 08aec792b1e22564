"""Dense inputs: what adds up reads dense memory, as it does in eager mode. Exact.

NumPy and BLAS choose the order of their sums by where the entries lie. Exact tapes end with this
pass, so that results depend on the entries alone: an argument is copied in, a captured array is
read where it is, a pass leaves out a copy, and every sum is still taken in eager mode's order.
"""

from collections.abc import Mapping
from typing import Any

from numtape.ir.graph import INPUT, Graph, Value
from numtape.ir.op import Op
from numtape.ir.ops.dense import dense
from numtape.passes.rewrite import rewrite


def dense_inputs(graph: Graph) -> Graph:
    """The graph with `dense` in front of what sums; it costs nothing where memory is so."""
    return rewrite(graph, _densely)


def _densely(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    if op.ordered is None or all(map(_is_dense, inputs)):
        return None
    whole = op.ordered(*(v.type for v in inputs))
    return op(*map(_made_dense, inputs, whole), **attrs)


def _made_dense(value: Value, whole: bool) -> Value:
    return value if _is_dense(value) else dense(value, whole=whole)


def _is_dense(value: Value) -> bool:
    """Whether it has memory of its own, which a kernel filled."""
    return value.op is dense or (value.op.view is None and value.op is not INPUT)
