"""Broadcast folding: compute before repeating, and let the operation itself repeat. Reassociating.

An elementwise op broadcasts its inputs anyway, so an explicit broadcast before it is dropped, and
an op whose inputs are all repeated is done once on the small ones. Entries stay as they are, but
sums over repeated memory may go in another order than over a full array.
"""

from collections.abc import Mapping
from typing import Any

from numtape.ir.graph import Graph, Value
from numtape.ir.op import Op
from numtape.ir.ops.shapes import broadcast_op, reshape_op
from numtape.ir.types import Shape
from numtape.passes.identities import shape_of, without_broadcasts
from numtape.passes.rewrite import rewrite


def broadcasts(graph: Graph) -> Graph:
    """The graph with broadcasts moved behind elementwise operations or into them."""
    return rewrite(graph, _folded)


def _folded(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    bare = without_broadcasts(op, inputs)
    if bare is not None:  # f(broadcast(x), y) = broadcast(f(x, y))
        return op(*bare, **attrs).broadcast_to(shape_of(inputs))
    if op is reshape_op and inputs[0].op is broadcast_op:
        return _reshaped(inputs[0], attrs["shape"])
    return None


def _reshaped(x: Value, shape: Shape) -> Value | None:
    """A repeated scalar in another shape is the scalar repeated."""
    (small,) = x.inputs
    return small.reshape(()).broadcast_to(shape) if small.size == 1 else None
