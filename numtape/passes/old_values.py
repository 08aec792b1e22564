"""Old values: what a result shows of storage that the program updates is copied first. Exact.

A tape updates storage at its end. A result that is a view of such storage, or an update that puts
the old value of one input into another, would otherwise see the new value.
"""

from dataclasses import replace

from numtape.ir.graph import Graph, Value
from numtape.ir.ops.elementwise import cast
from numtape.ir.types import Type


def old_values(graph: Graph) -> Graph:
    """The graph with copies of the old values that its results show."""
    updated = {old for old, _ in graph.updates}
    copies: dict[Value, Value] = {}

    def kept(v: Value) -> Value:
        if _storage(v) not in updated:
            return v
        if v not in copies:
            copies[v] = Value(cast, (v,), {"dtype": v.dtype}, Type(v.dtype, v.shape), v.origin)
        return copies[v]

    outputs = tuple(map(kept, graph.outputs))
    updates = tuple((old, new if new is old else kept(new)) for old, new in graph.updates)
    nodes = (*graph.nodes, *copies.values())
    return replace(graph, nodes=nodes, outputs=outputs, updates=updates)


def _storage(v: Value) -> Value:
    """What a view looks at in the end."""
    while v.op.view is not None:
        (v,) = v.inputs
    return v
