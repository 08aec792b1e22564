"""Common-subexpression elimination: the same op on the same values is computed once. Exact.

The builder's value table does it while the graph is rebuilt (value numbering).
"""

from numtape.ir.graph import Graph
from numtape.passes.rewrite import rewrite


def common_subexpressions(graph: Graph) -> Graph:
    """The graph with equal computations shared."""
    return rewrite(graph)
