"""Broadcast folding: compute before repeating, and let the operation itself repeat. Exact.

An elementwise op broadcasts its inputs anyway, so an explicit broadcast before it is dropped, and
an op whose inputs are all repeated is done once on the small ones.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from numtape.ir.graph import Graph, Value
from numtape.ir.op import Op
from numtape.ir.types import Shape
from numtape.passes.rewrite import rewrite


def broadcasts(graph: Graph) -> Graph:
    """The graph with broadcasts moved behind elementwise operations or into them."""
    return rewrite(graph, _folded)


def _folded(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    if op.broadcasts and op.name != "matmul":
        return _elementwise(op, inputs, attrs)
    if op.name in _UNARY and inputs[0].op.name == "broadcast_to":
        (x,) = inputs[0].inputs  # f(broadcast(x)) = broadcast(f(x))
        return op(x, **attrs).broadcast_to(inputs[0].shape)
    if op.name == "reshape" and inputs[0].op.name == "broadcast_to":
        return _reshaped(inputs[0], attrs["shape"])
    return None


_UNARY = {"neg", "exp", "log", "sqrt", "tanh", "cast", "square", "abs", "isfinite"}


def _elementwise(op: Op, inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    bare = tuple(v.inputs[0] if v.op.name == "broadcast_to" else v for v in inputs)
    if all(b is v for b, v in zip(bare, inputs, strict=True)):
        return None
    full = np.broadcast_shapes(*(v.shape for v in inputs))
    return op(*bare, **attrs).broadcast_to(full)  # f(broadcast(x), y) = broadcast(f(x, y))


def _reshaped(x: Value, shape: Shape) -> Value | None:
    """A repeated scalar in another shape is the scalar repeated."""
    (small,) = x.inputs
    return small.reshape(()).broadcast_to(shape) if small.size == 1 else None
