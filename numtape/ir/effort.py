"""What a node costs to compute, roughly: for choosing between two ways, and for saying so.

Only ratios count. Rounded from what one thread of a Zen 3 gives: products, passes over memory,
functions, and what any call costs.
"""

from collections.abc import Iterable

from numtape.ir.graph import Value
from numtape.ir.ops.linalg import matmul_op

CALL = 1e-6
PRODUCT = 1 / 50e9  # seconds per floating-point operation in float32
MOVED = 1 / 20e9  # seconds per byte read or written
ENTRY = {"exp": 1.3e-9, "log": 1.8e-9, "tanh": 2.9e-9, "sin": 3e-9, "cos": 3e-9, "uniform": 3e-9}


def effort(nodes: Iterable[Value]) -> float:
    """The seconds that computing the nodes takes, as an estimate; views cost nothing."""
    return sum(map(_seconds, nodes))


def _seconds(node: Value) -> float:
    if node.op.view is not None and node.op.kernel is None:
        return 0.0
    if node.op is matmul_op:
        width = node.dtype.itemsize / 4
        return CALL + 2 * node.size * node.inputs[0].shape[-1] * width * PRODUCT
    moved = node.nbytes + sum(v.nbytes for v in node.inputs)
    return CALL + max(moved * MOVED, node.size * ENTRY.get(node.op.name, 0.0))
