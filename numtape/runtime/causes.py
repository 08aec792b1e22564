"""What kind of work a kernel does: which cause of the gap to the matrix products it belongs to."""

from types import ModuleType

from numtape.ir.graph import Value
from numtape.ir.op import Op
from numtape.ir.ops import dense, indexing, random, ranges, reductions, shapes
from numtape.ir.ops.elementwise import cast
from numtape.ir.ops.linalg import matmul_op, vecdot
from numtape.ir.ops.shapes import filled, slice_

PRODUCTS, OPTIMIZER, OVERHEAD = "matrix products", "optimizer", "call overhead"
ELEMENTWISE, REDUCTIONS, COPIES = "elementwise", "reductions", "copies"
CAUSES = (
    PRODUCTS,
    ELEMENTWISE,
    REDUCTIONS,
    COPIES,
    "indexing",
    "random numbers",
    OPTIMIZER,
    OVERHEAD,
)


def _family(module: ModuleType, cause: str) -> dict[Op, str]:
    return {op: cause for op in vars(module).values() if isinstance(op, Op)}


_CAUSE = {
    **_family(indexing, "indexing"),
    **_family(random, "random numbers"),
    **_family(reductions, REDUCTIONS),
    **dict.fromkeys((vecdot,), REDUCTIONS),
    **_family(dense, COPIES),
    **_family(ranges, COPIES),
    **_family(shapes, COPIES),
    slice_: COPIES,
}


def cause(node: Value) -> str:
    """Why the kernel of a node takes time; a sum made a product with ones is a reduction."""
    if node.origin.module.split(".")[0] == OPTIMIZER:
        return OPTIMIZER
    if node.op is matmul_op:
        return REDUCTIONS if any(v.op is filled for v in node.inputs) else PRODUCTS
    if node.op is cast and node.inputs[0].dtype == node.dtype:
        return COPIES
    return _CAUSE.get(node.op, ELEMENTWISE)
