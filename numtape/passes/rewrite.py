"""Rebuilding a graph through a rule: what every rewriting pass has in common."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from numtape.ir.graph import Builder, Graph, Value, replay
from numtape.ir.interpreter import active
from numtape.ir.op import Op

# (op, its new inputs, attrs) -> an equal value to use instead, or None to keep the node.
Rule = Callable[[Op, tuple[Value, ...], Mapping[str, Any]], Value | None]
# (old node, its new inputs) -> the same.
NodeRule = Callable[[Value, tuple[Value, ...]], Value | None]


def rewrite(graph: Graph, rule: Rule | None = None, number: bool = True) -> Graph:
    """The graph rebuilt under `rule`, which also sees every node that it makes itself.

    Equal computations are shared with `number`.
    """
    builder = Builder(number=number, simplify=rule)
    return _rebuilt(graph, builder, builder.keep)


def rebuild(graph: Graph, rule: NodeRule) -> Graph:
    """The graph rebuilt under a rule for its own nodes, for what depends on who reads them."""
    builder = Builder(number=True)

    def run(node: Value, arguments: tuple[Value, ...]) -> Value:
        builder.scope.inherited = node.origin
        found = rule(node, arguments)
        return found if found is not None else builder.keep(node, arguments)

    return _rebuilt(graph, builder, run)


def _rebuilt(
    graph: Graph, builder: Builder, run: Callable[[Value, tuple[Value, ...]], Value]
) -> Graph:
    inputs = list(map(builder.keep_input, graph.inputs, graph.names))
    with active(builder):
        new = replay(graph, inputs, run)
    rebuilt = builder.finish(
        graph.name,
        (new[v] for v in graph.outputs),
        ((new[old], new[v]) for old, v in graph.updates),
        graph.early,
    )
    return without_dead_nodes(rebuilt)


def without_dead_nodes(graph: Graph) -> Graph:
    """Only the nodes from which a result is computed."""
    live = set(graph.results)
    kept = []
    for node in reversed(graph.nodes):
        if node in live:
            kept.append(node)
            live.update(node.inputs)
    return replace(graph, nodes=tuple(reversed(kept)))
