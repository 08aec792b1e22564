"""Composite expansion: softmax, layer_norm, gelu and the like become the ops they mean. Exact.

Eager mode runs the same expansions, so no bit changes; expanded, what the forward and the reverse
part compute alike becomes visible to the passes that follow.
"""

from collections.abc import Mapping
from typing import Any

from numtape.ir.graph import Graph, Value
from numtape.ir.op import Op
from numtape.passes.rewrite import rewrite


def composites(graph: Graph) -> Graph:
    """The graph in primitive operations."""
    return rewrite(graph, _expanded, number=False)


def _expanded(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    return op.expand(*inputs, **attrs) if op.expand is not None else None
