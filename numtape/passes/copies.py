"""Copies: what is copied into another order of axes is computed in that order. Reassociating.

A reshape of a transposed result is a copy, which takes time, and memory beside its original. An
entrywise result or a concatenation can be computed in the order of the copy, and whoever wants
the other order looks at it through a view. Entries stay as they are, but not where they lie in
memory, by which NumPy and BLAS choose the order of their sums.
"""

import numpy as np

from numtape.ir.graph import Graph, Value
from numtape.ir.ops.shapes import concatenate_op, reshape_op, transpose_op
from numtape.passes.rewrite import rebuild

Axes = tuple[int, ...]


def copies(graph: Graph) -> Graph:
    """The graph with as few copies of transposed results as may be."""
    wanted = _wanted(graph)

    def rule(node: Value, inputs: tuple[Value, ...]) -> Value | None:
        return _in_order(node, inputs, wanted[node]) if node in wanted else None

    return rebuild(graph, rule)


def _wanted(graph: Graph) -> dict[Value, Axes]:
    """The orders of axes that results are copied into, by result."""
    shown = set(graph.results)
    found: dict[Value, Axes] = {}
    for x in (node.inputs[0] for node in graph.nodes if _is_copy(node)):
        (source,) = x.inputs
        axes = x.attrs["axes"]
        # Rows stay rows: what reads them is as fast in either order.
        if _able(source) and source not in shown and axes[-1] == len(axes) - 1:
            found.setdefault(source, axes)
    return found


def _able(x: Value) -> bool:
    joins = x.op is concatenate_op
    whole = x.op.entrywise and x.op.view is None and all(v.ndim in (0, x.ndim) for v in x.inputs)
    return joins or (whole and x.op.kernel is not None)


def _is_copy(node: Value) -> bool:
    """Whether a reshape finds its entries in another order."""
    if node.op is not reshape_op or node.inputs[0].op is not transpose_op:
        return False
    try:
        np.reshape(_prototype(node.inputs[0]), node.shape, copy=False)
    except ValueError:
        return True
    return False


def _prototype(x: Value) -> np.ndarray:
    """An array with the strides of a transposed value, never read."""
    (source,) = x.inputs
    return np.empty(source.shape, np.bool_).transpose(x.attrs["axes"])


def _in_order(node: Value, inputs: tuple[Value, ...], axes: Axes) -> Value:
    """The node computed on transposed inputs, and looked at as it was."""
    attrs = dict(node.attrs)
    if node.op is concatenate_op:
        attrs["axis"] = axes.index(attrs["axis"])
    turned = (v.transpose(axes) if v.ndim else v for v in inputs)
    back = tuple(axes.index(i) for i in range(len(axes)))
    return node.op(*turned, **attrs).transpose(back)
