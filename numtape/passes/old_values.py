"""Old values: what is still read of storage after the program updates it is copied first. Exact.

A tape updates storage at its end. A result that is a view of such storage, an update that puts the
old value of one input into another, or a reverse tape that runs later would see the new value.
"""

from collections.abc import Collection
from dataclasses import replace

from numtape.ir.graph import Graph, Value, ancestors, first_part, root_of
from numtape.ir.ops.elementwise import cast
from numtape.ir.types import Type
from numtape.passes.rewrite import without_dead_nodes


def old_values(graph: Graph) -> Graph:
    """The graph with copies of the old values that it shows or reads later."""
    updated = dict.fromkeys(old for old, _ in graph.updates)
    if not updated:
        return graph
    return _shown(_read_late(graph, updated), updated)


def _shown(graph: Graph, updated: Collection[Value]) -> Graph:
    """Results that look at updated storage are copies."""
    copies: dict[Value, Value] = {}

    def kept(v: Value) -> Value:
        if root_of(v) not in updated:
            return v
        return copies.setdefault(v, _copy(v))

    outputs = tuple(map(kept, graph.outputs))
    updates = tuple((old, new if new is old else kept(new)) for old, new in graph.updates)
    end = first_part(graph, graph.nodes)  # a reverse tape must not slip in before them
    nodes = (*graph.nodes[:end], *copies.values(), *graph.nodes[end:])
    return replace(graph, nodes=nodes, outputs=outputs, updates=updates)


def _read_late(graph: Graph, updated: Collection[Value]) -> Graph:
    """What only the second of two tapes computes reads copies that the first has made."""
    if graph.early is None:
        return graph
    count = graph.early[1]
    first = ancestors((*graph.outputs[:count], *(new for _, new in graph.updates)))
    late: dict[Value, Value] = {old: _copy(old) for old in updated}
    nodes = list(late.values())  # in front: in the first tape
    for node in graph.nodes:
        is_view = node.op.view is not None
        moved = any(v in late for v in node.inputs) and (is_view or node not in first)
        if moved:
            inputs = tuple(late.get(v, v) for v in node.inputs)
            late[node] = Value(node.op, inputs, node.attrs, node.type, node.origin)
            nodes.append(late[node])
        if node in first or not moved:
            nodes.append(node)
    outputs = (*graph.outputs[:count], *(late.get(v, v) for v in graph.outputs[count:]))
    return without_dead_nodes(replace(graph, nodes=tuple(nodes), outputs=outputs))


def _copy(v: Value) -> Value:
    return Value(cast, (v,), {"dtype": v.dtype}, Type(v.dtype, v.shape), v.origin)
