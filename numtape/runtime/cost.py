"""What a step costs, counted from the graph before anything runs."""

from collections.abc import Iterable
from dataclasses import dataclass

from numtape.ir.graph import Value
from numtape.ir.ops.linalg import matmul_op, vecdot

_PRODUCTS = (matmul_op, vecdot)


@dataclass(frozen=True)
class Cost:
    """Work of one replay.

    flops     floating-point operations: two per multiply-add of a product, one per entry else.
    products  the part of `flops` in matrix products.
    nbytes    bytes that the kernels read and write.
    """

    flops: int
    products: int
    nbytes: int

    def __str__(self) -> str:
        share = 100 * self.products / max(1, self.flops)
        return f"{self.flops:,} flops ({share:.0f} % in products), {self.nbytes:,} bytes moved"


def cost(work: Iterable[Value]) -> Cost:
    """The cost of the nodes that a tape computes at replay."""
    flops = products = nbytes = 0
    for node in work:
        count = _flops(node)
        flops += count
        products += count if node.op in _PRODUCTS else 0
        nbytes += node.nbytes + sum(v.nbytes for v in node.inputs if not v.is_constant)
    return Cost(flops, products, nbytes)


def _flops(node: Value) -> int:
    if node.op in _PRODUCTS:
        return 2 * node.size * node.inputs[0].shape[-1]
    if node.inputs and node.dtype.kind == "f":
        return max(node.size, *(v.size for v in node.inputs if not v.is_constant), 0)
    return 0
