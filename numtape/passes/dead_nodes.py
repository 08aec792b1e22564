"""Dead-node elimination: drop what no output or update needs. Exact."""

from numtape.ir.graph import Graph
from numtape.passes.rewrite import without_dead_nodes


def dead_nodes(graph: Graph) -> Graph:
    """The graph without nodes that no result depends on, such as unused gradients."""
    return without_dead_nodes(graph)
