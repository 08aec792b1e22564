"""Products in the layout of their readers: (A B)ᵀ is computed as Bᵀ Aᵀ. Reassociating.

The gradient of a weight that is used transposed comes out transposed as well. Turned round, the
product itself lies in memory as the optimizer reads it, and its passes run over whole lines. The
sums are the same, but BLAS may order them differently.
"""

from numtape.ir.graph import Graph, Value, users
from numtape.ir.ops.linalg import matmul_op
from numtape.ir.ops.shapes import transpose_op
from numtape.passes.rewrite import rebuild


def products(graph: Graph) -> Graph:
    """The graph with products that only a transpose reads made transposed."""
    readers = users(graph)
    results = set(graph.results)

    def turned(node: Value, arguments: tuple[Value, ...]) -> Value | None:
        (x,) = arguments if node.op is transpose_op else (None,)
        if x is None or x.op is not matmul_op or node.attrs["axes"] != (1, 0):
            return None
        (product,) = node.inputs
        if len(readers[product]) > 1 or product in results:
            return None
        a, b = x.inputs
        return matmul_op(b.transpose(1, 0), a.transpose(1, 0))

    return rebuild(graph, turned)
